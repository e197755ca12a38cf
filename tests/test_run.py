"""Running a scenario: what comes out, and which engine runs it."""

from typing import Any

import numpy as np
import pytest

from p2pfl.failure import Failure
from sim import Result, Scenario, run
from sim.engine import EVENTS_PEERS_MAX, choose
from sim.world import OnTrace, world_of


def small(**settings: Any) -> Scenario:
    """Four peers, three rounds, a convex model."""
    defaults = {"peers": 4, "rounds": 3, "model": "softmax", "local_steps": 4, "partition": "shards:2"}
    return Scenario(**{**defaults, **settings})


@pytest.fixture(scope="module", params=["events", "batch"])
def result(request: pytest.FixtureRequest) -> Result:
    return run(small(), engine=request.param)


def test_arrays_have_a_row_before_training_and_one_a_round(result: Result) -> None:
    assert result.accuracy.shape == result.loss.shape == result.alone_accuracy.shape == (4, 4)
    assert result.consensus_distance.shape == (4,)
    assert result.bytes_sent.shape == (4,)
    assert result.parameters.shape == (4, 650) and result.parameters.dtype == np.float32


def test_before_training_all_peers_are_the_same(result: Result) -> None:
    assert len(set(result.accuracy[0])) == 1
    assert result.consensus_distance[0] == pytest.approx(0.0, abs=1e-6)


def test_the_last_row_is_that_of_the_parameters(result: Result) -> None:
    spread = result.parameters.astype(np.float64) - result.parameters.mean(axis=0, dtype=np.float64)
    assert result.consensus_distance[-1] == pytest.approx(np.sqrt((spread**2).sum() / 4), rel=1e-4)


def test_gossip_beats_being_alone_on_what_others_have_seen(result: Result) -> None:
    assert result.accuracy[-1].mean() > result.alone_accuracy[-1].mean() + 0.1


def test_the_record_names_graph_data_and_settings(result: Result) -> None:
    record = result.record
    assert record.edges == ((0, 1), (0, 3), (1, 2), (2, 3)) and not record.directed
    assert record.label_counts.shape == (4, 10) and record.label_counts.sum() == sum(peer.samples for peer in record.peers)
    assert record.settings["training"]["local_steps"] == 4
    assert record.settings["engine"] == record.engine
    assert [(peer.updates_sent, peer.updates_applied) for peer in record.peers] == [(6, 6)] * 4
    assert result.rejected == {}


def test_both_engines_tell_the_same() -> None:
    events, batch = run(small(), engine="events"), run(small(), engine="batch")
    assert np.abs(events.parameters - batch.parameters).max() < 1e-5
    assert np.array_equal(events.bytes_sent, batch.bytes_sent)
    assert np.array_equal(events.alone_accuracy, batch.alone_accuracy)


def test_alone_can_be_left_out() -> None:
    assert run(small(alone=False, rounds=1)).alone_accuracy.shape == (0, 4)


@pytest.mark.parametrize("engine", ["events", "batch"])
def test_only_wanted_rows_are_measured_and_the_last_always(engine: Any) -> None:
    heard: list[int] = []
    result = run(small(evaluate_every=2), engine, on_round=lambda row, accuracy: heard.append(row))
    assert np.isnan(result.accuracy).all(axis=1).tolist() == [False, True, False, False]
    assert [row for row in heard if not np.isnan(result.accuracy[row]).any()] == [0, 2, 3]


def test_a_diverging_run_is_refused_with_how_to_mend_it() -> None:
    with pytest.raises(Failure, match="learning_rate"):
        run(small(learning_rate=1e9), engine="batch")


def test_updates_that_are_lost_are_not_applied() -> None:
    result = run(small(loss=0.3, rounds=5, alone=False))
    applied = sum(peer.updates_applied for peer in result.record.peers)
    assert applied < sum(peer.updates_sent for peer in result.record.peers)
    assert np.isfinite(result.parameters).all()


def test_async_gossip_learns_too() -> None:
    result = run(small(mode="async", rounds=8, alone=False))
    assert result.record.engine == "events"
    assert result.accuracy[-1].mean() > result.accuracy[0].mean() + 0.2


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({"peers": 8}, "events"),
        ({"peers": EVENTS_PEERS_MAX}, "events"),
        ({"peers": EVENTS_PEERS_MAX + 1}, "batch"),
        ({"peers": EVENTS_PEERS_MAX + 1, "latency": 0.01}, "events"),
        ({"peers": EVENTS_PEERS_MAX + 1, "loss": 0.01}, "events"),
        ({"peers": EVENTS_PEERS_MAX + 1, "mode": "async"}, "batch"),
    ],
)
def test_auto_takes_the_batched_engine_for_many_peers_on_a_perfect_network(settings: dict[str, Any], engine: str) -> None:
    chosen = choose(world_of(Scenario(**settings)), "auto")
    assert chosen.name == engine
    assert chosen.why


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"latency": 0.1}, "network.latency"), ({"duplicate": 0.1}, "duplicate")],
)
def test_the_batched_engine_refuses_what_it_cannot_do(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(Failure, match=key):
        run(small(**settings), engine="batch")


def test_the_batched_engine_has_no_trace() -> None:
    lines: list[dict[str, object]] = []
    on_trace: OnTrace = lines.append
    with pytest.raises(Failure, match="trace"):
        run(small(), engine="batch", on_trace=on_trace)


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(Failure, match="auto, events and batch"):
        run(small(), engine="btach")  # type: ignore[arg-type]


def test_the_thread_count_is_given_back() -> None:
    import torch

    before = torch.get_num_threads()
    run(small(rounds=1, alone=False))
    assert torch.get_num_threads() == before


def test_who_waits_longer_than_sessions_last_is_said_so_before_the_run() -> None:
    notes: list[str] = []
    run(small(churn={"rate": 0.3}, gather_s=11), "events", on_note=notes.append)
    assert any(line.startswith("gossip.gather_s = 11: so long whoever comes back waits") for line in notes)
    notes.clear()
    run(small(churn={"rate": 0.3}, gather_s=0.5), "events", on_note=notes.append)
    assert not any("gather_s" in line for line in notes)


def test_a_graph_that_memory_cannot_hold_is_refused_with_the_numbers_before_it_is_made() -> None:
    with pytest.raises(Failure, match=r"complete of 1,000,000 peers takes about 169,999.8 GB, and [\d.]+ GB are free"):
        world_of(small(peers=1_000_000, topology="complete", samples_per_peer=1))
