"""A ZeroMQ socket in an asyncio loop, without a future per message.

The descriptor of a ZeroMQ socket says that something may have happened, not that a message waits, and it says so once: whoever
was told must read until nothing is left. So `take` is called until it finds nothing; a socket that always has more gives
the loop its turn after every `BURST` messages. Sending on the same socket can swallow the signal: who sends on one that is
read here says so by `look_again`.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

BURST = 64  # messages; at 1 MiB each they take the loop about as long as one update takes to hash


class Reading:
    """Calls `take` whenever the socket may have a message, until it returns False; `close` closes the socket too.

    What `take` raises goes to the loop's exception handler, and reading goes on with the next message.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: "zmq.Socket[bytes]", take: Callable[[], bool]) -> None:
        self._loop = loop
        self._socket = socket
        self._take = take
        self._fd: Any = socket.FD
        self._again: asyncio.Handle | None = None
        loop.add_reader(self._fd, self._drain)
        self._again = loop.call_soon(self._look)  # what came before the descriptor was watched

    def look_again(self) -> None:
        """Something was sent: look in the loop's next turn whether a signal was lost by it."""
        if self._again is None:
            self._again = self._loop.call_soon(self._look)

    def close(self, linger_ms: int = 0) -> None:
        """What was handed to the socket may take `linger_ms` to leave."""
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            if self._again is not None:
                self._again.cancel()
            self._socket.close(linger=linger_ms)

    def _look(self) -> None:
        """Asking is cheaper than to find that nothing is there."""
        self._again = None
        if not self._socket.closed and has_message(self._socket):
            self._drain()

    def _drain(self) -> None:
        is_empty = False
        try:
            for _ in range(BURST):
                if self._socket.closed or not self._take():
                    is_empty = True
                    return
        finally:
            if not is_empty and not self._socket.closed:
                self.look_again()


def has_message(socket: "zmq.Socket[bytes]") -> bool:
    """Whether one can be received now. Asking also takes note of all that the I/O thread has told."""
    return bool(events(socket) & zmq.POLLIN)


def events(socket: "zmq.Socket[bytes]") -> int:
    """What can be done with it now."""
    found = socket.getsockopt(zmq.EVENTS)
    assert isinstance(found, int)
    return found
