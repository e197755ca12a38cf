"""What the owner of a founded network's node may ask of it at the control socket: who is in it, and to take in what the root
signed."""

from collections.abc import Callable, Mapping
from typing import Any

from node.admission import member_table
from node.admission.papers import Papers
from node.entropy import instant
from node.upkeep.control import Answers, Request
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import PeerId


def answers(
    roster: Roster, states: Callable[[], Mapping[PeerId, str]], spread: Callable[[bytes], None], keep: Callable[[], bool]
) -> Answers:
    """`spread` tells the others of a revocation, and this roster if it counts; `keep` makes durable what the roster learned,
    or says that it could not, which is a `Failure`. Both have been called when an answer comes."""

    def admit(request: Request) -> dict[str, Any]:
        """A credential by file: renewed, or direct for somebody who is held."""
        try:
            roster.learn(_data(request, "credential"), None, instant().wall)
        except RejectedFrame as refused:
            raise _refused("credential", refused, "Ask the holder of the root key for it again.") from None
        _made_durable(keep)
        return {}

    def revoke(request: Request) -> dict[str, Any]:
        revocation = _data(request, "revocation")
        spread(revocation)
        try:
            roster.revoke(revocation, instant().wall)  # known by now; or it was refused, and is again
        except RejectedFrame as refused:
            hint = "It must be signed by the root, by the issuer that vouched for the member, or by the member itself."
            raise _refused("revocation", refused, hint) from None
        _made_durable(keep)
        return {}

    return {"members": lambda _request: member_table.rows(roster, states()), "revoke": revoke, "admit": admit}


def charter_answers(known: Papers, keep: Callable[[], bool]) -> Answers:
    """`keep` makes a newer charter durable, or says that it could not, which is a `Failure`; and it has the node go by it. It
    has been called when an answer comes."""

    def amend(request: Request) -> dict[str, Any]:
        charter = _data(request, "charter")
        try:
            known.charters.learn(charter, known.roster.time(instant().wall))
        except RejectedFrame as refused:
            raise _refused("charter", refused, "Another charter was signed meanwhile; run it again.") from None
        _made_durable(keep)
        return {}

    def attest(request: Request) -> dict[str, Any]:
        try:
            known.roster.attest(_data(request, "attestation"), instant().wall)
        except RejectedFrame as refused:
            raise _refused("attestation", refused, "Ask the holder of the root key for it again.") from None
        _made_durable(keep)
        return {}

    def kept(_request: Request) -> dict[str, Any]:
        """What it knows is in its folder when this is answered."""
        _made_durable(keep)
        return {}

    return {"amend": amend, "attest": attest, "keep": kept}


def _made_durable(keep: Callable[[], bool]) -> None:
    if not keep():
        message = "The node goes by what it knows, but that is not on its disk yet."
        raise Failure("not_kept", message, "See that the disk has room; the node tries again by itself.", ExitCode.UNFIT)


def _refused(noun: str, refused: RejectedFrame, hint: str) -> Failure:
    return Failure(str(refused.reason), f"This {noun} does not count here ({refused.reason}).", hint, ExitCode.IDENTITY)


def _data(request: Request, name: str) -> bytes:
    """Bytes in hex."""
    try:
        return bytes.fromhex(request[name])
    except (KeyError, TypeError, ValueError):
        raise Failure("usage", f"{name}: bytes in hex belong here.", "Use the p2pfl command.", ExitCode.USAGE) from None
