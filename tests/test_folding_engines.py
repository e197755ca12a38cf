"""Folding in the event engine, which folds where a live peer would: here for any model, however small."""

from collections import Counter

import numpy as np
import pytest
import torch

from p2pfl.protocol import room
from sim.batch import run_batch
from sim.events import EventsOutcome, run_events
from sim.scenario import Scenario
from sim.world import World, world_of
from tests.test_random_faults import storm
from tests.worlds import world

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_memory_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "ARRIVING_BYTES", 0)


def folded(run: World) -> tuple[EventsOutcome, Counter[str]]:
    kinds: Counter[str] = Counter()

    def look(line: dict[str, object]) -> None:
        kinds.update(effect["kind"] for effect in line["effects"])  # type: ignore[attr-defined]

    return run_events(run, on_trace=look), kinds


@pytest.mark.parametrize(("codec", "bound"), [("dense", 1e-6), ("float16", 1e-4)])
def test_gossip_that_folds_agrees_with_the_batched_engine(codec: str, bound: float) -> None:
    """The bounds are those of gossip that mixes at once: what folding adds is a few roundings of float32."""
    run = world("random_regular:4", 16, local_steps=0, codec=codec, initial="own")
    batch = run_batch(run.task, run.peers, run.training, run.codec, run.limits, run.weights, run.rounds, run.seed)
    events, kinds = folded(run)
    assert kinds["Fold"] == 16 * 4 * run.rounds
    assert np.abs(events.parameters - batch.parameters).max() <= bound


def test_training_that_folds_agrees_with_the_batched_engine() -> None:
    run = world("random_regular:4", 16, rounds=10)
    batch = run_batch(run.task, run.peers, run.training, run.codec, run.limits, run.weights, run.rounds, run.seed)
    events, kinds = folded(run)
    assert kinds["Fold"] == 16 * 4 * run.rounds
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4


def test_in_whatever_order_updates_come_the_models_differ_by_roundings_only() -> None:
    """Latencies draw another order of arrival for every seed of the network; here each peer hears its neighbors at times that
    differ from round to round."""
    still, moved = (
        folded(world("random_regular:4", 16, local_steps=0, initial="own", rounds=10, latency=latency))[0]
        for latency in (0.0, "lognormal:0.02,1.0")
    )
    difference = np.abs(still.parameters - moved.parameters).max()
    assert 0 < difference <= 1e-6


@pytest.mark.fault("everything")
@pytest.mark.parametrize("first", range(0, 60, 15))
def test_under_any_faults_the_books_balance(first: int) -> None:
    """Every invariant of the simulator, over crashes, pauses, partitions, churn and hostile members."""
    for seed in range(first, first + 15):
        storm(seed)


@pytest.mark.fault("not finite")
def test_updates_that_are_refused_when_folded_are_counted_and_leave_the_models_finite() -> None:
    hostile = [{"kind": "hostile", "peers": [0], "attack": "gaussian", "at": 0.0}]
    outcome, kinds = folded(world("ring", 6, rounds=6, limits={"max_abs": 3.0}, fault=hostile))
    refused = [sum(counts.values()) for counts in outcome.rejected]
    assert kinds["Fold"] and np.isfinite(outcome.parameters).all()
    assert sum(refused) > 0 and set().union(*outcome.rejected) == {"too_large"}


@pytest.mark.fault("churn")
def test_the_weights_of_one_mix_are_those_of_one_plan_while_members_come_and_go() -> None:
    """The plan changes in the middle of rounds. Weights of two plans together could be more than 1, and one's own negative."""
    sums: Counter[object] = Counter()
    most = 0.0

    def look(line: dict[str, object]) -> None:
        nonlocal most
        for effect in line["effects"]:  # type: ignore[attr-defined]
            if effect["kind"] == "Fold":
                sums[line["peer"]] += effect["weight"]
                most = max(most, sums[line["peer"]])
            elif effect["kind"] == "Learn":  # a mix begins, or, with nothing in it, a life
                sums[line["peer"]] = 0
                mixed = {update["sender"] for update in (*effect["arrived"], *effect["folded"])}
                assert mixed <= effect["weights"].keys()
                assert sum(effect["weights"].values()) == pytest.approx(1.0)

    scenario = Scenario(
        peers=12,
        rounds=12,
        model="softmax",
        local_steps=1,
        topology={"overlay": "random_regular", "degree": 4},
        gossip={"ceiling_s": 4.0, "gather_s": 2.0, "floor_s": 0.5},
        network={"latency": "lognormal:0.02,1.0", "crypto": "accounted"},
        compute={"step_s": "lognormal:0.5,0.5"},
        churn={"rate": 0.3, "mean_session_s": 8.0, "leave": "crash"},
        alone=False,
    )
    outcome = run_events(world_of(scenario), on_trace=look)
    assert 0.5 < most <= 1.0
    assert np.isfinite(outcome.parameters).all()
