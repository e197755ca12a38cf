"""The pictures of a run that are not curves: the graph, alone beside together, and who has which labels."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p2pfl.report.chart import Stroke, Tick, round_ticks, row_means, strokes, y_axis
from p2pfl.report.layout import positions
from p2pfl.report.link_picture import edge_paths
from p2pfl.report.record import Float, RunRecord
from p2pfl.report.summary import alive, final_accuracy, final_alone

SHADES = 16
# Above, a graph is a ball of wool and its layout takes seconds: the page shows a mosaic of peers, worst to best.
GRAPH_PEERS_MAX = 1200
MOSAIC_CELLS_MAX = 2500
NAMED_PEERS_MAX = 24
VALUED_PEERS_MAX = 12
PAIRS_MAX = 16
BINS = 40
# A table with the counts in it up to here, a picture of columns beyond.
HEAT_TABLE_PEERS_MAX = 24
HEAT_TABLE_CLASSES_MAX = 20
HEAT_COLUMNS_MAX = 320
TIMELINE_PEERS_MAX = 160


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    shade: int | None  # 0..SHADES-1; None: not measured or gone
    gone: bool
    label: str
    inside: str
    title: str


@dataclass(frozen=True, slots=True)
class Graph:
    """In a square of 1000. `edges` are those of `edge_paths`; a mosaic, in which a dot stands for `each` peers, has none."""

    dots: tuple[Dot, ...]
    radius: float
    edges: tuple[tuple[int, str], ...]
    legend: tuple[str, str]
    mosaic: bool
    each: int


def graph(record: RunRecord, names: tuple[str, ...]) -> Graph | None:
    if not record.peers:
        return None
    if len(record.peers) > GRAPH_PEERS_MAX:
        return _mosaic(record)
    n = len(record.peers)
    radius = min(46.0, max(8.0, 150 / math.sqrt(n) if n > 8 else 46.0))
    margin = radius + (48 if n <= NAMED_PEERS_MAX else 12)
    place = margin + positions(n, record.edges) * (1000 - 2 * margin)
    accuracy = final_accuracy(record)
    low, high = _colour_range(accuracy[alive(record)])
    shades = _shades(accuracy, low, high)
    dots = tuple(
        Dot(
            x=round(float(place[i, 0]), 1),
            y=round(float(place[i, 1]), 1),
            shade=None if peer.state == "killed" else shades[i],
            gone=peer.state == "killed",
            label=_short(names[i]) if n <= NAMED_PEERS_MAX else "",
            inside=f"{100 * peer.accuracy:.0f}"
            if n <= VALUED_PEERS_MAX and peer.state != "killed" and shades[i] is not None
            else "",
            title=f"{names[i]}: {_percent(peer.accuracy)}, {peer.state}",
        )
        for i, peer in enumerate(record.peers)
    )
    return Graph(
        dots,
        radius,
        edge_paths(record, [(dot.x, dot.y) for dot in dots]),
        (_percent(low), _percent(high)),
        mosaic=False,
        each=1,
    )


def _mosaic(record: RunRecord) -> Graph | None:
    accuracy = np.sort(final_accuracy(record)[alive(record)])
    if accuracy.size == 0:
        return None
    each = max(1, math.ceil(len(accuracy) / MOSAIC_CELLS_MAX))
    groups = [accuracy[start : start + each] for start in range(0, len(accuracy), each)]
    means = row_means(np.array([np.pad(group, (0, each - len(group)), constant_values=np.nan) for group in groups]))
    low, high = _colour_range(means)
    columns = max(1, math.ceil(math.sqrt(len(means))))
    cell = 1000 / columns
    dots = tuple(
        Dot(
            x=round((index % columns + 0.5) * cell, 1),
            y=round((index // columns + 0.5) * cell, 1),
            shade=shade,
            gone=False,
            label="",
            inside="",
            title=_percent(float(means[index])),
        )
        for index, shade in enumerate(_shades(means, low, high))
    )
    return Graph(dots, cell * 0.46, (), (_percent(low), _percent(high)), mosaic=True, each=each)


@dataclass(frozen=True, slots=True)
class Pair:
    """One peer alone and together, percent of the axis; None where not measured."""

    name: str
    alone: float | None
    together: float | None
    says: str
    gone: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """Few peers: a pair each. Many: two histograms as SVG paths in a square of 1000, and how many peers the top is."""

    pairs: tuple[Pair, ...]
    ticks: tuple[Tick, ...]
    alone: str
    together: str
    top: int


def spread(record: RunRecord, names: tuple[str, ...]) -> Spread | None:
    together, alone = final_accuracy(record), final_alone(record)
    living = alive(record)
    finite = np.concatenate([together[living], alone])
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return None
    axis = y_axis("percent", finite)
    ticks = tuple(Tick(100 - tick.at, tick.text) for tick in axis.ticks)
    if len(names) > PAIRS_MAX:
        bars_together, bars_alone = (_bins(axis.place(v[living]))[0] for v in (together, alone))
        top = max(int(bars_together.max()), int(bars_alone.max()), 1)
        return Spread((), ticks, _bars(bars_alone, top), _bars(bars_together, top), top)
    return Spread(
        tuple(
            Pair(
                name=names[i],
                alone=_at(axis.place(alone[i : i + 1])),
                together=None if peer.state == "killed" else _at(axis.place(together[i : i + 1])),
                says="killed" if peer.state == "killed" else _percent(peer.accuracy),
                gone=peer.state == "killed",
            )
            for i, peer in enumerate(record.peers)
        ),
        ticks,
        alone="",
        together="",
        top=0,
    )


@dataclass(frozen=True, slots=True)
class HeatCell:
    count: int
    shade: int


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Few peers: `rows` with counts. Many: `columns` peers by `labels`, one SVG path per shade on cells of 1 by 1."""

    labels: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    paths: tuple[tuple[int, str], ...]
    columns: int
    peers: int
    top: int


def heat_map(record: RunRecord, names: tuple[str, ...]) -> HeatMap | None:
    counts = record.label_counts
    if counts.size == 0 or not np.isfinite(counts).any() or float(np.nanmax(counts)) <= 0:
        return None
    counts = np.nan_to_num(counts)
    classes = counts.shape[1]
    labels = record.labels if len(record.labels) == classes else tuple(str(label) for label in range(classes))
    top = int(counts.max())
    shades = _heat_shades(counts)
    if len(names) <= HEAT_TABLE_PEERS_MAX and classes <= HEAT_TABLE_CLASSES_MAX:
        rows = tuple(
            (name, tuple(HeatCell(int(count), int(shade)) for count, shade in zip(counts[i], shades[i], strict=True)))
            for i, name in enumerate(names)
        )
        return HeatMap(labels, rows, (), 0, len(names), top)
    order = np.lexsort((-counts.max(axis=1), counts.argmax(axis=1)))
    if len(order) > HEAT_COLUMNS_MAX:
        order = order[np.linspace(0, len(order) - 1, HEAT_COLUMNS_MAX).round().astype(np.int64)]
    chosen = shades[order]
    paths = tuple(
        (shade, "".join(f"M{x} {y}h1v1h-1z" for x, y in np.argwhere(chosen == shade).tolist())) for shade in range(1, SHADES)
    )
    return HeatMap(labels, (), tuple(path for path in paths if path[1]), len(order), len(names), top)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Who was away when: a row for each of `rows` peers, a column for each round, one SVG path on cells of 1 by 1."""

    away: str
    rounds: int
    rows: int
    peers: int
    names: tuple[str, ...]  # of the rows, where they are few
    ticks: tuple[Tick, ...]
    strokes: tuple[Stroke, ...]
    least: float  # share of the peers that is up, in the worst round
    mean: float


def timeline(record: RunRecord, names: tuple[str, ...]) -> Timeline | None:
    """None where everybody was up all the time."""
    if record.up.size == 0 or bool(record.up.all()):
        return None
    rounds, peers = record.up.shape
    shown = np.arange(peers)
    if peers > TIMELINE_PEERS_MAX:
        shown = np.linspace(0, peers - 1, TIMELINE_PEERS_MAX).round().astype(np.int64)
    share = record.up.mean(axis=1)
    return Timeline(
        away="".join(
            f"M{start} {row}h{stop - start}v1h{start - stop}z"
            for row, peer in enumerate(shown.tolist())
            for start, stop in _stretches(~record.up[:, peer])
        ),
        rounds=rounds,
        rows=len(shown),
        peers=peers,
        names=tuple(map(_short, names)) if peers <= NAMED_PEERS_MAX else (),
        ticks=round_ticks(rounds),
        strokes=strokes(record.marks, rounds),
        least=float(share.min()),
        mean=float(share.mean()),
    )


def _stretches(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """(start, stop) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _heat_shades(counts: Float) -> NDArray[np.int64]:
    """Zero stays empty, one row of data is already seen; the square root keeps small shares visible beside large ones."""
    return np.where(counts > 0, np.clip(np.ceil((SHADES - 1) * np.sqrt(counts / counts.max())), 1, SHADES - 1), 0).astype(
        np.int64
    )


def _colour_range(values: Float) -> tuple[float, float]:
    """What the colours span: the living peers' accuracies, rounded outwards to 1 % and never less than 5 % wide."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return 0.0, 1.0
    low = math.floor(float(finite.min()) * 100 + 1e-9) / 100
    high = math.ceil(float(finite.max()) * 100 - 1e-9) / 100
    return (low, high) if high - low >= 0.05 else (max(0.0, high - 0.05), max(high, 0.05))


def _shades(values: Float, low: float, high: float) -> list[int | None]:
    scaled = np.clip((values - low) / (high - low), 0, 1) * (SHADES - 1)
    return [round(value) if math.isfinite(value) else None for value in scaled.tolist()]


def _bins(places: Float) -> tuple[NDArray[np.int64], Float]:
    return np.histogram(places[np.isfinite(places)], bins=BINS, range=(0, 1))


def _bars(counts: NDArray[np.int64], top: int) -> str:
    width = 1000 / BINS
    return "".join(
        f"M{index * width:g} 1000v{-1000 * count / top:.1f}h{width:g}V1000z"
        for index, count in enumerate(counts.tolist())
        if count
    )


def _at(place: Float) -> float | None:
    value = float(place[0])
    return 100 * value if math.isfinite(value) else None


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "–"


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
