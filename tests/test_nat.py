"""A member that can only dial takes full part over the links it dialled."""

import asyncio
import os

import pytest
import zmq

from node.transport.links import Links
from node.transport.routes import BULK, CONTROL, Routes, announcement
from node.transport.sockets import FRAME_MAX, OUTBOX_MAX
from p2pfl.protocol.events import Event, FrameReceived, LinkDown, LinkUp, PeerId
from tests.loopback import CALM, LIMIT_S, NETWORK, RESTLESS, End, Network, Wire, on_loop, pair

pytestmark = pytest.mark.net

HIDDEN = ""
"""The address of a member that nobody can dial."""


async def open_and_hidden(network: Network) -> tuple[End, End]:
    """One that can be dialled, and one that can't; each dials the other."""
    a, hidden = await network.start(0), await network.start(1, "127.0.0.1:0")
    network.place(1, HIDDEN)
    a.links.dial(hidden.id)
    assert await a.next() == LinkDown(hidden.id)
    hidden.links.dial(a.id)
    assert [await a.next(), await hidden.next()] == [LinkUp(hidden.id), LinkUp(a.id)]
    return a, hidden


async def exchange(a: End, b: End) -> None:
    for one, other in ((a, b), (b, a)):
        one.links.send(other.id, (b"still here",))
        message = await other.message()
        assert (message.hop, message.frames) == (one.id, (b"still here",))


@on_loop
async def test_of_two_machines_with_one_identity_the_one_that_calls_can_be_answered_though_our_link_is_to_the_other() -> None:
    async with Network(2) as network:
        called: asyncio.Queue[PeerId] = asyncio.Queue()
        heard: asyncio.Queue[Event] = asyncio.Queue()
        elder, twin = await network.start(1), await network.start(1, "127.0.0.1:0")
        own = network.identities[0]
        links = Links(NETWORK, network.members, own, "127.0.0.1:0", heard.put_nowait, CALM, on_called=called.put_nowait)
        network.place(0, str(await links.start()))
        links.dial(elder.id)  # at the twin's address, which is the newest
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(elder.id)
        elder.links.dial(own.peer_id)
        assert await asyncio.wait_for(called.get(), LIMIT_S) == elder.id
        links.send(elder.id, (b"to the newest",))
        links.answer(elder.id, (b"to who called",))
        assert ((await twin.message()).frames, (await elder.message()).frames) == ((b"to the newest",), (b"to who called",))
        await links.close(0)


# ---- full part -----------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_member_that_can_not_be_dialled_is_answered_over_the_link_it_dialled() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        await exchange(a, hidden)
        chunk = os.urandom(1 << 20)
        a.links.send(hidden.id, (b"chunk", chunk), bulk=True)
        head, body = (await hidden.message()).frames
        assert type(head) is bytes and body == chunk
        assert a.links.dialled == {hidden.id: ""}
        assert a.links.bytes_sent[hidden.id] == hidden.links.bytes_received[a.id] == 10 + 5 + (1 << 20)


@on_loop
async def test_whoever_has_closed_sends_nothing_over_a_link_that_was_dialled_to_it() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        await exchange(a, hidden)
        await a.links.close(0)
        a.links.send(hidden.id, (b"too late",))
        assert a.links.dropped[hidden.id] == 1


@on_loop
@pytest.mark.parametrize("bulk", [False, True])
async def test_answers_keep_their_order_whatever_their_size(bulk: bool) -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        sizes = [0, 1, 200, 70_000, 1 << 20] * 12
        for n, size in enumerate(sizes):
            a.links.send(hidden.id, (b"%d" % n, bytes(size)), bulk)
        got = [(await hidden.message()).frames for _ in sizes]
        assert [(int(bytes(f[0])), len(f[1])) for f in got] == list(enumerate(sizes))  # type: ignore[call-overload]


@on_loop
async def test_small_answers_are_not_behind_large_ones() -> None:
    """Control and bulk are two connections in this direction too."""
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        for _ in range(100):
            a.links.send(hidden.id, (b"chunk", bytes(1 << 20)), bulk=True)
        a.links.send(hidden.id, (b"ping",))
        heard = [(await hidden.message()).frames[0] for _ in range(101)]
        assert heard.index(b"ping") < 60


@on_loop
async def test_whoever_calls_is_answered_though_nobody_dialled_it() -> None:
    async with Network(2) as network:
        a, hidden = await network.start(0), await network.start(1)
        hidden.links.dial(a.id)
        assert [await hidden.next(), await a.caller()] == [LinkUp(a.id), hidden.id]
        hidden.links.send(a.id, (b"a question",))
        assert (await a.next()).hop == hidden.id  # type: ignore[union-attr]
        await exchange(a, hidden)
        assert a.heard.empty()  # nobody asked to hear of that link


@on_loop
async def test_where_both_dial_each_uses_the_link_that_it_dialled() -> None:
    async with pair() as (a, b):
        a.links._listener.forget(b.id)
        b.links._listener.forget(a.id)
        await exchange(a, b)


@on_loop
async def test_our_own_link_takes_over_when_it_can_be_made_and_that_is_told() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        network.place(1, hidden.address)
        a.links.members_changed()
        assert [await a.next(), await a.next()] == [LinkDown(hidden.id), LinkUp(hidden.id)]
        await exchange(a, hidden)


@on_loop
async def test_their_link_takes_over_when_ours_has_ended_and_can_not_be_made_again() -> None:
    async with Network(2, RESTLESS) as network:
        a, b = await network.start(0), await network.start(1)
        wire = Wire(b.address)
        network.place(1, await wire.start())
        a.links.dial(b.id)
        b.links.dial(a.id)
        assert [await a.next(), await b.next()] == [LinkUp(b.id), LinkUp(a.id)]
        await wire.stop()
        assert [await a.next(), await a.next()] == [LinkDown(b.id), LinkUp(b.id)]
        await exchange(a, b)


# ---- how it ends ---------------------------------------------------------------------------------------------------------


@on_loop
async def test_that_a_hidden_member_has_gone_is_found_out_and_so_is_its_return() -> None:
    async with Network(2, RESTLESS) as network:
        a, hidden = await open_and_hidden(network)
        await hidden.links.close()
        assert await a.next() == LinkDown(hidden.id)
        a.links.send(hidden.id, (b"to nobody",))
        assert a.links.dropped[hidden.id] == 1
        again = await network.start(1, "127.0.0.1:0")
        again.links.dial(a.id)
        assert [await a.next(), await again.next()] == [LinkUp(hidden.id), LinkUp(a.id)]
        await exchange(a, again)


@on_loop
async def test_a_new_link_of_theirs_is_told_as_another_link() -> None:
    """It may be another life of its process: it wants to be greeted."""
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        hidden.links.hang_up(a.id)
        hidden.links.dial(a.id)
        assert [await hidden.next(), await hidden.next()] == [LinkDown(a.id), LinkUp(a.id)]
        async with asyncio.timeout(LIMIT_S):
            while (event := await a.next()) != LinkUp(hidden.id):
                assert event == LinkDown(hidden.id)
        await exchange(a, hidden)


@on_loop
async def test_cycling_the_listener_ends_their_links_and_they_come_back() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        a.links.cycle_listener()
        assert [await a.next(), await a.next()] == [LinkDown(hidden.id), LinkUp(hidden.id)]
        assert [await hidden.next(), await hidden.next()] == [LinkDown(a.id), LinkUp(a.id)]
        await exchange(a, hidden)


@on_loop
async def test_what_was_answered_before_closing_still_arrives() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        for n in range(20):
            a.links.send(hidden.id, (b"%d" % n, bytes(1 << 16)), bulk=True)
        a.links.send(hidden.id, (b"bye",), bulk=True)
        await a.links.close(LIMIT_S)
        assert [(await hidden.message()).frames[0] for _ in range(21)] == [*(b"%d" % n for n in range(20)), b"bye"]


# ---- hostile members -----------------------------------------------------------------------------------------------------


def dealer_of(context: "zmq.Context[zmq.Socket[bytes]]", whose: End, at: End, routing_id: bytes = b"") -> "zmq.Socket[bytes]":
    """A DEALER with a member's own keys, that may do as it likes."""
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if routing_id:
        dealer.identity = routing_id
    dealer.curve_serverkey = at.identity.transport_key
    dealer.curve_publickey, dealer.curve_secretkey = whose.identity.transport_key, whose.identity.transport_secret
    dealer.connect(f"tcp://{at.address}")
    return dealer


@on_loop
async def test_a_member_can_announce_links_of_its_own_only() -> None:
    """Whose link it is, is what its key proved. One who calls itself by another's id gets nothing that was meant for it."""
    async with Network(3) as network:
        a, hidden = await open_and_hidden(network)
        thief = await network.start(2)
        with zmq.Context() as context:
            dealers = [dealer_of(context, thief, a, routing_id) for routing_id in (hidden.id, b"\0other", b"")]
            for k, dealer in enumerate(dealers):
                dealer.send(announcement(CONTROL, b"%08d" % k))
                dealer.send(announcement(BULK, b"%08d" % k))
                dealer.send(b"heard")
                assert (await a.message()).hop == thief.id
            await exchange(a, hidden)
            assert not any(dealer.poll(50) for dealer in dealers)
            a.links.send(thief.id, (b"for the thief itself",))
            assert dealers[2].poll(1000 * int(LIMIT_S)) and dealers[2].recv() == b"for the thief itself"
            for dealer in dealers:
                dealer.close()


@pytest.mark.fault("flood")
@on_loop
async def test_a_member_that_announces_links_without_end_is_greeted_seldom_and_then_not_understood() -> None:
    """Beyond its share an announcement is a message like any other, which whoever hears it refuses and charges for."""
    async with Network(3) as network:
        a, hidden = await open_and_hidden(network)
        flooder = await network.start(2)
        a.links.dial(flooder.id)
        assert await a.next() == LinkUp(flooder.id)
        with zmq.Context() as context, dealer_of(context, flooder, a) as dealer:
            for k in range(200):
                for channel in (CONTROL, BULK):
                    dealer.send(announcement(channel, b"%08d" % k))
            dealer.send(b"the end")
            misunderstood = 0
            async with asyncio.timeout(LIMIT_S):
                while (message := await a.message()).frames != (b"the end",):
                    assert message.hop == flooder.id and message.frames[0].startswith(b"p2pfl/link/v1")
                    misunderstood += 1
            assert 400 - 100 <= misunderstood <= 400 - 64
        await exchange(a, hidden)


@pytest.mark.fault("slow reader")
@on_loop
async def test_a_member_that_reads_none_of_its_answers_costs_a_bounded_outbox() -> None:
    async with Network(3) as network:
        a, hidden = await open_and_hidden(network)
        deaf = await network.start(2)
        with zmq.Context() as context, dealer_of(context, deaf, a) as dealer:
            dealer.rcvhwm = 1
            for channel in (CONTROL, BULK):
                dealer.send(announcement(channel, b"12345678"))
            dealer.send(b"heard")
            assert (await a.message()).hop == deaf.id
            body = bytes(FRAME_MAX - 100)
            for _ in range(3 * OUTBOX_MAX):
                a.links.send(deaf.id, (b"", body), bulk=True)
            assert a.links.dropped[deaf.id] > 0
            await exchange(a, hidden)


@pytest.mark.fault("oversize frame")
@on_loop
async def test_what_a_neighbor_answers_is_limited_in_size_as_what_it_says() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        a.links.send(hidden.id, (b"", bytes(FRAME_MAX)), bulk=True)
        assert [await hidden.next(), await hidden.next()] == [LinkDown(a.id), LinkUp(a.id)]
        async with asyncio.timeout(LIMIT_S):
            while await a.next() != LinkUp(hidden.id):
                pass
        await exchange(a, hidden)


@on_loop
async def test_a_muted_member_is_not_read_over_the_link_that_we_dialled_either() -> None:
    async with Network(2) as network:
        a, hidden = await open_and_hidden(network)
        hidden.links.mute(a.id, asyncio.get_running_loop().time() + LIMIT_S)
        a.links.send(hidden.id, (b"unread",))
        async with asyncio.timeout(LIMIT_S):
            while hidden.links.muted == 0:
                await asyncio.sleep(0.01)
        assert hidden.heard.empty()


@on_loop
async def test_an_exception_in_whoever_hears_an_answer_is_reported_and_the_next_is_heard() -> None:
    reported: list[object] = []
    heard: asyncio.Queue[Event] = asyncio.Queue()

    def stumble(event: Event) -> None:
        heard.put_nowait(event)
        if isinstance(event, FrameReceived):
            raise ZeroDivisionError

    async with Network(2) as network:
        a = await network.start(0)
        hidden = await network.start(1, "127.0.0.1:0", on_event=stumble)
        hidden.links.dial(a.id)
        assert [await asyncio.wait_for(heard.get(), LIMIT_S), await a.caller()] == [LinkUp(a.id), hidden.id]
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
        for n in range(100):
            a.links.send(hidden.id, (b"%d" % n,))
        for _ in range(100):
            await asyncio.wait_for(heard.get(), LIMIT_S)
    assert [type(error) for error in reported] == [ZeroDivisionError] * 100


# ---- the bookkeeping -----------------------------------------------------------------------------------------------------


def given(number: int) -> bytes:
    """A routing id as libzmq makes them."""
    return b"\0" + number.to_bytes(4, "big")


def test_two_connections_with_one_token_are_a_link_in_either_order_and_others_are_none() -> None:
    routes, peer = Routes(), PeerId(b"p" * 32)
    assert not routes.announced(peer, given(1), announcement(CONTROL, b"first---"))
    assert not routes.announced(peer, given(2), announcement(BULK, b"second--"))
    assert routes.of(peer) is None
    assert routes.announced(peer, given(3), announcement(CONTROL, b"second--"))
    route = routes.of(peer)
    assert route is not None and (route.control, route.bulk) == (given(3), given(2))
    assert not routes.announced(peer, given(4), announcement(BULK, b"third---"))
    assert routes.of(peer) == route  # half a link replaces nothing


def test_a_member_that_redials_as_fast_as_links_do_may_announce_all_of_them_and_no_other_pays_for_a_flood() -> None:
    routes, honest, flooder = Routes(), PeerId(b"p" * 32), PeerId(b"f" * 32)
    moment, backoff = 0.0, 0.1  # seconds; a redial waits up to its backoff, which doubles
    for _ in range(200):
        assert routes.may_announce(honest, moment) and routes.may_announce(honest, moment)
        assert sum(routes.may_announce(flooder, moment) for _ in range(1000)) <= 64
        moment, backoff = moment + backoff / 2, min(5.0, 2 * backoff)


@pytest.mark.fault("stalling")
def test_announcing_over_and_over_takes_no_more_memory() -> None:
    routes, peer = Routes(), PeerId(b"p" * 32)
    for n in range(10_000):
        routes.announced(peer, given(n), announcement(CONTROL, n.to_bytes(8, "big")))
    assert len(routes._halves) == 1 and len(routes._halves[peer][1]) == 1
