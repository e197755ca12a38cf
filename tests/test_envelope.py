"""Sealing and signing: what was sealed opens, what was changed anywhere does not, and published vectors come out."""

import hashlib
from dataclasses import replace

import msgpack
import pytest
from nacl import bindings

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity, Keyring
from tests.offers import ANN, BOB, CAT, CHUNK_DIGESTS, ENTROPY, KEY, LENGTH, RINGS, an_offer, open_as


def reason_of(reader: Identity, offer: wire.Offer) -> Reason:
    with pytest.raises(RejectedFrame) as refusal:
        open_as(reader, offer)
    reason = refusal.value.reason
    is_proved = list(Reason).index(reason) > list(Reason).index(Reason.BAD_SIGNATURE)
    assert refusal.value.blame == (ANN.peer_id if is_proved else None)
    return reason


# ---- chunks -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 15, 65_536, envelope.CHUNK_BYTES - 1, envelope.CHUNK_BYTES])
def test_a_sealed_chunk_opens_into_its_place(length: int) -> None:
    plain = hashlib.shake_128(b"plain").digest(length)
    sealed = envelope.seal_chunk(KEY, 3, True, memoryview(plain))
    assert len(sealed) == length + wire.TAG_BYTES
    place = memoryview(bytearray(length + 2))
    assert envelope.open_chunk(KEY, 3, True, memoryview(sealed), place[1:-1]) is not None
    assert place.tobytes() == b"\0" + plain + b"\0"
    assert envelope.open_chunk(KEY, 3, True, sealed) == plain


def test_the_sealed_lengths_of_a_payload_add_up() -> None:
    length = 2 * envelope.CHUNK_BYTES + 5
    lengths = [envelope.sealed_length(length, k) for k in range(envelope.chunk_count(length))]
    assert lengths == [envelope.CHUNK_BYTES + 16, envelope.CHUNK_BYTES + 16, 5 + 16]


def test_a_chunk_opens_at_no_other_place_and_under_no_other_key() -> None:
    sealed = envelope.seal_chunk(KEY, 3, False, b"plain")
    assert envelope.open_chunk(KEY, 4, False, sealed) is None
    assert envelope.open_chunk(KEY, 3, True, sealed) is None  # a payload can't be cut short at a chunk
    assert envelope.open_chunk(b"x" * 32, 3, False, sealed) is None


@pytest.mark.fault("flipped bit")
def test_a_flipped_bit_in_any_kibibyte_of_a_chunk_or_in_its_tag_is_found() -> None:
    sealed = envelope.seal_chunk(KEY, 0, True, bytes(envelope.CHUNK_BYTES))
    for at in [*range(0, envelope.CHUNK_BYTES, 1024), *range(len(sealed) - 16, len(sealed))]:
        flipped = bytearray(sealed)
        flipped[at] ^= 1 << at % 8
        assert envelope.open_chunk(KEY, 0, True, memoryview(flipped)) is None


@pytest.mark.fault("cut off")
def test_a_chunk_cut_off_at_any_kibibyte_is_found() -> None:
    sealed = envelope.seal_chunk(KEY, 0, True, bytes(65_536))
    for cut in [*range(0, len(sealed), 1024), *range(40), len(sealed) - 1]:
        assert envelope.open_chunk(KEY, 0, True, sealed[:cut]) is None


# ---- published vectors --------------------------------------------------------------------------------------------------


def test_the_cipher_is_the_one_of_the_draft() -> None:
    """draft-irtf-cfrg-xchacha-03, A.3.1."""
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    )
    sealed = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), nonce, key)
    assert sealed.hex() == (
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )


def test_a_chunk_is_that_cipher_with_its_index_and_its_last_flag_as_the_nonce() -> None:
    nonce = bytes.fromhex("0000000000000005" + "01" + "00" * 15)
    expected = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(b"plain", None, nonce, KEY)
    assert envelope.seal_chunk(KEY, 5, True, b"plain") == expected


def test_a_digest_is_blake2b() -> None:
    """RFC 7693, appendix A, gives 64 bytes for "abc"; for 32 bytes, libsodium's implementation is the second opinion."""
    assert hashlib.blake2b(b"abc").hexdigest() == (
        "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
        "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"
    )
    theirs = bindings.crypto_generichash_blake2b_salt_personal(b"abc", digest_size=32)
    assert envelope.digest(b"abc") == theirs == envelope.digest(memoryview(b"abc"))


@pytest.mark.parametrize(
    ("ours", "purpose", "message"),
    [
        (envelope.commitment(KEY), b"p2pfl/commit", KEY),
        (envelope.readers_digest([b"b" * 32, b"a" * 32]), b"p2pfl/readers", b"a" * 32 + b"b" * 32),
        (envelope.chunks_digest(258, [b"d" * 32, b"c" * 32]), b"p2pfl/chunks", b"\0" * 6 + b"\1\2" + b"d" * 32 + b"c" * 32),
    ],
)
def test_digests_of_different_purposes_can_never_be_equal(ours: bytes, purpose: bytes, message: bytes) -> None:
    """The purpose is BLAKE2b's personalization; libsodium's implementation of it is not the one we use."""
    person = purpose.ljust(16, b"\0")
    assert ours == bindings.crypto_generichash_blake2b_salt_personal(message, digest_size=32, person=person)


# ---- offers -------------------------------------------------------------------------------------------------------------


def test_every_reader_gets_the_key_and_nobody_else() -> None:
    offer = an_offer(BOB, CAT)
    assert open_as(BOB, offer) == open_as(CAT, offer) == KEY
    assert reason_of(ANN, offer) is Reason.NOT_FOR_US


def test_an_offer_survives_the_wire() -> None:
    assert open_as(BOB, wire.decode(wire.encode(an_offer(CAT, BOB)))) == KEY


@pytest.mark.fault("flipped bit")
def test_a_flipped_bit_in_any_byte_of_the_header_is_a_bad_header_or_a_bad_signature() -> None:
    offer = an_offer(BOB)
    for at in range(len(offer.header)):
        flipped = bytearray(offer.header)
        flipped[at] ^= 1 << at % 8
        assert reason_of(BOB, replace(offer, header=bytes(flipped))) in (
            Reason.BAD_HEADER,
            Reason.VERSION,
            Reason.BAD_SIGNATURE,
        )


@pytest.mark.fault("flipped bit")
@pytest.mark.parametrize("at", range(64))
def test_a_flipped_bit_in_any_byte_of_the_signature_is_found(at: int) -> None:
    offer = an_offer(BOB)
    flipped = bytearray(offer.signature)
    flipped[at] ^= 1 << at % 8
    assert reason_of(BOB, replace(offer, signature=bytes(flipped))) is Reason.BAD_SIGNATURE


def test_the_signature_covers_the_length_and_every_chunk() -> None:
    offer = an_offer(BOB)
    assert reason_of(BOB, replace(offer, length=LENGTH + 1)) is Reason.BAD_SIGNATURE
    assert reason_of(BOB, replace(offer, digests=(b"1" * 32, b"3" * 32))) is Reason.BAD_SIGNATURE
    assert reason_of(BOB, replace(offer, digests=CHUNK_DIGESTS[::-1])) is Reason.BAD_SIGNATURE


def test_what_another_member_or_a_stranger_signed_is_not_the_signers() -> None:
    offer = an_offer(BOB)
    digest = envelope.digest(offer.header)
    assert reason_of(BOB, replace(offer, signature=RINGS[CAT.peer_id].sign(envelope.UPDATE_CONTEXT, digest))) is (
        Reason.BAD_SIGNATURE
    )
    stranger = Identity.generate(ENTROPY)
    signed = Keyring(stranger, {}).sign(envelope.UPDATE_CONTEXT, digest)
    assert reason_of(BOB, replace(an_offer(BOB, signer=stranger.peer_id), signature=signed)) is Reason.BAD_SIGNATURE


def test_a_signature_of_another_context_is_no_updates() -> None:
    offer = an_offer(BOB)
    signature = RINGS[ANN.peer_id].sign(b"p2pfl/other/v1\0", envelope.digest(offer.header))
    assert reason_of(BOB, replace(offer, signature=signature)) is Reason.BAD_SIGNATURE


def test_a_header_is_verified_as_it_came_however_its_numbers_were_written() -> None:
    header = wire.decode_header(an_offer(BOB).header)
    values = msgpack.unpackb(wire.encode_header(header))
    # 5 as a 64-bit number: valid msgpack, but not how we would write it.
    written = b"\xdc\x00\x10" + b"".join(b"\xcf" + v.to_bytes(8, "big") if v == 5 else msgpack.packb(v) for v in values)
    assert wire.decode_header(written) == header
    assert written != wire.encode_header(header)
    signature = RINGS[ANN.peer_id].sign(envelope.UPDATE_CONTEXT, envelope.digest(written))
    assert open_as(BOB, replace(an_offer(BOB), header=written, signature=signature)) == KEY


@pytest.mark.fault("wrong reader")
def test_readers_added_or_taken_away_by_a_relay_are_found() -> None:
    both, one = an_offer(BOB, CAT), an_offer(BOB)
    assert reason_of(BOB, replace(one, readers=both.readers)) is Reason.BAD_READERS
    assert reason_of(BOB, replace(both, readers=tuple(r for r in both.readers if r[0] == BOB.peer_id))) is Reason.BAD_READERS
    assert reason_of(CAT, replace(both, readers=one.readers)) is Reason.NOT_FOR_US


@pytest.mark.fault("wrong reader")
@pytest.mark.parametrize("wrapped", [bytes(72), b"x" * 72, an_offer(CAT).readers[0][1]], ids=["zeros", "junk", "for another"])
def test_a_key_that_was_not_wrapped_for_us_by_the_signer_is_refused(wrapped: bytes) -> None:
    assert reason_of(BOB, replace(an_offer(BOB), readers=((BOB.peer_id, wrapped),))) is Reason.BAD_WRAP


@pytest.mark.fault("flipped bit")
def test_a_flipped_bit_anywhere_in_a_wrapped_key_is_found() -> None:
    offer = an_offer(BOB)
    ((reader, wrapped),) = offer.readers
    for at in range(len(wrapped)):
        flipped = bytearray(wrapped)
        flipped[at] ^= 1 << at % 8
        assert reason_of(BOB, replace(offer, readers=((reader, bytes(flipped)),))) is Reason.BAD_WRAP


@pytest.mark.fault("cut off")
def test_a_wrap_cut_short_does_not_pass_the_decoder() -> None:
    ((reader, wrapped),) = (offer := an_offer(BOB)).readers
    with pytest.raises(RejectedFrame) as refusal:
        wire.decode(wire.encode(replace(offer, readers=((reader, wrapped[:-1]),))))
    assert refusal.value.reason is Reason.BAD_HEADER


def test_a_key_that_is_not_the_committed_one_is_refused() -> None:
    assert reason_of(BOB, an_offer(BOB, key=b"another key".ljust(32))) is Reason.BAD_COMMITMENT


def test_the_earlier_of_two_faults_is_named() -> None:
    no_longer_ours = {"readers": an_offer(CAT).readers}
    broken = an_offer(BOB, key=bytes(32), readers_digest=bytes(32))
    junk = ((PeerId(BOB.peer_id), bytes(72)),)
    unsigned = {"signature": bytes(64)}
    assert reason_of(BOB, replace(broken, **unsigned, **no_longer_ours)) is Reason.BAD_SIGNATURE
    assert reason_of(BOB, replace(broken, **no_longer_ours)) is Reason.NOT_FOR_US
    assert reason_of(BOB, replace(broken, readers=junk)) is Reason.BAD_READERS
    assert reason_of(BOB, replace(an_offer(BOB, key=bytes(32)), readers=junk)) is Reason.BAD_WRAP
    assert reason_of(BOB, an_offer(BOB, key=bytes(32))) is Reason.BAD_COMMITMENT
