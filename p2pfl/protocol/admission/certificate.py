"""Who is vouched for by whom, from the root key down to one member, and how anybody checks it alone.

    root ──certificate──────────────────────────────> member
    root ──certificate, role ISSUE──> issuer ───────> member
    root (or issuer) ──invite──> token ─certificate─> member, admitted by another member's receipt

A chain is as long as that and no longer: an issuer makes no issuers, a token no tokens. What somebody vouches for does not
outlive the certificate it was given itself.
"""

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from p2pfl.protocol.admission.statement import KEY, NAME_MAX, NETWORK, SECONDS, Form, Verify, text, verify
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import (
    DIGEST_BYTES,
    Field,
    octets,
    pack_values,
    read_fields,
    require,
    unpack_values,
    whole,
    write_fields,
)

DAY_S = 86_400
BACKDATE_S = DAY_S  # how long before it is signed a certificate is valid, for clocks that are behind
MEMBER_DAYS_MAX = 90
ISSUER_DAYS_MAX = 400
INVITE_DAYS_MAX = 30
USES_MAX = 1024
CERTIFICATE_MAX = 256
INVITE_MAX = 160
RECEIPT_MAX = 224
CREDENTIAL_MAX = 1024
_FORMAT = 1


class Role(IntEnum):
    """What a certificate lets its holder do: learn with the others; carry what members say who can't reach each other; sign
    certificates and invites. A relay is a member in all else, but nobody gossips models with it."""

    MEMBER = 0
    RELAY = 1
    ISSUE = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """That `identity` has this name and role in the network, from `not_before` to `not_after` (seconds since 1970). `serial`
    orders what one signer gave to one identity."""

    network: bytes
    identity: PeerId
    name: str
    role: Role
    not_before: int
    not_after: int
    serial: int
    data: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """Names it, 32 bytes."""
        return hashlib.blake2b(self.data, digest_size=DIGEST_BYTES, person=b"p2pfl/cert").digest()


@dataclass(frozen=True, slots=True)
class Invite:
    """That whoever holds the secret of `token` may vouch for `max_uses` members of this role, until `not_after`."""

    network: bytes
    token: bytes
    max_uses: int
    role: Role
    not_before: int
    not_after: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """That `admitter`, a member, let the holder of this certificate in when the token still had a use left."""

    network: bytes
    token: bytes
    certificate: bytes  # its digest
    admitter: PeerId
    admitted_at: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """A member's certificate with everything it rests on but the root key and whoever signed the receipt."""

    certificate: Certificate
    issuer: Certificate | None = None
    invite: Invite | None = None
    receipt: Receipt | None = None

    @property
    def identity(self) -> PeerId:
        return self.certificate.identity

    @property
    def token(self) -> bytes:
        """The token that vouches for it; empty where the root or an issuer does so itself."""
        return self.invite.token if self.invite is not None else b""

    @property
    def voucher(self) -> bytes:
        """The key that signed the certificate: a token's or an issuer's; empty for the root's."""
        return self.token or (self.issuer.identity if self.issuer is not None else b"")

    @property
    def data(self) -> bytes:
        """As it travels. The statements in it are the bytes that came."""
        return pack_values([_FORMAT, *write_fields(self, _PARTS)])

    @classmethod
    def read(cls, data: bytes) -> "Credential":
        """Form and bounds only. Raises `RejectedFrame` with BAD_HEADER or VERSION."""
        require(len(data) <= CREDENTIAL_MAX)
        version, *values = unpack_values(data, 1 + len(_PARTS))
        require(type(version) is int)
        if version != _FORMAT:
            raise RejectedFrame(Reason.VERSION)
        return cls(*read_fields(values, _PARTS))

    def verify(self, root: bytes, network: bytes, check: Verify = verify) -> None:
        """Whether the root vouches for it, at whatever time. Raises `RejectedFrame` with WRONG_NETWORK, BAD_TTL or BAD_CHAIN.

        A receipt is held against its certificate and its signer's key; that the signer is a member is for the roster to say.
        """
        parts = [part for part in (self.certificate, self.issuer, self.invite, self.receipt) if part is not None]
        if any(part.network != network for part in parts):
            raise RejectedFrame(Reason.WRONG_NETWORK)
        _check_lifetimes(self)
        authority = root
        if self.issuer is not None:
            _vouched(self.issuer.role is Role.ISSUE and CERTIFICATE.is_by(self.issuer, root, check))
            authority = self.issuer.identity
        _vouched(self.certificate.role is not Role.ISSUE)
        if self.invite is None:
            _vouched(self.receipt is None and CERTIFICATE.is_by(self.certificate, authority, check))
            return
        _vouched(self.invite.role is self.certificate.role and INVITE.is_by(self.invite, authority, check))
        _vouched(CERTIFICATE.is_by(self.certificate, self.invite.token, check))
        if self.receipt is not None:
            _vouched(_is_receipt_of(self.receipt, self.invite, self.certificate))
            _vouched(RECEIPT.is_by(self.receipt, self.receipt.admitter, check))

    def validity(self, now: float) -> Reason | None:
        """Why it is not valid at this time: CERT_FUTURE or CERT_EXPIRED. None: it is."""
        if now < self.certificate.not_before:
            return Reason.CERT_FUTURE
        return Reason.CERT_EXPIRED if now >= self.certificate.not_after else None


def _check_lifetimes(credential: Credential) -> None:
    """None endless, none empty, and nothing outlives what it rests on."""
    certificate, issuer, invite = credential.certificate, credential.issuer, credential.invite
    _lasts(certificate, MEMBER_DAYS_MAX)
    if invite is not None:
        _lasts(invite, INVITE_DAYS_MAX)
    if issuer is not None:
        _lasts(issuer, ISSUER_DAYS_MAX)
        _vouched(max(certificate.not_after, invite.not_after if invite is not None else 0) <= issuer.not_after)


def _lasts(part: Certificate | Invite, days: int) -> None:
    if not 0 < part.not_after - part.not_before <= days * DAY_S + BACKDATE_S:
        raise RejectedFrame(Reason.BAD_TTL)


def _is_receipt_of(receipt: Receipt, invite: Invite, certificate: Certificate) -> bool:
    return (
        receipt.token == invite.token
        and receipt.certificate == certificate.digest
        and receipt.admitter != certificate.identity
        and invite.not_before <= receipt.admitted_at < invite.not_after
        and certificate.not_before <= receipt.admitted_at < certificate.not_after
    )


def _vouched(holds: bool) -> None:
    if not holds:
        raise RejectedFrame(Reason.BAD_CHAIN)


def _role() -> Field:
    numbers = whole(len(Role), says=", ".join(f"{role.value}: {role.name.lower()}" for role in Role))
    return Field(numbers.type, numbers.bound, lambda value: Role(numbers.read(value)), int)


CERTIFICATE = Form(
    b"p2pfl/cert/v1\0",
    Certificate,
    {
        "network": NETWORK,
        "identity": KEY,
        "name": text(NAME_MAX),
        "role": _role(),
        "not_before": SECONDS,
        "not_after": SECONDS,
        "serial": whole(1 << 63, says="0 to 2^63 - 1"),
    },
    CERTIFICATE_MAX,
)
INVITE = Form(
    b"p2pfl/invite/v1\0",
    Invite,
    {
        "network": NETWORK,
        "token": KEY,
        "max_uses": whole(USES_MAX + 1, least=1),
        "role": _role(),
        "not_before": SECONDS,
        "not_after": SECONDS,
    },
    INVITE_MAX,
)
RECEIPT = Form(
    b"p2pfl/receipt/v1\0",
    Receipt,
    {"network": NETWORK, "token": KEY, "certificate": KEY, "admitter": KEY, "admitted_at": SECONDS},
    RECEIPT_MAX,
)


def _part(form: Form[Any], is_needed: bool) -> Field:
    """A statement within a credential; empty bytes are none."""
    bytes_ = octets(1 if is_needed else 0, form.most)

    def read(value: Any) -> Any:
        data = bytes_.read(value)
        return form.read(data) if data else None

    return Field(bytes_.type, bytes_.bound, read, lambda part: part.data if part is not None else b"")


_PARTS = {
    "certificate": _part(CERTIFICATE, True),
    "issuer": _part(CERTIFICATE, False),
    "invite": _part(INVITE, False),
    "receipt": _part(RECEIPT, False),
}
