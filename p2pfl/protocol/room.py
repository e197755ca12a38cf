"""How many long updates may take memory at once, and whose turn it is.

An update takes its place when its first chunks are credited, and keeps it until it is let go or its mixing is over. While all
places are taken offers wait, which cost a header each. A free place goes to this round's updates before later ones, then to the
neighbor that has waited longest since it last got one, then to the oldest offer. Later rounds get only the places that this
round can't need.
"""

from collections.abc import Callable, Iterable

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.slots import Arriving


class Room:
    """The places of one peer. What is sealed in one short piece rides along with its offer and takes none."""

    def __init__(self, places: int | None, senders: Callable[[], int]) -> None:
        """`places` None: as many as there are updates. `senders` says from how many neighbors a round may receive."""
        if places is not None and places < 1:
            raise ValueError("a peer without room for one update learns from nobody")
        self._places = places
        self._senders = senders
        self._taken: set[int] = set()
        self._turns: dict[PeerId, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._taken)

    def next(self, offered: Iterable[Arriving], is_later: Callable[[Arriving], bool]) -> Arriving | None:
        """Who of them gets a place now, and has it from now on."""
        if self._places is not None and len(self._taken) >= self._places:
            return None
        waiting, later_taken = [], 0
        for update in offered:
            if not update.credited:
                waiting.append(update)
            elif update.ticket in self._taken and is_later(update):
                later_taken += 1
        if self._places is not None and later_taken >= self._places - self._senders():
            waiting = [update for update in waiting if not is_later(update)]
        if not waiting:
            return None
        first = min(waiting, key=lambda update: (is_later(update), self._turns.get(update.sender, 0), update.ticket))
        self._turn += 1
        self._turns[first.sender] = self._turn
        self._taken.add(first.ticket)
        return first

    def has(self, update: Arriving) -> bool:
        return update.ticket in self._taken

    def leave(self, ticket: int) -> None:
        """Its place is free, if it had one."""
        self._taken.discard(ticket)
