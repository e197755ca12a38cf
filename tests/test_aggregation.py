import networkx as nx
import numpy as np
import pytest

from p2pfl.learning.aggregation import TILE, weighted_mean
from p2pfl.learning.codec import CODECS, round_trip
from topology import metropolis_weights


def vectors(count: int, dimension: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(count, dimension)).astype(np.float32)


def test_it_is_the_weighted_mean_across_tiles() -> None:
    own, a, b = vectors(3, 2 * TILE + 17)
    mixed = weighted_mean(own, own, [a, b], [0.25, 0.35])
    np.testing.assert_allclose(mixed, 0.4 * own + 0.25 * a + 0.35 * b, rtol=0, atol=1e-6)


def test_equal_vectors_stay_exactly_equal() -> None:
    own = vectors(1, 50)[0]
    assert np.array_equal(weighted_mean(own, own, [own.copy()] * 3, [0.3, 0.3, 0.3]), own)


def test_missing_weight_goes_to_oneself() -> None:
    own, a = vectors(2, 50)
    assert np.array_equal(weighted_mean(own, own, [], []), own)
    np.testing.assert_allclose(weighted_mean(own, own, [a], [0.2]), 0.8 * own + 0.2 * a, atol=1e-6)


def test_nothing_that_is_passed_in_is_changed() -> None:
    own, a = vectors(2, 50)
    before = own.copy(), a.copy()
    weighted_mean(own, own, [a], [0.5])
    assert np.array_equal(own, before[0]) and np.array_equal(a, before[1])


@pytest.mark.parametrize("kind", sorted(CODECS))
def test_gossip_preserves_the_mean_and_brings_peers_together(kind: str) -> None:
    """Boyd et al., "Randomized gossip algorithms", 2006: a doubly stochastic W keeps the mean, ||W - J||_2 < 1 the rest small.

    A lossy codec keeps it too, in difference form, up to float32 rounding: what i gains from j, j loses to i."""
    codec, x = CODECS[kind](), vectors(8, 200)
    W = metropolis_weights(nx.cycle_graph(8))
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0).max()
    for _ in range(30):
        q = [round_trip(codec, row, {}) for row in x]
        x = np.stack([weighted_mean(x[i], q[i], [q[j] for j in (i - 1, (i + 1) % 8)], [W[i, i - 1]] * 2) for i in range(8)])
    np.testing.assert_allclose(x.mean(axis=0, dtype=np.float64), mean, atol=1e-6)
    assert x.std(axis=0).max() < 0.02 * spread


def test_a_mean_of_decoded_rows_would_lose_it() -> None:
    """Why difference form: the plain weighted mean of float16 rows moves the mean of all by their rounding."""
    x = vectors(8, 200)
    q = np.stack([round_trip(CODECS["float16"](), row, {}) for row in x])
    drift = np.abs((metropolis_weights(nx.cycle_graph(8)) @ q).mean(axis=0) - x.mean(axis=0)).max()
    assert drift > 1e-5
