"""What a peer makes of its own vector and those that arrived.

Mixing is in difference form, x_i + sum_j w_j (Q(x_j) - Q(x_i)), with Q what the codec leaves of a vector. Then a lossy codec
still preserves the mean of all peers under a symmetric W, and this is the one place where missing weight goes to the peer
itself: a neighbor that sent nothing, or nothing acceptable, simply adds no difference.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from p2pfl.learning.codec import Vector

Aggregator = Callable[[Vector, Vector, Sequence[Vector], Sequence[float]], Vector]
"""(own, Q(own), rows in order of sender id, their weights) -> mixed, a new array."""

Fold = Callable[[Vector, Vector, Vector, float], None]
"""(mixed so far, Q(own), a row, its weight): adds the row, in place."""

# Own, arrived and result of one tile stay in the second-level cache: 100 MB vectors mix about as fast as memory allows.
TILE = 32_768


def weighted_mean(own: Vector, sent: Vector, rows: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """own + sum_j weights[j] (rows[j] - sent); exactly `own` where all rows equal `sent`."""
    mixed = np.empty_like(own)
    difference = np.empty(min(TILE, own.size), dtype=np.float32)
    for tile in _tiles(own.size):
        mixed[tile] = own[tile]
        for row, weight in zip(rows, weights, strict=True):
            _add_difference(mixed[tile], sent[tile], row[tile], weight, difference)
    return mixed


def add_to_mean(mixed: Vector, sent: Vector, row: Vector, weight: float) -> None:
    """mixed += weight (row - sent), in place. Rows that are added one by one, to a copy of one's own, come to the bytes that
    `weighted_mean` gives of them in the same order."""
    difference = np.empty(min(TILE, mixed.size), dtype=np.float32)
    for tile in _tiles(mixed.size):
        _add_difference(mixed[tile], sent[tile], row[tile], weight, difference)


def _tiles(size: int) -> Iterator[slice]:
    return (slice(start, min(start + TILE, size)) for start in range(0, size, TILE))


def _add_difference(mixed: Vector, sent: Vector, row: Vector, weight: float, difference: Vector) -> None:
    part = difference[: mixed.size]
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result and keeps the old one
        np.subtract(row, sent, out=part)
        part *= np.float32(weight)
        mixed += part


AGGREGATORS: dict[str, Aggregator] = {"mean": weighted_mean}
FOLDS: dict[str, Fold] = {"mean": add_to_mean}
"""Of those that can take rows one by one, as they arrive; the others need all of them at once."""
