"""A ZeroMQ socket in an asyncio loop, without a future per message.

The descriptor of a ZeroMQ socket says that something may have happened, not that a message waits, and it says so once: whoever
was told must read until nothing is left. So `take` is called until it finds nothing; a socket that always has more gives
the loop its turn after every `BURST` messages. Sending on the same socket could swallow the signal: sockets here either
read or, as the reply to the message just taken, send.
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
        self._again = loop.call_soon(self._drain)  # what came before the descriptor was watched

    def close(self) -> None:
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            if self._again is not None:
                self._again.cancel()
            self._socket.close(linger=0)

    def _drain(self) -> None:
        is_empty = False
        try:
            for _ in range(BURST):
                if self._socket.closed or not self._take():
                    is_empty = True
                    return
        finally:
            if not is_empty and not self._socket.closed:
                self._again = self._loop.call_soon(self._drain)
