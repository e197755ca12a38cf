"""Everything a peer says and hears, over ZeroMQ.

A peer has one ROUTER, at which it hears whoever has dialled it, and per dialled neighbor a link of two DEALERs. Both ends prove
their transport key in the CURVE handshake; who is no member gets no further than that. What it has to say to somebody goes over
the link that it has dialled itself, and where it has none, as with one behind a NAT, over the one that the other has dialled.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sized

import zmq
from zmq.utils import z85

from node.transport.address import Address
from node.transport.carriers import Carriers
from node.transport.dialling import ADDRESSES_MAX, KEYS_MAX, Contact, Dialling
from node.transport.hearing import Hearing
from node.transport.link import Link
from node.transport.listener import Listener
from node.transport.sockets import Context, Frames, Patience, Socket, TransportKeys, dialling_socket
from node.transport.supervisor import Supervisor
from node.transport.zap import Gate, user_id
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Event, FrameReceived, PeerId
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.randomness import Choices

CYCLE_EVERY_S = 60.0
"""Between two cycles of the listener because of who is no member any more. Meanwhile nothing of theirs is read anyway."""

READ_S = 0.25
"""What a caller has from us when the connection ends and has not read yet, its libzmq may drop; so we leave it a moment."""


class Links:
    """Carries out `Dial`, `HangUp` and `Send`, and tells `LinkUp`, `LinkDown` and `FrameReceived`: always from the loop, never
    from within a call of ours. Counters are of messages and their bytes, before encryption, per member."""

    def __init__(
        self,
        network_id: bytes,
        members: Mapping[PeerId, Member],
        identity: Identity,
        listen: str,
        on_event: Callable[[Event], None],
        patience: Patience | None = None,
        on_stranger: Callable[[str], None] = lambda _text: None,
        keys_of: Callable[[PeerId], tuple[bytes, ...]] | None = None,
        addresses_of: Callable[[PeerId], tuple[str, ...]] | None = None,
        on_dial_refused: Callable[[PeerId], None] | None = None,
        on_called: Callable[[PeerId], None] = lambda _peer: None,
        dials_loopback: bool | None = None,
    ) -> None:
        """`members` may change, as long as `members_changed` is told. `keys_of` a member are the transport keys with which it
        may call, the newest first, at most two; without it, the one in `members`. `addresses_of` a member, or of ourselves, are
        what its own record states, at most three; without it, the one in `members`.
        `on_stranger` hears, in words and seldom, of who was refused at the gate; `on_dial_refused` of every dial at which the
        member's machine said that nobody listens there; `on_called` of every link that a member has dialled to us.
        `dials_loopback`: whether loopback addresses that others state are dialled; without it, if we can be met at one."""
        self.bytes_sent: Counter[PeerId] = Counter()
        self.bytes_received: Counter[PeerId] = Counter()
        self.messages_sent: Counter[PeerId] = Counter()
        self.dropped: Counter[PeerId] = Counter()
        """Messages not sent, because the link was down or its outbox full."""
        self._own = identity.peer_id
        self._members = members
        self._keys = TransportKeys(identity.transport_key, identity.transport_secret)
        self._keys_of = keys_of or (lambda peer: (members[peer].transport_key,))
        self._stated = addresses_of
        self._domain = b"p2pfl/" + network_id.hex().encode()
        self._listen = Address.parse(listen)
        self._on_event = on_event
        self._on_stranger = on_stranger
        self._on_dial_refused = on_dial_refused
        self._on_called = on_called
        self._dials_loopback = dials_loopback
        self._patience = patience or Patience()
        self._dialling = Dialling(self._patience)
        # Jitter need not be unforeseeable, only different from peer to peer.
        self._choices = Choices(0, b"redial" + identity.peer_id)
        self._peers = self._callers({})
        self._supervisors: dict[PeerId, Supervisor] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._cycle_after = 0.0
        self._cycling: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def start(self) -> Address:
        """Listen, and make sure that a stranger would not be let in. Returns where, with the real port where 0 was asked
        for. Raises `Failure` when listening there is impossible; then there is nothing to close."""
        self._loop = asyncio.get_running_loop()
        self._context = Context()
        self._gate = Gate(self._context, self._loop, self._domain, lambda key: user_id(key) in self._peers, self._on_stranger)
        self._hearing = Hearing(self._loop, self._on_message)
        self._listener = Listener(
            self._context,
            self._loop,
            self._keys,
            self._domain,
            self._patience,
            self._peers,
            self._hearing,
            self._called,
        )
        self._carriers = Carriers(self._loop, self._listener, self._tell, self._patience.heartbeat_s)
        try:
            address = await self._listener.bind(self._listen)
            await self._knock(address)
        except BaseException:
            await self.close()
            raise
        self._listens = address
        self._judge_loopback()
        return address

    def dial(self, peer: PeerId) -> None:
        """Keep a link to this member from now on. It counts as up while ours is, or, where ours can't be made, while the one is
        that the member has dialled to us. Every `LinkUp` is of another connection than the one before."""
        if peer in self._supervisors:
            return

        def on_answer(socket: Socket, frame: zmq.Frame) -> None:
            self._hearing.take(peer, socket, frame)

        def dial(address: Address, key: bytes) -> Link:
            return Link(self._context, self._loop, self._keys, key, address, self._patience, on_answer)

        def on_change(is_up: bool) -> None:
            if self._supervisors.get(peer) is supervisor and not self._is_closed:
                self._carriers.own_changed(peer, is_up)

        def on_refused() -> None:
            if self._on_dial_refused is not None and self._supervisors.get(peer) is supervisor and not self._is_closed:
                self._on_dial_refused(peer)

        supervisor = Supervisor(
            lambda: self._contact(peer),
            dial,
            self._dialling,
            self._patience,
            self._choices,
            on_change,
            on_refused if self._on_dial_refused is not None else None,
        )
        self._supervisors[peer] = supervisor

    def hang_up(self, peer: PeerId) -> None:
        """Keep no link to this member any more. One that it has dialled to us stays, and what it says there is heard."""
        supervisor = self._supervisors.pop(peer, None)
        if supervisor is None:
            return
        supervisor.stop()
        self._ending.add(supervisor.task)
        supervisor.task.add_done_callback(self._ending.discard)
        self._carriers.forget(peer)

    def members_changed(self) -> None:
        """Look again at who is a member, with which keys and at which addresses. Whoever is none any more is not heard from
        this moment on and not dialled; if it has called us, the listener is cycled so that its connection ends: at once, but at
        most once a minute, for all of them together."""
        callers = self._callers(self._peers)
        gone = self._peers.keys() - callers.keys()
        for user in gone:
            self._listener.forget(self._peers[user])
        self._peers.clear()
        self._peers.update(callers)
        self._carriers.theirs_lost()
        for peer, supervisor in tuple(self._supervisors.items()):
            if peer in self._members:
                supervisor.look_again()
            else:
                self.hang_up(peer)
        self._judge_loopback()
        if gone & self._gate.admitted and self._cycling is None:
            wait_s = max(0.0, self._cycle_after - self._loop.time())
            self._cycling = self._loop.call_later(wait_s, self.cycle_listener)

    def send(self, to: PeerId, frames: Frames, bulk: bool = False) -> None:
        """Hand a message to the link; it may be lost. Never waits. Without a link, or with more waiting than may, it is dropped
        and counted."""
        supervisor = self._supervisors.get(to)
        link = supervisor.link if supervisor is not None else None
        if link.send(frames, bulk) if link is not None else self._answer(to, frames, bulk):
            self.messages_sent[to] += 1
            self.bytes_sent[to] += sum(map(len, frames))
        else:
            self.dropped[to] += 1

    def answer(self, to: PeerId, frames: Frames) -> None:
        """Hand a message to the newest link that this member has dialled to us, though we may have one of our own to it: two
        machines with one identity may be at the ends of the two."""
        if self._answer(to, frames, bulk=False):
            self.messages_sent[to] += 1
            self.bytes_sent[to] += sum(map(len, frames))

    def reaches(self, peer: PeerId) -> bool:
        """Whether there is a link to send to this member over, ours or its own."""
        supervisor = self._supervisors.get(peer)
        return (supervisor is not None and supervisor.link is not None) or self._listener.has_route(peer)

    @property
    def refused(self) -> int:
        """Handshakes of those who know our public key but are no members. Others don't get as far as being counted."""
        return self._gate.refused

    @property
    def unknown(self) -> int:
        """Messages dropped because they came from nobody who is a member now."""
        return self._listener.dropped

    @property
    def muted(self) -> int:
        """Messages dropped unread, because their sender was muted."""
        return self._hearing.muted

    def mute(self, peer: PeerId, until: float) -> None:
        """Read nothing of this member until this moment of the loop's clock."""
        self._hearing.mute(peer, until)

    @property
    def bytes_in_all(self) -> tuple[int, int]:
        """Sent and received."""
        return self.bytes_sent.total(), self.bytes_received.total()

    @property
    def dialled(self) -> dict[PeerId, str]:
        """To whom a link is kept, and why there is none now; "" where there is one, or an attempt is under way."""
        return {
            peer: "" if self._carriers.is_theirs(peer) else supervisor.trouble for peer, supervisor in self._supervisors.items()
        }

    @property
    def cycles(self) -> int:
        """How often the listener was cycled."""
        return self._listener.cycles

    def cycle_listener(self) -> None:
        """Hang up on everybody who has dialled us, and listen again: who is a member now comes back by itself. The only way to
        be rid of one caller's connection, and of what it holds of our memory."""
        if self._is_closed:
            return
        if self._cycling is not None:
            self._cycling.cancel()
            self._cycling = None
        self._cycle_after = self._loop.time() + CYCLE_EVERY_S
        self._gate.admitted.clear()
        self._listener.cycle()
        self._carriers.theirs_lost()

    async def close(self, linger_s: float = 1.0) -> None:
        """Stop listening and hang up. What was handed to a link that is up may take `linger_s` to leave."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._cycling is not None:
            self._cycling.cancel()
        if self._carriers.are_any_theirs:
            await asyncio.sleep(min(linger_s, READ_S))
        self._carriers.close()
        self._listener.close(linger_s)
        for supervisor in self._supervisors.values():
            supervisor.stop(linger_s)
            self._ending.add(supervisor.task)
        if self._ending:
            await asyncio.wait(self._ending)
        self._gate.close()
        await self._loop.run_in_executor(None, self._context.term)

    # ---- who may call, and who can be dialled ----------------------------------------------------------------------------

    def _callers(self, known: Mapping[str, PeerId]) -> dict[str, PeerId]:
        """Whom a User-Id means. Two that state one key can't both hold it: it stays with the one who had it."""
        callers: dict[str, PeerId] = {}
        for peer in self._members:
            if peer == self._own:
                continue
            for key in self._keys_of(peer)[:KEYS_MAX]:
                user = user_id(key)
                if known.get(user, peer) == peer or known[user] not in self._members:
                    callers.setdefault(user, peer)
        return callers

    def _contact(self, peer: PeerId) -> Contact:
        member = self._members.get(peer)
        keys = self._keys_of(peer)[:KEYS_MAX] if member is not None else ()
        if member is None or not keys:  # who is none any more is hung up on as soon as we are told
            return Contact(peer.hex()[:16], (), ())
        stated = self._stated(peer) if self._stated is not None else (member.address,) if member.address else ()
        return Contact(member.name, stated[:ADDRESSES_MAX], keys)

    def _judge_loopback(self) -> None:
        """An address in `members` is the word of whoever made the network; a record's is its subject's."""
        if self._dials_loopback is not None:
            self._dialling.is_on_loopback = self._dials_loopback
            return
        stated = self._stated(self._own) if self._stated is not None else ()
        self._dialling.is_on_loopback = (
            self._stated is None or self._listens.is_loopback or any(Address.parse(text).is_loopback for text in stated)
        )

    def _called(self, peer: PeerId) -> None:
        self._carriers.dialled_us(peer)
        if peer in self._supervisors:
            self._supervisors[peer].dial_now()
        if not self._is_closed:
            self._on_called(peer)

    def _answer(self, to: PeerId, frames: Frames, bulk: bool) -> bool:
        """Over the link that the other has dialled."""
        if self._is_closed:
            return False
        had_route = self._listener.has_route(to)
        is_sent = self._listener.answer(to, frames, bulk)
        if had_route and not self._listener.has_route(to):
            self._carriers.theirs_lost()
        return is_sent

    def _tell(self, event: Event) -> None:
        if not self._is_closed:
            self._on_event(event)

    def _on_message(self, hop: PeerId, frames: tuple[Sized, ...], size: int) -> None:
        self.bytes_received[hop] += size
        self._tell(FrameReceived(hop, frames))

    async def _knock(self, address: Address) -> None:
        """Come as a stranger to our own door. That libzmq asks our gate hangs on options that another version might
        understand otherwise, and a door left open by mistake looks just like one that works."""
        public, secret = map(z85.decode, zmq.curve_keypair())
        nearest = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)
        stranger = dialling_socket(self._context, TransportKeys(public, secret), self._keys.public, self._patience)
        refusal = self._gate.expect_refusal(public)
        try:
            stranger.ipv6 = address.is_ipv6
            stranger.connect(f"tcp://{Address(nearest, address.port)}")
            await asyncio.wait_for(refusal, self._patience.handshake_s)
        except TimeoutError:
            raise Failure(
                "door_untested",
                f"A stranger who knocked at {address} for a test was not refused by us.",
                "Something else may answer there, or a firewall keeps this machine from reaching itself.",
                ExitCode.NETWORK,
            ) from None
        finally:
            stranger.close()
