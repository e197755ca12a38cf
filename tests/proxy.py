"""A TCP proxy that does to bytes what networks do: it delays, throttles, slices, holds, drops, flips and breaks them, each
direction by itself, and heals. What it carries may be CURVE: nothing here looks inside.
"""

import asyncio
import socket
import struct
from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

from p2pfl.protocol.randomness import Choices

_READ = 1 << 16
_AHEAD_MAX = 1 << 20  # bytes of one direction that may wait here; then the sender feels it, as with a full link


@dataclass
class Way:
    """What happens to the bytes of one direction, from now on. May be changed at any time; `heal` undoes all of it."""

    delay_s: float = 0.0
    jitter_s: float = 0.0
    """Added to the delay, a different part of it for each piece. Order is kept: this is TCP."""
    bytes_per_s: float = inf
    slice_bytes: int = _READ
    """No piece is passed on that is longer."""
    limit_bytes: float = inf
    """Per connection; after so many, it is closed."""
    close_delay_s: float = 0.0
    """How long the other side does not hear of an end."""
    flips: int = 0
    """So many of the next pieces have one bit changed."""
    is_cut: bool = False
    """Nothing arrives and nobody is told; what was sent meanwhile arrives after the cut, as TCP's own resends would."""
    passed: int = 0
    """Bytes so far, over all connections."""
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def cut(self) -> None:
        self.is_cut = True

    def heal(self) -> None:
        fresh = Way()
        for name in ("delay_s", "jitter_s", "bytes_per_s", "slice_bytes", "limit_bytes", "close_delay_s", "flips", "is_cut"):
            setattr(self, name, getattr(fresh, name))
        self.changed.set()
        self.changed.clear()

    async def opened(self) -> None:
        """Returns when it is not cut."""
        while self.is_cut:
            await self.changed.wait()


class Proxy:
    """Stands for `target`. `caller_of(port, own_port)` names whoever is at the other end of this connection, so that what
    `toward(name)` and `back(name)` are made to do concerns its connections alone."""

    def __init__(self, target: str, caller_of: Callable[[int, int], str] = lambda _port, _own: "") -> None:
        self.target = target
        self.connections = 0  # accepted so far
        self._caller_of = caller_of
        self._toward: defaultdict[str, Way] = defaultdict(Way)
        self._back: defaultdict[str, Way] = defaultdict(Way)
        self._open: dict[asyncio.Task[None], tuple[str, asyncio.StreamWriter, asyncio.StreamWriter | None]] = {}
        self._choices = Choices(7, target.encode())

    async def start(self, listen: str = "127.0.0.1:0") -> str:
        host, port = listen.rsplit(":", 1)
        self._server = await asyncio.start_server(self._serve, host, int(port), backlog=256)
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    def toward(self, caller: str = "") -> Way:
        """From the caller to the target."""
        return self._toward[caller]

    def back(self, caller: str = "") -> Way:
        """From the target to the caller."""
        return self._back[caller]

    def cut(self, caller: str = "") -> None:
        """A black hole: connections stay, and nothing goes through any of them, old or new."""
        self.toward(caller).cut()
        self.back(caller).cut()

    def heal(self, caller: str | None = None) -> None:
        """Of this caller, or of all."""
        for ways in (self._toward, self._back):
            for name in list(ways):
                if caller in (None, name):
                    ways[name].heal()

    def reset(self, caller: str | None = None) -> int:
        """Break its connections, or all, with RST on both sides; returns how many."""
        broken = [ends for ends in self._open.values() if caller in (None, ends[0])]
        for _, *writers in broken:
            for writer in filter(None, writers):
                resets_when_closed(writer)
                writer.transport.abort()
        return len(broken)

    async def stop(self) -> None:
        self._server.close()
        for task in tuple(self._open):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections += 1
        self._open[task] = ("", writer, None)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):  # streams of Python 3.11 report a cancelled server task
                caller = self._caller_of(writer.get_extra_info("peername")[1], writer.get_extra_info("sockname")[1])
                self._open[task] = (caller, writer, None)
                # A SYN that is lost: what the caller sees is a connection that never says a word.
                await self.toward(caller).opened()
                host, port = self.target.rsplit(":", 1)
                far_reader, far_writer = await asyncio.open_connection(host, int(port))
                self._open[task] = (caller, writer, far_writer)
                try:
                    await self._carry(reader, writer, far_reader, far_writer, caller)
                finally:
                    far_writer.close()
        finally:
            del self._open[task]
            writer.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
        caller: str,
    ) -> None:
        """Until both directions are over; an error in one ends both."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._copy(reader, far_writer, self.toward(caller)))
            both.create_task(self._copy(far_reader, writer, self.back(caller)))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way) -> None:
        """Reading and passing on are two tasks, so that a delay is no limit on what is under way."""
        pieces: deque[tuple[float, bytes]] = deque()
        moved = asyncio.Condition()
        feeder = asyncio.create_task(self._feed(reader, pieces, moved, way))
        try:
            with suppress(ConnectionError):
                await self._pass_on(pieces, moved, writer, way)
                await asyncio.sleep(way.close_delay_s)
            writer.close()
        finally:
            feeder.cancel()
            with suppress(asyncio.CancelledError, ConnectionError):
                await feeder

    async def _feed(
        self, reader: asyncio.StreamReader, pieces: deque[tuple[float, bytes]], moved: asyncio.Condition, way: Way
    ) -> None:
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            try:
                data = await reader.read(_READ)
            except ConnectionError:
                data = b""
            async with moved:
                await moved.wait_for(lambda: sum(len(piece) for _, piece in pieces) < _AHEAD_MAX)
                due = loop.time() + way.delay_s + self._choices.uniform(0, way.jitter_s)
                pieces.append((due, data))
                moved.notify_all()

    async def _pass_on(
        self, pieces: deque[tuple[float, bytes]], moved: asyncio.Condition, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        loop = asyncio.get_running_loop()
        passed = 0
        while True:
            async with moved:
                await moved.wait_for(lambda: bool(pieces))
                due, data = pieces.popleft()
                moved.notify_all()
            await asyncio.sleep(due - loop.time())
            await way.opened()
            if not data:
                return
            for piece in _sliced(data, way.slice_bytes):
                if passed + len(piece) > way.limit_bytes:
                    return
                # With no rate this only lets others run: another piece, another segment.
                await asyncio.sleep(len(piece) / way.bytes_per_s)
                writer.write(_flipped(piece) if way.flips else piece)
                way.flips = max(0, way.flips - 1)
                await writer.drain()
                passed += len(piece)
                way.passed += len(piece)


def _sliced(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def _flipped(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def resets_when_closed(writer: asyncio.StreamWriter) -> None:
    """Its connection will end with RST, and what waits in it is lost."""
    place = writer.get_extra_info("socket")
    if place is not None and place.fileno() >= 0:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
