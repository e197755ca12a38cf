import time
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from p2pfl import Task
from p2pfl.failure import Failure
from p2pfl.learning.learner import Learner, LearnerState, LearningFailed, state_from_arrays, state_to_arrays
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Arrived, Learn, Payload, PeerId
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from tests.quadratics import quadratic

torch.set_num_threads(1)

OWN, A, B = (PeerId(name * 32) for name in (b"m", b"a", b"z"))
CENTRE = np.array([[[1.0, 2.0]]])


def learner(task: Task | None = None, codec: str = "dense", max_abs: float = 1e6, **training: object) -> Learner:
    task = task or quadratic(np.ones((1, 1, 2)), CENTRE)
    sections = TrainingSection(**{"batch_size": 1, **training}), CodecSection(kind=codec), LimitsSection(max_abs=max_abs)  # type: ignore[arg-type]
    return Learner(OWN, task, TaskPeer(0, 1), *sections, seed=7)


def learn(
    arrived: Mapping[PeerId, object] = {},
    weights: Mapping[PeerId, float] = {},
    steps: int = 0,
    step: int = 0,
    evaluate: bool = False,
) -> Learn:
    def payload(values: object) -> bytes:
        return values if isinstance(values, bytes) else np.array(values, dtype="<f4").tobytes()

    updates = [Arrived(s, 0, 0, 0, 0, Payload(len(payload(v)), b"", memoryview(payload(v)))) for s, v in arrived.items()]
    return Learn(step, 0, tuple(updates), weights, steps, evaluate)


def test_it_mixes_and_then_trains() -> None:
    ours = learner(learning_rate=0.1)
    state, computed = ours.learn(ours.first(), learn({A: [4, 0], B: [0, 8]}, {A: 0.25, B: 0.5, OWN: 0.25}, steps=1))
    np.testing.assert_allclose(computed.mixed, [1, 4])
    np.testing.assert_allclose(state.vector, [1, 3.8])  # x - 0.1 (x - c)
    np.testing.assert_allclose(np.frombuffer(computed.payload, "<f4"), state.vector)
    assert computed.verdicts == ((A, None), (B, None))


def test_it_measures_the_mixed_vector_before_training() -> None:
    ours = learner()
    _, computed = ours.learn(ours.first(), learn(steps=1, evaluate=True))
    assert computed.metrics == {"loss": 2.5, "train_loss": 2.5}


def test_the_given_state_is_not_changed() -> None:
    ours = learner(momentum=0.9)
    first = ours.first()
    before = {name: array.copy() for name, array in state_to_arrays(first).items()}
    state, _ = ours.learn(first, learn({A: [4, 0]}, {A: 0.5}, steps=3))
    ours.learn(state, learn(steps=2, step=1))
    assert all(np.array_equal(array, before[name]) for name, array in state_to_arrays(first).items())
    assert first.momentum.tolist() == [0, 0] != state.momentum.tolist()


def test_the_order_of_arrival_does_not_matter() -> None:
    ours = learner()
    rows = {A: [1 / 3, 1e-3], B: [7.7, -3.3]}
    weights = {A: 0.3, B: 0.4}
    one = ours.learn(ours.first(), learn(rows, weights))[1]
    other = ours.learn(ours.first(), learn(dict(reversed(rows.items())), weights))[1]
    assert one.mixed.tobytes() == other.mixed.tobytes()


@pytest.mark.fault("another layout", "not finite", "too large")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ([0, np.nan], Reason.NON_FINITE),
        ([np.nan, np.nan], Reason.NON_FINITE),
        ([np.inf, 0], Reason.NON_FINITE),
        ([-np.inf, 0], Reason.NON_FINITE),
        ([1e38, 0], Reason.TOO_LARGE),
        ([1, 2, 3], Reason.WRONG_LENGTH),
        (b"", Reason.WRONG_LENGTH),
        (b"\x80\x04\x95.", Reason.WRONG_LENGTH),
    ],
)
def test_refused_content_adds_nothing_and_its_weight_goes_to_oneself(payload: object, reason: Reason) -> None:
    ours = learner()
    state, computed = ours.learn(ours.first(), learn({A: payload, B: [0, 8]}, {A: 0.5, B: 0.25}))
    assert computed.verdicts == ((A, reason.value), (B, None))
    assert computed.mixed.tolist() == [0, 2]
    state, computed = ours.learn(state, learn({A: [4, 2]}, {A: 0.5}))  # the next honest update is applied
    assert computed.mixed.tolist() == [2, 2]


@pytest.mark.fault("denormals")
def test_denormals_and_negative_zero_are_applied() -> None:
    ours = learner()
    _, computed = ours.learn(ours.first(), learn({A: [1e-40, -0.0]}, {A: 1.0}))
    assert computed.verdicts == ((A, None),)
    assert computed.mixed[0] == np.float32(1e-40)


@pytest.mark.fault("too large")
@pytest.mark.fault("denormals")
def test_denormals_take_at_most_twice_the_time_of_ordinary_values() -> None:
    """Mixing and one step of training; of each the quickest of some, in time of this process."""
    task = quadratic(np.ones((1, 1, 200_000)), np.zeros((1, 1, 200_000)))
    ordinary = np.random.default_rng(7).standard_normal(200_000).astype("<f4")

    def seconds(values: np.ndarray) -> float:
        ours, order, times = learner(task, learning_rate=0.1), learn({A: values.tobytes()}, {A: 0.5}, steps=1), []
        first = ours.first()
        for _ in range(7):
            began = time.process_time()
            ours.learn(first, order)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(ordinary * np.float32(1e-40)) < 2 * seconds(ordinary)


def test_a_sum_over_the_bound_keeps_the_old_vector_and_counts_nobody_as_applied() -> None:
    ours = learner(max_abs=3.4e38)
    first = ours.first()
    _, computed = ours.learn(first, learn({A: [3e38, 0], B: [3e38, 0]}, {A: 0.9, B: 0.9}))
    assert computed.verdicts == ((A, "too_large"), (B, "too_large"))
    assert computed.mixed.tolist() == first.vector.tolist()


@pytest.mark.fault("not finite", "trainer")
@pytest.mark.parametrize("codec", ["dense", "float16"])
def test_a_vector_that_is_not_finite_is_never_let_out(codec: str) -> None:
    ours = learner(codec=codec, learning_rate=1e9)
    with pytest.raises(LearningFailed, match="diverged"):
        ours.learn(ours.first(), learn(steps=6))


def test_a_vector_that_readers_would_refuse_is_not_let_out() -> None:
    ours = learner(learning_rate=1000.0, max_abs=100)
    with pytest.raises(LearningFailed, match="max_abs = 100"):
        ours.learn(ours.first(), learn(steps=1))
    ours = learner(codec="float16", learning_rate=60_000.0)
    with pytest.raises(LearningFailed, match="float16"):
        ours.learn(ours.first(), learn(steps=1))


def test_a_vector_that_can_not_be_encoded_is_mixed_with_nobodys() -> None:
    def far_out() -> torch.nn.Module:
        module = task.model()
        for parameter in module.parameters():
            torch.nn.init.constant_(parameter, 70_000.0)  # beyond float16
        return module

    task = quadratic(np.ones((1, 1, 2)), CENTRE)
    ours = learner(Task(model=far_out, data=task.data, train_step=task.train_step), codec="float16")
    honest = np.zeros(2, "<f2").tobytes()
    with pytest.raises(LearningFailed, match="70000 does not fit float16"):
        ours.learn(ours.first(), learn({A: honest}, {A: 0.5}))


def test_whatever_the_task_raises_is_one_line() -> None:
    def breaks(*_: object) -> torch.Tensor:
        raise ZeroDivisionError("by zero\nand more")

    task = quadratic(np.ones((1, 1, 2)), CENTRE)
    ours = learner(Task(model=task.model, data=task.data, train_step=breaks, evaluate=breaks))  # type: ignore[arg-type]
    for request in (learn(steps=1), learn(evaluate=True)):
        with pytest.raises(LearningFailed, match=r"raised ZeroDivisionError: by zero$"):
            ours.learn(ours.first(), request)


@pytest.mark.fault("another layout")
def test_length_and_schema_follow_from_the_task_and_the_codec() -> None:
    assert (learner().update_bytes, learner(codec="float16").update_bytes) == (8, 4)
    assert len({learner().schema, learner(codec="float16").schema}) == 2
    assert learner(learning_rate=0.5).schema == learner().schema


def digits(**training: object) -> Learner:
    return learner(resolve(TaskSection(name="digits"), DataSection(samples_per_peer=200), seed=7), **training)


def test_on_digits_it_counts_labels_and_gets_better() -> None:
    ours = digits(local_epochs=4, batch_size=8)
    assert ours.label_counts().sum() == ours.samples == 200
    assert ours.local_steps == 100
    state, before = ours.learn(ours.first(), learn(steps=ours.local_steps, evaluate=True))
    _, after = ours.learn(state, learn(step=1, evaluate=True))
    assert after.metrics["accuracy"] > 0.4 > before.metrics["accuracy"]
    assert after.metrics["loss"] < before.metrics["loss"]


def test_state_survives_arrays_and_goes_on_as_if_never_interrupted() -> None:
    ours = digits(momentum=0.9, learning_rate=0.01)
    state, _ = ours.learn(ours.first(), learn(steps=3))
    restored = state_from_arrays({k: v.copy() for k, v in state_to_arrays(state).items()}, like=ours.first())
    again, expected = (ours.learn(s, learn(steps=3, step=1))[0].vector for s in (restored, state))
    assert again.tobytes() == expected.tobytes()


@pytest.mark.fault("buffers")
def test_local_buffers_are_part_of_the_state() -> None:
    def module() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 10))

    task = resolve(TaskSection(name="digits"), DataSection(samples_per_peer=40), seed=7)
    ours = Learner(
        OWN, Task(module, task.data), TaskPeer(0, 1), TrainingSection(batch_size=4), CodecSection(), LimitsSection(), seed=7
    )
    state, _ = ours.learn(ours.first(), learn(steps=3))
    arrays = state_to_arrays(state)
    assert int(arrays["local.1.num_batches_tracked"]) == 3
    assert int(ours.first().local["1.num_batches_tracked"]) == 0
    assert int(state_from_arrays(arrays, like=ours.first()).local["1.num_batches_tracked"]) == 3


def test_a_checkpoint_of_another_task_is_refused() -> None:
    ours = learner()
    state = state_to_arrays(ours.first())
    wrong: list[tuple[dict[str, np.ndarray], str]] = [
        ({**state, "vector": np.zeros(3, np.float32)}, r"vector is float32 \[3\], the task needs float32 \[2\]"),
        ({**state, "vector": np.zeros(2)}, "float64"),
        ({**state, "extra": np.zeros(2)}, "extra"),
        ({"vector": state["vector"]}, "momentum is missing"),
        ({**state, "vector": np.full(2, np.nan, np.float32)}, "not finite"),
    ]
    for arrays, says in wrong:
        with pytest.raises(Failure, match=says):
            state_from_arrays(arrays, like=ours.first())


def test_two_learners_can_share_a_module() -> None:
    from p2pfl.learning.parameters import Model

    task = quadratic(np.ones((2, 1, 2)), np.array([[[1.0, 2.0]], [[-1.0, 0.0]]]))
    sections = TrainingSection(batch_size=1), CodecSection(), LimitsSection()

    def run(models: list[Model | None]) -> list[LearnerState]:
        learners = [Learner(OWN, task, TaskPeer(i, 2), *sections, seed=7, model=models[i]) for i in range(2)]
        states = [ours.first() for ours in learners]
        for step in range(3):
            states = [ours.learn(state, learn(steps=2, step=step))[0] for ours, state in zip(learners, states, strict=True)]
        return states

    shared = Model(task, 7)
    for one, other in zip(run([shared, shared]), run([None, None]), strict=True):
        assert np.array_equal(one.vector, other.vector)
