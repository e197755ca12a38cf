"""Learners that are computed as one array give what each gives by itself."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from p2pfl import Task
from p2pfl.learning.learner import Computed, Learner, LearnerState, LearningFailed
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.learning.together import Assignment, Outcome, learn_together, why_not
from p2pfl.protocol.events import Arrived, Learn, Payload, PeerId
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.together import Together

torch.set_num_threads(1)

PEERS = 6
IDS = [PeerId(bytes([i]) * 32) for i in range(PEERS)]


def digits() -> Task:
    return resolve(TaskSection(name="digits"), DataSection(partition="dirichlet:0.5"), 7, lambda name: None)  # type: ignore[arg-type, return-value]


def learners(task: Task, **training: object) -> list[Learner]:
    model = Model(task, 7)
    sections = TrainingSection(**training), CodecSection(), LimitsSection()  # type: ignore[arg-type]
    return [Learner(IDS[i], task, TaskPeer(i, PEERS), *sections, seed=7, model=model) for i in range(PEERS)]


def request(step: int, sent: Mapping[PeerId, bytes], local_steps: int) -> Learn:
    arrived = tuple(Arrived(peer, 1, step, step, 0, Payload(len(sent[peer]), b"", sent[peer])) for peer in sorted(sent))
    return Learn(step, 0, arrived, dict.fromkeys(IDS, 1 / PEERS), local_steps, evaluate=True)


def ran(ours: list[Learner], is_joint: bool, rounds: int = 3) -> list[tuple[LearnerState, Computed]]:
    """Everybody mixes with everybody, `rounds` times."""
    outcomes: list[tuple[LearnerState, Computed]] = []
    states, sent = [learner.first() for learner in ours], dict[PeerId, bytes]()
    for step in range(rounds):
        tasks = [
            Assignment(learner, state, request(step, sent, learner.local_steps))
            for learner, state in zip(ours, states, strict=True)
        ]
        found = learn_together(tasks) if is_joint else [one.learner.learn(one.state, one.request) for one in tasks]
        outcomes = [outcome for outcome in found if not isinstance(outcome, LearningFailed)]
        states = [state for state, _ in outcomes]
        sent = {peer: bytes(computed.payload) for peer, (_, computed) in zip(IDS, outcomes, strict=True)}
    return outcomes


def close(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return bool(np.abs(one - other).max() <= 1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_together_they_learn_what_each_learns_by_itself(momentum: float) -> None:
    """Unequal data, so unequal local steps; with evaluation, mixing and momentum."""
    ours = learners(digits(), local_epochs=1, batch_size=32, learning_rate=0.05, momentum=momentum, weight_decay=1e-3)
    assert len({learner.local_steps for learner in ours}) > 1
    for (state, computed), (alone, by_itself) in zip(ran(ours, True), ran(ours, False), strict=True):
        assert close(state.vector, alone.vector)
        assert close(computed.mixed, by_itself.mixed)
        assert state.momentum.shape == alone.momentum.shape
        assert computed.verdicts == by_itself.verdicts
        assert computed.metrics.keys() == by_itself.metrics.keys()
        assert all(abs(computed.metrics[name] - by_itself.metrics[name]) <= 1e-3 for name in computed.metrics)


def test_a_state_is_not_a_view_into_everybodys() -> None:
    """Else one peer that is away would keep all vectors of its last round."""
    for state, _ in ran(learners(digits(), local_steps=1), True, rounds=1):
        assert state.vector.base is None or state.vector.base.size == state.vector.size


def test_what_diverges_is_only_its_own_failure() -> None:
    ours = learners(digits(), local_steps=1)
    states = [learner.first() for learner in ours]
    states[2] = LearnerState(np.full_like(states[2].vector, 1e30), states[2].momentum, states[2].local, states[2].codec)
    tasks = [Assignment(learner, state, request(0, {}, 1)) for learner, state in zip(ours, states, strict=True)]
    assert [isinstance(outcome, LearningFailed) for outcome in learn_together(tasks)] == [False, False, True, *[False] * 3]


def test_what_vmap_cannot_run_is_computed_one_by_one_and_says_why() -> None:
    def step(module: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(module(inputs), targets)
        return loss if loss.item() > 0 else loss * 2

    plain = digits()
    ours = learners(Task(plain.model, plain.data, train_step=step, common_test=plain.common_test), local_steps=2)
    reason = why_not(ours[0])
    together = Together(ours[0], len(ours))
    assert reason is not None and together.fallback_reason == reason
    for i, learner in enumerate(ours):
        together.ask(i, learner, learner.first(), request(0, {}, 2))
    state, _ = together.answer(3)
    assert np.array_equal(state.vector, ours[3].learn(ours[3].first(), request(0, {}, 2))[0].vector)


def test_nothing_is_computed_before_the_first_answer_is_due_and_then_everything_that_is_pending() -> None:
    ours = learners(digits(), local_steps=1)
    calls: list[int] = []
    for learner in ours:

        def begin(*arguments: object, one: Learner = learner) -> object:
            calls.append(IDS.index(PeerId(one.own_id)))
            return Learner.begin(one, *arguments)  # type: ignore[arg-type]

        learner.begin = begin  # type: ignore[method-assign, assignment]
    together = Together(ours[0], len(ours))
    for i, learner in enumerate(ours):
        together.ask(i, learner, learner.first(), request(0, {}, 1))
    together.forget(4)
    assert calls == []
    together.answer(5)
    assert sorted(calls) == [0, 1, 2, 3, 5]
    together.answer(0)
    assert len(calls) == 5


def test_where_not_everybody_is_pending_a_power_of_two_is_computed_and_the_last_who_asked_wait() -> None:
    ours = learners(digits(), local_steps=1)
    asked = len(ours) * 2
    together = Together(ours[0], asked + 1)
    sizes: list[int] = []
    compute = together._compute

    def counted(assignments: list[Assignment]) -> list[Outcome]:
        sizes.append(len(assignments))
        return compute(assignments)

    together._compute = counted  # type: ignore[assignment]
    for i in range(asked):
        together.ask(i, ours[i % len(ours)], ours[i % len(ours)].first(), request(0, {}, 1))
    vectors = [together.answer(i)[0].vector for i in [asked - 1, *range(asked - 1)]]
    assert sizes == [8, asked - 8]
    for vector, i in zip(vectors, [asked - 1, *range(asked - 1)], strict=True):
        alone = ours[i % len(ours)]
        assert np.allclose(vector, alone.learn(alone.first(), request(0, {}, 1))[0].vector, atol=1e-6)
