"""What is known of a member: its newest own statement, and who accuses it of being dead at that statement.

Both are signed, a statement by its subject, an accusation by its accuser, and nothing else about a member travels: no third
party can raise a member's incarnation, move its address, or bury it. `merge` joins two standings; it is a lattice join, so
that order, repetition and grouping of what is heard do not matter.
"""

import hashlib
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from p2pfl.protocol.admission.record import NEIGHBORS_MAX, Record
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId

SWIM_CONTEXT = b"p2pfl/swim/v1\0"
ACCUSERS_MAX = NEIGHBORS_MAX  # kept of each member: more than can be its neighbors is never needed
_ACCUSATION = Struct("!32s32sQQ64s")
ACCUSATION_BYTES = _ACCUSATION.size


class Version(NamedTuple):
    """Of a member's record: which boot, and how often it spoke anew since. The later one holds."""

    epoch: int
    incarnation: int


def version_of(record: Record) -> Version:
    """When a record was made, in its own member's count."""
    return Version(record.boot_epoch, record.incarnation)


@dataclass(frozen=True, slots=True)
class Accusation:
    """`accuser` could not reach `subject`, whose newest record was of this version."""

    accuser: PeerId
    subject: PeerId
    version: Version
    signature: bytes

    def encode(self) -> bytes:
        """144 bytes."""
        return _ACCUSATION.pack(self.accuser, self.subject, *self.version, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> "Accusation":
        """What `encode` gave, not verified. Raises `RejectedFrame` with BAD_HEADER."""
        if len(data) != ACCUSATION_BYTES:
            raise RejectedFrame(Reason.BAD_HEADER)
        accuser, subject, epoch, incarnation, signature = _ACCUSATION.unpack(data)
        if max(epoch, incarnation) >> 63 or accuser == subject:
            raise RejectedFrame(Reason.BAD_HEADER)
        return cls(PeerId(accuser), PeerId(subject), Version(epoch, incarnation), signature)


def accusation_digest(network: bytes, accuser: PeerId, subject: PeerId, version: Version) -> bytes:
    """What an accuser signs under `SWIM_CONTEXT`."""
    said = _ACCUSATION.pack(accuser, subject, *version, bytes(64))
    return hashlib.blake2b(b"accuse" + network + said, digest_size=32).digest()


def answer_digest(network: bytes, target: PeerId, origin: PeerId, ticket: bytes) -> bytes:
    """What the target of a relayed probe signs under `SWIM_CONTEXT`, so that no helper can answer for the dead."""
    return hashlib.blake2b(b"answer" + network + target + origin + ticket, digest_size=32).digest()


@dataclass(frozen=True, slots=True)
class Standing:
    """A member's newest record, and its accusers at just this record, in the order of their ids."""

    record: Record
    accusations: tuple[Accusation, ...] = ()

    @property
    def version(self) -> Version:
        return version_of(self.record)


def merge(one: Standing, other: Standing) -> Standing:
    """The newer record with its accusations; of two alike, the accusations of both.

    Two records of one version are a member's own doing (two machines with one identity); the larger in bytes holds, so that
    all keep the same.
    """
    if one.record.precedence != other.record.precedence:
        return max(one, other, key=lambda standing: standing.record.precedence)
    by_accuser: dict[PeerId, Accusation] = {}
    for accusation in sorted((*one.accusations, *other.accusations), key=lambda a: (a.accuser, a.signature)):
        by_accuser.setdefault(accusation.accuser, accusation)
    return Standing(one.record, tuple(by_accuser.values())[:ACCUSERS_MAX])
