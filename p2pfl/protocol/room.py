"""How many long updates may take memory at once, and whose turn it is.

An update takes its place when its first chunks are credited, and keeps it until it is let go or its mixing is over. While all
places are taken offers wait, which cost a header each. A free place goes to this round's updates before later ones, then to the
neighbor that has waited longest since it last got one, then to the oldest offer. Where there is a place for each neighbor, none
gets a second one that leaves too few for the others; where there are fewer, later rounds get none.

Where updates are folded into the mix as they come, they take turns: a place is given when no other is in use, so that one
update takes memory at a time, and only while the peer waits: what comes while it learns could not be folded, and would take
memory beside the learner's own. Whoever has not brought its update within `turn_s` no longer keeps others from theirs: a
neighbor that stalls costs one place and no round.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.slots import Arriving, Slots

ARRIVING_BYTES = 128 << 20  # what updates of others may always take, all at once
FOLDING_PLACES = 8  # where they are folded: one is in use, and the others are for neighbors that are slower than their turn


@dataclass(frozen=True, slots=True)
class Allotment:
    """How many long updates of others may take memory at once, and whether each is folded as it comes."""

    places: int
    folds: bool


def allotment(neighbors: int, update_bytes: int, can_fold: bool) -> Allotment:
    """Where there is memory for an update of every neighbor, all are mixed at once; else one by one, if the rule of the mix
    allows for that; else there is a place for each all the same."""
    plenty = ARRIVING_BYTES // update_bytes
    if plenty >= neighbors:
        return Allotment(plenty, folds=False)
    return Allotment(min(neighbors, FOLDING_PLACES), folds=True) if can_fold else Allotment(neighbors, folds=False)


class Room:
    """The places of one peer. What is sealed in one short piece rides along with its offer and takes none."""

    def __init__(self, places: int | None, senders: Callable[[], int], turn_s: float | None = None) -> None:
        """`places` None: as many as there are updates. `senders` says from how many neighbors this peer may receive. With
        `turn_s` they take turns of so many seconds."""
        if places is not None and places < 1:
            raise ValueError("a peer without room for one update learns from nobody")
        self._places = places
        self._senders = senders
        self._turn_s = turn_s
        self.is_open = turn_s is None
        """Whether places are given now, where neighbors take turns."""
        self._taken: dict[int, Arriving] = {}
        self._since: dict[int, float] = {}
        self._turns: dict[PeerId, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._taken)

    def next(self, slots: Slots, now: float) -> Arriving | None:
        """Who of those that were offered gets a place now, and has it from now on."""
        if not self.is_open:
            return None
        waiting = [u for u in slots if not u.credited and self._may_have_place(u.sender, slots.is_later(u), slots, now)]
        if not waiting:
            return None
        first = min(waiting, key=lambda update: (slots.is_later(update), self._turns.get(update.sender, 0), update.ticket))
        self._turn += 1
        self._turns[first.sender] = self._turn
        self._taken[first.ticket] = first
        self._since[first.ticket] = now
        return first

    def next_turn_at(self, now: float) -> float | None:
        """When a place may be free because somebody's turn is over, whatever happens until then."""
        if self._turn_s is None or self._places is None or not self.is_open or len(self._taken) >= self._places:
            return None
        ends = [self._since[ticket] + self._turn_s for ticket, one in self._taken.items() if not one.is_whole]
        return max((end for end in ends if end > now), default=None)

    @property
    def takes_turns(self) -> bool:
        return self._turn_s is not None

    def has(self, update: Arriving) -> bool:
        return update.ticket in self._taken

    def leave(self, ticket: int) -> None:
        """Its place is free, if it had one."""
        self._taken.pop(ticket, None)
        self._since.pop(ticket, None)

    def forget(self, gone: Iterable[PeerId]) -> None:
        """These will wait for no more turns."""
        for sender in gone:
            self._turns.pop(sender, None)

    def _may_have_place(self, sender: PeerId, is_later: bool, slots: Slots, now: float) -> bool:
        if self._places is None:
            return True
        free = self._places - len(self._taken)
        if self._turn_s is not None:
            return free > 0 and not is_later and not any(self._is_in_use(one, slots, now) for one in self._taken.values())
        if self._places < self._senders():
            return free > 0 and not is_later
        holders = {update.sender for update in self._taken.values()}
        reserved = max(0, self._senders() - len(holders))  # one for each neighbor that has none
        return free > (reserved if sender in holders else 0)

    def _is_in_use(self, update: Arriving, slots: Slots, now: float) -> bool:
        """Whether it is its turn. What is whole and of this round is being folded; what stands in for it is not, and may wait
        as long as the round takes."""
        assert self._turn_s is not None
        if update.is_whole:
            return update.header.step == slots.round
        return now < self._since[update.ticket] + self._turn_s
