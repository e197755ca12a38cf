"""Graphs to and from other programs: GraphML, edge lists, adjacency matrices in .npy, JSON, and networkx itself.

All is bytes in, bytes out; the `p2pfl` command reads and writes the files. What comes from outside is bounded and checked,
and nothing in it is ever run. Peers are numbered in the order of their labels; labels that are whole numbers in the order of
those. Loops are left out.
"""

import ast
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from xml.etree.ElementTree import ParseError

import networkx as nx
import numpy as np

from topology.errors import TopologyError
from topology.families import Graph, at_least

PEERS_MAX = 1_000_000  # of a graph that only claims a number


def encode_graph(graph: Graph, suffix: str) -> bytes:
    """The graph in the format of a file's suffix, such as ".graphml"."""
    return _format(suffix).encode(from_networkx(graph))


def decode_graph(data: bytes, suffix: str) -> Graph:
    """The graph in bytes of the format of a file's suffix. Raises `TopologyError` where they are not one."""
    return _format(suffix).decode(data)


def from_networkx(graph: "nx.Graph[Any]") -> Graph:
    """Any graph of networkx as one on the peers 0..n-1, in the sorted order of its nodes."""
    if graph.is_multigraph():
        raise TopologyError("The graph has parallel edges.", "Give nx.Graph(graph) or nx.DiGraph(graph).")
    at_least(1, peers=len(graph))
    try:
        place = {node: i for i, node in enumerate(sorted(graph))}
    except TypeError:
        message = "The nodes of the graph have no order."
        raise TopologyError(message, "Name them all by numbers, or all by text.") from None
    edges = sorted((place[u], place[v]) for u, v in graph.edges if u != v)
    return _numbered(len(place), edges, directed=graph.is_directed())


def _to_graphml(graph: Graph) -> bytes:
    return "\n".join(nx.generate_graphml(graph)).encode() + b"\n"


def _from_graphml(data: bytes) -> Graph:
    if b"<!" in data.replace(b"<!--", b""):  # a document type may define entities that grow without bound
        raise _bad("GraphML", "it has a document type, which none needs", "Take the line of <!DOCTYPE out.")
    try:
        graph: nx.Graph[str] = nx.parse_graphml(data.decode())
    except (ParseError, UnicodeDecodeError, nx.NetworkXException, KeyError, ValueError, TypeError) as error:
        raise _bad("GraphML", str(error) or type(error).__name__) from None
    return from_networkx(_by_number(graph))


def _to_edge_list(graph: Graph) -> bytes:
    lines = ["# directed"] if graph.is_directed() else []
    lines += [f"{i} {j}" for i, j in graph.edges]
    lines += [f"{i}" for i in nx.isolates(graph)]
    return "".join(f"{line}\n" for line in lines).encode()


def _from_edge_list(data: bytes) -> Graph:
    """Two labels a line, by blanks or a comma; one alone is a peer without neighbors; what follows # is a remark."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise _bad("edge list", str(error)) from None
    graph: nx.Graph[str] = nx.DiGraph() if lines and lines[0].strip() == "# directed" else nx.Graph()
    for number, line in enumerate(lines, start=1):
        labels = line.partition("#")[0].replace(",", " ").split()
        match labels:
            case []:
                pass
            case [lone]:
                graph.add_node(lone)
            case [one, other]:
                graph.add_edge(one, other)
            case _:
                raise _bad(
                    "edge list", f"line {number} has {len(labels)} labels", "Write two a line; weights have no place here."
                )
    return from_networkx(_by_number(graph))


def _to_adjacency(graph: Graph) -> bytes:
    matrix = np.zeros((len(graph), len(graph)), dtype=np.uint8)
    for i, j in graph.edges:
        matrix[i, j] = 1
        if not graph.is_directed():
            matrix[j, i] = 1
    buffer = BytesIO()
    np.lib.format.write_array(buffer, matrix, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def _from_adjacency(data: bytes) -> Graph:
    """[n, n], not zero where peer i sends to peer j; a symmetric matrix is an undirected graph."""
    matrix = _array(data)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise _bad(".npy", f"its shape is {matrix.shape}", "Give a square matrix, [n, n].")
    if not np.isfinite(matrix).all():
        raise _bad(".npy", "a weight is not finite", "Write it as 0 and 1.")
    joined = matrix != 0
    at_least(1, peers=len(joined))
    directed = not np.array_equal(joined, joined.T)
    return _numbered(len(joined), ((i, j) for i, j in np.argwhere(joined).tolist() if i != j), directed)


def _array(data: bytes) -> "np.ndarray[Any, Any]":
    """A .npy file of plain numbers: its header is a literal of Python, its body the numbers, and nothing may be missing."""
    wrong = _bad(".npy", "it is not a matrix of numbers", "Write it with numpy.save, as 0 and 1.")
    if len(data) < 12 or data[:6] != b"\x93NUMPY" or data[6] not in (1, 2, 3):
        raise wrong
    size = struct.calcsize("<H" if data[6] == 1 else "<I")
    end = 8 + size + int.from_bytes(data[8 : 8 + size], "little")
    try:
        header = ast.literal_eval(data[8 + size : end].decode("latin1"))
        kind, fortran, shape = np.dtype(header["descr"]), header["fortran_order"], header["shape"]
        if kind.kind not in "biuf":
            raise wrong
        return np.frombuffer(data[end:], dtype=kind).reshape(shape, order="F" if fortran else "C")
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        raise wrong from None


def _to_json(graph: Graph) -> bytes:
    edges = [[i, j] for i, j in graph.edges]
    return json.dumps({"peers": len(graph), "directed": graph.is_directed(), "edges": edges}).encode() + b"\n"


def _from_json(data: bytes) -> Graph:
    """{"peers": n, "directed": false, "edges": [[0, 1], ...]}"""
    try:
        match json.loads(data):
            case {"peers": int(peers), "directed": bool(directed), "edges": [*pairs]}:
                edges = [(i, j) for i, j in pairs]
            case _:
                raise ValueError('it has no "peers", "directed" and "edges"')
    except (ValueError, TypeError, RecursionError) as error:
        raise _bad("JSON", str(error), 'Write {"peers": 3, "directed": false, "edges": [[0, 1], [1, 2]]}.') from None
    if not 1 <= peers <= PEERS_MAX:
        raise _bad("JSON", f"peers is {peers}", f"It must be from 1 to {PEERS_MAX}.")
    for edge in edges:
        if not all(type(end) is int and 0 <= end < peers for end in edge):
            raise _bad("JSON", f"the edge {list(edge)} leaves the peers", f"They are 0 to {peers - 1}.")
    return _numbered(peers, (edge for edge in edges if edge[0] != edge[1]), directed)


@dataclass(frozen=True, slots=True)
class Format:
    """What files of some suffixes hold."""

    summary: str
    encode: Callable[[Graph], bytes]
    decode: Callable[[bytes], Graph]


_EDGES = Format("a line an edge", _to_edge_list, _from_edge_list)

FORMATS: Mapping[str, Format] = {
    ".graphml": Format("GraphML", _to_graphml, _from_graphml),
    ".edges": _EDGES,
    ".edgelist": _EDGES,
    ".txt": _EDGES,
    ".npy": Format("the adjacency matrix, as numpy saves it", _to_adjacency, _from_adjacency),
    ".json": Format("peers, directed, edges", _to_json, _from_json),
}


def _format(suffix: str) -> Format:
    if suffix.lower() not in FORMATS:
        raise TopologyError(f"{suffix or 'No suffix'} is no format of graphs.", f"There are: {', '.join(FORMATS)}.")
    return FORMATS[suffix.lower()]


def _by_number(graph: "nx.Graph[str]") -> "nx.Graph[Any]":
    if all(label.isascii() and label.isdecimal() and len(label) < 19 for label in graph):
        return nx.relabel_nodes(graph, {label: int(label) for label in graph})
    return graph


def _numbered(n: int, edges: Iterable[tuple[int, int]], directed: bool) -> Graph:
    graph: Graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges)
    return graph


def _bad(what: str, why: str, hint: str = "Write it again, or convert another file of the graph.") -> TopologyError:
    return TopologyError(f"This is no graph in {what}: {' '.join(why.split())}.", hint)
