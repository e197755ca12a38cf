"""Scenarios whose topology is a schedule, with other links every round, or a graph from a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from p2pfl.failure import Failure
from sim import Result, Scenario, run
from sim.engine import choose
from sim.traffic import traffic, update_counts
from sim.world import world_of
from topology import (
    base_k,
    circulant,
    encode_graph,
    epidemic,
    exponential,
    links,
    metropolis_weights,
    one_peer_exponential,
    schedule_from_specification,
    torus,
)


def simulated(topology: Any, **settings: Any) -> Result:
    defaults: dict[str, Any] = {"task": "digits", "partition": "shards:2", "peers": 6, "rounds": 8, "seed": 7, "local_steps": 4}
    return run(Scenario(topology=topology, alone=False, **{**defaults, **settings}))


@pytest.mark.parametrize("engine", ["events", "batch"])
def test_a_schedule_runs_in_both_engines_and_sends_what_its_links_carry(engine: str) -> None:
    result = simulated("base_k:1", engine=engine)  # 6 peers: a period of 4 rounds, in which 4, 4, 4 and 6 send one update
    assert result.record.engine == engine
    assert sum(peer.updates_sent for peer in result.record.peers) == 2 * (4 + 4 + 4 + 6)
    assert sum(peer.updates_applied for peer in result.record.peers) == 2 * (4 + 4 + 4 + 6)
    assert {(i, j) for i, j in result.record.edges} == {(i, j) for i, j in links(base_k(6, 1)).edges}


def test_one_peer_a_round_sends_half_of_what_a_ring_does_and_agrees_better() -> None:
    ring, schedule = simulated("ring", peers=16), simulated("one_peer_exponential", peers=16)
    assert schedule.bytes_sent.sum() < 0.6 * ring.bytes_sent.sum()
    assert schedule.record.consensus_distance[-1] < ring.record.consensus_distance[-1]


@pytest.mark.parametrize("kind", ["epidemic:3", "equitopo", "base_k:2", "one_peer_hypercube", "random_matching"])
def test_what_all_receive_is_what_all_have_sent(kind: str) -> None:
    world = world_of(Scenario(topology=kind, peers=16, rounds=9))
    counted = traffic(world, 20_000, np.full(16, 4))
    sent, received = counted.sent, counted.received
    np.testing.assert_array_equal(sent.sum(axis=1), received.sum(axis=1))
    counts, mixed = update_counts(world)
    schedule = schedule_from_specification(kind, 16, world.seed)
    assert sum(counts) == sum(mixed) == sum(len(row.keys() - {i}) for r in range(9) for i, row in enumerate(schedule.rows(r)))


def test_a_file_gives_the_arguments_of_a_schedule_by_name() -> None:
    world = world_of(Scenario(topology={"kind": "epidemic", "fanout": 3}, peers=12, rounds=5))
    assert world.schedule is not None
    assert world.rows(4) == epidemic(12, 3, world.seed).rows(4)
    ringed = world_of(Scenario(topology={"kind": "circulant", "offsets": [1, 3]}, peers=9))
    assert ringed.schedule is None and ringed.rows(4) == ringed.weights
    assert sorted(ringed.graph.edges) == sorted(circulant(9, [1, 3]).edges)


@pytest.mark.parametrize("weights", ["max_degree", "best_constant", "fastest"])
def test_a_file_may_ask_for_faster_weights(weights: str) -> None:
    world = world_of(Scenario(topology={"kind": "grid", "weights": weights}, peers=6))
    assert all(sum(row.values()) == pytest.approx(1) for row in world.weights)


@pytest.mark.parametrize(
    ("settings", "engine"),
    [({}, "events"), ({"latency": 0.1}, "events"), ({"peers": 256}, "batch"), ({"peers": 256, "latency": 0.1}, "events")],
)
def test_a_schedule_is_run_by_the_engine_that_would_run_a_graph(settings: dict[str, Any], engine: str) -> None:
    for topology in ("equitopo", "ring"):
        assert choose(world_of(Scenario(**{"topology": topology, "peers": 8, **settings})), "auto").name == engine


def test_the_links_of_a_schedule_are_those_of_a_period() -> None:
    assert links(one_peer_exponential(8)).is_directed()
    assert not links(base_k(7, 2)).is_directed()
    assert links(epidemic(9, 2, seed=7)).number_of_edges() == 18


@pytest.mark.parametrize("suffix", [".graphml", ".edges", ".npy", ".json"])
def test_a_scenario_names_the_file_of_its_graph_from_beside_itself(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"wards{suffix}").write_bytes(encode_graph(torus(2, 4), suffix))
    (tmp_path / "scenario.toml").write_text(f'peers = 8\ntopology = "wards{suffix}"\n')
    world = world_of(Scenario.from_toml(tmp_path / "scenario.toml"))
    assert sorted(world.graph.edges) == sorted(torus(2, 4).edges)
    assert [[row.get(j, 0.0) for j in range(8)] for row in world.weights] == metropolis_weights(torus(2, 4)).tolist()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.graphml", None, "topology: none.graphml can't be read: No such file or directory."),
        (
            "directed.graphml",
            encode_graph(exponential(8), ".graphml"),
            "topology: Metropolis weights need an undirected",
        ),
        ("parts.edges", b"0 1\n2 3\n4 5\n6 7\n", "topology: The graph is not connected, so its parts could never agree."),
        ("small.json", encode_graph(torus(2, 3), ".json"), "topology: the graph has 6 nodes, not 8."),
        ("broken.npy", b"\x93NUMPY", "topology: This is no graph in .npy"),
    ],
)
def test_a_file_of_no_fit_graph_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, data: bytes | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if data is not None:
        Path(name).write_bytes(data)
    with pytest.raises(Failure) as refused:
        world_of(Scenario(topology=name, peers=8))
    assert str(refused.value).startswith(message) and len(str(refused.value).splitlines()) == 1
