"""What the holder of the root key, or of an issuer's, does with it: certify, delegate, invite, revoke, sign the charter.

It needs no network. A request is a line that an identity signed, so that nobody gets a certificate for somebody else's key; the
answer is a line as well, and both can travel by mail or on paper.
"""

from dataclasses import dataclass, field

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.certificate import (
    BACKDATE_S,
    CERTIFICATE,
    DAY_S,
    INVITE,
    INVITE_DAYS_MAX,
    ISSUER_DAYS_MAX,
    MEMBER_DAYS_MAX,
    USES_MAX,
    Certificate,
    Credential,
    Invite,
    Role,
)
from p2pfl.protocol.admission.revocation import Cause, Revocation, revoke
from p2pfl.protocol.admission.statement import KEY, KEY_BYTES, NAME_MAX, SECONDS, Form, Sign, public_key, signer, text
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.keyfile import KeyFile
from p2pfl.protocol.randomness import Entropy
from p2pfl.protocol.wire import flag

FILE = KeyFile(b"p2pfl-rk", "root key or issuer's key", KEY_BYTES, b"p2pfl/root")


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asks for a certificate: this identity, which signed it, under this name; as a relay or not."""

    identity: PeerId
    name: str
    is_relay: bool
    wall: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A signing key and the network it signs for. `certificate` is what the root gave an issuer; the root itself has none."""

    seed: bytes = field(repr=False)
    network: bytes
    certificate: Certificate | None = None

    @property
    def key(self) -> bytes:
        """The public key."""
        return public_key(self.seed)

    @property
    def sign(self) -> Sign:
        return signer(self.seed)

    def certify(self, request: Request, now: float, days: float, serial: int) -> Credential:
        """A member's credential for whoever made the request. Raises `Failure` for too many days."""
        role = Role.RELAY if request.is_relay else Role.MEMBER
        return Credential(self._certificate(request.identity, request.name, role, now, days, serial), self.certificate)

    def vouch(self, identity: PeerId, name: str, now: float, days: float, serial: int, role: Role = Role.MEMBER) -> Credential:
        """The same for a member whose key is known to be its own: one that is in the network, or whose node is here."""
        return Credential(self._certificate(identity, name, role, now, days, serial), self.certificate)

    def delegate(self, key: bytes, name: str, now: float, days: float, serial: int) -> Certificate:
        """An issuer's certificate. Only the root makes them."""
        assert self.certificate is None
        return self._certificate(PeerId(key), name, Role.ISSUE, now, days, serial)

    def invite(self, token: bytes, now: float, ttl_s: float, max_uses: int = 1, role: Role = Role.MEMBER) -> Invite:
        """An invite for whoever holds the secret of `token`. Raises `Failure` for a time or uses out of bounds."""
        if not 0 < ttl_s <= INVITE_DAYS_MAX * DAY_S:
            raise _failure(
                "bad_ttl", f"An invite lasts up to {INVITE_DAYS_MAX} days, and not {ttl_s:g} s.", "Give another --ttl."
            )
        if not 1 <= max_uses <= USES_MAX:
            raise _failure("bad_uses", f"An invite is for 1 to {USES_MAX} members.", "Give other --uses.")
        return INVITE.issue(
            self.sign,
            network=self.network,
            token=token,
            max_uses=max_uses,
            role=role,
            not_before=_start(now),
            not_after=self._end(now, ttl_s),
        )

    def revoke(self, subject: bytes, cause: Cause, now: float) -> Revocation:
        """See `revocation` for whose revocation of whom counts."""
        return revoke(self.sign, self.network, subject, self.key, cause, now)

    def to_bytes(self, passphrase: str | None, entropy: Entropy) -> bytes:
        """The secret as it rests on a disk, sealed unless `passphrase` is None."""
        return FILE.to_bytes(self.seed, passphrase, entropy)

    @classmethod
    def from_bytes(
        cls, data: bytes, passphrase: str | None, network: bytes, certificate: Certificate | None, source: str
    ) -> "Authority":
        """What `to_bytes` gave. `source` names the file to people. Raises `Failure` with exit code IDENTITY."""
        return cls(FILE.from_bytes(data, passphrase, source), network, certificate)

    def _certificate(self, identity: PeerId, name: str, role: Role, now: float, days: float, serial: int) -> Certificate:
        most = ISSUER_DAYS_MAX if role is Role.ISSUE else MEMBER_DAYS_MAX
        if not 0 < days <= most:
            raise _failure("bad_ttl", f"This certificate lasts up to {most} days, and not {days:g}.", "Give other --days.")
        check_name(name)
        return CERTIFICATE.issue(
            self.sign,
            network=self.network,
            identity=identity,
            name=name,
            role=role,
            not_before=_start(now),
            not_after=self._end(now, days * DAY_S),
            serial=serial,
        )

    def _end(self, now: float, lasts_s: float) -> int:
        """Nothing outlives the issuer's own certificate."""
        end = int(now + lasts_s)
        if self.certificate is None:
            return end
        if self.certificate.not_after <= now:
            raise _failure("issuer_expired", "This issuer's certificate has expired.", "Ask the holder of the root key.")
        return min(end, self.certificate.not_after)


def ask(sign: Sign, own: PeerId, name: str, now: float, is_relay: bool = False) -> Request:
    """A request for a certificate for oneself. Raises `Failure` for a name that can't be one."""
    check_name(name)
    return REQUEST.issue(sign, identity=own, name=name, is_relay=is_relay, wall=int(now))


def request_line(request: Request) -> str:
    """The request as a line of text."""
    return armor.to_line("request", request.data)


def read_request(line: str) -> Request:
    """The request in a line, if its identity signed it. Raises `Failure` with exit code IDENTITY."""
    try:
        request = REQUEST.read(armor.from_line("request", line))
    except RejectedFrame as refused:
        message = f"This request can't be read ({refused.reason})."
        raise _failure("bad_request", message, "Make it again with the same version of the program.") from None
    if not REQUEST.is_by(request, request.identity):
        message = "This request is not signed by the key that it is for."
        raise _failure("bad_request", message, "Have it made on the node that will use it.")
    return request


def check_name(name: str) -> None:
    """Raises `Failure` unless a member or a network can be called so."""
    try:
        text(NAME_MAX).read(name.encode())
    except (RejectedFrame, UnicodeEncodeError):
        message = f"{name[:NAME_MAX]!r} can't be a name."
        raise Failure("bad_name", message, f"Use 1 to {NAME_MAX} bytes without control characters.") from None


def _start(now: float) -> int:
    return max(0, int(now) - BACKDATE_S)


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)


REQUEST = Form(
    b"p2pfl/request/v1\0",
    Request,
    {"identity": KEY, "name": text(NAME_MAX), "is_relay": flag(), "wall": SECONDS},
    256,
)
