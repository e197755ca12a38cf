"""What a peer says of itself: one signed record, made anew when its neighbors change or somebody thinks it dead."""

from collections.abc import Callable

from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.events import Instant, PeerId
from p2pfl.protocol.membership.census import Census
from p2pfl.protocol.membership.standing import Version, version_of

Author = Callable[[int, tuple[PeerId, ...], bool, float], Record]
"""(incarnation, neighbors, has left, wall seconds) to one's own signed record of this boot."""


class SelfStatement:
    """One's own record. Its incarnation only grows."""

    def __init__(self, author: Author, census: Census, neighbors: tuple[PeerId, ...], now: Instant) -> None:
        self._author, self._census, self._neighbors = author, census, neighbors
        self._stated_at = now.monotonic
        self._refutes = False
        self.due = float("inf")
        self.has_left = False
        self.record = self._state(0, now)

    @property
    def version(self) -> Version:
        return version_of(self.record)

    def watches(self, neighbors: tuple[PeerId, ...], now: float) -> None:
        """Whom the overlay gives us; said soon, so that several changes are one record."""
        self._neighbors = neighbors
        if set(neighbors) != set(self.record.neighbors):
            self.due = min(self.due, max(now, self._stated_at + self._census.rules.restate_s))

    def accused(self, now: float, is_by_neighbor: bool) -> bool:
        """Somebody thinks us dead. True where a new record will say otherwise: at most one per probe interval, so that a liar
        can't make us talk all day; and where no neighbor says so, whom few can believe, at most two per shortest suspicion, so
        that one liar can't make everybody talk to everybody. Whoever accuses us at an old record has not heard the new one."""
        if self.has_left:
            return False
        rules = self._census.rules
        shortest, _ = rules.suspicion_s(len(self._census.view))
        pace = rules.probe_interval_s if is_by_neighbor else max(rules.probe_interval_s, shortest / 2)
        is_first, self._refutes = not self._refutes, True
        self.due = min(self.due, max(now, self._stated_at + pace))
        return is_first

    def restate(self, now: Instant) -> bool:
        """Make the new record, if one is due."""
        if now.monotonic < self.due:
            return False
        self.due = float("inf")
        if self._refutes or set(self._neighbors) != set(self.record.neighbors):
            self._refutes = False
            self.record = self._state(self.record.incarnation + 1, now)
            return True
        return False

    def leave(self, now: Instant) -> None:
        """The last record of this boot."""
        self.has_left = True
        self.due = float("inf")
        self.record = self._state(self.record.incarnation + 1, now)

    def _state(self, incarnation: int, now: Instant) -> Record:
        record = self._author(incarnation, self._neighbors, self.has_left, now.wall)
        self._stated_at = now.monotonic
        self._census.registry.learn_record(record, now.wall)
        self._census.enter(record)
        self._census.spread(record, None, with_credential=incarnation == 0)
        return record
