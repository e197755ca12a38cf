"""Crypto that is accounted for instead of computed: the same messages of the same sizes, the same refusals, no arithmetic.

A stand-in for a sealed chunk is as long as the real one and knows what was sealed. Whatever is done to its bytes makes other
bytes, which know nothing: they open to nothing, as a damaged ciphertext does. A signature is a hash of who signed what, and a
wrapped key the key itself with a hash of who wrapped it for whom. All are keyed with a secret of the run, which nobody in the
simulated world has: a forger, who has to say these bytes without it, is refused where it would be refused by real ones.

So a scenario gives the same trace either way, but for digests, keys and everything else that is only bytes to a peer.
"""

import hashlib
from collections.abc import Mapping
from hmac import compare_digest
from typing import Literal

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import Open, Payload, PeerId, Seal, Sealed
from p2pfl.protocol.identity import Identity
from sim.sealing import Crypto, RealCrypto, parts_of

REAL_PEERS_MAX = 200  # up to so many, real crypto takes seconds; ten times as many would take most of a run


Kind = Literal["auto", "real", "accounted"]


def crypto_of(kind: Kind, peers: int, seed: int) -> Crypto:
    """What `network.crypto` says; "auto" is real where that is affordable."""
    return RealCrypto() if is_real(kind, peers) else AccountedCrypto(seed)


def is_real(kind: Kind, peers: int) -> bool:
    """Whether this many peers sign and seal for real."""
    return kind == "real" or (kind == "auto" and peers <= REAL_PEERS_MAX)


class SealedChunk(bytes):
    """The stand-in for a sealed chunk. Its bytes are the plaintext and a tag; slices and copies of it are plain bytes."""

    plain: bytes
    digest: bytes
    sealed_as: tuple[bytes, int, bool]  # under which key, at which place, and whether it is the last


class AccountedCrypto:
    """One for a whole federation."""

    def __init__(self, seed: int) -> None:
        self._secret = hashlib.blake2b(seed.to_bytes(16, "big"), digest_size=32, person=b"p2pfl/accounted").digest()

    def signer(self, identity: Identity, members: Mapping[PeerId, Member]) -> envelope.Signer:
        return AccountedSigner(identity.peer_id, members, self._secret)

    def digest(self, payload: bytes) -> bytes:
        """Nothing: a digest would cost more than everything else that happens to a payload."""
        return b""

    def sealed(self, effect: Seal) -> Sealed:
        parts = parts_of(effect.payload)
        return Sealed(effect.ticket, tuple(self._seal(effect.key, i, len(parts), part) for i, part in enumerate(parts)))

    def open_chunk(self, effect: Open) -> bytes | None:
        chunk = effect.chunk
        if not isinstance(chunk, SealedChunk) or chunk.digest != effect.digest:
            return None
        return chunk.plain if chunk.sealed_as == (effect.key, effect.index, effect.index == effect.count - 1) else None

    def _seal(self, key: bytes, index: int, count: int, plain: bytes) -> Payload:
        is_last = index == count - 1
        # A key is of one update only: with the place it names the chunk.
        digest = _tag(self._secret, b"chunk", 32, key, index.to_bytes(8, "big"), bytes([is_last]))
        chunk = SealedChunk(plain + digest[: wire.TAG_BYTES])
        chunk.plain, chunk.digest, chunk.sealed_as = plain, digest, (key, index, is_last)
        return Payload(len(chunk), digest, chunk)


class AccountedSigner:
    """A `Signer` of no arithmetic."""

    def __init__(self, own: PeerId, members: Mapping[PeerId, Member], secret: bytes) -> None:
        self._own = own
        self._members = members
        self._secret = secret

    def sign(self, context: bytes, digest: bytes) -> bytes:
        return self._signature(self._own, context, digest)

    def verify(self, signer: PeerId, context: bytes, digest: bytes, signature: bytes) -> bool:
        return signer in self._members and compare_digest(signature, self._signature(signer, context, digest))

    def wrap(self, reader: PeerId, key: bytes, nonce: bytes) -> bytes:
        return nonce + key + self._wrapping(self._own, reader, nonce + key)

    def unwrap(self, sender: PeerId, wrapped: bytes) -> bytes | None:
        body, tag = wrapped[: -wire.TAG_BYTES], wrapped[-wire.TAG_BYTES :]
        if sender not in self._members or not compare_digest(tag, self._wrapping(sender, self._own, body)):
            return None
        return body[envelope.NONCE_BYTES :]

    def _signature(self, signer: PeerId, context: bytes, digest: bytes) -> bytes:
        return _tag(self._secret, b"signature", wire.SIGNATURE_BYTES, signer, digest, context)

    def _wrapping(self, sender: PeerId, reader: PeerId, body: bytes) -> bytes:
        return _tag(self._secret, b"wrapping", wire.TAG_BYTES, sender, reader, body)


def _tag(secret: bytes, purpose: bytes, size: int, *parts: bytes) -> bytes:
    """`size` bytes that only the run itself can make. All parts but the last have a fixed length."""
    return hashlib.blake2b(b"".join(parts), digest_size=size, key=secret, person=purpose).digest()
