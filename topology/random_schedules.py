"""Schedules that draw every round anew.

A round's draw is a function of the seed and the round's number, so that every peer, on whatever machine, works out the same
without a word: it is the raw stream of a Philox generator, which numpy promises not to change, keyed by their hash.
"""

import hashlib
from dataclasses import replace

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from topology.errors import TopologyError
from topology.families import at_least
from topology.schedules import Schedule, paired, shift
from topology.weights import Rows


def random_matching(n: int, seed: int = 0) -> Schedule:
    """Every round the peers are paired at random, and pairs take their means. If n is odd, one is left alone."""
    at_least(1, n=n)

    def rows(round: int) -> Rows:
        order = _permutation(n, "matching", seed, round).tolist()
        return paired(n, zip(order[::2], order[1::2], strict=False))

    return Schedule(n, None, rows)


def random_pair(n: int, seed: int = 0) -> Schedule:
    """Every round one pair drawn from all takes its mean: asynchronous gossip, a meeting a round (Boyd et al. 2006)."""
    at_least(2, n=n)
    return Schedule(n, None, lambda round: paired(n, [_two(n, "pair", seed, round)]))


def sequential_pair(n: int, seed: int = 0) -> Schedule:
    """In round r peer r mod n takes the mean with another drawn at random (Jelasity, Montresor and Babaoglu 2005)."""
    at_least(2, n=n)

    def rows(round: int) -> Rows:
        own = round % n
        other = _below(n - 1, "sequential", seed, round)
        return paired(n, [(own, other + (other >= own))])

    return Schedule(n, None, rows)


def epidemic(n: int, fanout: int, seed: int = 0, oracle: bool = False) -> Schedule:
    """Epidemic Learning (de Vos et al., NeurIPS 2023): every round everyone sends to `fanout` others, drawn anew.

    Local: each draws its own, and takes the plain mean of what it holds and what has arrived. So rows sum to 1, but columns
    only on average. Oracle: all draws are one random regular graph, whose weights are doubly stochastic.
    """
    at_least(1, n=n, fanout=fanout)
    asked = f"epidemic({n}, {fanout})"
    if fanout >= n:
        raise TopologyError(f"{asked}: a peer can't send to {fanout} of {n - 1} others.", "Lower the fanout.")
    if not oracle:
        return Schedule(n, None, lambda round: _arrived(_drawn_others(n, fanout, seed, round)))
    if n * fanout % 2:
        raise TopologyError(f"{asked}: n times fanout is odd, and every edge has two ends.", "Make one even, or oracle false.")
    return Schedule(n, None, lambda round: _oracle(n, fanout, seed, round))


def equitopo(n: int, seed: int = 0) -> Schedule:
    """One-peer directed EquiTopo, OD-EquiDyn, over all n - 1 basis graphs and with η = 1/2 (Song et al., NeurIPS 2022, 4).

    In a round everyone sends to the one u places on, u the same for all and uniform on 1..n-1. What a round leaves of the
    variance is less than half in expectation, at any n: the paper's O(1) rate. Of its four variants this one is doubly
    stochastic, sends one update a peer, and needs no parameter.
    """
    at_least(1, n=n)
    if n == 1:
        return Schedule(1, None, lambda round: [{0: 1.0}])
    share = (n - 1) / (2 * n)
    return Schedule(n, None, lambda round: shift(n, 1 + _below(n - 1, "equitopo", seed, round), share))


def relabelled(schedule: Schedule, seed: int = 0) -> Schedule:
    """The same graphs, on which the peers change their places at random every round.

    A round leaves (tr(WᵀW) − 1) / (n − 1) of the variance in expectation, whatever W's contraction; see
    `relabelled_contraction`.
    """

    def rows(round: int) -> Rows:
        place = _permutation(schedule.n, "relabelled", seed, round).tolist()
        moved: Rows = [{} for _ in place]
        for i, row in enumerate(schedule.rows(round)):
            moved[place[i]] = dict(sorted((place[j], weight) for j, weight in row.items()))
        return moved

    return replace(schedule, period=None, rows=rows)


def _drawn_others(n: int, fanout: int, seed: int, round: int) -> NDArray[np.int64]:
    """Of every peer, `fanout` others: [n, fanout]. Steps ahead on the ring, drawn without repetition (Floyd's algorithm)."""
    raw = _raw(n * fanout, "epidemic", seed, round).reshape(n, fanout)
    steps = np.empty((n, fanout), dtype=np.int64)
    for column in range(fanout):
        top = n - fanout + column  # steps are 1..n-1; this one is drawn from 1..top, and is top if that was taken
        drawn = 1 + (raw[:, column] % top).astype(np.int64)
        taken = (steps[:, :column] == drawn[:, None]).any(axis=1)
        steps[:, column] = np.where(taken, top, drawn)
    return (np.arange(n)[:, None] + steps) % n


def _arrived(targets: NDArray[np.int64]) -> Rows:
    heard = [[i] for i in range(len(targets))]
    for sender, row in enumerate(targets.tolist()):
        for receiver in row:
            heard[receiver].append(sender)
    return [dict.fromkeys(sorted(row), 1 / len(row)) for row in heard]


def _oracle(n: int, degree: int, seed: int, round: int) -> Rows:
    if degree == 1:
        order = _permutation(n, "oracle", seed, round).tolist()
        return paired(n, zip(order[::2], order[1::2], strict=True))
    drawn = nx.random_regular_graph(min(degree, n - 1 - degree), n, seed=_below(2**63, "oracle", seed, round))
    graph = drawn if degree <= n - 1 - degree else nx.complement(drawn)
    return [dict.fromkeys(sorted([i, *graph.adj[i]]), 1 / (degree + 1)) for i in range(n)]


def _permutation(n: int, what: str, seed: int, round: int) -> NDArray[np.int64]:
    return np.argsort(_raw(n, what, seed, round), kind="stable")


def _two(n: int, what: str, seed: int, round: int) -> tuple[int, int]:
    raw = _raw(2, what, seed, round).tolist()
    first, other = raw[0] % n, raw[1] % (n - 1)
    return first, other + (other >= first)


def _below(limit: int, what: str, seed: int, round: int) -> int:
    """Uniform on 0..limit-1 to within limit / 2**64."""
    return int(_raw(1, what, seed, round)[0]) % limit


def _raw(count: int, what: str, seed: int, round: int) -> NDArray[np.uint64]:
    key = hashlib.blake2b(f"{what} {seed} {round}".encode(), digest_size=16).digest()
    return np.random.Philox(key=np.frombuffer(key, dtype="<u8")).random_raw(count)
