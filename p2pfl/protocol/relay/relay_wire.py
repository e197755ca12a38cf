"""What goes between a member and a relay: six messages of a tunnel, each with the other end in it.

On the way to the relay `peer` is whom a message is for; the relay puts its sender there instead and changes nothing else. The
second frame of `Carried` is a sealed piece, which the relay neither can nor needs to open; the others have none.
"""

from collections.abc import Sized
from dataclasses import dataclass
from typing import Any

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import keeps_secrets
from p2pfl.protocol.wire import (
    CHUNK_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Field,
    flag,
    octets,
    read_message,
    require,
    whole,
    write_message,
)

PIECE_BYTES = CHUNK_BYTES // 8 + 1024  # of a message before they are sealed: a relay holds many. A chunk and its head are eight
SEALED_MAX = PIECE_BYTES + TAG_BYTES
HEAD_MAX = 256  # bytes of a first frame; `Answer` needs 171
SESSION_BYTES = 8
KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Knock:
    """Asks for a tunnel: a fresh X25519 key, signed by the caller's identity."""

    peer: PeerId
    ephemeral: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Grants it, with a fresh key of one's own; `knock` is the key that was knocked with."""

    peer: PeerId
    knock: bytes
    ephemeral: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Wake:
    """Asks the other to knock. Unsigned: who has a tunnel that answers does not believe it."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Carried:
    """One piece of a message, the `count`-th of its lane; it is the second frame."""

    peer: PeerId
    session: bytes
    bulk: bool
    count: int


@dataclass(frozen=True, slots=True)
class Taken:
    """So many bulk pieces of this session have arrived: no more than `session.WINDOW` may be under way. The relay reads it too,
    and so knows what it holds."""

    peer: PeerId
    session: bytes
    count: int


@dataclass(frozen=True, slots=True)
class NotReachable:
    """From the relay itself: this member has no link with it."""

    peer: PeerId


RelayMessage = Knock | Answer | Wake | Carried | Taken | NotReachable


def concerns(frames: tuple[Sized, ...]) -> bool:
    """Whether a message is one of these, by its kind alone."""
    head = frames[0] if frames else b""
    return isinstance(head, bytes) and len(head) >= 3 and head[2] in KINDS


def encode(message: RelayMessage) -> bytes:
    """The first frame of a message."""
    return write_message(message, _NUMBERS, FIELDS)


def read(frames: tuple[Sized, ...]) -> tuple[RelayMessage, memoryview | None]:
    """A whole message, and the sealed piece in its second frame. Raises `RejectedFrame` with BAD_FRAMES, BAD_HEADER, VERSION or
    KIND, and nothing else."""
    if not 1 <= len(frames) <= 2 or not all(map(len, frames)):
        raise RejectedFrame(Reason.BAD_FRAMES)
    head, sealed = frames[0], frames[1] if len(frames) == 2 else None
    assert isinstance(head, bytes), "the engine hands over first frames as bytes"
    if sealed is not None and not TAG_BYTES < len(sealed) <= SEALED_MAX:
        raise RejectedFrame(Reason.BAD_FRAMES)
    message: RelayMessage = read_message(head, HEAD_MAX, KINDS, FIELDS)
    if isinstance(message, Carried) != (sealed is not None):
        raise RejectedFrame(Reason.BAD_FRAMES)
    return message, memoryview(sealed) if sealed is not None else None  # type: ignore[arg-type]  # a buffer, says the engine


def _agreement_key() -> Field:
    """An X25519 public key that keeps secrets."""
    bytes_ = octets(KEY_BYTES, KEY_BYTES)

    def read(value: Any) -> bytes:
        key: bytes = bytes_.read(value)
        require(keeps_secrets(key))
        return key

    return Field(bytes_.type, f"{bytes_.bound}: X25519, not of low order", read)


_ID = octets(KEY_BYTES, KEY_BYTES)
_KEY = _agreement_key()
_SIGNATURE = octets(SIGNATURE_BYTES, SIGNATURE_BYTES)
_SESSION = octets(SESSION_BYTES, SESSION_BYTES)
_COUNT = whole(1 << 63, says="0 to 2^63 - 1")

FIELDS: dict[type[Any], dict[str, Field]] = {
    Knock: {"peer": _ID, "ephemeral": _KEY, "signature": _SIGNATURE},
    Answer: {"peer": _ID, "knock": _ID, "ephemeral": _KEY, "signature": _SIGNATURE},
    Wake: {"peer": _ID},
    Carried: {"peer": _ID, "session": _SESSION, "bulk": flag(), "count": _COUNT},
    Taken: {"peer": _ID, "session": _SESSION, "count": _COUNT},
    NotReachable: {"peer": _ID},
}
"""The fields of every message, in the order of the wire."""

KINDS: dict[int, type[Any]] = {32: Knock, 33: Answer, 34: Wake, 35: Carried, 36: Taken, 37: NotReachable}
_NUMBERS = {kind: number for number, kind in KINDS.items()}
