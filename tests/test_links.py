"""Links between real peers on loopback, and everybody who comes or answers that should not."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections import deque

import psutil
import pytest
import zmq

from node.transport.address import Address
from node.transport.hearing import Hearing
from node.transport.links import Links
from node.transport.listener import Listener
from node.transport.sockets import FRAME_MAX, OUTBOX_MAX, Context, TransportKeys
from node.transport.zap import Gate
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import Event, FrameReceived, LinkDown, LinkUp, PeerId
from tests.loopback import (
    BRISK,
    CALM,
    COMMAND_OF_2_GIB,
    LIMIT_S,
    NETWORK,
    RESTLESS,
    Answer,
    End,
    Imposter,
    Network,
    Wire,
    end_of_connection,
    greeting,
    on_loop,
    pair,
    resets,
    says,
    swallows,
    verdict_on,
)

pytestmark = pytest.mark.net


async def is_unharmed(a: End, b: End) -> None:
    """An honest message still goes from a to b."""
    a.links.send(b.id, (b"still here",))
    message = await b.message()
    assert (message.hop, message.frames) == (a.id, (b"still here",))


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# ---- what goes through ---------------------------------------------------------------------------------------------------


@on_loop
async def test_two_peers_exchange_messages_and_know_whom_from() -> None:
    async with Network(2) as network:
        a, b = await network.start(0), await network.start(1)
        a.links.dial(b.id)
        b.links.dial(a.id)
        assert [await a.next(), await b.next()] == [LinkUp(b.id), LinkUp(a.id)]
        a.links.send(b.id, (b"offer", b"inline"))
        b.links.send(a.id, (b"credit",))
        at_b, at_a = await b.message(), await a.message()
        assert (at_b.hop, at_a.hop) == (a.id, b.id)
        assert at_b.frames == (b"offer", b"inline")
        assert at_a.frames == (b"credit",)
        assert a.links.bytes_sent[b.id] == b.links.bytes_received[a.id] == 11
        assert b.links.bytes_sent[a.id] == a.links.bytes_received[b.id] == 6


@on_loop
async def test_the_first_frame_is_bytes_and_the_second_a_buffer_of_its_own_memory() -> None:
    async with pair() as (a, b):
        chunk = os.urandom(1 << 20)
        a.links.send(b.id, (b"chunk", chunk), bulk=True)
        head, body = (await b.message()).frames
        assert type(head) is bytes
        assert type(body) is memoryview and body.contiguous and body.format == "B"
        assert body == chunk


@on_loop
@pytest.mark.parametrize("bulk", [False, True])
async def test_messages_of_one_socket_keep_their_order_whatever_their_size(bulk: bool) -> None:
    async with pair() as (a, b):
        sizes = [0, 1, 200, 70_000, 1 << 20] * 12
        for n, size in enumerate(sizes):
            a.links.send(b.id, (b"%d" % n, bytes(size)), bulk)
        got = [(await b.message()).frames for _ in sizes]
        assert [(int(bytes(f[0])), len(f[1])) for f in got] == list(enumerate(sizes))  # type: ignore[call-overload]
        assert b.links.bytes_received[a.id] == a.links.bytes_sent[b.id] == sum(len(f[0]) + len(f[1]) for f in got)


@pytest.mark.fault("endless message")
@on_loop
@pytest.mark.parametrize(("count", "told"), [(1, 1), (2, 2), (3, 3), (50, 3)])
async def test_a_message_of_too_many_frames_reaches_the_peer_as_three(count: int, told: int) -> None:
    async with pair() as (a, b):
        a.links.send(b.id, (b"x",) * count)
        assert len((await b.message()).frames) == told
        assert b.links.bytes_received[a.id] == count
        await is_unharmed(a, b)


@on_loop
async def test_a_buffer_that_may_change_can_be_used_again_when_send_returns() -> None:
    async with pair() as (a, b):
        buffer = bytearray(b"1" * (1 << 20))
        a.links.send(b.id, (b"", buffer), bulk=True)
        buffer[:] = b"2" * (1 << 20)
        assert (await b.message()).frames[1] == b"1" * (1 << 20)


@on_loop
async def test_what_was_handed_over_before_closing_still_arrives() -> None:
    async with pair() as (a, b):
        for n in range(20):
            a.links.send(b.id, (b"%d" % n, bytes(1 << 20)), bulk=True)
        a.links.send(b.id, (b"bye",), bulk=True)
        await a.links.close(LIMIT_S)
        heard = [(await b.message()).frames[0] for _ in range(21)]
        assert heard == [*(b"%d" % n for n in range(20)), b"bye"]


@on_loop
async def test_a_neighbor_may_be_given_by_name() -> None:
    async with Network(2) as network:
        a, b = await network.start(0), await network.start(1, "localhost:0")
        network.place(1, f"localhost:{Address.parse(b.address).port}")
        a.links.dial(b.id)
        while await a.next() != LinkUp(b.id):  # the name may mean two addresses
            pass
        await is_unharmed(a, b)


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@on_loop
async def test_ipv6_will_do() -> None:
    async with Network(2) as network:
        a, b = await network.start(0), await network.start(1, "[::1]:0")
        a.links.dial(b.id)
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, b)


@on_loop
async def test_two_networks_in_one_process_do_not_disturb_each_other() -> None:
    async with pair() as (a, b), pair() as (c, d):
        await is_unharmed(a, b)
        await is_unharmed(c, d)


@on_loop
async def test_an_exception_in_whoever_listens_is_reported_and_the_next_message_is_heard() -> None:
    heard: asyncio.Queue[Event] = asyncio.Queue()
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def stumble(event: Event) -> None:
        heard.put_nowait(event)
        raise ZeroDivisionError

    async with Network(2) as network:
        a, b = await network.start(0), await network.start(1, on_event=stumble)
        a.links.dial(b.id)
        assert await a.next() == LinkUp(b.id)
        for n in range(100):  # more than one turn of the loop
            a.links.send(b.id, (b"%d" % n,))
        got = [await asyncio.wait_for(heard.get(), LIMIT_S) for _ in range(100)]
        assert got == [FrameReceived(a.id, (b"%d" % n,)) for n in range(100)]
    assert [type(e) for e in reported] == [ZeroDivisionError] * 100


# ---- what does not -------------------------------------------------------------------------------------------------------


@on_loop
async def test_without_a_link_a_message_is_dropped_and_counted() -> None:
    async with Network(2) as network:
        a = await network.start(0)
        other = network.identities[1].peer_id
        a.links.send(other, (b"nobody was dialled",))
        network.place(1, await closed_port())
        a.links.dial(other)
        assert await a.next() == LinkDown(other)
        a.links.send(other, (b"nobody is there",))
        assert (a.links.dropped[other], a.links.bytes_sent.total()) == (2, 0)


@pytest.mark.fault("slow reader")
@on_loop
async def test_a_neighbor_that_never_reads_costs_a_bounded_outbox() -> None:
    async with Network(2) as network:
        a = await network.start(0)
        b = network.identities[1]
        with zmq.Context() as context, context.socket(zmq.ROUTER) as deaf:
            deaf.linger = 0
            deaf.rcvhwm = 1
            deaf.curve_server = True
            deaf.curve_publickey, deaf.curve_secretkey = b.transport_key, b.transport_secret
            network.place(1, f"127.0.0.1:{deaf.bind_to_random_port('tcp://127.0.0.1')}")
            a.links.dial(b.peer_id)
            assert await a.next() == LinkUp(b.peer_id)
            body = bytes(FRAME_MAX - 100)
            for _ in range(2 * OUTBOX_MAX):
                a.links.send(b.peer_id, (b"", body), bulk=True)
            assert a.links.dropped[b.peer_id] > 0
            assert OUTBOX_MAX - 1 <= a.links.messages_sent[b.peer_id] < 2 * OUTBOX_MAX  # the first place has the announcement
            a.links.send(b.peer_id, (b"the control socket has an outbox of its own",))
            assert a.links.dropped[b.peer_id] + a.links.messages_sent[b.peer_id] == 2 * OUTBOX_MAX + 1


@pytest.mark.fault("oversize frame")
@on_loop
async def test_a_frame_over_the_limit_breaks_the_link_which_comes_back() -> None:
    async with pair() as (a, b):
        a.links.send(b.id, (b"", bytes(FRAME_MAX - 33)), bulk=True)  # CURVE adds 33 bytes
        assert len((await b.message()).frames[1]) == FRAME_MAX - 33
        a.links.send(b.id, (b"", bytes(FRAME_MAX)), bulk=True)
        assert [await a.next(), await a.next()] == [LinkDown(b.id), LinkUp(b.id)]
        await is_unharmed(a, b)
        assert b.links.bytes_received[a.id] == FRAME_MAX - 33 + len(b"still here")


@on_loop
async def test_a_member_is_known_by_its_key_and_not_by_the_identity_it_claims() -> None:
    async with pair() as (a, b):
        with zmq.Context() as context, context.socket(zmq.DEALER) as liar:
            liar.identity = b.id  # a member that calls itself by another's name
            liar.curve_serverkey = b.identity.transport_key
            liar.curve_publickey, liar.curve_secretkey = a.identity.transport_key, a.identity.transport_secret
            liar.connect(f"tcp://{b.address}")
            liar.send_multipart([b.id, b"I am the other one"])
            assert (await b.message()).hop == a.id


@pytest.mark.fault("stranger", "revoked")
@on_loop
async def test_a_frame_from_a_key_that_is_no_member_any_more_is_dropped_and_counted() -> None:
    """The gate is asked once per connection; the listener looks at every frame."""
    loop = asyncio.get_running_loop()
    network = Network(2)
    server, client = network.identities
    heard: list[PeerId] = []
    looked_up = asyncio.Event()

    class Nobody(dict[str, PeerId]):
        def get(self, *_: object) -> None:  # type: ignore[override]
            looked_up.set()

    with Context() as context:
        gate = Gate(context, loop, b"d", lambda _: True, lambda _: None)
        keys = TransportKeys(server.transport_key, server.transport_secret)
        hearing = Hearing(loop, lambda hop, _frames, _size: heard.append(hop))
        listener = Listener(context, loop, keys, b"d", CALM, Nobody(), hearing, heard.append)
        try:
            address = await listener.bind(Address.parse("127.0.0.1:0"))
            with context.socket(zmq.DEALER) as dealer:
                dealer.curve_serverkey = server.transport_key
                dealer.curve_publickey, dealer.curve_secretkey = client.transport_key, client.transport_secret
                dealer.connect(f"tcp://{address}")
                dealer.send_multipart([b"", b"", b""])
                await asyncio.wait_for(looked_up.wait(), LIMIT_S)
        finally:
            listener.close()
            gate.close()
    assert (listener.dropped, heard) == (1, [])


@pytest.mark.fault("flood")
@on_loop
async def test_a_muted_member_is_not_read_until_its_time_is_over_and_nobody_else_is_concerned() -> None:
    async with Network(3) as network:
        a, b, c = [await network.start(n) for n in range(3)]
        for end in (a, c):
            end.links.dial(b.id)
            assert await end.next() == LinkUp(b.id)
        now = asyncio.get_running_loop().time
        b.links.mute(a.id, now() + 3600.0)
        for n in range(5):
            a.links.send(b.id, (b"%d" % n, bytes(1 << 20)))
        await is_unharmed(c, b)
        async with asyncio.timeout(LIMIT_S):
            while b.links.muted < 5:
                await is_unharmed(c, b)
        assert a.id not in b.links.bytes_received
        b.links.mute(a.id, now() + 0.1)
        await asyncio.sleep(0.1)
        await is_unharmed(a, b)
        assert b.links.muted == 5


# ---- who comes to our port -----------------------------------------------------------------------------------------------

COMMAND_OF_2_62 = b"\x06" + (1 << 62).to_bytes(8, "big")
STRANGERS = {
    "a silent connection": (),
    "one byte and no more": (b"\xff",),
    "HTTP": (b"GET / HTTP/1.1\r\nHost: peer\r\n\r\n",),
    "TLS": (bytes.fromhex("16030100c8010000c40303") + bytes(193),),
    "SSH": (b"SSH-2.0-OpenSSH_9.6\r\n",),
    "garbage": (bytes(range(256)) * 64,),
    "ZMTP 1.0": (b"\x01\x00\x06\x00hello",),
    "NULL": (greeting(b"NULL") + b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER",),
    "PLAIN": (greeting(b"PLAIN") + b"\x04\x11\x05HELLO\x04user\x05secret",),
    "CURVE and then nothing": (greeting(b"CURVE"),),
    "CURVE and garbage": (greeting(b"CURVE"), b"\x04\xc8\x05HELLO" + b"g" * 194),
    "a claim of 2 GiB": (greeting(b"CURVE"), COMMAND_OF_2_GIB),
    "a claim of 2**62": (greeting(b"CURVE"), COMMAND_OF_2_62),
}


@pytest.mark.fault("silent strangers", "other protocols")
@on_loop
async def test_strangers_at_the_port_are_hung_up_on_and_honest_messages_go_on() -> None:
    async with pair(BRISK) as (a, b):
        address = b.address
        memory = psutil.Process().memory_info().rss
        await asyncio.gather(*(end_of_connection(address, *words) for words in STRANGERS.values()), is_unharmed(a, b))
        await is_unharmed(a, b)
        assert psutil.Process().memory_info().rss - memory < 64 << 20
        assert a.heard.empty() and b.heard.empty()
        assert b.links.unknown == 0


@pytest.mark.fault("stranger")
@on_loop
async def test_nobody_gets_in_without_a_members_key_and_ours() -> None:
    async with pair(BRISK) as (a, b):
        with zmq.Context() as context:
            null, plain, unknown, mistaken = (context.socket(zmq.DEALER) for _ in range(4))
            plain.plain_username, plain.plain_password = b"user", b"password"
            unknown.curve_publickey, unknown.curve_secretkey = zmq.curve_keypair()
            unknown.curve_serverkey = b.identity.transport_key
            mistaken.curve_publickey, mistaken.curve_secretkey = a.identity.transport_key, a.identity.transport_secret
            mistaken.curve_serverkey = a.identity.transport_key
            for stranger in (null, plain, unknown, mistaken):
                assert await verdict_on(stranger, b.address) == zmq.EVENT_DISCONNECTED
        assert b.links.refused >= 1  # the one who knew our key; the others did not get as far as the gate
        assert b.links.unknown == 0
        await is_unharmed(a, b)


@pytest.mark.fault("other protocols")
@on_loop
async def test_a_door_that_is_open_to_strangers_is_not_opened_at_all() -> None:
    class Everyone(dict[str, PeerId]):
        def __contains__(self, _: object) -> bool:
            return True

    network = Network(1)
    identity = network.identities[0]
    links = Links(NETWORK, network.members, identity, "127.0.0.1:0", lambda _event: None, BRISK)
    links._peers = Everyone()
    with pytest.raises(Failure, match="was not refused") as refused:
        await links.start()
    assert (refused.value.code, refused.value.exit_code) == ("door_untested", ExitCode.NETWORK)


@pytest.mark.fault("silent strangers")
@on_loop
async def test_many_strangers_harm_no_member_and_are_counted() -> None:
    async with pair() as (a, b):
        with zmq.Context() as context:
            strangers = [context.socket(zmq.DEALER) for _ in range(20)]
            for stranger in strangers:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = b.identity.transport_key
                stranger.connect(f"tcp://{b.address}")
            async with asyncio.timeout(LIMIT_S):
                while b.links.refused < len(strangers):
                    await is_unharmed(a, b)
            for stranger in strangers:
                stranger.close(linger=0)


# ---- who answers where a neighbor should ---------------------------------------------------------------------------------

IMPOSTERS: dict[str, Answer] = {
    "hangs up at once": says(),
    "resets": resets,
    "black hole": swallows,
    "HTTP": says(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100),
    "NULL": says(greeting(b"NULL"), b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER"),
    "garbage command": says(greeting(b"CURVE"), b"\x04\x08\x07WELCOM_"),
    "ERROR": says(greeting(b"CURVE"), b"\x04\x0a\x05ERROR\x03400"),
    "huge frame": says(greeting(b"CURVE"), COMMAND_OF_2_GIB),
    "forged WELCOME": says(greeting(b"CURVE"), b"\x04\xa8\x07WELCOME" + b"r" * 160),
}


@pytest.mark.fault("imposters")
@on_loop
@pytest.mark.parametrize("name", IMPOSTERS)
async def test_the_link_comes_up_once_an_imposter_has_given_way_to_the_real_peer(name: str) -> None:
    async with Network(2, BRISK) as network:
        imposter = Imposter(IMPOSTERS[name])
        network.place(1, await imposter.start())
        a = await network.start(0)
        a.links.dial(network.identities[1].peer_id)
        assert await a.next() == LinkDown(network.identities[1].peer_id)
        await imposter.called(times=5)  # two sockets an attempt: libzmq alone would have given up by now
        assert a.heard.empty()  # down is told once
        await imposter.stop()
        b = await network.start(1)
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, b)


@pytest.mark.fault("imposters")
@on_loop
@pytest.mark.parametrize("address", ["127.0.0.1%nowhere:9", "[::zz]:9"])
async def test_an_address_that_nothing_can_be_done_with_is_a_link_that_is_down(address: str) -> None:
    async with Network(2) as network:
        a, b = await network.start(0), network.identities[1].peer_id
        network.place(1, address)
        a.links.dial(b)
        assert await a.next() == LinkDown(b)


@pytest.mark.fault("imposters")
@on_loop
async def test_the_link_comes_up_once_somebody_listens_at_a_closed_port() -> None:
    async with Network(2) as network:
        network.place(1, await closed_port())
        a = await network.start(0)
        a.links.dial(network.identities[1].peer_id)
        assert await a.next() == LinkDown(network.identities[1].peer_id)
        b = await network.start(1)
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, b)


@pytest.mark.fault("imposters")
@on_loop
async def test_the_link_comes_up_once_the_peer_there_is_the_right_one() -> None:
    async with Network(3) as network:
        a, wrong = await network.start(0), await network.start(2)
        b = network.identities[1].peer_id
        network.place(1, network.members[wrong.id].address)
        a.links.dial(b)
        assert await a.next() == LinkDown(b)
        await wrong.links.close()
        right = await network.start(1)
        assert await a.next() == LinkUp(b)
        await is_unharmed(a, right)


@on_loop
async def test_a_neighbor_that_does_not_admit_us_yet_gets_our_link_when_it_does() -> None:
    async with Network(2, BRISK) as network:
        a, b = network.identities
        before = dict(network.members)
        del network.members[a.peer_id]
        strict = await network.start(1)
        network.members |= {a.peer_id: before[a.peer_id]}
        end = await network.start(0)
        end.links.dial(b.peer_id)
        assert await end.next() == LinkDown(b.peer_id)
        async with asyncio.timeout(LIMIT_S):
            while not strict.links.refused:  # where the machine is slow, the dial was given up before it was refused
                await asyncio.sleep(0.01)
        await strict.links.close()
        await network.start(1)
        assert await end.next() == LinkUp(b.peer_id)


# ---- how links end -------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_link_is_down_when_the_other_closes_and_up_when_it_is_back() -> None:
    async with pair() as (a, b), Network(2) as network:
        await b.links.close()
        assert await a.next() == LinkDown(b.id)
        network.place(1, a.links._members[b.id].address)
        network.place(0, a.address)
        again = await network.start(1)
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, again)


@pytest.mark.fault("silent strangers")
@on_loop
async def test_a_link_that_falls_silent_is_down_and_comes_back() -> None:
    async with Network(2, RESTLESS) as network:
        a, b = await network.start(0), await network.start(1)
        wire = Wire(network.members[b.id].address)
        network.place(1, await wire.start())
        a.links.dial(b.id)
        assert await a.next() == LinkUp(b.id)
        wire.cut()
        assert await a.next() == LinkDown(b.id)
        wire.mend()
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, b)
        await a.links.close()
        await wire.stop()


@on_loop
async def test_closing_leaves_no_descriptor_thread_or_task_behind() -> None:
    async def life() -> tuple[int, int, int]:
        async with pair() as (a, b):
            a.links.send(b.id, (b"", bytes(1 << 20)), bulk=True)
            await b.message()
        return psutil.Process().num_fds(), threading.active_count(), len(asyncio.all_tasks())

    first = await life()  # pyzmq's thread for lent buffers and the loop's for names and closing stay, once per process
    lives = deque([await life() for _ in range(3)])
    assert lives[-1][0] == lives[0][0]
    assert lives[-1][1] <= first[1] + 1
    assert lives[-1][2] == first[2] == len(asyncio.all_tasks())


@on_loop
async def test_closing_while_dialling_leaves_nothing_behind() -> None:
    async with Network(2) as network:
        imposter = Imposter(swallows)
        network.place(1, await imposter.start())
        a = await network.start(0)
        a.links.dial(network.identities[1].peer_id)
        await imposter.called(times=2)
        await a.links.close()
        await a.links.close()
        await imposter.stop()
        assert a.heard.empty()
        assert len(asyncio.all_tasks()) == 1


# ---- where to listen -----------------------------------------------------------------------------------------------------


@pytest.mark.fault("settings")
@on_loop
async def test_a_busy_port_is_one_line_that_says_which() -> None:
    async with Network(2) as network:
        a = await network.start(0)
        address = network.members[a.id].address
        with pytest.raises(Failure) as raised:
            await network.start(1, address)
        port = Address.parse(address).port
        assert (raised.value.code, raised.value.exit_code) == ("port_busy", ExitCode.NETWORK)
        assert str(port) in str(raised.value) and "\n" not in str(raised.value)


@on_loop
@pytest.mark.parametrize("listen", ["203.0.113.7:0", "[::zz]:0"])
async def test_an_address_that_is_not_ours_is_one_line(listen: str) -> None:
    async with Network(1) as network:
        with pytest.raises(Failure) as raised:
            await network.start(0, listen)
        assert (raised.value.code, raised.value.exit_code) == ("cannot_listen", ExitCode.NETWORK)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text",
    ["", "9000", ":9000", "host", "host:", "host:x", "host:65536", "host:-1", "::1:9000", "[::1]", "a b:1", "tcp://h:1", "h:٣"],
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(Failure) as raised:
        Address.parse(text)
    assert raised.value.code == "bad_address"


@pytest.mark.parametrize("text", ["127.0.0.1:0", "peer.example:65535", "[::1]:9000", "[fe80::1%eth0]:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(Address.parse(text)) == text


def test_links_need_no_heavy_library() -> None:
    heavy = "{'numpy', 'torch', 'pydantic', 'rich', 'networkx', 'zmq.asyncio'}"
    script = f"import sys, node.transport.links; print(*{heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split() == []


async def closed_port() -> str:
    """A port at which nobody listens."""
    server = Imposter(says())
    address = await server.start()
    await server.stop()
    return address
