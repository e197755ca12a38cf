"""The network process's side of its trainer: starts it, starts it again when it dies, and passes orders and answers.

Orders that come while there is no trainer wait for the next one. A peer whose trainer is gone stays a member that answers
everything else; it is `degraded`. A trainer that hangs is ended, and then is gone like any other.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from node import processes
from node.checkpoint import Checkpoints
from node.training.arena import Arena
from node.training.channel import LoopChannel
from node.training.orders import (
    Answer,
    FoldOrder,
    LearnOrder,
    Load,
    Order,
    Prepare,
    Ready,
    Save,
    Unready,
    UseArena,
    WriteModel,
    answer_from,
    to_message,
)
from node.training.trainer_watch import Bounds, TrainerWatch
from node.training.zygote import TRAINER
from p2pfl.failure import ExitCode, Failure

RESTART_S_MAX = 60.0  # the pause before another start doubles up to this
REAP_S = 0.05  # for a process whose channel has ended to be gone; the loop can't wait for torch to be taken down


@dataclass(frozen=True, slots=True)
class TrainerDied:
    """The trainer ended by itself; what it was doing is lost, and another one is started after a pause."""


class TrainerProcess:
    """`on_answer` gets every answer to a `FoldOrder`, `LearnOrder`, `Save` or `WriteModel`, and `TrainerDied`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        prepare: Prepare,
        zygote_fd: int,
        on_answer: Callable[[Answer | TrainerDied], None],
        on_ready: Callable[[Ready], None],
        on_degraded: Callable[[str], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._loop = loop
        self._prepare = prepare
        self._zygote = socket.socket(fileno=zygote_fd) if zygote_fd >= 0 else None
        self._on_answer = on_answer
        self._on_ready = on_ready
        self._on_degraded = on_degraded
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: LoopChannel | None = None
        self._reply: asyncio.Future[Answer] | None = None
        self._arena: Arena | None = None
        self._checkpoints: Checkpoints | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._waiting: list[FoldOrder | LearnOrder] = []
        self._watch = TrainerWatch(bounds or Bounds())
        self._pid: int | None = None  # of the one that is there now, once it has said so
        self._dying: list[subprocess.Popen[bytes]] = []
        self.trouble = ""
        """How the last one ended, in words, until another is up."""
        self.ready: Ready | None = None
        self.is_up = False
        self.restarts = 0
        self.delivered = 0  # answers to a Learn, of this life of the trainer, that reached the peer

    @property
    def pid(self) -> int | None:
        """Of the newest that was ready."""
        return self.ready.pid if self.ready is not None else None

    async def start(self) -> Ready:
        """The first start; raises the `Failure` that the trainer found in its task or data."""
        self.ready = await self._prepared()
        return self.ready

    async def equip(self, arena: Arena, checkpoints: Checkpoints) -> None:
        """Give it the arena and the newest checkpoint, now and after every restart. It takes orders from now on."""
        self._arena, self._checkpoints = arena, checkpoints
        await self._equipped()

    def order(self, order: FoldOrder | LearnOrder | Save | WriteModel) -> None:
        """A Fold or a Learn waits for a trainer; the others need what a dead trainer has lost, so they are ordered when one is
        up."""
        if self.is_up:
            self._send(order)
        else:
            assert isinstance(order, FoldOrder | LearnOrder)
            self._waiting.append(order)

    def check(self, stalled_s: float) -> None:
        """Called now and then: ends a trainer that hangs. `stalled_s` is for how long nobody here could do anything since."""
        self._dying = [process for process in self._dying if process.poll() is None]
        self._watch.forgive(stalled_s)
        hangs = self._watch.overdue(self._loop.time())
        if hangs and self._channel is not None:
            self._kill()
            self._channel.close()
            self._closed(hangs)

    def close(self) -> None:
        """Ends the trainer at once: whatever it is doing now, nobody waits for it."""
        if self._restarting is not None:
            self._restarting.cancel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._kill()
        for process in (*self._dying, *((self._process,) if self._process is not None else ())):
            process.kill()
            process.wait()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
        elif self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)

    async def _prepared(self) -> Ready:
        self._pid = None
        ours, theirs = socket.socketpair()
        with theirs:
            if self._zygote is not None:
                socket.send_fds(self._zygote, [TRAINER], [theirs.fileno()])
            else:
                self._process = processes.start("node.training.trainer", theirs.fileno())
        self._channel = LoopChannel(self._loop, ours, self._answer, self._closed)
        answer = await self._ask(self._prepare)
        assert isinstance(answer, Ready)
        self._pid = answer.pid
        return answer

    async def _equipped(self) -> None:
        assert self._arena is not None and self._checkpoints is not None and self._channel is not None
        self._channel.send(to_message(UseArena(self._arena.slot_bytes, self._arena.count)), self._arena.fd)
        newest = self._checkpoints.newest(lambda _damage: None)
        if newest is not None:
            await self._ask(Load(str(newest.arrays)))
        self.is_up = True
        self.trouble = ""
        self.delivered = 0
        assert self.ready is not None
        self._on_ready(self.ready)
        waiting, self._waiting = self._waiting, []
        for order in waiting:
            self._send(order)

    async def _ask(self, order: Order) -> Answer:
        self._reply = self._loop.create_future()
        self._send(order)
        answer = await self._reply
        self._reply = None
        if isinstance(answer, Unready):
            raise Failure(answer.code, answer.message, answer.hint, ExitCode(answer.exit_code))
        return answer

    def _send(self, order: Order) -> None:
        assert self._channel is not None
        if isinstance(order, FoldOrder | LearnOrder | Save | WriteModel):
            order = replace(order, delivered=self.delivered)
        self._watch.ordered(type(order).__name__, self._loop.time())
        self._channel.send(to_message(order))

    def _answer(self, message: Any) -> None:
        answer = answer_from(message)
        self._watch.answered(self._loop.time())
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(answer)
        else:
            self._on_answer(answer)

    def _closed(self, hangs: str = "") -> None:
        self._channel = None
        ended = self._ended()
        self.trouble = hangs or ended
        self._watch.ended()
        if self._reply is not None and not self._reply.done():
            message = f"Before it was ready {self.trouble}."
            self._reply.set_exception(Failure("trainer_died", message, "What it said is above.", ExitCode.BUG))
        elif self.is_up:
            self.is_up = False
            self._on_answer(TrainerDied())
            self._restarting = self._loop.create_task(self._restart())

    def _ended(self) -> str:
        """How it came to its end, in words."""
        process, self._process, self._pid = self._process, None, None
        if process is None:  # the zygote's child
            return "the trainer ended"
        try:
            code = process.wait(REAP_S)
        except subprocess.TimeoutExpired:
            process.kill()  # of no use to anybody now
            self._dying.append(process)
            return "the trainer ended"
        if code == -signal.SIGKILL:
            return "the trainer was killed (SIGKILL); most often memory has run out"
        return f"the trainer was ended by {signal.Signals(-code).name}" if code < 0 else f"the trainer ended with code {code}"

    async def _restart(self) -> None:
        pause = 0.5
        while not self.is_up:
            self._on_degraded(f"{self.trouble}; another is started in {pause:g} s")
            await asyncio.sleep(pause)
            pause = min(2 * pause, RESTART_S_MAX)
            self.restarts += 1
            try:
                self.ready = await self._prepared()
                await self._equipped()
            except Failure as failure:
                self.trouble = str(failure)
                if self._channel is not None:  # it lives, and can't be used
                    self._kill()
                    self._channel.close()
                    self._closed(self.trouble)
