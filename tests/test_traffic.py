"""Bytes that the batched engine says would be sent are those that the event engine counts."""

from typing import Any

import numpy as np
import pytest

from p2pfl.learning.codec import CODECS
from p2pfl.protocol import wire
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
    good_byes = events.record.link_bytes - batch.record.link_bytes  # at most one either way; they come after the last row
    bye = len(wire.encode(wire.Bye(scenario.rounds)))
    assert set(good_byes.tolist()) <= {0, bye, 2 * bye}


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
    counted = traffic(world, length, np.zeros(2, dtype=np.int64))
    assert np.array_equal(counted.sent[-1], federation.outcome().bytes_sent[-1])


def test_what_is_received_is_what_was_sent() -> None:
    world = world_of(Scenario(peers=6, topology="exponential", weights="uniform", rounds=5))
    length = CODECS["dense"]().payload_bytes(4810)
    counted = traffic(world, length, np.full(6, 10))
    assert counted.sent[-1].sum() == counted.received[-1].sum()


def test_bytes_only_grow() -> None:
    world = world_of(Scenario(rounds=5))
    counted = traffic(world, 1000, np.ones(8, dtype=np.int64))
    for either in (counted.sent, counted.received):
        assert (np.diff(either, axis=0) > 0).all()


@pytest.mark.parametrize("settings", [{"topology": "torus:2x4"}, {"topology": "base_k:2"}, {"gossip": "async"}])
def test_all_that_peers_of_a_graph_send_is_on_its_edges(settings: dict[str, Any]) -> None:
    record = run(Scenario(rounds=4, local_steps=1, alone=False, loss=0.1, **settings), engine="batch").record
    assert len(record.link_bytes) == len(record.edges)
    assert record.link_bytes.sum() == record.bytes_sent[-1].sum()


def test_links_that_are_drawn_every_round_have_no_edge_to_be_counted_on() -> None:
    assert not len(run(Scenario(rounds=2, topology="epidemic:2", alone=False), engine="batch").record.link_bytes)
