"""Bytes that the batched engine says would be sent are those that the event engine counts."""

from typing import Any

import numpy as np
import pytest

from p2pfl.learning.codec import CODECS
from sim import Scenario, run
from sim.events import Federation
from sim.traffic import traffic
from sim.world import world_of

RUNS = {
    "ring": {"topology": "ring", "rounds": 4},
    "star, whose center sends most": {"topology": "star", "peers": 6, "rounds": 3},
    "directed": {"topology": "exponential", "weights": "uniform", "peers": 6, "rounds": 3},
    "one peer alone": {"topology": "ring", "peers": 1, "rounds": 2},
    "unequal ages": {"topology": "path", "peers": 3, "rounds": 3, "weighting": "samples", "partition": "quantity:0.3"},
    "counters that grow by a byte": {"topology": "path", "peers": 2, "rounds": 135, "model": "softmax", "local_steps": 1},
    "float16": {"topology": "ring", "rounds": 2, "codec": "float16"},
}


@pytest.mark.parametrize("name", RUNS)
def test_every_row_equals_what_real_peers_send(name: str) -> None:
    settings: dict[str, Any] = {"local_steps": 3, "alone": False, "evaluate_every": 1000, **RUNS[name]}
    scenario = Scenario(**settings)
    events, batch = run(scenario, engine="events"), run(scenario, engine="batch")
    assert np.array_equal(events.record.bytes_sent, batch.record.bytes_sent)


@pytest.mark.parametrize(
    ("features", "chunks"),
    [(300, 1), (5000, 2), (75_000, 19)],
    ids=["one that is too long to ride along", "two", "more than credit"],
)
def test_updates_that_are_fetched_chunk_by_chunk_count_their_credit(features: int, chunks: int) -> None:
    """In between, a reader may be ahead in granting; at the end it has granted all."""
    world = world_of(
        Scenario(peers=2, rounds=1, local_steps=0, task="synthetic", features=features, samples=16, codec="dense", alone=False)
    )
    federation = Federation(world, None, None)
    federation.run()
    length = federation.hosts[0].learner.update_bytes
    assert -(-length // 2**20) == chunks
    sent, _ = traffic(world, length, np.zeros(2, dtype=np.int64))
    assert np.array_equal(sent[-1], federation.outcome().bytes_sent[-1])


def test_what_is_received_is_what_was_sent() -> None:
    world = world_of(Scenario(peers=6, topology="exponential", weights="uniform", rounds=5))
    length = CODECS["dense"]().payload_bytes(4810)
    sent, received = traffic(world, length, np.full(6, 10))
    assert sent[-1].sum() == received[-1].sum()


def test_bytes_only_grow() -> None:
    world = world_of(Scenario(rounds=5))
    for counted in traffic(world, 1000, np.ones(8, dtype=np.int64)):
        assert (np.diff(counted, axis=0) > 0).all()
