"""What a peer makes of its own vector and those that arrived.

Mixing is in difference form, x_i + sum_j w_j (Q(x_j) - Q(x_i)), with Q what the codec leaves of a vector. Then a lossy codec
still preserves the mean of all peers under a symmetric W, and this is the one place where missing weight goes to the peer
itself: a neighbor that sent nothing, or nothing acceptable, simply adds no difference.
"""

from collections.abc import Callable, Sequence

import numpy as np

from p2pfl.learning.codec import Vector

Aggregator = Callable[[Vector, Vector, Sequence[Vector], Sequence[float]], Vector]
"""(own, Q(own), rows in order of sender id, their weights) -> mixed, a new array."""

# Own, arrived and result of one tile stay in the second-level cache: 100 MB vectors mix about as fast as memory allows.
TILE = 32_768


def weighted_mean(own: Vector, sent: Vector, rows: Sequence[Vector], weights: Sequence[float]) -> Vector:
    """own + sum_j weights[j] (rows[j] - sent); exactly `own` where all rows equal `sent`."""
    mixed = own.copy()
    difference = np.empty(min(TILE, own.size), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the result and keeps the old one
        for start in range(0, own.size, TILE):
            tile = slice(start, min(start + TILE, own.size))
            part = difference[: tile.stop - start]
            for row, weight in zip(rows, weights, strict=True):
                np.subtract(row[tile], sent[tile], out=part)
                part *= np.float32(weight)
                mixed[tile] += part
    return mixed


AGGREGATORS: dict[str, Aggregator] = {"mean": weighted_mean}
