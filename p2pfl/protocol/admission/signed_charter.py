"""A charter as the root signed it, and which one holds: that with the highest serial number, and for a while the one before.

Its settings are a JSON text, so that there can be other tasks, codecs and graphs without another version of the protocol.
They name things; they never name a file or code. A joiner's task comes from its own operator, who is told when it does not fit.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from p2pfl.protocol.admission.certificate import BACKDATE_S
from p2pfl.protocol.admission.statement import COUNTER, KEY, NAME_MAX, NETWORK, SECONDS, Form, Sign, Verify, text, verify
from p2pfl.protocol.charter import Charter, GossipRules, network_id
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.wire import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    Field,
    octets,
    pack_values,
    read_fields,
    require,
    unpack_values,
    whole,
)

SETTINGS_MAX = 2048  # bytes of JSON; with every default written out they need about 900
CHARTER_MAX = 2400
GRACE_S = 86_400.0  # how long the predecessor is still good: a member may be cut off while the new one spreads
_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")
_STRING = re.compile(r"[A-Za-z0-9_.:+-]{0,64}")
_LIST_MAX = 64
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SignedCharter:
    """`settings` is a JSON object: "gossip" and other sections, each an object of words, numbers and lists of numbers.
    `signed_at` is in seconds since 1970."""

    network: bytes
    name: str
    serial: int
    signed_at: int
    schema: bytes
    update_bytes: int
    settings: bytes
    data: bytes = field(repr=False)

    @property
    def sections(self) -> Mapping[str, Any]:
        """The settings, read."""
        return _settings(self.settings)

    def charter(self, root: bytes) -> Charter:
        """What a peer needs of it."""
        return Charter(self.name, root, self.schema, self.update_bytes, _rules(self.sections["gossip"]), self.settings)

    def verify(self, root: bytes, network: bytes, check: Verify = verify) -> None:
        """Raises `RejectedFrame` with WRONG_NETWORK or BAD_CHAIN unless the root signed it for this network."""
        if self.network != network or network_id(root, self.name) != network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        if not CHARTER.is_by(self, root, check):
            raise RejectedFrame(Reason.BAD_CHAIN)


def sign_charter(
    sign: Sign, charter: Charter, serial: int, now: float, sections: Mapping[str, Mapping[str, Any]]
) -> SignedCharter:
    """The root's signature under a charter; its gossip rules are added to `sections`, and its terms are what comes out. Raises
    `RejectedFrame` with BAD_HEADER for settings that can't be in one."""
    agreed = {**sections, "gossip": asdict(charter.gossip)}
    settings = json.dumps(agreed, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return CHARTER.issue(
        sign,
        network=charter.network_id,
        name=charter.name,
        serial=serial,
        signed_at=int(now),
        schema=charter.schema,
        update_bytes=charter.update_bytes,
        settings=settings,
    )


class Charters:
    """Which charter holds in one network. The root's word with the highest serial number ever seen is kept, so that nobody can
    bring an old one back."""

    def __init__(self, root: bytes, first: SignedCharter, check: Verify = verify) -> None:
        """Raises `RejectedFrame` unless the root signed `first`."""
        first.verify(root, network_id(root, first.name), check)
        self.root, self._check = root, check
        self.current = first
        self.predecessor: SignedCharter | None = None
        self.since = 0.0

    def learn(self, data: bytes, wall: float) -> bool:
        """Whether this is a newer charter, which holds from now on; `wall` is the roster's time. Raises `RejectedFrame`:
        BAD_HEADER, VERSION, WRONG_NETWORK, BAD_CHAIN, OLD_CHARTER for a lower serial number, CHARTER_CONFLICT for another
        charter with the same one, CERT_FUTURE for one that was signed more than a day from now: its time would be believed."""
        if data == self.current.data:
            return False
        found = CHARTER.read(data)
        found.verify(self.root, self.current.network, self._check)
        if found.serial < self.current.serial:
            raise RejectedFrame(Reason.OLD_CHARTER)
        if found.serial == self.current.serial:
            raise RejectedFrame(Reason.CHARTER_CONFLICT)
        if found.signed_at > wall + BACKDATE_S:
            raise RejectedFrame(Reason.CERT_FUTURE)
        self.predecessor, self.current, self.since = self.current, found, wall
        return True

    def learn_if_newer(self, data: bytes, wall: float) -> bool:
        """The same for whoever may well know less; False for an older one."""
        try:
            return self.learn(data, wall)
        except RejectedFrame as refused:
            if refused.reason is not Reason.OLD_CHARTER:
                raise
            return False

    def tolerated(self, wall: float) -> tuple[bytes, float]:
        """The digest that the predecessor's updates name, and until when that is good; (b"", 0) where it is not any more. A
        clock that was set back makes it good no longer than it was at first."""
        if self.predecessor is None or not 0 <= wall - self.since < GRACE_S:
            return b"", 0.0
        return self.predecessor.charter(self.root).digest, self.since + GRACE_S

    def to_bytes(self) -> bytes:
        """As it rests on a disk."""
        before = self.predecessor.data if self.predecessor is not None else b""
        return pack_values([_FORMAT, self.root, self.current.data, before, max(0, int(self.since))])

    @classmethod
    def from_bytes(cls, data: bytes, check: Verify = verify) -> "Charters":
        """What `to_bytes` gave. Raises `RejectedFrame` for anything else; signatures are verified again."""
        version, *values = unpack_values(data, 1 + len(_AT_REST))
        require(version == _FORMAT)
        root, current, before, since = read_fields(values, _AT_REST)
        charters = cls(root, CHARTER.read(current), check)
        if before:
            predecessor = CHARTER.read(before)
            predecessor.verify(root, charters.current.network, check)
            charters.predecessor, charters.since = predecessor, float(since)
        return charters


def _settings(data: bytes) -> dict[str, Any]:
    """A JSON object of objects, with nothing in it that is a path or code. Raises `RejectedFrame` with BAD_HEADER."""
    try:
        found = json.loads(data.decode(), parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise RejectedFrame(Reason.BAD_HEADER) from None
    require(type(found) is dict and all(type(section) is dict for section in found.values()))
    for section in found.values():
        for value in section.values():
            require(_is_plain(value) or (type(value) is list and len(value) <= _LIST_MAX and all(map(_is_number, value))))
    keys = [*found, *(key for section in found.values() for key in section)]
    require(all(_WORD.fullmatch(key) for key in keys))
    task = found.get("task", {}).get("name")
    require(task is None or (type(task) is str and _WORD.fullmatch(task) is not None))
    require("gossip" in found)
    _rules(found["gossip"])
    return dict(found)


def _rules(section: Mapping[str, Any]) -> GossipRules:
    """The gossip rules of a section; those that it does not name are the default ones. A whole number may stand for one with a
    point."""
    known = [one for one in fields(GossipRules) if one.name in section]
    require(len(known) == len(section))
    values: dict[str, Any] = {}
    for one in known:
        value = section[one.name]
        if one.name == "mode":
            require(value in ("rounds", "async"))
        elif one.type is float:
            require(_is_number(value) and value >= 0)
            value = float(value)
        else:
            require(type(value) is int and value >= 0)
        values[one.name] = value
    return GossipRules(**values)


def _is_plain(value: Any) -> bool:
    if type(value) is str:
        return _STRING.fullmatch(value) is not None and ".py" not in value
    return value is None or type(value) is bool or _is_number(value)


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 1 << 53) or (type(value) is float and math.isfinite(value))


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """No key twice: others would take the first of them."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _settings_field() -> Field:
    bytes_ = octets(2, SETTINGS_MAX)

    def read(value: Any) -> bytes:
        data = bytes(bytes_.read(value))
        _settings(data)
        return data

    return Field(bytes_.type, f"{bytes_.bound}: JSON", read)


CHARTER = Form(
    b"p2pfl/charter/v1\0",
    SignedCharter,
    {
        "network": NETWORK,
        "name": text(NAME_MAX),
        "serial": COUNTER,
        "signed_at": SECONDS,
        "schema": KEY,
        "update_bytes": whole(CHUNKS_MAX * CHUNK_BYTES + 1, least=1, says="1 to 2^32"),
        "settings": _settings_field(),
    },
    CHARTER_MAX,
)
_AT_REST = {"root": KEY, "current": octets(1, CHARTER_MAX), "predecessor": octets(0, CHARTER_MAX), "since": SECONDS}
