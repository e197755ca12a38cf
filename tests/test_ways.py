"""Two members that nobody can dial meet over real sockets, through a third that can't read what it carries."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import zmq

from node.entropy import SystemEntropy
from node.transport.links import Links
from node.transport.routes import BULK, CONTROL, announcement
from node.transport.ways import UNRELAYED, Ways
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Event, FrameReceived, LinkDown, LinkUp, PeerId, Rejected, Send
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.forwarder import Forwarder, concerns
from p2pfl.protocol.relay.relay_wire import PIECE_BYTES, Carried, encode
from p2pfl.protocol.relay.tunnels import Tunnels
from p2pfl.protocol.wire import CHUNK_BYTES, TAG_BYTES
from tests.loopback import LIMIT_S, NETWORK, RESTLESS, Network, on_loop

pytestmark = pytest.mark.net
CHUNK = CHUNK_BYTES + TAG_BYTES


@dataclass
class Carrier:
    """A relay: its links, and what it is to pass on. `seen` is all that it was handed."""

    links: Links
    forwarder: Forwarder
    seen: list[bytes] = field(default_factory=list)
    refused: list[Rejected] = field(default_factory=list)


@dataclass
class View:
    """What one member knows of the others."""

    everybody: Collection[PeerId]
    relay_ids: list[PeerId]
    gone: set[PeerId] = field(default_factory=set)

    @property
    def members(self) -> set[PeerId]:
        return {*self.everybody} - self.gone

    def relays(self) -> list[PeerId]:
        return self.relay_ids

    def is_hidden(self, peer: PeerId) -> bool:
        return peer not in self.relay_ids


@dataclass
class Hidden:
    """A member that nobody can dial."""

    id: PeerId
    ways: Ways
    links: Links
    view: View
    events: "asyncio.Queue[Event]"
    refused: list[Rejected] = field(default_factory=list)

    async def told(self, peer: PeerId) -> LinkUp | LinkDown:
        """The next thing that it hears of its link to this member."""
        while True:
            event = await asyncio.wait_for(self.events.get(), LIMIT_S)
            if isinstance(event, LinkUp | LinkDown) and event.peer == peer:
                return event

    async def message(self) -> FrameReceived:
        while not isinstance(event := await asyncio.wait_for(self.events.get(), LIMIT_S), FrameReceived):
            pass
        return event


class Place:
    """The first `relays` members are relays, all others are hidden."""

    def __init__(self, relays: int, hidden: int) -> None:
        self.network = Network(relays + hidden, RESTLESS)
        self.ids = [identity.peer_id for identity in self.network.identities]
        self.relay_ids = self.ids[:relays]
        self.members = self.network.members
        self.carriers: list[Carrier] = []
        self.hidden: list[Hidden] = []

    async def carry(self, number: int) -> Carrier:
        def heard(event: Event) -> None:
            match event:
                case FrameReceived(hop, frames) if concerns(frames):
                    carrier.seen += [bytes(frame) for frame in frames]  # type: ignore[call-overload]
                    for effect in carrier.forwarder.heard(hop, frames, asyncio.get_running_loop().time()):
                        if isinstance(effect, Send):
                            end.links.send(effect.to, effect.frames, effect.bulk)  # type: ignore[arg-type]
                        else:
                            carrier.refused.append(effect)
                case LinkDown(peer):
                    carrier.forwarder.unlinked(peer)

        end = await self.network.start(number, "127.0.0.1:0", heard)
        carrier = Carrier(end.links, Forwarder(self.members, end.links.reaches))
        for peer in self.ids[len(self.relay_ids) :]:
            end.links.dial(peer)
        self.carriers.append(carrier)
        return carrier

    async def hide(self, number: int) -> Hidden:
        identity: Identity = self.network.identities[number]
        keyring = Keyring(identity, self.members)
        choices = Choices(number, b"ways")
        view = View(self.members, self.relay_ids)
        tunnels = Tunnels(identity.peer_id, NETWORK, keyring, SystemEntropy(), choices, view)
        events: asyncio.Queue[Event] = asyncio.Queue()
        ways = Ways(asyncio.get_running_loop(), tunnels, events.put_nowait)
        end = await self.network.start(number, "127.0.0.1:0", ways.heard)
        self.network.place(number, "")
        ways.over(end.links)
        one = Hidden(identity.peer_id, ways, end.links, view, events)
        ways.on_rejected = one.refused.append
        self.hidden.append(one)
        return one


@asynccontextmanager
async def place(relays: int = 1, hidden: int = 2) -> AsyncIterator[Place]:
    """All up; the first two hidden members have met."""
    made = Place(relays, hidden)
    async with made.network:
        for number in range(relays):
            await made.carry(number)
        for number in range(relays, relays + hidden):
            await made.hide(number)
        a, b = made.hidden[:2]
        a.ways.dial(b.id)
        b.ways.dial(a.id)
        await met(a, b)
        yield made
        for one in made.hidden:
            one.ways.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def met(a: Hidden, b: Hidden) -> None:
    """Wait until each has heard of a link to the other."""
    for one, other in ((a, b), (b, a)):
        while await one.told(other.id) != LinkUp(other.id):
            pass


async def exchange(a: Hidden, b: Hidden) -> None:
    for one, other in ((a, b), (b, a)):
        one.ways.send(other.id, (b"still here",))
        message = await other.message()
        assert (message.hop, message.frames) == (one.id, (b"still here",))


@on_loop
async def test_two_that_nobody_can_dial_meet_and_what_goes_between_them_is_counted() -> None:
    async with place() as there:
        a, b = there.hidden
        await exchange(a, b)
        chunk = os.urandom(CHUNK)
        a.ways.send(b.id, (b"chunk", chunk), bulk=True)
        head, body = (await b.message()).frames
        assert type(head) is bytes and body == chunk
        assert a.ways.bytes_sent[b.id] == b.ways.bytes_received[a.id] == 10 + 5 + CHUNK
        assert a.ways.through == {b.id: there.relay_ids[0]} and a.ways.dialled[b.id] == ""
        assert a.ways.bytes_in_all[0] == sum(a.links.bytes_sent.values()) > CHUNK


@pytest.mark.fault("hostile relay")
@on_loop
async def test_a_relay_holds_no_byte_of_what_it_carries() -> None:
    async with place() as there:
        (carrier,), (a, b) = there.carriers, there.hidden
        secret = os.urandom(CHUNK)
        a.ways.send(b.id, (b"the name of a ward", secret), bulk=True)
        assert (await b.message()).frames[1] == secret
        seen = b"".join(carrier.seen)
        assert len(seen) > CHUNK
        windows = {secret[at : at + 8] for at in range(0, CHUNK - 8, 8)}
        assert not any(seen[at : at + 8] in windows for at in range(len(seen)))
        assert b"the name of a ward" not in seen


@pytest.mark.parametrize("bulk", [False, True])
@on_loop
async def test_messages_through_a_relay_keep_their_order_whatever_their_size(bulk: bool) -> None:
    async with place() as there:
        a, b = there.hidden
        sizes = [1, 200, PIECE_BYTES - 20, PIECE_BYTES, 70_000, CHUNK] * 6
        for n, size in enumerate(sizes):
            a.ways.send(b.id, (b"%d" % n, bytes(size)), bulk)
        got = [(await b.message()).frames for _ in sizes]
        assert [(int(bytes(f[0])), len(f[1])) for f in got] == list(enumerate(sizes))  # type: ignore[call-overload]


@on_loop
async def test_small_messages_are_not_behind_large_ones_at_a_relay() -> None:
    async with place() as there:
        a, b = there.hidden
        for _ in range(100):
            a.ways.send(b.id, (b"chunk", bytes(CHUNK)), bulk=True)
        a.ways.send(b.id, (b"ping",))
        heard = [(await b.message()).frames[0] for _ in range(101)]
        assert heard.index(b"ping") < 20
        assert there.carriers[0].forwarder.held <= 1 << 21


@pytest.mark.fault("dead relay")
@on_loop
async def test_when_its_relay_is_gone_another_takes_over() -> None:
    async with place(relays=2) as there:
        a, b = there.hidden
        first = a.ways.through[b.id]
        await there.carriers[there.relay_ids.index(first)].links.close(0)
        for one, other in ((a, b), (b, a)):
            assert await one.told(other.id) == LinkDown(other.id)
        await met(a, b)
        assert {a.ways.through[b.id], first} == set(there.relay_ids)
        await exchange(a, b)


@on_loop
async def test_without_a_relay_it_is_said_that_nobody_carries() -> None:
    made = Place(0, 2)
    async with made.network:
        a, b = await made.hide(0), await made.hide(1)
        a.ways.dial(b.id)
        assert await a.told(b.id) == LinkDown(b.id)
        assert a.ways.dialled == {b.id: UNRELAYED}
        a.ways.send(b.id, (b"to nobody",))
        assert a.ways.dropped[b.id] == 1
        a.ways.close()
        b.ways.close()


@on_loop
async def test_who_is_muted_is_not_heard_through_a_relay_either() -> None:
    async with place() as there:
        a, b = there.hidden
        b.ways.mute(a.id, asyncio.get_running_loop().time() + LIMIT_S)
        a.ways.send(b.id, (b"unread",))
        await until(lambda: b.ways.muted > 0)
        assert b.events.empty()


# ---- hostile and revoked members -----------------------------------------------------------------------------------------


@pytest.mark.fault("revoked")
@on_loop
async def test_a_revoked_members_messages_are_dropped_at_the_relay_and_at_whoever_they_are_for() -> None:
    async with place(hidden=3) as there:
        (carrier,), (a, b, c) = there.carriers, there.hidden
        b.ways.dial(c.id)
        c.ways.dial(b.id)
        await met(b, c)
        b.view.gone.add(a.id)
        b.ways.members_changed()  # the relay does not know yet
        a.ways.send(b.id, (b"of a revoked member",))
        await until(lambda: bool(b.refused))
        assert [refused.reason for refused in b.refused] == [Reason.NOT_MEMBER]
        kept = there.members.pop(a.id)
        carrier.links.members_changed()
        before = carrier.links.unknown
        a.ways.send(b.id, (b"once more",))
        await until(lambda: carrier.links.unknown > before)
        assert len(b.refused) == 1
        await met(b, c)  # again, for the relay has hung up on everybody to be rid of the one
        await exchange(b, c)
        there.members[a.id] = kept


@pytest.mark.fault("slow reader", "flood")
@on_loop
async def test_a_member_that_floods_one_who_reads_nothing_costs_a_relay_a_bounded_memory_and_the_others_nothing() -> None:
    async with place(hidden=4) as there:
        (carrier,), (a, b, flooder, deaf) = there.carriers, there.hidden
        await deaf.links.close(0)
        with zmq.Context() as context, context.socket(zmq.DEALER) as control, context.socket(zmq.DEALER) as bulk:
            identity = there.network.identities[there.ids.index(deaf.id)]
            for dealer, channel in ((control, CONTROL), (bulk, BULK)):
                dealer.linger, dealer.rcvhwm = 0, 1
                dealer.curve_serverkey = there.network.identities[0].transport_key
                dealer.curve_publickey, dealer.curve_secretkey = identity.transport_key, identity.transport_secret
                dealer.connect(f"tcp://{there.members[there.relay_ids[0]].address}")
                dealer.send(announcement(channel, b"12345678"))
            flooder.ways.dial(there.relay_ids[0])
            await until(lambda: carrier.links.reaches(deaf.id) and carrier.links.reaches(flooder.id))
            piece = bytes(PIECE_BYTES)
            for count in range(400):
                head = encode(Carried(deaf.id, count.to_bytes(8, "big"), True, count))
                flooder.links.send(there.relay_ids[0], (head, piece), bulk=True)
                await asyncio.sleep(0)
            await until(lambda: carrier.forwarder.dropped[deaf.id] > 0)
            assert carrier.forwarder.held <= 4 << 20
            await exchange(a, b)
