"""The network process of one peer: `python -m node.network FD` reads its `Setup` there and runs until the peer is done.

No torch, numpy or networkx here: it is small, and training never delays it. It ends with its peer; when its owner says so at
the control socket (0); on SIGINT and SIGTERM, with a checkpoint (130 and 143; the second time at once); when it is no member
any more (6); and when whoever started it is gone.
"""

import asyncio
import os
import resource
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from node.gossiping import gossiping
from node.ground import Ground
from node.live import Live
from node.relaying import relaying
from node.setup import Setup, from_fd
from node.training.channel import LoopChannel
from node.transport.links import Links
from node.transport.ways import Ways
from p2pfl.answer import answer, refusal
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import Event, Started, StopRequested

STOP = "stop"  # what a parent says to end its node; all that it says


def main(setup: Setup) -> int:
    """Run the peer to its end; returns the exit code."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the secret keys
    return asyncio.run(Network(setup).run())


class Network:
    """The life of a network process, and the reasons for it to end."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._parent: LoopChannel | None = None
        self._live: Live | None = None
        self._ground: Ground | None = None
        self._early: list[Event] = []
        self._task: asyncio.Task[Any] | None = None
        self._exit_code: ExitCode | None = None
        self._failure: Failure | None = None
        self._bug: BaseException | None = None

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: self._crash(context))
        self._task = asyncio.current_task()
        for number, code in ((signal.SIGINT, ExitCode.INTERRUPTED), (signal.SIGTERM, ExitCode.TERMINATED)):
            loop.add_signal_handler(number, self._stop, code)
        if self._setup.parent_fd >= 0:
            end = socket.socket(fileno=self._setup.parent_fd)
            self._parent = LoopChannel(loop, end, lambda _stop: self._stop(ExitCode.OK), lambda: os._exit(ExitCode.OK))
        try:
            async with AsyncExitStack() as stack:
                say = self._say if self._parent is not None else None
                self._ground = ground = Ground(loop, self._setup, stack, say, lambda: self._stop(ExitCode.OK))
                links = await ground.open(stack, self._tell)
                self._live = live = await self._assembled(ground, links, stack)
                self._tell(Started())
                for event in self._early:
                    self._tell(event)
                await live.finished
            if self._failure is not None:
                raise self._failure
            if self._parent is None:
                self._say_end(live, ground.directory.model if live.has_left_model else None)
            self._say(("finished", live.counters()))
        except asyncio.CancelledError:
            if self._bug is not None:
                raise self._bug from None
            if self._failure is not None:
                return self._failed(self._failure)
        except Failure as failure:
            return self._failed(failure)
        return int(self._exit_code or ExitCode.OK)

    async def _assembled(self, ground: Ground, links: Links | Ways, stack: AsyncExitStack) -> Live:
        if self._setup.is_relay:
            assert isinstance(links, Links), "a relay has no tunnels of its own"
            return await relaying(ground, links, stack, self._end)
        return await gossiping(ground, links, stack, self._say, self._end)

    def _say_end(self, live: Live, model: Path | None) -> None:
        if self._setup.says_json:
            print(answer({"ended": live.last_words(), "model": str(model) if model is not None else None}), flush=True)
            return
        print(live.last_words(), file=sys.stderr, flush=True)
        if model is not None:
            print(f"model    {model}", flush=True)

    def _failed(self, failure: Failure) -> int:
        if self._setup.says_json:
            print(refusal(failure), flush=True)
        elif self._parent is None:
            print(f"p2pfl: {failure}", file=sys.stderr)
        self._say(("failed", failure.code, failure.message, failure.hint, int(failure.exit_code)))
        return int(failure.exit_code)

    def _tell(self, event: Event) -> None:
        if self._live is None:
            self._early.append(event)
        else:
            self._live.tell(event)

    def _say(self, message: tuple[Any, ...]) -> None:
        if self._parent is not None:
            self._parent.send(message)

    def _stop(self, code: ExitCode) -> None:
        if self._exit_code is not None:
            os._exit(code)
        self._exit_code = code
        if self._ground is not None:
            self._ground.upkeep.leaving()
        if self._live is not None:
            self._live.tell(StopRequested())
        elif self._task is not None:
            self._task.cancel()

    def _end(self, failure: Failure, may_part: bool) -> None:
        """It can't go on for this reason; where it may part, its checkpoint is kept first, and its good-bye said."""
        if self._failure is not None or self._exit_code is not None:
            return
        self._failure, self._exit_code = failure, failure.exit_code
        if self._ground is not None:
            self._ground.upkeep.leaving()
        if may_part and self._live is not None:
            self._live.tell(StopRequested())
        elif self._task is not None:
            self._task.cancel()

    def _crash(self, context: dict[str, Any]) -> None:
        """A broken invariant of ours: better gone, with the last checkpoint kept, than wrong."""
        self._bug = self._bug or context.get("exception") or AssertionError(context["message"])
        if self._task is not None:
            self._task.cancel()


if __name__ == "__main__":
    sys.exit(main(from_fd(int(sys.argv[1]))))
