"""docs/protocol.md is enough to write another implementation: one that was written from it meets ours, and each understands
all that the other says."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from nacl.exceptions import BadSignatureError
from nacl.public import PrivateKey
from nacl.signing import SigningKey

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.admission import join
from p2pfl.protocol.admission.certificate import CERTIFICATE, Credential
from p2pfl.protocol.admission.record import RECORD
from p2pfl.protocol.admission.signed_charter import Charters, sign_charter
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, answer_digest
from tests import second_protocol
from tests.admission import DAY, NOW, Network, Person
from tests.second_peer import Keys, Life, SecondPeer
from topology import overlay

NET, ANN = Network(), Person("ann")
SIGNED = sign_charter(NET.root.sign, Charter(NET.name, NET.root.key, b"s" * 32, 8, GossipRules()), 1, NOW, {})
SECRETS = [bytes([k]) * 32 for k in (1, 2, 3)]


class Quiet(SecondPeer):
    """A second peer with known keys, that is in our network without having asked, and whose words go nowhere."""

    def __init__(self, keys: Keys | None = None) -> None:
        sign, transport, seal = SECRETS
        super().__init__("two", keys or Keys(SigningKey(sign), PrivateKey(transport), PrivateKey(seal)))
        self.life = Life(7, b"b" * 16)
        self.said: list[tuple[bytes, ...]] = []
        credential = NET.root.vouch(PeerId(self.keys.id), "two", NOW, 30, 1)
        self.network = second_protocol.Network(NET.id, NET.root.key, SIGNED.data, credential.data)
        self._learn(ANN.record(NET.id).data)

    def say(self, peer: bytes, *frames: bytes) -> None:
        self.said.append(frames)

    @property
    def keyring(self) -> Keyring:
        """Our own implementation's, with its secrets."""
        return Keyring(self.identity, {one.id: one for one in (self.member, ANN.member)})

    @property
    def identity(self) -> Identity:
        return Identity(*SECRETS)

    @property
    def member(self) -> Member:
        transport, seal = bytes(self.keys.transport.public_key), bytes(self.keys.seal.public_key)
        return Member(PeerId(self.keys.id), "two", "", transport, seal)


@pytest.fixture
def two() -> Iterator[Quiet]:
    peer = Quiet()
    yield peer
    peer.close()


def test_the_same_secrets_are_the_same_member_to_both(two: Quiet) -> None:
    identity = two.identity
    assert (identity.peer_id, identity.transport_key, identity.seal_key) == (
        two.keys.id,
        two.member.transport_key,
        two.member.seal_key,
    )


def test_both_make_the_same_names_of_a_network_and_its_charter(two: Quiet) -> None:
    ours = SIGNED.charter(NET.root.key)
    assert (two.network.charter_digest, two.network.schema) == (ours.digest, ours.schema)
    assert second_protocol.blake(NET.root.key + NET.name.encode(), b"p2pfl/net", 16) == ours.network_id


def test_every_message_of_the_second_peer_is_byte_for_byte_what_ours_makes_of_its_content(two: Quiet) -> None:
    ann = ANN.id
    two.hear(ann, [wire.encode(wire.Hello(NET.id, two.network.charter_digest, b"a" * 16, 1, 0, True))])
    two.hear(ann, [gossip_wire.encode(gossip_wire.Ping(b"t" * 24))])
    two.ping(ann)
    two.say(ann, second_protocol.frame(second_protocol.RECORDS, two.item()))
    two.send(bytes(8), ann)
    two.send(bytes(second_protocol.CHUNK_BYTES + 1), ann)
    name = wire.decode_header(wire.decode(two.said[-1][0]).header).chunks_digest  # type: ignore[union-attr]
    two.hear(ann, [wire.encode(wire.Credit(name, 2))])
    two.say(ann, second_protocol.frame(second_protocol.CREDIT, name, 2, 0))
    two.bye(ann)
    kinds = set[type[Any]]()
    for frames in two.said:
        number = frames[0][2]
        coder = wire if number < second_protocol.PING else gossip_wire
        message = coder.decode(frames[0])
        assert coder.encode(message) == frames[0]  # type: ignore[arg-type]
        kinds.add(type(message))
        if isinstance(message, wire.Offer):
            assert wire.encode_header(wire.decode_header(message.header)) == message.header
    assert kinds == {*wire.KINDS.values(), gossip_wire.Ping, gossip_wire.Ack, gossip_wire.Records}


def test_each_opens_what_the_other_signed_and_sealed(two: Quiet) -> None:
    payload = bytes(range(256)) * 5000  # two chunks
    frames, chunks = two.offer(payload, [ANN.id])
    offer = wire.decode(frames[0])
    assert isinstance(offer, wire.Offer)
    header = wire.decode_header(offer.header)
    ring = Keyring(ANN.identity, {two.member.id: two.member})
    envelope.verify_signature(offer, header, ring)
    key = envelope.open_offer(offer, header, ANN.id, ring)
    opened = [envelope.open_chunk(key, k, k == len(chunks) - 1, chunk) for k, chunk in enumerate(chunks)]
    assert b"".join(bytes(chunk or b"") for chunk in opened) == payload

    ours, sealed = ours_of(payload, two)
    two.hear(ANN.id, [wire.encode(ours)])
    for index, chunk in enumerate(sealed):
        two.hear(ANN.id, [wire.encode(wire.Chunk(wire.decode_header(ours.header).chunks_digest, index)), chunk])
    (update,) = two.updates
    assert update.payload == payload and update.header["samples"] == 5
    with pytest.raises(BadSignatureError):
        two.hear(ANN.id, [wire.encode(replace(ours, signature=bytes(64)))])


def ours_of(payload: bytes, reader: Quiet) -> tuple[wire.Offer, list[bytes]]:
    """Ann's offer by our implementation, and its sealed chunks."""
    key, charter = b"k" * 32, SIGNED.charter(NET.root.key)
    cut = [payload[at : at + wire.CHUNK_BYTES] for at in range(0, len(payload), wire.CHUNK_BYTES)]
    sealed = [envelope.seal_chunk(key, k, k == len(cut) - 1, chunk) for k, chunk in enumerate(cut)]
    digests = tuple(map(envelope.digest, sealed))
    named = envelope.chunks_digest(len(payload), digests), envelope.readers_digest([reader.keys.id]), envelope.commitment(key)
    header = wire.Header(NET.id, charter.digest, charter.schema, ANN.id, b"a" * 16, 1, 0, 0, 0, 0, 4, 5, *named)
    ring = Keyring(ANN.identity, {reader.member.id: reader.member})
    return envelope.offer(header, ring, [reader.member.id], key, [b"n" * 24], len(payload), digests), sealed


def test_statements_of_the_second_peer_are_the_ones_that_ours_would_sign(two: Quiet) -> None:
    record = RECORD.read(two.record(NET.id))
    assert record.is_genuine() and record.member("two") == two.member
    values = {name: getattr(record, name) for name in RECORD.fields}
    assert RECORD.issue(signer(two.identity.sign_seed), **values) == record

    asked = join.decode(two.question(str(NET.invite(now=two.now(), by=NET.root))), join.REQUEST_MAX)
    assert isinstance(asked, join.Join) and len(join.encode(asked)) == second_protocol.REQUEST_BYTES
    credential = Credential.read(asked.credential)
    credential.verify(NET.root.key, NET.id)
    assert credential.identity == two.keys.id and credential.receipt is None
    certificate = credential.certificate
    again = {name: getattr(certificate, name) for name in CERTIFICATE.fields}
    assert CERTIFICATE.issue(signer(b"t" * 32), **again) == certificate


def test_an_answer_for_a_helper_is_signed_for_the_one_who_asked(two: Quiet) -> None:
    ticket, asker = b"t" * 24, b"q" * 32
    two.hear(ANN.id, [gossip_wire.encode(gossip_wire.Ping(ticket, asker))])
    answer = gossip_wire.decode(two.said[-1][0])
    assert isinstance(answer, gossip_wire.Ack)
    digest = answer_digest(NET.id, PeerId(two.keys.id), PeerId(asker), ticket)
    assert two.keyring.verify(two.member.id, SWIM_CONTEXT, digest, answer.signature)


@pytest.mark.parametrize("kind", overlay.KINDS)
@pytest.mark.parametrize("count", [1, 2, 5, 6, 40])
def test_both_make_the_same_graph_of_the_same_members(kind: str, count: int) -> None:
    members = [second_protocol.blake(b"%d" % k) for k in range(count)]
    for own in members:
        assert second_protocol.neighbors(kind, members, own, 7, 4) == set(overlay.overlay(kind, members, own, 7, 4))
        assert second_protocol.targets(members, own, 7, 3, 4) == set(overlay.epidemic_targets(members, own, 7, 3, 4))


class Asker(Quiet):
    """The second peer before it is a member, at a moment of its own."""

    moment = int(NOW)

    def now(self) -> int:
        return self.moment


def asked(name: str = "two", moment: float = NOW, days: int = 30, ttl_s: float = 3600.0, root: Network = NET) -> bytes:
    """What it says at the door with an invite for one."""
    with closing(Asker()) as asker:
        asker.name, asker.moment = name, int(moment)
        return asker.question(str(root.invite(now=moment, ttl_s=ttl_s)), days)


def edited(place: int, value: Callable[[bytes], bytes]) -> bytes:
    fields = [second_protocol.VERSION, *second_protocol.fields_of(asked())]
    fields[place] = value(fields[place])
    return bytes(msgpack.packb(fields))


def changed_within(part: bytes) -> bytes:
    """A credential whose certificate its token did not sign."""
    version, certificate, *rest = msgpack.unpackb(part)
    return bytes(msgpack.packb([version, certificate[:-1] + bytes([certificate[-1] ^ 1]), *rest]))


AT_THE_DOOR: dict[str, bytes] = {
    "bad_header: a field too few": bytes(msgpack.packb([1, second_protocol.JOIN, bytes(80)])),
    "version: another one": b"\x96\x02" + asked()[2:],
    "kind: no question": second_protocol.frame(99, bytes(80)),
    "wrong_net: of another root": asked(root=Network(seed=2)),
    "bad_signature: of the record": edited(4, lambda record: record[:-1] + bytes([record[-1] ^ 1])),
    "bad_chain: of the certificate": edited(3, changed_within),
    "bad_ttl: over 90 days": asked(days=91),
    "cert_future: from tomorrow on": asked(moment=NOW + 2 * DAY),
    "cert_expired: until yesterday": asked(moment=NOW - 3 * DAY, days=1),
    "invite_expired: before the certificate": asked(moment=NOW - DAY / 2),
    "name_taken: by the door itself": asked(name="ann"),
}


@pytest.mark.parametrize("case", AT_THE_DOOR)
def test_a_door_refuses_under_the_documented_names(two: Quiet, case: str) -> None:
    door = join.Door(ANN.id, signer(ANN.identity.sign_seed), NET.roster(ANN), Charters(NET.root.key, SIGNED))
    visit = door.answer(AT_THE_DOOR[case], two.member.transport_key, NOW)
    assert (visit.reason, visit.admitted) == (case.split(":")[0], None)
    assert visit.answer is not None
    kind, reason, *_ = second_protocol.fields_of(visit.answer)
    assert (kind, reason.decode()) == (second_protocol.REFUSED, case.split(":")[0])


def test_a_door_lets_the_second_peer_in_by_its_own_key_once(two: Quiet) -> None:
    door = join.Door(ANN.id, signer(ANN.identity.sign_seed), NET.roster(ANN), Charters(NET.root.key, SIGNED))
    assert door.answer(asked(), b"k" * 32, NOW).reason == "hop_mismatch"
    welcome = door.answer(asked(), two.member.transport_key, NOW)
    assert welcome.admitted == two.keys.id and welcome.answer is not None
    network, papers = second_protocol.welcomed(NET.root.key, NET.id, welcome.answer)
    assert (network.charter, papers) == (SIGNED.data, [NET.direct(ANN).data, ANN.record(NET.id).data])
    known = second_protocol.listed([network.credential, NET.direct(ANN).data])
    assert second_protocol.fields_of(welcome.answer)[3] == second_protocol.blake(known, b"p2pfl/roster")
    assert second_protocol.vouched(NET.root.key, network.credential) == (NET.id, two.keys.id)
    with closing(Asker(Keys())) as three:
        question = three.question(str(NET.invite()))
        assert door.answer(question, bytes(three.keys.transport.public_key), NOW).reason == "invite_spent"
