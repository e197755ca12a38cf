"""What a member's folder says of its network: charter and roster, verified again whenever they are read."""

import time
from dataclasses import dataclass

from node.directory import NodeDirectory
from node.disk import read_whole
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.report.plain import plain

PAPER_MAX = 16 << 20  # bytes; the roster of the largest network has some 8 MiB


@dataclass(frozen=True, slots=True)
class Papers:
    """Both are of one network."""

    charters: Charters
    roster: Roster

    @property
    def name(self) -> str:
        """The network's."""
        return self.charters.current.name


def read(directory: NodeDirectory) -> Papers:
    """Raises `Failure` with exit code IDENTITY for what is missing or damaged."""
    path = directory.charter
    try:
        charters = Charters.from_bytes(_bytes(directory, "charter"))
    except RejectedFrame:
        message = f"{path} is no charter, or was cut off or changed."
        raise Failure("charter_damaged", message, "Restore it from a copy.", ExitCode.IDENTITY) from None
    root = charters.root
    roster = Roster.from_bytes(_bytes(directory, "roster"), time.time(), source=str(directory.roster))
    if (roster.root, roster.network) != (root, charters.current.network):
        message = f"{directory.path}: charter and roster are of two networks."
        raise Failure("roster_damaged", message, "Restore them from one copy.", ExitCode.IDENTITY)
    return Papers(charters, roster)


def credential(directory: NodeDirectory) -> Credential:
    """By which the node was let in. Raises `Failure` with exit code IDENTITY."""
    try:
        return Credential.read(_bytes(directory, "credential"))
    except RejectedFrame:
        message = f"{directory.credential} is no credential, or was cut off or changed."
        raise Failure("credential_damaged", message, "Restore it from a copy.", ExitCode.IDENTITY) from None


def check_standing(papers: Papers, own: PeerId) -> None:
    """Raises `Failure` unless this identity is a member as far as its own folder knows."""
    standing = papers.roster.standing(own)
    if standing is None:
        return
    message, hint = _SAYINGS[standing]
    raise Failure(str(standing), f"{message} of {plain(papers.name)}.", hint, ExitCode.IDENTITY)


_RENEW = "Have the holder of the root key run: p2pfl network sign NAME"
_SAYINGS: dict[Reason, tuple[str, str]] = {
    Reason.NOT_MEMBER: ("This identity is no member", "Was the file replaced? Restore it, or join with an invite."),
    Reason.REVOKED: ("This identity was revoked: it is no member any more", "Join with a new one, in another --dir."),
    Reason.HELD: ("This node's invite was used too often: it is not yet a member", _RENEW),
    Reason.CERT_FUTURE: ("This machine's clock is behind: not yet a member", "Set it: timedatectl set-ntp true"),
    Reason.CERT_EXPIRED: ("This node's certificate has expired: it is no member any more", _RENEW),
}


def _bytes(directory: NodeDirectory, name: str) -> bytes:
    path = directory.path / name
    try:
        return read_whole(path, PAPER_MAX)
    except FileNotFoundError:
        hint = "Make one: p2pfl network create NAME, or p2pfl node join INVITE"
        raise Failure("no_network", f"{directory.path}: no member of a network is here.", hint, ExitCode.IDENTITY) from None
    except OSError as error:
        raise Failure("unreadable_network", f"{path}: {error.strerror}.", "Look at its owner and mode.") from None
