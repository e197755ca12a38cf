"""Comparing two views: digests of 64 buckets, then all of what differs, then only the records that the other lacks.

    A → B  Digests      64 × 8 bytes of members, 32 of revocations; if all are equal that is all
    B → A  Summary      B's live members in the buckets that differ; and Records, of revocations, if those differ
    A → B  Wanted       those that B knows better
    A → B  Records      what A knows better: newer records, who left, who is accused
    B → A  Records      what was wanted; and what B knows better of what came, such as that it left

Nobody's word buries anybody: a member that one side holds for dead goes over as its accusations, so that the other side
suspects it first, and it can refute them (what ringpop calls healing a partition). Everything has a cap; what does not fit is
still different the next time.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.census import Census
from p2pfl.protocol.membership.gossip_wire import (
    BUCKETS,
    ID_BYTES,
    RECORDS_BYTES_MAX,
    RECORDS_MAX,
    Digests,
    Entry,
    Introduction,
    Records,
    Revoked,
    Summary,
    Wanted,
    encode_item,
)
from p2pfl.protocol.membership.standing import Standing, Version
from p2pfl.protocol.membership.view import bucket_of


def digests(census: Census) -> Digests:
    """What opens a comparison."""
    known = hashlib.blake2b(digest_size=ID_BYTES, person=b"p2pfl/revoked")
    for revocation in sorted(census.registry.revocations):
        known.update(len(revocation).to_bytes(2, "big") + revocation)
    return Digests(census.view.digests, known.digest())


def revocations(census: Census, theirs: Digests, first: int) -> Records | None:
    """All of ours, as far as they fit, beginning with a random one; None where they know the same."""
    own = census.registry.revocations
    if not own or digests(census).revocations == theirs.revocations:
        return None
    start = first % len(own)
    return bounded(encode_item(Revoked(revocation)) for revocation in own[start:] + own[:start])


def summarize(census: Census, theirs: Digests, first: int) -> Summary | None:
    """All live members of the buckets that differ, as many whole buckets as fit, beginning with `first`; None if all agree.

    A single bucket that does not fit, in a network of over 32,768, is cut: `differences` compares only the range it covers.
    """
    mask, entries = 0, list[Entry]()
    own = census.view.digests
    for bucket in ((first + k) % BUCKETS for k in range(BUCKETS)):
        if own[bucket] == theirs.buckets[bucket]:
            continue
        found = census.view.entries(bucket)
        if mask and len(entries) + len(found) > RECORDS_MAX:
            break
        mask |= 1 << bucket
        entries += found[:RECORDS_MAX]
    return Summary(mask, tuple(sorted(entries))) if mask else None


def differences(census: Census, theirs: Summary) -> tuple[Wanted | None, Records | None]:
    """What they know better, and what we do."""
    listed = {entry.peer: entry for entry in theirs.entries if theirs.mask >> bucket_of(entry.peer) & 1}
    wanted = [peer for peer, entry in listed.items() if _is_better(entry, census.version(peer))]
    return Wanted(tuple(wanted[:RECORDS_MAX])) if wanted else None, bounded(_known_better(census, theirs, listed))


def _is_better(theirs: Entry, ours: Version | None) -> bool:
    return ours is None or theirs.version > ours


def _known_better(census: Census, theirs: Summary, listed: Mapping[PeerId, Entry]) -> Iterator[bytes]:
    """One after the other, because what does not fit into a message is not worth looking up."""
    for peer, entry in listed.items():
        if not _is_better(entry, census.version(peer)):
            yield from _better(census, entry)
    is_cut = len(listed) >= RECORDS_MAX and theirs.mask.bit_count() == 1
    for bucket in (bucket for bucket in range(BUCKETS) if theirs.mask >> bucket & 1):
        for own in census.view.entries(bucket):
            if own.peer not in listed and not (is_cut and not theirs.entries[0].peer < own.peer < theirs.entries[-1].peer):
                yield from introductions(census, [own.peer])


def seen_alive(census: Census, theirs: Summary) -> Iterator[PeerId]:
    """Those who are dead here and alive there, at one version: one of us has not heard something."""
    for entry in theirs.entries:
        stone = census.tombstones.get(entry.peer)
        if stone is not None and not stone.has_left and not entry.is_suspect and stone.version == entry.version:
            yield entry.peer


def introductions(census: Census, peers: Iterable[PeerId]) -> Iterator[bytes]:
    """The records of these, each with its credential, as far as they are held whole."""
    for peer in peers:
        held = census.held(peer)
        if held is not None:
            yield encode_item(Introduction(held.record.data, census.registry.entry(peer)[0]))


def overriding(census: Census, record: Record) -> list[bytes]:
    """What we know better than a record that was no news: that its subject left, spoke anew, or is accused."""
    held = census.held(record.identity)
    if held is None:
        return []
    is_older = held.record.precedence > record.precedence
    newer = [encode_item(Introduction(held.record.data))] if is_older else []
    return [*newer, *_accusations(census, held)]


def bounded(items: Iterable[bytes]) -> Records | None:
    """As many as one message carries."""
    taken, size = list[bytes](), 0
    for item in items:
        if len(taken) == RECORDS_MAX or size + len(item) > RECORDS_BYTES_MAX:
            break
        taken.append(item)
        size += len(item)
    return Records(b"".join(taken)) if taken else None


def _better(census: Census, entry: Entry) -> list[bytes]:
    """What of a listed member they lack: our newer record, or what it is accused of at theirs."""
    held = census.held(entry.peer)
    if held is None:
        return []
    if held.version > entry.version:
        return [*introductions(census, [entry.peer]), *_accusations(census, held)]
    return [] if entry.is_suspect else _accusations(census, held)


def _accusations(census: Census, held: Standing) -> list[bytes]:
    """Of a member that is suspected or dead here; where a live link speaks for it they are not worth spreading."""
    known = census.view.get(held.record.identity)
    is_believed = known is None or known.suspicion is not None
    return [encode_item(accusation) for accusation in held.accusations] if is_believed else []
