"""What peers of version 1 say is heard by every later program that says it is of version 1, byte for byte; recorded once.

When a test here fails, peers of two builds would refuse each other though both call themselves version 1. Make the change
version 2 (`wire.PROTOCOL_VERSION`) and record that beside `wire_v1.txt`; never record version 1 anew. Only a kind of message
that is new gets a new line: `python -m tests.test_wire_recorded` prints those that are missing.
"""

from pathlib import Path
from typing import Any

import pytest

from node.transport import routes
from p2pfl.protocol import envelope, wire
from p2pfl.protocol.admission import join, reconciliation, signed_charter
from p2pfl.protocol.admission.record import RECORD
from p2pfl.protocol.admission.revocation import REVOCATION, Cause
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, Accusation, Version, accusation_digest, answer_digest
from p2pfl.protocol.relay import handshake, relay_wire
from sim.entropy import SeededEntropy
from tests.admission import NOW, Network, Person

FILE = Path(__file__).parent / "wire_v1.txt"
RECORDED = {name: bytes.fromhex(data) for name, data in (line.split() for line in FILE.read_text("ascii").splitlines())}
NET, ANN, BOB, CAT = Network(), Person("ann"), Person("bob"), Person("cat")
RING = Keyring(ANN.identity, {one.id: one.member for one in (ANN, BOB, CAT)})
TICKET, KEY = b"b" * 16 + bytes(7) + b"\1", b"k" * 32
PAYLOAD = bytes(range(256)) * 4
CALLER, CALLEE = (handshake.Ephemeral.generate(SeededEntropy(7, purpose)) for purpose in (b"caller", b"callee"))
SESSION = handshake.session_keys(CALLER.secret, CALLEE.public, b"transcript", is_caller=True).session
KINDS = wire.KINDS | gossip_wire.KINDS | relay_wire.KINDS | join.KINDS | reconciliation.KINDS


CHARTER = signed_charter.CHARTER.issue(
    NET.root.sign,
    network=NET.id,
    name=NET.name,
    serial=1,
    signed_at=int(NOW),
    schema=b"s" * 32,
    update_bytes=len(PAYLOAD),
    settings=b'{"gossip":{"rounds":3},"limits":{"max_abs":1000.0}}',
)


def an_offer() -> tuple[wire.Header, wire.Offer, bytes]:
    """By Ann, for Bob and Cat."""
    agreed = CHARTER.charter(NET.root.key)
    sealed = envelope.seal_chunk(KEY, 0, True, PAYLOAD)
    digests, readers = (envelope.digest(sealed),), [BOB.id, CAT.id]
    named = envelope.chunks_digest(len(PAYLOAD), digests), envelope.readers_digest(readers), envelope.commitment(KEY)
    header = wire.Header(NET.id, agreed.digest, agreed.schema, ANN.id, b"b" * 16, 1, 300, 2, 0, 0, 40, 70_000, *named)
    return header, envelope.offer(header, RING, readers, KEY, [b"n" * 24, b"m" * 24], len(PAYLOAD), digests), sealed


def a_record() -> bytes:
    return ANN.record(NET.id, neighbors=[BOB.id]).data


def said() -> dict[str, Any]:
    """One of every kind."""
    header, offer, _ = an_offer()
    version = Version(1, 2)
    accused = RING.sign(SWIM_CONTEXT, accusation_digest(NET.id, ANN.id, BOB.id, version))
    answered = RING.sign(SWIM_CONTEXT, answer_digest(NET.id, ANN.id, CAT.id, TICKET))
    introduction = gossip_wire.Introduction(a_record(), NET.direct(ANN).data)
    revocation = NET.root.revoke(CAT.id, Cause.STOLEN, NOW).data
    told = (introduction, Accusation(ANN.id, BOB.id, version, accused), gossip_wire.Revoked(revocation))
    buckets = tuple(bytes([k] * 8) for k in range(64))
    entries = tuple(sorted(gossip_wire.Entry(one.id, version, one is BOB) for one in (ANN, BOB)))
    tunnel = (NET.id, ANN.id, BOB.id, CALLER.public)
    knocked = RING.sign(handshake.TUNNEL_CONTEXT, handshake.knock_digest(*tunnel))
    granted = Keyring(BOB.identity, {}).sign(handshake.TUNNEL_CONTEXT, handshake.answer_digest(*tunnel, CALLEE.public))
    return {
        "hello": wire.Hello(NET.id, header.charter, b"b" * 16, 1, 2, True),
        "offer": offer,
        "credit": wire.Credit(header.chunks_digest, 1, 0),
        "chunk": wire.Chunk(header.chunks_digest, 0),
        "bye": wire.Bye(3),
        "ping": gossip_wire.Ping(TICKET, CAT.id, gossip_wire.encode_item(introduction)),
        "ack": gossip_wire.Ack(TICKET, answered),
        "ping_request": gossip_wire.PingRequest(TICKET, BOB.id),
        "nack": gossip_wire.Nack(TICKET),
        "digests": gossip_wire.Digests(buckets, b"r" * 32),
        "summary": gossip_wire.Summary(1 << 63 | 1, entries),
        "wanted": gossip_wire.Wanted((ANN.id,)),
        "records": gossip_wire.Records(b"".join(map(gossip_wire.encode_item, told))),
        "knock": relay_wire.Knock(BOB.id, CALLER.public, knocked),
        "answer": relay_wire.Answer(ANN.id, CALLER.public, CALLEE.public, granted),
        "wake": relay_wire.Wake(BOB.id),
        "carried": relay_wire.Carried(BOB.id, SESSION, True, 5),
        "taken": relay_wire.Taken(BOB.id, SESSION, 6),
        "not_reachable": relay_wire.NotReachable(BOB.id),
        "join": join.Join(NET.id, NET.direct(BOB).data, BOB.record(NET.id).data, bytes(3)),
        "welcome": join.Welcome(CHARTER.data, NET.direct(BOB).data, b"d" * 32, (NET.direct(ANN).data, a_record()), ()),
        "refused": join.Refused(Reason.REVOKED, (revocation,)),
        "inventory": reconciliation.Inventory(b"".join(buckets), 1, b"n" * 16, int(NOW), True),
        "papers": reconciliation.Papers(CHARTER.data, b"", (NET.direct(ANN).data,), (revocation,)),
    }


def written() -> dict[str, bytes]:
    """What this program makes of it, and what stands beside messages."""
    header, _, sealed = an_offer()
    messages = {name: module_of(message).encode(message) for name, message in said().items()}
    link = {"announcement": routes.announcement(routes.BULK, b"t" * 8)}
    return messages | link | {"header": wire.encode_header(header), "sealed_chunk": sealed}


def module_of(message: Any) -> Any:
    return next(one for one in (wire, gossip_wire, relay_wire, join, reconciliation) if type(message) in one.FIELDS)


def test_every_kind_of_message_was_recorded() -> None:
    assert sorted(map(type, said().values()), key=str) == sorted(KINDS.values(), key=str)
    assert RECORDED.keys() == written().keys()


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_written_now_is_byte_for_byte_what_was_recorded(name: str) -> None:
    assert written()[name] == RECORDED[name]


def test_recorded_messages_are_read_and_mean_what_they_meant() -> None:
    for name, message in said().items():
        module, frame = module_of(message), RECORDED[name]
        if module is relay_wire:
            found = relay_wire.read((frame, b"sealed" * 9) if name == "carried" else (frame,))[0]
        elif module is join:
            found = join.decode(frame, join.WELCOME_MAX)
        else:
            found = module.decode(frame)
        assert found == message, name


def test_the_recorded_update_is_verified_unwrapped_and_opened() -> None:
    offer = wire.decode(RECORDED["offer"])
    assert isinstance(offer, wire.Offer) and offer.header == RECORDED["header"]
    header = wire.decode_header(offer.header)
    for reader in (BOB, CAT):
        ring = Keyring(reader.identity, {ANN.id: ANN.member})
        envelope.verify_signature(offer, header, ring)
        key = envelope.open_offer(offer, header, reader.id, ring)
        assert envelope.open_chunk(key, 0, True, RECORDED["sealed_chunk"]) == PAYLOAD
    assert (envelope.digest(RECORDED["sealed_chunk"]),) == offer.digests


def test_the_recorded_items_and_answers_are_their_signers() -> None:
    records = gossip_wire.decode(RECORDED["records"])
    assert isinstance(records, gossip_wire.Records)
    introduced, accusation, revoked = gossip_wire.decode_items(records.items)
    assert isinstance(introduced, gossip_wire.Introduction) and RECORD.read(introduced.record).is_genuine()
    assert isinstance(accusation, Accusation) and isinstance(revoked, gossip_wire.Revoked)
    digest = accusation_digest(NET.id, ANN.id, BOB.id, accusation.version)
    assert RING.verify(ANN.id, SWIM_CONTEXT, digest, accusation.signature)
    assert REVOCATION.read(revoked.revocation).signer == NET.root.key
    answer = gossip_wire.decode(RECORDED["ack"])
    assert isinstance(answer, gossip_wire.Ack)
    assert RING.verify(ANN.id, SWIM_CONTEXT, answer_digest(NET.id, ANN.id, CAT.id, TICKET), answer.signature)
    assert routes.is_announcement(RECORDED["announcement"])


if __name__ == "__main__":
    print("\n".join(f"{name} {data.hex()}" for name, data in written().items() if name not in RECORDED))
