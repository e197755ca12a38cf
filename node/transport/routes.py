"""How a member is answered over the link that it has dialled to us.

A link is two connections, control and bulk, and nothing in ZeroMQ says which is which or that two belong together. So whoever
dials announces each of them: one frame, magic ‖ channel ‖ token, the same token on both. A later link replaces an earlier one.
"""

from dataclasses import dataclass

from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.events import PeerId

CONTROL, BULK = b"c", b"b"
TOKEN_BYTES = 8
_MAGIC = b"p2pfl/link/v1\0"
ANNOUNCEMENT_BYTES = len(_MAGIC) + 1 + TOKEN_BYTES
_PER_S, _AT_ONCE = 2.0, 64.0
"""Announcements of one member. A link takes two, and who redials waits longer each time, up to seconds; but whoever announces
without dialling could have us greet it, and offer it our update, as often as it likes."""
_MEMBERS_MAX = 2048  # twice as many as a network lets in
_GIVEN_BYTES = 5  # a routing id that libzmq made up: a zero, then a counter that began anywhere


@dataclass(frozen=True, slots=True)
class Route:
    """The routing ids of the two connections of one link."""

    control: bytes
    bulk: bytes


class Routes:
    """The newest link of each member that called. Which member announced something is what the handshake proved; a routing id
    that the caller chose itself, which the next one could take over, is not answered to."""

    def __init__(self) -> None:
        self._routes: dict[PeerId, Route] = {}
        self._halves: dict[PeerId, tuple[bytes, dict[bytes, bytes]]] = {}
        self._buckets = Buckets(_PER_S, _AT_ONCE, _MEMBERS_MAX)

    def may_announce(self, peer: PeerId, now: float) -> bool:
        """Whether this member may announce something now. What it may not is no announcement, but a message like any other."""
        return self._buckets.take(peer, 1, now)

    def of(self, peer: PeerId) -> Route | None:
        return self._routes.get(peer)

    def announced(self, peer: PeerId, routing_id: bytes, announcement: bytes) -> bool:
        """True when this made a link whole."""
        if len(routing_id) != _GIVEN_BYTES or routing_id[0] != 0:
            return False
        channel, token = announcement[len(_MAGIC) : len(_MAGIC) + 1], announcement[-TOKEN_BYTES:]
        known, half = self._halves.get(peer, (b"", {}))
        if token != known:
            half = {}
        half[channel] = routing_id
        if len(half) < 2:
            self._halves[peer] = (token, half)
            return False
        self._halves.pop(peer, None)
        self._routes[peer] = Route(half[CONTROL], half[BULK])
        return True

    def forget(self, peer: PeerId) -> None:
        self._routes.pop(peer, None)
        self._halves.pop(peer, None)

    def clear(self) -> None:
        self._routes.clear()
        self._halves.clear()


def announcement(channel: bytes, token: bytes) -> bytes:
    """What a dialler says first on each of the two connections of a link."""
    return _MAGIC + channel + token


def is_announcement(frame: bytes) -> bool:
    return (
        len(frame) == ANNOUNCEMENT_BYTES
        and frame.startswith(_MAGIC)
        and frame[len(_MAGIC) : len(_MAGIC) + 1] in (CONTROL, BULK)
    )
