"""What is missing in a round: peers that are away, messages that are lost, links that carry nothing.

A missing update is a term that is left out of x_i + sum_j W_ij (Q(x_j) - Q(x_i)), so that its weight goes to the peer itself,
as it does in a live peer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.streams import philox
from sim import churn

if TYPE_CHECKING:
    from sim.world import World

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

    def reaches(self, round: int, senders: Whole, receivers: Whole, peers: int) -> Truth:
        """[edges]: whether both are up in this round and nothing cuts their link."""
        up = self.up(round, peers)
        return self._passes(round, senders, receivers, up[senders] & up[receivers])

    def is_sent(self, round: int, senders: Whole, receivers: Whole, peers: int) -> Truth:
        """[edges]: whether an update is sent over this edge in this round to somebody who is there to mix it."""
        return self._passes(round, senders, receivers, self.up(round, peers)[senders] & self.up(round + 1, peers)[receivers])

    def _passes(self, round: int, senders: Whole, receivers: Whole, links: Truth) -> Truth:
        """Of these links, [edges], those that no cut stops in this round."""
        for cut in self.cuts:
            if cut.begin <= round < cut.end:
                links = links & ~cut.stops(senders, receivers)
        return links

    def arrives(self, round: int, senders: Whole, receivers: Whole, peers: int, seed: int) -> Truth:
        """[edges]: whether it is not lost either, and so is mixed after this round.

        Losses are drawn edge by edge, in the order given, from a stream of (seed, round).
        """
        arrives = self.is_sent(round, senders, receivers, peers)
        return arrives & (philox(seed, 0, "loss", round).random(len(senders)) >= self.loss) if self.loss else arrives


FAULTS = ("crash", "leave", "partition", "cut")
"""The kinds of faults that are masks."""


def masks_of(world: "World") -> Masks:
    """What churn, losses and faults make missing. What happens in the middle of a round is what happens in the round."""
    moments = (np.arange(world.rounds) + 0.5) * world.round_s
    away = np.zeros((world.rounds, world.peers), dtype=bool) if world.churn.is_calm else churn.away(world)
    cuts = []
    for fault in world.faults:
        begin = int(np.searchsorted(moments, fault.at))
        end = world.rounds if fault.heal is None else int(np.searchsorted(moments, fault.heal))
        match fault.kind:
            case "partition":
                cuts.append(Cut(begin, end, partition(fault.groups, world.peers)))
            case "cut":
                sending, receiving = fault.groups
                cuts.append(Cut(begin, end, one_way(sending, receiving, world.peers)))
            case "crash" | "leave":
                away[begin:end, list(fault.peers)] = True
            case _:
                raise AssertionError(f"{fault.kind} is no mask")
    return Masks(away if away.any() else None, world.network.loss, tuple(cuts))


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
