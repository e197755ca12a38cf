"""What a network process does beside gossip, so that it can be left alone for months: it answers its owner, tells systemd that
it lives, ends a trainer that hangs, and looks after its memory."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.upkeep.control import Answers, Control
from node.upkeep.journal import Journal
from node.upkeep.limits import DESCRIPTORS, raise_descriptors
from node.upkeep.memory import give_back_freed, resident_bytes
from node.upkeep.memory_watch import RELAY_MARGIN, SETTLE_S, MemoryWatch, bound
from node.upkeep.metrics import MetricsPage
from node.upkeep.notify import Notifier
from node.upkeep.observation import Observation
from node.upkeep.pulse import Pulse

PERIOD_S = 0.25  # of looking at memory
LOOK_EVERY = 4  # periods between two looks at the rest
STARTING_S = 60  # more that systemd shall wait, from each look on


class Upkeep:
    """`leave` ends the node in peace."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, observation: Observation, journal: Journal, leave: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._observation = observation
        self._journal = journal
        self._leave = leave
        self._control: Control | None = None
        self._metrics: MetricsPage | None = None
        self._memory: MemoryWatch | None = None
        self._trimming: asyncio.TimerHandle | None = None
        self._notifier = Notifier()
        self._beats = 0
        self._stalled_s = 0.0
        self._pulse = Pulse(loop, PERIOD_S, self._beat)
        if (descriptors := raise_descriptors()) < DESCRIPTORS:
            journal.incident("few_descriptors", f"only {descriptors} files can be open, {DESCRIPTORS} are wanted: ulimit -n")

    async def open(self, path: Path, metrics_port: int, answers: Answers) -> None:
        """Open the control socket, with these answers beside our own; without it a node is hard to look into, and as good as
        any other. And where a port is given open the one for Prometheus. Raises `Failure` where that is impossible."""
        if metrics_port:
            self._metrics = MetricsPage(self._observation.snapshot)
            await self._metrics.start(metrics_port)
        control = Control(path, {"status": lambda _request: self._observation.snapshot(), "leave": self._left, **answers})
        try:
            await control.start()
        except OSError as error:
            self._journal.incident("no_control", f"{path}: {error.strerror or error}")
        else:
            self._control = control

    def relaying(self) -> None:
        """The same of one that has no model."""
        self._memory = MemoryWatch(resident_bytes(os.getpid()) + RELAY_MARGIN, self._cycle)
        self._look(0.0)

    def gossiping(self, arena_bytes: int, neighbors: int) -> None:
        """The node has all its parts: it is ready, and what it holds from now on is measured by what it holds now."""
        self._memory = MemoryWatch(bound(resident_bytes(os.getpid()), arena_bytes, neighbors), self._cycle)
        self._look(0.0)

    def close(self) -> None:
        self._pulse.close()
        if self._trimming is not None:
            self._trimming.cancel()
        if self._control is not None:
            self._control.close()
        if self._metrics is not None:
            self._metrics.close()
        self._notifier.close()

    def leaving(self) -> None:
        """Say so to whoever asks from now on."""
        self._observation.is_leaving = True
        self._notifier.tell(STOPPING=1, STATUS="leaving")

    def _left(self, _request: Any) -> Any:
        if not self._observation.is_leaving:
            self._loop.call_soon(self._leave)  # the answer first
        observation = self._observation
        return {
            "name": observation.name,
            "role": observation.work.role,
            "step": self._journal.newest_round.get("step", 0),
        }

    def _beat(self, stalled_s: float) -> None:
        if self._memory is not None:
            self._memory.saw(resident_bytes(os.getpid()), self._loop.time())
        self._stalled_s += stalled_s
        self._beats += 1
        if self._beats % LOOK_EVERY == 0:
            stalled_s, self._stalled_s = self._stalled_s, 0.0
            self._look(stalled_s)

    def _look(self, stalled_s: float) -> None:
        observation = self._observation
        observation.look_for_company()
        observation.work.check(stalled_s)
        status = f"{observation.state}, round {observation.step}"
        if observation.is_leaving:
            self._notifier.tell(WATCHDOG=1, STATUS=status)
        elif self._memory is not None:
            self._notifier.tell(READY=1, WATCHDOG=1, STATUS=status)
        else:  # data of one's own may take long to read; how long a trainer may take at most is its watch's to say
            self._notifier.tell(WATCHDOG=1, EXTEND_TIMEOUT_USEC=STARTING_S * 1_000_000, STATUS=status)

    def _cycle(self, held: int) -> None:
        assert self._observation.links is not None
        self._journal.incident("memory", f"{held >> 20} MiB are held; everybody who has dialled us is hung up on")
        self._observation.links.cycle_listener()
        self._trimming = self._loop.call_later(SETTLE_S / 2, give_back_freed)
