"""Graphs to other programs and back, and what comes from outside broken."""

import io
import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topology import FORMATS, Graph, TopologyError, decode_graph, encode_graph, exponential, from_networkx, grid, path, ring


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any simple graph on 0..n-1: directed or not, in parts or not, with peers alone."""
    n = draw(st.integers(1, 15))
    graph: Graph = nx.DiGraph() if draw(st.booleans()) else nx.Graph()
    graph.add_nodes_from(range(n))
    pairs = st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda pair: pair[0] != pair[1])
    if n > 1:
        graph.add_edges_from(draw(st.lists(pairs, max_size=30)))
    return graph


@settings(max_examples=30, deadline=None)
@given(graphs(), st.sampled_from([suffix for suffix in FORMATS if suffix != ".npy"]))
def test_every_graph_comes_back_as_it_went(graph: Graph, suffix: str) -> None:
    back = decode_graph(encode_graph(graph, suffix), suffix)
    assert back.is_directed() == graph.is_directed()
    assert list(back) == list(graph)
    assert nx.utils.graphs_equal(back, from_networkx(graph))


@settings(max_examples=30, deadline=None)
@given(graphs())
def test_an_adjacency_matrix_comes_back_undirected_if_it_is_symmetric(graph: Graph) -> None:
    back = decode_graph(encode_graph(graph, ".npy"), ".npy")
    assert np.array_equal(nx.to_numpy_array(back), nx.to_numpy_array(graph))
    assert back.is_directed() != np.array_equal(nx.to_numpy_array(graph), nx.to_numpy_array(graph).T)


def test_what_numpy_saves_is_read() -> None:
    for matrix in (nx.to_numpy_array(ring(5)), nx.to_numpy_array(ring(5)).astype(bool), np.asfortranarray(np.eye(5, k=1))):
        buffer = io.BytesIO()
        np.save(buffer, matrix)
        assert np.array_equal(nx.to_numpy_array(decode_graph(buffer.getvalue(), ".npy")), matrix)
    buffer = io.BytesIO(encode_graph(exponential(6), ".npy"))
    assert np.array_equal(np.load(buffer, allow_pickle=False), nx.to_numpy_array(exponential(6)))


def test_what_networkx_writes_is_read() -> None:
    buffer = io.BytesIO()
    nx.write_graphml(grid(3, 4), buffer)
    assert nx.utils.graphs_equal(decode_graph(buffer.getvalue(), ".graphml"), grid(3, 4))
    edges = io.BytesIO()
    nx.write_edgelist(ring(12), edges, data=False)
    assert nx.utils.graphs_equal(decode_graph(edges.getvalue(), ".edgelist"), ring(12))


def test_peers_are_numbered_by_their_labels_and_numbers_count_as_numbers() -> None:
    by_number = decode_graph(b"10 2\n2 1\n", ".txt")  # the path 10 - 2 - 1: by number 2 is in the middle, as 1 of 0..2
    assert sorted(by_number.edges) == [(0, 1), (1, 2)]
    by_name = decode_graph(b"# who knows whom\nzoe, ann\nann,bob # since 2019\n\ncat\n", ".edges")
    assert len(by_name) == 4 and sorted(by_name.edges) == [(0, 1), (0, 3)]
    assert sorted(from_networkx(nx.Graph([("c", "a"), ("a", "b"), ("b", "b")])).edges) == [(0, 1), (0, 2)]


def test_the_json_is_what_it_says() -> None:
    written = json.loads(encode_graph(path(3), ".json"))
    assert written == {"peers": 3, "directed": False, "edges": [[0, 1], [1, 2]]}


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("suffix", "data", "message"),
    [
        (".graphml", b"", "This is no graph in GraphML"),
        (".graphml", b"<graphml>", "This is no graph in GraphML"),
        (".graphml", b"\xff\xfe", "This is no graph in GraphML"),
        (".graphml", b'<!DOCTYPE g [<!ENTITY a "aa">]><graphml/>', "This is no graph in GraphML: it has a document type"),
        (".graphml", b"<html></html>", "This is no graph in GraphML"),
        (".edges", b"", "peers is 0. It must be at least 1."),
        (".edges", b"0 1\n1 2 0.5\n", "This is no graph in edge list: line 2 has 3 labels."),
        (".edges", b"\xff", "This is no graph in edge list"),
        (".npy", b"", "This is no graph in .npy"),
        (".npy", header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}") + b"cos\nsystem\n", "This is no graph in"),
        (".npy", header("{'descr': '<f8', 'fortran_order': False, 'shape': (99999, 99999)}"), "This is no graph in .npy"),
        (
            ".npy",
            header("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1)}") + np.array([np.nan]).tobytes(),
            "a weight is not finite",
        ),
        (".npy", header("__import__('os')"), "This is no graph in .npy"),
        (".npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2)}") + b"ab", "its shape is (1, 2)"),
        (".npy", header("{'descr': '|u1', 'fortran_order': False, 'shape': (0, 0)}"), "peers is 0."),
        (".json", b"", "This is no graph in JSON"),
        (".json", b"[]", 'This is no graph in JSON: it has no "peers", "directed" and "edges".'),
        (".json", b'{"peers": 2, "directed": false, "edges": [[0]]}', "This is no graph in JSON"),
        (".json", b'{"peers": 2, "directed": false, "edges": [[0, 2]]}', "the edge [0, 2] leaves the peers"),
        (".json", b'{"peers": 2, "directed": false, "edges": [[0, true]]}', "the edge [0, True] leaves the peers"),
        (".json", b'{"peers": 10000000000, "directed": false, "edges": []}', "peers is 10000000000"),
        (".json", b"[" * 100_000, "This is no graph in JSON"),
        (".png", b"", ".png is no format of graphs."),
        ("", b"", "No suffix is no format of graphs."),
    ],
)
def test_what_is_no_graph_is_refused_in_one_line(suffix: str, data: bytes, message: str) -> None:
    with pytest.raises(TopologyError) as refused:
        decode_graph(data, suffix)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(FORMATS)))
def test_no_bytes_do_anything_but_make_a_graph_or_be_refused(data: bytes, suffix: str) -> None:
    for text in (data, encode_graph(ring(4), suffix)[: len(data)] + data):
        try:
            assert len(decode_graph(text, suffix)) >= 1
        except TopologyError as refused:
            assert len(str(refused).splitlines()) == 1


def test_graphs_of_networkx_that_cannot_be_numbered_are_refused() -> None:
    with pytest.raises(TopologyError, match="parallel edges"):
        from_networkx(nx.MultiGraph([(0, 1), (0, 1)]))
    with pytest.raises(TopologyError, match="no order"):
        from_networkx(nx.Graph([(0, "a")]))
    with pytest.raises(TopologyError, match="peers is 0"):
        from_networkx(nx.Graph())
