from typing import Any

import networkx as nx
import numpy as np
import pytest

from p2pfl.report.layout import positions


def placed(graph: "nx.Graph[Any]") -> np.ndarray:
    return positions(len(graph), [(i, j) for i, j in nx.convert_node_labels_to_integers(graph).edges])


def test_a_ring_is_drawn_as_a_circle_in_order() -> None:
    found = placed(nx.cycle_graph(12)) - 0.5
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 0.5, atol=1e-3)
    step = np.diff(np.unwrap(np.arctan2(found[:, 1], found[:, 0])))
    np.testing.assert_allclose(step, 2 * np.pi / 12, atol=1e-3)


def test_the_hub_of_a_star_is_in_its_middle() -> None:
    np.testing.assert_allclose(placed(nx.star_graph(8))[0], 0.5, atol=0.1)


def test_a_grid_is_drawn_without_crossings_by_length() -> None:
    graph = nx.convert_node_labels_to_integers(nx.grid_2d_graph(6, 6))
    found = placed(graph)
    lengths = [np.linalg.norm(found[i] - found[j]) for i, j in graph.edges]
    assert max(lengths) < 1.5 * min(lengths)


@pytest.mark.parametrize(
    "graph",
    [
        nx.empty_graph(1),
        nx.empty_graph(2),
        nx.empty_graph(5),
        nx.path_graph(40),
        nx.complete_graph(9),
        nx.hypercube_graph(4),
        nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(4)),
    ],
    ids=["one", "two", "no edges", "path", "complete", "hypercube", "two parts"],
)
def test_every_graph_fits_the_square_and_no_two_peers_share_a_place(graph: "nx.Graph[int]") -> None:
    found = placed(graph)
    assert np.isfinite(found).all()
    assert found.min() >= -1e-9
    assert found.max() <= 1 + 1e-9
    apart = np.linalg.norm(found[:, None] - found[None], axis=2) + np.eye(len(found))
    assert apart.min() > 0.01


def test_the_same_graph_gives_the_same_picture() -> None:
    graph = nx.random_regular_graph(4, 60, seed=3)
    assert np.array_equal(placed(graph), placed(graph))
