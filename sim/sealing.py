"""How a simulated peer signs, seals and opens: a `Crypto` carries out `Seal` and `Open` at once, they take no virtual time.

This one does it for real, with the ciphers of a live peer. `sim.accounting` stands in for it where there are many peers.
"""

from collections.abc import Mapping
from typing import Protocol, cast

from p2pfl.protocol import envelope
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Open, Opened, Payload, PeerId, Seal, Sealed
from p2pfl.protocol.identity import Identity, Keyring


class Crypto(Protocol):
    """What a federation's peers sign, seal and open with."""

    def signer(self, identity: Identity, members: Mapping[PeerId, Member]) -> envelope.Signer:
        """One peer's own."""
        ...

    def digest(self, payload: bytes) -> bytes:
        """32 bytes that name a payload in a trace."""
        ...

    def sealed(self, effect: Seal) -> Sealed:
        """Every chunk of the payload under the effect's key."""
        ...

    def open_chunk(self, effect: Open) -> bytes | None:
        """The plaintext of one chunk; None unless it is the one that was offered."""
        ...


class RealCrypto:
    """XChaCha20-Poly1305, BLAKE2b, Ed25519 and X25519, as in a live peer."""

    def signer(self, identity: Identity, members: Mapping[PeerId, Member]) -> envelope.Signer:
        return Keyring(identity, members)

    def digest(self, payload: bytes) -> bytes:
        return envelope.digest(payload)

    def sealed(self, effect: Seal) -> Sealed:
        parts = parts_of(effect.payload)
        chunks = [envelope.seal_chunk(effect.key, i, i == len(parts) - 1, part) for i, part in enumerate(parts)]
        return Sealed(effect.ticket, tuple(Payload(len(chunk), envelope.digest(chunk), chunk) for chunk in chunks))

    def open_chunk(self, effect: Open) -> bytes | None:
        chunk = cast(bytes, effect.chunk)
        if envelope.digest(chunk) != effect.digest:
            return None
        return cast(bytes | None, envelope.open_chunk(effect.key, effect.index, effect.index == effect.count - 1, chunk))


class Opener:
    """The payloads that one peer is opening, each in the order of its chunks."""

    def __init__(self, crypto: Crypto) -> None:
        self._crypto = crypto
        self._begun: dict[int, list[bytes]] = {}

    def opened(self, effect: Open) -> Opened:
        """Check and open one chunk; the last one gives the payload."""
        plain = self._crypto.open_chunk(effect)
        if plain is None:
            return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
        if effect.index < effect.count - 1:
            self._begun.setdefault(effect.ticket, []).append(plain)
            return Opened(effect.ticket, effect.index)
        begun = self._begun.pop(effect.ticket, None)
        payload = b"".join([*begun, plain]) if begun else plain
        return Opened(effect.ticket, effect.index, None, Payload(len(payload), self._crypto.digest(payload), payload))

    def abandon(self, ticket: int) -> None:
        """Forget what was opened of this payload."""
        self._begun.pop(ticket, None)


def parts_of(payload: Payload) -> list[bytes]:
    """The plaintext of every chunk."""
    plain = cast(bytes, payload.buffer)
    if len(plain) <= envelope.CHUNK_BYTES:
        return [plain]
    return [plain[start : start + envelope.CHUNK_BYTES] for start in range(0, len(plain), envelope.CHUNK_BYTES)]
