"""Updates mixed as each is whole: what is learned is the same, one takes memory at a time, and nothing is lost unseen."""

from collections import deque
from collections.abc import Iterable

import pytest

from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Effect, Event, Fold, Folded, FoldsLost, Learn, Learned, LinkDown, Release
from p2pfl.protocol.peer import State
from p2pfl.protocol.room import ARRIVING_BYTES, FOLDING_PLACES, Allotment, allotment
from tests.ring import Liar, Ring, books_balance
from tests.test_room import credits

LONG = 2 << 20  # three chunks
TO_0 = [(1, 0), (2, 0), (3, 0)]
STAR = [edge for k in (1, 2, 3) for edge in ((k, 0), (0, k))]


class Turns(Ring):
    """A ring whose peers fold; `most` is the largest number of long updates that peer 0 had memory for at once."""

    def __init__(self, n: int, rules: GossipRules, edges: Iterable[tuple[int, int]], **more: object) -> None:
        super().__init__(n, rules, gain=1.0, padding=LONG, edges=edges, room=FOLDING_PLACES, folds=True, **more)  # type: ignore[arg-type]
        self.most = 0

    def tell(self, k: int, event: Event) -> list[Effect]:
        effects = super().tell(k, event)
        if k == 0:
            held = [u for u in self[0].peer.inbox.slots if u.credited and not u.is_folded]
            self.most = max(self.most, len(held))
        return effects


def finished(ring: Ring) -> Ring:
    ring.start()
    ring.settle()
    for _ in range(60):
        ring.pass_time(1.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring)
    assert books_balance(ring)
    return ring


def test_what_is_folded_is_what_is_mixed_at_once() -> None:
    """The numbers differ by the order of a sum of float64 and by nothing else."""
    rules = GossipRules(rounds=5)
    folded = finished(Turns(4, rules, STAR))
    at_once = finished(Ring(4, rules, gain=1.0, padding=LONG, edges=STAR))
    assert folded.values == pytest.approx(at_once.values, rel=1e-12)
    assert [stage.peer.ledger.applied for stage in folded] == [stage.peer.ledger.applied for stage in at_once]
    assert len(folded[0].of(Fold)) == 3 * 5 and not at_once[0].of(Fold)
    assert all(not learn.arrived for learn in folded[0].of(Learn))


def test_of_many_neighbors_one_update_takes_memory_at_a_time() -> None:
    ring = finished(Turns(4, GossipRules(rounds=5), STAR))
    assert isinstance(ring, Turns) and ring.most == 1


def test_no_update_takes_memory_before_the_model_counts_that_it_is_mixed_with() -> None:
    """While we train, however long, offers wait; then the first has its turn, and the second when that one is folded."""
    ring = Turns(4, GossipRules(rounds=3), TO_0)
    first, second = Liar(ring, 1), Liar(ring, 2)
    ring.start(0)
    ring.settle(learn=False)
    for one in (first, second):
        assert credits(one.say(0, one.offer(0, value=5.0))) == []
    ring.pass_time(30.0, learn=False)
    assert ring[0].peer.state is State.LEARNING and ring.most == 0
    ring.learn(0)
    assert credits(ring[0].log) == [(3, 0)]
    for index in range(3):
        first.say(0, first.chunk(index))
    ring.settle(learn=False)
    (fold,) = ring[0].of(Fold)
    assert (fold.sender, fold.step, fold.weight) == (ring.ids[1], 0, 0.25)
    assert credits(ring[0].log) == [(3, 0)] * 2 and ring.most == 1


def test_the_weight_of_who_never_comes_stays_with_oneself() -> None:
    ring = Turns(4, GossipRules(rounds=3), TO_0)
    ring.start(0)
    ring.learn(0)  # the value is 0 + 1 now
    sent(ring, Liar(ring, 1), 5.0)
    ring.settle(learn=False)
    ring.pass_time(60.0, learn=False)
    learn = ring[0].learning
    assert learn is not None and [one.sender for one in learn.folded] == [ring.ids[1]]
    ring.learn(0)
    assert ring[0].of(Learned)[-1].metrics["value"] == 1.0 + 0.25 * (5.0 - 1.0)
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 1


@pytest.mark.fault("not finite")
def test_refused_content_is_counted_at_once_and_nobody_waits_for_another() -> None:
    ring = Turns(2, GossipRules(rounds=3, gather_s=1.0), [(1, 0)])
    liar = Liar(ring, 1)
    ring.start(0)
    ring.learn(0)
    ring.settle(learn=False)
    sent(ring, liar, float("nan"))
    ring.settle(learn=False)
    assert ring[0].rejections == [Reason.NON_FINITE]
    assert ring[0].peer.ledger.of(ring.ids[1]).rejected == 1
    assert ring[0].peer.step == 1  # without a second having passed: nothing else can come
    assert ring[0].learning is not None and ring[0].learning.folded == ()
    ring.learn(0)
    sent(ring, liar, 3.0, step=1)
    ring.settle(learn=False)
    ring.learn(0)
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 1  # the next honest one


def test_what_is_folded_is_replaced_by_no_newer_one_of_its_round() -> None:
    """Another life of the neighbor makes its update of this round anew; in the sum it would count twice."""
    ring = Turns(3, GossipRules(rounds=3), [(1, 0), (2, 0)])
    ring.start(0)
    ring.learn(0)
    sent(ring, Liar(ring, 1), 5.0)
    ring.settle(learn=False)
    again = Liar(ring, 1, epoch=2, boot_id=b"m" * 16)
    assert credits(again.say(0, again.offer(0, value=7.0))) == []
    assert ring[0].peer.ledger.of(ring.ids[1]).superseded == 1
    assert credits(again.say(0, again.offer(0, value=8.0, step=1))) == []  # of a later round: kept, and credited in that
    sent(ring, Liar(ring, 2), 1.0)
    ring.settle(learn=False)
    ring.learn(0)
    counts = ring[0].peer.ledger.of(ring.ids[1])
    assert (counts.applied, counts.superseded) == (1, 1)
    assert any(update.credited and update.header.step == 1 for update in ring[0].peer.inbox.slots)


@pytest.mark.fault("trainer")
def test_a_learner_that_ends_between_fold_and_learn_costs_what_was_folded_and_no_more() -> None:
    ring = Turns(4, GossipRules(rounds=3), TO_0)
    liars = [Liar(ring, k) for k in (1, 2, 3)]
    ring.start(0)
    ring.learn(0)
    sent(ring, liars[0], 5.0)
    ring.settle(learn=False)  # folded
    sent(ring, liars[1], 6.0)
    ring[0].inbox = deque(event for event in ring[0].inbox if not isinstance(event, Folded))  # under way, never answered
    ring.tell(0, FoldsLost("ended by the test"))
    ledger = ring[0].peer.ledger
    assert [ledger.of(ring.ids[k]).lost for k in (1, 2)] == [1, 1]
    assert len(ring[0].of(Release)) == 3  # both of theirs, and our own that nobody reads
    sent(ring, liars[2], 9.0)
    ring.settle(learn=False)  # into another sum; and then everybody's is settled
    learn = ring[0].learning
    assert learn is not None and [one.sender for one in learn.folded] == [ring.ids[3]]
    ring.learn(0)
    assert ring[0].of(Learned)[-1].metrics["value"] == 1.0 + 0.25 * (9.0 - 1.0)
    assert [ledger.of(ring.ids[k]).applied for k in (1, 2, 3)] == [0, 0, 1]
    sent(ring, liars[0], 2.0, step=1)
    ring.settle(learn=False)
    assert ring[0].of(Fold)[-1].sender == ring.ids[1]


@pytest.mark.fault("trainer")
def test_a_learn_that_fails_loses_what_was_folded_for_it() -> None:
    ring = Turns(2, GossipRules(rounds=3), [(1, 0)])
    ring.start(0)
    ring.learn(0)
    ring.settle(learn=False)
    sent(ring, Liar(ring, 1), 5.0)
    ring.settle(learn=False)
    ring[0].is_learner_broken = True
    ring.learn(0)
    assert ring[0].peer.ledger.of(ring.ids[1]).lost == 1
    assert ring[0].value == 1.0


@pytest.mark.fault("stalling")
def test_a_neighbor_that_stalls_in_its_turn_costs_one_place_and_a_part_of_one_wait() -> None:
    """It takes the first turn of every round, and sends nothing. The others are mixed in every round all the same."""
    ring = Turns(4, GossipRules(rounds=4, ceiling_s=8.0), TO_0)
    idler, *others = (Liar(ring, k) for k in (1, 2, 3))
    ring.start(0)
    ring.learn(0)
    for step in range(3):
        assert credits(idler.say(0, idler.offer(0, step=step))) == [(3, 0)]
        for one in others:
            assert credits(one.say(0, one.offer(0, value=4.0, step=step))) == []
        ring.pass_time(1.9, learn=False)
        assert ring[0].peer.deadline == pytest.approx(ring.time + 0.1)  # a quarter of the ceiling from its beginning
        ring.pass_time(0.2, learn=False)
        for one in others:
            for index in range(3):
                one.say(0, one.chunk(index))
            ring.settle(learn=False)
        assert len(ring[0].of(Fold)) == 2 * (step + 1)
        ring.pass_time(30.0, learn=False)
        ring.learn(0)
        ring.settle(learn=False)
    assert ring.most == 2
    assert [ring[0].peer.ledger.of(ring.ids[k]).applied for k in (1, 2, 3)] == [0, 3, 3]


def test_a_link_that_breaks_under_a_folded_update_takes_nothing_back() -> None:
    ring = Turns(3, GossipRules(rounds=3), [(1, 0), (2, 0)])
    ring.start(0)
    ring.learn(0)
    sent(ring, Liar(ring, 1), 5.0)
    ring.settle(learn=False)
    ring.tell(0, LinkDown(ring.ids[1]))
    ring.pass_time(60.0, learn=False)
    assert ring[0].learning is not None and len(ring[0].learning.folded) == 1


def test_asynchronous_gossip_is_mixed_in_the_order_of_ids_and_does_not_fold() -> None:
    with pytest.raises(ValueError, match="all at once"):
        Ring(2, GossipRules(mode="async"), folds=True)


@pytest.mark.parametrize(
    ("neighbors", "update_bytes", "can_fold", "expected"),
    [
        (2, 2_600, True, Allotment(ARRIVING_BYTES // 2_600, False)),
        (1, 100_000_000, True, Allotment(1, False)),
        (3, 100_000_000, True, Allotment(3, True)),
        (1_023, 100_000_000, True, Allotment(FOLDING_PLACES, True)),
        (3, 100_000_000, False, Allotment(3, False)),
    ],
)
def test_updates_take_turns_where_there_is_no_memory_for_one_of_each_neighbor(
    neighbors: int, update_bytes: int, can_fold: bool, expected: Allotment
) -> None:
    assert allotment(neighbors, update_bytes, can_fold) == expected


def sent(ring: Ring, liar: Liar, value: float, step: int = 0) -> None:
    """An update of one number and two megabytes of nothing: offered, and delivered if it was credited."""
    liar.say(0, liar.offer(0, value=value, step=step))
    ring.settle(learn=False)
    for index in range(3):
        liar.say(0, liar.chunk(index))
        while any(not isinstance(event, Folded) for event in ring[0].inbox):
            ring.tell(0, ring[0].inbox.popleft())
