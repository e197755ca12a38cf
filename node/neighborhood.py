"""Whom the charter's graph makes a node's neighbors, while these or those members are live."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from p2pfl.failure import Failure
from p2pfl.protocol.admission.admissions import MEMBERS_MAX
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.round import Plan, RoundPlan, round_plan
from topology.errors import TopologyError
from topology.overlay import overlay, round_links, watched

FINGERS_MAX = 64  # of the exponential graph among so many, in and out
_NOTHING = RoundPlan((), {})
ROUNDS_KEPT = 8  # a peer asks several times in a round, and an epidemic hashes for everybody


class Neighborhood:
    """Of one node; everybody works out the same graph. Relays are in none, but are watched like all."""

    def __init__(
        self,
        own: PeerId,
        network_id: bytes,
        seed: int,
        topology: Mapping[str, Any],
        is_relay: Callable[[PeerId], bool] = lambda _peer: False,
        is_hidden: Callable[[PeerId], bool] = lambda _peer: False,
    ) -> None:
        """`topology`: overlay and degree, as the charter has them. Raises `Failure` for a graph that can't be."""
        self._own, self._seed = own, seed
        self._is_relay, self._is_hidden = is_relay, is_hidden
        self._watch_seed = int.from_bytes(network_id[:8], "big")  # the same under every charter
        self._kind, self._degree = _graph(topology)
        self._check()
        self.most = _most(self._kind, self._degree)
        """How many there are at most."""

    def amend(self, topology: Mapping[str, Any]) -> bool:
        """Whether this is the graph from now on: one of more neighbors needs more memory than was laid out for `most`. Raises
        `Failure` as at first."""
        kind, degree = _graph(topology)
        if _most(kind, degree) > self.most:
            return False
        self._kind, self._degree = kind, degree
        self._check()
        return True

    def plan_of(self, live: tuple[PeerId, ...]) -> Plan:
        """With whom to gossip models. A relay does with nobody; near to it are those that it may have to carry for."""
        if self._is_relay(self._own):
            hidden = tuple(peer for peer in live if peer != self._own and self._is_hidden(peer))
            return Plan(lambda _round: _NOTHING, hidden, hidden)
        live = tuple(peer for peer in live if not self._is_relay(peer))
        near = tuple(map(PeerId, overlay(self._kind, live, self._own, self._seed, self._degree)))
        links = round_links(self._kind, live, self._own, self._seed, self._degree)

        @functools.lru_cache(maxsize=ROUNDS_KEPT)
        def of(round: int) -> RoundPlan:
            mine = links(round)
            weights = {PeerId(peer): weight for peer, weight in mine.weights.items()}
            return round_plan(self._own, map(PeerId, mine.send_to), weights)

        return Plan(of, near, near)

    def watch(self, live: Sequence[PeerId], peer: PeerId) -> list[PeerId]:
        """Whom failure detection watches, whatever the graph."""
        return [PeerId(other) for other in watched(live, peer, self._watch_seed)]

    def _check(self) -> None:
        try:
            self.plan_of((self._own,))
        except TopologyError as error:
            raise Failure("bad_charter", f"The charter's graph can't be: {error.message}", error.hint) from None


def _graph(topology: Mapping[str, Any]) -> tuple[str, int]:
    return str(topology.get("overlay", "random_regular")), int(topology.get("degree", 4))


def _most(kind: str, degree: int) -> int:
    """Where the graph is complete, all whom a network lets in."""
    return {"ring": 2, "random_regular": degree + 1, "exponential": FINGERS_MAX}.get(kind, MEMBERS_MAX)
