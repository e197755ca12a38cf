"""What happens when: a heap ordered by (virtual time, priority, sequence), so that ties are broken the same way every time."""

import heapq
from collections.abc import Callable
from enum import IntEnum
from math import inf

Action = Callable[[], None]


class Priority(IntEnum):
    """At equal times a peer learns last: everything that could still arrive has arrived."""

    ORDINARY = 0
    LEARNING = 1


class Agenda:
    """Virtual time in seconds, from 0. Nothing passes but by `step`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._heap: list[tuple[float, Priority, int, Action]] = []
        self._sequence = 0

    def at(self, time: float, action: Action, priority: Priority = Priority.ORDINARY) -> None:
        """Plan an action; times in the past are an error of the engine's."""
        if time < self.now:
            raise AssertionError(f"planned at {time} for the past of {self.now}")
        heapq.heappush(self._heap, (time, priority, self._sequence, action))
        self._sequence += 1

    def step(self, until: float = inf) -> bool:
        """Go to the next planned action and do it; False when nothing is planned up to this time."""
        if not self._heap or self._heap[0][0] > until:
            return False
        self.now, _, _, action = heapq.heappop(self._heap)
        self.steps += 1
        action()
        return True
