"""What a peer has heard and its neighbors may not have: spread by riding along on the messages that go to them anyway.

Every rumor is sent a limited number of times, first to the neighbors that were not told and did not tell it; the least sent
goes first. A newer rumor under the same key replaces the older.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

from p2pfl.protocol.events import PeerId

RUMORS_MAX = 4096  # at 600 bytes each 2.4 MB; beyond it the most-sent is dropped, and push-pull carries what it said
RUMOR_BYTES_MAX = 4096  # on one message


@dataclass(slots=True)
class _Rumor:
    item: bytes
    sent: int = 0
    told: dict[PeerId, int] = field(default_factory=dict)


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
        self._rumors[key] = _Rumor(item, told={heard_from: 1} if heard_from is not None else {})

    def drop(self, key: Hashable) -> None:
        """It is not true any more."""
        self._rumors.pop(key, None)

    def take(self, to: PeerId, limit: int, first: bytes = b"") -> bytes:
        """What rides along to this neighbor, at most `RUMOR_BYTES_MAX`, beginning with `first`. A rumor that was sent `limit`
        times is forgotten."""
        taken, size = [first], len(first)
        for key in sorted(self._rumors, key=lambda key: self._order(key, to)):
            rumor = self._rumors[key]
            if size + len(rumor.item) > RUMOR_BYTES_MAX:
                continue
            taken.append(rumor.item)
            size += len(rumor.item)
            rumor.sent += 1
            rumor.told[to] = rumor.told.get(to, 0) + 1
            if rumor.sent >= limit:
                del self._rumors[key]
        return b"".join(taken)

    def _order(self, key: Hashable, to: PeerId) -> tuple[int, int]:
        rumor = self._rumors[key]
        return rumor.told.get(to, 0), rumor.sent
