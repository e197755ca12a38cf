"""What others say of members, item by item: checked cheapest first, believed only where its subject or accuser signed it."""

from collections.abc import Iterable
from typing import assert_never

from p2pfl.protocol.admission.record import RECORD, Record
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.bucket import Buckets
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import IdentityConflict, Instant, PeerId
from p2pfl.protocol.membership import gossip_wire, push_pull
from p2pfl.protocol.membership.census import Census
from p2pfl.protocol.membership.doubles import Doubles
from p2pfl.protocol.membership.gossip_wire import Introduction, Revoked, Wanted, encode_item
from p2pfl.protocol.membership.health import Health
from p2pfl.protocol.membership.post import HOPS_MAX, Post
from p2pfl.protocol.membership.self_statement import SelfStatement
from p2pfl.protocol.membership.standing import Accusation

IN_GOOD_FAITH = {
    Reason.NOT_MEMBER,
    Reason.NOT_NEIGHBOR,
    Reason.CERT_FUTURE,
    Reason.CERT_EXPIRED,
    Reason.REVOKED,
    Reason.INVITE_EXPIRED,
    Reason.INVITE_SPENT,
    Reason.NO_RECEIPT,
    Reason.HELD,
    Reason.NAME_TAKEN,
    Reason.FULL,
    Reason.BAD_CLOCK,
}
"""What depends on what one knows, or on one's clock: an honest hop may have judged otherwise."""


ITEMS_PER_S, ITEMS_AT_ONCE = 200.0, 4096.0
"""Of one hop. A whole network's records come at once after a split; but each may cost a signature, and no neighbor has so much
to tell all the time."""

RECORDS_AT_ONCE = 16
"""New ones of one member, and one per probe interval afterwards, whoever tells them. An honest member speaks seldom; one that
left and came back a hundred times a second would have everybody dial others as often."""

SUBJECTS_MAX = 4096


class Hearing:
    """Rumors and push-pull end here."""

    def __init__(self, census: Census, own: SelfStatement, boot: Boot, health: Health, post: Post) -> None:
        self._census, self._self, self._boot, self._health, self._post = census, own, boot, health, post
        self._doubles = Doubles()
        self._items = Buckets(ITEMS_PER_S, ITEMS_AT_ONCE, HOPS_MAX)
        _, longest = census.rules.suspicion_s(len(census.view))
        self._alarms = Buckets(1.0 / longest, 1, HOPS_MAX)
        self._news = Buckets(1.0 / census.rules.probe_interval_s, RECORDS_AT_ONCE, SUBJECTS_MAX)

    def items(self, items: bytes, now: Instant, hop: PeerId, is_answering: bool = False) -> int:
        """How many records were news. Where `is_answering`, what we know better goes back.

        What an honest hop may have passed on in good faith is refused by itself; what it should have seen to be wrong ends the
        message, by `RejectedFrame`, so that a liar costs one signature.
        """
        news, unknown, better = 0, list[PeerId](), list[bytes]()
        for item in gossip_wire.decode_items(items):
            if not self._items.take(hop, 1, now.monotonic):
                raise RejectedFrame(Reason.RATE_LIMITED, hop)
            try:
                match item:
                    case Introduction():
                        news += self._introduction(item, now, hop, unknown, better)
                    case Accusation():
                        self._accusation(item, now, hop, unknown)
                    case Revoked(revocation):
                        self.revoked(revocation, now, hop)
                    case _:
                        assert_never(item)
            except RejectedFrame as refusal:
                if refusal.reason not in IN_GOOD_FAITH:
                    raise
                self._post.reject(refusal, hop)
        if unknown:
            self._post.send(hop, Wanted(tuple(dict.fromkeys(unknown))[: gossip_wire.RECORDS_MAX]))
        if is_answering:
            self._post.serve(now.monotonic, hop, push_pull.bounded(better))
        return news

    def revoked(self, revocation: bytes, now: Instant, hop: PeerId | None) -> None:
        """Pass it on, and forget whom it names. Raises `RejectedFrame` for one that is not valid."""
        if self._census.registry.revoke(revocation, now.wall):
            self._census.rumors.add(("revocation", revocation), encode_item(Revoked(revocation)), hop)
            self._census.revise()

    def tell(self, peer: PeerId, accusations: Iterable[Accusation]) -> None:
        """The accused hears of it first, and can refute it."""
        records = push_pull.bounded(map(encode_item, accusations))
        if records is not None:
            self._post.send(peer, records)

    def forget(self, peer: PeerId) -> None:
        """It is gone."""
        self._doubles.forget(peer)

    def _introduction(self, item: Introduction, now: Instant, hop: PeerId, unknown: list[PeerId], better: list[bytes]) -> bool:
        record = RECORD.read(item.record)
        peer = record.identity
        census = self._census
        if peer == census.own:
            self._myself(record, now)
            return False
        if not item.credential and peer not in census.registry.records:
            unknown.append(peer)
            return False
        held = census.held(peer)
        if held is not None and held.record.boot_id != record.boot_id:
            self._doubles.seen(held.record)
        if not census.is_news(record):
            census.rumors.heard(("record", peer), encode_item(item), hop)
            if self._doubles.concerns(record):
                census.registry.learn_record(record, now.wall)
                self._alarm(record)
            better += push_pull.overriding(census, record)
            return False
        if not self._news.has(peer, 1, now.monotonic):
            return False  # the newest is still different the next time that views are compared
        census.introduced(record, item.credential, now, hop)
        self._news.take(peer, 1, now.monotonic)
        if record.has_left:
            self._doubles.forget(peer)
        else:
            self._alarm(record)
        return True

    def _accusation(self, accusation: Accusation, now: Instant, hop: PeerId, unknown: list[PeerId]) -> None:
        peer = accusation.subject
        if peer == self._census.own:
            self._against_me(accusation, now, hop)
            return
        self._census.rumors.heard(("accusation", peer, accusation.accuser), encode_item(accusation), hop)
        version = self._census.version(peer)
        if version is None or accusation.version > version:
            unknown.append(peer)
        elif self._census.accused(accusation, now, hop) and self._census.is_fresh(peer, now.monotonic):
            self.tell(peer, (accusation,))

    def _against_me(self, accusation: Accusation, now: Instant, hop: PeerId) -> None:
        """Refute it. Being thought dead by a neighbor is a sign of one's own slowness (Lifeguard, L1); but not once more by the
        same one, which may be a liar that wants us slow."""
        if accusation.version != self._self.version:
            return
        self._census.verify(accusation, hop)
        is_near = self._census.is_near(accusation.accuser, self._self.record)
        if self._self.accused(now.monotonic, is_near) and is_near and self._alarms.take(accusation.accuser, 1, now.monotonic):
            self._health.worse()

    def _myself(self, record: Record, now: Instant) -> None:
        """Only we can sign our records. An earlier life's may still be on its way; another machine's should not exist."""
        if record.boot_id == self._boot.id or record.boot_epoch < self._boot.epoch:
            return
        verify = self._census.oath.verify
        if not record.is_genuine(lambda key, context, body, signature: verify(PeerId(key), context, body, signature)):
            raise RejectedFrame(Reason.BAD_SIGNATURE)
        self._census.registry.learn_record(record, now.wall)  # so that the next start of this one is the later life
        addresses = tuple(sorted({*self._self.record.addresses, *record.addresses}))
        self._post.add(IdentityConflict(self._census.own, addresses))

    def _alarm(self, record: Record) -> None:
        addresses = self._doubles.seen(record)
        if addresses is not None:
            self._post.add(IdentityConflict(record.identity, addresses))
