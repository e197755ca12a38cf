"""Everything a peer says and hears, over ZeroMQ.

A peer has one ROUTER, at which it hears everybody, and per dialled neighbor a link of two DEALERs, over which it says
everything it has to say to that one. Nothing is ever answered over the socket it came in at. Both ends prove their transport
key in the CURVE handshake; who is no member gets no further than that.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sized

import zmq
from zmq.utils import z85

from node.address import Address
from node.link import Frames, Link
from node.listener import Listener
from node.sockets import Context, Patience, TransportKeys, dialling_socket
from node.supervisor import Supervisor
from node.zap import Gate, user_id
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Event, FrameReceived, LinkDown, LinkUp, PeerId
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.randomness import Choices


class Links:
    """Carries out `Dial` and `Send`, and tells `LinkUp`, `LinkDown` and `FrameReceived`: always from the loop, never from
    within a call of ours. Counters are of messages and their bytes, before encryption, per member."""

    def __init__(
        self,
        network_id: bytes,
        members: Mapping[PeerId, Member],
        identity: Identity,
        listen: str,
        on_event: Callable[[Event], None],
        patience: Patience | None = None,
        on_stranger: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """`on_stranger` hears, in words and seldom, of who was refused at the gate."""
        self.bytes_sent: Counter[PeerId] = Counter()
        self.bytes_received: Counter[PeerId] = Counter()
        self.messages_sent: Counter[PeerId] = Counter()
        self.dropped: Counter[PeerId] = Counter()
        """Messages not sent, because the link was down or its outbox full."""
        self._members = members
        self._keys = TransportKeys(identity.transport_key, identity.transport_secret)
        self._domain = b"p2pfl/" + network_id.hex().encode()
        self._listen = Address.parse(listen)
        self._on_event = on_event
        self._on_stranger = on_stranger
        self._patience = patience or Patience()
        # Jitter need not be unforeseeable, only different from peer to peer.
        self._choices = Choices(0, b"redial" + identity.peer_id)
        self._peers = {user_id(m.transport_key): m.id for m in members.values() if m.id != identity.peer_id}
        self._supervisors: dict[PeerId, Supervisor] = {}
        self._is_closed = False

    async def start(self) -> Address:
        """Listen, and make sure that a stranger would not be let in. Returns where, with the real port where 0 was asked
        for. Raises `Failure` when listening there is impossible; then there is nothing to close."""
        self._loop = asyncio.get_running_loop()
        self._context = Context()
        self._gate = Gate(self._context, self._loop, self._domain, lambda key: user_id(key) in self._peers, self._on_stranger)
        self._listener = Listener(
            self._context, self._loop, self._keys, self._domain, self._patience, self._peers, self._on_message
        )
        try:
            address = await self._listener.bind(self._listen)
            await self._knock(address)
        except BaseException:
            await self.close()
            raise
        return address

    def dial(self, peer: PeerId) -> None:
        """Keep a link to this member from now on."""
        if peer in self._supervisors:
            return
        member = self._members[peer]

        def dial(address: Address) -> Link:
            return Link(self._context, self._loop, self._keys, member.transport_key, address, self._patience)

        def tell(is_up: bool) -> None:
            if not self._is_closed:
                self._on_event(LinkUp(peer) if is_up else LinkDown(peer))

        self._supervisors[peer] = Supervisor(
            member.name, Address.parse(member.address), dial, self._patience, self._choices, tell
        )

    def send(self, to: PeerId, frames: Frames, bulk: bool = False) -> None:
        """Hand a message to the link; it may be lost. Never waits. Without a link, or with more waiting than may, it is dropped
        and counted."""
        supervisor = self._supervisors.get(to)
        if supervisor is not None and supervisor.link is not None and supervisor.link.send(frames, bulk):
            self.messages_sent[to] += 1
            self.bytes_sent[to] += sum(map(len, frames))
        else:
            self.dropped[to] += 1

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
        return self._listener.muted

    def mute(self, peer: PeerId, until: float) -> None:
        """Read nothing of this member until this moment of the loop's clock."""
        self._listener.mute(peer, until)

    @property
    def dialled(self) -> dict[PeerId, str]:
        """To whom a link is kept, and why there is none now; "" where there is one, or an attempt is under way."""
        return {peer: supervisor.trouble for peer, supervisor in self._supervisors.items()}

    @property
    def cycles(self) -> int:
        """How often the listener was cycled."""
        return self._listener.cycles

    def cycle_listener(self) -> None:
        """Hang up on everybody who has dialled us, and listen again: who is a member now comes back by itself. The only way to
        be rid of one caller's connection, and of what it holds of our memory."""
        self._listener.cycle()

    async def close(self, linger_s: float = 1.0) -> None:
        """Stop listening and hang up. What was handed to a link that is up may take `linger_s` to leave."""
        if self._is_closed:
            return
        self._is_closed = True
        self._listener.close()
        for supervisor in self._supervisors.values():
            await supervisor.close(linger_s)
        self._gate.close()
        await self._loop.run_in_executor(None, self._context.term)

    def _on_message(self, hop: PeerId, frames: tuple[Sized, ...], size: int) -> None:
        self.bytes_received[hop] += size
        self._on_event(FrameReceived(hop, frames))

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
