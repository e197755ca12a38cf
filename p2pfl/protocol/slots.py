"""Where updates wait until they are mixed: at most two per neighbor, whatever the neighbor sends.

One slot is for this round's update (or one a little older that may stand in for it), one for the newest of a later round.
Within a slot the highest (epoch, seq) wins; what it displaces is superseded. So a neighbor can make a peer hold two payloads
and no more, and a late one never costs it its place.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from p2pfl.protocol.events import Arrived, Payload, PeerId
from p2pfl.protocol.wire import Header


@dataclass(slots=True)
class Arriving:
    """An update whose offer was accepted. It is `arrived` when all its chunks are opened."""

    ticket: int
    header: Header
    length: int
    digests: tuple[bytes, ...]
    key: bytes
    credited: int = 0  # chunks the sender may have sent
    received: int = 0  # chunks that came, in order
    received_before: int = -1  # by the time of the last mix
    is_resumed: bool = False  # over another link than it began on
    payload: Payload | None = None
    whole_at: float = 0.0  # monotonic, when the payload was complete
    is_folded: bool = False  # into the mix that is to come; the payload was released

    @property
    def sender(self) -> PeerId:
        return PeerId(self.header.signer)

    @property
    def is_here(self) -> bool:
        """Whether all of it came, so that only opening it is left, for which nobody's link is needed."""
        return self.received == len(self.digests)

    @property
    def is_whole(self) -> bool:
        """Whether nothing of it is still to come or to be opened."""
        return self.payload is not None or self.is_folded

    def arrived(self) -> Arrived:
        """What `Learn` gets of it, once it is whole."""
        if self.payload is None:
            raise AssertionError("an update is mixed only when all its chunks are opened")
        header = self.header
        return Arrived(self.sender, header.boot_epoch, header.seq, header.step, header.age, self.payload)


@dataclass(slots=True)
class Pair:
    """One neighbor's two places, the content that it was mixed with last, and the newest round whose update was settled before
    that round's mix: folded into it, or refused or lost in that."""

    current: Arriving | None = None
    later: Arriving | None = None
    taken: bytes = b""
    settled: int = -1


_NONE = Pair()  # of whom nothing came; never written to


class Slots:
    """The slots of all neighbors, and the one round that decides which slot an update belongs to."""

    def __init__(self, staleness: int | None) -> None:
        """`staleness` None: any step may stand in for this round's, which is how asynchronous gossip works."""
        self._staleness = staleness
        self._pairs: dict[PeerId, Pair] = {}
        self.round = 0

    def __iter__(self) -> Iterator[Arriving]:
        for pair in self._pairs.values():
            for update in (pair.current, pair.later):
                if update is not None:
                    yield update

    def current(self, sender: PeerId) -> Arriving | None:
        """This round's update of a neighbor, or an older one that may stand in for it."""
        pair = self._pairs.get(sender)
        return pair.current if pair else None

    def later(self, sender: PeerId) -> Arriving | None:
        """A neighbor's newest update of a later round."""
        pair = self._pairs.get(sender)
        return pair.later if pair else None

    def find(self, sender: PeerId, chunks_digest: bytes) -> Arriving | None:
        """The incomplete update of this sender with this content."""
        pair = self._pairs.get(sender, _NONE)
        for update in (pair.current, pair.later):
            if update is not None and not update.is_whole and update.header.chunks_digest == chunks_digest:
                return update
        return None

    def has_room_for(self, header: Header) -> bool:
        """Whether an update would be kept: not too old, newer than what its slot holds, and no resend of what is whole here or
        was mixed already."""
        pair = self._pairs.get(header.signer, _NONE)
        if header.chunks_digest == pair.taken:
            return False
        for update in (pair.current, pair.later):
            if update is not None and update.is_whole and update.header.chunks_digest == header.chunks_digest:
                return False
        if self._belongs_to_later(header):
            held = pair.later
        elif self._is_too_old(header) or pair.settled >= self.round:
            return False
        else:
            held = pair.current
        return held is None or _rank(header) > _rank(held.header)

    def place(self, update: Arriving) -> Arriving | None:
        """Keep an update that there is room for; returns the one it displaced."""
        pair = self._pairs.setdefault(update.sender, Pair())
        if self.is_later(update):
            displaced, pair.later = pair.later, update
        else:
            displaced, pair.current = pair.current, update
        return displaced

    def settle(self, update: Arriving) -> None:
        """It goes into the mix before the others, and is not replaced any more, whatever comes of that."""
        pair = self._pairs[update.sender]
        pair.taken, pair.settled = update.header.chunks_digest, update.header.step

    def is_settled(self, sender: PeerId) -> bool:
        """Whether this round's update of a neighbor is: nothing more of it is to come."""
        return self._pairs.get(sender, _NONE).settled >= self.round

    def to_fold(self) -> list[Arriving]:
        """The updates of this very round that are whole and not settled, in canonical order."""
        found = [pair.current for _, pair in sorted(self._pairs.items()) if pair.settled < self.round]
        return [update for update in found if update is not None and update.payload and update.header.step == self.round]

    def take(self) -> list[Arriving]:
        """Everything whole that may be mixed this round, in canonical order, out of its slot: what was folded, too."""
        pairs = sorted(self._pairs.items())
        taken = [pair.current for _, pair in pairs if pair.current is not None and pair.current.is_whole]
        for update in taken:
            self._pairs[update.sender].taken = update.header.chunks_digest
            self.remove(update)
        return taken

    def remove(self, update: Arriving) -> None:
        """Forget an update: taken, refused or lost."""
        pair = self._pairs[update.sender]
        if pair.current is update:
            pair.current = None
        elif pair.later is update:
            pair.later = None

    def forget(self, gone: Iterable[PeerId]) -> None:
        """Of these nothing is held, and nothing will come."""
        for sender in gone:
            pair = self._pairs.pop(sender, _NONE)
            assert pair.current is None and pair.later is None, "what is held has to be let go, and booked, first"

    def advance(self, round: int) -> list[Arriving]:
        """Begin another round: later updates that belong to it now move up; returns what they displaced or what is too old."""
        self.round = round
        displaced = []
        for pair in self._pairs.values():
            if pair.later is not None and not self.is_later(pair.later):
                if pair.current is not None:
                    displaced.append(pair.current)
                pair.current, pair.later = pair.later, None
            if pair.current is not None and self._is_too_old(pair.current.header):
                displaced.append(pair.current)
                pair.current = None
        return displaced

    def is_ahead(self, step: int, window: int) -> bool:
        """Whether a step is further in the future than `window` rounds."""
        return self._staleness is not None and step > self.round + window

    def is_later(self, update: Arriving) -> bool:
        """Whether it belongs to a later round."""
        return self._belongs_to_later(update.header)

    def _belongs_to_later(self, header: Header) -> bool:
        return self._staleness is not None and header.step > self.round

    def _is_too_old(self, header: Header) -> bool:
        return self._staleness is not None and header.step < self.round - self._staleness


def _rank(header: Header) -> tuple[int, int]:
    return header.boot_epoch, header.seq
