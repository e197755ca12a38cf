"""Unlucky networks, machines and moments: what each costs a peer, and that it costs no more."""

from collections import deque
from collections.abc import Callable

import pytest

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import (
    Finished,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LinkDown,
    LinkUp,
    Opened,
    Outgoing,
    Payload,
    Persist,
    Release,
    RoundEnded,
    Seal,
    Sealed,
    Send,
    StopRequested,
)
from p2pfl.protocol.peer import State
from tests.ring import Ring, books_balance

ROUNDS = GossipRules(rounds=4, floor_s=0.5, ceiling_s=5.0, gather_s=5.0)

Frames = tuple[bytes, ...]


def started(rules: GossipRules = ROUNDS, n: int = 3, **settings: object) -> Ring:
    """Everybody is linked and learns."""
    ring = Ring(n, rules, **settings)  # type: ignore[arg-type]
    ring.start()
    ring.settle(learn=False)
    return ring


def lose(ring: Ring, is_lost: Callable[[int, int, wire.Message], bool]) -> None:
    """From now on, messages of which this is true vanish."""

    def tamper(a: bytes, b: bytes, frames: Frames) -> Frames | None:
        return None if is_lost(ring.ids.index(a), ring.ids.index(b), wire.decode(frames[0])) else frames

    ring.tamper = tamper


def run_late(ring: Ring, latency_s: float, seconds: float) -> None:
    """So long, during which every message takes `latency_s`."""
    under_way: deque[tuple[float, int, FrameReceived]] = deque()
    ring.tamper = lambda a, b, frames: under_way.append((ring.time + latency_s, ring.ids.index(b), FrameReceived(a, frames)))
    until = ring.time + seconds
    ring.settle()
    while ring.time < until:
        deadlines = [stage.peer.deadline for stage in ring if stage.peer.deadline is not None]
        moments = [until, *deadlines, *(due for due, *_ in list(under_way)[:1])]
        ring.pass_time(max(min(moments), ring.time) - ring.time)
        while under_way and under_way[0][0] <= ring.time:
            _, k, event = under_way.popleft()
            ring.tell(k, event)
        ring.settle()


def everyone_ends(ring: Ring, within_s: float = 100.0) -> None:
    ring.settle()
    ring.pass_time(within_s)
    assert [stage.peer.state for stage in ring] == [State.FINISHED] * len(ring.stages)


# ---- the end ------------------------------------------------------------------------------------------------------------


def test_a_learner_that_answers_after_the_stop_wakes_nobody_and_its_payloads_are_given_back() -> None:
    ring = started()
    for k in range(3):
        ring.learn(k)
    ring.settle(learn=False)
    assert len(ring[0].learning.arrived) == 2
    ring.tell(0, StopRequested())
    ring.learn(0)
    assert ring[0].peer.state is State.FINISHED
    assert ring[0].peer.deadline is None
    assert len([e for e in ring[0].log[-4:] if isinstance(e, Release)]) == 3
    assert ring[0].peer.ledger.of(ring.ids[1]).lost == 1


def test_after_the_end_a_peer_gives_back_what_was_sealed_or_opened_and_says_nothing() -> None:
    ring = started(n=2, padding=70_000)
    ring.learn(1)
    while not any(isinstance(event, Opened) for event in ring[0].inbox):
        for k in (0, 1):
            if ring[k].inbox:
                ring.tell(k, ring[k].inbox.popleft())
    ring.learn(0)
    ring.tell(0, StopRequested())
    late = [ring.tell(0, event) for event in list(ring[0].inbox)]
    assert sorted(type(e).__name__ for effects in late for e in effects) == ["Release", "Release"]
    assert ring.tell(0, LinkUp(ring.ids[1])) == []


def test_a_peer_stopped_before_it_ever_learned_starts_with_its_first_round() -> None:
    ring = started()
    ring.tell(0, StopRequested())
    state = ring[0].of(Persist)[-1].state
    ring.kill(0)
    ring.restart(0, state)
    assert [(learn.step, learn.local_steps) for learn in ring[0].of(Learn)] == [(0, 5)]


def test_on_a_directed_graph_nobody_stays_for_those_it_does_not_send_to() -> None:
    """Good-byes go against the arrows too: whoever sends to a peer stays until that one is done."""
    ring = Ring(6, ROUNDS, edges=[(i, (i + hop) % 6) for i in range(6) for hop in (1, 2)])
    ring.start()
    ring.settle()
    assert [stage.peer.state for stage in ring] == [State.FINISHED] * 6
    assert ring.time == 0.0
    assert books_balance(ring)


@pytest.mark.parametrize("n", [2, 5])
def test_stars_and_complete_graphs_end_without_waiting(n: int) -> None:
    star = [(0, k) for k in range(1, n)] + [(k, 0) for k in range(1, n)]
    for edges in (star, [(i, j) for i in range(n) for j in range(n) if i != j]):
        ring = Ring(n, ROUNDS, edges=edges)
        ring.start()
        ring.settle()
        assert [stage.peer.state for stage in ring] == [State.FINISHED] * n


def test_who_never_says_good_bye_is_stayed_for_until_the_ceiling() -> None:
    ring = started()
    lose(ring, lambda a, b, message: isinstance(message, wire.Bye))
    ring.settle()
    assert ring[0].peer.state is State.PARTING
    assert ring[0].peer.deadline == 5.0
    ring.pass_time(5.0)
    assert ring[0].peer.state is State.FINISHED


def test_with_no_last_round_a_peer_goes_on_until_it_is_stopped() -> None:
    ring = started(GossipRules(rounds=0))
    for _ in range(50):
        for k in range(3):
            ring.learn(k)
        ring.settle(learn=False)
    assert ring[0].peer.step == 50
    assert [type(e) for e in ring.tell(0, StopRequested())] == [Persist, Send, Send, Finished]


# ---- links --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("one-way link")
def test_one_way_links_are_no_links_and_nobody_waits_for_them() -> None:
    ring = Ring(3, ROUNDS)
    ring.cut = {(ring.ids[2], ring.ids[0]), (ring.ids[2], ring.ids[1])}
    ring.start()
    ring.settle()
    ring.pass_time(5.0)
    assert ring[0].peer.state is ring[1].peer.state is State.FINISHED
    assert ring[0].peer.ledger.of(ring.ids[2]).sent == 0


def test_an_offer_opens_the_way_that_a_lost_hello_left_closed() -> None:
    ring = Ring(2, ROUNDS)
    lose(ring, lambda a, b, message: isinstance(message, wire.Hello) and a == 0)
    ring.start()
    ring.settle()
    assert [stage.peer.state for stage in ring] == [State.FINISHED] * 2
    assert ring.time == 0.0


def test_a_link_that_flaps_does_not_forget_who_has_parted() -> None:
    """The parted peer may notice nothing and so has no reason to say good-bye again."""
    ring = started(n=2)
    ring.tell(0, FrameReceived(ring.ids[1], (wire.encode(wire.Bye(4)),)))
    ring.tell(0, LinkDown(ring.ids[1]))
    ring.tell(0, LinkUp(ring.ids[1]))
    ring[1].is_learner_stalled = True
    ring.settle()
    assert ring[0].peer.state is State.FINISHED
    assert ring.time == 0.0


@pytest.mark.fault("loss")
@pytest.mark.parametrize("index", range(3))
def test_a_lost_chunk_costs_its_update_and_one_deadline(index: int) -> None:
    ring = started(GossipRules(rounds=3, floor_s=0.5, ceiling_s=5.0, gather_s=5.0), n=2, padding=2 << 20)
    lost: list[int] = []

    def is_lost(a: int, b: int, message: wire.Message) -> bool:
        if a == 1 and isinstance(message, wire.Chunk) and message.index == index and not lost:
            lost.append(index)
            return True
        return False

    lose(ring, is_lost)
    everyone_ends(ring)
    assert lost
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 2
    assert sorted(ended.waited_s for ended in ring[0].of(RoundEnded))[-2:] == [0.0, 5.0]
    assert books_balance(ring)


@pytest.mark.fault("slow links")
@pytest.mark.parametrize(("n", "padding"), [(2, 0), (4, 0), (2, 70_000)])
def test_a_link_that_gets_slower_than_the_deadline_stretches_it_and_carries_updates_again(n: int, padding: int) -> None:
    """Else every update came when its round is over, nobody saw one, and the deadline stayed what it was, for ever."""
    rules = GossipRules(rounds=0, floor_s=1.0, ceiling_s=20.0, gather_s=5.0)
    ring = Ring(n, rules, padding=padding, edges=[(i, j) for i in range(n) for j in range(n) if i != j])
    ring.start()
    run_late(ring, latency_s=0.01, seconds=2.0)
    applied = ring[0].peer.ledger.of(ring.ids[1]).applied
    assert applied >= 20
    assert ring[0].of(RoundEnded)[-1].waited_s < 0.1

    run_late(ring, latency_s=2.5, seconds=200.0)
    applied = ring[0].peer.ledger.of(ring.ids[1]).applied
    run_late(ring, latency_s=2.5, seconds=100.0)
    assert ring[0].peer.ledger.of(ring.ids[1]).applied >= applied + 5
    assert all(ended.waited_s <= 20.0 for ended in ring[0].of(RoundEnded))


# ---- restarts -----------------------------------------------------------------------------------------------------------


@pytest.mark.fault("kill")
@pytest.mark.parametrize("moment", range(1, 60, 3))
def test_a_peer_may_be_killed_and_started_again_at_any_moment(moment: int) -> None:
    """From its newest checkpoint, or from nothing. Nobody is held up for longer than a deadline or two."""
    ring = Ring(3, GossipRules(rounds=4, floor_s=0.5, ceiling_s=5.0, gather_s=5.0, checkpoint_s=1e-9), padding=1_100_000)
    ring.start()
    ring.time = 1.0
    while len(ring[2].log) < moment and any(stage.inbox or stage.learning for stage in ring):
        k = next((k for k in (2, 0, 1) if ring[k].inbox), None)
        if k is not None:
            ring.tell(k, ring[k].inbox.popleft())
        else:
            ring.learn(next(k for k in (2, 0, 1) if ring[k].learning))
    persisted = ring[2].of(Persist)
    ring.kill(2)
    ring.restart(2, persisted[-1].state if persisted else None)
    everyone_ends(ring, within_s=40.0)
    for stage in ring.stages[:2]:
        assert all(ended.waited_s <= 5.0 for ended in stage.of(RoundEnded))


# ---- slow machines ------------------------------------------------------------------------------------------------------


def test_a_slow_sealer_has_one_update_at_a_time_and_never_keeps_it() -> None:
    """However long it takes, the next Learn waits for it; so own payloads can't pile up in shared memory."""
    ring = Ring(2, GossipRules(rounds=3, floor_s=0.0), edges=[(0, 1)])
    ring.start(0)
    ring.learn(0)
    (answer,) = (event for event in ring[0].inbox if isinstance(event, Sealed))
    ring[0].inbox.clear()
    ring.pass_time(100.0)
    assert ring[0].learning is None
    assert ring[0].peer.deadline is None  # nothing to wake up for; the answer will
    assert len(ring[0].of(Seal)) == 1
    assert [type(e) for e in ring.tell(0, answer)] == [Release, Learn]


@pytest.mark.fault("stalling")
def test_a_stalled_learner_costs_its_neighbors_the_adaptive_deadline_and_no_more() -> None:
    ring = started(GossipRules(rounds=12, floor_s=0.5, ceiling_s=5.0, gather_s=5.0), n=4)
    ring[3].is_learner_stalled = True
    ring.settle()
    ring.pass_time(60.0)
    for k in (0, 1, 2):
        waits = [ended.waited_s for ended in ring[k].of(RoundEnded)]
        assert ring[k].peer.state is State.FINISHED
        assert all(wait <= 5.0 for wait in waits)
        assert waits[-2] <= 0.5


def test_an_update_for_nobody_is_not_even_sealed() -> None:
    ring = started()
    plain = bytes(8)
    ring[0].learning = None
    outgoing = Outgoing(Payload(8, envelope.digest(plain), plain), readers=())
    effects = ring[0].peer.handle(Learned(0, (outgoing,), (), {}), Instant(0.0, 0.0))
    assert Release(outgoing.payload) in effects
    assert not [e for e in effects if isinstance(e, Seal)]


@pytest.mark.fault("alone")
def test_a_peer_that_is_cut_off_waits_for_its_links_before_it_goes_on_alone() -> None:
    """Otherwise a second without links would cost it all its rounds."""
    ring = Ring(2, GossipRules(rounds=50, floor_s=1.0, ceiling_s=2.0, gather_s=1.0), gain=1.0)
    ring.start()
    ring.settle(learn=False)
    ring.kill(1)
    ring.settle()
    ring.pass_time(10.0)
    assert 3 <= ring[0].peer.step <= 11
