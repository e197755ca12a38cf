"""Reading what came, one whole message at a time, whichever socket it came in at."""

import asyncio
from collections.abc import Callable, Sized

import zmq

from node.transport.sockets import Socket
from p2pfl.protocol.events import PeerId

_FRAMES_KEPT = 3  # a message has one or two; a third is kept to show that there were too many

OnMessage = Callable[[PeerId, tuple[Sized, ...], int], None]
"""Called with the hop, the frames and their bytes in all."""


class Hearing:
    """Passes on what members say, but for those who are muted: what they say is counted and dropped unread, which costs a tenth
    of what it would to refuse it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_message: OnMessage) -> None:
        self.muted = 0
        self._loop = loop
        self._on_message = on_message
        self._mute_until: dict[PeerId, float] = {}

    def mute(self, peer: PeerId, until: float) -> None:
        """Until this moment of the loop's clock."""
        self._mute_until[peer] = until

    def take(self, hop: PeerId, socket: Socket, frame: zmq.Frame) -> None:
        """Read the rest of the message that begins with this frame, and pass it on."""
        if self._is_muted(hop):
            self.muted += 1
            discard(socket, frame)
            return
        frames: list[Sized] = [frame.bytes]
        size = len(frame)
        while frame.more:
            frame = socket.recv(zmq.NOBLOCK, copy=False)  # a message arrives whole: this never waits
            size += len(frame)
            if len(frames) < _FRAMES_KEPT:
                frames.append(frame.buffer)
        self._on_message(hop, tuple(frames), size)

    def _is_muted(self, hop: PeerId) -> bool:
        until = self._mute_until.get(hop)
        if until is None:
            return False
        if self._loop.time() < until:
            return True
        del self._mute_until[hop]
        return False


def discard(socket: Socket, frame: zmq.Frame) -> None:
    """Read the rest of the message that begins with this frame, for nobody."""
    while frame.more:
        frame = socket.recv(zmq.NOBLOCK, copy=False)
