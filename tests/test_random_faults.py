"""Seeds draw faults; every invariant is checked while they happen, from outside (`sim.invariants`).

A seed that fails is a bug: its message names the seed, and `storm(seed)` repeats it.
"""

import random
from collections import Counter
from typing import Any

import pytest
import torch

from sim.events import EventsOutcome, run_events
from sim.hostile import ATTACKS
from sim.scenario import Scenario
from sim.world import world_of

torch.set_num_threads(1)

SEEDS = 200
PER_TEST = 20
PEERS = 8
ROUNDS = 6


def storm(seed: int) -> EventsOutcome:
    """Eight peers, a graph, a network and up to four faults, all drawn."""
    draw = random.Random(seed)
    network = {
        "latency": draw.choice([0.0, 0.02, "lognormal:0.02,1.0"]),
        "jitter": draw.choice([0.0, 0.05]),
        "loss": draw.choice([0.0, 0.1, 0.3]),
        "duplicate": draw.choice([0.0, 0.2]),
        "reorder": draw.choice([0.0, 0.3]),
        "detection_s": draw.choice([0.1, 1.0]),
        "crypto": "real" if seed % 10 == 0 else "accounted",
    }
    scenario = Scenario(
        task="synthetic",
        model="softmax",
        features=4,
        samples=200,
        classes=3,
        peers=PEERS,
        rounds=ROUNDS,
        seed=seed,
        topology=draw.choice(["ring", "complete", "random_regular:3", "star"]),
        gossip={"mode": draw.choice(["rounds", "rounds", "async"]), "ceiling_s": 2.0, "gather_s": 2.0, "checkpoint_s": 0.5},
        network=network,
        compute={"step_s": "lognormal:0.01,1.0", "disk_s": draw.choice([0.0, 0.0, 0.05])},
        churn={"rate": draw.choice([0.0, 0.3]), "mean_session_s": 5.0, "leave": draw.choice(["crash", "graceful"])},
        fault=[fault(draw) for _ in range(draw.randrange(5))],
        local_steps=2,
        batch_size=4,
    )
    return run_events(world_of(scenario))


def fault(draw: random.Random) -> dict[str, Any]:
    kind = draw.choice(["crash", "restart", "leave", "pause", "partition", "cut", "slow", "corrupt", "hostile"])
    at = round(draw.uniform(0.0, 0.1), 3)
    found: dict[str, Any] = {"at": at, "kind": kind}
    if kind in ("partition", "cut"):
        found["groups"] = [[0, 1, 2], [3, 4, 5, 6, 7]] if draw.random() < 0.5 else [[0, 2, 4], [1, 3]]
    else:
        found["peers"] = draw.sample(range(PEERS), draw.randrange(1, 4))
    if kind == "hostile":
        found["attack"] = draw.choice(sorted(ATTACKS))
    if kind != "restart":
        found["heal"] = at + round(draw.uniform(0.05, 3.0), 3)
    return found


@pytest.mark.fault("everything")
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_whatever_happens_every_invariant_holds_and_what_can_happen_does(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + PER_TEST):
        outcome = storm(seed)
        seen.update(applied=sum(outcome.updates_applied), faults=len(outcome.marks))
        for one in outcome.rejected:
            seen.update(one)
    assert seen["applied"] and seen["faults"] and seen["replayed"], seen
