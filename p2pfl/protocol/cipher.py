"""XChaCha20-Poly1305 where the bytes already lie: no copy on the way in or out.

PyNaCl's own functions make new bytes of every chunk, and touching fresh memory costs nearly as much as sealing it: 1.15 ms a
MB, 0.7 ms in place. So this file calls the libsodium that PyNaCl carries as PyNaCl itself does, and checks the lengths that
PyNaCl would have checked; `tests/test_cipher.py` holds both to the same bytes. The interpreter lock is released meanwhile.
"""

from typing import Any

import nacl._sodium as _sodium  # type: ignore[import-not-found]

from p2pfl.protocol.wire import TAG_BYTES

KEY_BYTES = 32
NONCE_BYTES = 24

_ffi: Any = _sodium.ffi
_lib: Any = _sodium.lib


def seal_in_place(place: memoryview, nonce: bytes, key: bytes) -> None:
    """`place` is the plaintext and `TAG_BYTES` of room behind it; afterwards it is the ciphertext and its tag."""
    length = _octets(place) - TAG_BYTES
    if length < 0:
        raise ValueError(f"no room for a tag in {len(place)} bytes")
    _check(nonce, key)
    octets = _ffi.from_buffer("unsigned char[]", place, require_writable=True)
    none = _ffi.NULL
    failure = _lib.crypto_aead_xchacha20poly1305_ietf_encrypt(octets, none, octets, length, none, 0, none, nonce, key)
    assert failure == 0, "libsodium does not seal"


def open_into(place: memoryview, sealed: bytes | memoryview, nonce: bytes, key: bytes) -> bool:
    """Opens `sealed` into `place`, which has exactly the plaintext's length; False, and `place` is of no use, if it is not what
    was sealed."""
    if _octets(sealed) != _octets(place) + TAG_BYTES:
        return False
    _check(nonce, key)
    octets = _ffi.from_buffer("unsigned char[]", place, require_writable=True)
    cipher = _ffi.from_buffer("unsigned char[]", sealed)
    none = _ffi.NULL
    failure = _lib.crypto_aead_xchacha20poly1305_ietf_decrypt(octets, none, none, cipher, len(sealed), none, 0, nonce, key)
    return bool(failure == 0)


def _octets(buffer: bytes | memoryview) -> int:
    """Its length, which libsodium takes on trust: hence single bytes, one behind the other, and nothing else."""
    if isinstance(buffer, memoryview) and not (buffer.contiguous and buffer.itemsize == 1 and buffer.ndim == 1):
        raise ValueError("a buffer that is not plain bytes")
    return len(buffer)


def _check(nonce: bytes, key: bytes) -> None:
    if len(nonce) != NONCE_BYTES or len(key) != KEY_BYTES:
        raise ValueError(f"a nonce of {len(nonce)} and a key of {len(key)} bytes")
