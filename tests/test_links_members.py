"""Links while members come, go, move and change their keys: `members_changed` and `hang_up`."""

import asyncio
from dataclasses import replace

import pytest
import zmq
from zmq.utils import z85

from node.transport import links as links_module
from node.transport.address import Address
from node.transport.dialling import Dialling
from node.transport.links import Links
from node.transport.sockets import Patience
from p2pfl.protocol.events import LinkDown, LinkUp, PeerId
from tests.loopback import BRISK, CALM, LIMIT_S, NETWORK, End, Imposter, Network, on_loop, pair, swallows, verdict_on

pytestmark = pytest.mark.net


async def is_unharmed(a: End, b: End) -> None:
    """An honest message still goes from a to b."""
    a.links.send(b.id, (b"still here",))
    message = await b.message()
    assert (message.hop, message.frames) == (a.id, (b"still here",))


async def until_refused(end: End, times: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while end.links.refused < times:
            await asyncio.sleep(0.01)


def caller(context: "zmq.Context[zmq.Socket[bytes]]", whose: End, at: End) -> "zmq.Socket[bytes]":
    """A DEALER with a member's transport key, not connected yet."""
    dealer = context.socket(zmq.DEALER)
    dealer.curve_serverkey = at.identity.transport_key
    dealer.curve_publickey, dealer.curve_secretkey = whose.identity.transport_key, whose.identity.transport_secret
    return dealer


# ---- revocation ----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("revoked")
@on_loop
async def test_a_revoked_member_is_not_heard_on_its_open_link_nor_let_in_again_and_the_honest_come_back() -> None:
    async with Network(3, BRISK) as network:
        server, revoked, honest = [await network.start(n) for n in range(3)]
        for end in (revoked, honest):
            end.links.dial(server.id)
            assert await end.next() == LinkUp(server.id)
            await is_unharmed(end, server)
        for n in range(50):  # under way when it happens: none of it is heard afterwards
            revoked.links.send(server.id, (b"%d" % n,))
        members = network.members
        network.members = {peer: member for peer, member in members.items() if peer != revoked.id}
        server.links._members = network.members
        server.links.members_changed()
        heard = server.links.bytes_received[revoked.id]
        assert server.links.cycles == 0  # from the loop, as everything
        assert [await honest.next(), await honest.next()] == [LinkDown(server.id), LinkUp(server.id)]
        await is_unharmed(honest, server)
        assert await revoked.next() == LinkDown(server.id)
        await until_refused(server, 1)
        assert server.links.cycles == 1
        assert server.links.bytes_received[revoked.id] == heard
        assert revoked.heard.empty()


@pytest.mark.fault("revoked")
@on_loop
async def test_what_a_revoked_member_says_before_its_connection_has_ended_is_dropped_and_counted() -> None:
    """The cycle may have to wait for its minute; being heard does not."""
    async with Network(2) as network:
        server, revoked = [await network.start(n) for n in range(2)]
        revoked.links.dial(server.id)
        assert await revoked.next() == LinkUp(server.id)
        server.links.cycle_listener()
        assert [await revoked.next(), await revoked.next()] == [LinkDown(server.id), LinkUp(server.id)]
        await is_unharmed(revoked, server)
        del network.members[revoked.id]
        server.links.members_changed()
        revoked.links.send(server.id, (b"one last word",))
        async with asyncio.timeout(LIMIT_S):
            while server.links.unknown == 0:
                await asyncio.sleep(0.01)
        assert server.heard.empty() and server.links.cycles == 1


@on_loop
async def test_the_listener_is_cycled_at_once_and_then_once_for_all_who_are_revoked_in_the_meantime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(links_module, "CYCLE_EVERY_S", 3.0)  # the first three are back within that, on a slow machine too
    async with Network(5) as network:
        server, *others = [await network.start(n) for n in range(5)]
        for end in others:
            end.links.dial(server.id)
            assert await end.next() == LinkUp(server.id)
            await is_unharmed(end, server)

        def revoke(end: End) -> None:
            del network.members[end.id]
            server.links.members_changed()

        first, second, third, honest = others
        revoke(first)
        for end in (second, third, honest):
            assert [await end.next(), await end.next()] == [LinkDown(server.id), LinkUp(server.id)]
        assert server.links.cycles == 1
        revoke(second)
        revoke(third)
        await is_unharmed(honest, server)
        assert server.links.cycles == 1
        assert [await honest.next(), await honest.next()] == [LinkDown(server.id), LinkUp(server.id)]
        await is_unharmed(honest, server)
        assert server.links.cycles == 2


@on_loop
async def test_nobody_is_hung_up_on_for_a_member_that_went_without_ever_having_called() -> None:
    async with Network(3) as network:
        server, honest = await network.start(0), await network.start(1)
        honest.links.dial(server.id)
        assert await honest.next() == LinkUp(server.id)
        del network.members[network.identities[2].peer_id]
        server.links.members_changed()
        await is_unharmed(honest, server)
        assert server.links.cycles == 0


@pytest.mark.fault("revoked", "stranger")
@on_loop
async def test_whoever_is_no_member_any_more_is_not_dialled_any_more_nor_heard_over_our_link() -> None:
    async with pair() as (a, b):
        await is_unharmed(a, b)
        del a.links._members[b.id]  # type: ignore[attr-defined]
        a.links.members_changed()
        assert await a.next() == LinkDown(b.id)
        assert a.links.dialled == {}
        a.links.send(b.id, (b"to nobody",))
        assert a.links.dropped[b.id] == 1


@on_loop
async def test_a_member_that_was_admitted_while_we_listen_gets_in_as_soon_as_we_are_told() -> None:
    async with Network(2, BRISK) as network:
        newcomer = network.identities[1]
        member = network.members.pop(newcomer.peer_id)
        a = await network.start(0)
        network.members[newcomer.peer_id] = member
        b = await network.start(1)
        b.links.dial(a.id)
        assert await b.next() == LinkDown(a.id)
        a.links.members_changed()
        assert await b.next() == LinkUp(a.id)
        await is_unharmed(b, a)


# ---- keys ----------------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_member_may_call_with_two_keys_while_it_changes_them_and_not_with_a_third() -> None:
    async with Network(2, BRISK) as network:
        changing = network.identities[1]
        keys = [zmq.curve_keypair() for _ in range(3)]
        raw = [z85.decode(public) for public, _ in keys]
        members = network.members
        links = Links(
            NETWORK, members, network.identities[0], "127.0.0.1:0", lambda _: None, BRISK, keys_of=lambda _: tuple(raw)
        )
        address = str(await links.start())
        try:
            with zmq.Context() as context:
                for (public, secret), verdict in zip(
                    keys, (zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_HANDSHAKE_SUCCEEDED, zmq.EVENT_DISCONNECTED), strict=True
                ):
                    dealer = context.socket(zmq.DEALER)
                    dealer.curve_serverkey = network.identities[0].transport_key
                    dealer.curve_publickey, dealer.curve_secretkey = public, secret
                    assert await verdict_on(dealer, address) == verdict
        finally:
            await links.close(0)
        assert set(links._peers.values()) == {changing.peer_id}


@on_loop
async def test_a_key_that_two_members_state_stays_with_the_one_who_had_it() -> None:
    async with Network(3) as network:
        a, victim = await network.start(0), await network.start(2)
        thief = network.identities[1].peer_id
        network.members[thief] = replace(network.members[thief], transport_key=victim.identity.transport_key)
        network.members = {peer: network.members[peer] for peer in (thief, a.id, victim.id)}
        a.links._members = network.members
        a.links.members_changed()
        victim.links.dial(a.id)
        assert await victim.next() == LinkUp(a.id)
        await is_unharmed(victim, a)


# ---- addresses -----------------------------------------------------------------------------------------------------------


def stating(
    network: Network, number: int, stated: dict[PeerId, tuple[str, ...]], patience: Patience = CALM
) -> tuple[Links, "asyncio.Queue[object]"]:
    """Links of a member that goes by what records state."""
    heard: asyncio.Queue[object] = asyncio.Queue()
    links = Links(
        NETWORK,
        network.members,
        network.identities[number],
        "127.0.0.1:0",
        heard.put_nowait,
        patience,
        addresses_of=lambda peer: stated.get(peer, ()),
    )
    return links, heard


@on_loop
async def test_the_addresses_of_a_member_are_tried_in_turn_but_not_more_than_three() -> None:
    async with Network(2, BRISK) as network:
        b = await network.start(1)
        hole = Imposter(swallows)
        nowhere = await hole.start()
        stated = {b.id: (nowhere, "127.0.0.1:1", b.address)}
        links, heard = stating(network, 0, stated, BRISK)
        await links.start()
        links.dial(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(b.id)
        links.hang_up(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        stated[b.id] = ("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1", b.address)
        links.dial(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        await asyncio.sleep(0.4)
        assert heard.empty() and links.dialled[b.id]
        await links.close(0)
        await hole.stop()


@on_loop
async def test_a_member_that_moved_is_dialled_at_its_new_address_at_once() -> None:
    """The old link would take three heartbeats to be found dead."""
    async with Network(2) as network:
        b = await network.start(1)
        stated = {b.id: (b.address,)}
        links, heard = stating(network, 0, stated)
        await links.start()
        links.dial(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(b.id)
        stated[b.id] = ("localhost:" + str(Address.parse(b.address).port),)
        links.members_changed()
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(b.id)
        stated[b.id] = ("127.0.0.1:1", *stated[b.id])  # one more: the link is still where it says it is
        links.members_changed()
        await asyncio.sleep(0.2)
        assert heard.empty()
        await links.close(0)


@on_loop
async def test_a_member_without_an_address_is_waited_for_and_dialled_when_it_states_one() -> None:
    async with Network(2) as network:
        b = await network.start(1)
        stated: dict[PeerId, tuple[str, ...]] = {}
        links, heard = stating(network, 0, stated)
        await links.start()
        links.dial(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        assert "has to dial us" in links.dialled[b.id]
        stated[b.id] = (b.address,)
        links.members_changed()
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(b.id)
        await links.close(0)


@pytest.mark.fault("imposters")
@on_loop
async def test_members_whose_records_point_at_one_victim_have_it_dialled_no_oftener_than_two_would() -> None:
    patience = Patience(backoff_min_s=0.05, backoff_max_s=0.4)
    async with Network(12, patience) as network:
        victim = Imposter(swallows)
        place = await victim.start()
        links, _ = stating(
            network, 0, {i.peer_id: (place,) for i in network.identities[1:]}, replace(patience, handshake_s=0.05)
        )
        await links.start()
        for identity in network.identities[1:]:
            links.dial(identity.peer_id)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(2.0)
        await links.close(0)
        attempts = victim.calls / 2  # two sockets each
        assert attempts <= 32 + (loop.time() - began + 0.2) * 4 / patience.backoff_max_s
        assert "too often" in " ".join(links.dialled.values())
        await victim.stop()


@pytest.mark.parametrize(
    ("text", "is_on_loopback", "may"),
    [
        ("192.0.2.1:7780", False, True),
        ("[2001:db8::1]:7780", False, True),
        ("10.0.0.7:7780", False, True),
        ("0.0.0.0:7780", True, False),
        ("[::]:7780", True, False),
        ("224.0.0.1:7780", True, False),
        ("255.255.255.255:7780", True, False),
        ("192.0.2.1:0", True, False),
        ("127.0.0.1:7780", False, False),
        ("127.8.9.10:7780", False, False),
        ("[::1]:7780", False, False),
        ("[::ffff:127.0.0.1]:7780", False, False),
        ("127.0.0.1:7780", True, True),
        ("[::1]:7780", True, True),
    ],
)
def test_a_record_can_have_us_dial_one_port_of_one_other_machine_and_nothing_else(
    text: str, is_on_loopback: bool, may: bool
) -> None:
    dialling = Dialling(CALM)
    dialling.is_on_loopback = is_on_loopback
    assert (dialling.refusal(Address.parse(text), 0.0) == "") == may


def test_a_host_with_a_whole_ipv6_prefix_is_one_host() -> None:
    dialling = Dialling(Patience())
    taken = sum(not dialling.refusal(Address.parse(f"[2001:db8::{k:x}]:9"), 0.0) for k in range(1, 100))
    assert taken == 32
    assert dialling.refusal(Address.parse("[2001:db8:0:1::1]:9"), 0.0) == ""


@on_loop
async def test_a_loopback_address_in_a_record_is_not_dialled_from_a_machine_that_listens_elsewhere() -> None:
    async with Network(2) as network:
        b = await network.start(1)
        heard: asyncio.Queue[object] = asyncio.Queue()
        own = network.identities[0]
        stated = {b.id: (b.address,), own.peer_id: ("192.0.2.7:7780",)}
        links = Links(
            NETWORK, network.members, own, "0.0.0.0:0", heard.put_nowait, CALM, addresses_of=lambda peer: stated.get(peer, ())
        )
        await links.start()
        links.dial(b.id)
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkDown(b.id)
        assert "whichever machine" in links.dialled[b.id]
        stated[own.peer_id] = ("127.0.0.1:7780",)  # we say ourselves that we are there: one machine has all of this network
        links.members_changed()
        assert await asyncio.wait_for(heard.get(), LIMIT_S) == LinkUp(b.id)
        await links.close(0)


@on_loop
async def test_a_dial_is_called_refused_only_if_the_machine_there_says_that_nobody_listens() -> None:
    async with Network(3, BRISK) as network:
        hole = Imposter(swallows)
        dead, hidden = (i.peer_id for i in network.identities[1:])
        stated = {dead: ("127.0.0.1:1",), hidden: (await hole.start(),)}
        refused: asyncio.Queue[PeerId] = asyncio.Queue()
        links = Links(
            NETWORK,
            network.members,
            network.identities[0],
            "127.0.0.1:0",
            lambda _: None,
            BRISK,
            addresses_of=lambda peer: stated.get(peer, ()),
            on_dial_refused=refused.put_nowait,
        )
        await links.start()
        links.dial(dead)
        links.dial(hidden)
        await hole.called(times=4)
        assert {await asyncio.wait_for(refused.get(), LIMIT_S) for _ in range(3)} == {dead}
        await links.close(0)
        await hole.stop()


# ---- hanging up ----------------------------------------------------------------------------------------------------------


@on_loop
async def test_after_hanging_up_there_is_no_link_until_we_dial_again() -> None:
    async with pair() as (a, b):
        a.links.hang_up(b.id)
        assert await a.next() == LinkDown(b.id)
        a.links.hang_up(b.id)
        assert a.links.dialled == {}
        a.links.dial(b.id)
        a.links.hang_up(b.id)
        a.links.dial(b.id)  # membership does so when a link carries one way only
        assert await a.next() == LinkUp(b.id)
        await is_unharmed(a, b)
        assert a.heard.empty()


@on_loop
async def test_hanging_up_on_somebody_who_has_dialled_us_leaves_their_link() -> None:
    async with pair() as (a, b):
        assert await a.caller() == b.id
        a.links.hang_up(b.id)
        await is_unharmed(b, a)
        await is_unharmed(a, b)  # over their link
        assert b.heard.empty()
