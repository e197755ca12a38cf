"""Sign and seal an update, verify and open it.

An update is sealed once, in chunks, under a fresh key; the key is wrapped for each reader; one signature covers a header that
names the digests of all of it. Ciphers and hashes are libsodium's (through PyNaCl) and hashlib's, and nothing is drawn here:
keys and nonces come from the caller's entropy. The heavy functions release the interpreter lock: call them in threads.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pfl.protocol import cipher
from p2pfl.protocol.cipher import KEY_BYTES as KEY_BYTES
from p2pfl.protocol.cipher import NONCE_BYTES as NONCE_BYTES
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import CHUNK_BYTES as CHUNK_BYTES
from p2pfl.protocol.wire import DIGEST_BYTES, TAG_BYTES, Header, Offer, encode_header
from p2pfl.protocol.wire import chunk_count as chunk_count

UPDATE_CONTEXT = b"p2pfl/update/v1\0"


class Signer(Protocol):
    """A peer's own secrets and the public keys of the members, as far as an update needs them."""

    def sign(self, context: bytes, digest: bytes) -> bytes:
        """64 bytes over `context` and `digest`."""
        ...

    def verify(self, signer: PeerId, context: bytes, digest: bytes, signature: bytes) -> bool:
        """Whether a member signed this; False for a stranger."""
        ...

    def wrap(self, reader: PeerId, key: bytes, nonce: bytes) -> bytes:
        """`key` for one member's eyes, 72 bytes. The nonce, 24 bytes, must be fresh."""
        ...

    def unwrap(self, sender: PeerId, wrapped: bytes) -> bytes | None:
        """The key that `sender` wrapped for us, or None if it did not."""
        ...


# ---- chunks -------------------------------------------------------------------------------------------------------------


def seal_chunk(key: bytes, index: int, is_last: bool, plaintext: bytes | memoryview) -> bytes:
    """XChaCha20-Poly1305 of at most `CHUNK_BYTES`; `TAG_BYTES` longer. The key must never seal anything else."""
    plain = plaintext if isinstance(plaintext, bytes) else bytes(plaintext)  # PyNaCl wants bytes
    return bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, None, _nonce(index, is_last), key)


def seal_in_place(key: bytes, index: int, is_last: bool, place: memoryview) -> None:
    """The same, of a plaintext with `TAG_BYTES` of room behind it, which all of `place` is the ciphertext of afterwards."""
    cipher.seal_in_place(place, _nonce(index, is_last), key)


def open_chunk(
    key: bytes, index: int, is_last: bool, sealed: bytes | memoryview, into: memoryview | None = None
) -> bytes | memoryview | None:
    """The plaintext, written to `into` (of exactly its length) where that is given; None if it is not what was sealed with
    this key at this place."""
    if into is not None:
        return into if cipher.open_into(into, sealed, _nonce(index, is_last), key) else None
    if len(sealed) < TAG_BYTES:
        return None
    try:
        return bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(sealed), None, _nonce(index, is_last), key)
    except CryptoError:
        return None


def sealed_bytes(length: int) -> int:
    """The bytes of a payload of `length` bytes, sealed: so much room it takes to seal it where it lies."""
    return length + chunk_count(length) * TAG_BYTES


def places(room: memoryview, length: int) -> Iterator[memoryview]:
    """Where in `room`, of `sealed_bytes(length)` or more, each chunk of such a payload lies, with the room for its tag behind
    it: one after the other."""
    start = 0
    for index in range(chunk_count(length)):
        end = start + sealed_length(length, index)
        yield room[start:end]
        start = end


def sealed_length(length: int, index: int) -> int:
    """The bytes of sealed chunk `index` of a payload of `length` bytes."""
    return min(CHUNK_BYTES, length - index * CHUNK_BYTES) + TAG_BYTES


def _nonce(index: int, is_last: bool) -> bytes:
    return index.to_bytes(8, "big") + bytes([is_last]) + bytes(NONCE_BYTES - 9)


# ---- digests ------------------------------------------------------------------------------------------------------------


def digest(data: bytes | memoryview) -> bytes:
    """BLAKE2b-256."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def chunks_digest(length: int, digests: Iterable[bytes]) -> bytes:
    """Names an update: the plaintext's length and every sealed chunk."""
    return _digest(b"p2pfl/chunks", length.to_bytes(8, "big"), *digests)


def readers_digest(readers: Iterable[bytes]) -> bytes:
    """Names who may read: full ids, in ascending order whatever the order given."""
    return _digest(b"p2pfl/readers", *sorted(readers))


def commitment(key: bytes) -> bytes:
    """Binds an update to one key. XChaCha20-Poly1305 does not: a ciphertext can be made that opens under two keys, to two
    different models (Len, Grubbs, Ristenpart: Partitioning Oracle Attacks, 2021)."""
    return _digest(b"p2pfl/commit", key)


def _digest(purpose: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=DIGEST_BYTES, person=purpose).digest()


# ---- offers -------------------------------------------------------------------------------------------------------------


def offer(
    header: Header,
    signer: Signer,
    readers: Sequence[PeerId],
    key: bytes,
    nonces: Sequence[bytes],
    length: int,
    digests: tuple[bytes, ...],
) -> Offer:
    """A signed offer. `header` must carry the digests of `readers`, `key`, `length` and `digests`; one fresh nonce a reader."""
    encoded = encode_header(header)
    wrapped = ((reader, signer.wrap(reader, key, nonce)) for reader, nonce in zip(readers, nonces, strict=True))
    return Offer(encoded, signer.sign(UPDATE_CONTEXT, digest(encoded)), length, digests, tuple(sorted(wrapped)))


def verify_signature(offer: Offer, header: Header, signer: Signer) -> None:
    """Whether the signer of `header` (decoded from the offer) signed it, and with it this length and these chunks. Raises
    BAD_SIGNATURE, blamed on nobody yet: the hop may have made it up."""
    is_signed = chunks_digest(offer.length, offer.digests) == header.chunks_digest and signer.verify(
        header.signer, UPDATE_CONTEXT, digest(offer.header), offer.signature
    )
    if not is_signed:
        raise RejectedFrame(Reason.BAD_SIGNATURE)


def open_offer(offer: Offer, header: Header, own: PeerId, signer: Signer) -> bytes:
    """The key of an update whose signature was verified. Raises NOT_FOR_US, BAD_READERS, BAD_WRAP or BAD_COMMITMENT, in this
    order, blamed on the signer."""
    wrapped = dict(offer.readers).get(own)
    if wrapped is None:
        raise RejectedFrame(Reason.NOT_FOR_US, header.signer)
    if readers_digest(reader for reader, _ in offer.readers) != header.readers_digest:
        raise RejectedFrame(Reason.BAD_READERS, header.signer)
    key = signer.unwrap(header.signer, wrapped)
    if key is None:
        raise RejectedFrame(Reason.BAD_WRAP, header.signer)
    if commitment(key) != header.key_commitment:
        raise RejectedFrame(Reason.BAD_COMMITMENT, header.signer)
    return key
