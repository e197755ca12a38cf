"""Who is in the network, as far as is known here: credentials, what members say of themselves, revocations; all verified.

Everything in it is somebody's signed statement, and what it says of a peer is a function of the statements and the time. So
rosters can be joined in any order, as often as one likes, with the same result; nobody's opinion is in it, and no server's.

Times are wall seconds. A machine may have no clock at first: what counts is the latest of its clock, of what it knew when it
was last running (`witness`, which goes to the disk with the roster), and of when the charter was signed.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.admissions import CREDENTIALS_MAX, KEPT_S, MEMBERS_MAX, REVOCATIONS_MAX, Admissions, Conflict
from p2pfl.protocol.admission.attestation import ATTESTATION_MAX, Attestation, Attestations
from p2pfl.protocol.admission.certificate import CREDENTIAL_MAX, DAY_S, Certificate, Credential, Invite, Role
from p2pfl.protocol.admission.record import RECORD, RECORD_MAX, Record
from p2pfl.protocol.admission.revocation import REVOCATION, REVOCATION_MAX, Revocation
from p2pfl.protocol.admission.statement import KEY, NETWORK, SECONDS, Verify, items, verify
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import DIGEST_BYTES, flag, octets, pack_values, read_fields, require, unpack_values

OVERLAP_S = DAY_S  # how long a transport key is good after its successor was announced
_FORMAT = 1


class Roster:
    """`members`: those that are valid now, with the keys and address that they state; `records`: the newest one of everybody
    with a credential. Both change in place as the roster learns. `version` counts what would rest on the disk otherwise than
    before, `members_version` how often somebody became a member, was none any more, or stated another key or address."""

    def __init__(self, network: bytes, root: bytes, check: Verify = verify) -> None:
        self.network, self.root = network, root
        self._check = check
        self._admissions = Admissions(network, root, check)
        self._attestations = Attestations(network, root, check)
        self._members: dict[PeerId, Member] = {}
        self._records: dict[PeerId, Record] = {}
        self._keys: dict[PeerId, dict[int, tuple[int, bytes]]] = {}  # the two highest key_seq: first said when, and the key
        self._now = self._floor = 0.0
        self._turning = math.inf  # when somebody's time comes next
        self._digest: bytes | None = None
        self.version = self.members_version = 0
        self.members: Mapping[PeerId, Member] = MappingProxyType(self._members)
        self.records: Mapping[PeerId, Record] = MappingProxyType(self._records)

    # ---- learning -------------------------------------------------------------------------------------------------------

    def learn(self, credential: bytes, record: bytes | None, wall: float) -> bool:
        """Whether any of it was new. Raises `RejectedFrame` and keeps nothing of a bad one: what `Admissions.learn` refuses,
        BAD_HEADER, VERSION, WRONG_NETWORK, BAD_SIGNATURE."""
        self._tell(wall)
        shown = Credential.read(credential)
        said = RECORD.read(record) if record else None
        if said is not None:
            require(said.identity == shown.identity)
            said = said if self._is_newer(said) else None
        is_new = self._admit(shown)
        return self._put(said) or is_new

    def learn_record(self, record: Record, wall: float) -> bool:
        """Whether it was new. Raises `RejectedFrame`: NOT_MEMBER (it has no credential), WRONG_NETWORK, BAD_SIGNATURE."""
        self._tell(wall)
        if record.identity not in self._admissions:
            raise RejectedFrame(Reason.NOT_MEMBER)
        return self._put(record if self._is_newer(record) else None)

    def learn_all(self, shown: Iterable[tuple[bytes, bytes]], revocations: Iterable[bytes], wall: float) -> int:
        """Everything that is good of it, in an order in which nobody comes before whoever let it in; returns how much was bad.
        What concerns somebody who is not known is left out, and not bad. An empty record is none."""
        waiting, refused = list(shown), 0
        while waiting:
            later = []
            for credential, record in waiting:
                try:
                    self.learn(credential, record or None, wall)
                except RejectedFrame as rejected:
                    if rejected.reason is Reason.NO_RECEIPT:
                        later.append((credential, record))
                    else:
                        refused += 1
            if len(later) == len(waiting):
                break
            waiting = later
        for revocation in revocations:
            try:
                self.revoke(revocation, wall)
            except RejectedFrame as rejected:
                refused += rejected.reason is not Reason.NOT_MEMBER
        return refused

    def revoke(self, revocation: bytes, wall: float) -> bool:
        """Whether it was new; it counts at once. Raises `RejectedFrame`: what `Admissions.revoke` does, BAD_HEADER, VERSION."""
        self._tell(wall)
        read = REVOCATION.read(revocation)
        is_new = self._admissions.revoke(read)
        if is_new:
            self._changed(self._admissions.touched_by(read))
            self._attestations.look(self._admissions.revocations_by_root)
        return is_new

    def attest(self, attestation: bytes, wall: float) -> bool:
        """Whether the root's word on its revocations is newer than what was known. Raises `RejectedFrame`: what
        `Attestations.learn` does."""
        self._tell(wall)
        is_new = self._attestations.learn(attestation, self._now)
        if is_new:
            self.version += 1
            self._attestations.look(self._admissions.revocations_by_root)
        return is_new

    def expire(self, wall: float) -> None:
        """Time has passed: who is not valid any more is no member any more, and who ended a week ago is forgotten. It costs
        nothing while nobody's time has come."""
        self._tell(wall)
        if self._now < self._turning:
            return
        for peer in self._admissions.expire(self._now):
            self._forget(peer)
        self._changed(self._admissions)
        self._turning = min((self._admissions.turning(peer, self._now) for peer in self._admissions), default=math.inf)

    def witness(self, wall: float) -> None:
        """This time has come for certain, because it is signed, or the neighbors' clocks agree: it can't be earlier any more,
        even after a restart of a machine without a clock. A wrong one would end all certificates for good. A new day of it is
        a change that is worth keeping."""
        self.version += wall // DAY_S > self._floor // DAY_S
        self._floor = max(self._floor, wall)
        self._tell(max(self._now, wall))

    # ---- asking ---------------------------------------------------------------------------------------------------------

    def time(self, wall: float) -> float:
        """The time by which certificates and invites are judged."""
        return max(wall, self._floor)

    def standing(self, peer: PeerId) -> Reason | None:
        """Why a peer is no member: NOT_MEMBER, REVOKED, HELD, CERT_FUTURE or CERT_EXPIRED. None: it may be one, once its record
        is known."""
        return self._admissions.standing(peer, self._now)

    def is_relay(self, peer: PeerId) -> bool:
        """Whether this member carries for others instead of learning with them."""
        credential = self._admissions.best(peer, self._now)
        return credential is not None and credential.certificate.role is Role.RELAY

    def is_hidden(self, peer: PeerId) -> bool:
        """Whether nobody can dial this member, by its own word."""
        record = self._records.get(peer)
        return record is not None and not record.addresses and not record.has_left

    def fault(self, credential: Credential) -> Reason | None:
        """Why nobody would be a member by it now: REVOKED, HELD, CERT_FUTURE or CERT_EXPIRED."""
        return self._admissions.fault(credential, self._now)

    def credential(self, peer: PeerId, token: bytes | None = None) -> Credential | None:
        """The best that is known, or the one by this token."""
        known = self._admissions.credentials(peer)
        return next((one for one in known if token is None or one.token == token), None)

    def entry(self, peer: PeerId) -> tuple[bytes, bytes]:
        """What to show somebody who does not know this peer: its best credential, and its record. Raises KeyError for one that
        is not known here."""
        credential = self._admissions.best(peer, self._now) or self.credential(peer)
        if credential is None:
            raise KeyError(peer)
        record = self._records.get(peer)
        return credential.data, record.data if record is not None else b""

    def entries(self) -> list[tuple[bytes, bytes]]:
        """Everything to show somebody who knows nobody; a record goes with each credential of its peer."""
        found = []
        for peer in self._admissions:
            record = self._records.get(peer)
            data = record.data if record is not None else b""
            found += [(credential.data, data) for credential in self._admissions.credentials(peer)]
        return found

    @property
    def identities(self) -> tuple[PeerId, ...]:
        """Everybody who was ever let in and is not forgotten, members or not."""
        return tuple(self._admissions)

    def named(self, name: str) -> tuple[PeerId, ...]:
        """Whom that name means, in canonical order: after a split there may be two."""
        return tuple(sorted(peer for peer in self._admissions if name in self._names(peer)))

    def transport_keys(self, peer: PeerId) -> tuple[bytes, ...]:
        """With which keys a member may call, the newest first: at most two, the elder one for a day after it was replaced."""
        if peer not in self._members:
            return ()
        own = self._members[peer].transport_key
        newest, *before = sorted(self._keys[peer].items(), reverse=True)
        is_overlap = self._now < newest[1][0] + OVERLAP_S
        return (own, *(key for _, (_, key) in before if is_overlap and key != own))

    def is_spent(self, invite: Invite, but: PeerId) -> bool:
        """Whether an invite has no use left for anybody but this one."""
        return self._admissions.is_spent(invite, but)

    @property
    def issuers(self) -> tuple[Certificate, ...]:
        """Of each issuer that vouched for anybody here the newest certificate, in canonical order."""
        return self._admissions.issuers

    def issued_by(self, issuer: bytes) -> int:
        """For how many an issuer vouched, itself or by invites; beyond `ISSUED_MAX` nobody takes in any."""
        return self._admissions.issued_by(issuer)

    def is_revoked(self, key: bytes) -> bool:
        """Whether the root revoked this key: a member's, an issuer's or a token's."""
        return self._admissions.is_revoked_by_root(key)

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The invites that were used too often, on two sides of a split or with a member's help; an issuer decides."""
        return self._admissions.conflicts

    @property
    def revocations(self) -> tuple[bytes, ...]:
        return tuple(revocation.data for revocation in self._admissions.revocations)

    @property
    def revocations_by_root(self) -> tuple[Revocation, ...]:
        return self._admissions.revocations_by_root

    @property
    def attestation(self) -> Attestation | None:
        """The root's newest word on what it had revoked by some moment."""
        return self._attestations.newest

    @property
    def is_attested_whole(self) -> bool:
        """Whether everything that the newest attestation counts was known here."""
        return self._attestations.is_whole

    def revocations_of(self, credential: Credential) -> tuple[bytes, ...]:
        """Those of its identity, of its token and of its issuer: what its holder is shown, to know why it is refused."""
        issuer = credential.issuer.identity if credential.issuer is not None else b""
        about = {credential.identity, credential.token, issuer}
        return tuple(one.data for one in self._admissions.revocations if one.subject in about)

    @property
    def digest(self) -> bytes:
        """Names the credentials and revocations, 32 bytes: equal for two rosters that know the same. Records are not in it."""
        if self._digest is None:
            hasher = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"p2pfl/roster")
            for data in sorted({credential for credential, _ in self.entries()} | set(self.revocations)):
                hasher.update(len(data).to_bytes(2, "big") + data)
            self._digest = hasher.digest()
        return self._digest

    # ---- at rest --------------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """As it rests on a disk."""
        shown = [credential for credential, _ in self.entries()]
        said = [record.data for record in self._records.values()]
        attested = self._attestations.newest
        values = [self.network, self.root, int(self._floor), attested.data if attested else b"", self._attestations.is_whole]
        body = pack_values(
            [_FORMAT, *values, *(_AT_REST[name].write(part) for name, part in _parts(shown, said, self.revocations))]
        )
        return body + _checksum(body)

    @classmethod
    def from_bytes(cls, data: bytes, wall: float, check: Verify = verify, source: str = "the roster") -> "Roster":
        """What `to_bytes` gave; signatures are verified again. `source` names the file to people. Raises `Failure` with exit
        code IDENTITY."""
        body, checksum = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
        try:
            require(_checksum(body) == checksum)
            version, *values = unpack_values(body, 1 + len(_AT_REST))
            require(version == _FORMAT)
            network, root, floor, attestation, is_whole, shown, said, revoked = read_fields(values, _AT_REST)
            roster = cls(network, root, check)
            roster._floor = float(floor)
            if attestation:
                roster._attestations.learn(attestation, math.inf)
                roster._attestations.is_whole = is_whole
        except RejectedFrame:
            message = f"{source} is no roster, or was cut off or changed."
            raise Failure(
                "roster_damaged",
                message,
                "Restore it from a copy.",
                ExitCode.IDENTITY,
            ) from None
        roster.learn_all(((credential, b"") for credential in shown), revoked, wall)
        for record in said:
            try:
                roster.learn_record(RECORD.read(record), wall)
            except RejectedFrame:
                continue  # of somebody who has been forgotten meanwhile
        return roster

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _tell(self, wall: float) -> None:
        before, self._now = self._now, self.time(wall)
        if self._now < before:
            self._turning = -math.inf  # the clock was set back: look at everybody again

    def _admit(self, shown: Credential) -> bool:
        try:
            is_new = self._admissions.learn(shown, self._now)
        except RejectedFrame as refused:
            if refused.reason is not Reason.FULL or not self._make_room():
                raise
            is_new = self._admissions.learn(shown, self._now)
        if is_new:
            self._changed(self._admissions.used_with(shown.identity, shown.token))
            is_past = self._now >= self._admissions.end(shown.identity) + KEPT_S  # kept if somebody turns out to rest on it
            turning = self._now if is_past else self._admissions.turning(shown.identity, self._now)
            self._turning = min(self._turning, turning)
        return is_new

    def _is_newer(self, record: Record) -> bool:
        """Whether it would replace what is known; verified if so."""
        if record.network != self.network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        known = self._records.get(record.identity)
        is_newer = known is None or known.precedence < record.precedence
        keys = self._keys.get(record.identity, {})
        first_said = keys.get(record.key_seq)
        tells_of_key = (first_said is None and record.key_seq > min(keys, default=-1)) or (
            first_said is not None and (record.wall, record.transport_key) < first_said
        )
        if not (is_newer or tells_of_key):
            return False
        if not record.is_genuine(self._check):
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        if not is_newer and record.identity in self._admissions:
            self._note_key(record)
        return is_newer

    def _put(self, record: Record | None) -> bool:
        if record is None:
            return False
        self._records[record.identity] = record
        self.version += 1
        self._note_key(record)
        self._look_at(record.identity)
        return True

    def _note_key(self, record: Record) -> None:
        keys = self._keys.setdefault(record.identity, {})
        said = (record.wall, record.transport_key)
        keys[record.key_seq] = min(keys.get(record.key_seq, said), said)
        for key_seq in sorted(keys)[:-2]:
            del keys[key_seq]

    def _changed(self, peers: Iterable[PeerId]) -> None:
        self._digest = None
        self.version += 1
        for peer in list(peers):
            self._look_at(peer)

    def _look_at(self, peer: PeerId) -> None:
        credential, record = self._admissions.best(peer, self._now), self._records.get(peer)
        if credential is None or record is None:
            self._remove(peer)
            return
        member = record.member(credential.certificate.name)
        if self._members.get(peer) != member:
            self._members[peer] = member
            self.members_version += 1

    def _remove(self, peer: PeerId) -> None:
        if self._members.pop(peer, None) is not None:
            self.members_version += 1

    def _names(self, peer: PeerId) -> set[str]:
        return {credential.certificate.name for credential in self._admissions.credentials(peer)}

    def _make_room(self) -> bool:
        """Forgets one whom it is safe to forget if there is no more room: whoever ended, or left, the longest ago."""
        if len(self._admissions) < MEMBERS_MAX:
            return False
        since: dict[PeerId, float] = {}
        for peer in self._admissions:
            record, end = self._records.get(peer), self._admissions.end(peer)
            if end <= self._now:
                since[peer] = end
            elif record is not None and record.has_left:
                since[peer] = record.wall
        for peer in sorted(since, key=lambda one: (since[one], one)):
            if self._admissions.is_forgettable(peer, self._now):
                self._admissions.forget(peer)
                self._forget(peer)
                return True
        return False

    def _forget(self, peer: PeerId) -> None:
        self._remove(peer)
        self._records.pop(peer, None)
        self._keys.pop(peer, None)
        self._digest = None


def _parts(shown: list[bytes], said: list[bytes], revoked: tuple[bytes, ...]) -> list[tuple[str, Iterable[bytes]]]:
    return [("credentials", shown), ("records", said), ("revocations", revoked)]


def _checksum(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES, person=b"p2pfl/atrest").digest()


_AT_REST = {
    "network": NETWORK,
    "root": KEY,
    "floor": SECONDS,
    "attestation": octets(0, ATTESTATION_MAX),
    "is_whole": flag(),
    "credentials": items(MEMBERS_MAX * (CREDENTIALS_MAX + 1), CREDENTIAL_MAX, "credentials"),
    "records": items(MEMBERS_MAX, RECORD_MAX, "records"),
    "revocations": items(2 * REVOCATIONS_MAX, REVOCATION_MAX, "revocations"),
}
