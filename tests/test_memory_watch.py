"""A member that fills our memory through libzmq is hung up on, together with everybody; the honest come back by themselves."""

import asyncio
import os
import subprocess
import sys
from itertools import pairwise

import pytest

from node.upkeep.memory import give_back_freed, resident_bytes
from node.upkeep.memory_watch import MARGIN, PER_NEIGHBOR, SETTLE_S, MemoryWatch, bound
from p2pfl.protocol.events import LinkDown, LinkUp
from tests.loopback import Network, on_loop

MIB = 1 << 20


def cycles_of(readings: list[tuple[float, int]]) -> list[float]:
    """When a watch with a bound of 100 asks for a cycle, of (moment, held)."""
    asked: list[float] = []
    watch = MemoryWatch(100, lambda _held: asked.append(now))
    for now, held in readings:
        watch.saw(held, now)
    return asked


def test_nothing_is_done_below_the_bound() -> None:
    assert cycles_of([(float(k), k) for k in range(101)]) == []


def test_memory_that_grows_again_is_let_go_of_again_soon() -> None:
    readings = [(10.0 * k + t, held) for k in range(5) for t, held in ((0.0, 101), (0.5, 90))]
    assert cycles_of(readings) == [0.0, 10.0, 20.0, 30.0, 40.0]


def test_where_it_does_not_help_it_is_done_less_and_less_often() -> None:
    asked = cycles_of([(k / 4, 101) for k in range(4 * 600)])
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert gaps == [SETTLE_S * 2**k for k in range(len(gaps))] and len(gaps) == 8


def test_the_bound_leaves_room_for_what_honest_neighbors_send() -> None:
    assert bound(20 * MIB, 1000 * MIB, 8) == 20 * MIB + 1000 * MIB + MARGIN + 8 * PER_NEIGHBOR


FLOOD = """
import sys, zmq
server, public, secret, address, frames = sys.argv[1:]
socket = zmq.Context().socket(zmq.DEALER)
socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = map(bytes.fromhex, (server, public, secret))
socket.connect("tcp://" + address)
socket.send_multipart([bytes(1 << 20)] * int(frames), copy=False)
sys.stdin.read()
"""


@pytest.mark.fault("endless message")
@pytest.mark.net
@on_loop
async def test_a_message_without_an_end_costs_its_sender_the_connection_and_honest_members_a_moment() -> None:
    async with Network(3) as network:
        a, b = await network.start(0), await network.start(1)
        b.links.dial(a.id)
        assert await b.next() == LinkUp(a.id)
        a_server, liar = a.identity.transport_key, network.identities[2]
        keys = (key.hex() for key in (a_server, liar.transport_key, liar.transport_secret))
        give_back_freed()
        before = resident_bytes(os.getpid())
        watch = MemoryWatch(before + 64 * MIB, lambda _held: a.links.cycle_listener())
        flooder = subprocess.Popen([sys.executable, "-c", FLOOD, *keys, a.address, "600"], stdin=subprocess.PIPE)
        try:
            highest = 0
            while a.links.cycles == 0:
                await asyncio.sleep(0.02)
                held = resident_bytes(os.getpid())
                highest = max(highest, held)
                watch.saw(held, asyncio.get_running_loop().time())
        finally:
            flooder.kill()
            flooder.communicate()
        assert before + 64 * MIB < highest < before + 400 * MIB
        assert await b.next() == LinkDown(a.id)
        assert await b.next() == LinkUp(a.id)
        b.links.send(a.id, (b"I am back",))
        assert bytes((await a.message()).frames[0]) == b"I am back"
        give_back_freed()
        assert resident_bytes(os.getpid()) < before + 64 * MIB
