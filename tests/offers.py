"""Three members with real keys, and what one of them offers: for tests of what an offer proves."""

from dataclasses import replace

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.charter import Member
from p2pfl.protocol.identity import Identity, Keyring
from sim.entropy import SeededEntropy

ENTROPY = SeededEntropy(7, b"envelope")
ANN, BOB, CAT = (Identity.generate(ENTROPY) for _ in range(3))
MEMBERS = {i.peer_id: Member(i.peer_id, "", "", i.transport_key, i.seal_key) for i in (ANN, BOB, CAT)}
RINGS = {i.peer_id: Keyring(i, MEMBERS) for i in (ANN, BOB, CAT)}
KEY = ENTROPY.draw(32)
CHUNK_DIGESTS = (b"1" * 32, b"2" * 32)
LENGTH = envelope.CHUNK_BYTES + 1


def an_offer(*readers: Identity, key: bytes = KEY, **changes: object) -> wire.Offer:
    """Ann's offer to these readers, with these fields of its header changed before she signs."""
    ids = [reader.peer_id for reader in readers]
    header = wire.Header(
        network=b"n" * 16,
        charter=b"c" * 32,
        schema=b"s" * 32,
        signer=ANN.peer_id,
        boot_id=b"b" * 16,
        boot_epoch=1,
        seq=2,
        step=3,
        phase=0,
        part=0,
        age=4,
        samples=5,
        chunks_digest=envelope.chunks_digest(LENGTH, CHUNK_DIGESTS),
        readers_digest=envelope.readers_digest(ids),
        key_commitment=envelope.commitment(KEY),
    )
    nonces = [ENTROPY.draw(24) for _ in ids]
    return envelope.offer(replace(header, **changes), RINGS[ANN.peer_id], ids, key, nonces, LENGTH, CHUNK_DIGESTS)


def open_as(reader: Identity, offer: wire.Offer) -> bytes:
    """All that a reader checks, in its order."""
    header = wire.decode_header(offer.header)
    envelope.verify_signature(offer, header, RINGS[reader.peer_id])
    return envelope.open_offer(offer, header, reader.peer_id, RINGS[reader.peer_id])
