"""What a sweep shows: one line for each combination, the mean over its seeds and how far that can be trusted."""

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from p2pfl.failure import Failure
from p2pfl.report.chart import Unit, written
from p2pfl.report.overlay import Line, Overlay, Panel, Row, Table, render_overlay
from p2pfl.report.overlay_svg import overlay_picture
from p2pfl.report.record import Float
from sim.grid import Axis
from sim.interval import mean_and_half_width
from sim.sweep import CELLS, Finished, Outcome, label

NAME_WIDTH = 29
ALONE = "alone"
BAND = "Lines are means over the seeds, bands their 95 % t-intervals."


@dataclass(frozen=True, slots=True)
class Number:
    """A mean over seeds and half the width of its 95 % t-interval, NaN where there is none."""

    mean: float
    half: float


@dataclass(frozen=True, slots=True)
class Point:
    """One combination, over the seeds that did not diverge."""

    values: tuple[str, ...]
    cells: tuple[Finished, ...]
    accuracy: Number
    accuracy_least: Number
    alone: Number
    distance: Number
    bytes_per_peer: Number
    seconds: Number

    @property
    def outcomes(self) -> list[Outcome]:
        return [one.outcome for one in self.cells if one.outcome is not None]


def points(finished: Sequence[Finished]) -> list[Point]:
    """In the order in which the combinations first come."""
    groups: dict[tuple[str, ...], list[Finished]] = {}
    for one in finished:
        groups.setdefault(one.cell.values, []).append(one)
    return [_point(values, tuple(group)) for values, group in groups.items()]


def table(axes: Sequence[Axis], found: Sequence[Point]) -> str:
    """At most 80 columns."""
    title = " ".join(axis.key.rpartition(".")[2] for axis in axes)
    lines = [f"{title[:NAME_WIDTH]:<{NAME_WIDTH}}{'accuracy':>15}{'min':>8}{'alone':>8}{'consensus':>11}{'MB/peer':>9}"]
    for point in found:
        name = " ".join(point.values)
        name = name if len(name) <= NAME_WIDTH else name[: NAME_WIDTH - 2] + "…"
        lines.append(
            f"{name:<{NAME_WIDTH}}{_with_half(point.accuracy):>15}{_three(point.accuracy_least.mean):>8}"
            f"{_three(point.alone.mean):>8}{_three(point.distance.mean):>11}{_three(point.bytes_per_peer.mean / 1e6):>9}"
            + (f"  {gone} diverged" if (gone := len(point.cells) - len(point.outcomes)) else "")
        )
    return "\n".join(lines)


def as_data(axes: Sequence[Axis], found: Sequence[Point]) -> dict[str, Any]:
    """JSON-ready."""
    return {
        "over": {axis.key: list(axis.values) for axis in axes},
        "interval": "mean and half the width of the 95 % t-interval over the seeds",
        "points": [
            {
                "values": {axis.key: value for axis, value in zip(axes, point.values, strict=True)},
                "accuracy_mean": _json(point.accuracy),
                "accuracy_min": _json(point.accuracy_least),
                "alone_mean": _json(point.alone),
                "consensus_distance": _json(point.distance),
                "bytes_per_peer": _json(point.bytes_per_peer),
                "seconds": _json(point.seconds),
                "cells": [
                    {"seed": one.cell.seed, "cell": one.cell.name, "diverged": one.outcome is None} for one in point.cells
                ],
            }
            for point in found
        ],
    }


def as_csv(axes: Sequence[Axis], finished: Sequence[Finished]) -> str:
    """A row for each cell; numbers keep every digit and are empty where not measured."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    numbers = ("accuracy_mean", "accuracy_min", "alone_mean", "consensus_distance", "bytes_per_peer", "seconds")
    writer.writerow([*(axis.key for axis in axes), "seed", *numbers, "cell"])
    for one in finished:
        known: Sequence[float] = [math.nan] * len(numbers)
        if (outcome := one.outcome) is not None:
            distance = _last(outcome.distance_curve)
            known = [outcome.accuracy, outcome.accuracy_least, outcome.alone, distance, outcome.bytes_per_peer, outcome.seconds]
        cells = [repr(number) if math.isfinite(number) else "" for number in known]
        writer.writerow([*one.cell.values, one.cell.seed, *cells, one.cell.name])
    return out.getvalue()


def overlay(title: str, axes: Sequence[Axis], seeds: int, found: Sequence[Point]) -> Overlay:
    """Small multiples: a panel for each combination of all keys but the last, a line for each value of the last."""
    lines = axes[-1].values if axes else ("all",)
    facts = [f"{len(found)} combinations", f"{seeds} seed{'' if seeds == 1 else 's'} each"]
    facts += [f"{axis.key}: {', '.join(axis.values)}" for axis in axes]
    says = BAND if seeds > 1 else "One seed: no bands. Several tell luck from merit: --seeds 5."
    accuracy = _with_alone(
        _row("Mean accuracy of the peers", says, "percent", axes, found, lambda outcome: outcome.accuracy_curve), axes, found
    )
    legend = [_legend(axes, value) for value in lines]
    if any(line.name == ALONE for panel in accuracy.panels for line in panel.lines):
        legend.append(ALONE)
    distance = _row(
        "Consensus distance", f"{says} Both of the logarithm.", "log", axes, found, lambda outcome: outcome.distance_curve
    )
    return Overlay(
        kind="sweep",
        title=title,
        facts=tuple(facts),
        legend=tuple(legend),
        rows=(accuracy, distance),
        tables=(("At the end", "Mean over the seeds ± half of its 95 % t-interval.", _page_table(axes, found)),),
    )


def write(
    folder: Path, title: str, axes: Sequence[Axis], seeds: int, finished: Sequence[Finished], with_svg: bool = False
) -> list[Point]:
    """sweep.html, sweep.json and sweep.csv, beside the cells; if wanted, accuracy.svg and distance.svg."""
    found = points(finished)
    shown = overlay(title, axes, seeds, found)
    data = json.dumps({"schema_version": 1, **as_data(axes, found)}, allow_nan=False)
    files = {"sweep.html": render_overlay(shown), "sweep.json": data + "\n", "sweep.csv": as_csv(axes, finished)}
    if with_svg:
        drawn = zip(("accuracy.svg", "distance.svg"), shown.rows, strict=True)
        files |= {name: picture for name, row in drawn if (picture := overlay_picture(row, shown.legend)) is not None}
    for name, text in files.items():
        try:
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            why = f"{folder / name}: {error.strerror}."
            raise Failure("output_unwritable", why, "Mend that; the same command goes on from the cells.") from None
    return found


def _point(values: tuple[str, ...], cells: tuple[Finished, ...]) -> Point:
    outcomes = [one.outcome for one in cells if one.outcome is not None]
    columns = [
        [one.accuracy, one.accuracy_least, one.alone, _last(one.distance_curve), one.bytes_per_peer, one.seconds]
        for one in outcomes
    ]
    means, halves = mean_and_half_width(np.array(columns, dtype=np.float64).reshape(len(outcomes), 6))
    return Point(values, cells, *map(Number, means.tolist(), halves.tolist()))


def _row(title: str, says: str, unit: Unit, axes: Sequence[Axis], found: Sequence[Point], curve: Any) -> Row:
    panels: dict[str, list[Line]] = {}
    for point in found:
        panel = panels.setdefault(label(axes[:-1], point.values[:-1]) if len(axes) > 1 else "", [])
        if point.outcomes:
            name = _legend(axes, point.values[-1] if axes else "all")
            panel.append(_line(name, [curve(one) for one in point.outcomes], unit))
    return Row(title, says, unit, tuple(Panel(name, tuple(lines)) for name, lines in panels.items()))


def _with_alone(row: Row, axes: Sequence[Axis], found: Sequence[Point]) -> Row:
    """One more line in every panel whose combinations are all the same without gossip: those of different graphs are."""
    groups: dict[str, list[list[Float]]] = {}
    for point in found:
        curves = [one.alone_curve for one in point.outcomes]
        groups.setdefault(label(axes[:-1], point.values[:-1]) if len(axes) > 1 else "", []).append(curves)
    panels = []
    for panel in row.panels:
        first, *others = groups[panel.title]
        is_one = bool(first) and all(map(len, first)) and all(_are_equal(first, curves) for curves in others)
        lines = (*panel.lines, _line(ALONE, first, "percent")) if is_one else panel.lines
        panels.append(replace(panel, lines=lines))
    return replace(row, panels=tuple(panels))


def _are_equal(first: Sequence[Float], other: Sequence[Float]) -> bool:
    return len(first) == len(other) and all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, other, strict=True))


def _line(name: str, curves: Sequence[Float], unit: Unit) -> Line:
    """Of a quantity on a logarithmic axis, mean and interval are those of its logarithm; a share is from 0 to 1."""
    is_log = unit == "log"
    rows = min(map(len, curves))
    values = np.array([curve[:rows] for curve in curves])
    if is_log:
        values = np.log10(np.where(values > 0, values, np.nan))
    middle, half = mean_and_half_width(values)
    low, high = middle - half, middle + half
    drawn = (middle, np.clip(low, 0, 1), np.clip(high, 0, 1)) if unit == "percent" else (middle, low, high)
    return Line(name, np.arange(rows, dtype=np.float64), *(10.0**line if is_log else line for line in drawn))


def _legend(axes: Sequence[Axis], value: str) -> str:
    return f"{axes[-1].key.rpartition('.')[2]} = {value}" if axes else "all"


def _page_table(axes: Sequence[Axis], found: Sequence[Point]) -> Table:
    columns = (*(axis.key for axis in axes), "accuracy", "lowest", "alone", "consensus distance", "sent per peer", "seconds")
    rows = [
        (
            (
                *point.values,
                _spread(point.accuracy, "percent"),
                written(point.accuracy_least.mean, "percent"),
                written(point.alone.mean, "percent"),
                _spread(point.distance, "number"),
                written(point.bytes_per_peer.mean, "bytes"),
                written(point.seconds.mean, "number"),
            ),
            tuple(
                (f"seed {one.cell.seed}", f"{CELLS}/{one.cell.name}/report.html")
                for one in point.cells
                if one.outcome is not None
            ),
        )
        for point in found
    ]
    return Table(columns, tuple(rows), named=len(axes))


def _spread(number: Number, unit: Unit) -> str:
    return written(number.mean, unit) + (f" ± {written(number.half, unit)}" if math.isfinite(number.half) else "")


def _with_half(number: Number) -> str:
    return _three(number.mean) + (f" ±{number.half:.3f}" if math.isfinite(number.half) else "")


def _three(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.3g}"


def _last(curve: Float) -> float:
    finite = curve[np.isfinite(curve)]
    return float(finite[-1]) if len(finite) else math.nan


def _json(number: Number) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in (("mean", number.mean), ("half", number.half))}
