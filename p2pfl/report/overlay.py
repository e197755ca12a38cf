"""Several runs, or groups of runs, over one another: small multiples of lines with bands, a table, and links to the runs.

The page has no script at all, and every panel of a row has the same axes, so that panels compare by eye.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2
import numpy as np
from markupsafe import Markup

from p2pfl.report.chart import Axis, Stroke, Tick, Unit, area_path, line_path, round_ticks, strokes, written, y_axis
from p2pfl.report.page import asset, content_hash, environment
from p2pfl.report.plain import plain
from p2pfl.report.record import Float, Mark

COLOURS = 8
"""Lines have colours c0 .. c7 of overlay.css; of more lines in a panel the colours begin again, dashed."""


@dataclass(frozen=True, slots=True)
class Line:
    """A curve of one run or group: `rounds` [k], `middle`, `low` and `high` [k]; NaN breaks the band and the line."""

    name: str
    rounds: Float
    middle: Float
    low: Float
    high: Float


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the small multiples."""

    title: str
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """Panels of one quantity, on common axes."""

    title: str
    says: str  # what the line is, and what the band
    unit: Unit
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text; a row may link to the page of its run. The first `named` columns are names, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...]  # (cells, links as (text, href))
    named: int = 1


@dataclass(frozen=True, slots=True)
class Overlay:
    """What the page shows."""

    kind: str
    title: str
    facts: tuple[str, ...]
    legend: tuple[str, ...]  # the names of the lines, in the order of their colours
    rows: tuple[Row, ...]
    tables: tuple[tuple[str, str, Table], ...]  # (title, note, table)


def render_overlay(overlay: Overlay) -> str:
    """The whole HTML document. Write it as UTF-8."""
    style = asset("page.css") + asset("overlay.css")
    colour = {name: index for index, name in enumerate(overlay.legend)}
    return (
        _templates()
        .get_template("overlay.html")
        .render(
            overlay=overlay,
            style=Markup(style),
            policy=f"default-src 'none'; style-src '{content_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'",
            rows=[(row, panels) for row in overlay.rows if (panels := drawn(row, colour))],
            key=[(name, *_look(index)) for name, index in colour.items()],
        )
    )


@dataclass(frozen=True, slots=True)
class DrawnLine:
    colour: int
    is_dashed: bool
    band: str
    path: str
    dots: tuple[tuple[float, float], ...]  # in percent, where a line has one point only
    says: str


@dataclass(frozen=True, slots=True)
class DrawnPanel:
    title: str
    says: str
    y: Axis
    x_ticks: tuple[Tick, ...]
    lines: tuple[DrawnLine, ...]
    marks: tuple[Stroke, ...]


def drawn(row: Row, colour: dict[str, int]) -> list[DrawnPanel]:
    everything = [values for panel in row.panels for line in panel.lines for values in (line.low, line.middle, line.high)]
    values = np.concatenate(everything) if everything else np.empty(0)
    if not np.isfinite(values).any():
        return []
    y = y_axis(row.unit, values)
    last = int(max(line.rounds[-1] for panel in row.panels for line in panel.lines if len(line.rounds)))
    return [
        DrawnPanel(
            title=panel.title,
            says=f"{row.title}, {panel.title}: " + "; ".join(_says(line, row.unit) for line in panel.lines),
            y=y,
            x_ticks=_few(round_ticks(last)),
            lines=tuple(_drawn_line(line, row.unit, y, last, colour[line.name]) for line in panel.lines),
            marks=strokes(panel.marks, last),
        )
        for panel in row.panels
    ]


def _drawn_line(line: Line, unit: Unit, y: Axis, last: int, index: int) -> DrawnLine:
    colour, is_dashed = _look(index)
    measured = np.isfinite(line.middle)
    x, middle = line.rounds[measured] / max(last, 1), y.place(line.middle[measured])
    low, high = y.place(line.low[measured]), y.place(line.high[measured])
    if y.log:  # an interval may reach below zero, which no logarithm shows: down to the edge
        low = np.where(np.isfinite(high) & ~np.isfinite(low), 0.0, low)
    low, high = np.clip(low, 0, 1), np.clip(high, 0, 1)
    dots = ((100 * float(x[0]), 100 * (1 - float(middle[0]))),) if len(x) == 1 and math.isfinite(middle[0]) else ()
    return DrawnLine(colour, is_dashed, area_path(x, low, high), line_path(x, middle), dots, _says(line, unit))


def _look(index: int) -> tuple[int, bool]:
    return index % COLOURS, index >= COLOURS


def _says(line: Line, unit: Unit) -> str:
    finite = np.flatnonzero(np.isfinite(line.middle))
    if not len(finite):
        return f"{line.name}: not measured"
    at = finite[-1]
    return f"{line.name}: {written(float(line.middle[at]), unit)} at round {line.rounds[at]:g}"


def _few(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Panels are narrow: every second tick is enough."""
    return tuple(ticks[:: 2 if len(ticks) > 4 else 1])


def _templates() -> jinja2.Environment:
    templates = environment()
    templates.filters["plain"] = lambda text: plain(str(text))
    return templates
