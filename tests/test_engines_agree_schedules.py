"""A schedule gives every round other links; real peers on links of their own still compute what the array computes."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sim import Scenario, run
from sim.batch import BatchOutcome, run_batch
from sim.events import EventsOutcome, Federation, run_events
from sim.world import World
from tests.worlds import world
from topology import base_k, schedule_from_specification

SCHEDULES = ["base_k:1", "base_k:2", "one_peer_exponential", "one_peer_hypercube", "random_matching", "epidemic:2", "equitopo"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def both(run: World) -> tuple[EventsOutcome, BatchOutcome]:
    weights = run.schedule or run.weights
    batch = run_batch(run.task, run.peers, run.training, run.codec, run.limits, weights, run.rounds, run.seed)
    return run_events(run), batch


@pytest.mark.parametrize("kind", SCHEDULES)
def test_gossip_without_training_agrees_to_1e6_under_every_schedule(kind: str) -> None:
    peers = 8 if kind == "one_peer_hypercube" else 11
    events, batch = both(world(kind, peers, rounds=9, local_steps=0, initial="own"))
    assert events.consensus_distance[0] > 1.0
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-6


@pytest.mark.parametrize("kind", ["base_k:1", "one_peer_exponential", "epidemic:2"])
def test_training_on_digits_agrees_to_1e4_in_every_parameter(kind: str) -> None:
    events, batch = both(world(kind, 8, rounds=10))
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4
    assert np.abs(events.accuracy - batch.accuracy).max() <= 0.01


@pytest.mark.parametrize("kind", ["base_k:1", "random_matching", "epidemic:2"])
def test_what_the_array_would_send_under_a_schedule_is_what_real_peers_send(kind: str) -> None:
    """Greetings included: on every link that some round names, once."""
    events, batch = (
        run(Scenario(topology=kind, peers=8, rounds=6, local_steps=1, engine=engine, alone=False))
        for engine in ("events", "batch")
    )
    assert np.array_equal(events.bytes_sent, batch.bytes_sent)


def test_real_peers_agree_exactly_after_one_period_of_base_k_and_not_before() -> None:
    """Takezawa et al. 2023, theorem 1: a period of Base-(k+1) is an exact mean, for any number of peers."""
    period = base_k(7, 1).period
    assert period is not None
    agreed, almost = (
        run_events(world("base_k:1", 7, rounds=rounds, local_steps=0, initial="own", evaluate_every=1))
        for rounds in (period, period - 1)
    )
    assert agreed.consensus_distance[-1] < 1e-5 < 0.01 < almost.consensus_distance[-1]


@pytest.mark.parametrize("kind", ["base_k:1", "one_peer_exponential", "random_matching"])
def test_latency_changes_when_but_not_what_under_a_schedule(kind: str) -> None:
    """Peers drift apart by as many rounds as news needs to get around, and still nobody mixes another round's update."""
    quick, slow = (
        run_events(world(kind, 9, rounds=6, latency=latency, local_steps=2, step_s="lognormal:0.01,0.3"))
        for latency in (0.0, "lognormal:0.05,0.3")
    )
    assert np.array_equal(quick.parameters, slow.parameters)
    assert quick.updates_applied == slow.updates_applied


def test_a_peer_keeps_links_to_whoever_a_round_names_and_sends_to_this_rounds_only() -> None:
    schedule, rounds = schedule_from_specification("one_peer_exponential", 8, 7), 6
    federation = Federation(world("one_peer_exponential", 8, rounds=rounds, local_steps=1), None, None)
    federation.run()
    for i, host in enumerate(federation.hosts):
        (ledger,) = host.ledgers
        sent = {federation.host_of(peer).index: pair.sent for peer, pair in ledger.pairs.items() if pair.sent}
        names = [j for round in range(rounds) for j, row in enumerate(schedule.rows(round)) if i in row and j != i]
        assert sent == {j: names.count(j) for j in names}
        assert not ledger.rejected


@pytest.mark.parametrize("kind", ["one_peer_exponential", "random_matching", "epidemic:3"])
def test_a_peer_that_was_away_joins_the_others_round_under_a_schedule(kind: str) -> None:
    """Nobody sends it updates of the round it is in any more; what they sign says where they are."""
    away = [{"kind": "crash", "at": 3.0, "peers": [5]}, {"kind": "restart", "at": 9.0, "peers": [5]}]
    rules = {"gather_s": 0.5, "ceiling_s": 1.0, "checkpoint_s": 1.0}
    run = world(kind, 16, rounds=40, local_steps=1, step_s=0.5, latency=0.01, evaluate_every=40, fault=away, gossip=rules)
    lags = []
    for moment in (9.1, 18.0):
        federation = Federation(run, None, None)
        federation.run(until=moment)
        steps = [host.peer.step for host in federation.hosts]
        lags.append(sorted(steps)[8] - steps[5])
    assert lags[0] >= 8 and lags[1] <= 1
