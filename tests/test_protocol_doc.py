"""The tables of docs/protocol.md are the code's. `python -m tests.test_protocol_doc` writes them anew."""

import re
from pathlib import Path

from node.transport import routes
from p2pfl.protocol import errors, wire
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.relay import relay_wire
from tests.tables import with_tables

DOC = Path(__file__).parent.parent / "docs" / "protocol.md"
COMMENT = re.compile(r'^    ([A-Z_]+) = "\w+"  # (.+)$', re.MULTILINE)
LIMITS = {
    "HEADER_FRAME_MAX": "bytes of a first frame",
    "HEADER_MAX": "bytes of an encoded header",
    "CHUNK_BYTES": "bytes of a chunk before it is sealed",
    "TAG_BYTES": "bytes that sealing adds to a chunk",
    "CHUNKS_MAX": "chunks of an update",
    "READERS_MAX": "readers of an offer",
    "INLINE_MAX": "bytes of a sealed update that rides along with its offer",
}


def messages() -> str:
    """Kind, message, field, type and bound, in the order of the wire."""
    rows = ["| kind | message | field | type | bound |", "|---|---|---|---|---|"]
    fields = {**wire.FIELDS, **gossip_wire.FIELDS, **relay_wire.FIELDS}
    kinds = {**wire.KINDS, **gossip_wire.KINDS, **relay_wire.KINDS}
    numbered = [(str(number), kind) for number, kind in kinds.items()]
    for number, kind in [*numbered, ("", wire.Header)]:
        for k, (name, field) in enumerate(fields[kind].items()):
            first = (number, f"`{kind.__name__}`") if k == 0 else ("", "")
            rows.append(f"| {first[0]} | {first[1]} | `{name}` | {field.type} | {field.bound} |")
    return "\n".join(rows)


def limits() -> str:
    """The constants of the wire."""
    rows = ["| name | value | of |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{name}` | {getattr(wire, name):,} | {what} |" for name, what in LIMITS.items()])


def reasons() -> str:
    """Every reason, with the comment that the code has beside it."""
    comments = dict(COMMENT.findall(Path(errors.__file__).read_text()))
    proved = list(Reason).index(Reason.BAD_SIGNATURE)
    chunked = (Reason.UNEXPECTED_CHUNK,)
    rows = ["| | reason | what is wrong | blamed on |", "|---|---|---|---|"]
    for k, reason in enumerate(Reason, start=1):
        blamed = "hop" if k - 1 <= proved or reason in chunked else "signer"
        rows.append(f"| {k} | `{reason}` | {comments[reason.name]} | {blamed} |")
    return "\n".join(rows)


def announced() -> str:
    """What a dialler says first, byte by byte."""
    told = [routes.announcement(channel, bytes(routes.TOKEN_BYTES)) for channel in (routes.CONTROL, routes.BULK)]
    (magic,) = {one[: -routes.TOKEN_BYTES - 1] for one in told}
    assert {len(one) for one in told} == {routes.ANNOUNCEMENT_BYTES} and all(map(routes.is_announcement, told))
    channels = [f"`{one[len(magic) :][:1].decode()}`" for one in told]
    return "\n".join(
        [
            "| bytes | what |",
            "|---|---|",
            f"| {len(magic)} | `{magic[:-1].decode()}`, and a zero byte |",
            f"| 1 | the channel: {channels[0]} control, {channels[1]} bulk |",
            f"| {routes.TOKEN_BYTES} | the token: random, another for each link, the same on both of its connections |",
        ]
    )


TABLES = {"messages": messages, "announcement": announced, "limits": limits, "reasons": reasons}


def test_the_tables_are_the_ones_of_the_code() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == with_tables(text, TABLES), f"run `python -m {__name__}`; it should read:\n{with_tables(text, TABLES)}"


def test_every_reason_is_explained() -> None:
    assert set(dict(COMMENT.findall(Path(errors.__file__).read_text()))) == {reason.name for reason in Reason}


if __name__ == "__main__":
    DOC.write_text(with_tables(DOC.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
