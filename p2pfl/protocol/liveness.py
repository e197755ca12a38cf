"""What a peer does about who is live: it hosts the membership, and its plan and its links follow the view.

`Peer` tells everything that happens here too. Membership answers what concerns it; when the view changes, `plan` is another.
Links are wanted by two, the plan and the membership: one is dialled when the first wants it, and let go when neither does.
"""

from collections.abc import Callable, Iterable, Iterator, Sized
from typing import assert_never

from p2pfl.protocol import wire
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import (
    Amended,
    DeadlineReached,
    Dial,
    DialRefused,
    Event,
    Folded,
    FoldsLost,
    FrameReceived,
    HangUp,
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
    Started,
    StopRequested,
    Suspended,
    ViewChanged,
)
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.round import Plan

PlanOf = Callable[[tuple[PeerId, ...]], Plan]
"""The live members in canonical order, oneself among them, to whom one gossips with while they are live. Everybody must use
the same."""


class Liveness:
    """One peer's. `plan` is the one that the present view gives."""

    def __init__(self, membership: Membership, plan_of: PlanOf) -> None:
        self.membership = membership
        self.plan = plan_of(membership.view.live)
        self._plan_of = plan_of
        self._has_left = False
        self._near = set(self.plan.near)  # dialled at the start, whatever membership wants
        self._watched: set[PeerId] = set()

    @property
    def deadline(self) -> float:
        """The next monotonic moment at which something is due."""
        return self.membership.deadline

    def concerns(self, frames: tuple[Sized, ...]) -> bool:
        """Whether a message is one between memberships, by its kind alone."""
        head = frames[0] if frames else b""
        return isinstance(head, bytes) and len(head) >= 3 and head[2] in gossip_wire.KINDS

    def received(self, hop: PeerId, frames: tuple[Sized, ...], now: Instant) -> list[MembershipEffect]:
        """A message that concerns membership. Raises `RejectedFrame`."""
        head, body = wire.split(frames)
        if body is not None:
            raise RejectedFrame(Reason.BAD_FRAMES)
        return self._followed(self.membership.receive(now, hop, gossip_wire.decode(head)))

    def told(self, event: Event, now: Instant) -> list[MembershipEffect]:
        """Something else happened. Nothing follows after `leave`."""
        return [] if self._has_left else self._followed(self._told(event, now))

    def leave(self, now: Instant) -> list[MembershipEffect]:
        """Tell everybody that we go."""
        self._has_left = True
        return self.membership.leave(now)

    def _told(self, event: Event, now: Instant) -> list[MembershipEffect]:
        membership = self.membership
        match event:
            case FrameReceived(peer):
                return membership.heard(now, peer)
            case Sealed() | Opened() | Folded() | Learned() | StopRequested():
                return []
            case DeadlineReached():
                return membership.tick(now) if now.monotonic >= membership.deadline else []
            case Started():
                return membership.tick(now)
            case LinkUp(peer):
                return membership.link_up(now, peer)
            case LinkDown(peer):
                return membership.link_down(now, peer)
            case DialRefused(peer):
                return membership.dial_refused(now, peer)
            case LearnFailed() | FoldsLost():
                return membership.strained(now)
            case Suspended():
                return membership.suspended(now)
            case Amended():
                view = membership.view
                return [ViewChanged(view.version, len(view))]  # the same members, and perhaps another graph
            case RegistryChanged():
                return membership.registry_changed(now)
            case Revocation(data):
                return self._revoke(data, now)
            case _:
                assert_never(event)

    def _revoke(self, data: bytes, now: Instant) -> list[MembershipEffect]:
        try:
            return self.membership.revoke(now, data)
        except RejectedFrame as refusal:  # there was no room for it, or it came as the credential ended
            return [Rejected(refusal.reason, PeerId(refusal.blame or self.membership.own))]

    def _followed(self, effects: list[MembershipEffect]) -> list[MembershipEffect]:
        """The same, with the links that the plan needs as well."""
        followed: list[MembershipEffect] = []
        for k, effect in enumerate(effects):
            match effect:
                case Dial(peer):
                    is_again = k > 0 and effects[k - 1] == HangUp(peer)
                    self._watched.add(peer)
                    if is_again or peer not in self._near:
                        followed.append(effect)
                case HangUp(peer):
                    is_again = k + 1 < len(effects) and effects[k + 1] == Dial(peer)
                    self._watched.discard(peer)
                    if is_again or peer not in self._near:
                        followed.append(effect)
                case ViewChanged():
                    followed += [*self._replanned(), effect]
                case _:
                    followed.append(effect)
        return followed

    def _replanned(self) -> Iterator[MembershipEffect]:
        self.plan = self._plan_of(self.membership.view.live)
        before, self._near = self._near, set(self.plan.near)
        yield from _each(Dial, self._near - before - self._watched)
        yield from _each(HangUp, before - self._near - self._watched)


def _each(effect: Callable[[PeerId], MembershipEffect], peers: Iterable[PeerId]) -> Iterator[MembershipEffect]:
    return map(effect, sorted(peers))
