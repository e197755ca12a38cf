"""One end of a tunnel, a second time: written from docs/protocol.md alone, like `second_protocol`."""

import hashlib
from collections.abc import Iterable, Sequence

from nacl import bindings
from nacl.signing import SigningKey, VerifyKey

from tests.second_protocol import blake, frame

KNOCK, ANSWER, WAKE, CARRIED, TAKEN, NOT_REACHABLE = range(32, 38)
PIECE_BYTES = 132_096
MESSAGE, NEEDED, NOT_NEEDED, ASK = range(4)


def homes(member: bytes, relays: Iterable[bytes]) -> list[bytes]:
    """All relays, as this member ranks them; the first two are its homes."""
    return sorted(relays, key=lambda relay: (blake(member + relay, b"p2pfl/home", 8), relay))


def meeting_order(one: bytes, other: bytes, relays: Sequence[bytes]) -> list[bytes]:
    caller, callee = sorted((one, other))
    ranked = homes(callee, relays)
    return [*dict.fromkeys((*ranked[:2], *homes(caller, relays)[:2], *ranked))]


class End:
    """Of a session: seals what goes out, opens what comes in, and keeps count."""

    def __init__(self, secret: bytes, theirs: bytes, transcript: bytes, is_caller: bool) -> None:
        shared = bindings.crypto_scalarmult(secret, theirs)
        keys = keyed(transcript, shared)
        self.outward, self.inward = (keys[:32], keys[32:]) if is_caller else (keys[32:], keys[:32])
        self.session = blake(transcript, b"p2pfl/session", 8)
        self.sent, self.had = [0, 0], [0, 0]
        self._parts: list[list[bytes]] = [[], []]

    def carried(self, peer: bytes, frames: Sequence[bytes], bulk: bool, sort: int = MESSAGE) -> list[tuple[bytes, bytes]]:
        """The messages that carry one."""
        first, second = (*frames, b"", b"")[:2]
        told = bytes([sort]) + len(first).to_bytes(4, "big") + len(second).to_bytes(4, "big") + first + second
        pieces = [told[at : at + PIECE_BYTES] for at in range(0, len(told), PIECE_BYTES)]
        seal = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt
        said = []
        for count, piece in enumerate(pieces, start=self.sent[bulk]):
            said.append((frame(CARRIED, peer, self.session, bulk, count), seal(piece, None, nonce(count, bulk), self.outward)))
        self.sent[bulk] += len(pieces)
        return said

    def opened(self, bulk: bool, count: int, sealed: bytes) -> tuple[int, list[bytes]] | None:
        """Sort and frames of the message that this piece completes."""
        assert count == self.had[bulk]
        parts = self._parts[bulk]
        parts.append(bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, None, nonce(count, bulk), self.inward))
        self.had[bulk] += 1
        told = b"".join(parts)
        first, second = int.from_bytes(told[1:5], "big"), int.from_bytes(told[5:9], "big")
        if len(told) < 9 + first + second:
            return None
        parts.clear()
        return told[0], [part for part in (told[9 : 9 + first], told[9 + first :]) if part]


def keyed(transcript: bytes, shared: bytes) -> bytes:
    return hashlib.blake2b(transcript, digest_size=64, key=shared, person=b"p2pfl/tunnel").digest()


def nonce(count: int, bulk: bool) -> bytes:
    return count.to_bytes(8, "big") + bytes([bulk]) + bytes(15)


def knock_said(network: bytes, caller: bytes, callee: bytes, knock: bytes) -> bytes:
    """What a `Knock` signs."""
    return blake(b"knock" + network + caller + callee + knock)


def answer_said(network: bytes, caller: bytes, callee: bytes, knock: bytes, ephemeral: bytes) -> bytes:
    """What an `Answer` signs, and the session's keys are made of."""
    return blake(b"answer" + network + caller + callee + knock + ephemeral)


def signed(key: SigningKey, said: bytes) -> bytes:
    return key.sign(b"p2pfl/tunnel/v1\0" + said).signature


def is_signed(signer: bytes, said: bytes, signature: bytes) -> None:
    """BadSignatureError where it is not."""
    VerifyKey(signer).verify(b"p2pfl/tunnel/v1\0" + said, signature)
