"""The one socket at which a peer hears the others."""

import asyncio
import errno
from collections.abc import Callable, Mapping, Sized

import zmq

from node.address import Address
from node.readiness import Reading
from node.sockets import Context, Patience, TransportKeys, listening_socket
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import PeerId

REBIND_S = 0.02  # between two attempts to have the port again; libzmq takes about that long
_FRAMES_KEPT = 3  # a message has one or two; a third is kept to show that there were too many

OnMessage = Callable[[PeerId, tuple[Sized, ...], int], None]
"""Called with the hop, the frames and their bytes in all."""


class Listener:
    """Whom a message came from is decided by the User-Id that the handshake proved, frame by frame; the routing id, which a
    sender may choose, means nothing here and is never answered."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        keys: TransportKeys,
        domain: bytes,
        patience: Patience,
        members: Mapping[str, PeerId],
        on_message: OnMessage,
    ) -> None:
        """`members` finds a member by its User-Id, and may change while we listen."""
        self.dropped = 0
        self.muted = 0
        self.cycles = 0
        self._mute_until: dict[PeerId, float] = {}
        self._loop = loop
        self._endpoint = ""
        self._rebinding: asyncio.TimerHandle | None = None
        self._members = members
        self._on_message = on_message
        self._socket = listening_socket(context, keys, domain, patience)
        self._reading = Reading(loop, self._socket, self._take)

    async def bind(self, address: Address) -> Address:
        """Where we listen from now on: the same place, with the real port where 0 was asked for."""
        try:
            place = (await address.resolve())[0]
            self._socket.ipv6 = place.is_ipv6
            self._socket.bind(f"tcp://{place}")
        except (OSError, zmq.ZMQError) as error:
            raise _cannot_listen(address, error) from None
        bound = self._socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self._endpoint = bound.rstrip(b"\0").decode()
        return Address.parse(self._endpoint.removeprefix("tcp://"))

    def cycle(self) -> None:
        """Unbind, which ends all connections, and bind again: at once, or as soon as libzmq's other thread has let go of the
        port. Once more while that goes on changes nothing."""
        if self._rebinding is None and not self._socket.closed:
            self.cycles += 1
            self._socket.unbind(self._endpoint)
            self._rebind()

    def mute(self, peer: PeerId, until: float) -> None:
        """Until this moment of the loop's clock, what comes from there is counted and dropped unread: it costs a tenth of what
        it would to refuse it."""
        self._mute_until[peer] = until

    def close(self) -> None:
        if self._rebinding is not None:
            self._rebinding.cancel()
        self._reading.close()

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
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        hop = self._hop(frame)
        is_heard = hop is not None and not self._is_muted(hop)
        frames: list[Sized] = []
        size = 0
        while frame.more:
            frame = self._socket.recv(zmq.NOBLOCK, copy=False)  # a message arrives whole: this never waits
            size += len(frame)
            if is_heard and len(frames) < _FRAMES_KEPT:
                frames.append(frame.buffer if frames else frame.bytes)
        if hop is None:
            self.dropped += 1
        elif not is_heard:
            self.muted += 1
        else:
            self._on_message(hop, tuple(frames), size)
        return True

    def _is_muted(self, hop: PeerId) -> bool:
        until = self._mute_until.get(hop)
        if until is None:
            return False
        if self._loop.time() < until:
            return True
        del self._mute_until[hop]
        return False

    def _hop(self, frame: zmq.Frame) -> PeerId | None:
        try:
            user = frame.get("User-Id")
        except zmq.ZMQError:  # a connection that no gate let in
            return None
        return self._members.get(str(user))


def _cannot_listen(address: Address, error: OSError | zmq.ZMQError) -> Failure:
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
