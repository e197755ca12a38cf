"""Whether this machine's clock can be believed, by what members have signed.

A record holds its signer's clock at the moment it was signed. One that comes from a member we have been linked with for a while
was signed just now, so it tells how far apart the clocks are. Any other may be old: it only tells that its signer's clock was
there already, hence that ours is behind if it is ahead of us.
"""

from collections.abc import Iterable, Mapping
from statistics import median_low

from p2pfl.protocol.admission import clock
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.events import Instant, PeerId

LINKED_S = 10.0  # a record signed before this long ago came over the link already
WITNESSES_MIN = 3  # of fewer, one liar would be the lower median


class ClockWatch:
    """Told of links and records as they come."""

    def __init__(self) -> None:
        self._since: dict[PeerId, float] = {}
        self._seen: dict[PeerId, tuple[int, int]] = {}
        self._offsets: dict[PeerId, float] = {}
        self._signed: dict[PeerId, tuple[float, float]] = {}  # what its clock said, and when we saw that, monotonic

    def linked(self, peer: PeerId, now: float) -> None:
        self._since[peer] = now

    def unlinked(self, peer: PeerId) -> None:
        """What it said stays: clocks don't mend themselves when links break."""
        self._since.pop(peer, None)

    def look(self, records: Mapping[PeerId, Record], others: Iterable[PeerId], now: Instant) -> None:
        """What these members say by now; who is not among them is forgotten. Costs a look-up for each."""
        asked = tuple(others)
        for peer in asked:
            record = records.get(peer)
            version = (record.boot_epoch, record.incarnation) if record is not None else None
            if record is None or version is None or version == self._seen.get(peer):
                continue
            is_fresh = peer in self._seen and now.monotonic - self._since.get(peer, now.monotonic) >= LINKED_S
            self._seen[peer] = version
            self._signed[peer] = record.wall, now.monotonic
            offset = record.wall - now.wall
            self._offsets[peer] = offset if is_fresh else max(self._offsets.get(peer, 0.0), offset, 0.0)
        for gone in self._seen.keys() - set(asked):
            del self._seen[gone], self._offsets[gone], self._signed[gone]

    def is_off(self, wall: float) -> bool:
        """Whether our clock is more than an hour from the median of theirs."""
        return clock.is_off(wall, (wall + offset for offset in self._offsets.values()))

    def witnessed(self, now: Instant, is_behind: bool) -> float | None:
        """A moment that has come for certain, wall seconds: at least half of the neighbors had signed so, and no clock that is
        believed is further ahead than the hour that is taken off. None where there are fewer than three.

        Not later than an hour before our own clock, unless that one `is_behind` for certain: else a majority of liars could
        end all certificates here for good.
        """
        if len(self._signed) < WITNESSES_MIN:
            return None
        moment = median_low(wall + now.monotonic - seen for wall, seen in self._signed.values())
        return (moment if is_behind else min(moment, now.wall)) - clock.OFF_S
