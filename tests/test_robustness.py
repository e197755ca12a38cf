"""r-robustness, exact and bounded: LeBlanc, Zhang, Koutsoukos and Sundaram, IEEE JSAC 2013."""

from itertools import product

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import (
    Graph,
    TopologyError,
    circulant,
    complete,
    erdos_renyi,
    exponential,
    hypercube,
    path,
    r_robustness,
    random_regular,
    ring,
    robustness_bounds,
    star,
)
from topology.robustness import EXACT_ROBUSTNESS_PEERS_MAX


def two_complete_graphs_of_five_and_a_perfect_matching() -> Graph:
    return nx.cartesian_product(nx.path_graph(2), nx.complete_graph(5))


PUBLISHED = {
    "complete of 5": (complete(5), 3),
    "complete of 9": (complete(9), 5),
    "ring": (ring(9), 1),
    "circulant 8 (1, 2)": (circulant(8, [1, 2]), 2),
    "circulant 10 (1, 2, 3)": (circulant(10, [1, 2, 3]), 3),
    "hypercube of 3 dimensions": (hypercube(3), 1),
    "Petersen": (nx.petersen_graph(), 1),
    "complete bipartite 4, 4": (nx.complete_bipartite_graph(4, 4), 2),
    "star": (star(7), 1),
    "two K5 joined by a perfect matching, though 5-connected": (two_complete_graphs_of_five_and_a_perfect_matching(), 1),
    "random 4-regular of 12": (random_regular(4, 12, seed=7), 2),
    "in parts": (nx.Graph([(0, 1), (2, 3)]), 0),
    "one peer": (ring(1), 1),
    "two peers": (ring(2), 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_r_robustness_has_its_published_value(name: str) -> None:
    graph, expected = PUBLISHED[name]
    assert r_robustness(graph) == expected


@pytest.mark.parametrize("n", range(2, 12))
def test_a_complete_graph_is_robust_for_half_its_peers_rounded_up(n: int) -> None:
    assert r_robustness(complete(n)) == (n + 1) // 2


def by_definition(graph: Graph) -> int:
    """Every pair of disjoint sets, one after the other."""
    arriving = graph.pred if graph.is_directed() else graph.adj
    nodes = sorted(graph)
    worst = len(nodes)
    for where in product((0, 1, 2), repeat=len(nodes)):
        sets = [{node for node, place in zip(nodes, where, strict=True) if place == which} for which in (1, 2)]
        if all(sets):
            worst = min(worst, max(len(set(arriving[node]) - own) for own in sets for node in own))
    return worst


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(0, 1000))
def test_r_robustness_is_what_the_definition_says(n: int, seed: int) -> None:
    graph = erdos_renyi(n, 0.6, seed)
    assert r_robustness(graph) == by_definition(graph)
    directed = nx.gnp_random_graph(n, 0.6, seed=seed, directed=True)
    assert r_robustness(directed) == by_definition(directed)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 11), st.sampled_from([0.4, 0.7, 0.95]), st.integers(0, 1000))
def test_the_bounds_enclose_the_exact_value(n: int, p: float, seed: int) -> None:
    graph = erdos_renyi(n, p, seed)
    lower, upper = robustness_bounds(graph)
    assert lower <= r_robustness(graph) <= upper


def test_the_bounds_meet_where_a_graph_is_narrow_or_complete() -> None:
    assert robustness_bounds(ring(200)) == (1, 1)
    assert robustness_bounds(path(50)) == (1, 1)
    assert robustness_bounds(complete(60)) == (30, 30)
    assert robustness_bounds(nx.Graph([(0, 1), (2, 3)])) == (0, 0)
    assert robustness_bounds(two_complete_graphs_of_five_and_a_perfect_matching())[1] == 1


def test_too_many_peers_for_the_exact_value_are_refused_with_what_there_is_instead() -> None:
    with pytest.raises(TopologyError, match=r"2\*\*21 sets. Use robustness_bounds"):
        r_robustness(ring(EXACT_ROBUSTNESS_PEERS_MAX + 1))
    with pytest.raises(TopologyError, match="directed"):
        robustness_bounds(exponential(30))
