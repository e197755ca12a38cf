"""A node's neighbors and weights follow from the charter's graph and who is live, and from nothing else."""

import pytest

from node.neighborhood import Neighborhood
from p2pfl.failure import Failure
from p2pfl.protocol.events import PeerId
from tests.village import id_of

NETWORK = b"n" * 16
LIVE = tuple(sorted(id_of(k) for k in range(24)))


def of(own: PeerId, kind: str, degree: int = 4) -> Neighborhood:
    return Neighborhood(own, NETWORK, 7, {"overlay": kind, "degree": degree})


@pytest.mark.parametrize("kind", ["ring", "random_regular", "exponential", "epidemic", "complete"])
def test_everybody_is_sent_to_by_whom_it_awaits_and_nobody_has_more_neighbors_than_there_is_room_for(kind: str) -> None:
    plans = {own: of(own, kind).plan_of(LIVE) for own in LIVE}
    for own, plan in plans.items():
        for round in range(3):
            part = plan(round)
            assert sum(part.weights.values()) == pytest.approx(1.0)
            assert set(part.weights) - {own} == {other for other in LIVE if own in plans[other](round).send_to}
            assert {*part.send_to, *part.weights} - {own} <= set(plan.near)
        assert len(plan.near) <= of(own, kind).most


def test_who_is_alone_gossips_with_nobody() -> None:
    plan = of(LIVE[0], "random_regular").plan_of(LIVE[:1])
    assert plan.near == () and plan(0).weights == {LIVE[0]: 1.0}


def test_all_watch_whoever_watches_them() -> None:
    one = of(LIVE[0], "ring")
    assert all(peer in one.watch(LIVE, other) for peer in LIVE for other in one.watch(LIVE, peer))


@pytest.mark.parametrize(("kind", "degree"), [("random_regular", 3), ("lattice", 4), ("random_regular", 0)])
def test_a_graph_that_can_not_be_is_refused_at_the_start(kind: str, degree: int) -> None:
    with pytest.raises(Failure) as refused:
        of(LIVE[0], kind, degree)
    assert refused.value.code == "bad_charter"


def test_relays_are_in_nobodys_graph_but_are_watched_like_all() -> None:
    relays = set(LIVE[::5])

    def of_all(own: PeerId) -> Neighborhood:
        return Neighborhood(own, NETWORK, 7, {"overlay": "complete"}, relays.__contains__)

    learners = tuple(peer for peer in LIVE if peer not in relays)
    for own in learners:
        plan = of_all(own).plan_of(LIVE)
        assert plan.near == tuple(peer for peer in learners if peer != own)
        assert sum(plan(0).weights.values()) == pytest.approx(1.0) and not relays & plan(0).weights.keys()
    assert any(relays & {*of_all(own).watch(LIVE, own)} for own in learners)


def test_near_to_a_relay_are_those_that_it_may_have_to_carry_for() -> None:
    hidden, own = set(LIVE[3:7]), LIVE[0]
    plan = Neighborhood(own, NETWORK, 7, {}, {own}.__contains__, hidden.__contains__).plan_of(LIVE)
    assert set(plan.near) == hidden and plan(0).send_to == () and not plan(0).weights
