"""What leaves a peer: one signature for many readers, and no more than a reader asked for."""

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.events import Outgoing, Payload, PeerId, Sealed
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.outbox import Outbox
from sim.entropy import SeededEntropy


class Scribble:
    """A signer whose signatures and wrapped keys are as long as real ones, and worth nothing."""

    def sign(self, context: bytes, digest: bytes) -> bytes:
        return bytes(wire.SIGNATURE_BYTES)

    def verify(self, signer: PeerId, context: bytes, digest: bytes, signature: bytes) -> bool:
        return False

    def wrap(self, reader: PeerId, key: bytes, nonce: bytes) -> bytes:
        return bytes(wire.WRAPPED_BYTES)

    def unwrap(self, sender: PeerId, wrapped: bytes) -> bytes | None:
        return None


def test_more_readers_than_an_offer_can_name_are_offered_the_same_content_in_several() -> None:
    charter = Charter("crowd", bytes(32), b"s" * 32, 8, GossipRules())
    outbox = Outbox(PeerId(b"o" * 32), 1, Scribble(), Agreement(charter), Boot(1, b"b" * 16), SeededEntropy(7, b"outbox"))
    outbox.begin(Outgoing(Payload(8, b"", b"8 bytes.")), ticket=1, step=0, part=0, age=0)
    chunk = bytes(8 + wire.TAG_BYTES)
    own, _ = outbox.sealed(Sealed(1, (Payload(len(chunk), envelope.digest(chunk), chunk),)))
    assert own is not None
    crowd = [PeerId(i.to_bytes(32, "big")) for i in range(wire.READERS_MAX + 1)]
    sends = outbox.offer(own, crowd, Ledger())
    assert [send.to for send in sends] == crowd
    offers = [wire.decode(bytes(send.frames[0])) for send in (sends[0], sends[-1])]
    assert [len(offer.readers) for offer in offers] == [wire.READERS_MAX, 1]
    headers = [wire.decode_header(offer.header) for offer in offers]
    assert [header.seq for header in headers] == [0, 1]
    assert headers[0].chunks_digest == headers[1].chunks_digest
