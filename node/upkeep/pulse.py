"""What a network process looks at now and then, by the clock of its own loop."""

import asyncio
from collections.abc import Callable

Beat = Callable[[float], None]
"""Called with how long, beyond the period, nothing could be done here: the machine slept, or we were stopped."""


class Pulse:
    """Calls `beat` every `period_s`; what it raises goes to the loop's exception handler."""

    def __init__(self, loop: asyncio.AbstractEventLoop, period_s: float, beat: Beat) -> None:
        self._loop = loop
        self._period_s = period_s
        self._beat = beat
        self._due = loop.time() + period_s
        self._timer = loop.call_at(self._due, self._ring)

    def close(self) -> None:
        self._timer.cancel()

    def _ring(self) -> None:
        now = self._loop.time()
        stalled_s, self._due = max(0.0, now - self._due), now + self._period_s
        self._timer = self._loop.call_at(self._due, self._ring)
        self._beat(stalled_s)
