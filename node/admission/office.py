"""What the holder of the root key does with it: invite, sign, revoke. In the folder of a node, whether that runs or not.

A running node's roster is its own to write, so that what is signed here is handed to it; of one that does not run, the file is
changed.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node import node_settings
from node.admission import papers
from node.admission.papers import Papers
from node.directory import NodeDirectory, read_secret
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.node_settings import next_port
from node.upkeep.control import Caller
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import authority
from p2pfl.protocol.admission.authority import Authority, Request
from p2pfl.protocol.admission.certificate import Certificate, Invite, Role
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.revocation import Cause, Revocation
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.statement import KEY_BYTES, public_key
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain

ID_DIGITS_MIN = 8  # of an id's beginning, where a member is named by that
Passphrase = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Office:
    """The root key of the network whose member has this folder."""

    directory: NodeDirectory
    papers: Papers
    root: Authority

    @classmethod
    def open(cls, directory: NodeDirectory, key: Path | None, passphrase: Passphrase) -> "Office":
        """`key`: where the root key is, if not in the folder. Raises `Failure`."""
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
        invite = self.root.invite(public_key(token), now, ttl_s, uses, role)
        return InviteLine.make(self.papers.name, self.root.key, token, invite, None, self._doors()), invite

    def certify(self, request: Request, days: float) -> CredentialLine:
        """The answer to a request. Raises `Failure`."""
        now = believed_time()
        roster = self.papers.roster
        if any(peer != request.identity and roster.standing(peer) is None for peer in roster.named(request.name)):
            message = f"A member of {plain(self.papers.name)} is called {plain(request.name)} already."
            raise Failure("name_taken", message, "Have the request made with another --name.", ExitCode.IDENTITY)
        credential = self.root.certify(request, now, days, serial=int(now))
        return CredentialLine.make(self.papers.name, self.root.key, credential, self._doors())

    def renew(self, who: str, days: float) -> Certificate:
        """A new certificate for a member; it gets it by gossip. Raises `Failure`, also where one that lasts longer would go on
        to be used: no certificate can be shortened."""
        now = believed_time()
        peer = member_called(self.papers.roster, who)
        before = self.papers.roster.credential(peer)
        assert before is not None
        old = before.certificate
        credential = self.root.vouch(peer, old.name, now, days, serial=int(now), role=old.role)
        if credential.certificate.not_after <= old.not_after and self.papers.roster.standing(peer) is None:
            message = f"{plain(old.name)} has a certificate that lasts longer."
            raise Failure("certified_longer", message, "Give more --days, or revoke it.", ExitCode.IDENTITY)
        _hand_over(self.directory, "admit", credential=credential.data)
        return credential.certificate

    def _doors(self) -> dict[str, bytes]:
        """Where a join door can be asked: this node's own, and where there is room, of the members heard of last."""
        roster = self.papers.roster
        own = roster.records[papers.credential(self.directory).identity]
        reached = node_settings.load(self.directory).advertised(own.addresses)
        others = [roster.records[peer] for peer in roster.members if peer != own.identity]
        others.sort(key=lambda record: record.wall, reverse=True)
        found = {next_port(address): own.transport_key for address in reached}
        for record in others:
            if record.addresses and not record.has_left:
                found.setdefault(next_port(record.addresses[0]), record.transport_key)
        return found


def revoke(office: Office, who: str, cause: Cause) -> Revocation:
    """Of a member, by its name or the beginning of its id, or of an invite, by its line. Raises `Failure`."""
    now = believed_time()
    if who.strip().startswith("p2pfl-"):
        subject = InviteLine.parse(who).statement().token
    else:
        subject = member_called(office.papers.roster, who)
    revocation = office.root.revoke(subject, cause, now)
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
        roster = papers.read(directory).roster
        take_in(roster, **statement)
        directory.write(directory.roster, roster.to_bytes())
    finally:
        os.close(lock)


def take_in(roster: Roster, credential: bytes = b"", revocation: bytes = b"") -> None:
    """What the root signed. Raises `Failure` with exit code IDENTITY and the reason where the roster refuses it."""
    now = believed_time()
    try:
        if credential:
            roster.learn(credential, None, now)
        if revocation:
            roster.revoke(revocation, now)
    except RejectedFrame as refused:
        message = f"The roster does not take it ({refused.reason})."
        raise Failure(str(refused.reason), message, "See docs/admission.md.", ExitCode.IDENTITY) from None


def listed(directory: NodeDirectory) -> list[dict[str, Any]]:
    """Everybody who was ever let in, as the running node sees them, or as its file knows them. Raises `Failure`."""
    from node.admission.member_table import rows

    if is_running(directory):
        with Caller(directory.control) as caller:
            answered: list[dict[str, Any]] = caller.ask("members")
            return answered
    return rows(papers.read(directory).roster, {})
