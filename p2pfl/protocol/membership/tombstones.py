"""Who is gone: the dead, by our own verdict, and those who said that they leave.

A tombstone keeps stale records from bringing its member back. It is whole for a day, so that what proves it can be passed on,
then a stub of the version alone. There is a hard cap; those who left go before the dead, who might be looked for, and the
oldest first. Forgetting is safe: whoever comes back is learned again from its own signed record.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.standing import Standing, Version


@dataclass(slots=True)
class Tombstone:
    """`standing` is None in a stub. `since` is monotonic, in seconds."""

    version: Version
    since: float
    has_left: bool
    standing: Standing | None


class Tombstones:
    """All of them. Both tables are in the order of `since`."""

    def __init__(self) -> None:
        self._dead: dict[PeerId, Tombstone] = {}
        self._left: dict[PeerId, Tombstone] = {}

    def __len__(self) -> int:
        return len(self._dead) + len(self._left)

    @property
    def dead(self) -> list[PeerId]:
        """Those who may come back, the longest gone first."""
        return list(self._dead)

    def get(self, peer: PeerId) -> Tombstone | None:
        """Its tombstone, if it has one."""
        return self._dead.get(peer) or self._left.get(peer)

    def bury(self, peer: PeerId, standing: Standing, now: float) -> None:
        """It died or left; in place of an earlier tombstone."""
        self.remove(peer)
        has_left = standing.record.has_left
        table = self._left if has_left else self._dead
        table[peer] = Tombstone(standing.version, now, has_left, standing)

    def remove(self, peer: PeerId) -> None:
        """It came back, or its credential is over."""
        self._dead.pop(peer, None)
        self._left.pop(peer, None)

    def trim(self, most: int) -> None:
        """Forget the oldest beyond the cap."""
        while len(self) > most:
            table = self._left or self._dead
            del table[next(iter(table))]

    def shrink(self, before: float) -> None:
        """Those from before this moment become stubs."""
        for table in (self._left, self._dead):
            for stone in table.values():
                if stone.since >= before:
                    break
                stone.standing = None

    def retain(self, members: Iterable[PeerId]) -> None:
        """Forget those whose credentials are over: nobody accepts their records any more."""
        kept = set(members)
        for peer in [peer for table in (self._left, self._dead) for peer in table if peer not in kept]:
            self.remove(peer)
