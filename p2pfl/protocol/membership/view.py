"""Who is in the network as this peer sees it now, suspects included, and digests of that to compare with others.

The digests of the 64 buckets are kept up to date by XOR, one hash out and one in, so that comparing costs 512 bytes and no
walk over the members, however many there are. Members fall into buckets by their ids.
"""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.gossip_wire import BUCKET_BYTES, BUCKETS, Entry
from p2pfl.protocol.membership.standing import Standing
from p2pfl.protocol.membership.suspicion import Suspicion


@dataclass(frozen=True, slots=True)
class Known:
    """A live member. With a suspicion it is a suspect; the accusations may be there before, where a live link speaks for it."""

    standing: Standing
    suspicion: Suspicion | None = None


class View:
    """The live members. `version` counts the changes of who they are."""

    def __init__(self) -> None:
        self.version = 0
        self.suspects: set[PeerId] = set()
        self.doubted: set[PeerId] = set()
        self._known: dict[PeerId, Known] = {}
        self._sorted: list[PeerId] = []
        self._live: tuple[PeerId, ...] | None = ()
        self._digests = [0] * BUCKETS
        self._buckets: list[set[PeerId]] = [set() for _ in range(BUCKETS)]

    def __len__(self) -> int:
        return len(self._sorted)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._known

    @property
    def live(self) -> tuple[PeerId, ...]:
        """Their ids in canonical order, one's own among them."""
        if self._live is None:
            self._live = tuple(self._sorted)
        return self._live

    def get(self, peer: PeerId) -> Known | None:
        """What is known of a live member."""
        return self._known.get(peer)

    def put(self, peer: PeerId, known: Known) -> None:
        """A member came, or something about it changed. `doubted` are those accused whom nobody here suspects yet."""
        old = self._known.get(peer)
        if old is None:
            insort(self._sorted, peer)
            self._buckets[bucket_of(peer)].add(peer)
            self._changed()
        else:
            self._toggle(peer, old)
        self._known[peer] = known
        self._toggle(peer, known)
        self._mark(self.suspects, peer, known.suspicion is not None)
        self._mark(self.doubted, peer, known.suspicion is None and bool(known.standing.accusations))

    def remove(self, peer: PeerId) -> None:
        """It died, left or is no member any more."""
        self._toggle(peer, self._known.pop(peer))
        del self._sorted[bisect_left(self._sorted, peer)]
        self._buckets[bucket_of(peer)].discard(peer)
        self.suspects.discard(peer)
        self.doubted.discard(peer)
        self._changed()

    @property
    def digests(self) -> tuple[bytes, ...]:
        """One per bucket; equal where the same members are live and suspected, at the same versions."""
        return tuple(digest.to_bytes(BUCKET_BYTES, "big") for digest in self._digests)

    def entries(self, bucket: int) -> list[Entry]:
        """All of a bucket, by ascending id."""
        return [self._entry(peer, self._known[peer]) for peer in sorted(self._buckets[bucket])]

    def __iter__(self) -> Iterator[PeerId]:
        return iter(self._sorted)

    def _changed(self) -> None:
        self.version += 1
        self._live = None

    def _entry(self, peer: PeerId, known: Known) -> Entry:
        return Entry(peer, known.standing.version, known.suspicion is not None)

    def _toggle(self, peer: PeerId, known: Known) -> None:
        entry = self._entry(peer, known)
        said = entry.peer + b"%d %d %d" % (*entry.version, entry.is_suspect)
        digest = hashlib.blake2b(said, digest_size=BUCKET_BYTES, person=b"p2pfl/bucket").digest()
        self._digests[bucket_of(peer)] ^= int.from_bytes(digest, "big")

    @staticmethod
    def _mark(peers: set[PeerId], peer: PeerId, holds: bool) -> None:
        if holds:
            peers.add(peer)
        else:
            peers.discard(peer)


def bucket_of(peer: PeerId) -> int:
    """0 to 63."""
    return peer[0] * BUCKETS >> 8
