"""What members say about members: eight messages beside those of `wire`, flat msgpack arrays like them.

Probes and their answers carry rumors along. Rumors, and what push-pull moves, are items one behind the other, each
[kind u8, length u16, content]: a member's own record with the credential it may need, an accusation, or a revocation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from struct import Struct
from typing import Any, NamedTuple, assert_never

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.rumors import RUMOR_BYTES_MAX
from p2pfl.protocol.membership.standing import Accusation, Version
from p2pfl.protocol.wire import (
    HEADER_FRAME_MAX,
    SIGNATURE_BYTES,
    Field,
    octets,
    read_message,
    require,
    write_message,
)

TICKET_BYTES = 24  # the asker's boot id and a count: never used twice, so that no signed answer can be
BUCKETS = 64
BUCKET_BYTES = 8
RECORDS_MAX = 512  # entries, ids or items of one message
RECORDS_BYTES_MAX = HEADER_FRAME_MAX - 64  # a whole message is at most 256 KiB
ID_BYTES = 32


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? `origin` is for whom a helper asks; empty where the sender asks for itself."""

    ticket: bytes
    origin: bytes = b""
    rumors: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer. To a helper's ping it is signed for the one who wants to know, and the helper passes it on."""

    ticket: bytes
    signature: bytes = b""
    rumors: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class PingRequest:
    """Ask `target` for me: it does not answer me."""

    ticket: bytes
    target: PeerId
    rumors: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Nack:
    """The helper is there, but the target did not answer it either."""

    ticket: bytes
    rumors: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Digests:
    """One digest for each of the 64 buckets of live members: what differs is compared in detail. And one of all revocations,
    which are few and only become more: where it differs they are sent."""

    buckets: tuple[bytes, ...]
    revocations: bytes


class Entry(NamedTuple):
    """One live member in a `Summary`."""

    peer: PeerId
    version: Version
    is_suspect: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """All the sender's live members in the buckets that `mask` names, by ascending id."""

    mask: int
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Send me the records of these."""

    peers: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """Items, as in rumors."""

    items: bytes = field(repr=False)


MembershipMessage = Ping | Ack | PingRequest | Nack | Digests | Summary | Wanted | Records


def encode(message: MembershipMessage) -> bytes:
    """The one frame of a message."""
    return write_message(message, _NUMBERS, FIELDS)


def decode(frame: bytes) -> MembershipMessage:
    """And back. Raises `RejectedFrame` with BAD_HEADER, VERSION or KIND, and nothing else."""
    message: MembershipMessage = read_message(frame, HEADER_FRAME_MAX, KINDS, FIELDS)
    return message


# ---- items --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Introduction:
    """A member's signed record, and the credential that vouches for it where the reader may not have it."""

    record: bytes = field(repr=False)
    credential: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Revoked:
    """A signed revocation, as it came."""

    revocation: bytes = field(repr=False)


Item = Introduction | Accusation | Revoked

_ITEM = Struct("!BH")
_LENGTH = Struct("!H")
_INTRODUCTION, _ACCUSATION, _REVOKED = 1, 2, 3


def encode_item(item: Item) -> bytes:
    """One item."""
    match item:
        case Introduction():
            kind, content = _INTRODUCTION, _LENGTH.pack(len(item.credential)) + item.credential + item.record
        case Accusation():
            kind, content = _ACCUSATION, item.encode()
        case Revoked():
            kind, content = _REVOKED, item.revocation
        case _:
            assert_never(item)
    return _ITEM.pack(kind, len(content)) + content


def decode_items(data: bytes) -> Iterator[Item]:
    """Up to `RECORDS_MAX` items. Raises `RejectedFrame` with BAD_HEADER where they stop making sense."""
    at = count = 0
    while at < len(data):
        count += 1
        require(count <= RECORDS_MAX and at + _ITEM.size <= len(data))
        kind, length = _ITEM.unpack_from(data, at)
        content = data[at + _ITEM.size : at + _ITEM.size + length]
        require(len(content) == length)
        at += _ITEM.size + length
        if kind == _ACCUSATION:
            yield Accusation.decode(content)
        elif kind == _REVOKED:
            yield Revoked(content)
        else:
            require(kind == _INTRODUCTION and length > _LENGTH.size)
            split = _LENGTH.size + _LENGTH.unpack_from(content)[0]
            require(split < length)
            yield Introduction(record=content[split:], credential=content[_LENGTH.size : split])


# ---- fields -------------------------------------------------------------------------------------------------------------

_ENTRY = Struct("!32sQQB")


def _listed(size: int, least: int, most: int, of: str) -> Field:
    """Byte strings of one size, joined to one; `least` to `most` of them."""

    def read(value: Any) -> tuple[bytes, ...]:
        require(type(value) is bytes and len(value) % size == 0 and least <= len(value) // size <= most)
        return tuple(value[i : i + size] for i in range(0, len(value), size))

    count = f"{most}" if least == most else f"{least} to {most}"
    return Field("bytes", f"{count} × {size}: {of}", read, b"".join)


def _entries() -> Field:
    """By strictly ascending id, so that none comes twice."""
    packed = _listed(_ENTRY.size, 0, RECORDS_MAX, "id (32), boot epoch (8), incarnation (8), 1 where suspected; ids ascending")

    def read(value: Any) -> tuple[Entry, ...]:
        entries = tuple(_entry(one) for one in packed.read(value))
        require(all(a.peer < b.peer for a, b in pairwise(entries)))
        return entries

    def write(entries: tuple[Entry, ...]) -> bytes:
        return b"".join(_ENTRY.pack(entry.peer, *entry.version, entry.is_suspect) for entry in entries)

    return Field(packed.type, packed.bound, read, write)


def _entry(data: bytes) -> Entry:
    peer, epoch, incarnation, state = _ENTRY.unpack(data)
    require(not max(epoch, incarnation) >> 63 and state <= 1)
    return Entry(PeerId(peer), Version(epoch, incarnation), bool(state))


def _nothing_or(size: int) -> Field:
    def read(value: Any) -> bytes:
        require(type(value) is bytes and len(value) in (0, size))
        return bytes(value)

    return Field("bytes", f"0 or {size}", read)


def _mask() -> Field:
    """A bit per bucket."""

    def read(value: Any) -> int:
        require(type(value) is bytes and len(value) == BUCKETS // 8)
        return int.from_bytes(value, "big")

    return Field("bytes", f"{BUCKETS // 8}: a bit per bucket", read, lambda mask: mask.to_bytes(BUCKETS // 8, "big"))


_TICKET = octets(TICKET_BYTES, TICKET_BYTES)
_RUMORS = octets(0, RUMOR_BYTES_MAX)

FIELDS: dict[type[Any], dict[str, Field]] = {
    Ping: {"ticket": _TICKET, "origin": _nothing_or(ID_BYTES), "rumors": _RUMORS},
    Ack: {"ticket": _TICKET, "signature": _nothing_or(SIGNATURE_BYTES), "rumors": _RUMORS},
    PingRequest: {"ticket": _TICKET, "target": octets(ID_BYTES, ID_BYTES), "rumors": _RUMORS},
    Nack: {"ticket": _TICKET, "rumors": _RUMORS},
    Digests: {
        "buckets": _listed(BUCKET_BYTES, BUCKETS, BUCKETS, "digest of each bucket"),
        "revocations": octets(ID_BYTES, ID_BYTES),
    },
    Summary: {"mask": _mask(), "entries": _entries()},
    Wanted: {"peers": _listed(ID_BYTES, 1, RECORDS_MAX, "ids")},
    Records: {"items": octets(1, RECORDS_BYTES_MAX)},
}
"""The fields of every message, in the order of the wire."""

KINDS: dict[int, type[Any]] = {
    16: Ping,
    17: Ack,
    18: PingRequest,
    19: Nack,
    20: Digests,
    21: Summary,
    22: Wanted,
    23: Records,
}
_NUMBERS = {kind: number for number, kind in KINDS.items()}
