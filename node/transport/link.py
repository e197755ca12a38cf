"""One connection to a neighbor, from dialling to its end. Never mended: the supervisor makes a new one."""

import asyncio
import itertools
import struct
from collections.abc import Callable

import zmq

from node.entropy import SystemEntropy
from node.transport.address import Address
from node.transport.readiness import Reading, events, has_message
from node.transport.routes import BULK, CONTROL, TOKEN_BYTES, announcement
from node.transport.sockets import Context, Frames, Patience, Socket, TransportKeys, dialling_socket, sent

_EVENT = struct.Struct("=hi")
UNANSWERED = "nobody answers there"
_FAILURES: dict[int, str] = {
    zmq.EVENT_CLOSED: UNANSWERED,
    zmq.EVENT_DISCONNECTED: "the connection ended",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the handshake was not finished",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "what answers there is not a peer, or has other keys",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "we were refused",
}
_MONITORED = zmq.EVENT_HANDSHAKE_SUCCEEDED | sum(_FAILURES)
_monitor_numbers = itertools.count()

OnAnswer = Callable[[Socket, zmq.Frame], None]
"""Called with the first frame of a message that came back; reads the others."""


class Link:
    """Two DEALERs to one neighbor: control and bulk, so that small messages are never behind a model. The link is up when
    both have finished the handshake, and over when either ends. The neighbor may answer over it: the key that it proved says
    from whom that is."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        keys: TransportKeys,
        server_key: bytes,
        address: Address,
        patience: Patience,
        on_answer: OnAnswer,
    ) -> None:
        """`address` is numeric. Raises `ZMQError` when libzmq can't use it, or has no socket or descriptor left."""
        self.up: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[str] = loop.create_future()
        """Why the link is over, in words."""
        self._waiting_for = 2
        self._sockets: list[Socket] = []
        self._readings: list[Reading] = []
        self._monitors: list[Reading] = []
        self._loop = loop
        self._on_answer = on_answer
        try:
            for _ in ("control", "bulk"):
                socket = dialling_socket(context, keys, server_key, patience)
                self._sockets.append(socket)
                self._readings.append(self._reading(loop, socket))
                self._monitors.append(self._monitor(context, loop, socket))
                socket.ipv6 = address.is_ipv6
                socket.connect(f"tcp://{address}")
        except zmq.ZMQError:
            self.close()
            raise

    @property
    def is_up(self) -> bool:
        return self.up.done() and not self.over.done()

    def announce(self) -> None:
        """Say that this link is there to be answered over: not before whoever hears the answers has a link to send on."""
        token = SystemEntropy().draw(TOKEN_BYTES)
        self.send((announcement(CONTROL, token),), bulk=False)
        self.send((announcement(BULK, token),), bulk=True)

    def send(self, frames: Frames, bulk: bool) -> bool:
        """False when this much is waiting already that the message was dropped. Never waits; the order is kept."""
        socket = self._sockets[bulk]
        self._readings[bulk].look_again()
        # To save time, a send looks only now and then at what the I/O thread has told, and may miss that there is room.
        return sent(socket, frames) or (bool(events(socket) & zmq.POLLOUT) and sent(socket, frames))

    def end(self, why: str) -> None:
        """It is over, because we say so."""
        if not self.over.done():
            self.over.set_result(why)

    def close(self, linger_s: float = 0.0) -> None:
        """What is still waiting may take `linger_s` to leave, if the link is up."""
        linger_ms = round(linger_s * 1000) if self.is_up else 0
        for socket in self._sockets:
            if not socket.closed:
                socket.disable_monitor()
        for reading in self._readings:
            reading.close(linger_ms)
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

    def _reading(self, loop: asyncio.AbstractEventLoop, socket: Socket) -> Reading:
        def take() -> bool:
            try:
                frame = socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return False
            if frame.more or len(frame):  # an empty message only asks whether we are there
                self._on_answer(socket, frame)
            return True

        return Reading(loop, socket, take)

    def _learn(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._waiting_for -= 1
            if self._waiting_for == 0 and not self.over.done():
                self.up.set_result(None)
        else:
            self._end_when_read(_FAILURES.get(event, "the connection ended"))

    def _end_when_read(self, why: str) -> None:
        """The connection has ended, and what came before that is heard first."""
        if self.over.done() or not any(not socket.closed and has_message(socket) for socket in self._sockets):
            self.end(why)
            return
        for reading in self._readings:
            reading.look_again()
        self._loop.call_soon(self._end_when_read, why)
