"""Mixing weights: how much each peer gives to what its neighbors send, and to its own.

W[i, j] is the weight that peer i gives to what comes from j, so every row sums to 1. Rows and columns are in sorted node
order. If W is symmetric, columns sum to 1 too (W is doubly stochastic), and gossip preserves the mean of the peers.

Graphs must be connected (directed ones strongly): weights on several parts would never bring them together.
"""

import difflib
from math import fsum

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.errors import TopologyError
from topology.families import Graph
from topology.fastest import best_constant, fastest, laplacian

Weights = NDArray[np.float64]  # [n, n]
Rows = list[dict[int, float]]  # of peer i: {j: W[i, j]} where it is not zero; i itself included; in ascending j


def metropolis_weights(graph: Graph) -> Weights:
    """1 / (1 + the larger degree of the two) on every edge, the rest to oneself (Xiao, Boyd and Lall 2005).

    Symmetric, on every graph; a peer needs to know only its neighbors' degrees. For undirected graphs.
    """
    return dense(_metropolis(graph))


def uniform_weights(graph: Graph) -> Weights:
    """1 / (degree + 1) to oneself and to each neighbor that one receives from.

    Doubly stochastic only where all degrees are equal (in and out, if directed); elsewhere gossip settles on a mean in which
    peers of high degree count more.
    """
    return dense(_uniform(graph))


def max_degree_weights(graph: Graph) -> Weights:
    """1 / (1 + the largest degree of all) on every edge, the rest to oneself: I - L / (d_max + 1). For undirected graphs."""
    return dense(_max_degree(graph))


def best_constant_weights(graph: Graph) -> Weights:
    """The best of those that give the same weight to every edge: I - 2L / (μ₂ + μₙ) (Xiao and Boyd 2004, section 4.1).

    μ are the eigenvalues of the Laplacian L, so it costs n³; the contraction is (μₙ - μ₂) / (μₙ + μ₂). What a peer gives to
    itself may be negative. For undirected graphs.
    """
    return dense(_best_constant(graph))


def fastest_weights(graph: Graph) -> Weights:
    """The symmetric weights of least contraction (FDLA; Xiao and Boyd 2004, section 4.2), to within `fastest.TOLERANCE` of it.

    On edge-transitive graphs they are the best constant ones; elsewhere an optimization finds them, for up to
    `fastest.EDGES_MAX` edges. Some may be negative. For undirected graphs.
    """
    return dense(_fastest(graph))


def lazy(weights: Weights) -> Weights:
    """(I + W) / 2: half as fast, but without the negative eigenvalues that some methods can't bear."""
    return (np.eye(len(weights)) + weights) / 2


def neighbor_weights(graph: Graph, kind: str = "metropolis") -> Rows:
    """The rows of W as mappings, for graphs whose [n, n] is too large, in time and memory of the edges."""
    if kind not in WEIGHTS:
        near = difflib.get_close_matches(kind, WEIGHTS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(WEIGHTS)}."
        raise TopologyError(f"Unknown mixing weights {kind!r}.", hint)
    return WEIGHTS[kind](graph)


def _metropolis(graph: Graph) -> Rows:
    neighbors = _undirected(graph, "Metropolis")
    degree = [len(row) for row in neighbors]
    shares = [{j: 1 / (1 + max(degree[i], degree[j])) for j in row} for i, row in enumerate(neighbors)]
    return [_with_own(i, row, 1 - fsum(row.values())) for i, row in enumerate(shares)]


def _uniform(graph: Graph) -> Rows:
    shares = [dict.fromkeys(row, 1 / (len(row) + 1)) for row in senders(graph)]
    return [_with_own(i, row, 1 / (len(row) + 1)) for i, row in enumerate(shares)]


def _max_degree(graph: Graph) -> Rows:
    neighbors = _undirected(graph, "Max-degree")
    share = 1 / (1 + max(map(len, neighbors)))
    return [_with_own(i, dict.fromkeys(row, share), 1 - share * len(row)) for i, row in enumerate(neighbors)]


def _best_constant(graph: Graph) -> Rows:
    neighbors = _undirected(graph, "Best constant")
    share = best_constant(laplacian(neighbors))
    return [_with_own(i, dict.fromkeys(row, share), 1 - share * len(row)) for i, row in enumerate(neighbors)]


def _fastest(graph: Graph) -> Rows:
    neighbors = _undirected(graph, "The fastest")
    edges = [(i, j) for i, row in enumerate(neighbors) for j in row if i < j]
    share = dict(zip(edges, fastest(laplacian(neighbors), edges), strict=True))
    shares = [{j: share[min(i, j), max(i, j)] for j in row} for i, row in enumerate(neighbors)]
    return [_with_own(i, row, 1 - fsum(row.values())) for i, row in enumerate(shares)]


WEIGHTS = {
    "metropolis": _metropolis,
    "uniform": _uniform,
    "max_degree": _max_degree,
    "best_constant": _best_constant,
    "fastest": _fastest,
}


def senders(graph: Graph) -> list[list[int]]:
    """Whom each peer receives from, itself left out; peers by their places in sorted node order."""
    if not graph:
        raise TopologyError("The graph has no peers.", "Give it at least one.")
    if isinstance(graph, nx.DiGraph):
        arriving, is_connected = graph.pred, nx.is_strongly_connected(graph)
    else:
        arriving, is_connected = graph.adj, nx.is_connected(graph)
    if not is_connected:
        raise TopologyError("The graph is not connected, so its parts could never agree.", "Join them by an edge.")
    place = {node: i for i, node in enumerate(sorted(graph))}
    return [sorted(place[sender] for sender in arriving[node] if sender != node) for node in place]


def _undirected(graph: Graph, kind: str) -> list[list[int]]:
    if graph.is_directed():
        raise TopologyError(f"{kind} weights need an undirected graph.", 'Use the weights "uniform" on a directed one.')
    return senders(graph)


def _with_own(i: int, row: dict[int, float], own: float) -> dict[int, float]:
    return dict(sorted({**row, i: own}.items()))


def dense(rows: Rows) -> Weights:
    """The rows as a matrix, [n, n]."""
    weights = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        weights[i, list(row)] = list(row.values())
    return weights
