"""Members come and go without end through one `Peer`: its memory stays what its members need, and its books balance."""

import hashlib
from collections import Counter

import pytest

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.departed import ROWS_MIN
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    DeadlineReached,
    Event,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LinkDown,
    LinkUp,
    Open,
    Opened,
    Outgoing,
    Payload,
    PeerId,
    Seal,
    Sealed,
    Send,
    Started,
    Verdict,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Introduction, Records
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.peer import Peer
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import Plan, static_plan
from sim.accounting import AccountedSigner
from sim.entropy import SeededEntropy
from tests.village import WALL, FakeOath, FakeRegistry, id_of, record_of

OWN, RESIDENT = id_of(0), id_of(1)
SECRET = b"k" * 32
CHARTER = Charter("village", bytes(32), b"s" * 32, 8, GossipRules(rounds=0, gather_s=1.0, checkpoint_s=1e9))
JUNK = b"\x93\x01\x01"  # an array of three that ends after two


class Hostel:
    """One real peer with a membership; a resident stays, guests come, offer an update, say something wrong, and leave."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.registry = FakeRegistry()
        for peer in (OWN, RESIDENT):
            self.registry.learn(b"member" + peer, record_of(peer).data, WALL)
        boot = Boot(5, record_of(OWN, epoch=5).boot_id)

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, _wall: float) -> Record:
            return record_of(OWN, incarnation, neighbors, 5, has_left)

        membership = Membership(
            OWN,
            CHARTER.network_id,
            LAN,
            self.registry,
            FakeOath(OWN),
            boot,
            author,
            lambda live, own: [peer for peer in live if peer != own][:4],
            Choices(0, b"hostel"),
            self.now,
        )
        self.peer = Peer(
            OWN,
            AccountedSigner(OWN, self.registry.members, SECRET),
            CHARTER,
            self.registry.members,
            everybody(membership.view.live),
            1,
            10,
            boot,
            Choices(0, b"peer"),
            SeededEntropy(0, b"hostel"),
            liveness=Liveness(membership, everybody),
        )
        self.told, self.sent = Counter[PeerId](), Counter[PeerId]()
        self.tell(Started())
        self.tell(LinkUp(RESIDENT))

    @property
    def now(self) -> Instant:
        return Instant(self.time, WALL)

    def tell(self, event: Event) -> None:
        """And carry out what follows, the learner's part and the sealer's included."""
        for effect in self.peer.handle(event, self.now):
            if isinstance(effect, Learn):
                payload = Payload(8, b"", bytes(8))
                verdicts = tuple(Verdict(one.sender, one.epoch, one.seq, None) for one in effect.arrived)
                self.tell(Learned(effect.step, (Outgoing(payload),), verdicts, {}))
            elif isinstance(effect, Seal):
                self.tell(Sealed(effect.ticket, (Payload(24, b"d" * 32, bytes(24)),)))
            elif isinstance(effect, Open):
                self.tell(Opened(effect.ticket, effect.index, None, Payload(8, b"", bytes(8))))
            elif isinstance(effect, Send) and bytes(effect.frames[0])[2] == 2:  # type: ignore[call-overload]
                self.sent[effect.to] += 1

    def say(self, hop: PeerId, *frames: bytes) -> None:
        self.tell(FrameReceived(hop, frames))

    def gossip(self, record: Record) -> None:
        introduction = Introduction(record.data, b"member" + record.identity)
        self.say(RESIDENT, gossip_wire.encode(Records(gossip_wire.encode_item(introduction))))

    def visit(self, guest: PeerId) -> None:
        """A whole life of a member."""
        self.gossip(record_of(guest))
        self.tell(LinkUp(guest))
        for seq in range(2):
            self.told[guest] += 1
            self.say(guest, *offer_of(guest, seq, self.peer.step))
        self.say(guest, JUNK)
        self.gossip(record_of(guest, incarnation=1, has_left=True))
        self.tell(LinkDown(guest))
        self.registry.members.pop(guest, None)  # when its certificate is over
        self.registry.records.pop(guest, None)

    def pass_time(self, seconds: float) -> None:
        until = self.time + seconds
        while (deadline := self.peer.deadline) is not None and deadline <= until:
            self.time = max(self.time, deadline)
            self.tell(DeadlineReached())
        self.time = until


def everybody(live: tuple[PeerId, ...]) -> Plan:
    others = [peer for peer in live if peer != OWN]
    return static_plan(OWN, others, dict.fromkeys([OWN, *others], 1.0 / (len(others) + 1)))


def offer_of(guest: PeerId, seq: int, step: int) -> tuple[bytes, bytes]:
    """A genuine update, with its only chunk beside it."""
    signer = AccountedSigner(guest, {OWN: Member(OWN, "", "", b"", b"")}, SECRET)
    key = hashlib.blake2b(guest + bytes([seq]), digest_size=32).digest()
    chunk = key[:24]
    digests = (hashlib.blake2b(chunk, digest_size=32).digest(),)
    header = wire.Header(
        network=CHARTER.network_id,
        charter=CHARTER.digest,
        schema=CHARTER.schema,
        signer=guest,
        boot_id=bytes([seq]) * 16,
        boot_epoch=1,
        seq=seq,
        step=step,
        phase=0,
        part=0,
        age=1,
        samples=1,
        chunks_digest=envelope.chunks_digest(8, digests),
        readers_digest=envelope.readers_digest([OWN]),
        key_commitment=envelope.commitment(key),
    )
    return wire.encode(envelope.offer(header, signer, [OWN], key, [bytes(24)], 8, digests)), chunk


def booked(ledger: Ledger) -> int:
    rows = [*ledger.pairs.values(), ledger.departed]
    return sum(row.applied + row.rejected + row.superseded + row.lost for row in rows)


@pytest.mark.fault("crowds")
@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_members_come_and_go_without_end_and_a_peer_remembers_sums_of_them(count: int) -> None:
    hostel, longest = Hostel(), 0
    peer = hostel.peer
    for k in range(count):
        hostel.visit(id_of(100 + k))
        if k % 50 == 0:
            hostel.pass_time(1.0)
        longest = max(longest, len(peer.ledger) + len(peer.neighbors))
    hostel.pass_time(30.0)
    assert longest <= ROWS_MIN + 50
    assert len(peer._window.signers) <= ROWS_MIN and len(peer.inbox.slots._pairs) <= ROWS_MIN
    assert len(peer.inbox._contents) <= ROWS_MIN and len(peer._window.to_plain()) <= ROWS_MIN
    assert peer.liveness is not None and len(peer.liveness.membership._census._heard) <= 8

    ledger, held = peer.ledger, sum(1 for _ in peer.inbox.slots)
    assert sum(hostel.told.values()) == 2 * count == booked(ledger) + held
    assert ledger.sent == sum(hostel.sent.values()) > 0
    assert ledger.applied + ledger.departed.superseded > 0
    assert ledger.rejected[Reason.BAD_HEADER.value] == count


def test_a_former_member_of_whom_something_is_here_still_keeps_its_row() -> None:
    hostel = Hostel()
    linked, gone = id_of(50), id_of(51)
    for guest in (linked, gone):
        hostel.visit(guest)
    hostel.tell(LinkUp(linked))
    hostel.pass_time(30.0)
    hostel.peer._departed._look_at = 0
    hostel.pass_time(2.0)
    peers = hostel.peer.ledger.peers
    assert linked in peers and gone not in peers
    assert hostel.peer.ledger.departed.superseded + hostel.peer.ledger.departed.applied == 2


def test_who_comes_back_begins_a_new_row_and_its_update_is_applied() -> None:
    hostel, guest = Hostel(), id_of(50)
    hostel.visit(guest)
    hostel.pass_time(30.0)
    hostel.peer._departed._look_at = 0
    hostel.pass_time(2.0)
    assert guest not in hostel.peer.ledger.pairs
    hostel.gossip(record_of(guest, epoch=2))
    hostel.tell(LinkUp(guest))
    hostel.say(guest, *offer_of(guest, 9, hostel.peer.step))
    hostel.pass_time(30.0)
    assert hostel.peer.ledger.pairs[guest].applied == 1


def test_a_member_that_changes_its_keys_without_end_is_no_growing_memory() -> None:
    own, other = (Identity.generate(SeededEntropy(k, b"keys")) for k in range(2))
    members: dict[PeerId, Member] = {}
    keyring = Keyring(own, members)
    for k in range(5_000):
        seal_key = hashlib.blake2b(b"%d" % k, digest_size=32).digest()
        members[other.peer_id] = Member(other.peer_id, "", "", bytes(32), seal_key)
        keyring.wrap(other.peer_id, bytes(32), bytes(24))
    assert len(keyring._shared) <= 1024
