"""All tunnels of one member, between its peer and its links.

What the peer asks for goes in at `asked`, what its links tell at `heard`; both give back what is to be done and to be told, in
order. What concerns no tunnel comes back as it went in. So the peer sees an ordinary link to each member, and the links see
messages to and from relays, whichever way a member is reached.

A member is hidden if it states no address. Between two hidden members there is a tunnel, and no link else.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sized
from dataclasses import replace
from typing import Any, Protocol, assert_never

from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Dial, FrameReceived, HangUp, LinkDown, LinkUp, PeerId, Rejected, Send
from p2pfl.protocol.identity import Oath
from p2pfl.protocol.randomness import Choices, Entropy
from p2pfl.protocol.relay import relay_wire
from p2pfl.protocol.relay.forwarder import READ_OF_PAIR
from p2pfl.protocol.relay.meeting import HOMES, homes, meeting_order
from p2pfl.protocol.relay.relay_wire import Answer, Carried, Knock, NotReachable, Taken, Wake
from p2pfl.protocol.relay.tunnel import Outcome, Party, Tunnel

STRANGE_MAX = 32  # tunnels that only the other end needs
KNOCKS_PER_S, KNOCKS_AT_ONCE = 0.5, 5.0  # that are answered, of one member over one relay: an answer costs three signatures
RELAY_KNOCKS_PER_S, RELAY_KNOCKS_AT_ONCE = 8.0, 64.0  # and over one relay: it could play again the knocks of all members
PAIRS_KEPT = 1024
PAIRS = 8.0  # a relay may say as much as so many members that say all they may


class Surroundings(Protocol):
    """What is known of the members now."""

    @property
    def members(self) -> Container[PeerId]: ...
    def relays(self) -> Iterable[PeerId]:
        """The live members whose certificate makes them relays, without oneself."""
        ...

    def is_hidden(self, peer: PeerId) -> bool:
        """Whether a member, or we ourselves, states no address."""
        ...


class Tunnels:
    """`refused` counts by whom is to blame and why, `dropped` the messages that had no way to a member, `flooded` by relay and
    member what was more than is read of the two. Either may have made that, so neither is blamed."""

    def __init__(
        self, own: PeerId, network: bytes, oath: Oath, entropy: Entropy, choices: Choices, around: Surroundings
    ) -> None:
        self.refused: Counter[tuple[PeerId, Reason]] = Counter()
        self.dropped: Counter[PeerId] = Counter()
        self.flooded: Counter[tuple[PeerId, PeerId]] = Counter()
        self._own, self._around = own, around
        self._party = Party(own, network, oath, entropy, choices)
        self._relays: tuple[PeerId, ...] = ()
        self._tunnels: dict[PeerId, Tunnel] = {}
        self._linked: set[PeerId] = set()
        self._asked: set[PeerId] = set()  # whom the peer wants to be linked with
        self._dialled: set[PeerId] = set()  # whom Links was asked to dial
        self._is_looked_around = False
        usual = READ_OF_PAIR
        ample = replace(
            usual,
            messages_per_s=PAIRS * usual.messages_per_s,
            messages_burst=PAIRS * usual.messages_burst,
            bytes_per_s=PAIRS * usual.bytes_per_s,
            bytes_burst=PAIRS * usual.bytes_burst,
        )
        self._by_relay, self._by_pair = Allowances(ample), Allowances(usual)
        self._knocks_by_relay = Buckets(RELAY_KNOCKS_PER_S, RELAY_KNOCKS_AT_ONCE, PAIRS_KEPT)
        self._knocks_by_pair = Buckets(KNOCKS_PER_S, KNOCKS_AT_ONCE, PAIRS_KEPT)

    @property
    def deadline(self) -> float:
        """The next monotonic moment at which it wants `tick`; at once, at first."""
        if not self._is_looked_around:
            return float("-inf")
        return min((tunnel.deadline for tunnel in self._tunnels.values()), default=float("inf"))

    @property
    def tunnels(self) -> dict[PeerId, PeerId]:
        """The open ones: the member at the other end, and the relay."""
        return {peer: tunnel.relay for peer, tunnel in self._tunnels.items() if tunnel.relay is not None}

    def has(self, peer: PeerId) -> bool:
        """Whether there is an open tunnel to this member."""
        tunnel = self._tunnels.get(peer)
        return tunnel is not None and tunnel.is_open

    def account(self) -> dict[str, Any]:
        """For a status."""
        refused: Counter[str] = Counter()
        for (_, reason), count in self.refused.items():
            refused[str(reason)] += count
        return {
            "relays": len(self._relays),
            "tunnels": {peer.hex(): relay.hex() for peer, relay in sorted(self.tunnels.items())},
            "dropped": sum(self.dropped.values()),
            "flooded": sum(self.flooded.values()),
            "refused": dict(sorted(refused.items())),
        }

    # ---- the doors ------------------------------------------------------------------------------------------------------

    def asked(self, effect: Dial | HangUp | Send, now: float) -> list[Outcome]:
        """What the peer wants of its links."""
        match effect:
            case Send(to, frames, bulk):
                tunnel = self._tunnels.get(to)
                if tunnel is None or not (tunnel.is_wanted or (tunnel.is_open and to not in self._linked)):
                    return [effect]
                dropped = tunnel.dropped
                outcomes = tunnel.send(frames, bulk, now)
                self.dropped[to] += tunnel.dropped - dropped
                return outcomes
            case Dial(peer):
                self._asked.add(peer)
            case HangUp(peer):
                self._asked.discard(peer)
            case _:
                assert_never(effect)
        return self._settled(self._reach(peer, now), now)

    def heard(self, event: LinkUp | LinkDown | FrameReceived, now: float) -> list[Outcome]:
        """What the links tell."""
        match event:
            case FrameReceived(hop, frames):
                if not relay_wire.concerns(frames):
                    return [event]
                try:
                    outcomes = self._received(hop, frames, now)
                except RejectedFrame as refusal:
                    outcomes = [Rejected(refusal.reason, hop)]
                is_usual = outcomes and all(isinstance(outcome, FrameReceived | Send) for outcome in outcomes)
                return outcomes if is_usual else self._settled(outcomes, now)
            case LinkUp(peer):
                self._linked.add(peer)
                near = self._all() if peer in self._relays else ()
                outcomes = [outcome for one in near for outcome in one.way_opened(peer, now)]
            case LinkDown(peer):
                self._linked.discard(peer)
                outcomes = self._way_lost(peer, now)
            case _:
                assert_never(event)
        tunnel = self._tunnels.get(event.peer)
        is_ours = tunnel is not None and tunnel.is_wanted  # a link that there was before the tunnel
        return self._settled(outcomes if is_ours else [event, *outcomes], now)

    def tick(self, now: float) -> list[Outcome]:
        """The deadline has come, or may have."""
        if not self._is_looked_around:
            return self.members_changed(now)
        return self._settled([outcome for tunnel in self._all() for outcome in tunnel.tick(now)], now)

    def members_changed(self, now: float) -> list[Outcome]:
        """Look again at who is a member, a relay, or hidden."""
        self._is_looked_around = True
        before, self._relays = self._relays, tuple(sorted(self._around.relays()))
        outcomes = [outcome for relay in before if relay not in self._relays for outcome in self._way_lost(relay, now)]
        for peer in [peer for peer in self._tunnels if peer not in self._around.members]:
            self._asked.discard(peer)
            outcomes += self._tunnels.pop(peer).unwant(now)
        for peer in sorted(self._asked | self._tunnels.keys()):
            outcomes += self._reach(peer, now)
        return self._settled(outcomes, now)

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _all(self) -> list[Tunnel]:
        return [self._tunnels[peer] for peer in sorted(self._tunnels)]

    def _is_behind(self, peer: PeerId) -> bool:
        """Whether only a tunnel leads to this member."""
        around = self._around
        return peer not in self._relays and around.is_hidden(peer) and around.is_hidden(self._own)

    def _reach(self, peer: PeerId, now: float) -> list[Outcome]:
        """Want a tunnel to this member or do not; a link is seen to by `_settled`."""
        tunnel = self._tunnels.get(peer)
        if peer in self._asked and self._is_behind(peer):
            return (tunnel or self._new(peer, now)).want(now)
        return tunnel.unwant(now) if tunnel is not None else []

    def _new(self, peer: PeerId, now: float) -> Tunnel:
        tunnel = self._tunnels[peer] = Tunnel(self._party, peer, lambda: self._ways(peer), now)
        return tunnel

    def _order(self, peer: PeerId) -> tuple[PeerId, ...]:
        return meeting_order(min(self._own, peer), max(self._own, peer), self._relays)

    def _way_lost(self, relay: PeerId, now: float) -> list[Outcome]:
        near = [one for one in self._all() if relay in self._relays or relay in one.over]
        return [outcome for one in near for outcome in one.not_reachable(relay, now)]

    def _ways(self, peer: PeerId) -> list[PeerId]:
        return [relay for relay in self._order(peer) if relay in self._linked]

    def _received(self, relay: PeerId, frames: tuple[Sized, ...], now: float) -> list[Outcome]:
        """A message of a tunnel. Raises `RejectedFrame`, blamed on the relay.

        The member in it pays first: what is more than one may say is dropped, and the relay that brought it does not pay.
        """
        if relay not in self._around.members:
            raise RejectedFrame(Reason.NOT_MEMBER)
        if now < self._by_relay.banned_until(relay):
            raise RejectedFrame(Reason.RATE_LIMITED)
        size = sum(map(len, frames))
        try:
            message, sealed = self._read(relay, frames)
        except RejectedFrame:
            self._by_relay.admits(relay, size, now)
            raise
        if not self._by_pair.admits(PeerId(relay + message.peer), size, now):
            self.flooded[relay, message.peer] += 1
            return []
        if not self._by_relay.admits(relay, size, now):
            raise RejectedFrame(Reason.RATE_LIMITED)
        return self._handed(relay, message, sealed, now)

    def _read(self, relay: PeerId, frames: tuple[Sized, ...]) -> tuple[relay_wire.RelayMessage, memoryview | None]:
        """What another member may have said. Raises `RejectedFrame`."""
        message, sealed = relay_wire.read(frames)
        if relay not in self._relays:
            raise RejectedFrame(Reason.NOT_RELAY)
        if message.peer not in self._around.members or message.peer == self._own:
            raise RejectedFrame(Reason.NOT_MEMBER)
        return message, sealed

    def _handed(self, relay: PeerId, message: relay_wire.RelayMessage, sealed: memoryview | None, now: float) -> list[Outcome]:
        tunnel = self._tunnels.get(message.peer)
        if isinstance(message, Knock):
            return self._knocked(relay, tunnel, message, now)
        if tunnel is None:
            if isinstance(message, NotReachable | Wake):
                return self._woken(relay, message, now)
            raise RejectedFrame(Reason.NO_TUNNEL)
        match message:
            case Carried():
                assert sealed is not None
                return tunnel.carried(relay, message, sealed, now)
            case Taken():
                return tunnel.taken(relay, message, now)
            case Answer():
                return tunnel.answered(relay, message, now)
            case Wake():
                return tunnel.woken(relay, now)
            case NotReachable():
                return tunnel.not_reachable(relay, now)
            case _:
                assert_never(message)

    def _knocked(self, relay: PeerId, tunnel: Tunnel | None, knock: Knock, now: float) -> list[Outcome]:
        """Somebody wants a tunnel with us, whom we may not have asked for."""
        is_granted = self._knocks_by_pair.take(relay + knock.peer, 1.0, now) and self._knocks_by_relay.take(relay, 1.0, now)
        if not is_granted:
            raise RejectedFrame(Reason.RATE_LIMITED)
        return (tunnel or self._strange(knock.peer, now)).knocked(relay, knock, now)

    def _woken(self, relay: PeerId, message: Wake | NotReachable, now: float) -> list[Outcome]:
        """Somebody whom we have nothing to say asks us to knock."""
        if isinstance(message, NotReachable):
            return []  # of one that was given up meanwhile
        if not self._knocks_by_pair.take(relay + message.peer, 1.0, now):
            raise RejectedFrame(Reason.RATE_LIMITED)
        return self._strange(message.peer, now).woken(relay, now)

    def _strange(self, peer: PeerId, now: float) -> Tunnel:
        """A tunnel that we do not need ourselves. Raises `RejectedFrame` with FULL."""
        if sum(not tunnel.is_wanted for tunnel in self._tunnels.values()) >= STRANGE_MAX:
            raise RejectedFrame(Reason.FULL)
        return self._new(peer, now)

    def _settled(self, outcomes: list[Outcome], now: float) -> list[Outcome]:
        """Count what was refused, forget what is over, and dial who is needed."""
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                self.refused[outcome.blame, outcome.reason] += 1
        for peer in [peer for peer, tunnel in self._tunnels.items() if tunnel.is_over]:
            del self._tunnels[peer]
        needed = self._needed()
        changes: list[Outcome] = [Dial(peer) for peer in sorted(needed - self._dialled)]
        changes += [HangUp(peer) for peer in sorted(self._dialled - needed)]
        self._dialled = needed
        return [*outcomes, *changes]

    def _needed(self) -> set[PeerId]:
        """With whom links are to be kept: whom the peer wants and can have one with, and relays."""
        needed = {peer for peer in self._asked if not self._is_behind(peer)}
        if not self._relays:
            return needed
        if self._around.is_hidden(self._own):
            needed |= set(homes(self._own, self._relays))
        for peer, tunnel in self._tunnels.items():
            needed |= tunnel.over
            if tunnel.is_wanted:
                needed |= set(self._order(peer)[: HOMES + len(tunnel.tried)])
        return needed
