"""`p2pfl node join`: an invite, or a signed credential, becomes a member's folder.

What is made first is kept first: the identity before anybody is asked, what the door said before the task is looked at. So
the same command may be run again after any failure, and goes on; no use of an invite is lost.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node import node_settings, place
from node.admission import papers
from node.admission.asking import ask_first
from node.admission.fitting import check
from node.admission.founding import own_record, settle
from node.admission.terms import of_charter
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.node_settings import NodeSettings
from node.transport.sockets import TransportKeys
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.authority import check_name
from p2pfl.protocol.admission.certificate import Credential, Role
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.join import question
from p2pfl.protocol.admission.joiner import Joined, understand
from p2pfl.protocol.identity import Identity

Line = InviteLine | CredentialLine
OpenIdentity = Callable[[NodeDirectory], Identity]
"""The identity of a folder, made there if there is none."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What the node is from now on. `others`: members that it knows so far."""

    network: str
    member: str
    role: str
    others: int
    directory: NodeDirectory

    def as_data(self) -> dict[str, Any]:
        return {
            "network": self.network,
            "member": self.member,
            "role": self.role,
            "others": self.others,
            "directory": str(self.directory.path),
        }


def line_of(text: str) -> Line:
    """What was pasted. Raises `Failure` with exit code IDENTITY."""
    if "".join(text.split()).startswith("p2pfl-credential-"):
        return CredentialLine.parse(text)
    return InviteLine.parse(text)


def join(line: Line, name: str, directory: Path | None, settings: NodeSettings, open_identity: OpenIdentity) -> Membership:
    """Become a member, or go on becoming one. Raises `Failure`."""
    check_name(name)
    here = place.named(directory, line.name)
    if here.is_founded:
        message = f"{here.path}: there is a member already."
        hint = f"Start it: p2pfl node start --dir {here.path}, or choose another --dir."
        raise Failure("directory_exists", message, hint, ExitCode.IDENTITY)
    now = believed_time()
    role = line.statement().role if isinstance(line, InviteLine) else line.statement().certificate.role
    if role is Role.RELAY:
        refuse_as_relay(settings)
    if not here.credential.exists():
        if isinstance(line, InviteLine):
            line.check_time(now)
        node_settings.refuse_busy(*settings.places)
        identity = open_identity(here)
        joined = _admitted(line, identity, name, here, settings, now)
        settle(here, joined.credential, joined.charters, joined.roster)
    else:
        identity = open_identity(here)
    known = papers.read(here)
    if known.roster.network != line.network:
        message = f"{here.path}: a node has begun to join another network here."
        raise Failure("other_network", message, "Choose another --dir.", ExitCode.IDENTITY)
    papers.check_standing(known, identity.peer_id)
    certificate = papers.credential(here).certificate
    charter = known.charters.current
    terms = of_charter(charter)
    if certificate.role is not Role.RELAY:
        check(charter, terms, settings, identity.peer_id)
    node_settings.save(here, settings)
    return Membership(known.name, certificate.name, certificate.role.name.lower(), len(known.roster.members) - 1, here)


def refuse_as_relay(settings: NodeSettings) -> None:
    """Raises `Failure` for what makes no sense of a relay."""
    if settings.outbound_only:
        message = "A relay is there to be reached, and this one is to be outbound-only."
        raise Failure("relay_hidden", message, "Run it on a machine that the members can dial.", ExitCode.USAGE)
    if settings.task or settings.data:
        message = "A relay learns nothing: it has no task and no data."
        raise Failure("relay_learns_nothing", message, "Leave out --task and --data.", ExitCode.USAGE)


def _admitted(line: Line, identity: Identity, name: str, here: NodeDirectory, settings: NodeSettings, now: float) -> Joined:
    own = _credential(line, identity, name, here, now)
    record = own_record(identity, own.certificate.name, line.network, here, settings, now)
    keys = TransportKeys(identity.transport_key, identity.transport_secret)
    doors = list(zip(line.addresses, line.transport_keys, strict=True))
    return ask_first(doors, keys, question(own, record), lambda frame: understand(frame, own, record, line.root, now))


def _credential(line: Line, identity: Identity, name: str, here: NodeDirectory, now: float) -> Credential:
    if isinstance(line, InviteLine):
        return line.redeem(identity.peer_id, name, now)
    credential = line.statement()
    if credential.identity != identity.peer_id:
        message = f"{here.path}: this credential was signed for another identity."
        hint = "Give the --dir of the node that made the request."
        raise Failure("other_identity", message, hint, ExitCode.IDENTITY)
    return credential


def new_identity(directory: NodeDirectory, passphrase: Callable[[], str | None]) -> Identity:
    """An identity, made in this folder."""
    identity = Identity.generate(SystemEntropy())
    sealed = identity.to_bytes(passphrase(), SystemEntropy())
    directory.create()
    directory.write_identity(sealed)
    return identity
