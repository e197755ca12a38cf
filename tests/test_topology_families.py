"""What each family of graphs is, by the mathematics of it."""

import ast
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import topology
from topology import (
    Graph,
    TopologyError,
    circulant,
    complete,
    diameter,
    dumbbell,
    erdos_renyi,
    exponential,
    grid,
    hypercube,
    path,
    random_regular,
    ring,
    scale_free,
    small_world,
    star,
    torus,
)


def degrees(graph: Graph) -> list[int]:
    return sorted(degree for _, degree in graph.degree)


@pytest.mark.parametrize(
    ("graph", "n", "edges", "longest"),
    [
        (ring(9), 9, 9, 4),
        (ring(8), 8, 8, 4),
        (path(7), 7, 6, 6),
        (torus(4, 5), 20, 40, 2 + 2),
        (grid(4, 5), 20, 31, 3 + 4),
        (complete(6), 6, 15, 1),
        (star(6), 6, 5, 2),
        (hypercube(5), 32, 80, 5),
        (dumbbell(4), 8, 13, 3),
        (circulant(10, [1, 2, 3]), 10, 30, 2),
        (circulant(8, [1, 4]), 8, 12, 2),
        (exponential(16), 16, 64, 4),
        (exponential(12), 12, 48, 3),  # 11 = 1 + 2 + 8, and no two powers make 11 mod 12
    ],
)
def test_sizes_and_diameters_are_those_of_the_formulas(graph: Graph, n: int, edges: int, longest: int) -> None:
    assert list(graph) == list(range(n))
    assert graph.number_of_edges() == edges
    assert diameter(graph) == longest


def test_degrees_are_those_of_the_formulas() -> None:
    assert degrees(ring(5)) == [2] * 5
    assert degrees(path(5)) == [1, 1, 2, 2, 2]
    assert degrees(torus(3, 4)) == [4] * 12
    assert degrees(torus(2, 4)) == [3] * 8
    assert degrees(grid(3, 4)) == [2] * 4 + [3] * 6 + [4] * 2
    assert degrees(complete(5)) == [4] * 5
    assert degrees(star(5)) == [1, 1, 1, 1, 4]
    assert degrees(hypercube(3)) == [3] * 8
    assert degrees(dumbbell(3)) == [2, 2, 2, 2, 3, 3]


def test_a_peer_of_the_exponential_graph_sends_each_power_of_two_on() -> None:
    graph = exponential(10)
    assert sorted(graph.successors(7)) == sorted([8, 9, 1, 5])  # 7 + 1, 2, 4, 8 mod 10
    assert all(graph.out_degree(i) == graph.in_degree(i) == 4 for i in graph)


def test_families_meet_where_mathematics_says_so() -> None:
    assert nx.is_isomorphic(hypercube(4), torus(4, 4))
    assert nx.is_isomorphic(hypercube(2), ring(4))
    assert nx.is_isomorphic(grid(2, 2), ring(4))
    assert nx.is_isomorphic(random_regular(2, 9, seed=1), ring(9))
    assert nx.utils.graphs_equal(small_world(9, 4, 0.0), circulant(9, [1, 2]))
    assert nx.utils.graphs_equal(circulant(7, [1]), ring(7))
    assert nx.utils.graphs_equal(circulant(7, [1, 2, 3]), complete(7))
    for n in range(1, 7):
        assert nx.utils.graphs_equal(torus(1, n), ring(n))
        assert nx.utils.graphs_equal(torus(n, 1), ring(n))
        assert nx.utils.graphs_equal(grid(1, n), path(n))
        assert nx.utils.graphs_equal(erdos_renyi(n, 1.0), complete(n))
        assert nx.utils.graphs_equal(random_regular(n - 1, n), complete(n))


def test_the_smallest_graphs_have_no_loops_and_no_double_edges() -> None:
    one = [ring(1), path(1), torus(1, 1), grid(1, 1), complete(1), star(1), hypercube(0), random_regular(0, 1), exponential(1)]
    assert all(list(graph) == [0] and not graph.edges for graph in one)
    two = [ring(2), path(2), torus(1, 2), grid(2, 1), complete(2), star(2), hypercube(1), random_regular(1, 2), dumbbell(1)]
    assert all(list(graph.edges) == [(0, 1)] for graph in two)
    assert sorted(exponential(2).edges) == [(0, 1), (1, 0)]
    assert degrees(torus(2, 2)) == [2] * 4


@pytest.mark.parametrize(
    "impossible",
    [
        lambda: ring(0),
        lambda: path(-1),
        lambda: torus(0, 4),
        lambda: torus(-2, -4),
        lambda: grid(4, 0),
        lambda: complete(0),
        lambda: star(0),
        lambda: hypercube(-1),
        lambda: exponential(0),
        lambda: dumbbell(0),
        lambda: circulant(0, [1]),
        lambda: circulant(9, [3, 6]),
        lambda: circulant(4, []),
        lambda: random_regular(0, 0),
        lambda: random_regular(-1, 4),
        lambda: random_regular(4, 4),
        lambda: random_regular(3, 5),
        lambda: random_regular(0, 2),
        lambda: random_regular(1, 4),
        lambda: erdos_renyi(0, 0.5),
        lambda: erdos_renyi(4, 1.1),
        lambda: erdos_renyi(4, float("nan")),
        lambda: erdos_renyi(4, 0.0),
        lambda: small_world(0, 2, 0.1),
        lambda: small_world(8, 3, 0.1),
        lambda: small_world(8, 0, 0.1),
        lambda: small_world(4, 4, 0.1),
        lambda: small_world(8, 4, -0.1),
        lambda: scale_free(0, 1),
        lambda: scale_free(3, 3),
        lambda: scale_free(3, 0),
    ],
)
def test_a_graph_that_cannot_be_is_refused_in_one_line_that_says_how_to_mend_it(impossible: Callable[[], Graph]) -> None:
    with pytest.raises(TopologyError) as refused:
        impossible()
    assert refused.value.message and refused.value.hint
    assert str(refused.value) == f"{refused.value.message} {refused.value.hint}"
    assert "\n" not in str(refused.value)


def test_the_refusal_of_an_odd_degree_sum_names_the_reason() -> None:
    with pytest.raises(TopologyError, match=r"random_regular\(3, 5\): degree times n is odd.* Make one of them even"):
        random_regular(3, 5)


def test_sparse_random_pairs_are_refused_with_the_threshold_of_connectedness() -> None:
    with pytest.raises(TopologyError, match=r"none of 100 draws was connected.*ln\(n\)/n = 0\.05\."):
        erdos_renyi(90, 0.001)


def test_a_draw_that_is_not_connected_is_drawn_again_from_a_seed_derived_from_its_own() -> None:
    seed = next(s for s in range(100) if not nx.is_connected(nx.fast_gnp_random_graph(20, 0.12, seed=s)))
    graph = erdos_renyi(20, 0.12, seed)
    assert nx.is_connected(graph)
    assert nx.utils.graphs_equal(graph, erdos_renyi(20, 0.12, seed))


regular = st.tuples(st.integers(2, 20), st.integers(3, 24)).filter(lambda dn: dn[0] < dn[1] and dn[0] * dn[1] % 2 == 0)


@given(regular, st.integers(-(2**63), 2**63))
def test_random_regular_graphs_are_regular_connected_and_simple(degree_n: tuple[int, int], seed: int) -> None:
    degree, n = degree_n
    graph = random_regular(degree, n, seed)
    assert list(graph) == list(range(n))
    assert degrees(graph) == [degree] * n
    assert nx.is_connected(graph) and not nx.number_of_selfloops(graph)


@given(st.integers(2, 30), st.integers(0, 2**32), st.data())
def test_a_scale_free_graph_grows_m_edges_a_peer_from_a_star(n: int, seed: int, data: st.DataObject) -> None:
    m = data.draw(st.integers(1, n - 1))
    graph = scale_free(n, m, seed)
    assert graph.number_of_edges() == m * (n - m)
    assert nx.is_connected(graph)


@given(st.integers(5, 30), st.sampled_from([2, 4]), st.floats(0, 1), st.integers(0, 2**32))
def test_rewiring_keeps_the_number_of_edges_of_a_small_world(n: int, k: int, p: float, seed: int) -> None:
    graph = small_world(n, k, p, seed)
    assert graph.number_of_edges() == n * k // 2
    assert nx.is_connected(graph)


RANDOM = {
    "random_regular": lambda seed: random_regular(4, 16, seed=seed),
    "random_regular, dense": lambda seed: random_regular(11, 16, seed=seed),
    "random_regular, a ring": lambda seed: random_regular(2, 16, seed=seed),
    "erdos_renyi": lambda seed: erdos_renyi(16, 0.3, seed=seed),
    "small_world": lambda seed: small_world(16, 4, 0.2, seed=seed),
    "scale_free": lambda seed: scale_free(16, 2, seed=seed),
}


@pytest.mark.parametrize("family", RANDOM)
def test_random_graphs_follow_their_seed_and_nothing_else(family: str) -> None:
    first, again, other = (RANDOM[family](seed) for seed in (7, 7, 8))
    assert list(first.edges) == list(again.edges)
    assert not nx.utils.graphs_equal(first, other)


DIGESTS = {
    "random_regular": "a5a4a8c5af1634b6",
    "random_regular, dense": "b3061bd34d8483ee",
    "random_regular, a ring": "a144fb707bfda52d",
    "erdos_renyi": "aaceee9f7071ef29",
    "small_world": "3f7b98ba535efab1",
    "scale_free": "7b5dd0988963c018",
}


@pytest.mark.parametrize(("family", "digest"), DIGESTS.items())
def test_a_seed_means_the_same_graph_on_every_machine(family: str, digest: str) -> None:
    """Peers of a live network each build the graph on their own; if networkx ever draws another, this must not go unseen."""
    edges = sorted(tuple(sorted(edge)) for edge in RANDOM[family](7).edges)
    assert hashlib.blake2b(repr(edges).encode(), digest_size=8).hexdigest() == digest


@given(st.integers(1, 40), st.integers(0, 1000))
def test_the_diameter_is_that_of_breadth_first_search(n: int, seed: int) -> None:
    graph = erdos_renyi(n, 0.5, seed)
    assert diameter(graph) == nx.diameter(graph)


@given(st.integers(1, 200))
def test_news_crosses_the_exponential_graph_in_as_many_rounds_as_bits_at_most(n: int) -> None:
    assert diameter(exponential(n)) <= (n - 1).bit_length()


def test_the_package_loads_networkx_and_numpy_only_when_a_graph_is_asked_for() -> None:
    program = "import sys, topology.cli; sys.exit(any(m in sys.modules for m in ('networkx', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_names_that_type_checkers_see_are_those_that_load() -> None:
    tree = ast.parse(Path(topology.__file__).read_text())
    (typed,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in typed.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == vars(topology)["_HOME"]
    assert sorted(seen) == sorted(topology.__all__)
    assert all(hasattr(topology, name) for name in topology.__all__)
    with pytest.raises(AttributeError, match="no attribute 'rings'"):
        getattr(topology, "rings")  # noqa: B009
