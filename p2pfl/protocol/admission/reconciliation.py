"""How two members come to know the same credentials, revocations and charter.

    A → B  Inventory   64 digests of what A knows, its charter's serial number and name; asks for B's
    B → A  Papers      what B knows in the buckets that differ, and its charter if A's is older, or another with that number
    B → A  Inventory   asks for nothing more
    A → B  Papers      likewise

Whoever learns a newer charter hands it on at once to all that it has links with.

Membership's gossip tells of those who are live. This tells the rest, without which others can't be believed: the renewed
certificate of somebody whose record has not changed, the credential of a member who left and had let others in, both users of
an invite that was used twice, whom nobody counts as members any more.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from p2pfl.protocol.admission.attestation import ATTESTATION_MAX
from p2pfl.protocol.admission.certificate import CREDENTIAL_MAX
from p2pfl.protocol.admission.revocation import REVOCATION_MAX
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import CHARTER_MAX, Charters
from p2pfl.protocol.admission.statement import COUNTER, SECONDS, items
from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Instant, PeerId
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.wire import (
    Field,
    flag,
    octets,
    read_message,
    write_message,
)

BUCKETS = 64
BUCKET_BYTES = 8
NAME_BYTES = 16  # of a statement
PAPERS_BYTES = 64 * 1024  # of statements in one message
FRAME_MAX = PAPERS_BYTES + CHARTER_MAX + ATTESTATION_MAX + 256
ITEMS_MAX = 1024
ANSWER_S = 5.0  # a member's inventories are answered this often in the long run: an answer is a hundred times as long
ANSWERS_AT_ONCE = 3  # and as many papers are read: each of their signatures costs time


@dataclass(frozen=True, slots=True)
class Inventory:
    """A digest of the statements in each bucket, joined; the charter's serial number and digest; of which moment the newest
    attestation is (0 for none); `reply` asks for the other's."""

    buckets: bytes
    charter_serial: int
    charter: bytes
    attested: int
    reply: bool


@dataclass(frozen=True, slots=True)
class Papers:
    """Statements, and the charter or nothing, and the newest attestation or nothing."""

    charter: bytes
    attestation: bytes
    credentials: tuple[bytes, ...] = field(repr=False)
    revocations: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a message: frames for whoever sent it, whether anything was new, and how many statements were bad. What
    concerns somebody who is not known yet is not; another exchange may bring the rest. `charter` is why a charter was refused:
    of two with one serial number nobody here is to blame but the root."""

    answers: tuple[bytes, ...] = ()
    is_new: bool = False
    refused: int = 0
    charter: Reason | None = None


class Reconciliation:
    """One member's side. Whoever holds it sends `inventory()` to a random neighbor now and then, and to each new link."""

    def __init__(self, roster: Roster, charters: Charters, choices: Choices) -> None:
        self._roster, self._charters, self._choices = roster, charters, choices
        self._buckets = {kind: Buckets(1 / ANSWER_S, ANSWERS_AT_ONCE, most=1024) for kind in (Inventory, Papers)}

    def inventory(self, reply: bool = True) -> bytes:
        """The frame that says what is known here."""
        charter, attested = self._charters.current, self._roster.attestation
        moment = attested.wall if attested is not None else 0
        digests = b"".join(_digests(self._statements()))
        return encode(Inventory(digests, charter.serial, _name(charter.data), moment, reply))

    def amendment(self) -> bytes:
        """The frame that hands the charter on."""
        return encode(Papers(self._charters.current.data, b"", (), ()))

    def receive(self, hop: PeerId, frame: bytes, now: Instant) -> Outcome:
        """What comes of a frame from a member. Raises `RejectedFrame` with BAD_HEADER, VERSION, KIND or RATE_LIMITED."""
        message = decode(frame)
        if not self._buckets[type(message)].take(hop, 1.0, now.monotonic):
            raise RejectedFrame(Reason.RATE_LIMITED)
        if isinstance(message, Papers):
            return self._learned(message, now.wall)
        papers = self._papers(message)
        is_any = papers.charter or papers.attestation or papers.credentials or papers.revocations
        answers = [encode(papers)] if is_any else []
        return Outcome((*answers, self.inventory(reply=False)) if message.reply else tuple(answers))

    def _papers(self, theirs: Inventory) -> Papers:
        """What they lack, as far as it fits; from a random place on, so that they get all of it in the end."""
        own = self._statements()
        digests = _digests(own)
        differing = {
            k for k, digest in enumerate(digests) if digest != theirs.buckets[k * BUCKET_BYTES : (k + 1) * BUCKET_BYTES]
        }
        wanted = [data for data in own if _bucket(data) in differing]
        first = self._choices.below(max(1, len(wanted)))
        taken: set[bytes] = set()
        room = PAPERS_BYTES
        for data in wanted[first:] + wanted[:first]:
            room -= 2 + len(data)
            if room < 0 or len(taken) == ITEMS_MAX:
                break
            taken.add(data)
        attested = self._roster.attestation
        return Papers(
            self._charter_for(theirs),
            attested.data if attested is not None and attested.wall > theirs.attested else b"",
            tuple(data for data in self._credentials() if data in taken),
            tuple(data for data in self._roster.revocations if data in taken),
        )

    def _charter_for(self, theirs: Inventory) -> bytes:
        """Ours if it is newer, or contradicts theirs: then both sides can say so."""
        charter = self._charters.current
        is_wanted = charter.serial > theirs.charter_serial or (
            charter.serial == theirs.charter_serial and _name(charter.data) != theirs.charter
        )
        return charter.data if is_wanted else b""

    def _learned(self, papers: Papers, wall: float) -> Outcome:
        before, is_newer, trouble = self._roster.digest, False, None
        refused = self._roster.learn_all(((data, b"") for data in papers.credentials), papers.revocations, wall)
        if papers.charter:
            try:
                is_newer = self._charters.learn_if_newer(papers.charter, self._roster.time(wall))
            except RejectedFrame as rejected:
                trouble = rejected.reason
        if papers.attestation:
            try:
                is_newer |= self._roster.attest(papers.attestation, wall)
            except RejectedFrame:
                refused += 1
        return Outcome(is_new=is_newer or self._roster.digest != before, refused=refused, charter=trouble)

    def _credentials(self) -> list[bytes]:
        return list(dict.fromkeys(credential for credential, _ in self._roster.entries()))

    def _statements(self) -> list[bytes]:
        return [*self._credentials(), *self._roster.revocations]


def encode(message: Inventory | Papers) -> bytes:
    """The one frame of a message."""
    return write_message(message, _NUMBERS, FIELDS)


def decode(frame: bytes) -> Inventory | Papers:
    """And back. Raises `RejectedFrame` with BAD_HEADER, VERSION or KIND, and nothing else."""
    message: Inventory | Papers = read_message(frame, FRAME_MAX, KINDS, FIELDS)
    return message


def _digests(statements: Iterable[bytes]) -> list[bytes]:
    """One for each bucket: equal if the same statements are in it, in whatever order they came."""
    sorted_in: list[list[bytes]] = [[] for _ in range(BUCKETS)]
    for data in statements:
        sorted_in[_bucket(data)].append(_name(data))
    return [hashlib.blake2b(b"".join(sorted(names)), digest_size=BUCKET_BYTES).digest() for names in sorted_in]


def _bucket(data: bytes) -> int:
    return _name(data)[0] % BUCKETS


def _name(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=NAME_BYTES, person=b"p2pfl/papers").digest()


FIELDS: dict[type[Any], dict[str, Field]] = {
    Inventory: {
        "buckets": octets(BUCKETS * BUCKET_BYTES, BUCKETS * BUCKET_BYTES),
        "charter_serial": COUNTER,
        "charter": octets(NAME_BYTES, NAME_BYTES),
        "attested": SECONDS,
        "reply": flag(),
    },
    Papers: {
        "charter": octets(0, CHARTER_MAX),
        "attestation": octets(0, ATTESTATION_MAX),
        "credentials": items(ITEMS_MAX, CREDENTIAL_MAX, "credentials"),
        "revocations": items(ITEMS_MAX, REVOCATION_MAX, "revocations"),
    },
}
"""The fields of both messages, in the order of the wire."""

KINDS: dict[int, type[Any]] = {67: Inventory, 68: Papers}
_NUMBERS = {kind: number for number, kind in KINDS.items()}
