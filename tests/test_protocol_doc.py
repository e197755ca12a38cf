"""The tables of docs/protocol.md are the code's. `python -m tests.test_protocol_doc` writes them anew."""

import ast
import importlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import p2pfl.protocol
import topology.overlay
from node.transport import routes, sockets
from p2pfl.protocol import errors, inbox, setbacks, window, wire
from p2pfl.protocol.allowance import Allowance
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.membership import gossip_wire, hearing, post, probe, rumors
from p2pfl.protocol.relay import meeting, relay_wire, session, tunnel, tunnels
from tests import test_admission_doc
from tests.tables import with_tables

DOC = Path(__file__).parent.parent / "docs" / "protocol.md"
COMMENT = re.compile(r'^    ([A-Z_]+) = "\w+"  # (.+)$', re.MULTILINE)
LIMITS = [
    (wire, "HEADER_FRAME_MAX", "bytes of a first frame"),
    (sockets, "FRAME_MAX", "bytes of any frame: a longer one ends the connection"),
    (wire, "HEADER_MAX", "bytes of an encoded header"),
    (wire, "CHUNK_BYTES", "bytes of a chunk before it is sealed"),
    (wire, "TAG_BYTES", "bytes that sealing adds to a chunk, or to a piece"),
    (wire, "CHUNKS_MAX", "chunks of an update"),
    (wire, "READERS_MAX", "readers of an offer"),
    (wire, "INLINE_MAX", "bytes of a sealed update that rides along with its offer"),
    (inbox, "CREDIT_CHUNKS", "chunks of an update under way at most"),
    (window, "WINDOW", "sequence numbers of a signer that are told apart"),
    (setbacks, "DOUBLINGS_MAX", "failed learning steps in a row after which the wait grows no more"),
    (rumors, "RUMOR_BYTES_MAX", "bytes of rumors on one message"),
    (gossip_wire, "RECORDS_MAX", "entries, ids or items of one message"),
    (gossip_wire, "RECORDS_BYTES_MAX", "bytes of items in one message"),
    (post, "RIDES_PER_S", "messages to one neighbor that carry rumors, a second; the others carry none"),
    (hearing, "ITEMS_PER_S", "items of one hop that are looked at, a second"),
    (hearing, "ITEMS_AT_ONCE", "and at once; then `rate_limited`"),
    (
        hearing,
        "RECORDS_AT_ONCE",
        "new records of one member that are taken at once; then one per probe interval, the others later",
    ),
    (post, "QUESTION_BYTES", "bytes of what a neighbor may pull, that every question of it costs"),
    (probe, "ERRANDS_PER_ORIGIN", "probes that a helper runs for one member at a time"),
    (relay_wire, "PIECE_BYTES", "bytes of a piece of a tunnel before it is sealed"),
    (relay_wire, "HEAD_MAX", "bytes of a tunnel's first frame"),
    (session, "WINDOW", "bulk pieces of a tunnel under way at most, in one direction"),
]
TUNNELS = [
    (meeting, "HOMES", "relays with which a hidden member keeps links"),
    (tunnel, "HANDSHAKE_S", "seconds until a knock that nobody answers, or an answer without a piece, counts for nothing"),
    (tunnel, "KEEP_S", "seconds between two words of an open tunnel, at most"),
    (tunnel, "SILENCE_S", "seconds of silence that end one"),
    (tunnel, "STALL_S", "seconds that end one in which bulk pieces wait and none is taken"),
    (tunnel, "ASK_S", "seconds for an answer where somebody says that the other end has no tunnel"),
    (tunnel, "WAKE_S", "seconds between two `Wake`s that are followed"),
    (tunnel, "RETRY_MIN_S", "seconds between two rounds over all relays; doubles"),
    (tunnel, "RETRY_MAX_S", "and ends with this"),
    (tunnels, "KNOCKS_PER_S", "knocks of one member over one relay that are answered, a second"),
    (tunnels, "RELAY_KNOCKS_PER_S", "and of all members over one relay"),
]
DIGESTS = {
    "p2pfl/net": (16, "a network", "root key ‖ name of the network"),
    "p2pfl/charter": (
        32,
        "a charter",
        "msgpack array of its `name`, `schema`, `update_bytes` as they are in it ‖ its `settings`",
    ),
    "p2pfl/chunks": (32, "an update: `chunks_digest`", "length of the payload (8) ‖ the digests of its sealed chunks in order"),
    "p2pfl/readers": (32, "`readers_digest`", "the ids of the readers, ascending"),
    "p2pfl/commit": (32, "`key_commitment`", "the key of the update"),
    "p2pfl/bucket": (8, "a member in a view", "id ‖ `EPOCH INCARNATION SUSPECTED` in decimal, the last 0 or 1"),
    "p2pfl/revoked": (32, "`revocations` of `Digests`", "all revocations, ascending, each behind its length (2)"),
    "p2pfl/overlay": (8, "a place on a ring", "[the overlay](#the-overlay)"),
    "p2pfl/home": (8, "how near a relay is to a member", "member's id ‖ relay's id"),
    "p2pfl/tunnel": (64, "the two keys of a tunnel: caller's, callee's", "what `Answer` signs; key: the X25519 shared secret"),
    "p2pfl/session": (8, "a session of a tunnel", "what `Answer` signs"),
    "p2pfl/cert": (32, "a certificate, in receipts", "the statement with its signature"),
    "p2pfl/roster": (32, "`digest` of `Welcome`", "all credentials and revocations, ascending, each behind its length (2)"),
    "p2pfl/papers": (16, "a statement in an inventory", "a credential or a revocation"),
    "p2pfl/line": (5, "a line of text", "what is in it; key: the line's kind"),
    "p2pfl/identity": (32, "an identity's file", "all before"),
    "p2pfl/root": (32, "a root key's file", "all before"),
}
OWN = {
    "DAY_S": "said in days",
    "HELD_S": "of a relay's own memory",
    "OFF_S": "said in words: an hour",
    "SEALED_MAX": "`PIECE_BYTES` and `TAG_BYTES`",
    "STEADY_S": "which relay is tried first, by who tries",
    "MEMORY_BYTES_MAX": "of a key's file; said in MiB",
    "RTT_MAX_S": "a way that takes longer is not slow but broken",
    "WELCOME_MAX": "four times the longest question",
}
"""What no other peer can tell, or what is said in other words."""
OWN_DISK = {"p2pfl/atrest": "a roster's file, which only its own program reads"}
CONTEXTS = {
    "p2pfl/update/v1": [("`Offer`", "the digest of the header")],
    "p2pfl/swim/v1": [
        ("an accusation", "the digest of `accuse` ‖ network id ‖ the accusation with a signature of zeros"),
        ("`Ack` to a helper", "the digest of `answer` ‖ network id ‖ target's id ‖ asker's id ‖ ticket"),
    ],
    "p2pfl/tunnel/v1": [
        ("`Knock`", "the digest of `knock` ‖ network id ‖ caller's id ‖ callee's id ‖ `ephemeral`"),
        ("`Answer`", "the digest of `answer` ‖ network id ‖ caller's id ‖ callee's id ‖ `knock` ‖ `ephemeral`"),
    ],
}
"""The statements of docs/admission.md have theirs in its table, which is the code's."""
RULES = {
    "mode": '`"rounds"`, or `"async"`',
    "rounds": "how often a peer mixes; 0 is without end",
    "floor_s": "seconds to wait at least, in rounds",
    "ceiling_s": "and at most",
    "deviations": "how many deviations over the median a wait lasts",
    "gather_s": "seconds that the first wait may last",
    "period_s": "seconds between two mixes, asynchronously",
    "age_cap": "an age is believed up to one's own + this",
    "step_window": "a step is accepted up to one's own + this",
    "staleness": "rounds that an update may be old and stand in for a missing one",
    "checkpoint_s": "seconds between two states that are kept",
}
ALLOWANCE = {
    "messages_per_s": "messages a second",
    "messages_burst": "messages at once",
    "bytes_per_s": "bytes a second",
    "bytes_burst": "bytes at once",
    "refusal_cost": "messages that one which is refused counts for, beside itself",
    "ban_min_s": "seconds of the first ban",
    "ban_max_s": "seconds of the longest",
    "memory": "times its length, after which a ban is forgotten and the next is a first one",
}
PATIENCE = {
    "handshake_s": "seconds until a handshake that was not finished is given up",
    "heartbeat_s": "seconds between two heartbeats of ZMTP; a link that was silent for three of them is over",
    "backoff_min_s": "seconds before a link that broke is dialled again: a random part of a span that begins with this",
    "backoff_max_s": "doubles every time, and ends with this",
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


def limits(listed: list[tuple[Any, str, str]]) -> str:
    """The constants that more than one peer has to have alike."""
    rows = ["| name | value | of |", "|---|---|---|"]
    named = Counter(name for _, name, _ in listed)
    for module, name, what in listed:
        shown = name if named[name] == 1 else f"{module.__name__.rpartition('.')[2]}.{name}"
        rows.append(f"| `{shown}` | {plain(getattr(module, name))} | {what} |")
    return "\n".join(rows)


def digests() -> str:
    """Every digest that has a purpose of its own."""
    rows = ["| personalization | bytes | names | over |", "|---|---|---|---|"]
    return "\n".join(
        rows + [f"| `{purpose}` | {size} | {names} | {over} |" for purpose, (size, names, over) in DIGESTS.items()]
    )


def contexts() -> str:
    """Every signature that is not a statement's."""
    rows = ["| context | signature of | over |", "|---|---|---|"]
    for context, signed in CONTEXTS.items():
        rows += [f"| `{context}` | {what} | {over} |" for what, over in signed]
    return "\n".join([*rows, "| in [admission](admission.md#statements) | every statement there | its array |"])


def defaults(of: object, says: dict[str, str]) -> str:
    """The fields of a frozen dataclass, with the values that they have where nobody says otherwise."""
    assert is_dataclass(of) and not isinstance(of, type)
    assert says.keys() == {one.name for one in fields(of)}
    rows = ["| name | default | what |", "|---|---|---|"]
    return "\n".join(rows + [f"| `{name}` | {plain(getattr(of, name))} | {what} |" for name, what in says.items()])


def plain(value: Any) -> str:
    if isinstance(value, str):
        return f"`{json.dumps(value)}`"
    return f"{int(value):,}" if value == int(value) else f"{value}"


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
    assert (routes._AT_ONCE, routes._PER_S) == (64, 2)  # as the text below says
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


TABLES = {
    "digests": digests,
    "contexts": contexts,
    "announcement": announced,
    "patience": lambda: defaults(sockets.Patience(), PATIENCE),
    "messages": messages,
    "limits": lambda: limits(LIMITS),
    "tunnels": lambda: limits(TUNNELS),
    "allowance": lambda: defaults(Allowance(), ALLOWANCE),
    "reasons": reasons,
    "gossip": lambda: defaults(GossipRules(), RULES),
}


def test_the_tables_are_the_ones_of_the_code() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == with_tables(text, TABLES), f"run `python -m {__name__}`; it should read:\n{with_tables(text, TABLES)}"


def test_every_reason_is_explained() -> None:
    assert set(dict(COMMENT.findall(Path(errors.__file__).read_text()))) == {reason.name for reason in Reason}


def test_every_context_of_a_signature_is_documented() -> None:
    statements = {form.context.rstrip(b"\0").decode() for form in test_admission_doc.FORMS.values()}
    assert found(r'b"(p2pfl/\w+/v1)\\0"') == CONTEXTS.keys() | statements


def test_every_personalization_of_a_digest_is_documented() -> None:
    purposes = found(r'person=b"(p2pfl/\w+)"|_digest\(b"(p2pfl/\w+)"|KeyFile\(.*b"(p2pfl/\w+)"')
    assert purposes == DIGESTS.keys() | OWN_DISK.keys()


def test_no_context_begins_another() -> None:
    contexts = sorted(f"{context}\0" for context in found(r'b"(p2pfl/\w+/v1)\\0"'))
    assert not [pair for pair in pairwise(contexts) if pair[1].startswith(pair[0])]


def test_every_timer_and_bound_is_documented_or_nobody_elses_business() -> None:
    """Timers by their name, in a table; bounds at least by their number: those of fields stand beside the fields."""
    named = {name for _, name, _ in [*LIMITS, *TUNNELS, *test_admission_doc.BOUNDS]} | OWN.keys()
    pages = "".join(
        (DOC.parent / page).read_text(encoding="utf-8") for page in ("protocol.md", "admission.md", "membership.md")
    )
    numbers = set(re.findall(r"\d[\d,]*", pages))
    unsaid = {name for name, _ in constants() if name.endswith("_S") and name not in named}
    unsaid |= {
        name
        for name, value in constants()
        if name.endswith("_MAX") and not {name, f"{value:,}", f"{value}"} & (named | numbers)
    }
    assert not unsaid, f"put these into LIMITS, or into OWN where no other peer can tell what they are: {sorted(unsaid)}"
    assert OWN.keys() <= {name for name, _ in constants()}


def found(pattern: str) -> set[str]:
    """All that is written so in what peers must agree on."""
    texts = (file.read_text(encoding="utf-8") for file in (*sources(), Path(topology.overlay.__file__)))
    return {next(filter(None, match.groups())) for text in texts for match in re.finditer(pattern, text)}


def sources() -> list[Path]:
    return sorted(Path(p2pfl.protocol.__file__).parent.rglob("*.py"))


def constants() -> Iterator[tuple[str, float]]:
    """Name and value of every number that stands at the top of a module."""
    root = Path(p2pfl.protocol.__file__).parents[2]
    for file in sources():
        module = importlib.import_module(".".join(file.relative_to(root).with_suffix("").parts))
        for line in ast.parse(file.read_text(encoding="utf-8")).body:
            targets = line.targets if isinstance(line, ast.Assign) else []
            for name in [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]:
                value = getattr(module, name.id)
                if type(value) in (int, float) and not name.id.startswith("_"):
                    yield name.id, value


if __name__ == "__main__":
    DOC.write_text(with_tables(DOC.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
