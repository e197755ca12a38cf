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

Weights = NDArray[np.float64]  # [n, n]
Rows = list[dict[int, float]]  # of peer i: {j: W[i, j]} where it is not zero; i itself included; in ascending j


def metropolis_weights(graph: Graph) -> Weights:
    """1 / (1 + the larger degree of the two) on every edge, the rest to oneself (Xiao, Boyd and Lall 2005).

    Symmetric, on every graph; a peer needs to know only its neighbors' degrees. For undirected graphs.
    """
    return _dense(_metropolis(graph))


def uniform_weights(graph: Graph) -> Weights:
    """1 / (degree + 1) to oneself and to each neighbor that one receives from.

    Doubly stochastic only where all degrees are equal (in and out, if directed); elsewhere gossip settles on a mean in which
    peers of high degree count more.
    """
    return _dense(_uniform(graph))


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
    if graph.is_directed():
        raise TopologyError("Metropolis weights need an undirected graph.", 'Use the weights "uniform" on a directed one.')
    neighbors = senders(graph)
    degree = [len(row) for row in neighbors]
    shares = [{j: 1 / (1 + max(degree[i], degree[j])) for j in row} for i, row in enumerate(neighbors)]
    return [_with_own(i, row, 1 - fsum(row.values())) for i, row in enumerate(shares)]


def _uniform(graph: Graph) -> Rows:
    shares = [dict.fromkeys(row, 1 / (len(row) + 1)) for row in senders(graph)]
    return [_with_own(i, row, 1 / (len(row) + 1)) for i, row in enumerate(shares)]


WEIGHTS = {"metropolis": _metropolis, "uniform": _uniform}


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


def _with_own(i: int, row: dict[int, float], own: float) -> dict[int, float]:
    return dict(sorted({**row, i: own}.items()))


def _dense(rows: Rows) -> Weights:
    weights = np.zeros((len(rows), len(rows)))
    for i, row in enumerate(rows):
        weights[i, list(row)] = list(row.values())
    return weights
