"""What the links carried: as the width of the graph's edges, and the busiest and idlest of them in numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from p2pfl.report.record import RunRecord

WIDTHS = 5
LISTED = 5
# Of links that carry nearly the same, all are drawn alike: a difference that one sees should be one.
EVEN = 1.1


@dataclass(frozen=True, slots=True)
class Link:
    names: tuple[str, str]
    bytes: float
    share: float  # percent of the busiest


@dataclass(frozen=True, slots=True)
class LinkTable:
    """The busiest links, then the idlest; of few all, in one list."""

    busiest: tuple[Link, ...]
    idlest: tuple[Link, ...]
    count: int
    median: float
    total: float


def link_table(record: RunRecord, names: tuple[str, ...]) -> LinkTable | None:
    """None where the links' bytes were not counted."""
    carried = record.link_bytes
    if not len(carried):
        return None
    order = np.argsort(-carried, kind="stable").tolist()
    most = max(float(carried.max()), 1.0)

    def listed(which: list[int]) -> tuple[Link, ...]:
        ends = [(record.edges[at], float(carried[at])) for at in which]
        return tuple(Link((names[i], names[j]), sent, 100 * sent / most) for (i, j), sent in ends)

    is_short = len(order) <= 2 * LISTED
    return LinkTable(
        busiest=listed(order if is_short else order[:LISTED]),
        idlest=() if is_short else listed(order[-LISTED:]),
        count=len(order),
        median=float(np.median(carried)),
        total=float(carried.sum()),
    )


def edge_paths(record: RunRecord, places: Sequence[tuple[float, float]]) -> tuple[tuple[int, str], ...]:
    """(width, SVG path) of all edges of a width, from 0 (carried least) to WIDTHS - 1 (most)."""
    paths: dict[int, list[str]] = {}
    for (i, j), width in zip(record.edges, _widths(record), strict=True):
        if i != j:
            (x, y), (u, v) = places[i], places[j]
            paths.setdefault(width, []).append(f"M{x:g} {y:g}L{u:g} {v:g}")
    return tuple((width, "".join(paths[width])) for width in sorted(paths))


def _widths(record: RunRecord) -> list[int]:
    """The middle one where links carried about the same, or were not counted."""
    carried = record.link_bytes
    low, high = (float(carried.min()), float(carried.max())) if len(carried) else (0.0, 0.0)
    if not high > EVEN * low:
        return [WIDTHS // 2] * len(record.edges)
    found: list[int] = np.minimum((WIDTHS * (carried - low) / (high - low)).astype(np.int64), WIDTHS - 1).tolist()
    return found
