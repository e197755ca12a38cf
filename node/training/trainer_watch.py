"""Whether a trainer hangs: an order that takes many times longer than any like it did before.

How long a Learn may take nobody knows beforehand: minutes on a small board, an hour for a large model. So the first of each
kind has very long, and the others have what was measured, with a wide margin. Pure: time is an argument.
"""

from collections import deque
from dataclasses import dataclass

REMEMBERED = 16  # durations of each kind


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds; an order hangs after max(`least_s`, `factor` times the longest remembered of its kind)."""

    first_s: float = 3600.0
    least_s: float = 120.0
    factor: float = 20.0


class TrainerWatch:
    """Orders are carried out one at a time, in the order they came."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._pending: deque[str] = deque()
        self._since = 0.0  # the first of them was begun
        self._took: dict[str, deque[float]] = {}

    def ordered(self, kind: str, now: float) -> None:
        if not self._pending:
            self._since = now
        self._pending.append(kind)

    def answered(self, now: float) -> None:
        kind = self._pending.popleft()
        self._took.setdefault(kind, deque(maxlen=REMEMBERED)).append(now - self._since)
        self._since = now

    def ended(self) -> None:
        """The trainer is gone, and with it what it was to do; how long things took is true of the next one too."""
        self._pending.clear()

    def forgive(self, seconds: float) -> None:
        """The whole machine, or we ourselves, stood still for so long."""
        self._since += seconds

    def overdue(self, now: float) -> str:
        """What hangs, in words; "" if nothing does."""
        if not self._pending:
            return ""
        kind, waited = self._pending[0], now - self._since
        bound = self._bound(kind)
        return (
            f"the trainer hangs: no answer to {kind} for {waited:.0f} s, expected within {bound:.0f} s"
            if waited > bound
            else ""
        )

    def _bound(self, kind: str) -> float:
        took = self._took.get(kind)
        return max(self._bounds.least_s, self._bounds.factor * max(took)) if took else self._bounds.first_s
