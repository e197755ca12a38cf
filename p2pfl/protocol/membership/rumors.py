"""What a peer has heard and its neighbors may not have: spread by riding along on the messages that go to them anyway.

Links are reliable while they last, so that a rumor goes once to each neighbor that has not told it itself, the least sent
first, and at most the limited number of times that SWIM took for datagrams; what a breaking link loses, push-pull brings. A
newer rumor under the same key replaces the older.
"""

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field

from p2pfl.protocol.events import PeerId

RUMORS_MAX = 4096  # at 600 bytes each 2.4 MB; beyond it the most-sent is dropped, and push-pull carries what it said
RUMOR_BYTES_MAX = 4096  # on one message


@dataclass(slots=True)
class _Rumor:
    item: bytes
    sent: int = 0
    told: set[PeerId] = field(default_factory=set)


class Rumors:
    """The queue. Keys are of the caller's making."""

    def __init__(self) -> None:
        self._rumors: dict[Hashable, _Rumor] = {}

    def __len__(self) -> int:
        return len(self._rumors)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._rumors

    def add(self, key: Hashable, item: bytes, heard_from: PeerId | None = None) -> None:
        """Spread `item` in place of what this key said before. Who told it needs not be told."""
        if len(self._rumors) >= RUMORS_MAX and key not in self._rumors:
            del self._rumors[max(self._rumors, key=lambda old: self._rumors[old].sent)]
        self._rumors.pop(key, None)
        self._rumors[key] = _Rumor(item, told={heard_from} if heard_from is not None else set())

    def heard(self, key: Hashable, item: bytes, hop: PeerId) -> None:
        """This neighbor tells it too, and needs not be told."""
        rumor = self._rumors.get(key)
        if rumor is not None and rumor.item == item:
            rumor.told.add(hop)

    def drop(self, key: Hashable) -> None:
        """It is not true any more."""
        self._rumors.pop(key, None)

    def take(self, to: PeerId, links: Collection[PeerId], limit: int, first: bytes = b"") -> bytes:
        """What rides along to this neighbor, at most `RUMOR_BYTES_MAX`, beginning with `first`. A rumor that all `links` know,
        or that was sent `limit` times, is forgotten."""
        for key in [key for key, rumor in self._rumors.items() if rumor.told.issuperset(links)]:
            del self._rumors[key]
        taken, size = [first], len(first)
        untold = [key for key, rumor in self._rumors.items() if to not in rumor.told]
        for key in sorted(untold, key=lambda key: self._rumors[key].sent):
            rumor = self._rumors[key]
            if size + len(rumor.item) > RUMOR_BYTES_MAX:
                continue
            taken.append(rumor.item)
            size += len(rumor.item)
            rumor.sent += 1
            rumor.told.add(to)
            if rumor.sent >= limit:
                del self._rumors[key]
        return b"".join(taken)
