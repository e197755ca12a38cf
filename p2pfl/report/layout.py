"""Where to draw the peers: graph distances laid flat by stress majorization, the same picture for the same graph.

Gansner, Koren, North: Graph drawing by stress majorization (GD 2004). Starts from classical scaling (Torgerson 1952),
whose subspace iteration starts from the peers in a circle: rings stay rings, complete graphs stay symmetric.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from p2pfl.report.record import Float

_SCALING_STEPS = 60
_STRESS_STEPS = 60


def positions(n: int, edges: Sequence[tuple[int, int]]) -> Float:
    """float64 [n, 2] in the unit square, y downwards. Costs O(n² (diameter / 8 + steps)); made for n up to about 1,000."""
    if n == 0:
        return np.empty((0, 2))
    circle = _circle(n)
    if n <= 2:
        return _fitted(circle)
    distances = _distances(n, edges)
    return _fitted(_majorized(_scaled(distances, circle), distances))


def _circle(n: int) -> Float:
    angle = 2 * np.pi * np.arange(n) / n - np.pi / 2
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _distances(n: int, edges: Sequence[tuple[int, int]]) -> Float:
    """[n, n] hops, all sources at once with one bit each; parts that are not connected lie two hops beyond the widest."""
    pairs = np.array([(i, j) for i, j in edges if i != j], dtype=np.int64).reshape(-1, 2)
    both = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(n), 2).reshape(n, 2)])  # oneself too: none is empty
    both = both[np.argsort(both[:, 0], kind="stable")]
    starts = np.searchsorted(both[:, 0], np.arange(n))
    reached: NDArray[np.uint8] = np.packbits(np.eye(n, dtype=np.uint8), axis=1)
    hops = np.zeros((n, n), dtype=np.uint32)
    level = 0
    while True:
        wider = np.bitwise_or.reduceat(reached[both[:, 1]], starts, axis=0)
        missing = np.unpackbits(reached, axis=1, count=n) == 0
        if np.array_equal(wider, reached):
            hops[missing] = level + 2
            return np.asarray(hops, dtype=np.float64)
        hops += missing
        reached = wider
        level += 1


def _scaled(distances: Float, start: Float) -> Float:
    squares = distances**2
    centred = -0.5 * (squares - squares.mean(axis=0) - squares.mean(axis=1)[:, None] + squares.mean())
    basis = start
    # The shift makes the wanted (largest, positive) eigenvalues the largest in magnitude too, distances being not Euclidean.
    shift = float(np.abs(centred).sum(axis=1).max()) * 0.1
    for _ in range(_SCALING_STEPS):
        basis, _upper = np.linalg.qr(centred @ basis + shift * basis)
    values = np.maximum(np.einsum("nk,nk->k", basis, centred @ basis), 1e-9)
    # Peers that classical scaling puts in one place need a way apart.
    return np.asarray(basis * np.sqrt(values) + 1e-3 * distances.max() * start)


def _majorized(place: Float, distances: Float) -> Float:
    n = len(place)
    with np.errstate(divide="ignore"):
        weights = np.where(distances > 0, distances**-2.0, 0.0)
    laplacian = np.diag(weights.sum(axis=1)) - weights
    inverse = np.linalg.inv(laplacian + 1.0 / n) - 1.0 / n
    pull = weights * distances
    for _ in range(_STRESS_STEPS):
        square = (place**2).sum(axis=1)
        apart = np.sqrt(np.maximum(square[:, None] + square[None, :] - 2 * place @ place.T, 1e-12))
        ratio = pull / apart
        place = inverse @ (ratio.sum(axis=1)[:, None] * place - ratio @ place)
    return place


def _fitted(place: Float) -> Float:
    low, high = place.min(axis=0), place.max(axis=0)
    span = float((high - low).max()) or 1.0
    return np.asarray((place - (low + high) / 2) / span + 0.5)
