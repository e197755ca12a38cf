"""The one socket at which a peer hears those who have dialled it, and over which it can answer them."""

import asyncio
import errno
from collections.abc import Callable, Mapping

import zmq

from node.transport.address import Address
from node.transport.hearing import Hearing, discard
from node.transport.readiness import Reading, events
from node.transport.routes import ANNOUNCEMENT_BYTES, Routes, is_announcement
from node.transport.sockets import Context, Frames, Patience, TransportKeys, listening_socket, sent
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import PeerId

REBIND_S = 0.02  # between two attempts to have the port again; libzmq takes about that long


class Listener:
    """Whom a message came from is decided by the User-Id that the handshake proved, frame by frame, and never by the routing
    id, which a sender may choose. An answer goes to the connections that this member announced, and to no others."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        keys: TransportKeys,
        domain: bytes,
        patience: Patience,
        members: Mapping[str, PeerId],
        hearing: Hearing,
        on_route: Callable[[PeerId], None],
    ) -> None:
        """`members` finds a member by its User-Id, and may change while we listen. `on_route` hears whenever a member has
        dialled a new link to us; that it has ended shows when it is used."""
        self.dropped = 0
        self.cycles = 0
        self._loop = loop
        self._endpoint = ""
        self._rebinding: asyncio.TimerHandle | None = None
        self._members = members
        self._hearing = hearing
        self._on_route = on_route
        self._routes = Routes()
        self._socket = listening_socket(context, keys, domain, patience)
        self._reading = Reading(loop, self._socket, self._take)

    async def bind(self, address: Address) -> Address:
        """Where we listen from now on: the same place, with the real port where 0 was asked for."""
        try:
            place = (await address.resolve())[0]
            self._socket.ipv6 = place.is_ipv6
            self._socket.bind(f"tcp://{place}")
        except (OSError, zmq.ZMQError) as error:
            raise cannot_listen(address, error) from None
        bound = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self._endpoint = bound.rstrip(b"\0").decode()
        return Address.parse(self._endpoint.removeprefix("tcp://"))

    def answer(self, peer: PeerId, frames: Frames, bulk: bool) -> bool:
        """Send over the newest link that this member has dialled to us. False where there is none (any more), or where so much
        is waiting already that the message was dropped. Never waits; the order is kept."""
        route = self._routes.of(peer)
        if route is None:
            return False
        message = (route.bulk if bulk else route.control, *frames)
        self._reading.look_again()
        try:
            if sent(self._socket, message):
                return True
            events(self._socket)  # a send looks only now and then at what the I/O thread has told; asking does, at once
            return sent(self._socket, message)
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:
                raise
            self._routes.forget(peer)
            return False

    def has_route(self, peer: PeerId) -> bool:
        """Whether this member has dialled a link to us of which we do not know that it has ended."""
        return self._routes.of(peer) is not None

    def is_reached(self, peer: PeerId) -> bool:
        """The same, but after a look whether both its connections are there: an empty message, which it passes over."""
        for bulk in (False, True):
            self.answer(peer, (b"",), bulk)
        return self.has_route(peer)

    def forget(self, peer: PeerId) -> None:
        """Answer this one no more."""
        self._routes.forget(peer)

    def cycle(self) -> None:
        """Unbind, which ends all connections, and bind again: at once, or as soon as libzmq's other thread has let go of the
        port. Once more while that goes on changes nothing."""
        if self._rebinding is None and not self._socket.closed:
            self.cycles += 1
            self._routes.clear()
            self._socket.unbind(self._endpoint)
            self._reading.look_again()
            self._rebind()

    def close(self, linger_s: float = 0.0) -> None:
        """What was answered may take `linger_s` to leave."""
        if self._rebinding is not None:
            self._rebinding.cancel()
        self._reading.close(round(linger_s * 1000))

    def _rebind(self) -> None:
        self._rebinding = None
        try:
            self._socket.bind(self._endpoint)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EMFILE, errno.ENFILE):
                raise
            self._rebinding = self._loop.call_later(REBIND_S, self._rebind)

    def _take(self) -> bool:
        try:
            caller = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        frame = self._socket.recv(zmq.NOBLOCK, copy=False) if caller.more else caller  # a message arrives whole: no waiting
        hop = self._hop(caller)
        if hop is None:
            self.dropped += 1
            discard(self._socket, frame)
        elif self._announces(hop, frame):
            if self._routes.announced(hop, caller.bytes, frame.bytes):
                self._on_route(hop)
        else:
            self._hearing.take(hop, self._socket, frame)
        return True

    def _announces(self, hop: PeerId, frame: zmq.Frame) -> bool:
        if frame.more or len(frame) != ANNOUNCEMENT_BYTES or not is_announcement(frame.bytes):
            return False
        return self._routes.may_announce(hop, self._loop.time())

    def _hop(self, frame: zmq.Frame) -> PeerId | None:
        try:
            user = frame.get("User-Id")
        except zmq.ZMQError:  # a connection that no gate let in
            return None
        return self._members.get(str(user))


def cannot_listen(address: Address, error: OSError | zmq.ZMQError) -> Failure:
    """Why, for people."""
    match error.errno:
        case errno.EADDRINUSE:
            return Failure(
                "port_busy",
                f"Port {address.port} of {address.host} is in use by another process.",
                "End that one, or listen on another port.",
                ExitCode.NETWORK,
            )
        case errno.EACCES:
            return Failure(
                "port_forbidden",
                f"Listening on port {address.port} is not allowed.",
                "Ports below 1024 need privileges: choose a higher one.",
                ExitCode.NETWORK,
            )
        case _:
            return Failure(
                "cannot_listen",
                f"Can't listen on {address}: {error.strerror}.",
                "Listen on an address of this machine, for example 0.0.0.0:9000.",
                ExitCode.NETWORK,
            )
