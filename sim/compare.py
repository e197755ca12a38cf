"""Finished runs beside one another, whoever made them: a table, what their settings differ in, and one page."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from p2pfl.failure import ExitCode, Failure
from p2pfl.report.chart import Unit, written
from p2pfl.report.overlay import Line, Overlay, Panel, Row, Table, render_overlay
from p2pfl.report.plain import plain
from p2pfl.report.record import Float, RunRecord
from p2pfl.report.record_json import from_json
from p2pfl.report.summary import summary

RUNS_MAX = 32
NAME_WIDTH = 30
BANDS = "Lines are means over the peers of a run, bands reach from its lowest to its highest peer."


@dataclass(frozen=True, slots=True)
class Named:
    """A run as one calls it here: by its folder."""

    name: str
    record: RunRecord


def read(folders: Sequence[Path]) -> list[Named]:
    """The records in these folders; the path of a result.json will do as well."""
    if len(folders) < 2:
        raise Failure("usage", "To compare takes two runs or more.", "Give their folders.", ExitCode.USAGE)
    if len(folders) > RUNS_MAX:
        raise Failure("usage", f"{len(folders)} runs are more than {RUNS_MAX} to tell apart.", "Give fewer.", ExitCode.USAGE)
    names = _names(folders)
    return [Named(name, _record(folder)) for name, folder in zip(names, folders, strict=True)]


def table(runs: Sequence[Named]) -> str:
    """At most 80 columns."""
    lines = [f"{'run':<{NAME_WIDTH}}{'peers':>7}{'rounds':>7}{'accuracy':>9}{'min':>7}{'alone':>7}{'consens.':>9}"]
    for run in runs:
        found = summary(run.record)
        name = plain(run.name)
        name = name if len(name) < NAME_WIDTH else "…" + name[-(NAME_WIDTH - 2) :]
        numbers = (found["accuracy_mean"], found["accuracy_min"], found["alone_mean"], found["consensus_distance"])
        mean, low, alone, distance = ("-" if number is None else f"{number:.3f}" for number in numbers)
        peers, rounds = len(run.record.peers), found["rounds"]
        lines.append(f"{name:<{NAME_WIDTH}}{peers:>7}{rounds:>7}{mean:>9}{low:>7}{alone:>7}{distance:>9}")
    differing = differences(runs)
    return "\n".join([*lines, "", "they differ in " + (", ".join(differing) or "nothing that they were told")])


def differences(runs: Sequence[Named]) -> dict[str, list[str]]:
    """Dotted keys of settings that are not the same everywhere, with each run's value; "" where it has none."""
    settings = [dict(_settled({"seed": run.record.seed, **run.record.settings})) for run in runs]
    keys = sorted(set().union(*settings))
    found = {key: [own.get(key, "") for own in settings] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def as_data(runs: Sequence[Named]) -> list[dict[str, Any]]:
    """JSON-ready; peers are counted, not listed."""
    found = [{"run": run.name, "engine": run.record.engine, **summary(run.record)} for run in runs]
    return [{**one, "peers": len(one["peers"])} for one in found]


def write(path: Path, runs: Sequence[Named]) -> None:
    """The page."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(runs), encoding="utf-8", newline="\n")
    except OSError as error:
        raise Failure("output_unwritable", f"--out {path}: {error.strerror}.", "Give a file that can be written.") from None


def page(runs: Sequence[Named]) -> str:
    """Curves over one another, what the runs end with, and what their settings differ in."""
    differing = differences(runs)
    end = Table(
        ("run", "title", "engine", "peers", "rounds", "accuracy", "lowest", "alone", "distance", "sent", "seconds"),
        tuple((_ends_with(run), ()) for run in runs),
        named=3,
    )
    differ = Table(
        ("setting", *(run.name for run in runs)),
        tuple(((key, *values), ()) for key, values in differing.items()),
        named=1 + len(runs),
    )
    tables = [("At the end", "", end)]
    tables += [("What differs", "Settings that are not the same in all runs.", differ)] if differing else []
    return render_overlay(
        Overlay(
            kind="comparison",
            title=" · ".join(run.name for run in runs) if len(runs) <= 4 else f"{len(runs)} runs",
            facts=() if len(runs) > 4 else (f"{len(runs)} runs",),
            legend=tuple(run.name for run in runs),
            rows=(
                _row("Accuracy", BANDS, "percent", runs, [run.record.accuracy for run in runs]),
                _row("Loss", BANDS, "number", runs, [run.record.loss for run in runs]),
                _row("Consensus distance", "", "log", runs, [run.record.consensus_distance[:, None] for run in runs]),
                _row("Bytes sent per peer", BANDS, "bytes", runs, [run.record.bytes_sent for run in runs]),
            ),
            tables=tuple(tables),
        )
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of every path, or as many parts as tell them apart."""
    places = [path.parent if path.name == "result.json" else path for path in (folder.absolute() for folder in folders)]
    for count in range(1, max(len(place.parts) for place in places) + 1):
        names = ["/".join(place.parts[-count:]) for place in places]
        if len(set(names)) == len(names):
            return names
    raise Failure("usage", "The same run is given twice.", "Leave one of them out.", ExitCode.USAGE)


def _record(folder: Path) -> RunRecord:
    path = folder / "result.json" if folder.is_dir() else folder
    hint = "Give the folder of a run, such as .p2pfl/runs/digits-...-001."
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Failure("bad_record", f"{path}: not UTF-8.", hint) from None
    except OSError as error:
        raise Failure("unreadable_run", f"{path}: {error.strerror}.", hint) from None
    try:
        return from_json(text)
    except Failure as failure:
        raise Failure(failure.code, f"{path}: {failure.message}", failure.hint) from None


def _ends_with(run: Named) -> tuple[str, ...]:
    found = summary(run.record)
    mean, low, alone = (written(found[key], "percent") for key in ("accuracy_mean", "accuracy_min", "alone_mean"))
    return (
        run.name,
        run.record.title,
        run.record.engine,
        str(len(run.record.peers)),
        str(found["rounds"]),
        mean,
        low,
        alone,
        written(found["consensus_distance"], "number"),
        written(math.fsum(peer.bytes_sent for peer in run.record.peers), "bytes"),
        written(run.record.seconds, "number"),
    )


def _row(title: str, says: str, unit: Unit, runs: Sequence[Named], values: Sequence[Float]) -> Row:
    lines = tuple(_line(run.name, own) for run, own in zip(runs, values, strict=True) if own.size)
    return Row(title, says, unit, (Panel("", lines),))


def _line(name: str, values: Float) -> Line:
    """Of [rounds + 1, peers]."""
    some = np.isfinite(values).any(axis=1)
    shown = np.where(np.isfinite(values), values, np.nan)
    low, middle, high = np.full((3, len(values)), np.nan)
    low[some], high[some] = np.nanmin(shown[some], axis=1), np.nanmax(shown[some], axis=1)
    middle[some] = np.nanmean(shown[some], axis=1)
    rounds = np.arange(len(values), dtype=np.float64)
    if values.shape[1] == 1:
        low = high = np.full(len(values), np.nan)
    return Line(name, rounds, middle, low, high)


def _settled(settings: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _settled(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", json.dumps(value, default=str, ensure_ascii=False)
