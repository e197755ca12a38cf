"""Constant and fastest weights against closed forms, published values and each other, and what noisy gossip keeps.

Xiao and Boyd, Fast linear iterations for distributed averaging, Systems and Control Letters 53 (2004).
"""

from collections.abc import Callable
from math import cos, pi, sqrt

import networkx as nx
import numpy as np
import pytest

from topology import (
    WEIGHTS,
    Graph,
    TopologyError,
    algebraic_connectivity,
    best_constant_weights,
    circulant,
    complete,
    contraction,
    dumbbell,
    exponential,
    fastest_weights,
    grid,
    hypercube,
    max_degree_weights,
    metropolis_weights,
    neighbor_weights,
    noise_floor,
    one_peer_exponential,
    path,
    random_regular,
    ring,
    scale_free,
    star,
    torus,
    uniform_weights,
)
from topology.fastest import EDGES_MAX, TOLERANCE

BOYDS_EIGHT: Graph = nx.Graph(
    [(0, 1), (1, 2), (2, 3), (0, 4), (1, 7), (1, 3), (4, 5), (4, 6), (2, 6), (3, 7), (5, 6), (6, 7), (1, 6)]
)
"""The graph of 8 nodes and 13 edges of Boyd, Convex optimization of graph Laplacian eigenvalues (ICM 2006), and of CVX."""

IRREGULAR = {
    "Boyd's eight": BOYDS_EIGHT,
    "grid": grid(3, 4),
    "dumbbell": dumbbell(4),
    "scale free": scale_free(14, 2, seed=7),
    "random regular": random_regular(4, 16, seed=7),
    "circulant": circulant(9, [1, 2]),
}


# Best constant: (μₙ - μ₂) / (μₙ + μ₂)


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (ring(9), (cos(pi / 9) + cos(2 * pi / 9)) / (2 + cos(pi / 9) - cos(2 * pi / 9))),
        (ring(8), (4 - (2 - 2 * cos(pi / 4))) / (4 + (2 - 2 * cos(pi / 4)))),
        (path(7), cos(pi / 7)),
        (star(9), 8 / 10),
        (hypercube(4), 3 / 5),
        (complete(6), 0),
        (torus(4, 4), 3 / 5),
        (nx.complete_bipartite_graph(3, 5), (8 - 3) / (8 + 3)),
        (ring(1), 0),
        (ring(2), 0),
    ],
)
def test_best_constant_weights_contract_by_their_closed_form_and_there_the_fastest_are_the_same(
    graph: Graph, expected: float
) -> None:
    """All of these but the path are edge-transitive; for the path the dual problem certifies it too."""
    assert contraction(best_constant_weights(graph)) == pytest.approx(expected, abs=1e-9)
    assert np.array_equal(fastest_weights(graph), best_constant_weights(graph))


@pytest.mark.parametrize("graph", IRREGULAR.values(), ids=IRREGULAR)
def test_no_other_constant_is_better_than_the_best(graph: Graph) -> None:
    best = contraction(best_constant_weights(graph))
    laplacian = np.diag([float(graph.degree[i]) for i in sorted(graph)]) - nx.to_numpy_array(graph, sorted(graph))
    for constant in np.linspace(0.01, 0.6, 60):
        assert contraction(np.eye(len(graph)) - constant * laplacian) >= best - 1e-12


# Fastest


@pytest.mark.parametrize("m", range(1, 9))
def test_the_fastest_weights_of_a_dumbbell_contract_by_the_root_of_1_minus_1_in_m(m: int) -> None:
    """By symmetry a dumbbell has three weights: within (free), to the bridge b, the bridge c. What is left is mb and the
    roots of λ² - (mb + 2c) λ + 2bc; the best are b = 1/m and c = 1/2. For m = 2 it is the path of four: cos(π/4)."""
    assert contraction(fastest_weights(dumbbell(m))) == pytest.approx(sqrt(1 - 1 / m), abs=2 * TOLERANCE)


def test_boyds_graph_of_eight_has_the_contractions_that_are_published_with_it() -> None:
    """The CVX example library prints 0.7119 for the best constant weights and 0.6433 for the fastest."""
    assert contraction(best_constant_weights(BOYDS_EIGHT)) == pytest.approx(0.7119, abs=5e-5)
    assert contraction(fastest_weights(BOYDS_EIGHT)) == pytest.approx(0.6433, abs=5e-5)


@pytest.mark.parametrize("graph", IRREGULAR.values(), ids=IRREGULAR)
def test_the_fastest_weights_are_at_least_as_fast_as_all_others(graph: Graph) -> None:
    fastest = contraction(fastest_weights(graph))
    for other in (metropolis_weights, max_degree_weights, best_constant_weights):
        assert fastest <= contraction(other(graph)) + TOLERANCE


@pytest.mark.parametrize("graph", IRREGULAR.values(), ids=IRREGULAR)
def test_no_small_change_of_the_fastest_weights_is_faster(graph: Graph) -> None:
    """The problem is convex: a local minimum is the minimum."""
    W = fastest_weights(graph)
    best = contraction(W)
    edges = [(i, j) for i, j in zip(*np.nonzero(W), strict=True) if i < j]
    rng = np.random.default_rng(7)
    for scale in (1e-1, 1e-2, 1e-3):
        for change in rng.normal(scale=scale, size=(50, len(edges))):
            V = W.copy()
            for (i, j), by in zip(edges, change, strict=True):
                V[[i, j], [j, i]] += by
                V[[i, j], [i, j]] -= by
            assert contraction(V) >= best - TOLERANCE


@pytest.mark.parametrize("kind", [max_degree_weights, best_constant_weights, fastest_weights])
@pytest.mark.parametrize("graph", IRREGULAR.values(), ids=IRREGULAR)
def test_all_kinds_are_symmetric_sum_to_one_and_live_on_the_edges(kind: Callable[[Graph], np.ndarray], graph: Graph) -> None:
    W = kind(graph)
    assert np.array_equal(W, W.T)
    np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-14)
    assert {(int(i), int(j)) for i, j in zip(*np.nonzero(W), strict=True) if i < j} <= {tuple(sorted(e)) for e in graph.edges}


def test_max_degree_weights_are_the_metropolis_ones_where_all_degrees_are_equal_and_slower_on_a_star_with_a_tail() -> None:
    for graph in (ring(8), hypercube(3), random_regular(4, 12, seed=7)):
        np.testing.assert_allclose(max_degree_weights(graph), metropolis_weights(graph), rtol=0, atol=1e-15)
    tailed = nx.Graph([*star(8).edges, (1, 8)])
    assert contraction(max_degree_weights(tailed)) > contraction(metropolis_weights(tailed))


def test_weights_that_need_an_undirected_graph_or_few_edges_say_so() -> None:
    for kind in ("max_degree", "best_constant", "fastest"):
        with pytest.raises(TopologyError, match='Use the weights "uniform"'):
            neighbor_weights(exponential(8), kind)
    with pytest.raises(TopologyError, match='Use the weights "best_constant"'):
        fastest_weights(scale_free(EDGES_MAX // 4 + 10, 4, seed=7))
    assert set(WEIGHTS) == {"metropolis", "uniform", "max_degree", "best_constant", "fastest"}


# The noise floor


@pytest.mark.parametrize(
    ("W", "expected"),
    [
        (metropolis_weights(hypercube(2)), 2 * (1 / 9) / (1 - 1 / 9) + (1 / 9) / (1 - 1 / 9)),  # 1/3, 1/3, -1/3
        (metropolis_weights(complete(7)), 0),
        (metropolis_weights(star(5)), 3 * (16 / 25) / (1 - 16 / 25)),  # 4/5 three times, and 0
    ],
)
def test_the_noise_floor_is_the_sum_over_the_eigenvalues(W: np.ndarray, expected: float) -> None:
    assert noise_floor(W) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("graph", [exponential(12), exponential(7), star(6)])
def test_the_noise_floor_of_what_is_not_symmetric_is_the_sum_over_all_powers(graph: Graph) -> None:
    W = uniform_weights(graph)
    R = W - 1 / len(W)
    powers, power = 0.0, np.eye(len(W))
    for _ in range(3000):
        power = R @ power
        powers += float(np.square(power).sum())
    assert noise_floor(W) == pytest.approx(powers, rel=1e-9)


def test_noisy_gossip_settles_at_the_noise_floor() -> None:
    """x ← W(x + noise), the second moment followed exactly: V ← W(V + I)Wᵀ. What it settles at is the floor."""
    W = metropolis_weights(scale_free(12, 2, seed=7))
    V = np.zeros((12, 12))
    center = np.eye(12) - 1 / 12
    for _ in range(2000):
        V = W @ (V + center) @ W.T
    assert noise_floor(W) == pytest.approx(float(V.trace()), rel=1e-9)


def test_noisy_gossip_simulated_stays_about_its_noise_floor() -> None:
    W = metropolis_weights(ring(10))
    rng = np.random.default_rng(7)
    x, seen = np.zeros((10, 400)), []
    for round in range(400):
        x = W @ (x + rng.normal(size=x.shape))
        if round >= 200:
            seen.append(np.square(x - x.mean(axis=0)).sum(axis=0).mean())
    assert np.mean(seen) == pytest.approx(noise_floor(W), rel=0.02)


def test_weights_on_which_peers_never_agree_have_no_noise_floor() -> None:
    for W in (np.eye(4), one_peer_exponential(6)(1), np.array([[0.0, 1.0], [1.0, 0.0]])):
        with pytest.raises(TopologyError, match="noise would grow"):
            noise_floor(W)


# Algebraic connectivity: Fiedler 1973


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        (path(7), 2 - 2 * cos(pi / 7)),
        (ring(9), 2 - 2 * cos(2 * pi / 9)),
        (complete(6), 6),
        (star(7), 1),
        (hypercube(4), 2),
        (nx.complete_bipartite_graph(3, 5), 3),
        (nx.petersen_graph(), 2),
        (nx.Graph([(0, 1), (2, 3)]), 0),
    ],
)
def test_algebraic_connectivity_is_its_closed_form(graph: Graph, expected: float) -> None:
    assert algebraic_connectivity(graph) == pytest.approx(expected, abs=1e-9)


def test_what_has_no_algebraic_connectivity_is_refused() -> None:
    with pytest.raises(TopologyError, match="directed"):
        algebraic_connectivity(exponential(5))
    with pytest.raises(TopologyError, match="at least 2"):
        algebraic_connectivity(path(1))
