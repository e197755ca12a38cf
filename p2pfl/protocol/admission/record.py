"""What a member says of itself: where it is, which keys it uses, whom it has links with, and that it is there or has left.

Only the subject can make one, so that nobody raises another's incarnation, moves its address or sends it away. Of two records
of one member the one with the higher `precedence` holds, whichever came first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from p2pfl.protocol.admission.statement import COUNTER, KEY, NETWORK, SECONDS, Form, Sign, Verify, addresses, keys, verify
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import keeps_secrets
from p2pfl.protocol.wire import Field, flag, require, whole

ADDRESSES_MAX = 3  # a record may point at a victim, whom everybody then dials
NEIGHBORS_MAX = 16
RECORD_MAX = 1408  # bytes with the signature; a record with everything has 1,222


@dataclass(frozen=True, slots=True)
class Record:
    """`boot_epoch` grows with every start, `incarnation` with every record of one start. `key_seq` grows whenever one of the
    two keys is another. `wall` is the subject's own clock, in seconds since 1970. `door` is the port of its join door at each
    of its addresses; 0 for the one after the address's own."""

    network: bytes
    identity: PeerId
    boot_epoch: int
    boot_id: bytes
    incarnation: int
    has_left: bool
    addresses: tuple[str, ...]
    neighbors: tuple[PeerId, ...]
    transport_key: bytes
    seal_key: bytes
    key_seq: int
    wall: int
    data: bytes = field(repr=False)
    door: int = 0

    @property
    def doors(self) -> tuple[str, ...]:
        """HOST:PORT of its join door, as far as it can be reached."""
        return tuple(door_at(address, self.door) for address in self.addresses)

    @property
    def precedence(self) -> tuple[int, int, bool, bytes]:
        """Records of one member in their order. The bytes only decide between two that nobody honest made."""
        return (self.boot_epoch, self.incarnation, self.has_left, self.data)

    def is_genuine(self, check: Verify = verify) -> bool:
        """Whether its subject signed it."""
        return RECORD.is_by(self, self.identity, check)

    def member(self, name: str) -> Member:
        """The subject as a member of that name."""
        return Member(self.identity, name, next(iter(self.addresses), ""), self.transport_key, self.seal_key)


def state(
    sign: Sign,
    network: bytes,
    own: Member,
    boot_epoch: int,
    boot_id: bytes,
    incarnation: int,
    wall: float,
    *,
    addresses: Iterable[str] | None = None,
    neighbors: Iterable[PeerId] = (),
    key_seq: int = 0,
    has_left: bool = False,
    door: int = 0,
) -> Record:
    """A record about oneself, signed. Of the addresses, the member's one where none are given, the first 3 are taken; of the
    neighbors any 16. Raises `RejectedFrame` with BAD_HEADER for an address that is none."""
    known = (own.address,) if addresses is None and own.address else tuple(addresses or ())
    return RECORD.issue(
        sign,
        network=network,
        identity=own.id,
        boot_epoch=boot_epoch,
        boot_id=boot_id,
        incarnation=incarnation,
        has_left=has_left,
        addresses=tuple(dict.fromkeys(known))[:ADDRESSES_MAX],
        neighbors=sorted(set(neighbors))[:NEIGHBORS_MAX],
        transport_key=own.transport_key,
        seal_key=own.seal_key,
        key_seq=key_seq,
        wall=int(wall),
        **({"door": door} if door else {}),
    )


def door_at(address: str, door: int) -> str:
    """Where the join door of a member is that is reached at this address: at this port, or with 0 at the next one."""
    host, _, port = address.rpartition(":")
    return f"{host}:{door or min(int(port) + 1, 65535)}"


def _agreement_key() -> Field:
    """An X25519 public key that keeps secrets."""

    def read(value: Any) -> bytes:
        key = KEY.read(value)
        require(keeps_secrets(key))
        return bytes(key)

    return Field(KEY.type, f"{KEY.bound}: X25519, not of low order", read)


RECORD = Form(
    b"p2pfl/addr/v1\0",
    Record,
    {
        "network": NETWORK,
        "identity": KEY,
        "boot_epoch": COUNTER,
        "boot_id": NETWORK,
        "incarnation": COUNTER,
        "has_left": flag(),
        "addresses": addresses(ADDRESSES_MAX),
        "neighbors": keys(NEIGHBORS_MAX, "ids of members"),
        "transport_key": _agreement_key(),
        "seal_key": _agreement_key(),
        "key_seq": COUNTER,
        "wall": SECONDS,
    },
    RECORD_MAX,
    {"door": whole(1 << 16, least=1)},
)
"""The form of a record: `RECORD.read(data)` gives one whose signature nobody has checked yet."""
