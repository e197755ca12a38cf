"""What membership sends: collected here, with the rumors that ride along and the limit of what one neighbor may pull."""

from collections.abc import Collection

from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import MembershipEffect, PeerId, Rejected, Send
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.census import Census
from p2pfl.protocol.membership.gossip_wire import MembershipMessage, Records, Summary

HOPS_MAX = 1024  # hops whose pulls are accounted for at a time
QUESTION_BYTES = 4096  # to look what is to be answered costs as much as to serve so many
RIDES_PER_S, RIDES_AT_ONCE = 16.0, 64.0
"""Messages to one neighbor that carry rumors. Several times what probes need; to look through the rumors for each of a thousand
pings a second would take a processor."""


class Post:
    """The effects of one call, in their order."""

    def __init__(self, census: Census) -> None:
        self._census = census
        rules = census.rules
        self._served = Buckets(rules.served_bytes / rules.push_pull_s, rules.served_bytes, HOPS_MAX)
        self._rides = Buckets(RIDES_PER_S, RIDES_AT_ONCE, HOPS_MAX)
        self._effects: list[MembershipEffect] = []

    def taken(self) -> list[MembershipEffect]:
        """What came together; the next call begins anew."""
        effects, self._effects = self._effects, []
        return effects

    def add(self, effect: MembershipEffect) -> None:
        self._effects.append(effect)

    def send(self, to: PeerId, message: MembershipMessage) -> None:
        self._effects.append(Send(to, (gossip_wire.encode(message),)))

    def reject(self, refusal: RejectedFrame, hop: PeerId) -> None:
        """Count it, and blame the hop where nobody else is named."""
        self._effects.append(Rejected(refusal.reason, PeerId(refusal.blame or hop)))

    def asked(self, now: float, hop: PeerId) -> None:
        """A question is about to be looked into. Raises `RejectedFrame` for a hop that has had its answers."""
        if not self._served.take(hop, QUESTION_BYTES, now):
            raise RejectedFrame(Reason.RATE_LIMITED, hop)

    def serve(self, now: float, hop: PeerId, answer: Summary | Records | None) -> None:
        """Answers can be long, and questions are short: each hop gets so many bytes in a while. Raises `RejectedFrame`."""
        if answer is None:
            return
        frame = gossip_wire.encode(answer)
        if not self._served.take(hop, len(frame), now):
            raise RejectedFrame(Reason.RATE_LIMITED, hop)
        self._effects.append(Send(hop, (frame,)))

    def riding(self, now: float, to: PeerId, links: Collection[PeerId]) -> bytes:
        """The rumors for this neighbor. A suspect hears first what it is accused of (Lifeguard, L3)."""
        if not self._rides.take(to, 1, now):
            return b""
        known = self._census.view.get(to)
        first = b""
        if known is not None and known.standing.accusations:
            first = gossip_wire.encode_item(known.standing.accusations[0])
        return self._census.rumors.take(to, links, self._census.rules.retransmissions(len(self._census.view)), first)
