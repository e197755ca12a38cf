"""How many long updates may take memory at once, and whose turn it is.

An update takes its place when its first chunks are credited, and keeps it until it is let go or its mixing is over. While all
places are taken offers wait, which cost a header each. A free place goes to this round's updates before later ones, then to the
neighbor that has waited longest since it last got one, then to the oldest offer. Where there is a place for each neighbor, none
gets a second one that leaves too few for the others; where there are fewer, later rounds get none.
"""

from collections.abc import Callable, Iterable

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.slots import Arriving


class Room:
    """The places of one peer. What is sealed in one short piece rides along with its offer and takes none."""

    def __init__(self, places: int | None, senders: Callable[[], int]) -> None:
        """`places` None: as many as there are updates. `senders` says from how many neighbors this peer may receive."""
        if places is not None and places < 1:
            raise ValueError("a peer without room for one update learns from nobody")
        self._places = places
        self._senders = senders
        self._taken: dict[int, PeerId] = {}
        self._turns: dict[PeerId, int] = {}
        self._turn = 0

    def __len__(self) -> int:
        return len(self._taken)

    def next(self, offered: Iterable[Arriving], is_later: Callable[[Arriving], bool]) -> Arriving | None:
        """Who of them gets a place now, and has it from now on."""
        waiting = [u for u in offered if not u.credited and self._may_have_place(u.sender, is_later(u))]
        if not waiting:
            return None
        first = min(waiting, key=lambda update: (is_later(update), self._turns.get(update.sender, 0), update.ticket))
        self._turn += 1
        self._turns[first.sender] = self._turn
        self._taken[first.ticket] = first.sender
        return first

    def has(self, update: Arriving) -> bool:
        return update.ticket in self._taken

    def leave(self, ticket: int) -> None:
        """Its place is free, if it had one."""
        self._taken.pop(ticket, None)

    def forget(self, gone: Iterable[PeerId]) -> None:
        """These will wait for no more turns."""
        for sender in gone:
            self._turns.pop(sender, None)

    def _may_have_place(self, sender: PeerId, is_later: bool) -> bool:
        if self._places is None:
            return True
        free = self._places - len(self._taken)
        if self._places < self._senders():
            return free > 0 and not is_later
        holders = set(self._taken.values())
        reserved = max(0, self._senders() - len(holders))  # one for each neighbor that has none
        return free > (reserved if sender in holders else 0)
