"""The root's word on what it had revoked by some moment: who has not heard of all of it is being kept from it.

Revocations spread like everything else, and nobody misses one that never came. So the root may sign now and then, say once a
week, a digest of those that it signed in the days before. It needs nobody's answer; a node that has seen one, and none for
long, says so, and so does one that lacks a revocation that the root counted.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from p2pfl.protocol.admission.certificate import BACKDATE_S, DAY_S
from p2pfl.protocol.admission.revocation import Revocation
from p2pfl.protocol.admission.statement import KEY, NETWORK, SECONDS, Form, Sign, Verify, verify
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.wire import DIGEST_BYTES, whole

ATTESTATION_MAX = 192
COVERED_DAYS = 30  # before its moment: four weekly ones may be missed
STALE_S = 14 * DAY_S  # without a newer one, a node says so


@dataclass(frozen=True, slots=True)
class Attestation:
    """Of the root's revocations with `wall - days` <= their moment <= `wall`: how many, and their digest."""

    network: bytes
    wall: int
    days: int
    count: int
    digest: bytes
    data: bytes = field(repr=False)

    def covers(self, revocation: Revocation) -> bool:
        """Whether it would count one of the root's."""
        return self.wall - self.days * DAY_S <= revocation.wall <= self.wall


def attest(sign: Sign, network: bytes, revocations: Iterable[Revocation], wall: float, days: int = COVERED_DAYS) -> Attestation:
    """By the root, of all of its revocations that it knows."""
    now = int(wall)
    recent = [one for one in revocations if now - days * DAY_S <= one.wall <= now]
    return ATTESTATION.issue(sign, network=network, wall=now, days=days, count=len(recent), digest=digest_of(recent))


def digest_of(revocations: Iterable[Revocation]) -> bytes:
    """Names a set of revocations, 32 bytes."""
    hasher = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"p2pfl/revoked")
    for data in sorted(one.data for one in revocations):
        hasher.update(len(data).to_bytes(2, "big") + data)
    return hasher.digest()


class Attestations:
    """The newest that was seen, and whether all that it counts was ever known here: what has ended since may be forgotten."""

    def __init__(self, network: bytes, root: bytes, check: Verify = verify) -> None:
        self._network, self._root, self._check = network, root, check
        self.newest: Attestation | None = None
        self.is_whole = False

    def learn(self, data: bytes, now: float) -> bool:
        """Whether it is the newest. Raises `RejectedFrame`: BAD_HEADER, VERSION, WRONG_NETWORK, BAD_CHAIN, CERT_FUTURE for one
        of more than a day from now."""
        if self.newest is not None and data == self.newest.data:
            return False
        found = ATTESTATION.read(data)
        if found.network != self._network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        if not ATTESTATION.is_by(found, self._root, self._check):
            raise RejectedFrame(Reason.BAD_CHAIN)
        if found.wall > now + BACKDATE_S:
            raise RejectedFrame(Reason.CERT_FUTURE)
        if self.newest is not None and (found.wall, found.data) <= (self.newest.wall, self.newest.data):
            return False
        self.newest, self.is_whole = found, False
        return True

    def look(self, by_root: Iterable[Revocation]) -> None:
        """These are the root's revocations that are known now."""
        if self.newest is not None and not self.is_whole:
            self.is_whole = digest_of(filter(self.newest.covers, by_root)) == self.newest.digest


ATTESTATION = Form(
    b"p2pfl/attest/v1\0",
    Attestation,
    {
        "network": NETWORK,
        "wall": SECONDS,
        "days": whole(401, least=1),
        "count": whole(1 << 16, says="0 to 65535"),
        "digest": KEY,
    },
    ATTESTATION_MAX,
)
