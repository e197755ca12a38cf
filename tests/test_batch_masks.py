"""What is missing in a round of the batched engine, against closed forms and against learners that miss the same."""

from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from p2pfl import Task
from p2pfl.learning.learner import Learner
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.protocol.events import Arrived, Learn, Payload, PeerId
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.batch import BatchOutcome, run_batch
from sim.masks import Cut, Masks, one_way, partition
from tests.quadratics import quadratic, random_quadratic
from topology import metropolis_weights, neighbor_weights, one_peer_hypercube, random_matching, random_regular, ring

torch.set_num_threads(1)


class Normal(torch.nn.Module):
    """A vector that begins anywhere."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.randn(dimension))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.x


def gossip(weights: Any, peers: int, rounds: int, masks: Masks | None = None, dimension: int = 4) -> BatchOutcome:
    """Every peer starts from a vector of its own, and nobody trains."""
    row = torch.zeros(1, dimension), torch.zeros(1)
    task = Task(lambda: Normal(dimension), lambda peer: (row, row), common_test=lambda: row, loss=torch.nn.functional.mse_loss)
    training = TrainingSection(local_steps=0, initial="own")
    return run_batch(
        task, peers, training, CodecSection(), LimitsSection(), weights, rounds, seed=7, evaluate_every=rounds, masks=masks
    )


def beginning(peers: int, dimension: int = 4) -> NDArray[np.float32]:
    return gossip(None, peers, 1, dimension=dimension).parameters


def learners(
    task: Task, graph: "nx.Graph[Any]", rounds: int, masks: Masks, **training: Any
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """(accuracy [rounds + 1, peers], parameters) of real learners, who carry out a `Learn` only when they are up."""
    peers, weights = len(graph), neighbor_weights(graph)
    ids = [PeerId(bytes([i]) * 32) for i in range(peers)]
    senders, receivers = np.array([(j, i) for i in range(peers) for j in sorted(weights[i]) if j != i]).T
    sections = TrainingSection(**training), CodecSection(), LimitsSection()
    made = [Learner(ids[i], task, TaskPeer(i, peers), *sections, seed=7) for i in range(peers)]
    states, mixed = [one.first() for one in made], np.stack([one.first().vector for one in made])
    accuracy, sent = np.full((rounds + 1, peers), np.nan), [b""] * peers
    for step in range(rounds + 1):
        arrived: list[list[Arrived]] = [[] for _ in range(peers)]
        if step:
            arrives = masks.arrives(step - 1, senders, receivers, peers, 7)
            for j, i in zip(senders[arrives].tolist(), receivers[arrives].tolist(), strict=True):
                arrived[i].append(Arrived(ids[j], 0, 0, step - 1, 0, Payload(len(sent[j]), b"", sent[j])))
        for i in np.flatnonzero(masks.up(step, peers)).tolist():
            shares = {ids[j]: weight for j, weight in weights[i].items()}
            steps = made[i].local_steps if step < rounds else 0
            states[i], outcome = made[i].learn(states[i], Learn(step, 0, tuple(arrived[i]), shares, steps, True))
            sent[i], accuracy[step, i] = bytes(outcome.payload), outcome.metrics.get("accuracy", np.nan)
            mixed[i] = states[i].vector
    return accuracy, mixed


def some_away(rounds: int, peers: int, share: float = 0.3) -> NDArray[np.bool_]:
    return np.random.default_rng(1).random((rounds, peers)) < share


def test_whoever_is_the_only_one_up_learns_alone_and_all_others_stay_where_they_began() -> None:
    a, c = random_quadratic(6, 3)
    away = np.ones((20, 6), dtype=bool)
    away[:, 2] = False
    outcome = run_batch(
        quadratic(a[:, None], c[:, None]), 6, TrainingSection(learning_rate=0.1, batch_size=1), CodecSection(),
        LimitsSection(), neighbor_weights(ring(6)), rounds=20, seed=7, masks=Masks(away),
    )  # fmt: skip
    expected = np.zeros((6, 3))
    expected[2] = c[2] * (1 - (1 - 0.1 * a[2]) ** 20)
    np.testing.assert_allclose(outcome.parameters, expected, atol=1e-6)
    assert np.isnan(np.delete(outcome.loss, 2, axis=1)).all()
    assert np.isfinite(outcome.loss[:, 2]).all()
    np.testing.assert_allclose(outcome.consensus_distance, 0)  # of one


def test_rounds_without_anybody_are_measured_as_nothing() -> None:
    away = np.zeros((4, 6), dtype=bool)
    away[2] = True
    outcome = gossip(neighbor_weights(ring(6)), 6, 4, Masks(away))
    still = gossip(neighbor_weights(ring(6)), 6, 2)  # mixes after rounds 0 and 3; nobody takes or gives in round 2
    np.testing.assert_allclose(outcome.parameters, still.parameters, atol=1e-6)


@pytest.mark.parametrize("masks", [Masks(some_away(6, 8)), Masks(loss=0.4), Masks(some_away(6, 8, 0.5), loss=0.2)],
                         ids=["churn", "loss", "both"])  # fmt: skip
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_learners_that_miss_the_same_agree_to_1e4(masks: Masks, momentum: float) -> None:
    """A peer that comes back takes what its neighbors have just sent; a missing update's weight goes to the peer itself."""
    task = resolve(TaskSection(name="digits"), DataSection(partition="dirichlet:0.5"), seed=7)
    settings: dict[str, Any] = {"batch_size": 16, "momentum": momentum, "learning_rate": 0.05}
    graph = random_regular(4, 8, seed=1)
    accuracy, parameters = learners(task, graph, 6, masks, **settings)
    outcome = run_batch(
        task, 8, TrainingSection(**settings), CodecSection(), LimitsSection(), neighbor_weights(graph), 6, seed=7, masks=masks
    )
    assert np.abs(parameters - outcome.parameters).max() < 1e-4
    np.testing.assert_array_equal(np.isnan(outcome.accuracy), np.isnan(accuracy))
    np.testing.assert_allclose(outcome.accuracy, accuracy, atol=0.004)


@pytest.mark.parametrize("loss", [0.0, 0.3, 0.7])
def test_losses_slow_the_contraction_by_what_their_probability_says(loss: float) -> None:
    """On a ring x_i' = x_i + sum over two neighbors of b/3 (x_j - x_i), b = 1 with probability q. Of independent vectors of
    unit variance, E x_i'^2 = E(1 - B/3)^2 + 2q/9 with B of the binomial distribution (2, q)."""
    peers, dimension, q = 2_000, 40, 1 - loss
    outcome = gossip(neighbor_weights(ring(peers)), peers, 1, Masks(loss=loss), dimension)
    squares = 1 - 4 * q / 3 + (2 * q * (1 - q) + 4 * q**2) / 9 + 2 * q / 9
    assert outcome.consensus_distance[1] ** 2 / dimension == pytest.approx(squares, rel=0.03)


def test_losing_messages_one_way_moves_the_mean_and_losing_peers_does_not() -> None:
    """W stays symmetric if both directions of a link are lost, and only then is the mean of all preserved."""
    graph, start = neighbor_weights(random_regular(4, 200, seed=1)), beginning(200)
    gone = np.zeros((10, 200), dtype=bool)
    gone[:, :60] = True
    absent, lossy = gossip(graph, 200, 10, Masks(gone)), gossip(graph, 200, 10, Masks(loss=0.3))
    np.testing.assert_allclose(absent.parameters.mean(axis=0), start.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(absent.parameters[:60], start[:60])
    assert np.abs(lossy.parameters.mean(axis=0) - start.mean(axis=0)).max() > 1e-3


def test_the_parts_of_a_partition_agree_on_means_of_their_own_until_it_heals() -> None:
    halves = partition([range(8), range(8, 16)], 16)
    graph, start = neighbor_weights(nx.complete_graph(16)), beginning(16)
    split = gossip(graph, 16, 60, Masks(cuts=(Cut(0, 60, halves),))).parameters
    np.testing.assert_allclose(split, np.repeat([start[:8].mean(axis=0), start[8:].mean(axis=0)], 8, axis=0), atol=1e-5)
    healed = gossip(graph, 16, 61, Masks(cuts=(Cut(0, 60, halves),))).parameters
    np.testing.assert_allclose(healed, np.tile(start.mean(axis=0), (16, 1)), atol=1e-5)


def test_whoever_is_in_no_group_of_a_partition_is_in_one_more() -> None:
    stops = partition([[0, 1]], 4)
    pairs = np.array([[0, 1], [0, 2], [2, 3], [3, 1]]).T
    assert stops(*pairs).tolist() == [False, True, False, True]


def test_behind_a_one_way_cut_one_side_hears_and_the_other_does_not() -> None:
    start = beginning(2)
    outcome = gossip(neighbor_weights(nx.path_graph(2)), 2, 40, Masks(cuts=(Cut(0, 40, one_way([0], [1], 2)),)))
    np.testing.assert_allclose(outcome.parameters, [start[1], start[1]], atol=1e-6)


def test_who_loses_what_depends_on_the_seed_and_the_round_alone() -> None:
    senders, receivers = np.arange(1000), np.arange(1000)[::-1].copy()
    lost = [Masks(loss=0.3).arrives(round, senders, receivers, 1000, seed) for round, seed in [(0, 1), (0, 1), (1, 1), (0, 2)]]
    assert (lost[0] == lost[1]).all()
    assert 0.3 < (lost[0] != lost[2]).mean() < 0.55  # 2 * 0.3 * 0.7 of independent draws
    assert 0.3 < (lost[0] != lost[3]).mean() < 0.55
    assert lost[0].mean() == pytest.approx(0.7, abs=0.05)


def test_a_schedule_of_one_peer_a_round_reaches_the_mean_in_one_period() -> None:
    """One-peer hypercube on 2**d peers (Ying et al. 2021): d rounds of pairwise means are the exact mean."""
    outcome = gossip(one_peer_hypercube(5), 32, 5)
    np.testing.assert_allclose(outcome.parameters, np.tile(beginning(32).mean(axis=0), (32, 1)), atol=1e-6)
    assert gossip(one_peer_hypercube(5), 32, 4).consensus_distance[-1] > 0.1


@pytest.mark.parametrize("make", [one_peer_hypercube, lambda bits: random_matching(2**bits, seed=3)])
def test_a_schedule_gives_what_its_matrices_give(make: Any) -> None:
    schedule, expected = make(4), beginning(16).astype(np.float64)
    for round in range(9):
        expected = schedule(round) @ expected
    np.testing.assert_allclose(gossip(schedule, 16, 9).parameters, expected, atol=1e-5)


def test_unsymmetric_weights_are_mixed_as_they_are_written() -> None:
    W = metropolis_weights(ring(5)) @ np.diag([1, 0.5, 1, 0, 2])
    rows = [{j: float(W[i, j]) for j in range(5) if j != i} for i in range(5)]
    own = np.eye(5) - np.diag([sum(row.values()) for row in rows])
    expected = (own + W - np.diag(np.diag(W))) @ beginning(5)
    np.testing.assert_allclose(gossip(rows, 5, 1).parameters, expected, atol=1e-6)
