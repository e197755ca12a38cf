"""Random graphs: the same for the same seed, and connected or refused.

networkx draws. Where a graph is not connected, further ones are drawn from seeds derived from the first; so the law is that
of the family, given that the graph is connected.
"""

import hashlib
import math
from collections.abc import Callable

import networkx as nx

from topology.errors import TopologyError
from topology.families import Graph, at_least, ring, simple

DRAWS_MAX = 100  # a family that was never connected in so many draws is below its threshold; a user should hear of it


def random_regular(degree: int, n: int, seed: int = 0) -> Graph:
    """Every peer has `degree` neighbors; otherwise nearly uniform (Steger and Wormald 1999)."""
    at_least(1, n=n)
    at_least(0, degree=degree)
    asked = f"random_regular({degree}, {n})"
    if degree >= n:
        raise TopologyError(f"{asked}: a peer can't have {degree} neighbors among {n - 1} others.", "Lower the degree.")
    if degree * n % 2:
        raise TopologyError(f"{asked}: degree times n is odd, and every edge has two ends.", "Make one of them even.")
    if degree < 2 < n:
        raise TopologyError(f"{asked}: it can't be connected.", "Give a degree of at least 2.")
    if degree > (n - 1) / 2:  # what is left out is sparse, and fast to draw; what remains is connected (Dirac)
        left_out = nx.random_regular_graph(n - 1 - degree, n, seed=seed)
        return simple(n, nx.complement(left_out).edges)
    if degree == 2:  # connected and 2-regular is a ring; a draw of the family nearly never is, once n is large
        return _shuffled(ring(n), n, seed)
    return _connected(asked, lambda s: nx.random_regular_graph(degree, n, seed=s), n, seed, "Raise the degree.")


def erdos_renyi(n: int, p: float, seed: int = 0) -> Graph:
    """Every pair is joined with probability p (Gilbert 1959). Connected for most seeds if p > ln(n) / n."""
    at_least(1, n=n)
    _probability(p)
    hint = f"Raise p; the threshold is ln(n)/n = {math.log(n) / n:.3g}."
    return _connected(f"erdos_renyi({n}, {p})", lambda s: nx.fast_gnp_random_graph(n, p, seed=s), n, seed, hint)


def small_world(n: int, k: int, p: float, seed: int = 0) -> Graph:
    """A ring of peers joined to their k nearest, each edge rewired with probability p (Watts and Strogatz 1998)."""
    at_least(1, n=n)
    _probability(p)
    asked = f"small_world({n}, {k}, {p})"
    if k < 2 or k % 2:
        raise TopologyError(f"{asked}: k is {k}.", "Make it even, half on either side, and at least 2.")
    if k >= n:
        raise TopologyError(f"{asked}: a peer can't have {k} neighbors among {n - 1} others.", "Lower k.")
    return _connected(asked, lambda s: nx.watts_strogatz_graph(n, k, p, seed=s), n, seed, "Raise k.")


def scale_free(n: int, m: int, seed: int = 0) -> Graph:
    """From a star of m + 1, each new peer joins m others, by their degrees (Barabási and Albert 1999). Always connected."""
    at_least(1, n=n, m=m)
    if m >= n:
        raise TopologyError(f"scale_free({n}, {m}): a new peer can't join {m} of {n - 1} others.", "Lower m.")
    return simple(n, nx.barabasi_albert_graph(n, m, seed=seed).edges)


def _connected(asked: str, draw: Callable[[int], Graph], n: int, seed: int, hint: str) -> Graph:
    for attempt in range(DRAWS_MAX):
        graph = draw(_derived(seed, attempt))
        if nx.is_connected(graph):
            return simple(n, graph.edges)
    raise TopologyError(f"{asked}: none of {DRAWS_MAX} draws was connected.", hint)


def _derived(seed: int, attempt: int) -> int:
    if attempt == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed} {attempt}".encode(), digest_size=8).digest(), "big")


def _shuffled(graph: Graph, n: int, seed: int) -> Graph:
    order = list(range(n))
    nx.utils.create_py_random_state(seed).shuffle(order)
    return simple(n, ((order[i], order[j]) for i, j in graph.edges))


def _probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise TopologyError(f"p is {p}.", "It is a probability, from 0 to 1.")
