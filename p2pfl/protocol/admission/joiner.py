"""The joiner's side of a join door's answer: what it may be told, and what it believes of it."""

from dataclasses import dataclass

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.join import WELCOME_MAX, Refused, Welcome, decode
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import CHARTER, Charters
from p2pfl.protocol.errors import Reason, RejectedFrame


@dataclass(frozen=True, slots=True)
class Joined:
    """`credential` is one's own, with its receipt. `is_complete`: the roster knows all that the door knows; else gossip brings
    the rest."""

    credential: Credential
    charters: Charters
    roster: Roster
    is_complete: bool


def understand(frame: bytes, own: Credential, record: Record, root: bytes, wall: float) -> Joined:
    """What the answer to `join.question(own, record)` means. Raises `Failure`: exit code IDENTITY, with the reason, where one
    is refused or the door can't show that it is a member; VERSION where it speaks another version."""
    try:
        answer = decode(frame, WELCOME_MAX)
        if isinstance(answer, Refused):
            raise _refused(answer.reason)
        if not isinstance(answer, Welcome):
            raise RejectedFrame(Reason.KIND)
        return _believed(answer, own, record, root, wall)
    except RejectedFrame as bad:
        if bad.reason is Reason.VERSION:
            message = "That member speaks another version of the protocol."
            raise Failure("protocol_version", message, "Update the older program.", ExitCode.VERSION) from None
        message = f"The answer of that member can't be believed ({bad.reason})."
        raise Failure(
            "bad_welcome", message, "Try another of its members, or ask for another invite.", ExitCode.IDENTITY
        ) from None


def news(frame: bytes, roster: Roster, charters: Charters, wall: float) -> str:
    """A member that asked a door again takes in whatever of the answer is signed; returns the reason of a refusal, "" where it
    was let in. A refusal alone means nothing: what counts is what the roster makes of the revocations that came with it. Raises
    `RejectedFrame` with BAD_HEADER, VERSION or KIND, and for a charter what `Charters.learn` does, but no older one."""
    match decode(frame, WELCOME_MAX):
        case Welcome() as welcome:
            entries = zip(welcome.entries[::2], welcome.entries[1::2], strict=False)
            roster.learn_all([*entries, (welcome.credential, b"")], welcome.revocations, wall)
            charters.learn_if_newer(welcome.charter, roster.time(wall))
            return ""
        case Refused(reason, revocations):
            roster.learn_all((), revocations, wall)
            return reason
        case _:
            raise RejectedFrame(Reason.KIND)


def _believed(answer: Welcome, own: Credential, record: Record, root: bytes, wall: float) -> Joined:
    """Only what is signed, down from the root."""
    network = own.certificate.network
    charter = CHARTER.read(answer.charter)
    charter.verify(root, network)
    credential = Credential.read(answer.credential)
    if credential.identity != own.identity:
        raise RejectedFrame(Reason.HOP_MISMATCH)
    roster = Roster(network, root)
    roster.witness(float(charter.signed_at))
    entries = zip(answer.entries[::2], answer.entries[1::2], strict=False)
    roster.learn_all([*entries, (credential.data, record.data)], answer.revocations, wall)
    standing = roster.standing(own.identity)
    if standing is not None:  # the door's own papers are missing or bad, or it let in somebody who is revoked
        raise RejectedFrame(standing)
    return Joined(credential, Charters(root, charter), roster, roster.digest == answer.digest)


def _refused(reason: str) -> Failure:
    known = reason in list(Reason)
    message, hint = _SAYINGS.get(Reason(reason), _OTHER) if known else _OTHER
    shown = reason if known else "for a reason that this version does not know"
    return Failure(reason if known else "refused", f"Not let in: {message} ({shown}).", hint, ExitCode.IDENTITY)


_OTHER = ("the member that was asked refuses", "Ask its operator what its log says.")
_ASK = "Ask whoever invited you for another."
_SAYINGS: dict[Reason, tuple[str, str]] = {
    Reason.WRONG_NETWORK: ("that address is a member of another network", "Check the address."),
    Reason.BAD_CHAIN: ("the network's root key does not vouch for this certificate", _ASK),
    Reason.BAD_TTL: ("the certificate lasts longer than any may", _ASK),
    Reason.CERT_FUTURE: ("the certificate is not valid yet", "Set this machine's clock."),
    Reason.CERT_EXPIRED: ("the certificate has expired", "Ask the holder of the root key to renew it."),
    Reason.REVOKED: ("this identity, or what vouches for it, was revoked", "Make a new identity and ask for an invite."),
    Reason.INVITE_EXPIRED: ("the invite is not valid now", _ASK),
    Reason.INVITE_SPENT: ("the invite was used by somebody else", _ASK),
    Reason.NO_RECEIPT: ("the member that was asked can let nobody in", "Try another member."),
    Reason.HELD: ("the invite was used too often", "Ask the holder of the root key to certify you directly."),
    Reason.NAME_TAKEN: ("a member of that name is there already", "Choose another with --name."),
    Reason.FULL: ("the network is full", "Ask its operator."),
    Reason.BAD_CLOCK: ("the clock of the member that was asked is wrong", "Try another member."),
    Reason.HOP_MISMATCH: ("the record does not name the key of this link", "Start again; the node's keys have changed."),
    Reason.VERSION: ("it speaks another version of the protocol", "Update the older program."),
}
