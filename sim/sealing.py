"""Carries out `Seal` and `Open`, for real and at once: in a simulation they take no virtual time."""

from typing import cast

from p2pfl.protocol import envelope
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Open, Opened, Payload, Seal, Sealed


def sealed(effect: Seal) -> Sealed:
    """Every chunk of the payload under the effect's key."""
    plain = memoryview(cast(bytes, effect.payload.buffer))
    total = envelope.chunk_count(len(plain))
    chunks = []
    for i in range(total):
        part = plain[i * envelope.CHUNK_BYTES : (i + 1) * envelope.CHUNK_BYTES]
        chunk = envelope.seal_chunk(effect.key, i, i == total - 1, part)
        chunks.append(Payload(len(chunk), envelope.digest(chunk), chunk))
    return Sealed(effect.ticket, tuple(chunks))


class Opener:
    """The payloads that one peer is opening, each in the order of its chunks."""

    def __init__(self) -> None:
        self._begun: dict[int, bytearray] = {}

    def opened(self, effect: Open) -> Opened:
        """Check and open one chunk; the last one gives the payload."""
        is_last = effect.index == effect.count - 1
        chunk = cast(bytes, effect.chunk)
        plain = envelope.open_chunk(effect.key, effect.index, is_last, chunk)
        if envelope.digest(chunk) != effect.digest or plain is None:
            return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
        buffer = self._begun.setdefault(effect.ticket, bytearray())
        buffer += plain
        if not is_last:
            return Opened(effect.ticket, effect.index)
        payload = bytes(self._begun.pop(effect.ticket))
        return Opened(effect.ticket, effect.index, None, Payload(len(payload), envelope.digest(payload), payload))

    def abandon(self, ticket: int) -> None:
        """Forget what was opened of this payload."""
        self._begun.pop(ticket, None)
