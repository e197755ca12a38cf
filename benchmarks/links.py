"""What a link costs beside raw pyzmq under CURVE: chunks of 1 MiB, small messages, a round trip. Two processes, loopback.

python benchmarks/links.py

"python us" is the time of one process's Python thread per message, at the sender and at the receiver; the encryption is done
by libzmq's I/O threads and shows in the throughput only. zmq.asyncio is what we would read with if
`node/transport/readiness.py` did not exist. Limits: 90 % of raw pyzmq for chunks, 60 us of Python per small message.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils import z85

from node.entropy import SystemEntropy
from node.transport.links import Links
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Event, FrameReceived, LinkUp
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.wire import CHUNK_BYTES

RUNS = 5
HEAD = b"h" * 50
CHUNK_LIMIT = 0.9
SMALL_LIMIT_US = 60.0
NETWORK = b"benchmark-links!"


@dataclass(frozen=True)
class Load:
    """`window` messages are on their way at most; the receiver grants the next quarter of it when a quarter has come."""

    body_bytes: int
    count: int
    window: int


CHUNKS = Load(CHUNK_BYTES, 600, 16)
SMALL = Load(200, 40_000, 128)
ROUND_TRIP = Load(200, 2_000, 1)


@dataclass(frozen=True)
class Cost:
    seconds: float
    sender_us: float
    receiver_us: float


# ---- ours --------------------------------------------------------------------------------------------------------------


async def ours(load: Load, is_sender: bool, secrets: list[bytes], ports: list[int]) -> tuple[float, float]:
    """Seconds on the clock and of this thread."""
    identities = [Identity(bytes([n]) * 32, secret, bytes([n]) * 32) for n, secret in enumerate(secrets)]
    members = {
        i.peer_id: Member(i.peer_id, f"peer {n}", f"127.0.0.1:{ports[n]}", i.transport_key, i.seal_key)
        for n, i in enumerate(identities)
    }
    me = identities[0 if is_sender else 1]
    other = identities[1 if is_sender else 0].peer_id
    up, done = asyncio.Event(), asyncio.Event()
    frames = (HEAD, os.urandom(load.body_bytes))
    step = max(1, load.window // 4)
    sent = received = 0

    def send_until(granted: int) -> None:
        nonlocal sent
        while sent < min(granted, load.count):
            links.send(other, frames, bulk=True)
            sent += 1

    def on_event(event: Event) -> None:
        nonlocal received
        match event:
            case LinkUp():
                up.set()
            case FrameReceived() if is_sender:
                received += step
                if received >= load.count:
                    done.set()
                send_until(received + load.window)
            case FrameReceived():
                received += 1
                if received % step == 0:
                    links.send(other, (HEAD,))
                if received >= load.count:
                    done.set()

    links = Links(NETWORK, members, me, members[me.peer_id].address, on_event)
    await links.start()
    links.dial(other)
    await up.wait()
    wall, cpu = perf_counter(), thread_time()
    if is_sender:
        send_until(load.window)
    await done.wait()
    cost = perf_counter() - wall, thread_time() - cpu
    await links.close()
    return cost


# ---- raw pyzmq, with the same credits -----------------------------------------------------------------------------------


def sockets(context: Any, is_sender: bool, secrets: list[bytes], ports: list[int]) -> tuple[Any, Any]:
    mine, others = (0, 1) if is_sender else (1, 0)
    keys = [z85.decode(zmq.curve_public(z85.encode(secret))) for secret in secrets]
    router, dealer = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    router.curve_server = True
    dealer.curve_serverkey = keys[others]
    for socket in (router, dealer):
        socket.curve_publickey, socket.curve_secretkey = keys[mine], secrets[mine]
        socket.linger = 1000
    router.bind(f"tcp://127.0.0.1:{ports[mine]}")
    dealer.connect(f"tcp://127.0.0.1:{ports[others]}")
    return router, dealer


def raw(load: Load, is_sender: bool, secrets: list[bytes], ports: list[int]) -> tuple[float, float]:
    context = zmq.Context()
    router, dealer = sockets(context, is_sender, secrets, ports)
    body = os.urandom(load.body_bytes)
    step = max(1, load.window // 4)
    # One message each way first: both links are up.
    dealer.send(HEAD)
    router.recv_multipart()
    wall, cpu = perf_counter(), thread_time()
    if is_sender:
        for n in range(load.count):
            if n >= load.window and n % step == 0:
                router.recv_multipart()
            dealer.send(HEAD, zmq.SNDMORE)
            dealer.send(body, copy=False)
        for _ in range(load.count // step - len(range(load.window, load.count, step))):
            router.recv_multipart()
    else:
        for n in range(1, load.count + 1):
            router.recv_multipart(copy=False)
            if n % step == 0:
                dealer.send(HEAD)
    cost = perf_counter() - wall, thread_time() - cpu
    context.destroy(linger=1000)
    return cost


async def futures(load: Load, is_sender: bool, secrets: list[bytes], ports: list[int]) -> tuple[float, float]:
    context = zmq.asyncio.Context()
    router, dealer = sockets(context, is_sender, secrets, ports)
    body = os.urandom(load.body_bytes)
    step = max(1, load.window // 4)
    await dealer.send(HEAD)
    await router.recv_multipart()
    wall, cpu = perf_counter(), thread_time()
    if is_sender:
        for n in range(load.count):
            if n >= load.window and n % step == 0:
                await router.recv_multipart()
            await dealer.send_multipart((HEAD, body), copy=False)
        for _ in range(load.count // step - len(range(load.window, load.count, step))):
            await router.recv_multipart()
    else:
        for n in range(1, load.count + 1):
            await router.recv_multipart(copy=False)
            if n % step == 0:
                await dealer.send(HEAD)
    cost = perf_counter() - wall, thread_time() - cpu
    context.destroy(linger=1000)
    return cost


# ---- two processes ------------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Load, bool, list[bytes], list[int]], tuple[float, float] | Awaitable[tuple[float, float]]]] = {
    "raw pyzmq": raw,
    "links": ours,
    "zmq.asyncio": futures,
}


def play(way: str, load: Load, is_sender: bool, secrets: list[bytes], ports: list[int]) -> tuple[float, float]:
    result = WAYS[way](load, is_sender, secrets, ports)
    return result if isinstance(result, tuple) else asyncio.run(_run(result))


async def _run(result: Awaitable[tuple[float, float]]) -> tuple[float, float]:
    return await result


def measure(way: str, load: Load) -> Cost:
    """One run, with a fresh process as the receiver."""
    secrets = [SystemEntropy().draw(32) for _ in range(2)]
    ports = free_ports(2)
    part = json.dumps([way, load.body_bytes, load.count, load.window, [s.hex() for s in secrets], ports])
    receiver = subprocess.Popen([sys.executable, __file__, part], stdout=subprocess.PIPE)
    seconds, sender_s = play(way, load, True, secrets, ports)
    output, _ = receiver.communicate()
    return Cost(seconds, 1e6 * sender_s / load.count, 1e6 * json.loads(output)[1] / load.count)


def free_ports(count: int) -> list[int]:
    with zmq.Context() as context:
        held = [context.socket(zmq.ROUTER) for _ in range(count)]
        ports = [socket.bind_to_random_port("tcp://127.0.0.1") for socket in held]
        for socket in held:
            socket.close(linger=0)
    return ports


def compare(load: Load) -> dict[str, Cost]:
    """The best of the runs of each way, since others on the machine can only slow a run; the ways take turns."""
    runs: dict[str, list[Cost]] = {way: [] for way in WAYS}
    for _ in range(RUNS):
        for way, costs in runs.items():
            costs.append(measure(way, load))
    return {
        way: Cost(*(min(values) for values in zip(*((c.seconds, c.sender_us, c.receiver_us) for c in costs), strict=True)))
        for way, costs in runs.items()
    }


def main() -> int:
    chunks, small, trips = compare(CHUNKS), compare(SMALL), compare(ROUND_TRIP)
    print(f"{'':12}  {'1 MiB chunks':>12}  {'python us':>12}  {'200 B messages':>14}  {'python us':>12}  {'round trip':>10}")
    for way in WAYS:
        c, s, t = chunks[way], small[way], trips[way]
        print(
            f"{way:12}  {CHUNKS.count * CHUNK_BYTES / c.seconds / 1e9:7.2f} GB/s  {c.sender_us:5.0f} {c.receiver_us:6.0f}"
            f"  {SMALL.count / s.seconds:12,.0f}/s  {s.sender_us:5.1f} {s.receiver_us:6.1f}"
            f"  {1e6 * t.seconds / ROUND_TRIP.count:7.0f} us"
        )
    share = chunks["raw pyzmq"].seconds / chunks["links"].seconds
    dearest = max(small["links"].sender_us, small["links"].receiver_us)
    print(
        f"chunks at {share:.0%} of raw pyzmq (limit {CHUNK_LIMIT:.0%}); {dearest:.0f} us a message (limit {SMALL_LIMIT_US:.0f})"
    )
    return int(share < CHUNK_LIMIT or dearest > SMALL_LIMIT_US)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        way, body_bytes, count, window, secrets, ports = json.loads(sys.argv[1])
        print(json.dumps(play(way, Load(body_bytes, count, window), False, [bytes.fromhex(s) for s in secrets], ports)))
    else:
        sys.exit(main())
