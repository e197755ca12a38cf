"""How somebody becomes a member: one question to a member's join door, one answer. Both sides, without a socket.

    joiner                                                         door (a member)
      │  Join(network, credential, record, padding)                  │
      │ ───────────────────────────────────────────────────────────> │  checks the chain, invite and record; signs a receipt
      │  Welcome(charter, credential, digest, entries, revocations)  │
      │ <─────────────────────────────────────────────────────────── │  or Refused(reason, revocations)

The link is CURVE, so that the door knows the joiner's transport key; the record, which the joiner's identity signed, names that
key. So nobody joins with another's papers, however often they were seen. The joiner in turn believes nothing but signatures
under the root key that its invite names. Asking twice is harmless: whoever was admitted gets the same credential again. So a
member that nobody talks to asks as well: it is told what it missed, or that it was revoked, by whose signature.

An answer is at most four times as long as the question, which is padded for it, so that a door is no amplifier; and before the
chain is verified it is a refusal.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from p2pfl.protocol.admission.certificate import CREDENTIAL_MAX, RECEIPT, Credential
from p2pfl.protocol.admission.record import RECORD, RECORD_MAX, Record
from p2pfl.protocol.admission.revocation import REVOCATION_MAX
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import CHARTER_MAX, Charters
from p2pfl.protocol.admission.statement import KEY, NETWORK, Sign, items, text
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import (
    Field,
    octets,
    read_message,
    write_message,
)

REQUEST_BYTES = 4096  # what a question is padded to
REQUEST_MAX = 8192
AMPLIFICATION = 4
WELCOME_MAX = AMPLIFICATION * REQUEST_MAX
QUESTION_MIN = 64  # bytes; what is shorter gets no answer at all
ENTRIES_MAX = 64
REVOCATIONS_MAX = 64
AGAINST_MAX = 8  # revocations in a refusal: of a member, its issuer and its token, by whoever may
REASON_MAX = 32


@dataclass(frozen=True, slots=True)
class Join:
    """Let me in. `padding` only lengthens the question."""

    network: bytes
    credential: bytes
    record: bytes
    padding: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Welcome:
    """You are in. `credential` is the joiner's, with its receipt; `entries` are credential and record of members in turn, first
    of those who vouch for the door; `digest` names all credentials and revocations that the door knows, of which these are as
    many as the question had room for."""

    charter: bytes
    credential: bytes
    digest: bytes
    entries: tuple[bytes, ...] = field(repr=False)
    revocations: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refused:
    """You are not; `reason` is one of `errors.Reason`, or of a later version's. `revocations` are those of the asker's key and
    of what vouches for it: whoever was a member believes their signatures, and not the reason."""

    reason: str
    revocations: tuple[bytes, ...] = field(default=(), repr=False)


Answer = Welcome | Refused


@dataclass(frozen=True, slots=True)
class Visit:
    """What came of one question: the frame to answer with (None: be silent), whom it admitted, or why not."""

    answer: bytes | None
    admitted: PeerId | None = None
    reason: Reason | None = None


def encode(message: Join | Answer) -> bytes:
    """The one frame of a message."""
    return write_message(message, _NUMBERS, FIELDS)


def decode(frame: bytes, most: int) -> Join | Answer:
    """Form and bounds only. Raises `RejectedFrame` with BAD_HEADER, VERSION or KIND."""
    message: Join | Answer = read_message(frame, most, KINDS, FIELDS)
    return message


class Door:
    """A member that lets others in. Rates are whoever holds the socket's to limit (`bucket`)."""

    def __init__(self, own: PeerId, sign: Sign, roster: Roster, charters: Charters) -> None:
        self._own, self._sign = own, sign
        self._roster, self._charters = roster, charters

    def answer(self, frame: bytes, transport_key: bytes, wall: float, is_clock_good: bool = True) -> Visit:
        """What comes of a question that arrived over a link with this key. `is_clock_good`: see `clock.is_off`; with a bad one
        nobody is let in. Whoever is admitted is in the roster from now on."""
        shown: Credential | None = None
        try:
            asked = decode(frame, REQUEST_MAX)
            if not isinstance(asked, Join):
                raise RejectedFrame(Reason.KIND)
            shown, record = self._check(asked, transport_key)
            if not is_clock_good:
                raise RejectedFrame(Reason.BAD_CLOCK)
            admitted = self._admitted(shown, record, wall)
            welcome = encode(self._welcome(admitted, AMPLIFICATION * len(frame)))
        except RejectedFrame as refused:
            refusal = self._refusal(refused.reason, shown, AMPLIFICATION * len(frame))
            return Visit(encode(refusal) if len(frame) >= QUESTION_MIN else None, reason=refused.reason)
        return Visit(welcome, admitted.identity)

    def _refusal(self, reason: Reason, shown: Credential | None, budget: int) -> Refused:
        """With the proof for whom the root vouches for: before its chain is verified there is nothing but the reason."""
        if shown is None or reason is not Reason.REVOKED:
            return Refused(reason)
        budget -= len(encode(Refused(reason))) + 2  # the list needs up to two bytes more for its length
        found: list[bytes] = []
        for data in self._roster.revocations_of(shown)[:AGAINST_MAX]:
            if 2 + len(data) > budget:
                break
            budget -= _add(found, (data,))
        return Refused(reason, tuple(found))

    def _check(self, asked: Join, transport_key: bytes) -> tuple[Credential, Record]:
        """Who asks, and that the root vouches for it. Cheapest first."""
        if asked.network != self._roster.network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        shown, record = Credential.read(asked.credential), RECORD.read(asked.record)
        if record.identity != shown.identity or record.transport_key != transport_key:
            raise RejectedFrame(Reason.HOP_MISMATCH)
        if record.network != self._roster.network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        if not record.is_genuine():
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        shown.verify(self._roster.root, self._roster.network)
        return shown, record

    def _admitted(self, shown: Credential, record: Record, wall: float) -> Credential:
        """The credential by which it is a member from now on."""
        roster = self._roster
        roster.expire(wall)
        known = roster.credential(shown.identity, shown.token)
        admitted = known if known is not None and shown.invite is not None else self._received(shown, wall)
        fault = roster.fault(admitted)
        if fault is not None:
            return self._renewed(shown.identity, record, fault, wall)
        roster.learn(admitted.data, record.data, wall)
        standing = roster.standing(shown.identity)
        if standing is not None:
            raise RejectedFrame(standing)
        return admitted

    def _renewed(self, peer: PeerId, record: Record, fault: Reason, wall: float) -> Credential:
        """Whoever is a member by another credential than the one that it shows was away when it was given that."""
        if self._roster.standing(peer) is not None:
            raise RejectedFrame(fault)
        self._roster.learn_record(record, wall)
        return Credential.read(self._roster.entry(peer)[0])

    def _received(self, shown: Credential, wall: float) -> Credential:
        """With a receipt of ours, where an invite vouches for somebody who has none yet."""
        if shown.invite is None or shown.receipt is not None:
            return shown
        roster, invite, name = self._roster, shown.invite, shown.certificate.name
        fault, now = roster.fault(shown), roster.time(wall)
        if fault is not None:
            raise RejectedFrame(fault)
        if not invite.not_before <= now < invite.not_after:
            raise RejectedFrame(Reason.INVITE_EXPIRED)
        if roster.is_spent(invite, but=shown.identity):
            raise RejectedFrame(Reason.INVITE_SPENT)
        if any(peer != shown.identity and roster.standing(peer) is None for peer in roster.named(name)):
            raise RejectedFrame(Reason.NAME_TAKEN)
        if self._own not in roster.members:
            raise RejectedFrame(Reason.NO_RECEIPT)
        receipt = RECEIPT.issue(
            self._sign,
            network=roster.network,
            token=invite.token,
            certificate=shown.certificate.digest,
            admitter=self._own,
            admitted_at=int(now),
        )
        return replace(shown, receipt=receipt)

    def _welcome(self, admitted: Credential, budget: int) -> Welcome:
        """As much as there is room for: those who vouch for us, then revocations, then other members."""
        roster = self._roster
        bare = Welcome(self._charters.current.data, admitted.data, roster.digest, (), ())
        budget -= len(encode(bare)) + 2 * 3  # the two lists need up to three bytes more for their lengths
        entries: list[bytes] = []
        for peer in self._vouching(admitted):
            budget -= _add(entries, roster.entry(peer))
        if budget < 0 or len(entries) > 2 * ENTRIES_MAX:
            raise RejectedFrame(Reason.FULL)
        revocations: list[bytes] = []
        for data in roster.revocations[-REVOCATIONS_MAX:]:
            if 2 + len(data) > budget:
                break
            budget -= _add(revocations, (data,))
        told = {self._own, admitted.identity, *self._vouching(admitted)}
        for peer in (peer for peer in roster.members if peer not in told):
            entry = roster.entry(peer)
            if len(entries) == 2 * ENTRIES_MAX or sum(2 + len(part) for part in entry) > budget:
                break
            budget -= _add(entries, entry)
        return replace(bare, entries=tuple(entries), revocations=tuple(revocations))

    def _vouching(self, admitted: Credential) -> list[PeerId]:
        """Everybody on whose receipts this member and we rest, those first who rest on nobody."""
        found: dict[PeerId, None] = {}
        waiting = [self._own, *([admitted.receipt.admitter] if admitted.receipt is not None else [])]
        while waiting:
            peer = waiting.pop()
            if peer in found:
                continue
            found[peer] = None
            credential = self._roster.credential(peer)
            if credential is not None and credential.receipt is not None:
                waiting.append(credential.receipt.admitter)
        return [peer for peer in reversed(found) if self._roster.credential(peer) is not None]


def question(credential: Credential, record: Record) -> bytes:
    """The frame that asks a door to let in the holder of this credential, whose own record it is."""
    bare = Join(credential.certificate.network, credential.data, record.data)
    missing = REQUEST_BYTES - len(encode(bare)) - 1  # a longer byte string has one more byte of length
    return encode(replace(bare, padding=bytes(max(0, missing))))


def _add(parts: list[bytes], some: tuple[bytes, ...]) -> int:
    parts += some
    return sum(2 + len(part) for part in some)


FIELDS: dict[type[Any], dict[str, Field]] = {
    Join: {
        "network": NETWORK,
        "credential": octets(1, CREDENTIAL_MAX),
        "record": octets(1, RECORD_MAX),
        "padding": octets(0, REQUEST_MAX),
    },
    Welcome: {
        "charter": octets(1, CHARTER_MAX),
        "credential": octets(1, CREDENTIAL_MAX),
        "digest": KEY,
        "entries": items(2 * ENTRIES_MAX, max(RECORD_MAX, CREDENTIAL_MAX), "credential and record in turn"),
        "revocations": items(REVOCATIONS_MAX, REVOCATION_MAX, "revocations"),
    },
    Refused: {
        "reason": text(REASON_MAX),
        "revocations": items(AGAINST_MAX, REVOCATION_MAX, "revocations"),
    },
}
"""The fields of every message of the join door, in the order of the wire."""

KINDS: dict[int, type[Any]] = {64: Join, 65: Welcome, 66: Refused}
_NUMBERS = {kind: number for number, kind in KINDS.items()}
