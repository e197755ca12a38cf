"""How two members come to share keys that nobody else has, and that nobody can find out afterwards.

Each draws an X25519 key for this one session and signs its public half as the member that it is; the session's keys come from
the two ephemeral ones and nothing else. So only the two members can have made them, a relay in between can't, and whoever
steals both identities later still lacks what both have thrown away.

Who has the lower id knocks, always: two that knock at once would get two sessions.
"""

import hashlib
from dataclasses import dataclass, field

from nacl import bindings

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.randomness import Entropy
from p2pfl.protocol.relay.relay_wire import KEY_BYTES, SESSION_BYTES

TUNNEL_CONTEXT = b"p2pfl/tunnel/v1\0"


@dataclass(frozen=True, slots=True)
class Ephemeral:
    """A key pair for one session."""

    public: bytes
    secret: bytes = field(repr=False)

    @classmethod
    def generate(cls, entropy: Entropy) -> "Ephemeral":
        secret = entropy.draw(KEY_BYTES)
        return cls(bindings.crypto_scalarmult_base(secret), secret)


@dataclass(frozen=True, slots=True)
class SessionKeys:
    """Of one end: `session` names the session, `outward` seals what goes out, `inward` opens what comes in."""

    session: bytes
    outward: bytes = field(repr=False)
    inward: bytes = field(repr=False)


def knock_digest(network: bytes, caller: PeerId, callee: PeerId, knock: bytes) -> bytes:
    """What the caller signs, 32 bytes."""
    return _digest(b"knock", network, caller, callee, knock)


def answer_digest(network: bytes, caller: PeerId, callee: PeerId, knock: bytes, ephemeral: bytes) -> bytes:
    """What the callee signs: all that was said."""
    return _digest(b"answer", network, caller, callee, knock, ephemeral)


def session_keys(secret: bytes, theirs: bytes, transcript: bytes, is_caller: bool) -> SessionKeys:
    """The keys that both ends make of the ephemeral keys, bound to everything that was signed (`answer_digest`). `theirs` must
    be a key that keeps secrets."""
    shared = bindings.crypto_scalarmult(secret, theirs)
    made = hashlib.blake2b(transcript, key=shared, digest_size=2 * KEY_BYTES, person=b"p2pfl/tunnel").digest()
    session = hashlib.blake2b(transcript, digest_size=SESSION_BYTES, person=b"p2pfl/session").digest()
    callers, callees = made[:KEY_BYTES], made[KEY_BYTES:]
    return SessionKeys(session, *((callers, callees) if is_caller else (callees, callers)))


def _digest(*parts: bytes) -> bytes:
    """Every part but the first has a fixed length."""
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()
