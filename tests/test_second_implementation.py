"""docs/protocol.md is enough to write another implementation: one that was written from it meets ours, and each understands
all that the other says."""

import functools
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from nacl.exceptions import BadSignatureError
from nacl.public import PrivateKey
from nacl.signing import SigningKey
from safetensors.numpy import load_file

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.admission import join
from p2pfl.protocol.admission.certificate import CERTIFICATE, Credential, Role
from p2pfl.protocol.admission.record import RECORD
from p2pfl.protocol.admission.signed_charter import Charters, sign_charter
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, answer_digest
from tests import second_peer
from tests.admission import DAY, NOW, Network, Person
from tests.second_peer import Keys, Life, SecondPeer
from tests.test_founded import Ward, ended_after, founded, office, until
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
        self.network = second_peer.Network(NET.id, NET.root.key, SIGNED.data, credential.data)
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
    assert second_peer.blake(NET.root.key + NET.name.encode(), b"p2pfl/net", 16) == ours.network_id


def test_every_message_of_the_second_peer_is_byte_for_byte_what_ours_makes_of_its_content(two: Quiet) -> None:
    ann = ANN.id
    two.hear(ann, [wire.encode(wire.Hello(NET.id, two.network.charter_digest, b"a" * 16, 1, 0, True))])
    two.hear(ann, [gossip_wire.encode(gossip_wire.Ping(b"t" * 24))])
    two.ping(ann)
    two.say(ann, second_peer.frame(second_peer.RECORDS, two.item()))
    two.send(bytes(8), ann)
    two.send(bytes(second_peer.CHUNK_BYTES + 1), ann)
    name = wire.decode_header(wire.decode(two.said[-1][0]).header).chunks_digest  # type: ignore[union-attr]
    two.hear(ann, [wire.encode(wire.Credit(name, 2))])
    two.say(ann, second_peer.frame(second_peer.CREDIT, name, 2, 0))
    two.bye(ann)
    kinds = set[type[Any]]()
    for frames in two.said:
        number = frames[0][2]
        coder = wire if number < second_peer.PING else gossip_wire
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
    assert isinstance(asked, join.Join) and len(join.encode(asked)) == second_peer.REQUEST_BYTES
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
    members = [second_peer.blake(b"%d" % k) for k in range(count)]
    for own in members:
        assert second_peer.neighbors(kind, members, own, 7, 4) == set(overlay.overlay(kind, members, own, 7, 4))
        assert second_peer.targets(members, own, 7, 3, 4) == set(overlay.epidemic_targets(members, own, 7, 3, 4))


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
    fields = [second_peer.VERSION, *second_peer.fields_of(asked())]
    fields[place] = value(fields[place])
    return bytes(msgpack.packb(fields))


def changed_within(part: bytes) -> bytes:
    """A credential whose certificate its token did not sign."""
    version, certificate, *rest = msgpack.unpackb(part)
    return bytes(msgpack.packb([version, certificate[:-1] + bytes([certificate[-1] ^ 1]), *rest]))


AT_THE_DOOR: dict[str, bytes] = {
    "bad_header: a field too few": bytes(msgpack.packb([1, second_peer.JOIN, bytes(80)])),
    "version: another one": b"\x96\x02" + asked()[2:],
    "kind: no question": second_peer.frame(99, bytes(80)),
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
    kind, reason, *_ = second_peer.fields_of(visit.answer)
    assert (kind, reason.decode()) == (second_peer.REFUSED, case.split(":")[0])


def test_a_door_lets_the_second_peer_in_by_its_own_key_once(two: Quiet) -> None:
    door = join.Door(ANN.id, signer(ANN.identity.sign_seed), NET.roster(ANN), Charters(NET.root.key, SIGNED))
    assert door.answer(asked(), b"k" * 32, NOW).reason == "hop_mismatch"
    welcome = door.answer(asked(), two.member.transport_key, NOW)
    assert welcome.admitted == two.keys.id and welcome.answer is not None
    network, papers = second_peer.welcomed(NET.root.key, NET.id, welcome.answer)
    assert (network.charter, papers) == (SIGNED.data, [NET.direct(ANN).data, ANN.record(NET.id).data])
    known = second_peer.listed([network.credential, NET.direct(ANN).data])
    assert second_peer.fields_of(welcome.answer)[3] == second_peer.blake(known, b"p2pfl/roster")
    assert second_peer.vouched(NET.root.key, network.credential) == (NET.id, two.keys.id)
    with closing(Asker(Keys())) as three:
        question = three.question(str(NET.invite()))
        assert door.answer(question, bytes(three.keys.transport.public_key), NOW).reason == "invite_spent"


# ---- a real node --------------------------------------------------------------------------------------------------------


@dataclass
class Met:
    """A founded network's only node, and the second peer that has joined it over its door."""

    ann: Ward
    two: SecondPeer
    line: str

    @property
    def peer(self) -> bytes:
        (peer,) = (peer for peer in self.two.records if peer != self.two.keys.id)
        return peer

    def of_two(self) -> Any:
        """What the node's status says of the second peer."""
        return self.ann.neighbors()["two"]

    def refused(self, reason: str) -> int:
        return int(self.of_two()["refusals"].get(reason, 0))

    def is_refused(self, reason: str, before: int) -> bool:
        return self.refused(reason) > before

    def follow(self, count: int = 1) -> bytes:
        """Hear updates until some new ones are here; the payload of the newest, whose step is the second peer's now."""
        there = len(self.two.updates)
        self.two.pump(lambda: len(self.two.updates) >= there + count)
        self.two.step = self.two.updates[-1].header["step"]
        return self.two.updates[-1].payload


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Met]:
    ann = founded(tmp_path_factory.mktemp("second"))
    with ended_after(ann), closing(SecondPeer("two")) as two:
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line = str(office(ann).invite(3600.0, 1, Role.MEMBER)[0])
        two.join(line)
        found = Met(ann, two, line)
        two.dial(found.peer)
        found.follow()
        yield found


@pytest.mark.net
def test_the_second_peer_is_a_member_by_an_invite_and_its_update_is_applied(met: Met) -> None:
    assert met.ann.states() == {"ann": "alive", "two": "alive"}
    assert met.ann.ask("status")["membership"]["let_in"] == 1
    applied = met.of_two()["applied"]
    met.two.send(met.follow(), met.peer)
    met.two.pump(lambda: met.of_two()["applied"] > applied)
    assert not met.of_two()["refusals"]


@dataclass
class Offers:
    """Offers of the newest vector, each for another part: two contents for one part would be refused as that."""

    met: Met
    part: int = 100

    def frames(self, readers: Sequence[bytes] = (), **changed: Any) -> list[bytes]:
        self.part += 1
        changed = {"part": self.part} | changed
        vector = changed.pop("payload", self.met.two.updates[-1].payload)
        return self.met.two.offer(vector, readers or [self.met.peer], **changed)[0]

    def say(self, *frames: bytes) -> None:
        self.met.two.say(self.met.peer, *frames)


Provoke = Callable[[Offers], None]


@pytest.mark.net
def test_two_views_and_two_rosters_that_are_equal_are_so_to_both(met: Met) -> None:
    """What differs is answered in detail, and what is the same by nothing at all."""
    two = met.two
    heard = next(said for _, kind, said in two.heard if kind == second_peer.INVENTORY)
    assert heard[0] == second_peer.inventoried([*two.credentials])

    def summaries() -> list[list[Any]]:
        return [said for _, kind, said in two.heard if kind == second_peer.SUMMARY]

    two.say(met.peer, second_peer.digests({}))
    two.pump(summaries)
    mask, entries = summaries()[-1]
    assert int.from_bytes(mask, "big").bit_count() == len({peer[0] >> 2 for peer in two.records})
    told = [struct.unpack(">32sQQB", entries[at : at + 49]) for at in range(0, len(entries), 49)]
    assert [peer for peer, *_ in told] == sorted(two.records)

    before = len(summaries())
    two.say(met.peer, second_peer.digests({peer: tuple(version) for peer, *version in told}))  # type: ignore[misc]
    ticket = two.ping(met.peer)
    two.pump(lambda: any(kind == second_peer.ACK and said[0] == ticket for _, kind, said in two.heard))
    assert len(summaries()) == before


def header(**changed: Any) -> Provoke:
    """With other fields in its signed header."""
    return lambda offers: offers.say(*offers.frames(**changed))


def field(place: int, edit: Callable[[bytes], bytes]) -> Provoke:
    """With another field in its first frame, of which nobody signed that it is so."""

    def say(offers: Offers) -> None:
        first, *rest = offers.frames()
        fields = [second_peer.VERSION, *second_peer.fields_of(first)]
        fields[place] = edit(fields[place])
        offers.say(msgpack.packb(fields), *rest)

    return say


def frames(*said: bytes) -> Provoke:
    return lambda offers: offers.say(*said)


def other_hello(place: int, value: bytes) -> Provoke:
    def say(offers: Offers) -> None:
        fields = [second_peer.VERSION, *second_peer.fields_of(offers.met.two.hello(reply=False))]
        fields[place] = value
        offers.say(msgpack.packb(fields))

    return say


def begins_with(value: float) -> Provoke:
    """A whole, honest update of this round, but for its first value."""

    def say(offers: Offers) -> None:
        vector = np.frombuffer(offers.met.follow(), "<f4").copy()
        vector[0] = value
        offers.say(*offers.frames(payload=vector.tobytes()))

    return say


def twice(offers: Offers) -> None:
    said = offers.frames()
    offers.say(*said)
    offers.say(*said)


def far_back(offers: Offers) -> None:
    """A number that was never used, 64 below the highest."""
    offers.met.two.seq += 100
    offers.say(*offers.frames())
    offers.say(*offers.frames(seq=offers.met.two.seq - 64))
    offers.met.two.seq += 1


def two_contents(offers: Offers) -> None:
    offers.say(*offers.frames(part=7))
    offers.say(*offers.frames(part=7))  # under another key


def another_chunk(offers: Offers) -> None:
    first, chunk = offers.frames()
    offers.say(first, bytes(len(chunk)))


LAYER = ("weight", "bias")


BYE = second_peer.frame(second_peer.BYE, 0)
REFUSED: dict[str, Provoke] = {
    "bad_frames: a second frame behind a Bye": frames(BYE, b"more"),
    "bad_frames: a chunk over its limit": frames(BYE, bytes(2**20 + 17)),
    "bad_header: no array": frames(b"hello, world"),
    "bad_header: a first frame over its limit": frames(b"\x93\x01\x17\xc6" + (2**18).to_bytes(4, "big") + bytes(2**18)),
    "bad_header: a field too many": frames(second_peer.frame(second_peer.BYE, 0, 0)),
    "bad_header: a text": frames(second_peer.frame(second_peer.BYE, "0")),
    "version: another one": frames(b"\x93\x02\x05\x00"),
    "kind: an unknown one": frames(second_peer.frame(99, 0)),
    "wrong_net: in a Hello": other_hello(2, bytes(16)),
    "wrong_net: in a header": header(network=bytes(16)),
    "wrong_charter: in a Hello": other_hello(3, bytes(32)),
    "wrong_charter: in a header": header(charter=bytes(32)),
    "bad_schema: in a header": header(schema=bytes(32)),
    "bad_schema: another length": header(payload=bytes(4)),
    "hop_mismatch: signed by somebody else": header(signer=bytes(32)),
    "future_step: beyond the last round": header(step=1_000_000),
    "replayed: the same offer again": twice,
    "replayed: of an earlier life": header(boot_epoch=1),
    "replayed: older than the window": far_back,
    "bad_signature: none": field(3, lambda _signature: bytes(64)),
    "bad_signature: the header was changed": field(2, lambda header: header[:-1] + bytes([header[-1] ^ 1])),
    "bad_signature: other chunks than were signed": field(5, lambda _digests: bytes(32)),
    "equivocation: two contents": two_contents,
    "not_for_us: for its own eyes": lambda offers: offers.say(*offers.frames([offers.met.two.keys.id])),
    "bad_readers: others than were signed": header(readers_digest=bytes(32)),
    "bad_wrap: no key": field(6, lambda readers: readers[:32] + bytes(72)),
    "bad_commitment: to another key": header(key_commitment=bytes(32)),
    "unexpected_chunk: never offered": frames(second_peer.frame(second_peer.CHUNK, bytes(32), 0), b"sealed"),
    "bad_chunk: another than was offered": another_chunk,
    "non_finite: infinite": begins_with(float("inf")),
    "too_large: over the charter's bound": begins_with(2000.0),
}


@pytest.mark.net
def test_every_documented_refusal_that_a_member_can_provoke_is_counted_under_its_name(met: Met) -> None:
    met.follow()
    offers = Offers(met)
    for case, provoke in REFUSED.items():
        reason = case.split(":")[0]
        before = met.refused(reason)
        provoke(offers)
        with suppress(TimeoutError):
            met.two.pump(functools.partial(met.is_refused, reason, before), 5.0)
        assert met.refused(reason) == before + 1, (case, met.of_two()["refusals"])
    assert {case.split(":")[0] for case in REFUSED} <= set(Reason)
    applied = met.of_two()["applied"]  # and the next honest one is as good as ever
    met.two.send(met.follow(), met.peer)
    met.two.pump(lambda: met.of_two()["applied"] > applied)


@pytest.mark.net
def test_what_the_second_peer_opened_last_is_the_vector_that_the_node_leaves_on_its_disk(met: Met) -> None:
    met.ann.ask("leave")
    met.two.pump(lambda: met.two.heard[-1][1] == second_peer.BYE)
    assert met.ann.ended()[0] == 0
    newest = max(met.ann.folder.checkpoints.glob("*.safetensors"))
    vector = met.two.updates[-1].payload
    assert load_file(newest)["vector"].tobytes() == vector
    model = load_file(met.ann.folder.model)
    assert b"".join(model[name].tobytes() for name in LAYER) == vector
    slots = [[name, model[name].shape] for name in LAYER]
    layout = {"algorithm": "dsgd", "codec": "dense", "dtype": "float32", "labels": [*map(str, range(10))], "slots": slots}
    assert second_peer.blake(json.dumps(layout, sort_keys=True).encode()) == met.two.network.schema
