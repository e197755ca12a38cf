"""The batched engine against closed forms, and against learners driven one by one."""

from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from p2pfl import Task
from p2pfl.failure import Failure
from p2pfl.learning.learner import Learner
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.protocol.events import Arrived, Learn, Payload, PeerId
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.batch import BatchOutcome, run_batch
from tests.quadratics import quadratic, random_quadratic
from topology import metropolis_weights, neighbor_weights, random_regular, ring

torch.set_num_threads(1)


def batched(
    task: Task, graph: nx.Graph | None, rounds: int, peers: int = 8, codec: str = "dense", **training: object
) -> BatchOutcome:
    weights = None if graph is None else neighbor_weights(graph)
    section = TrainingSection(**training)  # type: ignore[arg-type]
    return run_batch(task, peers, section, CodecSection(kind=codec), LimitsSection(), weights, rounds, seed=7)  # type: ignore[arg-type]


def one_by_one(task: Task, graph: nx.Graph, rounds: int, codec: str = "dense", **training: object) -> tuple[NDArray, NDArray]:
    """(accuracy [rounds + 1, peers], parameters [peers, D]) of real learners that hand each other their payloads."""
    peers, weights = len(graph), neighbor_weights(graph)
    ids = [PeerId(bytes([i]) * 32) for i in range(peers)]
    sections = TrainingSection(**training), CodecSection(kind=codec), LimitsSection()  # type: ignore[arg-type]
    learners = [Learner(ids[i], task, TaskPeer(i, peers), *sections, seed=7) for i in range(peers)]
    states, sent = [learner.first() for learner in learners], None
    accuracy = []
    for step in range(rounds + 1):
        computed = []
        for i, learner in enumerate(learners):
            arrived = [] if sent is None else [Arrived(ids[j], 0, 0, step - 1, 0, sent[j]) for j in weights[i] if j != i]
            shares = {ids[j]: weight for j, weight in weights[i].items()}
            steps = learner.local_steps if step < rounds else 0
            states[i], outcome = learner.learn(states[i], Learn(step, 0, tuple(arrived), shares, steps, True))
            computed.append(outcome)
        sent = [Payload(len(outcome.payload), b"", bytes(outcome.payload)) for outcome in computed]
        accuracy.append([outcome.metrics.get("accuracy", np.nan) for outcome in computed])
    return np.array(accuracy), np.stack([outcome.mixed for outcome in computed])


def fixed_point_of_adapt_then_combine(
    W: NDArray, curvatures: NDArray, centres: NDArray, learning_rate: float, steps: int
) -> NDArray:
    """x = W T(x) with T(x) = c + (1 - eta a)^K (x - c), solved coordinate by coordinate."""
    shrink = (1 - learning_rate * curvatures) ** steps
    solve = [
        np.linalg.solve(np.eye(len(W)) - W * shrink[:, k], W @ ((1 - shrink[:, k]) * centres[:, k]))
        for k in range(shrink.shape[1])
    ]
    return np.stack(solve, axis=1)


def fixed_point_of_combine_then_adapt(W: NDArray, curvatures: NDArray, centres: NDArray, learning_rate: float) -> NDArray:
    """x = W x - eta a (x - c)."""
    pull = learning_rate * curvatures
    solve = [
        np.linalg.solve(np.eye(len(W)) - W + np.diag(pull[:, k]), pull[:, k] * centres[:, k]) for k in range(pull.shape[1])
    ]
    return np.stack(solve, axis=1)


@pytest.mark.parametrize("graph", [ring(8), random_regular(4, 8, seed=1)], ids=["ring", "random regular"])
@pytest.mark.parametrize("steps", [1, 3])
def test_adapt_then_combine_reaches_the_fixed_point_of_its_equations(graph: nx.Graph, steps: int) -> None:
    a, c = random_quadratic(8, 5)
    outcome = batched(quadratic(a[:, None], c[:, None]), graph, rounds=200, learning_rate=0.1, batch_size=1, local_steps=steps)
    W = metropolis_weights(graph)
    np.testing.assert_allclose(outcome.parameters, fixed_point_of_adapt_then_combine(W, a, c, 0.1, steps), atol=2e-6)


def test_combining_first_would_have_another_fixed_point() -> None:
    a, c = random_quadratic(8, 5)
    W = metropolis_weights(ring(8))
    ours, other = fixed_point_of_adapt_then_combine(W, a, c, 0.1, 1), fixed_point_of_combine_then_adapt(W, a, c, 0.1)
    assert np.abs(ours - other).max() > 0.05


def test_alone_every_peer_reaches_its_own_optimum_and_knows_nobody_elses() -> None:
    a, c = random_quadratic(8, 5)
    outcome = batched(quadratic(a[:, None], c[:, None]), None, rounds=300, learning_rate=0.1, batch_size=1)
    np.testing.assert_allclose(outcome.parameters, c, atol=1e-5)


@pytest.mark.parametrize("partition", ["iid", "dirichlet:0.5"])
def test_learners_one_by_one_agree_with_the_batch_when_training(partition: str) -> None:
    task = resolve(TaskSection(name="digits"), DataSection(partition=partition), seed=7)
    accuracy, parameters = one_by_one(task, ring(8), rounds=6, batch_size=16)
    outcome = batched(task, ring(8), rounds=6, batch_size=16)
    difference = np.abs(parameters - outcome.parameters).max()
    print(f"largest difference between the engines after 6 rounds of training: {difference:.2g}")
    assert difference < 1e-4
    np.testing.assert_allclose(outcome.accuracy, accuracy, atol=0.004)
    assert outcome.fallback_reason is None


@pytest.mark.parametrize(("codec", "bound"), [("dense", 1e-6), ("float16", 1e-3)])
def test_learners_one_by_one_agree_with_the_batch_where_all_is_linear(codec: str, bound: float) -> None:
    a, c = random_quadratic(8, 50)
    task, settings = (
        quadratic(a[:, None], c[:, None]),
        {"learning_rate": 0.1, "local_steps": 1, "batch_size": 1, "momentum": 0.5},
    )
    _, parameters = one_by_one(task, ring(8), rounds=20, codec=codec, **settings)
    difference = np.abs(parameters - batched(task, ring(8), rounds=20, codec=codec, **settings).parameters).max()
    print(f"largest difference between the engines after 20 rounds of {codec}: {difference:.2g}")
    assert difference < bound


def test_with_nothing_to_learn_gossip_leaves_equal_peers_as_they_are() -> None:
    task = resolve(TaskSection(name="digits"), DataSection(), seed=7)
    outcome = batched(task, ring(8), rounds=5, local_steps=0)
    assert outcome.consensus_distance.tolist() == [0, *[pytest.approx(0, abs=1e-5)] * 5]
    first = Learner(b"", task, TaskPeer(0, 8), TrainingSection(), CodecSection(), LimitsSection(), seed=7).first().vector
    np.testing.assert_allclose(outcome.parameters, np.tile(first, (8, 1)), atol=1e-6)


def test_peers_with_fewer_steps_stop_earlier_and_keep_their_place() -> None:
    """Shares of the data differ several times over; rows of every result are still in the order of the peers."""
    task = resolve(TaskSection(name="digits"), DataSection(partition="quantity:0.5"), seed=3)
    accuracy, parameters = one_by_one(task, ring(8), rounds=2, batch_size=16)
    outcome = batched(task, ring(8), rounds=2, batch_size=16)
    assert outcome.samples.max() > 3 * outcome.samples.min()
    assert outcome.label_counts.sum(axis=1).tolist() == outcome.samples.tolist()
    assert np.abs(parameters - outcome.parameters).max() < 1e-4
    np.testing.assert_allclose(outcome.accuracy, accuracy, atol=0.004)


def test_more_peers_than_one_block_are_the_same_peers() -> None:
    a, c = random_quadratic(300, 2)
    task, graph = quadratic(a[:, None], c[:, None]), random_regular(4, 300, seed=1)
    outcome = batched(task, graph, rounds=120, peers=300, learning_rate=0.1, batch_size=1)
    expected = fixed_point_of_adapt_then_combine(metropolis_weights(graph), a, c, 0.1, 1)
    np.testing.assert_allclose(outcome.parameters, expected, atol=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_task_that_vmap_cannot_run_is_computed_one_by_one_and_says_so(momentum: float) -> None:
    def module() -> torch.nn.Module:
        return torch.nn.Sequential(
            torch.nn.Linear(64, 16), torch.nn.BatchNorm1d(16), torch.nn.Dropout(), torch.nn.Linear(16, 10)
        )

    task = replace(resolve(TaskSection(name="digits"), DataSection(partition="dirichlet:1"), seed=7), model=module)
    settings = {"momentum": momentum, "learning_rate": 0.05, "batch_size": 32}
    outcome = batched(task, ring(8), rounds=3, **settings)
    assert outcome.fallback_reason is not None
    _, parameters = one_by_one(task, ring(8), rounds=3, **settings)
    assert np.abs(parameters - outcome.parameters).max() < 1e-5


def test_peers_without_a_common_test_set_are_measured_on_their_own() -> None:
    task = replace(resolve(TaskSection(name="digits"), DataSection(partition="iid"), seed=7), common_test=None)
    own = replace(task, data=lambda peer: (task.data(peer)[0], task.data(peer)[0]))
    assert not np.allclose(batched(own, ring(8), rounds=1).accuracy[1], batched(task, ring(8), rounds=1).accuracy[1])


def test_only_every_kth_row_and_the_ends_are_measured() -> None:
    heard = []
    a, c = random_quadratic(4, 2)
    outcome = run_batch(
        quadratic(a[:, None], c[:, None]), 4, TrainingSection(batch_size=1), CodecSection(), LimitsSection(),
        neighbor_weights(ring(4)), rounds=7, seed=7, evaluate_every=3, on_round=lambda round, *_: heard.append(round),
    )  # fmt: skip
    assert heard == [0, 3, 6, 7]
    assert np.isfinite(outcome.loss).all(axis=1).nonzero()[0].tolist() == heard
    assert np.isfinite(outcome.consensus_distance).nonzero()[0].tolist() == heard


@pytest.mark.parametrize("codec", ["dense", "float16"])
def test_a_run_that_diverges_is_one_line_that_names_the_peer(codec: str) -> None:
    a, c = random_quadratic(4, 2)
    a[2] *= 1e4
    with pytest.raises(Failure, match=r"^Peer 2 diverged in round \d: .*training.learning_rate"):
        batched(quadratic(a[:, None], c[:, None]), ring(4), rounds=5, peers=4, codec=codec, batch_size=1)


def test_the_same_seed_gives_the_same_bits() -> None:
    task = resolve(TaskSection(name="digits"), DataSection(partition="dirichlet:0.5"), seed=7)
    one, other = (batched(task, ring(4), rounds=2, peers=4) for _ in range(2))
    assert one.parameters.tobytes() == other.parameters.tobytes()
