"""Bytes as one line of text that survives being pasted, and says so when it did not."""

import base64
import binascii
import hashlib
import re

from p2pfl.failure import ExitCode, Failure

CHECKSUM_BYTES = 5
LINE_MAX = 4096  # characters
_SHAPE = re.compile(r"p2pfl-([a-z]+)-([0-9]+)-([A-Za-z0-9_-]+)")
_VERSION = 1


def to_line(kind: str, data: bytes) -> str:
    """p2pfl-KIND-1-TEXT: base64url of the bytes and a checksum. One word, so that a double click takes all of it."""
    text = base64.urlsafe_b64encode(data + _checksum(kind, data)).rstrip(b"=").decode()
    return f"p2pfl-{kind}-{_VERSION}-{text}"


def from_line(kind: str, text: str) -> bytes:
    """The bytes of a line. Spaces and line breaks, as mail and terminals put in, don't matter. Raises `Failure` with exit code
    IDENTITY for anything else that is not as it was written."""
    compact = "".join(text.split())
    found = _SHAPE.fullmatch(compact) if len(compact) <= LINE_MAX else None
    if found is None:
        raise _failure(f"not_{kind}", f"This is no {kind}.", f"It is one line and begins with p2pfl-{kind}-{_VERSION}-.")
    if found[1] != kind:
        hint = f"Give the line that begins with p2pfl-{kind}-{_VERSION}-."
        raise _failure(f"not_{kind}", f"This is a line of another kind ({found[1]}), not {_a(kind)}.", hint)
    if found[2] != str(_VERSION):
        message = f"This {kind} has version {found[2]}, this program knows {_VERSION}."
        raise _failure(f"{kind}_version", message, "Update the program.")
    try:
        decoded = base64.b64decode(found[3] + "=" * (-len(found[3]) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        decoded = b""
    data, checksum = decoded[:-CHECKSUM_BYTES], decoded[-CHECKSUM_BYTES:]
    if len(decoded) <= CHECKSUM_BYTES or _checksum(kind, data) != checksum or to_line(kind, data) != compact:
        raise _failure(f"{kind}_mistyped", f"The {kind} was not copied whole, or was mistyped.", "Copy it again.")
    return data


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _checksum(kind: str, data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=CHECKSUM_BYTES, key=kind.encode(), person=b"p2pfl/line").digest()


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)
