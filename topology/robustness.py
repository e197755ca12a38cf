"""How many liars among one's neighbors a graph can bear: r-robustness.

A set of peers is r-reachable if one of them hears at least r peers from outside it. A graph is r-robust if of every two
disjoint sets that are not empty one is r-reachable (LeBlanc, Zhang, Koutsoukos and Sundaram, IEEE JSAC 2013, definition 13).
Trimming rules withstand F liars in every neighborhood where the graph is (2F + 1)-robust, and only there.
"""

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.errors import TopologyError
from topology.families import Graph, at_least
from topology.spectrum import algebraic_connectivity

EXACT_ROBUSTNESS_PEERS_MAX = 20  # all 2**n sets are weighed: a fraction of a second here; every peer more doubles it


def r_robustness(graph: Graph) -> int:
    """The largest r for which the graph is r-robust; 0 where it is in parts. A single peer counts as 1. Costs n·2**n.

    Raises `TopologyError` above `EXACT_ROBUSTNESS_PEERS_MAX` peers, with the bounds of `robustness_bounds`.
    """
    at_least(1, peers=len(graph))
    if len(graph) == 1:
        return 1
    if len(graph) > EXACT_ROBUSTNESS_PEERS_MAX:
        message = f"Exact r-robustness of {len(graph)} peers would weigh 2**{len(graph)} sets."
        raise TopologyError(message, f"Use robustness_bounds (at most {EXACT_ROBUSTNESS_PEERS_MAX} peers are exact).")
    reached = _reached(_heard(graph))
    best_within = reached.copy()  # of every set: the least of `reached` over its subsets
    best_within[0] = len(graph)  # the empty set is none
    for i in range(len(graph)):
        halves = best_within.reshape(-1, 2, 1 << i)
        np.minimum(halves[:, 1], halves[:, 0], out=halves[:, 1])
    complement = best_within[::-1]  # of set S: everyone else is set ~S
    return int(np.maximum(reached, complement)[1:-1].min())


def robustness_bounds(graph: Graph) -> tuple[int, int]:
    """What r-robustness lies between, in time n³: for undirected graphs with too many peers for `r_robustness`.

    At least ⌈μ₂/2⌉: the smaller of two sets is left by at least μ₂/2 edges a peer (Shahrivar, Pirani and Sundaram 2017).
    At most the least degree, ⌈n/2⌉, and what any one division of the peers shows; tried are those of the Fiedler vector.
    """
    at_least(2, peers=len(graph))
    connectivity = algebraic_connectivity(graph)
    if connectivity < 1e-9:
        return 0, 0
    heard = _heard(graph)
    adjacency = np.zeros((len(heard), len(heard)), dtype=np.int64)
    for i, others in enumerate(heard):
        adjacency[i, others] = 1
    degree = adjacency.sum(axis=1)
    order = np.argsort(np.linalg.eigh(np.diag(degree) - adjacency)[1][:, 1], kind="stable")
    shown = min(_shown_by(adjacency, order[:size], order[size:]) for size in range(1, len(heard)))
    lower = max(1, int(np.ceil(connectivity / 2 - 1e-9)))
    return lower, max(lower, min(int(degree.min()), (len(heard) + 1) // 2, shown))


def _shown_by(adjacency: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    between = adjacency[np.ix_(one, other)]
    return int(max(between.sum(axis=1).max(), between.sum(axis=0).max()))


def _reached(heard: list[list[int]]) -> NDArray[np.int8]:
    """Of every set of peers, as the bits of a number, the most peers outside that one of it hears: [2**n]."""
    n = len(heard)
    reached = np.zeros(1 << n, dtype=np.int8)
    for i, others in enumerate(heard):
        inside = np.zeros(1, dtype=np.int8)  # of every set, how many of the others are in it
        for j in range(n):
            inside = np.concatenate([inside, inside + np.int8(j in others)])
        with_i = reached.reshape(-1, 2, 1 << i)[:, 1]
        np.maximum(with_i, len(others) - inside.reshape(-1, 2, 1 << i)[:, 1], out=with_i)
    return reached


def _heard(graph: Graph) -> list[list[int]]:
    arriving = graph.pred if isinstance(graph, nx.DiGraph) else graph.adj
    place = {node: i for i, node in enumerate(sorted(graph))}
    return [sorted(place[sender] for sender in arriving[node] if sender != node) for node in place]
