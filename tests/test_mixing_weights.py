"""Mixing weights and their spectra, against closed formulas.

Graph Laplacian spectra: Brouwer and Haemers, Spectra of Graphs (2012), 1.4. On a graph of equal degrees d both kinds of
weights are I - L / (d + 1).
"""

from collections.abc import Callable
from math import cos, pi, sqrt
from random import Random

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology import (
    Graph,
    TopologyError,
    circulant,
    complete,
    contraction,
    dumbbell,
    erdos_renyi,
    exponential,
    from_specification,
    grid,
    hypercube,
    lazy,
    metropolis_weights,
    neighbor_weights,
    path,
    random_regular,
    ring,
    scale_free,
    small_world,
    spectral_gap,
    star,
    torus,
    uniform_weights,
)

UNDIRECTED = {
    "one peer": ring(1),
    "two peers": ring(2),
    "ring": ring(9),
    "path": path(7),
    "torus": torus(3, 4),
    "flat torus": torus(2, 5),
    "grid": grid(3, 4),
    "complete": complete(6),
    "star": star(7),
    "hypercube": hypercube(4),
    "dumbbell": dumbbell(4),
    "random regular": random_regular(4, 12, seed=7),
    "Erdős–Rényi": erdos_renyi(15, 0.3, seed=7),
    "small world": small_world(14, 4, 0.3, seed=7),
    "scale free": scale_free(15, 2, seed=7),
}


@pytest.mark.parametrize("family", UNDIRECTED)
def test_metropolis_weights_are_symmetric_and_doubly_stochastic(family: str) -> None:
    graph = UNDIRECTED[family]
    W = metropolis_weights(graph)
    assert W.dtype == np.float64 and W.shape == (len(graph), len(graph))
    assert np.array_equal(W, W.T)
    assert (W >= 0).all() and (W.diagonal() > 0).all()
    np.testing.assert_allclose(W.sum(axis=0), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(W.sum(axis=1), 1, rtol=0, atol=1e-15)
    assert {(i, j) for i, j in zip(*np.nonzero(W), strict=True) if i < j} == {tuple(sorted(edge)) for edge in graph.edges}


@pytest.mark.parametrize("family", UNDIRECTED)
def test_uniform_weights_give_everyone_that_one_hears_the_same_share(family: str) -> None:
    graph = UNDIRECTED[family]
    W = uniform_weights(graph)
    for i in graph:
        assert W[i][W[i] > 0] == pytest.approx(1 / (graph.degree[i] + 1))
        assert set(np.flatnonzero(W[i])) == {i, *graph.adj[i]}


@pytest.mark.parametrize("family", [name for name, graph in UNDIRECTED.items() if nx.is_regular(graph)])
def test_on_equal_degrees_the_two_kinds_are_one(family: str) -> None:
    graph = UNDIRECTED[family]
    np.testing.assert_allclose(metropolis_weights(graph), uniform_weights(graph), rtol=0, atol=1e-15)


def test_metropolis_weights_of_a_path_of_three_are_thirds() -> None:
    expected = [[2 / 3, 1 / 3, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(metropolis_weights(path(3)), expected, rtol=0, atol=1e-15)


def test_a_row_holds_the_weights_on_what_a_peer_receives_not_on_what_it_sends() -> None:
    graph = nx.DiGraph([(0, 1), (1, 0), (1, 2), (2, 0)])  # 0 hears 1 and 2, 1 hears 0, 2 hears 1
    expected = [[1 / 3, 1 / 3, 1 / 3], [1 / 2, 1 / 2, 0], [0, 1 / 2, 1 / 2]]
    np.testing.assert_allclose(uniform_weights(graph), expected, rtol=0, atol=1e-15)


def test_rows_are_in_sorted_node_order_whatever_the_order_of_the_nodes() -> None:
    graph = nx.Graph([(30, 10), (10, 20), (20, 5)])  # the path 30 - 10 - 20 - 5
    third = 1 / 3
    expected = [[1 - third, 0, third, 0], [0, third, third, third], [third, third, third, 0], [0, third, 0, 1 - third]]
    np.testing.assert_allclose(metropolis_weights(graph), expected, rtol=0, atol=1e-15)


def test_loops_of_a_graph_from_elsewhere_carry_no_weight_of_their_own() -> None:
    looped = nx.Graph([(0, 1), (1, 2), (1, 1)])
    assert np.array_equal(metropolis_weights(looped), metropolis_weights(path(3)))


# Closed formulas


def ring_laplacian(n: int) -> list[float]:
    """Eigenvalues of the ring's Laplacian, other than the first zero."""
    return [2 - 2 * cos(2 * pi * k / n) for k in range(1, n)]


def regular(degree: int, laplacian: list[float]) -> float:
    return max(abs(1 - eigenvalue / (degree + 1)) for eigenvalue in laplacian)


def product_of_rings(rows: int, columns: int) -> list[float]:
    sums = [a + b for a in (0.0, *ring_laplacian(rows)) for b in (0.0, *ring_laplacian(columns))]
    return sums[1:]


def exponential_by_fourier(n: int) -> float:
    """The weights are a circulant matrix, so its eigenvalues are the discrete Fourier transform of its first row."""
    hops = [0, *(1 << k for k in range((n - 1).bit_length()))]
    first_row = np.bincount(hops, minlength=n) / len(hops)
    return float(np.abs(np.fft.fft(first_row)[1:]).max())


def circulant_by_fourier(n: int, offsets: list[int]) -> float:
    """1/(2m+1) + 2/(2m+1) Σ cos(2πk·offset/n) for the m offsets (Davis, Circulant Matrices, 1979)."""
    share = 1 / (2 * len(offsets) + 1)
    return max(abs(share + 2 * share * sum(cos(2 * pi * k * o / n) for o in offsets)) for k in range(1, n))


def dumbbell_by_quotient(m: int) -> float:
    """The slowest vector has opposite signs on the halves; on it W is [[m, 1], [m - 1, 0]] / (m + 1)."""
    return (m + sqrt(m * m + 4 * (m - 1))) / (2 * (m + 1))


CLOSED_FORMS: dict[str, tuple[Graph, Callable[[Graph], np.ndarray], float]] = {
    "ring of 8": (ring(8), metropolis_weights, 1 / 3 + 2 / 3 * cos(pi / 4)),
    "ring of 15": (ring(15), uniform_weights, regular(2, ring_laplacian(15))),
    "path of 9": (path(9), metropolis_weights, 1 / 3 + 2 / 3 * cos(pi / 9)),
    "torus 4x6": (torus(4, 6), metropolis_weights, regular(4, product_of_rings(4, 6))),
    "torus 5x5": (torus(5, 5), uniform_weights, 3 / 5 + 2 / 5 * cos(2 * pi / 5)),
    "torus 2x4 is the cube": (torus(2, 4), metropolis_weights, 1 / 2),
    "complete": (complete(11), metropolis_weights, 0),
    "star": (star(12), metropolis_weights, 1 - 1 / 12),
    "circulant": (circulant(11, [1, 3]), metropolis_weights, circulant_by_fourier(11, [1, 3])),
    "hypercube": (hypercube(5), metropolis_weights, 4 / 6),
    "dumbbell of 2 is a path": (dumbbell(2), metropolis_weights, 1 / 3 + 2 / 3 * cos(pi / 4)),
    "dumbbell": (dumbbell(7), metropolis_weights, dumbbell_by_quotient(7)),
    "exponential of 16": (exponential(16), uniform_weights, 3 / 5),  # (τ - 1)/(τ + 1): Ying et al. 2021, proposition 1
    "exponential of 100": (exponential(100), uniform_weights, 6 / 8),
    "exponential of 13": (exponential(13), uniform_weights, exponential_by_fourier(13)),
    "exponential of 77": (exponential(77), uniform_weights, exponential_by_fourier(77)),
    "small world, not rewired": (
        small_world(20, 4, 0.0),
        metropolis_weights,
        1 / 5 + 2 / 5 * (cos(pi / 10) + cos(pi / 5)),
    ),
    "Petersen": (nx.petersen_graph(), metropolis_weights, 1 / 2),  # Laplacian 0, 2 (5 times), 5 (4 times)
    "complete bipartite 4, 4": (nx.complete_bipartite_graph(4, 4), metropolis_weights, 3 / 5),
    "lazy ring of 8": (ring(8), lambda graph: lazy(metropolis_weights(graph)), 2 / 3 + 1 / 3 * cos(pi / 4)),
    "lazy hypercube": (hypercube(5), lambda graph: lazy(uniform_weights(graph)), 1 - 1 / 6),
    "one peer": (ring(1), metropolis_weights, 0),
    "two peers": (ring(2), metropolis_weights, 0),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_contraction_is_its_closed_formula(name: str) -> None:
    graph, kind, expected = CLOSED_FORMS[name]
    assert contraction(kind(graph)) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_gap_is_what_the_contraction_leaves_where_weights_are_symmetric_or_circulant(name: str) -> None:
    graph, kind, expected = CLOSED_FORMS[name]
    assert spectral_gap(kind(graph)) == pytest.approx(1 - expected, rel=0, abs=1e-9)


@given(st.integers(3, 60))
def test_contraction_of_rings_paths_and_exponential_graphs_holds_at_every_size(n: int) -> None:
    assert contraction(metropolis_weights(ring(n))) == pytest.approx(regular(2, ring_laplacian(n)), abs=1e-9)
    assert contraction(metropolis_weights(path(n))) == pytest.approx(1 / 3 + 2 / 3 * cos(pi / n), abs=1e-9)
    assert contraction(uniform_weights(exponential(n))) == pytest.approx(exponential_by_fourier(n), abs=1e-9)


@pytest.mark.parametrize("n", range(4, 30, 2))
def test_metropolis_on_an_even_ring_has_minus_a_third_the_stability_limit_of_extra(n: int) -> None:
    assert np.linalg.eigvalsh(metropolis_weights(ring(n)))[0] == pytest.approx(-1 / 3, abs=1e-12)


@pytest.mark.parametrize("family", UNDIRECTED)
def test_lazy_weights_have_no_negative_eigenvalue_and_halve_the_gap_of_the_positive_ones(family: str) -> None:
    W = metropolis_weights(UNDIRECTED[family])
    spectrum = np.linalg.eigvalsh(W)
    np.testing.assert_allclose(np.linalg.eigvalsh(lazy(W)), (1 + spectrum) / 2, rtol=0, atol=1e-12)
    assert np.linalg.eigvalsh(lazy(W))[0] > 0
    np.testing.assert_allclose(lazy(W).sum(axis=0), 1, rtol=0, atol=1e-15)


def test_uniform_weights_on_a_star_have_their_gap_though_a_round_can_lengthen_the_disagreement() -> None:
    W = uniform_weights(star(9))  # eigenvalues 1, 1/2 seven times, 1/9 - 1/2; not symmetric
    assert spectral_gap(W) == pytest.approx(1 / 2, abs=1e-9)
    assert contraction(W) > 1


@pytest.mark.parametrize("degree", [3, 4, 6])
def test_random_regular_graphs_nearly_reach_the_bound_that_no_graph_can_pass(degree: int) -> None:
    """Alon and Boppana: λ₂ of the adjacency is at least 2√(d−1) − o(1). Friedman (2008): random graphs come within ε of it."""
    bound = (1 + 2 * sqrt(degree - 1)) / (degree + 1)
    assert contraction(metropolis_weights(random_regular(degree, 400, seed=7))) == pytest.approx(bound, abs=0.03)


@pytest.mark.parametrize("family", [name for name in UNDIRECTED if name != "one peer"])
def test_gossip_keeps_the_mean_and_draws_everyone_to_it_at_least_as_fast_as_the_contraction(family: str) -> None:
    W = metropolis_weights(UNDIRECTED[family])
    x = np.random.default_rng(7).normal(size=(len(W), 3))
    mean, rate = x.mean(axis=0), contraction(W)
    for _ in range(20):
        before = np.linalg.norm(x - mean)
        x = W @ x
        np.testing.assert_allclose(x.mean(axis=0), mean, rtol=0, atol=1e-14)
        assert np.linalg.norm(x - mean) <= rate * before + 1e-14


@given(st.integers(2, 16), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_renumbering_the_peers_changes_neither_contraction_nor_gap(n: int, seed: int, shuffler: Random) -> None:
    graph = erdos_renyi(n, 0.5, seed)
    order = list(range(n))
    shuffler.shuffle(order)
    renumbered = nx.relabel_nodes(graph, dict(enumerate(order)))
    for kind in (metropolis_weights, uniform_weights):
        assert contraction(kind(renumbered)) == pytest.approx(contraction(kind(graph)), abs=1e-9)
        assert spectral_gap(kind(renumbered)) == pytest.approx(spectral_gap(kind(graph)), abs=1e-6)


# The rows without the matrix


@pytest.mark.parametrize("kind", ["metropolis", "uniform"])
@pytest.mark.parametrize(
    "specification", ["ring", "path", "grid", "star", "hypercube", "dumbbell", "random_regular:3", "scale_free:2"]
)
def test_the_rows_are_those_of_the_matrix(kind: str, specification: str) -> None:
    graph = from_specification(specification, peers=16, seed=7)
    rows = neighbor_weights(graph, kind)
    W = {"metropolis": metropolis_weights, "uniform": uniform_weights}[kind](graph)
    assert [list(row) for row in rows] == [list(np.flatnonzero(W[i])) for i in range(16)]
    assert all(weight == W[i, j] for i, row in enumerate(rows) for j, weight in row.items())


def test_ten_thousand_peers_need_no_matrix() -> None:
    rows = neighbor_weights(random_regular(4, 10_000, seed=7))
    assert all(len(row) == 5 and sum(row.values()) == pytest.approx(1) for row in rows)


# What is refused


@pytest.mark.parametrize("kind", [metropolis_weights, uniform_weights])
def test_a_graph_in_parts_or_without_peers_is_refused(kind: Callable[[Graph], np.ndarray]) -> None:
    with pytest.raises(TopologyError, match="not connected"):
        kind(nx.Graph([(0, 1), (2, 3)]))
    with pytest.raises(TopologyError, match="no peers"):
        kind(nx.Graph())


def test_a_directed_graph_is_refused_by_metropolis_which_names_what_to_use() -> None:
    with pytest.raises(TopologyError, match='Use the weights "uniform"'):
        metropolis_weights(exponential(8))


def test_a_directed_graph_with_no_way_back_is_not_connected() -> None:
    with pytest.raises(TopologyError, match="not connected"):
        uniform_weights(nx.DiGraph([(0, 1), (1, 2)]))


def test_unknown_weights_are_refused_with_the_nearest_name() -> None:
    with pytest.raises(TopologyError, match="Did you mean 'metropolis'"):
        neighbor_weights(ring(4), "metropolitan")
    with pytest.raises(TopologyError, match="There are: metropolis, uniform"):
        neighbor_weights(ring(4), "?")


def test_what_is_not_square_has_no_spectrum() -> None:
    for shape in [(2, 3), (4,), (0, 0)]:
        with pytest.raises(TopologyError, match="square"):
            contraction(np.zeros(shape))
