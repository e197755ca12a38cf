"""How much a peer trusts its own sense of time (Lifeguard, L1).

A peer that is short of processor, asleep or cut off sees others fail. Each sign that the fault is its own makes it ask more
slowly and wait longer, up to `most` times; each answered probe takes one back.
"""


class Health:
    """0 is healthy; `most` - 1 is as bad as it gets."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.score = 0

    def worse(self, by: int = 1) -> None:
        """A probe failed, a helper was silent, a step failed, the loop came late, or others thought us dead."""
        self.score = min(self._most - 1, self.score + by)

    def better(self) -> None:
        """A probe was answered in time."""
        self.score = max(0, self.score - 1)

    def stretch(self, seconds: float) -> float:
        """An interval or a timeout, as long as this health makes it."""
        return seconds * (self.score + 1)
