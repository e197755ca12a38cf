"""A trainer that hangs is told from one that takes its time and ended; another follows. How it ended is told in words."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from node import processes
from node.training import trainer_process
from node.training.arena import Arena
from node.training.orders import LearnAnswer, LearnOrder, Prepare
from node.training.trainer_process import TrainerDied, TrainerProcess
from node.training.trainer_watch import Bounds, TrainerWatch
from tests.loopback import LIMIT_S, on_loop
from tests.test_checkpoint import checkpoints

BOUNDS = Bounds(first_s=100.0, least_s=5.0, factor=10.0)


def test_of_the_first_order_of_its_kind_much_patience_is_had() -> None:
    watch = TrainerWatch(BOUNDS)
    watch.ordered("LearnOrder", 0.0)
    assert watch.overdue(100.0) == ""
    assert watch.overdue(100.5) == "the trainer hangs: no answer to LearnOrder for 100 s, expected within 100 s"


@pytest.mark.parametrize(("took", "bound"), [(0.1, 5.0), (0.5, 5.0), (2.0, 20.0), (60.0, 600.0)])
def test_later_ones_may_take_many_times_what_they_took_before(took: float, bound: float) -> None:
    watch = TrainerWatch(BOUNDS)
    watch.ordered("LearnOrder", 0.0)
    watch.answered(took)
    assert watch.overdue(1e9) == "", "nothing was ordered"
    watch.ordered("LearnOrder", 1000.0)
    assert (watch.overdue(1000.0 + bound), watch.overdue(1000.1 + bound)[:17]) == ("", "the trainer hangs")


def test_a_trainer_that_gets_slower_and_slower_is_followed() -> None:
    watch, now, took = TrainerWatch(BOUNDS), 0.0, 1.0
    for _ in range(30):
        watch.ordered("LearnOrder", now)
        assert watch.overdue(now + took) == ""
        now += took
        watch.answered(now)
        took *= 5


def test_the_clock_of_an_order_runs_from_the_answer_before_it() -> None:
    watch = TrainerWatch(BOUNDS)
    for kind in ("LearnOrder", "Save"):
        watch.ordered(kind, 0.0)
    watch.answered(90.0)
    assert watch.overdue(190.0) == "" and "Save" in watch.overdue(190.5)


@pytest.mark.fault("sleep")
def test_a_machine_that_slept_accuses_nobody() -> None:
    watch = TrainerWatch(BOUNDS)
    watch.ordered("LearnOrder", 0.0)
    watch.forgive(3600.0)
    assert watch.overdue(3650.0) == "" and watch.overdue(3701.0) != ""


def test_what_a_dead_trainer_was_to_do_is_not_expected_of_the_next() -> None:
    watch = TrainerWatch(BOUNDS)
    watch.ordered("LearnOrder", 0.0)
    watch.ended()
    assert watch.overdue(1e9) == ""


class Node:
    """The network process's side of a stuck trainer."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, bounds: Bounds) -> None:
        start = processes.start
        monkeypatch.setattr(trainer_process.processes, "start", lambda _module, fd: start("tests.stuck_trainer", fd))
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self.degraded: list[str] = []
        prepare = Prepare(b"p" * 32, 0, 1, str(directory), {}, {}, {}, {}, {}, 0, "", 0)
        self.trainer = TrainerProcess(
            *(asyncio.get_running_loop(), prepare, -1, self.heard.put_nowait),
            *(lambda ready: self.heard.put_nowait(ready.pid), self.degraded.append, bounds),
        )
        self._checkpoints = checkpoints(directory)

    async def start(self) -> int:
        """Its process id, when it has carried out a first Learn."""
        await self.trainer.start()
        await self.trainer.equip(Arena.create(8, 3), self._checkpoints)
        pid = await self.next()
        self.trainer.order(LearnOrder(0, (), (), 1, False, 0))
        assert isinstance(await self.next(), LearnAnswer)
        self.trainer.order(LearnOrder(1, (), (), 1, False, 0))
        return int(pid)

    async def next(self) -> Any:
        return await asyncio.wait_for(self.heard.get(), LIMIT_S)


@pytest.mark.fault("trainer")
@pytest.mark.net
@on_loop
async def test_a_trainer_that_hangs_is_killed_and_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node(tmp_path, monkeypatch, Bounds(first_s=LIMIT_S, least_s=0.0, factor=0.0))
    try:
        pid = await node.start()
        node.trainer.check(stalled_s=LIMIT_S)
        assert node.trainer.is_up, "the machine slept; the trainer had no time"
        node.trainer.check(stalled_s=-LIMIT_S)
        assert not node.trainer.is_up and isinstance(await node.next(), TrainerDied)
        assert node.trainer.trouble == "the trainer hangs: no answer to LearnOrder for 0 s, expected within 0 s"
        assert await node.next() not in (pid, 0)
        assert (node.trainer.is_up, node.trainer.restarts, node.trainer.trouble) == (True, 1, "")
        assert node.degraded == [
            "the trainer hangs: no answer to LearnOrder for 0 s, expected within 0 s; another is started in 0.5 s"
        ]
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    finally:
        node.trainer.close()


ENDS = {
    str(int(signal.SIGKILL)): "the trainer was killed (SIGKILL); most often memory has run out",
    str(int(signal.SIGSEGV)): "the trainer was ended by SIGSEGV",
    "c3": "the trainer ended with code 3",
}


@pytest.mark.fault("trainer")
@pytest.mark.net
@pytest.mark.parametrize("how", ENDS)
def test_how_a_trainer_ended_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    @on_loop
    async def run() -> None:
        (tmp_path / "end").write_text(how)
        node = Node(tmp_path, monkeypatch, BOUNDS)
        try:
            await node.start()
            assert isinstance(await node.next(), TrainerDied)
            assert node.trainer.trouble == ENDS[how]
        finally:
            node.trainer.close()

    run()
