"""One connection to a neighbor, from dialling to its end. Never mended: the supervisor makes a new one."""

import asyncio
import itertools
import struct
from collections.abc import Sequence

import zmq

from node.address import Address
from node.readiness import Reading
from node.sockets import Context, Patience, Socket, TransportKeys, dialling_socket

Frames = Sequence[bytes | bytearray | memoryview]

_COPY_BELOW = 64 * 1024  # bytes; lending a buffer to libzmq costs more than copying a small one
_LAST, _MORE = int(zmq.NOBLOCK), int(zmq.NOBLOCK | zmq.SNDMORE)

_EVENT = struct.Struct("=hi")
_FAILURES: dict[int, str] = {
    zmq.EVENT_CLOSED: "nobody answers there",
    zmq.EVENT_DISCONNECTED: "the connection ended",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake was not finished",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "what answers there is not a peer, or has other keys",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "we were refused",
}
_MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | sum(_FAILURES)
_monitor_numbers = itertools.count()


class Link:
    """Two DEALERs to one neighbor: control and bulk, so that small messages are never behind a model. The link is up when
    both have finished the handshake, and over when either ends."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        keys: TransportKeys,
        server_key: bytes,
        address: Address,
        patience: Patience,
    ) -> None:
        """`address` is numeric. Raises `ZMQError` when libzmq can't use it, or has no socket or descriptor left."""
        self.up: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[str] = loop.create_future()
        """Why the link is over, in words."""
        self._waiting_for = 2
        self._sockets: list[Socket] = []
        self._monitors: list[Reading] = []
        try:
            for _ in ("control", "bulk"):
                socket = dialling_socket(context, keys, server_key, patience)
                self._sockets.append(socket)
                self._monitors.append(self._monitor(context, loop, socket))
                socket.ipv6 = address.is_ipv6
                socket.connect(f"tcp://{address}")
        except zmq.ZMQError:
            self.close()
            raise

    @property
    def is_up(self) -> bool:
        return self.up.done() and not self.over.done()

    def send(self, frames: Frames, bulk: bool) -> bool:
        """False when this much is waiting already that the message was dropped. Never waits; the order is kept."""
        socket = self._sockets[bulk]
        # To save time, a send looks only now and then at what the I/O thread has told, and may miss that there is room.
        return _sent(socket, frames) or (bool(_events(socket) & zmq.POLLOUT) and _sent(socket, frames))

    def close(self, linger_s: float = 0.0) -> None:
        """What is still waiting may take `linger_s` to leave, if the link is up."""
        linger_ms = round(linger_s * 1000) if self.is_up else 0
        for socket in self._sockets:
            if not socket.closed:
                socket.disable_monitor()
                socket.close(linger=linger_ms)
        for monitor in self._monitors:
            monitor.close()

    def _monitor(self, context: Context, loop: asyncio.AbstractEventLoop, socket: Socket) -> Reading:
        endpoint = f"inproc://link-{next(_monitor_numbers)}"
        socket.monitor(endpoint, _MONITORED)
        events = context.socket(zmq.PAIR)
        events.connect(endpoint)

        def take() -> bool:
            try:
                event, _ = events.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return False
            self._learn(_EVENT.unpack(event)[0])
            return True

        return Reading(loop, events, take)

    def _learn(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._waiting_for -= 1
            if self._waiting_for == 0 and not self.over.done():
                self.up.set_result(None)
        elif not self.over.done():
            self.over.set_result(_FAILURES.get(event, "the connection ended"))


def _sent(socket: Socket, frames: Frames) -> bool:
    last = len(frames) - 1
    try:
        for i, frame in enumerate(frames):
            socket.send(frame, _LAST if i == last else _MORE, copy=len(frame) < _COPY_BELOW or not _is_constant(frame))
    except zmq.Again:  # then nothing of the message has gone
        return False
    return True


def _is_constant(frame: bytes | bytearray | memoryview) -> bool:
    """Whether it can be lent: it will not change before it is sent, and nobody else gets its memory while it is referred to.
    libzmq's references count."""
    return type(frame) is bytes or (type(frame) is memoryview and frame.readonly)


def _events(socket: Socket) -> int:
    events = socket.getsockopt(zmq.EVENTS)
    assert isinstance(events, int)
    return events
