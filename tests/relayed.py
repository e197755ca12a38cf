"""Peers that nobody can dial, and the relays over which they meet: `ring.Ring`, with tunnels instead of its links.

Peers, tunnels, forwarders, keys and all cryptography are real. The links to relays deliver at once and in order, unless the
test takes a relay into its hands.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from typing import Any

from p2pfl.protocol.events import (
    DeadlineReached,
    Dial,
    Effect,
    Event,
    FrameReceived,
    HangUp,
    LinkDown,
    LinkUp,
    PeerId,
    Rejected,
    Send,
)
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.forwarder import Forwarder
from p2pfl.protocol.relay.tunnel import Outcome
from p2pfl.protocol.relay.tunnels import Tunnels
from sim.entropy import SeededEntropy
from tests.ring import Ring

Frames = tuple[Sized, ...]


@dataclass
class Relay:
    """`passes` is what becomes of what it has forwarded: (to whom, frames), one by one."""

    id: PeerId
    forwarder: Forwarder
    is_up: bool = True
    linked: set[PeerId] = field(default_factory=set)
    passed: list[tuple[PeerId, PeerId, Frames]] = field(default_factory=list)
    passes: Callable[[PeerId, PeerId, Frames], Iterable[tuple[PeerId, Frames]]] = lambda hop, to, frames: [(to, frames)]


@dataclass
class Around:
    """Who is where; everybody knows the same."""

    members: set[PeerId]
    relay_ids: list[PeerId]
    hidden: set[PeerId]

    def relays(self) -> list[PeerId]:
        return self.relay_ids

    def is_hidden(self, peer: PeerId) -> bool:
        return peer in self.hidden


class Relayed(Ring):
    """A ring whose peers are all hidden."""

    def __init__(self, n: int, *rest: Any, relays: int = 1, **settings: Any) -> None:
        super().__init__(n, *rest, **settings)
        ids = [PeerId(hashlib.blake2b(b"relay %d" % k, digest_size=32).digest()) for k in range(relays)]
        self.around = Around({*self.ids, *ids}, ids, set(self.ids))
        self.relays = [self._relay(id) for id in ids]
        self.tunnels = [self._tunnels(k, 1) for k in range(n)]
        self.refused: list[tuple[int, Rejected]] = []
        self.links: deque[tuple[int, LinkUp | LinkDown | FrameReceived]] = deque()

    def _relay(self, id: PeerId) -> Relay:
        linked: set[PeerId] = set()
        return Relay(id, Forwarder(self.around.members, linked.__contains__), linked=linked)

    def _tunnels(self, k: int, boot: int) -> Tunnels:
        return Tunnels(
            self.ids[k],
            self.charter.network_id,
            Keyring(self.stages[k].identity, self.members),
            SeededEntropy(self.seed, b"tunnels %d %d" % (k, boot)),
            Choices(self.seed, b"tunnels %d" % k),
            self.around,
        )

    def relay_of(self, one: int, other: int) -> Relay:
        """Over which the open tunnel between two goes."""
        return self.relay(self.tunnels[one].tunnels[self.ids[other]])

    def relay(self, id: PeerId) -> Relay:
        return next(relay for relay in self.relays if relay.id == id)

    def reasons(self, k: int) -> list[str]:
        """Why the tunnels of this peer refused something."""
        return [str(refusal.reason) for where, refusal in self.refused if where == k]

    # ---- what moves -----------------------------------------------------------------------------------------------------

    def settle(self, learn: bool = True) -> None:
        for _ in range(100_000):
            if self.links:
                k, event = self.links.popleft()
                self._follow(k, self.tunnels[k].heard(event, self.time))
                continue
            k = next((k for k, stage in enumerate(self.stages) if stage.inbox), -1)
            if k >= 0:
                self.tell(k, self.stages[k].inbox.popleft())
                continue
            k = next((k for k, stage in enumerate(self.stages) if learn and stage.learning is not None), -1)
            if k < 0:
                return
            self.learn(k)
        raise AssertionError("the peers never settle")

    def pass_time(self, seconds: float, learn: bool = True) -> None:
        until = self.time + seconds
        self.settle(learn)
        while True:
            peers = [(s.peer.deadline, k, True) for k, s in enumerate(self.stages) if s.peer.deadline is not None]
            tunnels = [(tunnels.deadline, k, False) for k, tunnels in enumerate(self.tunnels)]
            due, k, is_peer = min([*peers, *tunnels])
            if due > until:
                break
            self.time = max(self.time, due)
            if is_peer:
                self.tell(k, DeadlineReached())
            else:
                self._follow(k, self.tunnels[k].tick(self.time))
            self.settle(learn)
        self.time = until

    def _carry_out(self, k: int, effect: Effect) -> None:
        if isinstance(effect, Dial | HangUp | Send):
            self._follow(k, self.tunnels[k].asked(effect, self.time))
        else:
            super()._carry_out(k, effect)

    def _follow(self, k: int, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case LinkUp() | LinkDown() | FrameReceived():
                    if self._peer_of(outcome) in self.ids:
                        self.stages[k].inbox.append(outcome)
                case Rejected():
                    self.refused.append((k, outcome))
                case Dial(peer):
                    self._link(k, self.relay(peer))
                case HangUp(peer):
                    self._unlink(k, self.relay(peer))
                case Send(to, frames):
                    self.give(self.relay(to), self.ids[k], frames)

    @staticmethod
    def _peer_of(event: Event) -> PeerId:
        return event.hop if isinstance(event, FrameReceived) else event.peer

    # ---- relays ---------------------------------------------------------------------------------------------------------

    def give(self, relay: Relay, hop: PeerId, frames: Frames) -> None:
        """A message over the link from `hop` to the relay."""
        if not relay.is_up or hop not in relay.linked:
            return
        for effect in relay.forwarder.heard(hop, frames, self.time):
            if isinstance(effect, Send):
                relay.passed.append((hop, effect.to, effect.frames))
                for to, passed in relay.passes(hop, effect.to, effect.frames):
                    self.hand(relay, to, passed)

    def hand(self, relay: Relay, to: PeerId, frames: Frames) -> None:
        """A message over the link from the relay."""
        if to in relay.linked:
            self.links.append((self.ids.index(to), FrameReceived(relay.id, frames)))

    def stop(self, relay: Relay) -> None:
        """Its process ends."""
        relay.is_up = False
        for k in [k for k, id in enumerate(self.ids) if id in relay.linked]:
            self._unlink(k, relay)

    def _link(self, k: int, relay: Relay) -> None:
        if relay.is_up:
            relay.linked.add(self.ids[k])
            self.links.append((k, LinkUp(relay.id)))
        else:
            self.links.append((k, LinkDown(relay.id)))

    def _unlink(self, k: int, relay: Relay) -> None:
        if self.ids[k] in relay.linked:
            relay.linked.discard(self.ids[k])
            relay.forwarder.unlinked(self.ids[k])
            self.links.append((k, LinkDown(relay.id)))
