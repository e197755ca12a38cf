"""A charter that is amended while peers gossip: the one before is good for its time, another never, and the new rules hold."""

from dataclasses import replace

import pytest

from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Amended, Finished, Learn, LinkDown, LinkUp
from p2pfl.protocol.peer import State
from tests.ring import Ring, books_balance

OLD = GossipRules(rounds=8, floor_s=0.5, ceiling_s=10.0, gather_s=20.0)
NEW = replace(OLD, rounds=5, ceiling_s=4.0)
DAY = 86_400.0
WALL = 1e9  # of the ring's clock at its beginning


def amendment(ring: Ring, rules: GossipRules = NEW, lasts_s: float = DAY) -> Amended:
    return Amended(replace(ring.charter, gossip=rules), ring.charter.digest, WALL + ring.time + lasts_s)


def a_round(ring: Ring) -> None:
    """Everybody's learner answers once, and all messages arrive."""
    for k, stage in enumerate(ring):
        if stage.learning is not None:
            ring.learn(k)
    ring.settle(learn=False)


def going(n: int = 3) -> Ring:
    """Two rounds are over, and the third is being learned."""
    ring = Ring(n, OLD)
    ring.start()
    ring.settle(learn=False)
    for _ in range(2):
        a_round(ring)
    assert [stage.peer.step for stage in ring] == [2] * n
    return ring


def test_a_charter_that_all_hear_of_between_two_updates_costs_nothing_and_its_rules_hold() -> None:
    ring = going()
    for k in range(3):
        ring.tell(k, amendment(ring))
    ring.settle()
    for stage in ring:
        assert stage.rejections == [] and stage.peer.state is State.FINISHED
        assert [one.step for one in stage.of(Finished)] == [5]  # where eight rounds were agreed at first
    assert books_balance(ring)


@pytest.mark.fault("charters")
def test_what_names_the_charter_before_is_good_for_its_time_and_no_longer() -> None:
    ring = going()
    ring.tell(0, amendment(ring))
    a_round(ring)  # of 1 and 2, who have not heard
    assert {Reason.WRONG_CHARTER} == set(ring[1].rejections) == set(ring[2].rejections)
    assert ring[0].rejections == []
    assert len(ring[0].of(Learn)[-1].arrived) == 2  # both updates under the old charter were mixed
    for k in (1, 2):
        ring.tell(k, amendment(ring))
    ring.settle()
    assert all(stage.peer.state is State.FINISHED for stage in ring)

    ring = going()
    ring.tell(0, amendment(ring, lasts_s=0.0))
    a_round(ring)
    assert set(ring[0].rejections) == {Reason.WRONG_CHARTER}


@pytest.mark.fault("charters")
def test_a_charter_that_nobody_announced_is_refused_whatever_came_before() -> None:
    ring = going()
    ring.tell(1, Amended(replace(ring.charter, gossip=GossipRules(rounds=99)), ring.charter.digest, WALL + DAY))
    a_round(ring)
    assert Reason.WRONG_CHARTER in ring[0].rejections and ring[1].rejections.count(Reason.WRONG_CHARTER) == 0


def test_who_was_away_for_longer_than_the_grace_is_greeted_as_soon_as_it_has_the_new_charter() -> None:
    ring = going(2)
    first, second = ring.ids
    ring.cut = {(first, second), (second, first)}
    ring.tell(0, LinkDown(second))
    ring.tell(1, LinkDown(first))
    ring.tell(0, amendment(ring, lasts_s=10.0))
    ring.settle(learn=False)
    ring.pass_time(DAY, learn=False)
    ring.cut = set()
    for k, other in ((0, second), (1, first)):
        ring.tell(k, LinkUp(other))
    ring.settle(learn=False)
    assert not ring[0].peer.neighbors.of(second).is_ready and not ring[1].peer.neighbors.of(first).is_ready
    ring.tell(1, amendment(ring))
    ring.settle(learn=False)
    assert ring[0].peer.neighbors.of(second).is_ready and ring[1].peer.neighbors.of(first).is_ready


def test_an_agreement_accepts_two_digests_at_most() -> None:
    one, two, three = (Charter("wards", bytes(32), b"s" * 32, 8, GossipRules(rounds=k)) for k in (1, 2, 3))
    agreement = Agreement(one)
    assert agreement.accepts(one.digest, 0.0) and not agreement.accepts(b"", 0.0)
    agreement.amend(two, one.digest, 100.0)
    agreement.amend(three, two.digest, 200.0)
    assert [agreement.accepts(charter.digest, 150.0) for charter in (one, two, three)] == [False, True, True]
    assert [agreement.accepts(charter.digest, 200.0) for charter in (one, two, three)] == [False, False, True]
