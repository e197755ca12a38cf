"""Who was vouched for, who let whom in, who was revoked: sets of signed statements that only grow, and what follows from them.

Two networks that were apart join their sets by union, so that it does not matter who heard of what first. That is why an invite
that was used too often on both sides of a split is held against all whom it let in, and not against the later ones: nobody can
prove to have been first. What an issuer then certifies directly counts. But somebody whom the invite's secret reaches when it
is spent can't have its first user held: no honest member signs a receipt for a spent invite, and receipts of members who were
revoked count only as far as the others leave uses over.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from p2pfl.protocol.admission.certificate import BACKDATE_S, DAY_S, ISSUER_DAYS_MAX, Certificate, Credential, Invite
from p2pfl.protocol.admission.revocation import Revocation
from p2pfl.protocol.admission.statement import Verify
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId

MEMBERS_MAX = 1024  # every node keeps them all in memory, and every one of them may knock
ISSUED_MAX = 512  # of them by one issuer, whose key may be stolen
CREDENTIALS_MAX = 4  # of one identity, by different keys
USED_MAX = 16  # kept beyond the uses that an invite has: more does not make it any more used
REVOCATIONS_MAX = 4096  # by the root, of keys known or not; and as many by all others
KEPT_S = 7 * DAY_S  # how long after its end a certificate is remembered, and a revocation with it
KNOWABLE_S = ISSUER_DAYS_MAX * DAY_S  # how long after its end a certificate may still show that its holder could let others in


@dataclass(frozen=True, slots=True)
class Conflict:
    """An invite that let in more than it was for; `identities` are all of them, in canonical order."""

    token: bytes
    max_uses: int
    identities: tuple[PeerId, ...]


class Admissions:
    """What is known in one network under one root key."""

    def __init__(self, network: bytes, root: bytes, check: Verify) -> None:
        self._network, self._root, self._check = network, root, check
        self._credentials: dict[PeerId, dict[bytes, Credential]] = {}  # of one peer by `voucher`
        self._uses: defaultdict[bytes, set[PeerId]] = defaultdict(set)  # of a token: whom it let in
        self._let_in: defaultdict[PeerId, set[PeerId]] = defaultdict(set)  # by a member: whom it let in
        self._revocations: dict[tuple[bytes, bytes], Revocation] = {}  # by subject and signer
        self._count_by_root = 0

    def __len__(self) -> int:
        return len(self._credentials)

    def __contains__(self, peer: object) -> bool:
        return peer in self._credentials

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self._credentials)

    def credentials(self, peer: PeerId) -> tuple[Credential, ...]:
        """All that is known of a member, the best first."""
        return tuple(sorted(self._credentials.get(peer, {}).values(), key=_rank, reverse=True))

    @property
    def revocations(self) -> tuple[Revocation, ...]:
        return tuple(self._revocations.values())

    # ---- what follows ---------------------------------------------------------------------------------------------------

    def best(self, peer: PeerId, now: float) -> Credential | None:
        """The credential by which this peer is a member now."""
        return next((one for one in self.credentials(peer) if self.fault(one, now) is None), None)

    def standing(self, peer: PeerId, now: float) -> Reason | None:
        """Why it is no member: NOT_MEMBER, REVOKED, HELD, CERT_FUTURE or CERT_EXPIRED. None: it is."""
        if peer not in self._credentials:
            return Reason.NOT_MEMBER
        faults = [self.fault(one, now) for one in self._credentials[peer].values()]
        worst_first = (None, Reason.REVOKED, Reason.HELD, Reason.CERT_FUTURE, Reason.CERT_EXPIRED)
        return next(fault for fault in worst_first if fault in faults)

    def fault(self, credential: Credential, now: float) -> Reason | None:
        """Why nobody is a member by this credential, known or new: REVOKED, HELD, CERT_FUTURE or CERT_EXPIRED."""
        if self._is_revoked(credential):
            return Reason.REVOKED
        if credential.token and credential.identity in self._held(credential.token):
            return Reason.HELD
        return credential.validity(now)

    def is_spent(self, invite: Invite, but: PeerId) -> bool:
        """Whether an invite has no use left for anybody new."""
        return len(self._uses.get(invite.token, set()) - {but}) >= invite.max_uses

    def used_with(self, peer: PeerId, token: bytes) -> frozenset[PeerId]:
        """Whose standing may change with this one's: all whom the same token let in."""
        return frozenset({peer} | (self._uses.get(token, set()) if token else set()))

    def touched_by(self, revocation: Revocation) -> Collection[PeerId]:
        """Whose standing a revocation may change."""
        subject = PeerId(revocation.subject)
        if self._count_of(subject):
            return tuple(self)
        touched = set(self._uses.get(subject, ()))
        for user in (subject, *self._let_in.get(subject, ())):
            touched |= {user}.union(*(self._uses.get(token, ()) for token in self._credentials.get(user, ())))
        return touched

    def turning(self, peer: PeerId, now: float) -> float:
        """The next moment at which time alone changes something about it."""
        certificates = [one.certificate for one in self._credentials[peer].values()]
        moments = [moment for one in certificates for moment in (one.not_before, one.not_after, one.not_after + KEPT_S)]
        return min((float(moment) for moment in moments if moment > now), default=math.inf)

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """The invites that let in too many, for an issuer to decide about."""
        found = ((token, self._max_uses(token), users) for token, users in self._uses.items())
        return tuple(Conflict(token, most, tuple(sorted(users))) for token, most, users in found if len(users) > most)

    def end(self, peer: PeerId) -> int:
        """When the last of its certificates ends."""
        return max(one.certificate.not_after for one in self._credentials[peer].values())

    def is_forgettable(self, peer: PeerId, now: float) -> bool:
        """Whether nothing hangs on remembering it: nobody that it let in is known, and no invite that it used is still good."""
        open_invites = (one.invite.not_after > now for one in self._credentials[peer].values() if one.invite is not None)
        return not self._let_in.get(peer) and not any(open_invites)

    @property
    def issuers(self) -> tuple[Certificate, ...]:
        """The newest certificate of each issuer that vouched for anybody here, in canonical order."""
        found: dict[PeerId, Certificate] = {}
        for credentials in self._credentials.values():
            for issuer in (one.issuer for one in credentials.values() if one.issuer is not None):
                if issuer.identity not in found or _newness(found[issuer.identity]) < _newness(issuer):
                    found[issuer.identity] = issuer
        return tuple(found[key] for key in sorted(found))

    def issued_by(self, issuer: bytes) -> int:
        """For how many identities it vouched."""
        return self._count_of(issuer)

    @property
    def revocations_by_root(self) -> tuple[Revocation, ...]:
        return tuple(one for one in self._revocations.values() if one.signer == self._root)

    def is_revoked_by_root(self, key: bytes) -> bool:
        """A member's, an issuer's or a token's."""
        return (key, self._root) in self._revocations

    # ---- growing --------------------------------------------------------------------------------------------------------

    def learn(self, credential: Credential, now: float) -> bool:
        """Whether it was new. Raises `RejectedFrame`: WRONG_NETWORK, BAD_TTL, BAD_CHAIN, CERT_EXPIRED (too long ago to matter),
        NO_RECEIPT, INVITE_SPENT (more than need be kept to show that it was overused), FULL."""
        known = self._credentials.get(credential.identity, {})
        old = known.get(credential.voucher)
        if old == credential:
            return False
        credential.verify(self._root, self._network, self._check)
        if now >= credential.certificate.not_after + KNOWABLE_S:
            raise RejectedFrame(Reason.CERT_EXPIRED)
        if credential.invite is not None and not self._is_let_in(credential):
            raise RejectedFrame(Reason.NO_RECEIPT)
        if old is not None and _order(old) >= _order(credential):
            return False
        if old is None:
            self._check_room(credential, self._without_ended(credential.identity, now))
        self._put(credential, old)
        return True

    def revoke(self, revocation: Revocation) -> bool:
        """Whether it was new. Raises `RejectedFrame`: WRONG_NETWORK, NOT_MEMBER (the subject is unknown, and the signer not the
        root), BAD_CHAIN (the signer has no say), FULL, BAD_SIGNATURE."""
        key = (revocation.subject, revocation.signer)
        old = self._revocations.get(key)
        if old is not None and old.data <= revocation.data:  # of two alike any may hold, but all must keep the same
            return False
        if revocation.network != self._network:
            raise RejectedFrame(Reason.WRONG_NETWORK)
        self._check_say(revocation)
        forgotten = self._forgotten_for(revocation) if old is None else None
        if not revocation.is_genuine(self._check):
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        if forgotten is not None:
            self._take_back(*forgotten)
        self._revocations[key] = revocation
        self._count_by_root += old is None and revocation.signer == self._root
        return True

    # ---- forgetting -----------------------------------------------------------------------------------------------------

    def forget(self, peer: PeerId) -> None:
        """Let go of a member's credentials; what was revoked stays so."""
        for credential in self._credentials.pop(peer).values():
            self._let_go(credential)

    def expire(self, now: float) -> list[PeerId]:
        """Let go of what ended a week ago, and nobody rests on, with its revocations; returns whom."""
        gone: list[PeerId] = []
        while ended := [peer for peer in self if now >= self.end(peer) + KEPT_S and self.is_forgettable(peer, now)]:
            for peer in ended:
                self.forget(peer)
            gone += ended  # and with them goes what kept whoever let them in
        for (subject, signer), revocation in list(self._revocations.items()):
            is_about_nobody = subject not in self._credentials and now >= revocation.wall + KNOWABLE_S + BACKDATE_S + KEPT_S
            if subject in gone or (is_about_nobody and not self._rests_on(subject)):
                self._take_back(subject, signer)
        return gone

    # ---- inside ---------------------------------------------------------------------------------------------------------

    def _is_revoked(self, credential: Credential) -> bool:
        """By itself, by the root, or by the issuer that vouched for it; or what it rests on was."""
        issuer = credential.issuer.identity if credential.issuer is not None else None
        own = credential.identity
        said = [(own, own), (own, self._root), (own, issuer), (issuer, self._root), (credential.token, self._root)]
        return any(key in self._revocations for key in [*said, (credential.token, issuer)])

    def _is_let_in(self, credential: Credential) -> bool:
        """By somebody who is known, and whose own time was not over: a former member signs no receipts for new invites."""
        receipt = credential.receipt
        return receipt is not None and receipt.admitter in self and receipt.admitted_at < self.end(receipt.admitter)

    def _held(self, token: bytes) -> set[PeerId]:
        users, most = self._uses.get(token, set()), self._max_uses(token)
        if len(users) <= most:
            return set()
        doubted = {user for user in users if self._has_doubtful_receipt(user, token)}
        return doubted if len(users) - len(doubted) <= most else users

    def _has_doubtful_receipt(self, user: PeerId, token: bytes) -> bool:
        receipt = self._credentials[user][token].receipt
        assert receipt is not None  # none is kept without
        return any(map(self._is_revoked, self._credentials[receipt.admitter].values()))

    def _max_uses(self, token: bytes) -> int:
        invites = (self._credentials[user][token].invite for user in self._uses.get(token, ()))
        return max((invite.max_uses for invite in invites if invite is not None), default=0)

    def _check_room(self, credential: Credential, known: int) -> None:
        invite, issuer = credential.invite, credential.issuer
        if invite is not None and len(self._uses.get(invite.token, ())) >= invite.max_uses + USED_MAX:
            raise RejectedFrame(Reason.INVITE_SPENT)
        by_issuer = issuer is not None and known == 0 and self._count_of(issuer.identity) >= ISSUED_MAX
        is_over = known >= CREDENTIALS_MAX and credential.voucher != b""  # nobody fills the place of the root's
        if is_over or by_issuer or (known == 0 and len(self) >= MEMBERS_MAX):
            raise RejectedFrame(Reason.FULL)

    def _check_say(self, revocation: Revocation) -> None:
        """Who may revoke whom."""
        subject, by = revocation.subject, revocation.signer
        if by == self._root:
            return
        resting = [*self._credentials.get(PeerId(subject), {}).values()]
        resting += [self._credentials[user][subject] for user in self._uses.get(subject, ())]
        if not resting:
            raise RejectedFrame(Reason.NOT_MEMBER)
        is_itself = by == subject and subject in self._credentials
        if not is_itself and not any(one.issuer is not None and one.issuer.identity == by for one in resting):
            raise RejectedFrame(Reason.BAD_CHAIN)

    def _without_ended(self, peer: PeerId, now: float) -> int:
        """How many credentials of this peer are kept, one that ended let go of where there are as many as may be."""
        known = self._credentials.get(peer, {})
        ended = [one for one in known.values() if now >= one.certificate.not_after]
        if len(known) >= CREDENTIALS_MAX and ended:
            first = min(ended, key=_rank)
            del known[first.voucher]
            self._let_go(first)
        return len(known)

    def _forgotten_for(self, revocation: Revocation) -> tuple[bytes, bytes] | None:
        """Which revocation makes room for this one: none, or the eldest about somebody not known any more. The root's are
        never forgotten for others', nor for each other. Raises `RejectedFrame` with FULL."""
        is_by_root = revocation.signer == self._root
        count = self._count_by_root if is_by_root else len(self._revocations) - self._count_by_root
        if count < REVOCATIONS_MAX:
            return None
        others = [key for key in self._revocations if key[1] != self._root and key[0] not in self._credentials]
        if is_by_root or not others:
            raise RejectedFrame(Reason.FULL)
        return min(others, key=lambda key: (self._revocations[key].wall, key))

    def _take_back(self, subject: bytes, signer: bytes) -> None:
        del self._revocations[subject, signer]
        self._count_by_root -= signer == self._root

    def _put(self, credential: Credential, old: Credential | None) -> None:
        if old is not None:
            self._let_go(old)
        self._credentials.setdefault(credential.identity, {})[credential.voucher] = credential
        if credential.receipt is not None:
            self._uses[credential.token].add(credential.identity)
            self._let_in[credential.receipt.admitter].add(credential.identity)

    def _let_go(self, credential: Credential) -> None:
        if credential.receipt is None:
            return
        peer, token, admitter = credential.identity, credential.token, credential.receipt.admitter
        self._uses[token].discard(peer)
        if not self._uses[token]:
            del self._uses[token]
        others = (one.receipt for key, one in self._credentials.get(peer, {}).items() if key != token)
        if not any(receipt is not None and receipt.admitter == admitter for receipt in others):
            self._let_in[admitter].discard(peer)
            if not self._let_in[admitter]:
                del self._let_in[admitter]

    def _count_of(self, issuer: bytes) -> int:
        return sum(
            any(one.issuer is not None and one.issuer.identity == issuer for one in credentials.values())
            for credentials in self._credentials.values()
        )

    def _rests_on(self, key: bytes) -> bool:
        """Whether any credential rests on this issuer's key or token."""
        return key in self._uses or self._count_of(key) > 0


def _newness(certificate: Certificate) -> tuple[int, int, bytes]:
    return (certificate.serial, certificate.not_after, certificate.data)


def _rank(credential: Credential) -> tuple[bool, bool, int, int, bytes]:
    """Which credential of one peer says the most: the root's own, then an issuer's, then the one that lasts longest."""
    certificate = credential.certificate
    return (credential.invite is None, credential.issuer is None, certificate.not_after, certificate.serial, credential.data)


def _order(credential: Credential) -> tuple[int, int, int, bytes]:
    """Which of two credentials of one peer by one key is kept: with an invite, the first admission."""
    admitted_at = credential.receipt.admitted_at if credential.receipt is not None else 0
    certificate = credential.certificate
    return (-admitted_at, certificate.not_after, certificate.serial, credential.data)
