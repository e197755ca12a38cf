"""An invite as one line of text: all that somebody needs to become a member, and nothing that must stay secret for longer than
the invite lasts."""

from dataclasses import dataclass, field

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.authority import check_name
from p2pfl.protocol.admission.certificate import (
    BACKDATE_S,
    CERTIFICATE,
    CERTIFICATE_MAX,
    DAY_S,
    INVITE,
    INVITE_MAX,
    MEMBER_DAYS_MAX,
    Certificate,
    Credential,
    Invite,
)
from p2pfl.protocol.admission.statement import KEY, KEY_BYTES, NAME_MAX, addresses, public_key, signer, text
from p2pfl.protocol.charter import network_id
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import Field, joined, octets, pack_values, read_fields, unpack_values, write_fields

DOORS_MAX = 3
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class InviteLine:
    """The secret of a token with the invite that makes it worth something, the root key and the name that the network is known
    by, and of one to three members where they can be asked, and the X25519 key that they answer with."""

    name: str
    root: bytes
    token_seed: bytes = field(repr=False)
    invite: bytes
    issuer: bytes
    addresses: tuple[str, ...]
    transport_keys: tuple[bytes, ...]

    @classmethod
    def make(
        cls, name: str, root: bytes, token_seed: bytes, invite: Invite, issuer: Certificate | None, doors: dict[str, bytes]
    ) -> "InviteLine":
        """`doors`: address to transport key, the first three of them are taken. Raises `Failure` where there is none."""
        taken = dict(list(doors.items())[:DOORS_MAX])
        if not taken:
            raise _failure("no_door", "An invite names a member who can be asked.", "Give the address of one.")
        return cls(
            name, root, token_seed, invite.data, issuer.data if issuer is not None else b"", tuple(taken), tuple(taken.values())
        )

    @classmethod
    def parse(cls, line: str) -> "InviteLine":
        """What `str` gave. Raises `Failure` with exit code IDENTITY; what it returns is consistent and really from the root."""
        data = armor.from_line("invite", line)
        try:
            version, *values = unpack_values(data, 1 + len(FIELDS))
            if version != _FORMAT:
                raise RejectedFrame(Reason.VERSION)
            found = cls(*read_fields(values, FIELDS))
            found._check()
        except RejectedFrame as refused:
            message = f"This invite was changed, or made by another program ({refused.reason})."
            raise _failure("bad_invite", message, "Ask for another.") from None
        return found

    def __str__(self) -> str:
        return armor.to_line("invite", pack_values([_FORMAT, *write_fields(self, FIELDS)]))

    @property
    def network(self) -> bytes:
        """The id of the network."""
        return network_id(self.root, self.name)

    def statement(self) -> Invite:
        """The invite itself."""
        return INVITE.read(self.invite)

    def check_time(self, now: float) -> None:
        """Raises `Failure` with exit code IDENTITY for an invite that has expired, or whose time has not come."""
        invite = self.statement()
        if now >= invite.not_after:
            raise _failure("invite_expired", f"This invite to {self.name!r} has expired.", "Ask for another.")
        if now < invite.not_before:
            message = f"This invite to {self.name!r} is not valid yet."
            raise _failure("invite_future", message, "Set this machine's clock, or ask for another.")

    def redeem(self, identity: PeerId, name: str, now: float, days: float = MEMBER_DAYS_MAX) -> Credential:
        """A credential for oneself, which becomes a member's with the receipt of whoever lets one in. Raises `Failure`."""
        self.check_time(now)
        check_name(name)
        invite = self.statement()
        issuer = CERTIFICATE.read(self.issuer) if self.issuer else None
        not_after = int(now + min(days, MEMBER_DAYS_MAX) * DAY_S)
        certificate = CERTIFICATE.issue(
            signer(self.token_seed),
            network=self.network,
            identity=identity,
            name=name,
            role=invite.role,
            not_before=max(0, int(now) - BACKDATE_S),
            not_after=not_after if issuer is None else min(not_after, issuer.not_after),
            serial=0,
        )
        return Credential(certificate, issuer, invite)

    def _check(self) -> None:
        """Raises `RejectedFrame` unless a credential made from it would be believed."""
        invite = self.statement()
        lined_up = len(self.addresses) == len(self.transport_keys) and invite.token == public_key(self.token_seed)
        if not lined_up:
            raise RejectedFrame(Reason.BAD_CHAIN)
        now = invite.not_before + BACKDATE_S  # any moment at which it is valid
        try:
            self.redeem(PeerId(invite.token), "somebody", min(now, invite.not_after - 1)).verify(self.root, self.network)
        except Failure:
            raise RejectedFrame(Reason.BAD_TTL) from None


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)


FIELDS: dict[str, Field] = {
    "name": text(NAME_MAX),
    "root": KEY,
    "token_seed": KEY,
    "invite": octets(1, INVITE_MAX),
    "issuer": octets(0, CERTIFICATE_MAX),
    "addresses": addresses(DOORS_MAX),
    "transport_keys": joined(KEY_BYTES, DOORS_MAX, "X25519 key of each"),
}
