"""What a relay does with a message of a tunnel: pass it on with its sender in it, or not. It opens nothing and keeps nothing.

What it hands over and its addressee has not read yet waits in the memory of its links. Both ends let no more than a window of
bulk pieces be under way, and what was taken is said in messages that the relay reads; so it knows how much it holds, and what
would be too much is dropped. The other end of the tunnel sees the gap.
"""

from collections import Counter
from collections.abc import Callable, Container, Sized
from dataclasses import dataclass, replace

from p2pfl.protocol.allowance import Allowance
from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId, Rejected, Send
from p2pfl.protocol.relay import relay_wire
from p2pfl.protocol.relay.holding import Holding
from p2pfl.protocol.relay.relay_wire import Carried, Knock, NotReachable, RelayMessage, Taken, Wake
from p2pfl.protocol.relay.relay_wire import concerns as concerns

PAIRS_KEPT = 4096
READ_OF_PAIR = Allowance()
"""What a member reads of one other over one relay."""


@dataclass(frozen=True, slots=True)
class ForwardingLimits:
    """Of what is passed on per second, and at once; and of what may be held, in bytes. Of one member to one other it is no more
    than is read there; the bursts are less, since what was delayed comes all at once."""

    messages_per_s: float = READ_OF_PAIR.messages_per_s  # of one member to one other
    messages_burst: float = 0.8 * READ_OF_PAIR.messages_burst
    bytes_per_s: float = 0.5 * READ_OF_PAIR.bytes_per_s
    bytes_burst: float = 0.5 * READ_OF_PAIR.bytes_burst
    pairs: float = 8.0  # one member may say as much as so many pairs
    knocks_per_s: float = 2.0  # and wakes: they cost their addressee signatures
    knocks_burst: float = 16.0
    held_of_one: int = 4 << 20  # of one sender, and for one addressee
    held_in_all: int = 12 << 20


class Forwarder:
    """`forwarded` counts messages and bytes by sender; `dropped` what there was no room for, by addressee; `refused` by sender
    and reason."""

    def __init__(
        self, members: Container[PeerId], is_linked: Callable[[PeerId], bool], limits: ForwardingLimits | None = None
    ) -> None:
        """`members` are looked at again with each message; `is_linked` says whether a message can be sent to one now."""
        self.forwarded: Counter[PeerId] = Counter()
        self.forwarded_bytes: Counter[PeerId] = Counter()
        self.dropped: Counter[PeerId] = Counter()
        self.refused: Counter[tuple[PeerId, Reason]] = Counter()
        self._members, self._is_linked = members, is_linked
        self._limits = one = limits or ForwardingLimits()
        self._by_pair = Buckets(one.messages_per_s, one.messages_burst, PAIRS_KEPT)
        self._bytes_by_pair = Buckets(one.bytes_per_s, one.bytes_burst, PAIRS_KEPT)
        self._by_sender = Buckets(one.pairs * one.messages_per_s, one.pairs * one.messages_burst, PAIRS_KEPT)
        self._knocks_by_pair = Buckets(one.knocks_per_s, one.knocks_burst, PAIRS_KEPT)
        self._knocks_by_sender = Buckets(one.pairs * one.knocks_per_s, one.pairs * one.knocks_burst, PAIRS_KEPT)
        self._holding = Holding(one.held_of_one, one.held_in_all)

    @property
    def held(self) -> int:
        """Bytes of bulk pieces that were passed on and, for all we know, wait in our links."""
        return self._holding.bytes

    def heard(self, hop: PeerId, frames: tuple[Sized, ...], now: float) -> list[Send | Rejected]:
        """A message of which `concerns` is true: to be passed on, answered or refused."""
        try:
            return self._heard(hop, frames, now)
        except RejectedFrame as refusal:
            self.refused[hop, refusal.reason] += 1
            return [Rejected(refusal.reason, hop)]

    def unlinked(self, peer: PeerId) -> None:
        """The link to this member has ended, and what waited in it is no more."""
        self._holding.forget(peer)

    def _heard(self, hop: PeerId, frames: tuple[Sized, ...], now: float) -> list[Send | Rejected]:
        if hop not in self._members:
            raise RejectedFrame(Reason.NOT_MEMBER)
        message, sealed = relay_wire.read(frames)
        if isinstance(message, NotReachable):
            raise RejectedFrame(Reason.NOT_RELAY)  # only relays say so, and to members
        to, size = message.peer, sum(map(len, frames))
        if to == hop:
            raise RejectedFrame(Reason.BAD_HEADER)
        if not self._by_sender.take(hop, 1.0, now):
            raise RejectedFrame(Reason.RATE_LIMITED)
        if to not in self._members or not self._is_linked(to):
            return [Send(hop, (relay_wire.encode(NotReachable(to)),))]
        if not self._admits(hop, message, size, now):
            raise RejectedFrame(Reason.RATE_LIMITED)
        if isinstance(message, Taken):
            self._holding.taken(to, hop, message.session, message.count)
        bulk = isinstance(message, Carried) and message.bulk
        if isinstance(message, Carried) and bulk and not self._holding.take(hop, to, message.session, message.count, size, now):
            self.dropped[to] += 1
            return []
        self.forwarded[hop] += 1
        self.forwarded_bytes[hop] += size
        head = relay_wire.encode(_from(hop, message))
        return [Send(to, (head,) if sealed is None else (head, frames[1]), bulk)]

    def _admits(self, hop: PeerId, message: RelayMessage, size: int, now: float) -> bool:
        """Whether this may go to its addressee, a member: ids that are none have no buckets here, and displace none."""
        pair = hop + message.peer
        if isinstance(message, Knock | Wake) and not (
            self._knocks_by_pair.take(pair, 1.0, now) and self._knocks_by_sender.take(hop, 1.0, now)
        ):
            return False
        return self._by_pair.take(pair, 1.0, now) and self._bytes_by_pair.take(pair, float(size), now)


def _from(hop: PeerId, message: RelayMessage) -> RelayMessage:
    """The same, with its sender in it instead of its addressee."""
    return replace(message, peer=hop)
