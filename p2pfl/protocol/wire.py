"""What peers say to each other: five messages, each a flat msgpack array, and nothing else.

The first frame of a message is [version, kind, field, ...]. Its first three bytes (array, version, kind) mean the same in
every version, so that another version or an unknown kind is called what it is, though we can't read the rest. Fields are
whole numbers, flags and byte strings, and many digests are one byte string: nothing nests, so there is nothing that a hostile
frame could make the decoder build. The second frame, where there is one, is a sealed chunk, which nobody here looks into.

Frames are never encoded again: a signature covers the bytes of the header that came, however they were written.
"""

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, field
from operator import lt
from typing import Any

import msgpack

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId

PROTOCOL_VERSION = 1
CHUNK_BYTES = 1 << 20  # plaintext per chunk: sealed in about 1 ms; larger ones are no faster (benchmarks/one_update.py)
TAG_BYTES = 16  # what sealing adds to each chunk
CHUNKS_MAX = 4096  # 4 GiB an update
READERS_MAX = 1024
HEADER_MAX = 512  # bytes of an encoded `Header`; its fields can't need more than 295
HEADER_FRAME_MAX = 256 * 1024  # bytes of a first frame: an offer with every digest and reader has 233
INLINE_MAX = 64 * 1024  # a sealed update of at most this size rides along with its offer
DIGEST_BYTES = 32
SIGNATURE_BYTES = 64
WRAPPED_BYTES = 72  # nonce 24, key 32, tag 16


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words on a link, and again after a restart. `reply` asks for the other's `Hello`."""

    network: bytes
    charter: bytes
    boot_id: bytes
    boot_epoch: int
    step: int
    reply: bool


@dataclass(frozen=True, slots=True)
class Header:
    """What a signer says of one update. It is encoded once, and signed as those bytes; `Offer` carries them."""

    network: bytes
    charter: bytes
    schema: bytes
    signer: PeerId
    boot_id: bytes
    boot_epoch: int
    seq: int
    step: int
    phase: int
    part: int
    age: int
    samples: int
    chunks_digest: bytes
    readers_digest: bytes
    key_commitment: bytes


@dataclass(frozen=True, slots=True)
class Offer:
    """An update that can be fetched: its signed header, the plaintext's length, the digests of its sealed chunks, and its key
    wrapped for each reader, in ascending order of their ids."""

    header: bytes
    signature: bytes
    length: int
    digests: tuple[bytes, ...]
    readers: tuple[tuple[PeerId, bytes], ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credit:
    """The reader can take the chunks below `upto` of this update, and has those below `first` from a link that broke."""

    chunks_digest: bytes
    upto: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """One sealed chunk; it is the second frame."""

    chunks_digest: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The sender is done after `step` mixes, and awaits nothing any more."""

    step: int


Message = Hello | Offer | Credit | Chunk | Bye


def encode(message: Message) -> bytes:
    """The first frame of a message."""
    return write_message(message, _NUMBERS, FIELDS)


def decode(frame: bytes) -> Message:
    """The message of a first frame. Raises `RejectedFrame` with BAD_HEADER, VERSION or KIND, and nothing else."""
    message: Message = read_message(frame, HEADER_FRAME_MAX, KINDS, FIELDS)
    if isinstance(message, Offer):
        require(len(message.digests) == chunk_count(message.length))
    return message


def encode_header(header: Header) -> bytes:
    """The bytes that are signed."""
    return pack_values([PROTOCOL_VERSION, *write_fields(header, FIELDS[Header])])


def decode_header(frame: bytes) -> Header:
    """The header of an offer. Raises `RejectedFrame` with BAD_HEADER or VERSION, and nothing else."""
    fields = FIELDS[Header]
    version, *values = unpack_values(frame, 1 + len(fields))
    require(type(version) is int)
    if version != PROTOCOL_VERSION:
        raise RejectedFrame(Reason.VERSION)
    return Header(*read_fields(values, fields))


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads messages. Decoding is a pure function of the bytes, so an engine with many peers may hand in one that remembers:
    what goes to several of them is decoded once."""

    decode: Callable[[bytes], Message] = decode
    decode_header: Callable[[bytes], Header] = decode_header

    def read(self, frames: tuple[Sized, ...]) -> tuple[Message, Sized | None]:
        """A whole message: what its first frame says, and the sealed chunk in its second. Raises `RejectedFrame`."""
        head, body = split(frames)
        message = self.decode(head)
        if not isinstance(message, Offer) and isinstance(message, Chunk) != (body is not None):
            raise RejectedFrame(Reason.BAD_FRAMES)
        return message, body


READER = Reader()
"""Remembers nothing: what a live peer is sent, nobody else on its machine is."""
read = READER.read


def chunk_count(length: int) -> int:
    """Into how many chunks a payload of this many bytes is cut. An empty one is one empty chunk."""
    return max(1, -(-length // CHUNK_BYTES))


# ---- fields: what each may be -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """How one field is written and read. `read` gets whatever msgpack found and raises `RejectedFrame` unless it is within
    `bound`, which is for docs/protocol.md."""

    type: str
    bound: str
    read: Callable[[Any], Any]
    write: Callable[[Any], Any] = lambda value: value


def whole(bound: int, least: int = 0, says: str | None = None) -> Field:
    """A whole number in [least, bound). True is none."""

    def read(value: Any) -> int:
        if type(value) is int and least <= value < bound:
            return value
        raise RejectedFrame(Reason.BAD_HEADER)

    return Field("whole number", says or f"{least} to {bound - 1}", read)


def octets(least: int, most: int) -> Field:
    """A byte string of so many bytes."""

    def read(value: Any) -> bytes:
        if type(value) is bytes and least <= len(value) <= most:
            return value
        raise RejectedFrame(Reason.BAD_HEADER)

    return Field("bytes", f"{most}" if least == most else f"{least} to {most}", read)


def flag() -> Field:
    """True or false."""

    def read(value: Any) -> bool:
        require(type(value) is bool)
        return bool(value)

    return Field("flag", "true or false", read)


def joined(size: int, most: int, of: str) -> Field:
    """One to `most` byte strings of `size` bytes each, joined to one."""

    def read(value: Any) -> tuple[bytes, ...]:
        require(type(value) is bytes and len(value) % size == 0 and 1 <= len(value) // size <= most)
        return tuple([value[i : i + size] for i in range(0, len(value), size)])

    return Field("bytes", f"1 to {most} × {size}: {of}", read, b"".join)


def wrapped_keys() -> Field:
    """For each reader its id and the key wrapped for it, by strictly ascending id: no order of ours to guess, no duplicates."""
    entries = joined(DIGEST_BYTES + WRAPPED_BYTES, READERS_MAX, "id (32) and wrapped key (72) of each reader, ids ascending")

    def read(value: Any) -> tuple[tuple[PeerId, bytes], ...]:
        found = entries.read(value)
        ids = [entry[:DIGEST_BYTES] for entry in found]
        require(all(map(lt, ids, ids[1:])))
        return tuple([(PeerId(id), entry[DIGEST_BYTES:]) for id, entry in zip(ids, found, strict=True)])

    def write(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
        return b"".join(reader + wrapped for reader, wrapped in pairs)

    return Field(entries.type, entries.bound, read, write)


_COUNTER = whole(1 << 63, says="0 to 2^63 - 1")
_SMALL = whole(1 << 16)
_DIGEST = octets(DIGEST_BYTES, DIGEST_BYTES)
_NAME = octets(16, 16)

FIELDS: dict[type[Any], dict[str, Field]] = {
    Hello: {
        "network": _NAME,
        "charter": _DIGEST,
        "boot_id": _NAME,
        "boot_epoch": _COUNTER,
        "step": _COUNTER,
        "reply": flag(),
    },
    Offer: {
        "header": octets(1, HEADER_MAX),
        "signature": octets(SIGNATURE_BYTES, SIGNATURE_BYTES),
        "length": whole(CHUNKS_MAX * CHUNK_BYTES + 1, least=1, says="1 to 2^32"),
        "digests": joined(DIGEST_BYTES, CHUNKS_MAX, "digest of each sealed chunk; as many as length / 2^20, rounded up"),
        "readers": wrapped_keys(),
    },
    Credit: {"chunks_digest": _DIGEST, "upto": whole(CHUNKS_MAX + 1, least=1), "first": whole(CHUNKS_MAX)},
    Chunk: {"chunks_digest": _DIGEST, "index": whole(CHUNKS_MAX)},
    Bye: {"step": _COUNTER},
    Header: {
        "network": _NAME,
        "charter": _DIGEST,
        "schema": _DIGEST,
        "signer": _DIGEST,
        "boot_id": _NAME,
        "boot_epoch": _COUNTER,
        "seq": _COUNTER,
        "step": _COUNTER,
        "phase": _SMALL,
        "part": _SMALL,
        "age": _COUNTER,
        "samples": _COUNTER,
        "chunks_digest": _DIGEST,
        "readers_digest": _DIGEST,
        "key_commitment": _DIGEST,
    },
}
"""The fields of every message, and of the header, in the order of the wire."""

KINDS: dict[int, type[Any]] = {1: Hello, 2: Offer, 3: Credit, 4: Chunk, 5: Bye}
_NUMBERS = {kind: number for number, kind in KINDS.items()}


def split(frames: tuple[Sized, ...]) -> tuple[bytes, Sized | None]:
    """The first frame of a message, and the second where there is one. Raises `RejectedFrame` with BAD_FRAMES."""
    if not 1 <= len(frames) <= 2 or not all(map(len, frames)):
        raise RejectedFrame(Reason.BAD_FRAMES)
    head, body = frames[0], frames[1] if len(frames) == 2 else None
    if not isinstance(head, bytes):
        raise TypeError("the engine hands over first frames as bytes")
    if body is not None and len(body) > CHUNK_BYTES + TAG_BYTES:
        raise RejectedFrame(Reason.BAD_FRAMES)
    return head, body


def write_message(message: object, numbers: dict[type[Any], int], fields: dict[type[Any], dict[str, Field]]) -> bytes:
    """The first frame of a message of one of these kinds: protocol version, number of the kind, fields in their order."""
    kind = type(message)
    return pack_values([PROTOCOL_VERSION, numbers[kind], *write_fields(message, fields[kind])])


def read_message(frame: bytes, most: int, kinds: dict[int, type[Any]], fields: dict[type[Any], dict[str, Field]]) -> Any:
    """And back, of at most so many bytes. Raises `RejectedFrame` with BAD_HEADER, VERSION or KIND, and nothing else."""
    require(3 <= len(frame) <= most and 0x90 <= frame[0] <= 0x9F and frame[1] <= 0x7F)
    if frame[1] != PROTOCOL_VERSION:
        raise RejectedFrame(Reason.VERSION)
    kind = kinds.get(frame[2])
    if kind is None:
        raise RejectedFrame(Reason.KIND)
    known = fields[kind]
    return kind(*read_fields(unpack_values(frame, 2 + len(known))[2:], known))


def write_fields(message: Any, fields: dict[str, Field]) -> list[Any]:
    """What a message's fields are on the wire, in their order."""
    return [one.write(getattr(message, name)) for name, one in fields.items()]


def read_fields(values: Iterable[Any], fields: dict[str, Field]) -> list[Any]:
    """And back, each within its bound. Raises `RejectedFrame` with BAD_HEADER."""
    return [one.read(value) for one, value in zip(fields.values(), values, strict=True)]


def pack_values(values: list[Any]) -> bytes:
    """One flat msgpack array."""
    packed: bytes = msgpack.packb(values)
    return packed


def unpack_values(frame: bytes, count: int) -> tuple[Any, ...]:
    """A list of `count` numbers, flags and byte strings. Anything else in it ends the decoding where it is found."""
    try:
        values = msgpack.unpackb(
            frame,
            use_list=False,
            max_array_len=count,
            max_bin_len=len(frame),
            max_str_len=0,
            max_map_len=0,
            max_ext_len=0,
            list_hook=_one_list(),
            object_hook=_no_map,
        )
    except Exception:  # noqa: BLE001  msgpack raises ValueError and its own four kinds, and TypeError
        raise RejectedFrame(Reason.BAD_HEADER) from None
    require(type(values) is tuple and len(values) == count)
    return tuple(values)


def _one_list() -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Lets one list be built, the message itself; inner ones are finished before it, so that the second call ends it."""
    is_built = False

    def hook(values: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal is_built
        if is_built:
            raise ValueError("a list in a list")
        is_built = True
        return values

    return hook


def _no_map(_: object) -> None:
    """Empty maps pass max_map_len."""
    raise ValueError("a map")


def require(holds: bool) -> None:
    """Raises `RejectedFrame` with BAD_HEADER otherwise."""
    if not holds:
        raise RejectedFrame(Reason.BAD_HEADER)
