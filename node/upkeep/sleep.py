"""Whether the machine was asleep."""

import time


class Sleep:
    """Counts how long the machine slept: its monotonic clock stands still meanwhile, and the one since boot does not. Where
    there is only one such clock, membership sees a gap in it by itself."""

    def __init__(self) -> None:
        self._slept = _slept()

    def since_last(self) -> float:
        """Seconds slept since this was last asked."""
        before, self._slept = self._slept, _slept()
        return self._slept - before


def _slept() -> float:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
