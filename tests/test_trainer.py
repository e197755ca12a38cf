"""The trainer carries out one order at a time, and its new state counts only once the peer has heard of it."""

import signal
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from node import processes
from node.training.arena import Arena
from node.training.channel import Channel, ChannelClosed, _framed
from node.training.orders import (
    FoldAnswer,
    FoldOrder,
    LearnAnswer,
    LearnOrder,
    LearnRefused,
    Load,
    Loaded,
    Prepare,
    Ready,
    Save,
    Saved,
    SaveFailed,
    Unready,
    UseArena,
    answer_from,
    order_from,
    to_message,
)
from node.training.trainer import Trainer
from p2pfl.protocol.envelope import digest

OWN, OTHER = b"a" * 32, b"b" * 32
PREPARE = Prepare(
    peer=OWN,
    index=0,
    count=4,
    data_directory="",
    task={"name": "digits", "model": "softmax"},
    data={},
    training={"batch_size": 8, "local_steps": 3},
    codec={},
    limits={},
    seed=7,
    record="",
    record_row_max=1 << 20,
)


class Bench:
    """A trainer, and the arena that it shares with us."""

    def __init__(self, prepare: Prepare = PREPARE) -> None:
        ours, theirs = socket.socketpair()
        channel = Channel(theirs)
        self.trainer = Trainer(channel)
        ready = self.trainer.carry_out(prepare)
        assert isinstance(ready, Ready)
        self.ready = ready
        self.arena = Arena.create(ready.update_bytes, 4)
        socket.send_fds(ours, [_framed(to_message(UseArena(self.arena.slot_bytes, 4)))], [self.arena.fd])
        self.trainer.carry_out(order_from(channel.receive()))
        ours.close(), theirs.close()

    def learn(self, step: int, delivered: int, arrived: tuple = (), local_steps: int = 3, **weights: float) -> LearnAnswer:  # type: ignore[type-arg]
        weighed = tuple((name.encode() * 32, weight) for name, weight in weights.items())
        answer = self.trainer.carry_out(LearnOrder(step, arrived, weighed, local_steps, True, 0, delivered))
        assert isinstance(answer, LearnAnswer)
        return answer

    def vector(self, slot: int = 0) -> np.ndarray:
        return np.frombuffer(self.arena.slot(slot).view[: self.ready.update_bytes], dtype=np.float32).copy()

    def put(self, slot: int, vector: np.ndarray) -> tuple[bytes, int, int, int, int]:
        """As an update that arrived from the other."""
        self.arena.slot(slot).view[: self.ready.update_bytes] = vector.astype(np.float32).tobytes()
        return OTHER, 0, 0, slot, self.ready.update_bytes


def test_it_says_what_the_charter_and_the_peer_need_to_know() -> None:
    ready = Bench().ready
    assert (ready.dimension, ready.update_bytes) == (650, 2600)
    assert ready.layout == (("weight", (10, 64)), ("bias", (10,))) or len(ready.layout) == 2
    assert (len(ready.schema), ready.local_steps, len(ready.labels)) == (32, 3, 10)
    assert sum(ready.label_counts) == ready.samples


def test_a_state_that_was_not_delivered_is_forgotten() -> None:
    bench = Bench()
    bench.learn(0, delivered=0)
    first = bench.vector()
    bench.learn(0, delivered=0)  # as after a step whose answer never reached the peer
    assert np.array_equal(bench.vector(), first)
    bench.learn(1, delivered=2)
    assert not np.array_equal(bench.vector(), first)


def test_mixing_takes_what_lies_in_the_slots() -> None:
    bench = Bench()
    bench.learn(0, delivered=0)
    own = bench.vector()
    update = bench.put(1, own + 1)
    answer = bench.learn(1, 1, (update,), local_steps=0, a=0.75, b=0.25)
    assert answer.verdicts == ((OTHER, None),)
    assert bench.vector() == pytest.approx(own + 0.25, abs=1e-6)


def fold(bench: Bench, ticket: int, slot: int, vector: np.ndarray, weight: float, delivered: int) -> object:
    *_, length = bench.put(slot, vector)
    return bench.trainer.carry_out(FoldOrder(ticket, bytes([ticket]) * 32, slot, length, weight, delivered))


def test_what_is_folded_slot_by_slot_is_what_is_mixed_at_once() -> None:
    """One slot serves for all of them, and the vector of the round before for the sum: after any number of rounds."""
    bench, at_once = Bench(), Bench()
    for one in (bench, at_once):
        one.learn(0, delivered=0)
    for step in (1, 2, 3):
        own = bench.vector()
        sent = [own + 1, own - 3]
        for ticket, vector in enumerate(sent, 1):
            assert fold(bench, ticket, 1, vector, 0.25, step) == FoldAnswer(ticket, None)
        order = LearnOrder(step, (), ((OWN, 0.5),), 3, True, 0, step, (b"\x01" * 32, b"\x02" * 32))
        answer = bench.trainer.carry_out(order)
        assert isinstance(answer, LearnAnswer) and [reason for _, reason in answer.verdicts] == [None, None]
        rows = tuple((bytes([ticket]) * 32, *at_once.put(ticket, vector)[1:]) for ticket, vector in enumerate(sent, 1))
        weights = tuple((bytes([ticket]) * 32, 0.25) for ticket in (1, 2))
        at_once.trainer.carry_out(LearnOrder(step, rows, weights, 3, True, 0, step))
        assert np.array_equal(bench.vector(), at_once.vector())


@pytest.mark.fault("not finite", "too large")
def test_content_that_is_refused_when_it_is_folded_changes_nothing_of_the_sum() -> None:
    bench = Bench()
    bench.learn(0, delivered=0)
    own = bench.vector()
    poisoned = own.copy()
    poisoned[-1] = np.inf
    assert fold(bench, 1, 1, own + 1, 0.25, 1) == FoldAnswer(1, None)
    assert fold(bench, 2, 1, poisoned, 0.25, 1) == FoldAnswer(2, "non_finite")
    answer = bench.trainer.carry_out(LearnOrder(1, (), ((OWN, 0.75),), 0, True, 0, 1, (b"\x01" * 32,)))
    assert isinstance(answer, LearnAnswer)
    assert bench.vector() == pytest.approx(own + 0.25, abs=1e-6)


@pytest.mark.fault("trainer")
def test_a_trainer_that_has_not_what_was_folded_refuses_to_learn_without_it() -> None:
    """Another died with it. What the peer has counted as mixed is never left out in silence."""
    bench = Bench()
    bench.learn(0, delivered=0)
    answer = bench.trainer.carry_out(LearnOrder(1, (), ((OWN, 1.0),), 0, True, 0, 1, (OTHER,)))
    assert answer == LearnRefused(1, "what was folded before is not here any more")
    bench.learn(1, delivered=1)  # and it goes on


@pytest.mark.fault("not finite", "too large")
@pytest.mark.parametrize(("value", "reason"), [(np.nan, "non_finite"), (np.inf, "non_finite"), (1e38, "too_large")])
def test_bad_content_is_a_verdict_and_leaves_the_model_as_it_was(value: float, reason: str) -> None:
    bench = Bench()
    bench.learn(0, delivered=0)
    own = bench.vector()
    poisoned = own.copy()
    poisoned[-1] = value
    answer = bench.learn(1, 1, (bench.put(1, poisoned),), local_steps=0, a=0.5, b=0.5)
    assert answer.verdicts == ((OTHER, reason),)
    assert np.array_equal(bench.vector(), own)


def test_a_saved_state_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    bench, path = Bench(), str(tmp_path / "arrays.safetensors")
    bench.learn(0, delivered=0)
    saved = bench.trainer.carry_out(Save(path, delivered=1))
    assert saved == Saved(path, digest(Path(path).read_bytes()))
    bench.learn(1, delivered=1)
    again = Bench()
    assert again.trainer.carry_out(Load(path)) == Loaded()
    again.learn(1, delivered=0)
    assert np.array_equal(again.vector(), bench.vector())


@pytest.mark.fault("full disk")
def test_a_disk_that_refuses_is_an_answer_and_training_goes_on(tmp_path: Path) -> None:
    bench = Bench()
    bench.learn(0, delivered=0)
    failed = bench.trainer.carry_out(Save(str(tmp_path / "nowhere" / "arrays"), delivered=1))
    assert isinstance(failed, SaveFailed)
    bench.learn(1, delivered=1)


def test_every_mixed_vector_is_recorded_and_of_long_ones_the_newest(tmp_path: Path) -> None:
    for row_max, rows in ((650 * 4, 3), (650 * 4 - 1, 1)):
        record = tmp_path / str(row_max)
        bench = Bench(replace(PREPARE, record=str(record), record_row_max=row_max))
        for step in range(3):
            bench.learn(step, delivered=step, local_steps=3 if step < 2 else 0)
        vectors = np.fromfile(record, dtype=np.float32).reshape(rows, 650)
        assert np.array_equal(vectors[-1], bench.vector())  # nothing was trained after the last mix


@pytest.mark.parametrize(
    "task", [{"name": "digist"}, {"name": "digits", "model": "gpt"}, {"name": "nowhere.py:task"}, {"name": "raises.py:task"}]
)
def test_a_task_that_can_not_be_is_a_failure_for_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: dict[str, str]
) -> None:
    (tmp_path / "raises.py").write_text("import p2pfl\ntask = p2pfl.Task(model=lambda: 1 / 0, data=lambda peer: ([], []))\n")
    monkeypatch.chdir(tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        answer = Trainer(Channel(theirs)).carry_out(replace(PREPARE, task=task))
    assert isinstance(answer, Unready)
    assert answer.message and "\n" not in answer.message


def test_a_model_that_can_be_made_only_once_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = "import p2pfl, torch\nx = torch.ones(4, 1)\nmodels = [torch.nn.Linear(1, 1)]\n"
    (tmp_path / "once.py").write_text(once + "task = p2pfl.Task(model=models.pop, data=lambda peer: ((x, x), (x, x)))\n")
    monkeypatch.chdir(tmp_path)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        order = replace(PREPARE, task={"name": "once.py:task"}, training={"initial": "own"})
        answer = Trainer(Channel(theirs)).carry_out(order)
    assert isinstance(answer, Unready)
    assert "IndexError" in answer.message and "\n" not in answer.message


def test_its_process_leaves_signals_to_the_network_process_and_ends_with_its_channel() -> None:
    ours, theirs = socket.socketpair()
    process = processes.start("node.training.trainer", theirs.fileno())
    theirs.close()
    channel = Channel(ours)
    channel.send(to_message(PREPARE))
    assert isinstance(answer_from(channel.receive()), Ready)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    channel.send(to_message(PREPARE))
    assert isinstance(answer_from(channel.receive()), Ready)
    channel.close()
    assert process.wait(timeout=30) == 0


def test_a_trainer_that_is_killed_is_the_end_of_its_channel() -> None:
    ours, theirs = socket.socketpair()
    process = processes.start("node.training.trainer", theirs.fileno())
    theirs.close()
    process.kill()
    with pytest.raises(ChannelClosed):
        Channel(ours).receive()
    process.wait()
    ours.close()
