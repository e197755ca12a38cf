"""What is missing in a round: peers that are away, messages that are lost, links that carry nothing.

A missing update is a term that is left out of x_i + sum_j W_ij (Q(x_j) - Q(x_i)), so that its weight goes to the peer itself,
as it does in a live peer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.streams import philox

Whole = NDArray[np.int64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Cut:
    """Messages that do not pass in the rounds from `begin` to before `end`: `stops(senders, receivers)`, arrays of peers."""

    begin: int
    end: int
    stops: Callable[[Whole, Whole], Truth]


@dataclass(frozen=True, slots=True)
class Masks:
    """By default nothing is missing.

    away: [rounds, peers], or None where nobody ever is. A peer that is away in round r does not carry out the `Learn` of that
    round: it does not mix what was sent in round r - 1, is not measured, does not train and sends nothing; its vector stays.
    Who is up in the last round also mixes after it. loss: probability that a message of a round does not arrive, for every
    directed link on its own.
    """

    away: Truth | None = None
    loss: float = 0.0
    cuts: tuple[Cut, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is ever missing."""
        return self.away is None and self.loss == 0 and not self.cuts

    def up(self, round: int, peers: int) -> Truth:
        """[peers]: who carries out the `Learn` of this round. Round R, after the last, is for those of round R - 1."""
        return np.ones(peers, dtype=bool) if self.away is None else ~self.away[min(round, len(self.away) - 1)]

    def arrives(self, round: int, senders: Whole, receivers: Whole, peers: int, seed: int) -> Truth:
        """[edges]: whether the update that is sent over this edge in this round is mixed after it.

        Losses are drawn edge by edge, in the order given, from a stream of (seed, round).
        """
        arrives = self.up(round, peers)[senders] & self.up(round + 1, peers)[receivers]
        if self.loss:
            arrives &= philox(seed, 0, "loss", round).random(len(senders)) >= self.loss
        for cut in self.cuts:
            if cut.begin <= round < cut.end:
                arrives &= ~cut.stops(senders, receivers)
        return arrives


def partition(groups: Sequence[Iterable[int]], peers: int) -> Callable[[Whole, Whole], Truth]:
    """Nothing passes from one group to another; whoever is in none is in one more."""
    group_of = np.full(peers, -1)
    for number, group in enumerate(groups):
        group_of[list(group)] = number
    return lambda senders, receivers: group_of[senders] != group_of[receivers]


def one_way(sending: Iterable[int], receiving: Iterable[int], peers: int) -> Callable[[Whole, Whole], Truth]:
    """Nothing passes from the first group to the second."""
    sends, receives = np.zeros((2, peers), dtype=bool)
    sends[list(sending)] = receives[list(receiving)] = True
    return lambda senders, receivers: sends[senders] & receives[receivers]
