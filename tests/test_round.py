"""The plan of a round, the adaptive deadline, and merging by age."""

import pytest

from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.round import Waits, age_weights, static_plan

A, B, C = (PeerId(bytes([i]) * 32) for i in range(3))


def test_a_plan_names_the_peer_itself_and_its_weights_sum_to_one() -> None:
    plan = static_plan(A, [C, B], {B: 0.25, A: 0.5, C: 0.25})
    assert plan(0) == plan(17)
    assert plan(0).send_to == (B, C)
    for weights in ({B: 1.0}, {A: 0.5, B: 0.4}):
        with pytest.raises(ValueError, match="sum to 1"):
            static_plan(A, [B], weights)


def test_the_deadline_is_the_ceiling_until_there_is_something_to_go_by() -> None:
    waits = Waits(GossipRules(floor_s=0.1, ceiling_s=7.0))
    for _ in range(Waits.ENOUGH - 1):
        waits.observe(0.01)
    assert waits.patience() == 7.0
    waits.observe(0.01)
    assert waits.patience() == 0.1


def test_the_deadline_is_median_plus_k_mad_between_floor_and_ceiling() -> None:
    waits = Waits(GossipRules(floor_s=0.5, ceiling_s=100.0, deviations=6.0))
    for seconds in (1.0, 2.0, 3.0, 4.0, 5.0):
        waits.observe(seconds)
    # median 3; deviations 2, 1, 0, 1, 2 have median 1
    assert waits.patience() == 3.0 + 6.0 * 1.0


def test_fewer_than_half_of_the_neighbors_cannot_stretch_the_deadline() -> None:
    waits = Waits(GossipRules(floor_s=0.5, ceiling_s=1000.0))
    for seconds in [1.0] * 6 + [900.0] * 5:
        waits.observe(seconds)
    assert waits.patience() == 1.0


def test_ages_weigh_models_by_their_share_and_the_oldest_age_is_kept() -> None:
    weights, age = age_weights(A, 10, {B: 30}, cap=1000)
    assert weights == {A: 0.25, B: 0.75}
    assert age == 30


def test_merging_one_after_the_other_is_one_weighted_mean() -> None:
    """x <- (1 - a) x + a x_r twice, with ages 10, then 10 (a = 1/2), then 30 (a = 3/4)."""
    weights, age = age_weights(A, 10, {C: 30, B: 10}, cap=1000)
    assert weights == pytest.approx({A: 0.125, B: 0.125, C: 0.75})
    assert sum(weights.values()) == pytest.approx(1.0)
    assert age == 30


def test_a_claimed_age_counts_up_to_ones_own_plus_the_cap_in_the_weight_and_in_the_age() -> None:
    weights, age = age_weights(A, 100, {B: 2**62}, cap=50)
    assert weights[B] == pytest.approx(150 / 250)
    assert age == 150


def test_two_models_that_never_trained_meet_halfway() -> None:
    weights, age = age_weights(A, 0, {B: 0}, cap=10)
    assert weights == {A: 0.5, B: 0.5}
    assert age == 0


def test_early_updates_say_how_much_neighbors_differ() -> None:
    """A slow peer, whose neighbors are always 3 to 5 seconds early, is not patient with the one that is missing."""
    waits = Waits(GossipRules(floor_s=0.5, ceiling_s=100.0))
    for seconds in (-5.0, -4.0, -3.0, -4.0):
        waits.observe(seconds)
    assert waits.patience() == 0.5
