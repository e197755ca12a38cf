"""Messages between the processes of one machine: a length, then msgpack, over a socket pair. Never pickle.

Both ends are our own processes, yet every length is bounded, so that a bug can't become an allocation. A file descriptor can
travel with a message. When one end closes or dies, the other reads the end: that is how processes here end together.
"""

import asyncio
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack

MESSAGE_MAX = 64 << 20  # bytes; the largest are the record of a long run and a large task's label counts
_LENGTH = struct.Struct("!I")
_READ = 1 << 16


class ChannelClosed(Exception):
    """The process at the other end is gone."""


class Channel:
    """The blocking end, for a process that has nothing else to do than to answer."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(True)
        self._inbound = _Inbound()

    def receive(self) -> Any:
        """The next message; raises `ChannelClosed` at the end."""
        while (message := self._inbound.take()) is None:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, _READ, 1)
            except ConnectionError:
                data, fds = b"", []
            if not data:
                raise ChannelClosed
            self._inbound.feed(data, fds)
        return message

    def received_fd(self) -> int:
        """The file descriptor that came with a message received by now, oldest first."""
        return self._inbound.fds.popleft()

    def send(self, message: Any) -> None:
        try:
            self._socket.sendall(_framed(message))
        except ConnectionError:
            raise ChannelClosed from None

    def close(self) -> None:
        self._socket.close()


class LoopChannel:
    """The end in an asyncio loop: calls `on_message` for each message and `on_closed` once, at the end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        end: socket.socket,
        on_message: Callable[[Any], None],
        on_closed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = end
        self._socket.setblocking(False)
        self._on_message = on_message
        self._on_closed = on_closed
        self._inbound = _Inbound()
        self._unsent = bytearray()
        loop.add_reader(end, self._readable)

    def send(self, message: Any, fd: int | None = None) -> None:
        """Never waits: what the socket does not take now goes out when it can. Nothing is said if the other end is gone;
        `on_closed` says it."""
        data = _framed(message)
        if self._socket.fileno() < 0:
            return
        try:
            if self._unsent:
                # A descriptor travels with the first byte of a write of its own; they are sent at start-up only.
                assert fd is None, "a descriptor can't wait in a queue"
                sent = 0
            else:
                sent = self._socket.send(data) if fd is None else socket.send_fds(self._socket, [data], [fd])
        except BlockingIOError:
            assert fd is None, "a descriptor can't wait in a queue"
            sent = 0
        except ConnectionError:
            return
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._socket, self._writable)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.close()
            self._on_closed()
            return
        self._inbound.feed(data, ())
        while (message := self._inbound.take()) is not None:
            self._on_message(message)

    def _writable(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except ConnectionError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        if not self._unsent:
            self._loop.remove_writer(self._socket)


class _Inbound:
    """Bytes that came, cut into messages."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self.fds: deque[int] = deque()

    def feed(self, data: bytes, fds: Any) -> None:
        self._bytes += data
        for fd in fds:
            os.set_inheritable(fd, False)
            self.fds.append(fd)

    def take(self) -> Any:
        if len(self._bytes) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if length > MESSAGE_MAX:
            raise AssertionError(f"a message of {length} bytes between our own processes; the limit is {MESSAGE_MAX}")
        end = _LENGTH.size + length
        if len(self._bytes) < end:
            return None
        message = msgpack.unpackb(memoryview(self._bytes)[_LENGTH.size : end], use_list=False, strict_map_key=False)
        del self._bytes[:end]
        return message


def _framed(message: Any) -> bytes:
    body: bytes = msgpack.packb(message)
    if len(body) > MESSAGE_MAX:
        raise AssertionError(f"a message of {len(body)} bytes between our own processes; the limit is {MESSAGE_MAX}")
    return _LENGTH.pack(len(body)) + body
