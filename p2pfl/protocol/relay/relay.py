"""A member that learns nothing: events in, effects out. It carries what members say who can't reach each other, and is a member
in all else: it knows who is live, watches and is watched."""

from collections import Counter
from collections.abc import Mapping, Sized
from typing import assert_never

from p2pfl.protocol import wire
from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.allowance import Allowance, Allowances
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import (
    Amended,
    DeadlineReached,
    Dial,
    DialRefused,
    Event,
    Finished,
    Folded,
    FoldsLost,
    FrameReceived,
    Greet,
    HangUp,
    IdentityConflict,
    Instant,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    MembershipEffect,
    Opened,
    PeerId,
    RegistryChanged,
    Rejected,
    Revocation,
    Sealed,
    Send,
    Started,
    StopRequested,
    Suspended,
    ViewChanged,
)
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.relay.forwarder import Forwarder, concerns

RelayEffect = Dial | HangUp | Send | Rejected | ViewChanged | IdentityConflict | Finished

ALLOWANCE = Allowance(messages_per_s=8_000.0, messages_burst=32_000.0)
"""More than elsewhere: what one member says may be for many."""


class Relay:
    """The state machine. `handle` is the only door."""

    def __init__(
        self,
        own: PeerId,
        charter: Charter,
        members: Mapping[PeerId, Member],
        boot: Boot,
        liveness: Liveness,
        forwarder: Forwarder,
    ) -> None:
        """`members` may change while the relay lives; who is not in it now is a stranger. Near in the plan of `liveness` are
        those who may need it, to whom it keeps links."""
        self.own = own
        self.allowances = Allowances(ALLOWANCE)
        self.rejected: Counter[tuple[PeerId, Reason]] = Counter()
        self.forwarder = forwarder
        self.liveness = liveness
        self.linked: set[PeerId] = set()
        self._agreement, self._boot = Agreement(charter), boot
        self._members = members
        self._told_version: set[PeerId] = set()
        self._is_finished = False

    @property
    def deadline(self) -> float | None:
        """The next monotonic moment it wants `DeadlineReached`."""
        return None if self._is_finished else self.liveness.deadline

    def account(self) -> dict[str, int]:
        """Totals of what was passed on, and bytes held now."""
        forwarder = self.forwarder
        return {
            "messages": forwarder.forwarded.total(),
            "bytes": forwarder.forwarded_bytes.total(),
            "dropped": forwarder.dropped.total(),
            "held": forwarder.held,
        }

    def handle(self, event: Event, now: Instant) -> list[RelayEffect]:
        """What follows from one event."""
        if self._is_finished:
            return []
        effects = self._handle(event, now)
        return effects if self._is_finished else effects + self._followed(self.liveness.told(event, now), now)

    def _handle(self, event: Event, now: Instant) -> list[RelayEffect]:
        match event:
            case FrameReceived(hop, frames):
                try:
                    return self._receive(hop, frames, now)
                except RejectedFrame as refusal:
                    return self._reject(hop, refusal, now)
            case Started():
                return [Dial(peer) for peer in self.liveness.plan.near]
            case LinkUp(peer):
                self.linked.add(peer)
                self._told_version.discard(peer)
            case LinkDown(peer):
                self.linked.discard(peer)
                self.forwarder.unlinked(peer)
            case StopRequested():
                return self._stop(now)
            case Amended(charter, before, until):
                self._agreement.amend(charter, before, until)
            case Learned() | LearnFailed() | Folded() | FoldsLost() | Sealed() | Opened():
                raise AssertionError("nobody asks a relay to compute")
            case DeadlineReached() | DialRefused() | Suspended() | RegistryChanged() | Revocation():
                pass
            case _:
                assert_never(event)
        return []

    def _receive(self, hop: PeerId, frames: tuple[Sized, ...], now: Instant) -> list[RelayEffect]:
        if hop not in self._members:
            raise RejectedFrame(Reason.NOT_MEMBER, hop)
        if not self.allowances.admits(hop, sum(map(len, frames)), now.monotonic):
            raise RejectedFrame(Reason.RATE_LIMITED, hop)
        if concerns(frames):
            return [self._counted(effect, now.monotonic) for effect in self.forwarder.heard(hop, frames, now.monotonic)]
        if self.liveness.concerns(frames):
            return self._followed(self.liveness.received(hop, frames, now), now)
        message, _ = wire.read(frames)
        match message:
            case wire.Hello():
                return self._greeted(hop, message, now)
            case wire.Offer():
                raise RejectedFrame(Reason.NOT_NEIGHBOR, hop)
            case wire.Chunk():
                raise RejectedFrame(Reason.UNEXPECTED_CHUNK, hop)
            case wire.Credit() | wire.Bye():
                return []  # of who has only now heard that this is a relay
            case _:
                assert_never(message)

    def _greeted(self, hop: PeerId, hello: wire.Hello, now: Instant) -> list[RelayEffect]:
        if hello.network != self._agreement.charter.network_id:
            raise RejectedFrame(Reason.WRONG_NETWORK, hop)
        if not self._agreement.accepts(hello.charter, now.wall):
            raise RejectedFrame(Reason.WRONG_CHARTER, hop)
        return [self._hello(hop, reply=False)] if hello.reply else []

    def _hello(self, peer: PeerId, reply: bool) -> Send:
        boot, charter = self._boot, self._agreement.charter
        hello = wire.Hello(charter.network_id, charter.digest, boot.id, boot.epoch, 0, reply)
        return Send(peer, (wire.encode(hello),))

    def _reject(self, hop: PeerId, refusal: RejectedFrame, now: Instant) -> list[RelayEffect]:
        blame = PeerId(refusal.blame) if refusal.blame is not None else hop
        effects: list[RelayEffect] = [self._counted(Rejected(refusal.reason, blame), now.monotonic)]
        if refusal.reason is Reason.VERSION and hop not in self._told_version:
            self._told_version.add(hop)
            effects.append(self._hello(hop, reply=False))
        return effects

    def _followed(self, asked: list[MembershipEffect], now: Instant) -> list[RelayEffect]:
        return [
            self._hello(effect.peer, reply=True) if isinstance(effect, Greet) else self._counted(effect, now.monotonic)
            for effect in asked
        ]

    def _counted(self, effect: RelayEffect, now: float) -> RelayEffect:
        """What is refused is counted, and costs its sender more than what is not. For a ban nothing more is to be paid."""
        if isinstance(effect, Rejected):
            self.rejected[effect.blame, effect.reason] += 1
            if not self.allowances.banned_until(effect.blame) > now:
                self.allowances.refused(effect.blame)
        return effect

    def _stop(self, now: Instant) -> list[RelayEffect]:
        farewell = self._followed(self.liveness.leave(now), now)
        self._is_finished = True
        return [*farewell, Finished(0)]
