"""Links on loopback and who may come to meet them: the stage for tests with real sockets. Whoever waits here waits for an
event, and at most `LIMIT_S`."""

import asyncio
import functools
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, ParamSpec

import zmq

from node.transport.links import Links
from node.transport.sockets import Patience
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Event, FrameReceived, LinkUp, PeerId
from p2pfl.protocol.identity import Identity
from sim.entropy import SeededEntropy

LIMIT_S = 10.0
NETWORK = b"loopback-network"
CALM = Patience(backoff_min_s=0.02, backoff_max_s=0.1)
BRISK = replace(CALM, handshake_s=0.8)
"""For tests that wait for an unfinished handshake to be cut off."""
RESTLESS = replace(CALM, heartbeat_s=0.3)
"""For tests that wait for a silent link to be cut off."""

P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test, bounded in time. What a callback raises fails it."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def bounded() -> None:
            raised: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: raised.append(context))
            async with asyncio.timeout(2 * LIMIT_S):
                await test(*args, **kwargs)
            assert not raised, raised

        asyncio.run(bounded())

    return run


@dataclass
class End:
    """One peer's links and what they told, in order."""

    identity: Identity
    links: Links
    address: str
    heard: "asyncio.Queue[Event]"
    callers: "asyncio.Queue[PeerId]"

    @property
    def id(self) -> PeerId:
        return self.identity.peer_id

    async def next(self) -> Event:
        return await asyncio.wait_for(self.heard.get(), LIMIT_S)

    async def message(self) -> FrameReceived:
        """The next message, whatever happened to links before it."""
        while not isinstance(event := await self.next(), FrameReceived):
            pass
        return event

    async def caller(self) -> PeerId:
        """Who dialled us next: from now on it can be answered, which the first message over its link does not yet mean, for
        that takes both of its connections."""
        return await asyncio.wait_for(self.callers.get(), LIMIT_S)


class Network:
    """Members with their keys. Each gets an address when it starts."""

    def __init__(self, count: int, patience: Patience = CALM) -> None:
        self.patience = patience
        entropy = SeededEntropy(count, b"loopback")
        self.identities = sorted((Identity.generate(entropy) for _ in range(count)), key=lambda i: i.peer_id)
        self.members = {
            i.peer_id: Member(i.peer_id, f"peer {n}", "127.0.0.1:0", i.transport_key, i.seal_key)
            for n, i in enumerate(self.identities)
        }
        self._ends: list[End] = []

    def place(self, number: int, address: str) -> None:
        """From now on this member is looked for there."""
        peer = self.identities[number].peer_id
        self.members[peer] = replace(self.members[peer], address=address)

    async def start(self, number: int, listen: str | None = None, on_event: Callable[[Event], None] | None = None) -> End:
        identity = self.identities[number]
        heard: asyncio.Queue[Event] = asyncio.Queue()
        callers: asyncio.Queue[PeerId] = asyncio.Queue()
        listen = listen or self.members[identity.peer_id].address
        on_event = on_event or heard.put_nowait
        links = Links(NETWORK, self.members, identity, listen, on_event, self.patience, on_called=callers.put_nowait)
        end = End(identity, links, str(await links.start()), heard, callers)
        self._ends.append(end)
        self.place(number, end.address)
        return end

    async def __aenter__(self) -> "Network":
        return self

    async def __aexit__(self, *_: object) -> None:
        for end in self._ends:
            await end.links.close(0)


@asynccontextmanager
async def pair(patience: Patience = CALM) -> AsyncIterator[tuple[End, End]]:
    """Two peers with a link each way, both up."""
    async with Network(2, patience) as network:
        a, b = await network.start(0), await network.start(1)
        a.links.dial(b.id)
        b.links.dial(a.id)
        for end, other in ((a, b), (b, a)):
            while await end.next() != LinkUp(other.id):
                pass
        yield a, b


# ---- those who come to our port ------------------------------------------------------------------------------------------


async def end_of_connection(address: str, *said: bytes) -> None:
    """Connect, say this and wait until the other end hangs up."""
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    with suppress(ConnectionError):
        for words in said:
            writer.write(words)
            await writer.drain()
        while await asyncio.wait_for(reader.read(1 << 16), LIMIT_S):
            pass
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def verdict_on(stranger: "zmq.Socket[bytes]", address: str) -> int:
    """Connect a ZeroMQ socket, closed in the end; the monitor's first word on whether it got in."""
    endpoint = f"inproc://stranger-{id(stranger)}"
    stranger.monitor(endpoint, zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
    monitor = stranger.context.socket(zmq.PAIR)
    try:
        monitor.connect(endpoint)
        stranger.connect(f"tcp://{address}")
        await readable(monitor)
        event: int = struct.unpack("=hi", monitor.recv_multipart()[0])[0]
        return event
    finally:
        stranger.disable_monitor()
        stranger.close(linger=0)
        monitor.close(linger=0)


async def readable(socket: "zmq.Socket[bytes]") -> None:
    """Wait until a message can be received."""
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    fd: Any = socket.FD
    loop.add_reader(fd, ready.set)
    try:
        async with asyncio.timeout(LIMIT_S):
            while not socket.poll(0):
                ready.clear()
                await ready.wait()
    finally:
        loop.remove_reader(fd)


# ---- those who answer where our peer should ------------------------------------------------------------------------------


def greeting(mechanism: bytes) -> bytes:
    """The first 64 bytes of ZMTP 3.0, as a client."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + b"\0" + bytes(31)


COMMAND_OF_2_GIB = b"\x06" + (2 << 30).to_bytes(8, "big")
"""The head of a command frame that claims to be this long."""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def says(*parts: bytes) -> Answer:
    """Says the first part at once, each further one when the caller has said something, then hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await reader.read(1 << 16)

    return answer


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts, then breaks the connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def swallows(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Reads everything and never says a word."""
    while await reader.read(1 << 16):
        pass


class Imposter:
    """A TCP server that treats every caller in the same way, and counts them."""

    def __init__(self, answer: Answer) -> None:
        self.calls = 0
        self._answer = answer
        self._called = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, address: str = "127.0.0.1:0") -> str:
        host, port = address.rsplit(":", 1)
        self._server = await asyncio.start_server(self._serve, host, int(port))
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def called(self, times: int) -> None:
        async with self._called:
            await asyncio.wait_for(self._called.wait_for(lambda: self.calls >= times), LIMIT_S)

    async def stop(self) -> None:
        self._server.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):  # one that had not begun to answer ends as cancelled
            if isinstance(ended, Exception):
                raise ended
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        async with self._called:
            self.calls += 1
            self._called.notify_all()
        try:
            with suppress(ConnectionError, asyncio.CancelledError):  # streams of Python 3.11 report a cancelled server task
                await self._answer(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()


class Wire:
    """A TCP proxy that can fall silent: both ends stay connected and nothing goes through."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._is_silent = False
        self._server = Imposter(self._forward)

    async def start(self) -> str:
        return await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    def cut(self) -> None:
        self._is_silent = True

    def mend(self) -> None:
        self._is_silent = False

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.rsplit(":", 1)
        far_reader, far_writer = await asyncio.open_connection(host, int(port))
        try:
            await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
        finally:
            far_writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if not self._is_silent:
                    writer.write(data)
                    await writer.drain()
        writer.close()
