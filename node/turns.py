"""What drives a state machine on a real machine: every event goes in at one door, every effect that comes out is carried out in
order, and an alarm rings at its deadline."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from node.entropy import instant
from p2pfl.protocol.events import DeadlineReached, Event, Instant

E = TypeVar("E")


class Machine(Protocol[E]):
    """`peer.Peer`, or `relay.Relay`."""

    @property
    def deadline(self) -> float | None: ...
    def handle(self, event: Event, now: Instant) -> list[E]: ...


class Turns:
    """Of one machine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, machine: Machine[E], carry_out: Callable[[E], None]) -> None:
        self._loop = loop
        self._machine = machine

        def turn(event: Event) -> None:
            for effect in machine.handle(event, instant()):
                carry_out(effect)

        self._turn = turn
        self._events: deque[Event] = deque()
        self._is_handling = False
        self._alarm: asyncio.TimerHandle | None = None

    def tell(self, event: Event) -> None:
        """The door. An effect that is answered at once is answered after the effects that came with it."""
        self._events.append(event)
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                self._turn(self._events.popleft())
        finally:
            self._is_handling = False
        self._set_alarm()

    def close(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()

    def _set_alarm(self) -> None:
        deadline = self._machine.deadline
        if self._alarm is not None:
            if self._alarm.when() == deadline and not self._alarm.cancelled():
                return
            self._alarm.cancel()
        self._alarm = None if deadline is None else self._loop.call_at(deadline, self._alarm_rang)

    def _alarm_rang(self) -> None:
        self._alarm = None
        self.tell(DeadlineReached())
