"""Asynchronous gossip by whole periods: everyone pushes to one random neighbor, then merges by age what was pushed to it.

It is what live peers do under `gossip.mode = "async"` where all periods begin together and are equally long, and nothing is
late: Hegedus, Danner, Jelasity, "Gossip learning as a decentralized alternative to federated learning", DAIS 2019, algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.learning.local import Stacks
from p2pfl.learning.streams import philox
from sim.masks import Masks, Truth, Whole
from sim.mixing import Product, Rows, WeightSchedule, links_of, rows_of
from sim.workers import Workers


class Pushes:
    """Who pushes to whom in which period. The same weights, masks and seed give the same pushes."""

    def __init__(self, weights: Rows | WeightSchedule, peers: int, masks: Masks, seed: int, rank: Whole | None = None) -> None:
        """`weights` say only who is whose neighbor. `rank`: the place of every peer in the canonical order, in which a peer
        merges what came to it; their own order if it is not given."""
        self.peers, self.masks, self.seed = peers, masks, seed
        self.rank = np.arange(peers) if rank is None else rank
        self._period = 1 if isinstance(weights, Sequence) else weights.period
        self._links = lru_cache(1)(lambda number: _by_sender(rows_of(weights, number)))

    def of(self, round: int) -> tuple[Whole, Whole]:
        """(senders, receivers), each [pushes], senders ascending: all who are up and have a neighbor that they can reach."""
        senders, receivers = self._links(round % self._period if self._period else round)
        draws = philox(self.seed, 0, "push", round).random(self.peers)
        if self.masks.is_empty:
            counts = np.bincount(senders, minlength=self.peers)
        else:
            reached = self.masks.reaches(round, senders, receivers, self.peers)
            senders, receivers = senders[reached], receivers[reached]
            counts = np.bincount(senders, minlength=self.peers)
        pushing = np.flatnonzero(counts)
        first = np.cumsum(counts) - counts
        chosen = first + (draws * counts).astype(np.int64)
        return pushing, receivers[chosen[pushing]]


@dataclass(frozen=True, slots=True)
class Period:
    """The pushes of one period: who pushes to whom, which of them are merged, and their weights there; each [pushes].

    ages: [peers], by index, that the pushes carry.
    """

    senders: Whole
    receivers: Whole
    arrives: Truth
    weights: NDArray[np.float64]
    ages: Whole


class Ages:
    """The local steps that every model has seen, or merged, as periods pass."""

    def __init__(self, pushes: Pushes, steps: Whole, cap: int) -> None:
        """`steps`: local steps of every peer in a period, [peers] by index. An age is believed up to one's own + `cap`."""
        self._pushes, self._steps, self._cap = pushes, steps, cap
        self.tensor = torch.zeros(pushes.peers, dtype=torch.int64)

    def pass_period(self, round: int) -> Period:
        """Everyone who is up trains, pushes and merges."""
        pushes, ages = self._pushes, self.tensor.numpy()
        ages += np.where(pushes.masks.up(round, pushes.peers), self._steps, 0)
        sent = ages.copy()
        senders, receivers = pushes.of(round)
        arrives = pushes.masks.arrives(round, senders, receivers, pushes.peers, pushes.seed)
        weights = np.zeros(len(senders))
        weights[arrives], ages[:] = merged(sent, senders[arrives], receivers[arrives], self._cap, pushes.rank)
        return Period(senders, receivers, arrives, weights, sent)


class Merging:
    """Merges all peers by age."""

    def __init__(self, pushes: Pushes, product: Product, steps: Whole, cap: int) -> None:
        self._product, self._ages = product, Ages(pushes, steps, cap)

    def mix(self, stacks: Stacks, round: int, workers: Workers) -> None:
        """What follows the training of a period, in place."""
        period = self._ages.pass_period(round)
        there = period.arrives
        edges = self._product.edges(period.senders[there], period.receivers[there], period.weights[there])
        self._product.apply(stacks, edges, self._product.values(edges), round, workers)

    def state(self) -> dict[str, torch.Tensor]:
        """All that changes, to be saved and to be written into."""
        return {"age": self._ages.tensor}


def merged(ages: Whole, senders: Whole, receivers: Whole, cap: int, rank: Whole) -> tuple[NDArray[np.float64], Whole]:
    """(weight of every push at its receiver, ages [peers] after all merges): for all peers what `protocol.round.age_weights`
    gives for one. Every peer merges by the `rank` of the senders, all peers' first pushes at once, then their second ones."""
    order = np.lexsort((rank[senders], receivers))
    to = receivers[order]
    believed = np.minimum(ages[senders[order]], ages[to] + cap)
    nth = np.arange(len(to)) - np.searchsorted(to, to)  # 0 for the first that a peer merges, and so on
    turns = [np.flatnonzero(nth == turn) for turn in range(nth.max(initial=-1) + 1)]
    after, shares = ages.copy(), np.empty(len(to))
    for turn in turns:
        theirs, own = believed[turn], after[to[turn]]
        total = theirs + own
        shares[turn] = np.divide(theirs, total, out=np.full(len(turn), 0.5), where=total > 0)
        after[to[turn]] = np.maximum(own, theirs)
    kept, weights = np.ones(len(ages)), np.empty(len(to))  # what later merges leave of an earlier one
    for turn in reversed(turns):
        weights[order[turn]] = shares[turn] * kept[to[turn]]
        kept[to[turn]] *= 1 - shares[turn]
    return weights, after


def _by_sender(rows: Rows) -> tuple[Whole, Whole]:
    """(senders, receivers) of all links, in the order of (sender, receiver)."""
    senders, receivers, _ = links_of(rows)
    order = np.lexsort((receivers, senders))
    return senders[order], receivers[order]
