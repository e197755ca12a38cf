"""What strangers at its port, and a member that floods it, cost a real node and an honest neighbor of it.

python benchmarks/strangers.py [--seconds 5]

A node (its network process and trainer, default waits), an honest member, and everybody else in a process of their own.
Strangers: silent, dripping, speaking NULL or HTTP, claiming frames of 2 GiB, 800 idle connections, and handshakes as fast as
they go with the node's real key. Limits: 64 MiB more memory, the honest member's new link up and answered within 5 s, 3 lines
of log each. A member that sends 50,000 messages of 200 bytes a second: the time in which the honest one is answered less than
doubles, in the median of pairs with and without the flood.
"""

import argparse
import asyncio
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter, sleep

import psutil
import zmq

from node import processes, setup
from node.directory import NodeDirectory
from node.local.network import local_network
from node.transport.links import Links
from p2pfl.protocol import wire
from p2pfl.protocol.events import Event, FrameReceived, LinkUp
from p2pfl.protocol.identity import Identity

MEMORY_MAX = 64 << 20
JOIN_MAX_S = 5.0
LINES_MAX = 3
RATIO_MAX = 2.0
FLOOD_PER_S = 50_000
PROBES = 100
PAIRS = 3
SECONDS = 5.0

Place = tuple[str, int]


# ---- strangers, in a process of their own -----------------------------------------------------------------------------------

_CURVE = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + b"\0" + bytes(31)
_NULL = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
_CLAIM = b"\x06" + (2 << 30).to_bytes(8, "big")


def crowd(place: Place, count: int, said: bytes, until: float, drip: bool = False) -> None:
    """So many connections at a time that say this; those that are hung up on come again."""
    open_: list[socket.socket] = []
    while monotonic() < until:
        while len(open_) < count and monotonic() < until:
            with suppress(OSError):
                stranger = socket.create_connection(place, timeout=1)
                stranger.setblocking(False)
                with suppress(OSError):
                    stranger.send(said[:1] if drip else said)
                open_.append(stranger)
        sleep(0.05)
        for stranger in list(open_):
            try:
                if drip:
                    stranger.send(b"\0")
                if stranger.recv(1 << 16) == b"":
                    raise ConnectionError
            except BlockingIOError:
                continue
            except OSError:
                stranger.close()
                open_.remove(stranger)
    for stranger in open_:
        stranger.close()


def claims(place: Place, until: float) -> None:
    """Claim a frame of 2 GiB, and begin to send it."""
    while monotonic() < until:
        with suppress(OSError), socket.create_connection(place, timeout=1) as stranger:
            stranger.sendall(_CURVE + _CLAIM)
            for _ in range(64):
                stranger.sendall(bytes(1 << 20))
        sleep(0.01)


def handshakes(place: Place, key: bytes, until: float) -> None:
    """By strangers who know the node's public key, one after the other, as fast as they are refused."""
    with zmq.Context() as context:
        while monotonic() < until:
            for stranger in [context.socket(zmq.DEALER) for _ in range(20)]:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = key
                stranger.setsockopt(zmq.RECONNECT_IVL, 10)
                stranger.connect(f"tcp://{place[0]}:{place[1]}")
                sleep(0.002)
                stranger.close(linger=0)


def flood(place: Place, key: bytes, secret: bytes, until: float) -> None:
    """A member, with messages that are none."""
    rubbish = random.Random(7).randbytes(200)
    with zmq.Context() as context, context.socket(zmq.DEALER) as member:
        member.linger = 0
        member.curve_secretkey, member.curve_publickey = (
            secret,
            zmq.utils.z85.decode(zmq.curve_public(zmq.utils.z85.encode(secret))),
        )
        member.curve_serverkey = key
        member.connect(f"tcp://{place[0]}:{place[1]}")
        begin, sent = monotonic(), 0
        while (now := monotonic()) < until:
            while sent < (now - begin) * FLOOD_PER_S:
                try:
                    member.send(rubbish, zmq.NOBLOCK)
                except zmq.Again:
                    break
                sent += 1
            sleep(0.0005)
    print(f"{sent / (until - begin):.0f}")


ATTACKS: dict[str, Callable[[Place, bytes, bytes, float], None]] = {
    "100 silent": lambda place, _key, _secret, until: crowd(place, 100, b"", until),
    "100 dripping": lambda place, _key, _secret, until: crowd(place, 100, b"\xff", until, drip=True),
    "50 NULL": lambda place, _key, _secret, until: crowd(place, 50, _NULL + b"\x04\x26\x05READY", until),
    "50 HTTP": lambda place, _key, _secret, until: crowd(place, 50, b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", until),
    "2 GiB claims": lambda place, _key, _secret, until: claims(place, until),
    "800 idle": lambda place, _key, _secret, until: crowd(place, 800, _CURVE, until),
    "handshakes": lambda place, key, _secret, until: handshakes(place, key, until),
}


def attack(name: str, place: Place, key: bytes, secret: bytes, seconds: float) -> "subprocess.Popen[str]":
    words = json.dumps([name, list(place), key.hex(), secret.hex(), seconds])
    return subprocess.Popen([sys.executable, __file__, "--attack", words], stdout=subprocess.PIPE, text=True)


def attacked(words: str) -> None:
    name, (host, port), key, secret, seconds = json.loads(words)
    act = ATTACKS.get(name, flood)
    act((host, port), bytes.fromhex(key), bytes.fromhex(secret), monotonic() + seconds)


# ---- the node and its honest neighbor ---------------------------------------------------------------------------------------


class Victim:
    """A node of a network of three, of which this process is the honest one."""

    def __init__(self, folder: Path) -> None:
        names = ["node", "honest", "flooder"]
        self.network = local_network(names, name="strangers", rounds=100_000, topology={"kind": "complete"})
        self.identities = self.network.identities
        told = self.network.setup(0, folder / "node")
        fd = setup.to_fd(told)
        self.process = processes.start("node.network", fd, (told.secrets_fd,), own_group=True)
        os.close(fd)
        os.close(told.secrets_fd)
        self.log = NodeDirectory(folder / "node").log
        host, port = self.network.members[0].address.rsplit(":", 1)
        self.place = host, int(port)

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss

    def lines(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


class Honest:
    """The honest member's links. The node greets it, and answers when it is greeted."""

    def __init__(self, victim: Victim) -> None:
        self._node = victim.identities[0].peer_id
        self._heard: asyncio.Queue[Event] = asyncio.Queue()
        members = {member.id: member for member in victim.network.members}
        identity: Identity = victim.identities[1]
        self._links = Links(b"strangers-strang", members, identity, members[identity.peer_id].address, self._heard.put_nowait)
        self._greeting = b""

    async def __aenter__(self) -> "Honest":
        """Raises TimeoutError where it takes too long to be linked both ways and answered."""
        begin = perf_counter()
        await self._links.start()
        self._links.dial(self._node)
        async with asyncio.timeout(60):
            while not self._greeting:
                match await self._heard.get():
                    case FrameReceived(frames=frames) if isinstance(
                        hello := wire.decode(bytes(memoryview(frames[0]))), wire.Hello
                    ):
                        self._greeting = wire.encode(wire.Hello(hello.network, hello.charter, b"b" * 16, 1, 0, True))
            await self.answered()
        self.joined_s = perf_counter() - begin
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._links.close(0)

    async def answered(self) -> float:
        """Seconds from a greeting to its answer."""
        begin = perf_counter()
        self._links.send(self._node, (self._greeting,))
        while True:
            try:
                async with asyncio.timeout(1.0):
                    event = await self._heard.get()
            except TimeoutError:  # before our link was up; or lost
                self._links.send(self._node, (self._greeting,))
                continue
            match event:
                case LinkUp():
                    self._links.send(self._node, (self._greeting,))
                case FrameReceived(frames=frames) if isinstance(wire.decode(bytes(memoryview(frames[0]))), wire.Hello):
                    return perf_counter() - begin

    async def median(self) -> float:
        times = []
        for _ in range(PROBES):
            times.append(await self.answered())
            await asyncio.sleep(0.01)
        return statistics.median(times)


# ---- what is measured -------------------------------------------------------------------------------------------------------


async def strangers(victim: Victim, seconds: float) -> bool:
    """Prints a line for each kind; whether all are within the limits."""
    is_good = True
    key = victim.identities[0].transport_key
    for name in ATTACKS:
        before, lines = victim.memory, victim.lines()
        peak = Peak(victim)
        attackers = attack(name, victim.place, key, b"", seconds)
        await asyncio.sleep(seconds / 3)
        async with Honest(victim) as honest:
            joined = honest.joined_s
        await asyncio.get_running_loop().run_in_executor(None, attackers.wait)
        grown, lines = peak.stop() - before, victim.lines() - lines
        is_good &= grown <= MEMORY_MAX and joined <= JOIN_MAX_S and lines <= LINES_MAX
        print(
            f"{name:14} {grown / (1 << 20):+7.1f} MiB   honest link up and answered in {joined:5.2f} s   {lines} lines of log"
        )
    return is_good


class Peak:
    """The most memory that the node has had since."""

    def __init__(self, victim: Victim) -> None:
        self._most, self._is_over = victim.memory, False
        self._victim = victim
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> int:
        self._is_over = True
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._is_over:
            self._most = max(self._most, self._victim.memory)
            sleep(0.05)


async def flooded(victim: Victim, seconds: float) -> bool:
    """Prints the honest member's latency in peace and in a flood, and whether it is less than doubled. The flood in peace goes
    to a socket of ours, so that both are measured on an equally busy machine. One after the other, pair by pair, and the median
    of the pairs counts: whatever else the machine does falls on both alike. Bans last longer from pair to pair, as they should;
    so the first pair of all is the hardest, and it is printed too."""
    key, secret = victim.identities[0].transport_key, victim.identities[2].transport_secret
    pairs: list[tuple[float, float]] = []
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sink:
        sink.linger, sink.curve_server = 0, True
        sink.curve_secretkey = victim.identities[0].transport_secret
        sink.curve_publickey = key
        elsewhere = "127.0.0.1", sink.bind_to_random_port("tcp://127.0.0.1")
        draining = threading.Event()
        drain = threading.Thread(target=drained, args=(sink, draining))
        drain.start()
        try:
            async with Honest(victim) as honest:
                quiet = await honest.median()
                lines, peak, before = victim.lines(), Peak(victim), victim.memory
                for _ in range(PAIRS):
                    peace, _sent = await latency(honest, attack("flood", elsewhere, key, secret, seconds))
                    war, rate = await latency(honest, attack("flood", victim.place, key, secret, seconds))
                    pairs.append((peace, war))
                grown = peak.stop() - before
        finally:
            draining.set()
            drain.join()
    ratio = statistics.median(war / peace for peace, war in pairs)
    sent = f"{rate} messages/s got out"
    print(f"member's flood {grown / (1 << 20):+7.1f} MiB   {sent}   {victim.lines() - lines} lines of log")
    for peace, war in pairs:
        here, there = f"{1e3 * war:.2f} ms in a flood", f"{1e3 * peace:.2f} ms beside one"
        print(f"honest median  {1e3 * quiet:.2f} ms alone, {there}, {here}")
    print(f"the same       {ratio:.2f} times as long in it as beside it (median of {PAIRS} pairs; at most {RATIO_MAX:g})")
    return ratio < RATIO_MAX and grown <= MEMORY_MAX


async def latency(honest: Honest, attackers: "subprocess.Popen[str]") -> tuple[float, str]:
    """The median while it lasts, and how many messages a second the flooder was able to send."""
    await asyncio.sleep(1.0)
    median = await honest.median()
    said, _ = await asyncio.get_running_loop().run_in_executor(None, attackers.communicate)
    return median, said.strip()


def drained(sink: "zmq.Socket[bytes]", over: threading.Event) -> None:
    while not over.is_set():
        if sink.poll(100):
            with suppress(zmq.Again):
                while True:
                    sink.recv_multipart(zmq.NOBLOCK)


async def measured(seconds: float) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        victim = Victim(Path(folder))
        try:
            async with Honest(victim) as honest:
                print(
                    f"{'nobody':14} {victim.memory / (1 << 20):7.1f} MiB   {1e3 * await honest.median():.2f} ms to be answered"
                )
            return await strangers(victim, seconds) & await flooded(victim, seconds)
        finally:
            victim.process.terminate()
            victim.process.wait()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--attack", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.attack:
        attacked(arguments.attack)
        return 0
    return int(not asyncio.run(measured(arguments.seconds)))


if __name__ == "__main__":
    sys.exit(main())
