"""Why an update commits to its key: a ciphertext that opens under two keys exists, and this is how it is made.

Len, Grubbs, Ristenpart: Partitioning Oracle Attacks (USENIX Security 2021), section 3. Poly1305 is a polynomial in its key
modulo 2^130 - 5, so two blocks of ciphertext can be solved for that give one tag under two keys. A liar would send each of two
neighbors another key and so another model, under one signature and one digest.
"""

from dataclasses import replace

import pytest

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.errors import Reason, RejectedFrame
from tests.offers import ANN, BOB, CAT, RINGS, an_offer, open_as

P = (1 << 130) - 5
ONE, TWO = b"1" * 32, b"2" * 32
NONCE = bytes(8) + b"\1" + bytes(15)  # the first chunk, and the last


def sealed_under_both() -> bytes:
    """32 bytes of ciphertext and a tag that are authentic under ONE and under TWO."""
    (r, s), (q, t) = poly1305_key(ONE), poly1305_key(TWO)
    lengths = (32 << 64) + (1 << 128)  # the block that Poly1305 adds: no header, 32 bytes of text
    for tag in range(1000):
        # a r^3 + b r^2 + lengths r = tag - s (modulo P; the difference modulo 2^128), and the same for (q, t): two equations
        # for the blocks a and b.
        u, v = ((tag - s) % (1 << 128) - lengths * r) % P, ((tag - t) % (1 << 128) - lengths * q) % P
        u, v = u * pow(r, -2, P), v * pow(q, -2, P)
        a = (u - v) * pow(r - q, -1, P) % P
        b = (u - a * r) % P
        if a >> 128 == b >> 128 == 1:  # a block is 128 bits with a 1 before them
            return b"".join((x & (1 << 128) - 1).to_bytes(16, "little") for x in (a, b, tag))
    raise AssertionError("one tag in sixteen should do")


def poly1305_key(key: bytes) -> tuple[int, int]:
    """(r, s) of XChaCha20-Poly1305 for NONCE: the first block of the stream (RFC 8439, 2.6)."""
    subkey = chacha(key, NONCE[:16], adds=False)
    block = chacha(subkey[:16] + subkey[48:], bytes(8) + NONCE[16:], adds=True)
    r, s = (int.from_bytes(block[k : k + 16], "little") for k in (0, 16))
    return r & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF, s


def chacha(key: bytes, tail: bytes, adds: bool) -> bytes:
    """The ChaCha20 block function (RFC 8439, 2.3); HChaCha20 leaves out the addition at its end."""
    start = [int.from_bytes((b"expand 32-byte k" + key + tail)[k : k + 4], "little") for k in range(0, 64, 4)]
    x = list(start)
    columns = [(k, k + 4, k + 8, k + 12) for k in range(4)]
    diagonals = [(k, 4 + (k + 1) % 4, 8 + (k + 2) % 4, 12 + (k + 3) % 4) for k in range(4)]
    for quarter in (columns + diagonals) * 10:
        a, b, c, d = quarter
        for i, j, k, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            x[i] = (x[i] + x[j]) & 0xFFFFFFFF
            mixed = x[k] ^ x[i]
            x[k] = (mixed << turn | mixed >> 32 - turn) & 0xFFFFFFFF
    return b"".join(((a + b if adds else a) & 0xFFFFFFFF).to_bytes(4, "little") for a, b in zip(x, start, strict=True))


def test_one_ciphertext_opens_under_two_keys_to_two_contents() -> None:
    sealed = sealed_under_both()
    first = envelope.open_chunk(ONE, 0, True, sealed)
    second = envelope.open_chunk(TWO, 0, True, sealed)
    assert first is not None
    assert second is not None
    assert first != second


@pytest.mark.fault("wrong reader")
def test_but_only_the_reader_of_the_committed_key_opens_it() -> None:
    digests = (envelope.digest(sealed_under_both()),)
    changes = {"chunks_digest": envelope.chunks_digest(32, digests), "key_commitment": envelope.commitment(ONE)}
    honest, lie = (replace(an_offer(BOB, CAT, key=key, **changes), length=32, digests=digests) for key in (ONE, TWO))
    to_bob, to_cat = honest.readers, lie.readers
    both = tuple(mine if mine[0] == BOB.peer_id else other for mine, other in zip(to_bob, to_cat, strict=True))
    two_faced = wire.decode(wire.encode(replace(honest, readers=both)))
    assert isinstance(two_faced, wire.Offer)
    assert open_as(BOB, two_faced) == ONE
    with pytest.raises(RejectedFrame) as refusal:
        open_as(CAT, two_faced)
    assert (refusal.value.reason, refusal.value.blame) == (Reason.BAD_COMMITMENT, ANN.peer_id)
    # What it would have opened to, had it not looked at the commitment:
    wrapped = dict(two_faced.readers)[CAT.peer_id]
    assert RINGS[CAT.peer_id].unwrap(ANN.peer_id, wrapped) == TWO
