"""What the holder of the root key does: invite, sign, revoke, amend, attest; an issuer the first three. In the folder of a
node, whether that runs or not.

A running node's roster is its own to write, so that what is signed here is handed to it; of one that does not run, the file is
changed.
"""

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node import node_settings
from node.admission import issuing, papers
from node.admission.amending import Changes, amended
from node.admission.papers import Papers
from node.directory import NodeDirectory, read_secret
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.upkeep.control import Caller
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import authority
from p2pfl.protocol.admission.admissions import ISSUED_MAX, MEMBERS_MAX
from p2pfl.protocol.admission.attestation import Attestation, attest
from p2pfl.protocol.admission.authority import Authority, Request
from p2pfl.protocol.admission.certificate import Certificate, Invite, Role
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.issuer import Application, IssuerLine, delegated
from p2pfl.protocol.admission.record import door_at
from p2pfl.protocol.admission.revocation import Cause, Revocation
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import SignedCharter
from p2pfl.protocol.admission.statement import KEY_BYTES, public_key
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain

_WHOLE_KEY = re.compile(r"[0-9a-f]{64}")
ID_DIGITS_MIN = 8  # of an id's beginning, where a member is named by that
Passphrase = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Office:
    """Whoever signs for the network whose member has this folder: its root, or an issuer."""

    directory: NodeDirectory
    papers: Papers
    authority: Authority

    @classmethod
    def open(cls, directory: NodeDirectory, key: Path | None, passphrase: Passphrase) -> "Office":
        """`key`: where the root key is, if not in the folder. Without one, the folder's issuer signs. Raises `Failure`."""
        if key is None and not directory.root_key.exists() and directory.issuer.exists():
            known = papers.read(directory)
            return cls(directory, known, issuing.opened(directory, known, passphrase))
        return cls.of_root(directory, key, passphrase)

    @classmethod
    def of_root(cls, directory: NodeDirectory, key: Path | None, passphrase: Passphrase) -> "Office":
        """The same for what only the root may do."""
        known = papers.read(directory)
        path = key or directory.root_key
        mend = "Only the holder of the network's root key can do this: run it there, or give the file with --key FILE."
        sealed = read_secret(path, "no root key", mend)
        secret = passphrase() if authority.FILE.is_sealed(sealed, str(path)) else None
        root = Authority.from_bytes(sealed, secret, known.roster.network, None, str(path))
        if root.key != known.charters.root:
            message = f"{path}: this is the root key of another network than {plain(known.name)}."
            raise Failure("other_root", message, "Give the right one with --key FILE.", ExitCode.IDENTITY)
        return cls(directory, known, root)

    def invite(self, ttl_s: float, uses: int, role: Role) -> tuple[InviteLine, Invite]:
        """A line for whoever is to join. Raises `Failure`."""
        now = believed_time()
        token = SystemEntropy().draw(KEY_BYTES)
        invite = self.authority.invite(public_key(token), now, ttl_s, uses, role)
        line = InviteLine.make(
            self.papers.name, self.papers.roster.root, token, invite, self.authority.certificate, self._doors()
        )
        return line, invite

    def certify(self, request: Request, days: float) -> CredentialLine:
        """The answer to a request. Raises `Failure`."""
        now = believed_time()
        roster = self.papers.roster
        if any(peer != request.identity and roster.standing(peer) is None for peer in roster.named(request.name)):
            message = f"A member of {plain(self.papers.name)} is called {plain(request.name)} already."
            raise Failure("name_taken", message, "Have the request made with another --name.", ExitCode.IDENTITY)
        self._check_room(request.identity)
        credential = self.authority.certify(request, now, days, serial=int(now))
        return CredentialLine.make(self.papers.name, roster.root, credential, self._doors())

    def delegate(self, application: Application, days: float) -> IssuerLine:
        """The root's answer to whoever would be an issuer. Raises `Failure`."""
        now = believed_time()
        if self.papers.roster.is_revoked(application.key):
            message = "This issuer's key was revoked."
            raise Failure("revoked", message, "Have issuer.key removed, and the application made again.", ExitCode.IDENTITY)
        return delegated(self.authority, self.papers.name, application, now, days, serial=int(now))

    def renew(self, who: str, days: float) -> Certificate:
        """A new certificate for a member; it gets it by gossip. Raises `Failure`, also where one that lasts longer would go on
        to be used: no certificate can be shortened."""
        now = believed_time()
        peer = member_called(self.papers.roster, who)
        before = self.papers.roster.credential(peer)
        assert before is not None
        old = before.certificate
        credential = self.authority.vouch(peer, old.name, now, days, serial=int(now), role=old.role)
        if credential.certificate.not_after <= old.not_after and self.papers.roster.standing(peer) is None:
            message = f"{plain(old.name)} has a certificate that lasts longer."
            raise Failure("certified_longer", message, "Give more --days, or revoke it.", ExitCode.IDENTITY)
        _hand_over(self.directory, "admit", credential=credential.data)
        return credential.certificate

    def amend(self, file: Path | None, sets: Iterable[str]) -> tuple[SignedCharter, Changes]:
        """Other settings for the network, which spread from here. Raises `Failure`."""
        charter, found = amended(self.authority, self.papers, file, sets)
        _hand_over(self.directory, "amend", charter=charter.data)
        return charter, found

    def attest(self) -> Attestation:
        """The root's word on all that it has revoked, as far as is known here; it spreads from here. Raises `Failure`."""
        attestation = attest(self.authority.sign, self.authority.network, self._revoked(), believed_time())
        _hand_over(self.directory, "attest", attestation=attestation.data)
        return attestation

    def _revoked(self) -> tuple[Revocation, ...]:
        """By the root, as far as others know them still: a running node may know of more than its file, and the file of one
        that does not run of some that are forgotten everywhere."""
        if is_running(self.directory):
            with Caller(self.directory.control) as caller:
                caller.ask("keep")
            return papers.read(self.directory).roster.revocations_by_root
        self.papers.roster.expire(believed_time())
        return self.papers.roster.revocations_by_root

    def _check_room(self, peer: PeerId) -> None:
        """Raises `Failure` where every roster would refuse one more."""
        roster, issuer = self.papers.roster, self.authority.certificate
        if peer in roster.identities:
            return
        if issuer is not None and roster.issued_by(issuer.identity) >= ISSUED_MAX:
            message = f"The issuer {plain(issuer.name)} has vouched for {ISSUED_MAX} members, which is all that an issuer may."
            raise Failure("issuer_full", message, "Ask the holder of the root key, or another issuer.", ExitCode.IDENTITY)
        if len(roster.identities) >= MEMBERS_MAX:
            message = f"{plain(self.papers.name)} has {MEMBERS_MAX} members, which is all that a network may."
            raise Failure("full", message, "Who left or expired makes room after a week.", ExitCode.IDENTITY)

    def _doors(self) -> dict[str, bytes]:
        """Where a join door can be asked: this node's own, and where there is room, of the members heard of last."""
        roster = self.papers.roster
        own = roster.records.get(papers.credential(self.directory).identity)
        if own is None:
            message = f"{self.directory.credential} is of a node that {plain(self.papers.name)} has never heard of."
            raise Failure("other_identity", message, "Restore it from a copy.", ExitCode.IDENTITY)
        settings = node_settings.load(self.directory)
        others = [roster.records[peer] for peer in roster.members if peer != own.identity]
        others.sort(key=lambda record: record.wall, reverse=True)
        found = {door_at(address, settings.door): own.transport_key for address in settings.advertised(own.addresses)}
        for record in others:
            if record.addresses and not record.has_left:
                found.setdefault(record.doors[0], record.transport_key)
        return found


def revoke(office: Office, who: str, cause: Cause, is_issuer: bool = False) -> Revocation:
    """Of a member, by its name or the beginning of its id; of an invite, by its line; or of an issuer, likewise by name or
    key. Raises `Failure`."""
    now = believed_time()
    if who.strip().startswith("p2pfl-"):
        subject = InviteLine.parse(who).statement().token
    elif is_issuer:
        subject = issuer_called(office.papers.roster, who)
    else:
        subject = member_called(office.papers.roster, who)
    revocation = office.authority.revoke(subject, cause, now)
    _hand_over(office.directory, "revoke", revocation=revocation.data)
    return revocation


def member_called(roster: Roster, who: str) -> PeerId:
    """Whom a name or the beginning of an id means. Raises `Failure` unless that is one."""
    found = set(roster.named(who))
    digits = who.lower()
    if len(digits) >= ID_DIGITS_MIN:
        found |= {peer for peer in roster.identities if peer.hex().startswith(digits)}
    if len(found) == 1:
        return found.pop()
    if not found:
        hint = "See: p2pfl network members. A member is named by its name or the first 8 digits of its id."
        raise Failure("unknown_member", f"Nobody here is called {plain(who)}.", hint, ExitCode.IDENTITY)
    ids = ", ".join(peer.hex()[:16] for peer in sorted(found))
    message = f"Several are called {plain(who)}: {ids}."
    raise Failure("several_members", message, "Say which, by its id.", ExitCode.IDENTITY)


def issuer_called(roster: Roster, who: str) -> bytes:
    """The key of an issuer: by its name or the beginning of its key, if it vouched for somebody here; else by the whole key.
    Raises `Failure`."""
    digits = who.lower()
    found = {
        issuer.identity
        for issuer in roster.issuers
        if issuer.name == who or (len(digits) >= ID_DIGITS_MIN and issuer.identity.hex().startswith(digits))
    }
    if len(found) == 1:
        return found.pop()
    if not found and _WHOLE_KEY.fullmatch(digits):
        return bytes.fromhex(digits)
    if not found:
        hint = "It has vouched for nobody that is known here: give its whole key, as p2pfl network sign printed it."
        raise Failure("unknown_issuer", f"No issuer here is called {plain(who)}.", hint, ExitCode.IDENTITY)
    keys = ", ".join(key.hex()[:16] for key in sorted(found))
    raise Failure("several_issuers", f"Several are called {plain(who)}: {keys}.", "Say which, by its key.", ExitCode.IDENTITY)


def is_running(directory: NodeDirectory) -> bool:
    """Whether a node runs in this folder."""
    if not directory.path.is_dir():
        return False
    try:
        os.close(directory.lock())
    except Failure as failure:
        if failure.code != "already_running":
            raise
        return True
    return False


def _hand_over(directory: NodeDirectory, ask: str, **statement: bytes) -> None:
    """To the node if it runs; else into its roster, while it can't be started. Raises `Failure`, with the reason if refused."""
    try:
        lock = directory.lock()
    except Failure as failure:
        if failure.code != "already_running":
            raise
        with Caller(directory.control) as caller:
            caller.ask(ask, **{name: data.hex() for name, data in statement.items()})
        return
    try:
        known = papers.read(directory)
        take_in(known, **statement)
        directory.write(directory.roster, known.roster.to_bytes())
        directory.write(directory.charter, known.charters.to_bytes())
    finally:
        os.close(lock)


def take_in(
    known: Papers, credential: bytes = b"", revocation: bytes = b"", charter: bytes = b"", attestation: bytes = b""
) -> None:
    """What was signed. Raises `Failure` with exit code IDENTITY and the reason where the roster refuses it."""
    now = believed_time()
    try:
        if credential:
            known.roster.learn(credential, None, now)
        if revocation:
            known.roster.revoke(revocation, now)
        if attestation:
            known.roster.attest(attestation, now)
        if charter:
            known.charters.learn(charter, now)
    except RejectedFrame as refused:
        message = f"The roster does not take it ({refused.reason})."
        raise Failure(str(refused.reason), message, hint_for(refused.reason), ExitCode.IDENTITY) from None


def hint_for(reason: Reason) -> str:
    """How a revocation or a credential that nobody takes is mended."""
    match reason:
        case Reason.BAD_CHAIN:
            return "An issuer revokes those whom it vouched for; for anybody else ask the holder of the root key."
        case Reason.OLD_CHARTER | Reason.CHARTER_CONFLICT:
            return "Another charter was signed meanwhile; run it again."
        case Reason.FULL:
            return "Who left or expired makes room after a week."
        case _:
            return "See docs/admission.md."


def listed(directory: NodeDirectory) -> list[dict[str, Any]]:
    """Everybody who was ever let in, as the running node sees them, or as its file knows them. Raises `Failure`."""
    from node.admission.member_table import rows

    if is_running(directory):
        with Caller(directory.control) as caller:
            answered: list[dict[str, Any]] = caller.ask("members")
            return answered
    return rows(papers.read(directory).roster, {})
