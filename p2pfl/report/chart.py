"""Curves over rounds as shapes for SVG: a band from the lowest to the highest peer, the middle half, the median, and alone.

Everything is in a square of 1000 by 1000 that the page stretches to whatever place there is; y points down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from p2pfl.report.record import Float, Mark

SIDE = 1000
# More points than pixels show nothing more; beyond, every k-th round is drawn and the last.
ROUNDS_DRAWN_MAX = 1000
MARKS_DRAWN_MAX = 200

Unit = Literal["percent", "number", "log", "bytes"]


@dataclass(frozen=True, slots=True)
class Tick:
    at: float  # percent of the axis, from the left or from the top
    text: str


@dataclass(frozen=True, slots=True)
class Axis:
    low: float
    high: float
    ticks: tuple[Tick, ...]
    log: bool = False

    def place(self, values: Float) -> Float:
        """0 (low) to 1 (high); NaN stays NaN, and so does what a logarithm can't show."""
        if not self.log:
            return (values - self.low) / (self.high - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log10(np.where(values > 0, values, np.nan))
        return np.asarray((logs - math.log10(self.low)) / (math.log10(self.high) - math.log10(self.low)))


@dataclass(frozen=True, slots=True)
class Stroke:
    at: float  # percent from the left
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    name: str
    title: str
    says: str  # for those who can't see it
    unit: Unit
    y: Axis
    x_ticks: tuple[Tick, ...]
    band: str  # SVG paths, empty where there is nothing to draw
    middle: str
    line: str
    alone: str
    marks: tuple[Stroke, ...]
    series: dict[str, list[float | None]]  # what the pointer reads out, at the rounds drawn

    def last(self, line: str) -> str:
        """What stands above the curve when nobody points at it."""
        return written(self.series[line][-1], self.unit)


def curves(
    name: str, title: str, unit: Unit, rounds: NDArray[np.int64], values: Float, alone: Float, marks: Sequence[Mark]
) -> Chart | None:
    """values [rounds, peers] (or [rounds, 1] for a curve of the whole), alone [rounds] or empty. None: never measured."""
    shown = np.where(np.isfinite(values), values, np.nan)
    if not np.isfinite(shown).any():
        return None
    low, lower, median, upper, high = _quantiles(shown)
    y = y_axis(unit, np.concatenate([low, high, alone]))
    x = _along(rounds.astype(np.float64), int(rounds[-1]))
    kept = _kept(np.asarray(np.isfinite(shown).any(axis=1)))
    many = shown.shape[1] > 1
    series = {"median": median}
    if many:
        series |= {"low": low, "high": high}
    if len(alone):
        series["alone"] = alone
    if unit == "bytes" and many:
        series["total"] = np.nansum(shown, axis=1)
    return Chart(
        name=name,
        title=title,
        says=_says(title, unit, rounds, median),
        unit=unit,
        y=y,
        x_ticks=round_ticks(int(rounds[-1])),
        band=area_path(x[kept], y.place(low[kept]), y.place(high[kept])) if many else "",
        middle=area_path(x[kept], y.place(lower[kept]), y.place(upper[kept])) if values.shape[1] > 3 else "",
        line=line_path(x[kept], y.place(median[kept])),
        alone=line_path(x[kept], y.place(alone[kept])) if len(alone) else "",
        marks=strokes(marks, int(rounds[-1])),
        series={key: listed(line) for key, line in series.items()},
    )


def rounds_drawn(count: int) -> NDArray[np.int64]:
    """The rounds 0..count-1, thinned to at most about ROUNDS_DRAWN_MAX, the last always among them."""
    stride = max(1, math.ceil((count - 1) / ROUNDS_DRAWN_MAX))
    return np.unique(np.append(np.arange(0, count, stride), count - 1))


def row_means(values: Float) -> Float:
    """The mean of what is finite in each row, NaN where nothing is."""
    finite = np.isfinite(values)
    count = finite.sum(axis=1)
    total = np.where(finite, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def strokes(marks: Sequence[Mark], last: int) -> tuple[Stroke, ...]:
    inside = [mark for mark in marks if math.isfinite(mark.round) and 0 <= mark.round <= last]
    return tuple(Stroke(100 * mark.round / max(last, 1), mark.text) for mark in inside[:MARKS_DRAWN_MAX])


def y_axis(unit: Unit, values: Float) -> Axis:
    finite = values[np.isfinite(values)]
    if unit == "log":
        return _log_axis(finite[finite > 0])
    low, high = float(finite.min(initial=math.inf)), float(finite.max(initial=-math.inf))
    if unit == "bytes":
        low, high = 0.0, max(high, 1.0)
    if high - low < 1e-9 * max(abs(high), 1.0):
        low, high = (low - 0.05, high + 0.05) if unit == "percent" else (low - 0.5 * abs(low), high + 0.5 * abs(high) + 1e-9)
    step = _nice_step((high - low) / 4, 1024.0 ** max(0, int(math.log(max(high, 1), 1024))) if unit == "bytes" else 1.0)
    bottom, top = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    if unit == "percent":
        bottom, top = max(bottom, 0.0), min(top, 1.0) if high <= 1 else top
    count = round((top - bottom) / step)
    ticks = tuple(Tick(100 * (1 - i * step / (top - bottom)), _ticked(bottom + i * step, unit)) for i in range(count + 1))
    return Axis(bottom, top, ticks)


def written(value: float | None, unit: Unit) -> str:
    """A value as the page shows it; page.js has its twin for what the pointer reads."""
    if value is None or not math.isfinite(value):
        return "–"
    match unit:
        case "percent":
            return f"{100 * value:.1f} %"
        case "bytes":
            return written_bytes(value)
        case "number" | "log":
            return _three_digits(value)


def written_bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1024
    return f"{_three_digits(value)} TiB"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:#.3g}"


def _quantiles(values: Float) -> Float:
    """[5, rounds]: lowest, quartiles and median, highest over the peers that are there; NaN where nobody is."""
    some = np.isfinite(values).any(axis=1)
    found = np.full((5, len(values)), np.nan)
    if some.any():
        found[:, some] = np.nanquantile(values[some], [0, 0.25, 0.5, 0.75, 1], axis=1)
    return found


def _log_axis(values: Float) -> Axis:
    if values.size == 0:
        return Axis(0.1, 1.0, (Tick(100, "0.1"), Tick(0, "1")), log=True)
    bottom, top = math.floor(math.log10(values.min()) + 1e-9), math.ceil(math.log10(values.max()) - 1e-9)
    top = max(top, bottom + 1)
    every = max(1, math.ceil((top - bottom) / 5))
    ticks = [Tick(100 * (1 - (power - bottom) / (top - bottom)), _power(power)) for power in range(bottom, top + 1, every)]
    if top - bottom == 1:
        between = 10.0**bottom * 3
        ticks.append(Tick(100 * (1 - math.log10(3)), _ticked(between, "log")))
    return Axis(10.0**bottom, 10.0**top, tuple(ticks), log=True)


def _ticked(value: float, unit: Unit) -> str:
    match unit:
        case "percent":
            return f"{100 * value:.4g} %"
        case "bytes":
            power = min(4, max(0, int(math.log(max(value, 1), 1024) + 1e-9)))
            return f"{value / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
        case "number" | "log":
            return f"{round(value, 12):g}"


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -3 <= exponent <= 3 else f"1e{exponent}"


def _nice_step(rough: float, base: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below `rough`, in units of `base` (1024 for bytes)."""
    scaled = rough / base
    power = 10.0 ** math.floor(math.log10(scaled))
    return base * power * next(step for step in (1, 2, 2.5, 5, 10) if step * power >= scaled * (1 - 1e-9))


def round_ticks(last: int) -> tuple[Tick, ...]:
    step = max(1, int(_nice_step(last / 5, 1.0))) if last else 1
    return tuple(Tick(100 * value / max(last, 1), str(value)) for value in range(0, last + 1, step))


def _along(rounds: Float, last: int) -> Float:
    return rounds / max(last, 1)


def line_path(x: Float, y: Float) -> str:
    return "".join("M" + "L".join(_points(x[part], y[part])) for part in _runs(np.isfinite(y)))


def area_path(x: Float, low: Float, high: Float) -> str:
    """Closed shapes between two curves, one for each stretch without a gap."""
    return "".join(
        "M" + "L".join([*_points(x[part], high[part]), *reversed(_points(x[part], low[part]))]) + "Z"
        for part in _runs(np.isfinite(low) & np.isfinite(high))
    )


def _points(x: Float, y: Float) -> list[str]:
    return [f"{SIDE * a:.1f} {SIDE * (1 - b):.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True)]


def _runs(present: NDArray[np.bool_]) -> list[slice]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(np.int8), [0]])))
    return [slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _kept(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The rounds to draw: not those between two that were measured as far apart as usual, so that a line joins these. Where
    more are missing, nobody was there: that is a gap."""
    at = np.flatnonzero(seen)
    steps = np.diff(at)
    counts = np.bincount(steps) if len(steps) else np.zeros(1, dtype=np.int64)
    usual = int(np.flatnonzero(counts == counts.max())[-1])
    kept = np.ones_like(seen)
    for start, step in zip(at[:-1].tolist(), steps.tolist(), strict=True):
        if step <= usual:
            kept[start + 1 : start + step] = False
    return kept


def _says(title: str, unit: Unit, rounds: NDArray[np.int64], median: Float) -> str:
    measured = np.flatnonzero(np.isfinite(median))
    first, last = measured[0], measured[-1]
    return (
        f"{title}: median {written(float(median[first]), unit)} at round {rounds[first]}, "
        f"{written(float(median[last]), unit)} at round {rounds[last]}."
    )


def listed(values: Float) -> list[float | None]:
    """Five significant digits: what the pointer reads, not what one calculates with."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]
