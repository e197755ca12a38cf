"""How much of something is granted per second, and how much at once: a token bucket. It reads no clock; `now` is in seconds of
any clock that does not go back."""

from collections import OrderedDict
from collections.abc import Hashable


class Bucket:
    """Holds at most `burst` tokens and gains `rate` of them per second; full at first."""

    __slots__ = ("_burst", "_level", "_rate", "_since")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        assert rate > 0 and burst > 0
        self._rate, self._burst = rate, burst
        self._level, self._since = burst, now

    def take(self, amount: float, now: float) -> bool:
        """Whether `amount` is granted; nothing is taken where it is not. More than `burst` never is."""
        level = self.level(now)
        if amount > level:
            return False
        self._level, self._since = level - amount, max(now, self._since)
        return True

    def level(self, now: float) -> float:
        """The tokens there are now."""
        return min(self._burst, self._level + self._rate * max(0.0, now - self._since))


class Buckets:
    """One bucket per source, all alike, of at most `most` sources: the one that was asked for least recently is forgotten.

    Forgetting fills a bucket again, so that somebody with more than `most` sources gets past it: give what they all share,
    such as their /24, a bucket as well.
    """

    def __init__(self, rate: float, burst: float, most: int) -> None:
        assert most > 0
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def has(self, source: Hashable, amount: float, now: float) -> bool:
        """Whether `source` would be granted `amount` now."""
        bucket = self._buckets.get(source)
        return amount <= (self._burst if bucket is None else bucket.level(now))

    def take(self, source: Hashable, amount: float, now: float) -> bool:
        """Whether `source` is granted `amount` now."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        return bucket.take(amount, now)
