"""Schedules: other mixing weights every round, so that few links a round do what many would.

A schedule is called with the number of a round, from 0, and returns that round's weights:

    schedule = base_k(n=25, k=2)
    schedule(0)                 # [n, n]; W[i, j] is the weight that peer i gives to what comes from j
    schedule.rows(0)            # the same for large n: of peer i, {j: W[i, j]} where it is not zero
    schedule.period             # after so many rounds it begins again; None if every round is a new draw

Those of this file repeat. The random ones are in `random_schedules`, Base-(k+1) in `finite_time`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import networkx as nx

from topology.families import Graph, at_least
from topology.weights import Rows, Weights, dense, neighbor_weights


@dataclass(frozen=True, slots=True)
class Schedule:
    """Mixing weights by round. `rows(round)` must be a pure function: every peer works it out on its own."""

    n: int
    period: int | None
    rows: Callable[[int], Rows]

    def __call__(self, round: int) -> Weights:
        return dense(self.rows(round))


def static(graph: Graph, kind: str = "metropolis") -> Schedule:
    """The same weights, of a kind that `WEIGHTS` names, every round."""
    return repeating(len(graph), [neighbor_weights(graph, kind)])


def one_peer_exponential(n: int) -> Schedule:
    """In round r each peer sends to the one 2**(r mod ⌈log₂ n⌉) places on (Ying et al., NeurIPS 2021, section 4).

    A period is an exact mean where n is a power of two, and only there.
    """
    at_least(1, n=n)
    hops = [1 << bit for bit in range((n - 1).bit_length())] or [0]
    return repeating(n, (shift(n, hop, 1 / 2) for hop in hops))


def one_peer_hypercube(dimension: int) -> Schedule:
    """In round r the 2**dimension peers whose numbers differ in bit r mod dimension take their mean. A period is exact."""
    at_least(0, dimension=dimension)
    n = 2**dimension
    pairs = ([(i, i | 1 << bit) for i in range(n) if not i >> bit & 1] for bit in range(dimension))
    return repeating(n, [paired(n, round) for round in pairs] or [paired(n, [])])


def links(schedule: Schedule) -> Graph:
    """Who sends to whom in a period; of a schedule without one, in round 0. Undirected where all links go both ways."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(schedule.n))
    for round in range(schedule.period or 1):
        graph.add_edges_from((j, i) for i, row in enumerate(schedule.rows(round)) for j in row if i != j)
    both = graph.to_undirected(reciprocal=True)
    return both if 2 * both.number_of_edges() == graph.number_of_edges() else graph


def repeating(n: int, rounds: Iterable[Rows]) -> Schedule:
    """These rounds, again and again."""
    known = tuple(rounds)
    return Schedule(n, len(known), lambda round: known[round % len(known)])


def shift(n: int, hop: int, share: float) -> Rows:
    """Everyone sends to the one `hop` places on, who gives `share` to it."""
    if hop % n == 0:
        return paired(n, [])
    return [dict(sorted({i: 1 - share, (i - hop) % n: share}.items())) for i in range(n)]


def paired(n: int, pairs: Iterable[tuple[int, int]]) -> Rows:
    """Each pair takes its mean; the others keep what they have."""
    rows: Rows = [{i: 1.0} for i in range(n)]
    for i, j in pairs:
        rows[i] = {min(i, j): 1 / 2, max(i, j): 1 / 2}
        rows[j] = dict(rows[i])
    return rows
