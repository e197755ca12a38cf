"""Members that lie with their own keys: what it costs the honest ones, who notices, and what is bounded whoever lies."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from p2pfl.failure import Failure
from sim import Scenario
from sim.events import EventsOutcome, Federation, run_events
from sim.hostile import ATTACKS
from sim.world import world_of
from tests.quadratics import quadratic

LIAR, PEERS = 2, 6
HONEST = [peer for peer in range(PEERS) if peer != LIAR]


def federation(attack: str | None, **settings: Any) -> Federation:
    """Six peers on a ring; peer 2 is in the hands of an attacker from the beginning."""
    defaults: dict[str, Any] = {"rounds": 8, "model": "softmax", "local_steps": 4, "topology": "ring", "partition": "iid"}
    faults = [] if attack is None else [{"at": 0, "kind": "hostile", "peers": LIAR, "attack": attack}]
    return Federation(world_of(Scenario(peers=PEERS, fault=faults, step_s=0.25, **{**defaults, **settings})), None, None)


@cache
def outcome(attack: str | None) -> EventsOutcome:
    run = federation(attack)
    run.run()
    return run.outcome()


def refused_by(outcome: EventsOutcome, peers: list[int]) -> dict[str, int]:
    total: dict[str, int] = {}
    for peer in peers:
        for reason, count in outcome.rejected[peer].items():
            total[reason] = total.get(reason, 0) + count
    return total


def accuracy(outcome: EventsOutcome) -> float:
    """Mean of the honest peers at the end."""
    return float(outcome.accuracy[-1, HONEST].mean())


@pytest.mark.fault("lies within bounds")
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_lie_stops_an_honest_peer_or_leaves_it_a_model_that_is_not_finite(attack: str) -> None:
    lied_to = outcome(attack)
    assert all(lied_to.finished[peer] for peer in HONEST)
    assert np.isfinite(lied_to.parameters[HONEST]).all() and np.isfinite(lied_to.accuracy[:, HONEST]).all()


@pytest.mark.fault("lies within bounds")
@pytest.mark.parametrize("attack", ["sign_flip", "gaussian"])
def test_a_lie_in_the_vector_costs_a_plain_mean_accuracy_and_is_refused_by_nobody(attack: str) -> None:
    """It is within all bounds of the protocol: this is what robust aggregation is for."""
    assert accuracy(outcome(attack)) < accuracy(outcome(None)) - 0.03
    assert refused_by(outcome(attack), HONEST) == {}


@pytest.mark.fault("lies within bounds")
def test_a_peer_that_learns_flipped_labels_is_heard_like_any_other() -> None:
    assert refused_by(outcome("label_flip"), HONEST) == {}
    assert accuracy(outcome("label_flip")) < accuracy(outcome(None))


@pytest.mark.fault("lies within bounds")
def test_a_stubborn_peer_drags_a_ring_to_its_own_value() -> None:
    """Linear gossip without training ends at the value of the one who never mixes; without it, at the mean of all."""

    def ended(attack: str | None) -> NDArray[np.float32]:
        task = quadratic(np.ones((PEERS, 1, 2)), np.zeros((PEERS, 1, 2)))
        run = federation(attack, task=task, model=None, rounds=80, local_steps=0, batch_size=1)
        for host in run.hosts:  # every peer begins at its own number
            state = replace(host.state, vector=np.full(2, host.index, dtype=np.float32))
            host._durable = None, state
        run.run()
        return run.outcome().parameters

    assert np.abs(ended("stubborn") - LIAR).max() < 0.01
    assert np.abs(ended(None) - (PEERS - 1) / 2).max() < 0.01


def test_a_free_rider_sends_no_step_of_its_own() -> None:
    """With nothing to take from others either, what it sends stays the first vector of all."""
    run = federation("free_rider", topology="ring")
    first = run.hosts[LIAR].state.vector.copy()
    for host in run.hosts:
        if host.index != LIAR:
            host.turn_hostile("free_rider")
    run.run()
    assert np.array_equal(run.outcome().parameters[LIAR], first)


@pytest.mark.fault("replay")
def test_a_replayed_offer_is_refused_as_such_and_changes_no_model() -> None:
    assert refused_by(outcome("replay"), HONEST).keys() == {"replayed"}
    assert np.array_equal(outcome("replay").parameters, outcome(None).parameters)


@pytest.mark.fault("equivocation")
def test_two_updates_of_one_step_are_proof_of_equivocation() -> None:
    """The second is refused by everyone who has the first, and is blamed on its signer."""
    run = federation("equivocation")
    run.run()
    for neighbor in (LIAR - 1, LIAR + 1):
        reasons = run.hosts[neighbor].peer.ledger.reasons
        assert {(run._index[peer], reason.value) for peer, reason in reasons} == {(LIAR, "equivocation")}
    assert np.array_equal(run.outcome().parameters, outcome(None).parameters)


@pytest.mark.fault("claimed weight")
def test_a_claim_of_many_samples_moves_nothing() -> None:
    assert np.array_equal(outcome("wrong_samples").parameters, outcome(None).parameters)


@pytest.mark.fault("claimed weight")
def test_an_age_is_believed_up_to_the_cap_and_does_not_spread() -> None:
    """Asynchronous gossip merges by age: a claim of 2^62 counts as one's own age + age_cap, each time it is heard, so that no
    honest age is above what rounds of local steps and caps can give."""
    cap, rounds, steps = 10, 12, 4
    run = federation("wrong_age", mode="async", rounds=rounds, age_cap=cap)
    run.run()
    ages = [run.hosts[peer].peer.age for peer in HONEST]
    assert max(ages) <= rounds * (steps + cap)
    honest = federation(None, mode="async", rounds=rounds, age_cap=cap)
    honest.run()
    assert max(host.peer.age for host in honest.hosts) <= rounds * steps < max(ages)


def test_an_attacked_machine_can_be_given_back() -> None:
    faults = [{"at": 2.5, "kind": "hostile", "peers": LIAR, "attack": "replay", "heal": 4.5}]
    world = world_of(Scenario(peers=PEERS, rounds=8, model="softmax", local_steps=4, step_s=0.25, fault=faults))
    run = run_events(world)
    assert [mark.text for mark in run.marks] == ["replay 2", "end of replay 2"]
    assert 0 < refused_by(run, HONEST)["replayed"] < refused_by(outcome("replay"), HONEST)["replayed"]


def test_flipping_labels_needs_classes() -> None:
    task = quadratic(np.ones((PEERS, 1, 1)), np.ones((PEERS, 1, 1)))
    faults = [{"at": 0, "kind": "hostile", "peers": 0, "attack": "label_flip"}]
    with pytest.raises(Failure, match="needs classes"):
        world_of(Scenario(peers=PEERS, task=task, batch_size=1, fault=faults))
