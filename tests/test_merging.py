"""Asynchronous gossip by whole periods, against the live peer's own merge, the event engine and what mathematics says."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from p2pfl.learning.codec import CODECS
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import age_weights
from sim import Scenario, run
from sim.batch import BatchOutcome, run_batch
from sim.checkpoint import Checkpoint
from sim.entropy import SeededEntropy
from sim.events import run_events
from sim.masks import Cut, Masks, Whole, partition
from sim.merging import Ages, Pushes, merged
from sim.traffic import traffic, update_counts
from sim.world import World, world_of
from topology import neighbor_weights, one_peer_hypercube, random_regular, ring

torch.set_num_threads(1)


def scenario(**settings: Any) -> Scenario:
    defaults = {
        "peers": 12,
        "rounds": 8,
        "mode": "async",
        "topology": "random_regular:4",
        "partition": "dirichlet:0.5",
        "local_steps": 3,
        "batch_size": 8,
        "alone": False,
    }
    return Scenario(**{**defaults, **settings})


def batched(world: World, pushes: Pushes, masks: Masks | None = None, **more: Any) -> BatchOutcome:
    sections = world.training, world.codec, world.limits
    return run_batch(world.task, world.peers, *sections, pushes, world.rounds, world.seed, masks=masks, **more)


@pytest.mark.parametrize("cap", [0, 2, 1_000])
def test_all_merges_at_once_have_the_weights_and_ages_that_a_live_peer_gives_them(cap: int) -> None:
    chance = np.random.default_rng(3)
    peers = 9
    ages, senders, receivers = chance.integers(0, 40, peers), np.arange(peers), chance.integers(0, 3, peers)
    ages[:2] = 0
    rank = chance.permutation(peers)
    weights, after = merged(ages, senders, receivers, cap, rank)
    ids = [PeerId(bytes([place]) * 32) for place in rank]
    for peer in range(peers):
        arrived = {ids[j]: int(ages[j]) for j in senders[receivers == peer]}
        expected, age = age_weights(PeerId(b"own"), int(ages[peer]), arrived, cap)
        found = {ids[j]: weights[j] for j in senders[receivers == peer]}
        assert found == pytest.approx({id: weight for id, weight in expected.items() if id != b"own"}, rel=1e-12)
        assert after[peer] == age


class Recorded(Pushes):
    """The pushes that peers of the event engine make where all are ready, and the order of their ids, in which they merge."""

    def __init__(self, world: World) -> None:
        ids = [Identity.generate(SeededEntropy(world.seed, b"identity %d" % i)).peer_id for i in range(world.peers)]
        super().__init__(world.weights, world.peers, Masks(), world.seed, np.argsort(np.argsort(ids)))
        readers = [sorted(world.send_to(i), key=ids.__getitem__) for i in range(world.peers)]
        choices = [Choices(world.seed, b"choices %d" % i) for i in range(world.peers)]
        self._made = [
            np.array([near[choice.below(len(near))] for near, choice in zip(readers, choices, strict=True)])
            for _ in range(world.rounds)
        ]

    def of(self, round: int) -> tuple[Whole, Whole]:
        return np.arange(self.peers), self._made[round]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9, "learning_rate": 0.02},
        {"weighting": "samples"},
        {"age_cap": 4, "local_epochs": 1, "local_steps": None},
    ],
    ids=["plain", "momentum", "unequal steps", "capped ages"],
)
def test_equal_periods_without_latency_leave_the_models_of_the_event_engine_to_1e4(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Choices, "uniform", lambda self, low, high: 1.0)  # no jitter: all periods are equally long
    world = world_of(scenario(**settings))
    events = run_events(world)
    batch = batched(world, Recorded(world), age_cap=world.gossip.age_cap)
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4
    assert np.abs(events.accuracy - batch.accuracy).max() <= 0.01
    assert events.updates_applied == tuple(np.bincount(np.concatenate(Recorded(world)._made), minlength=12).tolist())


def test_bytes_and_counts_of_equal_periods_are_those_of_real_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Choices, "uniform", lambda self, low, high: 1.0)
    world = world_of(scenario(rounds=60, local_steps=5, evaluate_every=1000))  # ages and rounds grow by a byte
    monkeypatch.setattr("sim.traffic.Pushes", lambda *_: Recorded(world))
    events = run_events(world)
    length = CODECS["dense"]().payload_bytes(events.parameters.shape[1])
    counted = traffic(world, length, np.full(12, 5))
    sent, received = counted.sent, counted.received
    assert np.array_equal(sent, events.bytes_sent)
    assert sent[-1].sum() == received[-1].sum()
    counts = update_counts(world)
    assert (tuple(counts[0]), tuple(counts[1])) == (events.updates_sent, events.updates_applied)


def test_pushes_reach_every_neighbor_equally_often_and_nobody_else() -> None:
    graph = random_regular(4, 20, seed=1)
    pushes = Pushes(neighbor_weights(graph), 20, Masks(), 7)
    counts = np.zeros((20, 20))
    for round in range(2_000):
        senders, receivers = pushes.of(round)
        assert np.array_equal(senders, np.arange(20))
        counts[senders, receivers] += 1
    adjacent = np.zeros((20, 20), dtype=bool)
    for i, j in graph.edges:
        adjacent[i, j] = adjacent[j, i] = True
    assert np.array_equal(counts > 0, adjacent)
    expected = 2_000 / 4
    assert (((counts[adjacent] - expected) ** 2) / expected).sum() < 120  # chi-squared of 60 degrees of freedom: p < 1e-5


def test_nobody_pushes_to_who_is_away_or_cut_off_and_a_push_to_who_leaves_is_lost() -> None:
    away = np.zeros((3, 6), dtype=bool)
    away[1, 0], away[2, 3] = True, True
    cut = Cut(0, 3, partition([[4, 5]], 6))
    pushes = Pushes(neighbor_weights(ring(6)), 6, Masks(away, cuts=(cut,)), 7)
    ages = Ages(pushes, np.full(6, 2), 1_000)
    for round in range(3):
        period = ages.pass_period(round)
        up = ~away[round]
        assert up[period.senders].all()
        assert up[period.receivers].all()
        assert not cut.stops(period.senders, period.receivers).any()
        assert np.array_equal(period.arrives, ~away[min(round + 1, 2)][period.receivers])
        assert (period.weights[~period.arrives] == 0).all()
        assert 0 not in period.senders if round == 1 else 0 in period.senders
    # Whoever was away is as many steps behind, unless somebody who was not came along.
    assert ages.tensor.tolist() == [6, 6, 6, 6, 6, 6] or ages.tensor.min() == 4


def test_a_schedule_says_to_whom_peers_push_in_a_round() -> None:
    schedule = one_peer_hypercube(3)
    pushes = Pushes(schedule, 8, Masks(), 7)
    for round in range(6):
        senders, receivers = pushes.of(round)
        assert np.array_equal(senders ^ receivers, np.full(8, 1 << round % 3))


def test_an_old_model_outweighs_a_new_one_as_their_ages_say() -> None:
    """One push from age 30 to age 10: three quarters for the older, which is then the age of both."""
    weights, after = merged(np.array([30, 10]), np.array([0]), np.array([1]), 1_000, np.arange(2))
    assert weights.tolist() == [0.75]
    assert after.tolist() == [30, 30]


def test_an_age_beyond_the_cap_counts_as_the_cap_in_weight_and_age() -> None:
    weights, after = merged(np.array([1_000_000, 10]), np.array([0]), np.array([1]), 20, np.arange(2))
    assert weights.tolist() == [30 / 40]
    assert after.tolist() == [1_000_000, 30]


def test_peers_that_never_train_agree_in_the_end() -> None:
    """Nobody has an age, so that every merge is a mean of two."""
    world = world_of(scenario(local_steps=0, initial="own", rounds=60, peers=16))
    outcome = batched(world, Pushes(world.weights, 16, Masks(), world.seed))
    assert outcome.consensus_distance[-1] < 1e-3 * outcome.consensus_distance[0]


def test_a_run_that_was_interrupted_remembers_the_ages(tmp_path: Path) -> None:
    world = world_of(scenario(weighting="samples", age_cap=10))
    pushes = Pushes(world.weights, 12, Masks(), world.seed)
    whole = batched(world, pushes)

    def stop_at_5(row: int, *_: object) -> None:
        if row == 5:
            raise InterruptedError

    checkpoint = Checkpoint(tmp_path / "state.safetensors", 3, "{}")
    with pytest.raises(InterruptedError):
        batched(world, pushes, checkpoint=checkpoint, on_round=stop_at_5)
    assert np.array_equal(batched(world, pushes, checkpoint=checkpoint).parameters, whole.parameters)


def test_jittered_periods_are_ahead_of_equal_ones_but_not_by_as_much_as_half_the_rounds() -> None:
    """Where all periods begin together an update waits for a whole one until it is merged, else for half a one on average: over
    seeds, the accuracy of equal periods lies between what jittered ones have now and what they had after half the rounds."""
    settings = {"peers": 16, "rounds": 24, "model": "softmax", "local_steps": 2, "evaluate_every": 12}
    both: list[Literal["events", "batch"]] = ["events", "batch"]
    jittered, equal = np.array(
        [[run(scenario(seed=seed, **settings), engine).accuracy.mean(axis=1)[[12, 24]] for seed in range(8)] for engine in both]
    )
    noise = 3 * (jittered[:, 1] - equal[:, 1]).std(ddof=1) / np.sqrt(8)
    assert equal[:, 1].mean() < jittered[:, 1].mean() + noise
    assert equal[:, 1].mean() > jittered[:, 0].mean() + noise


def test_who_is_away_in_the_batched_engine_is_in_the_result() -> None:
    result = run(scenario(churn={"model": "exponential", "rate": 0.3}, peers=30, rounds=10), "batch")
    assert result.record.up.shape == (10, 30)
    assert 0.4 < result.up.mean() < 0.95
    assert np.array_equal(np.isfinite(result.accuracy[:10]), result.up)


@pytest.mark.parametrize("engine", ["events", "batch"])
def test_a_sample_of_the_peers_is_measured_always_the_same_and_said(engine: Any) -> None:
    result = run(scenario(evaluate_peers=5), engine)
    measured = np.isfinite(result.accuracy)
    assert measured.sum(axis=1).tolist() == [5] * 9
    assert (measured == measured[0]).all()
    assert np.array_equal(measured[0], world_of(scenario(evaluate_peers=5)).evaluated)
    assert "of 5 of the 12 peers" in result.record.abstracts
    assert np.abs(result.parameters - run(scenario(), engine).parameters).max() < 1e-6
