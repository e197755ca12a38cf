"""Sealing in place and PyNaCl's own sealing are one: the same bytes, the same refusals, and no byte beyond what is ours."""

import pytest
from nacl import bindings

from p2pfl.protocol import cipher
from p2pfl.protocol.wire import TAG_BYTES

KEY, NONCE = bytes(range(32)), bytes(range(24))
LENGTHS = (0, 1, 63, 64, 65, 4_096, 1 << 20)


def theirs(plain: bytes) -> bytes:
    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, None, NONCE, KEY)


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_sealed_in_place_is_what_pynacl_makes_of_it_and_nothing_around_it_changes(length: int) -> None:
    plain = bytes(i % 251 for i in range(length))
    room = bytearray(b"<" + plain + bytes(TAG_BYTES) + b">")
    cipher.seal_in_place(memoryview(room)[1:-1], NONCE, KEY)
    assert bytes(room) == b"<" + theirs(plain) + b">"


@pytest.mark.parametrize("length", LENGTHS)
def test_what_pynacl_sealed_opens_into_its_place_and_nothing_around_it_changes(length: int) -> None:
    plain = bytes(i % 251 for i in range(length))
    room = bytearray(b"<" + b"?" * length + b">")
    assert cipher.open_into(memoryview(room)[1:-1], theirs(plain), NONCE, KEY)
    assert bytes(room) == b"<" + plain + b">"


def test_one_flipped_bit_anywhere_is_refused() -> None:
    place = memoryview(bytearray(100))
    for bit in range(8 * (100 + TAG_BYTES)):
        forged = bytearray(theirs(bytes(100)))
        forged[bit // 8] ^= 1 << bit % 8
        assert not cipher.open_into(place, memoryview(forged), NONCE, KEY)


@pytest.mark.parametrize("length", [0, 99, 101, 116])
def test_a_ciphertext_that_does_not_fit_its_place_exactly_is_refused_before_a_byte_is_written(length: int) -> None:
    room = bytearray(b"?" * 300)
    assert not cipher.open_into(memoryview(room)[:length], theirs(bytes(100)), NONCE, KEY)
    assert room == b"?" * 300


def test_a_place_that_libsodium_would_write_beyond_or_must_not_write_to_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="no room for a tag"):
        cipher.seal_in_place(memoryview(bytearray(TAG_BYTES - 1)), NONCE, KEY)
    with pytest.raises(ValueError, match="not plain bytes"):
        cipher.seal_in_place(memoryview(bytearray(100))[::2], NONCE, KEY)
    with pytest.raises(ValueError, match="not plain bytes"):  # 25 numbers, 100 bytes
        cipher.seal_in_place(memoryview(bytearray(100)).cast("i"), NONCE, KEY)
    with pytest.raises(BufferError):
        cipher.seal_in_place(memoryview(bytes(100)), NONCE, KEY)
    with pytest.raises(ValueError, match="nonce of 23"):
        cipher.seal_in_place(memoryview(bytearray(100)), NONCE[1:], KEY)
    with pytest.raises(ValueError, match="key of 33"):
        cipher.open_into(memoryview(bytearray(84)), bytes(100), NONCE, KEY + b"!")
