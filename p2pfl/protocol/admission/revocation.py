"""That a key is not to be trusted any more. It can't be taken back: who comes again comes with another key.

The root revokes any key: a member's, an issuer's (and with it all that it vouched for), an invite's token. An issuer revokes
whom it vouched for, so that its theft can't empty a network. And everybody revokes itself, to leave for ever or because its
key was stolen.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from p2pfl.protocol.admission.statement import KEY, NETWORK, SECONDS, Form, Sign, Verify, verify
from p2pfl.protocol.wire import Field, whole

REVOCATION_MAX = 192


class Cause(IntEnum):
    """Why; for people."""

    LEFT = 0
    STOLEN = 1
    EXPELLED = 2


@dataclass(frozen=True, slots=True)
class Revocation:
    """`subject` is the key that is revoked, `signer` the one that says so, `wall` when, by the signer's clock."""

    network: bytes
    subject: bytes
    signer: bytes
    cause: Cause
    wall: int
    data: bytes = field(repr=False)

    def is_genuine(self, check: Verify = verify) -> bool:
        """Whether its signer signed it; whether it may is for the roster to say."""
        return REVOCATION.is_by(self, self.signer, check)


def revoke(sign: Sign, network: bytes, subject: bytes, own: bytes, cause: Cause, wall: float) -> Revocation:
    """A revocation by the holder of the key `own`."""
    return REVOCATION.issue(sign, network=network, subject=subject, signer=own, cause=cause, wall=int(wall))


def _cause() -> Field:
    numbers = whole(len(Cause), says=", ".join(f"{cause.value}: {cause.name.lower()}" for cause in Cause))

    def read(value: Any) -> Cause:
        return Cause(numbers.read(value))

    return Field(numbers.type, numbers.bound, read, int)


REVOCATION = Form(
    b"p2pfl/revoke/v1\0",
    Revocation,
    {"network": NETWORK, "subject": KEY, "signer": KEY, "cause": _cause(), "wall": SECONDS},
    REVOCATION_MAX,
)
