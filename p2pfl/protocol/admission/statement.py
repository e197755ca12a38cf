"""What somebody signed once and everybody can check for ever: certificates, invites, receipts, revocations, records, charters.

A statement is a flat msgpack array [format, field, ...] and, behind it, 64 bytes of Ed25519 over context ‖ array. The context
names what kind of statement it is, so that no signature serves for two. The bytes are kept as they came and are never encoded
again: msgpack has several encodings of one number, and only one of them was signed.

Reading a statement checks its form and the bounds of its fields, and says nothing of its signature; `Form.is_by` does.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from nacl import bindings
from nacl.exceptions import CryptoError

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.wire import (
    SIGNATURE_BYTES,
    Field,
    octets,
    pack_values,
    read_fields,
    require,
    unpack_values,
    whole,
)

FORMAT = 1
_ARRAY = 0x90  # of msgpack: an array of up to 15 begins with this and its length
KEY_BYTES = 32
NETWORK_BYTES = 16
NAME_MAX = 64  # bytes of a member's or a network's name in UTF-8
ADDRESS_MAX = 128  # bytes of HOST:PORT

Sign = Callable[[bytes, bytes], bytes]
"""(context, body) to a signature, 64 bytes; `identity.Keyring.sign` is one."""

Verify = Callable[[bytes, bytes, bytes, bytes], bool]
"""(public key, context, body, signature) to whether it is one. A simulator may hand in one that trusts."""


class Statement(Protocol):
    """Any of the statements: `data` is the array and the signature, as they came."""

    @property
    def data(self) -> bytes: ...


S = TypeVar("S", bound=Statement)


def signer(seed: bytes) -> Sign:
    """Signs with an Ed25519 key, given its seed."""
    _, key = bindings.crypto_sign_seed_keypair(seed)
    return lambda context, body: bindings.crypto_sign(context + body, key)[:SIGNATURE_BYTES]


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed."""
    public, _ = bindings.crypto_sign_seed_keypair(seed)
    return public


def verify(key: bytes, context: bytes, body: bytes, signature: bytes) -> bool:
    """Whether this is the key's Ed25519 signature over context ‖ body. Keys of small order sign nothing (libsodium)."""
    try:
        return bindings.crypto_sign_open(signature + context + body, key) == context + body
    except CryptoError:
        return False


@dataclass(frozen=True, slots=True)
class Form(Generic[S]):
    """One kind of statement. `make` takes the fields in their order, then `data`; `most` bounds the bytes of `data`. `last` are
    fields behind the others that only those state who need them, all or none; `make` takes them after `data`."""

    context: bytes
    make: Callable[..., S]
    fields: dict[str, Field]
    most: int
    last: dict[str, Field] = field(default_factory=dict)

    def issue(self, sign: Sign, **values: Any) -> S:
        """A new one. Raises `RejectedFrame` with BAD_HEADER for values out of their bounds, before anything is signed."""
        fields = self.fields | self.last if values.keys() > self.fields.keys() else self.fields
        assert values.keys() == fields.keys()
        written = [FORMAT, *(one.write(values[name]) for name, one in fields.items())]
        body = pack_values(written)
        require(len(body) + SIGNATURE_BYTES <= self.most)
        read_fields(written[1:], fields)
        return self.read(body + sign(self.context, body))

    def read(self, data: bytes) -> S:
        """Its form and bounds; not its signature. Raises `RejectedFrame` with BAD_HEADER or VERSION, and nothing else."""
        require(SIGNATURE_BYTES < len(data) <= self.most)
        fields = self.fields | self.last
        if data[0] != _ARRAY + 1 + len(fields):
            fields = self.fields
        version, *values = unpack_values(data[:-SIGNATURE_BYTES], 1 + len(fields))
        require(type(version) is int)
        if version != FORMAT:
            raise RejectedFrame(Reason.VERSION)
        found, count = read_fields(values, fields), len(self.fields)
        return self.make(*found[:count], data, *found[count:])

    def is_by(self, statement: S, key: bytes, check: Verify = verify) -> bool:
        """Whether the holder of `key` signed it."""
        return check(key, self.context, statement.data[:-SIGNATURE_BYTES], statement.data[-SIGNATURE_BYTES:])


# ---- fields that the messages of gossip have not ------------------------------------------------------------------------

COUNTER = whole(1 << 63, says="0 to 2^63 - 1")
SECONDS = whole(1 << 53, says="0 to 2^53 - 1: seconds since 1970 UTC")
KEY = octets(KEY_BYTES, KEY_BYTES)
NETWORK = octets(NETWORK_BYTES, NETWORK_BYTES)


def text(most: int) -> Field:
    """A text of 1 to `most` bytes of UTF-8, without control characters. Whoever shows it escapes it."""

    def read(value: Any) -> str:
        require(type(value) is bytes and 1 <= len(value) <= most)
        return _text(value)

    return Field("bytes", f"1 to {most}: UTF-8, no control characters", read, str.encode)


def addresses(most: int) -> Field:
    """Up to `most` addresses HOST:PORT, joined by newlines."""

    def read(value: Any) -> tuple[str, ...]:
        require(type(value) is bytes and len(value) <= most * (ADDRESS_MAX + 1))
        found = tuple(_address(line) for line in value.split(b"\n")) if value else ()
        require(len(found) <= most and len(set(found)) == len(found))
        return found

    bound = f"up to {most} different HOST:PORT of at most {ADDRESS_MAX} bytes, joined by newlines"
    return Field("bytes", bound, read, lambda value: "\n".join(value).encode())


def keys(most: int, of: str) -> Field:
    """Up to `most` different keys, in strictly ascending order, joined to one byte string."""

    def read(value: Any) -> tuple[bytes, ...]:
        require(type(value) is bytes and len(value) % KEY_BYTES == 0 and len(value) // KEY_BYTES <= most)
        found = tuple(value[i : i + KEY_BYTES] for i in range(0, len(value), KEY_BYTES))
        require(list(found) == sorted(set(found)))
        return found

    return Field("bytes", f"up to {most} × {KEY_BYTES}: {of}, ascending", read, b"".join)


def items(most: int, size: int, of: str) -> Field:
    """Up to `most` byte strings of at most `size` bytes, each behind its length as 2 bytes big-endian."""
    assert size < 1 << 16

    def read(value: Any) -> tuple[bytes, ...]:
        require(type(value) is bytes)
        found: list[bytes] = []
        at = 0
        while at < len(value):
            length = int.from_bytes(value[at : at + 2], "big")
            require(len(found) < most and length <= size and at + 2 + length <= len(value))
            found.append(value[at + 2 : at + 2 + length])
            at += 2 + length
        return tuple(found)

    def write(value: Any) -> bytes:
        return b"".join(len(item).to_bytes(2, "big") + item for item in value)

    return Field("bytes", f"up to {most} × 0 to {size}, each behind its length as 2 bytes: {of}", read, write)


def _text(value: bytes) -> str:
    try:
        found = value.decode()
    except UnicodeDecodeError:
        raise RejectedFrame(Reason.BAD_HEADER) from None
    require(all(character >= " " and character != "\x7f" for character in found))
    return found


def _address(line: bytes) -> str:
    """Only its shape: whoever dials parses it, and resolves a name."""
    require(3 <= len(line) <= ADDRESS_MAX and line.isascii())
    host, _, port = line.decode().rpartition(":")
    require(len(host) > 0 and all("!" <= character <= "~" for character in host))
    require(1 <= len(port) <= 5 and port.isdecimal() and 1 <= int(port) < 1 << 16)
    return line.decode()
