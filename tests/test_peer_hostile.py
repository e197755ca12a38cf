"""A member that lies, a relay, a stranger: each costs a counted refusal or nothing, and never more than a deadline."""

from dataclasses import replace
from typing import Any

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Learn, LinkDown, LinkUp, Open, RoundEnded, Send
from p2pfl.protocol.peer import State
from tests.ring import Liar, Ring

ROUNDS = GossipRules(rounds=6, floor_s=0.5, ceiling_s=5.0, gather_s=5.0)
HUGE = 2**63 - 1


def with_liar(rules: GossipRules = ROUNDS, n: int = 3, **settings: Any) -> tuple[Ring, Liar]:
    """Peers 0 .. n-1, all linked; the last one is the liar, who has said hello and hears everything from now on."""
    ring = Ring(n, rules, values=[0.0] * n, **settings)
    ring.start()
    ring.settle(learn=False)
    ring[n - 1].is_learner_stalled = True
    ring.tamper = lambda a, b, frames: None if ring.ids[n - 1] in (a, b) else frames
    return ring, Liar(ring, n - 1, boot_id=ring[n - 1].peer._boot.id)


def finish_learning(ring: Ring, *ks: int) -> None:
    """These learners answer, if they were asked, and everything that follows from it is delivered."""
    ring.settle(learn=False)
    for k in ks:
        if ring[k].learning is not None:
            ring.learn(k)
    ring.settle(learn=False)


def sends(effects: list) -> list[wire.Message]:
    return [wire.decode(bytes(e.frames[0])) for e in effects if isinstance(e, Send)]


def everyone_honest_ends(ring: Ring, within_s: float = 200.0) -> None:
    ring.settle()
    ring.pass_time(within_s)
    assert all(stage.peer.state is State.FINISHED for stage in ring.stages[:-1])


# ---- refused, counted, and nothing else moves ---------------------------------------------------------------------------

STRANGE = [
    ({"network": b"x" * 16}, Reason.WRONG_NETWORK),
    ({"charter": b"x" * 32}, Reason.WRONG_CHARTER),
    ({"schema": b"x" * 32}, Reason.BAD_SCHEMA),
    ({"step": 10**9}, Reason.FUTURE_STEP),
    ({"step": 6}, Reason.FUTURE_STEP),  # six rounds have steps 0 to 5; nobody ever offers the last mix
    ({"boot_epoch": 0, "seq": 0}, Reason.REPLAYED),
]


@pytest.mark.fault("another layout", "another network", "step", "replay")
@pytest.mark.parametrize(("changes", "reason"), STRANGE)
def test_what_is_wrong_before_the_signature_moves_nothing_but_the_counter(changes: dict, reason: Reason) -> None:
    ring, liar = with_liar()
    liar.say(0, liar.offer(0, step=0))
    before = ring[0].peer._window.to_plain(), ring[0].peer.step, ring[0].peer.deadline, len(list(ring[0].peer.inbox.slots))
    assert not [e for e in liar.say(0, liar.offer(0, **changes)) if isinstance(e, Open)]
    assert ring[0].rejections == [reason]
    assert ring[0].peer.ledger.reasons == {(ring.ids[2], reason): 1}
    after = ring[0].peer._window.to_plain(), ring[0].peer.step, ring[0].peer.deadline, len(list(ring[0].peer.inbox.slots))
    assert after == before
    finish_learning(ring, 0, 1)
    liar.say(0, liar.offer(0, step=1))
    everyone_honest_ends(ring)
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 2  # both honest ones


@pytest.mark.fault("another layout")
def test_an_update_of_another_length_is_refused_before_its_payload_is_touched() -> None:
    ring, liar = with_liar()
    head, body = liar.offer(0)
    offer = wire.decode(head)
    assert not [e for e in liar.say(0, (wire.encode(replace(offer, length=offer.length + 1)), body)) if isinstance(e, Open)]
    assert ring[0].rejections == [Reason.BAD_SCHEMA]


SIGNED = [
    ({"readers_digest": b"x" * 32}, Reason.BAD_READERS),
    ({"key_commitment": b"x" * 32}, Reason.BAD_COMMITMENT),
]


@pytest.mark.fault("wrong reader")
@pytest.mark.parametrize(("changes", "reason"), SIGNED)
def test_what_is_wrong_under_a_good_signature_costs_the_signer_its_sequence_number(changes: dict, reason: Reason) -> None:
    ring, liar = with_liar()
    frames = liar.offer(0, **changes)
    liar.say(0, frames)
    liar.say(0, frames)
    assert ring[0].rejections == [reason, Reason.REPLAYED]
    assert ring[0].peer.ledger.of(ring.ids[2]).rejected == 1
    liar.say(0, liar.offer(0))
    finish_learning(ring, 0)
    everyone_honest_ends(ring)
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 1


@pytest.mark.fault("wrong reader")
def test_an_update_for_others_or_wrapped_for_others_is_refused() -> None:
    ring, liar = with_liar()
    liar.say(0, liar.offer(1))
    liar.say(0, liar.offer(0, wrapped_for=1))
    assert ring[0].rejections == [Reason.NOT_FOR_US, Reason.BAD_WRAP]


@pytest.mark.fault("replay")
def test_a_gap_of_a_million_sequence_numbers_is_accepted_once_and_the_highest_too() -> None:
    ring, liar = with_liar()
    for seq, reason in (
        (5, None),
        (3, None),
        (3, Reason.REPLAYED),
        (10**6, None),
        (10**6, Reason.REPLAYED),
        (5, Reason.REPLAYED),
    ):
        before = len(ring[0].rejections)
        liar.say(0, liar.offer(0, boot_epoch=2, seq=seq))
        assert ring[0].rejections[before:] == ([] if reason is None else [reason])
    liar.say(0, liar.offer(0, boot_epoch=HUGE, seq=HUGE, part=1))
    assert ring[0].rejections[-1] is Reason.REPLAYED


@pytest.mark.fault("claimed weight")
def test_ages_and_sample_counts_move_no_weight_in_rounds() -> None:
    ring, liar = with_liar()
    for age, samples in ((HUGE, HUGE), (0, 0)):
        liar.say(0, liar.offer(0, step=ring[0].peer.step, age=age, samples=samples))
        finish_learning(ring, 0, 1)
        learn = ring[0].of(Learn)[-1]
        assert learn.weights[ring.ids[2]] == pytest.approx(1 / 3)
    assert ring[0].peer.age <= 5 * 3


@pytest.mark.fault("claimed weight")
def test_an_age_beyond_belief_gets_little_more_than_half_of_the_weight_in_async() -> None:
    ring, liar = with_liar(GossipRules(mode="async", rounds=4, period_s=1.0, age_cap=10))
    finish_learning(ring, 0)
    liar.say(0, liar.offer(0, age=HUGE, samples=HUGE))
    ring.settle(learn=False)
    ring.pass_time(1.2)
    learn = ring[0].of(Learn)[1]
    assert learn.weights[ring.ids[2]] == pytest.approx(15 / 20)
    assert sum(learn.weights.values()) == pytest.approx(1.0)


# ---- lies about where one is --------------------------------------------------------------------------------------------


@pytest.mark.fault("step")
def test_fewer_than_half_of_the_neighbors_cannot_carry_a_peer_away_and_it_ends_its_rounds() -> None:
    rules = GossipRules(rounds=0, floor_s=0.5, ceiling_s=1.0, gather_s=1.0)
    everybody = [(i, j) for i in range(4) for j in range(4) if i != j]
    ring = Ring(4, rules, edges=everybody)
    ring.start()
    ring.settle(learn=False)
    ring[3].is_learner_stalled = True
    liar = Liar(ring, 3)
    liar.say(0, liar.offer(0, step=900))
    finish_learning(ring, 0)
    ring.pass_time(1.0, learn=False)  # nobody else offers anything in time
    assert ring[0].peer.step == 1


@pytest.mark.fault("step")
def test_a_peer_away_for_longer_than_the_step_window_still_finds_back() -> None:
    """Its neighbors' updates are refused as too far ahead, but what they signed still says where they are."""
    rules = GossipRules(rounds=0, floor_s=0.5, ceiling_s=1.0, gather_s=1.0, step_window=10)
    ring, liar = with_liar(rules, n=2)
    for step in range(25, 30):
        liar.say(0, liar.offer(0, step=step))
        finish_learning(ring, 0)
        ring.pass_time(1.0, learn=False)
    assert ring[0].rejections == [Reason.FUTURE_STEP] * 2
    assert ring[0].peer.step >= 27


@pytest.mark.fault("step")
def test_an_update_older_than_staleness_allows_is_superseded_and_never_fetched() -> None:
    ring, liar = with_liar(replace(ROUNDS, staleness=1))
    for step in range(3):
        for k in (0, 1):
            liar.say(k, liar.offer(k, step=step))
        finish_learning(ring, 0, 1)
    assert ring[0].peer.step == 3
    assert not [e for e in liar.say(0, liar.offer(0, step=1, part=1)) if isinstance(e, Open)]
    assert [e for e in liar.say(0, liar.offer(0, step=2, part=1)) if isinstance(e, Open)]
    assert ring[0].rejections == []
    assert ring[0].peer.ledger.of(ring.ids[2]).superseded == 1


def test_a_step_ahead_is_no_reason_to_refuse_in_async() -> None:
    """No step decides anything there; a peer that was away would be alone for ever."""
    ring, liar = with_liar(GossipRules(mode="async", rounds=0, step_window=10))
    liar.say(0, liar.offer(0, step=1000))
    assert ring[0].rejections == []


@pytest.mark.fault("stalling")
def test_a_hello_with_a_new_boot_id_each_time_gets_one_answer_each_and_no_update() -> None:
    ring, liar = with_liar()
    finish_learning(ring, 0)
    for i in range(100):
        answers = sends(liar.say(0, liar.hello(i.to_bytes(16, "big"), step=HUGE, reply=True)))
        assert [type(answer) for answer in answers] == [wire.Hello]
    everyone_honest_ends(ring)


@pytest.mark.fault("stalling")
def test_a_good_bye_that_is_not_meant_only_costs_the_liar() -> None:
    ring, liar = with_liar()
    liar.say(0, (wire.encode(wire.Bye(HUGE)),))
    liar.say(1, (wire.encode(wire.Bye(HUGE)),))
    ring.settle()
    assert ring.time == 0.0
    assert all(ring[k].peer.state is State.FINISHED for k in (0, 1))


def test_a_neighbor_that_offers_again_after_its_good_bye_is_a_neighbor_again() -> None:
    """A good-bye of its earlier life may come late; who offers is not done."""
    ring, liar = with_liar()
    liar.say(0, (wire.encode(wire.Bye(0)),))
    liar.say(0, liar.offer(0))
    finish_learning(ring, 0)
    offered = [e for e in ring[0].of(Send) if e.to == ring.ids[2] and isinstance(wire.decode(e.frames[0]), wire.Offer)]
    assert len(offered) == 1


# ---- holding a peer up --------------------------------------------------------------------------------------------------


@pytest.mark.fault("stalling")
def test_an_offer_whose_chunks_never_come_costs_one_deadline_a_round() -> None:
    ring, liar = with_liar(replace(ROUNDS, rounds=10), padding=2 << 20)
    for step in range(8):
        liar.say(0, liar.offer(0, step=step))
        finish_learning(ring, 0, 1)
        ring.pass_time(5.0, learn=False)
    waits = [ended.waited_s for ended in ring[0].of(RoundEnded)][1:]
    assert waits
    assert all(wait <= 5.0 for wait in waits)
    assert waits[-1] == 0.5  # half of the observations are honest, and that is enough
    everyone_honest_ends(ring)


@pytest.mark.fault("stalling")
def test_a_minority_that_is_late_on_purpose_cannot_stretch_the_deadline() -> None:
    """Each round one of three neighbors sends many updates under many parts, all just in time; it counts once."""
    everybody = [(i, j) for i in range(4) for j in range(4) if i != j]
    ring, liar = with_liar(replace(ROUNDS, rounds=20), n=4, edges=everybody)
    for step in range(8):
        for honest in (1, 2):
            liar.say(honest, liar.offer(honest, step=step, value=2.0))
        finish_learning(ring, 0, 1, 2)
        assert ring[0].peer.state is State.WAITING
        ring.time = ring[0].peer.deadline - 0.01
        for part in range(20):
            liar.say(0, liar.offer(0, step=step, part=part, value=1.0, inline=False))
        for part in range(20):
            liar.say(0, liar.offer(0, step=step, part=20 + part))
        finish_learning(ring)
    waits = [ended.waited_s for ended in ring[0].of(RoundEnded)]
    assert ring[0].peer.step == 8
    assert waits[-1] <= 0.5
    everyone_honest_ends(ring)


def test_a_slow_peer_whose_neighbors_are_always_early_has_an_adaptive_deadline_too() -> None:
    rules = GossipRules(rounds=12, floor_s=0.5, ceiling_s=5.0, gather_s=5.0)
    ring, liar = with_liar(rules)
    for step in range(6):
        finish_learning(ring, 1)
        ring.time += 1.0
        for k in (0, 1):
            liar.say(k, liar.offer(k, step=step))
        ring.settle(learn=False)
        if ring[0].learning:
            finish_learning(ring, 0)
        ring.pass_time(0.0)
    everyone_honest_ends(ring)
    waits = [ended.waited_s for ended in ring[0].of(RoundEnded)]
    assert waits[7] == 0.5  # the first for somebody who has fallen silent


# ---- chunks and credit --------------------------------------------------------------------------------------------------


@pytest.mark.fault("chunks")
def test_chunks_out_of_order_twice_or_after_the_end_are_refused_and_the_update_still_comes() -> None:
    ring, liar = with_liar(padding=2 << 20)
    liar.say(0, liar.offer(0))
    for index in (1, 0, 0, 1, 2, 2):
        liar.say(0, liar.chunk(index))
    ring.settle(learn=False)
    assert ring[0].rejections == [Reason.UNEXPECTED_CHUNK] * 3
    finish_learning(ring, 0)
    everyone_honest_ends(ring)
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 1


@pytest.mark.fault("chunks")
def test_a_chunk_of_another_length_or_content_ends_the_update_and_blames_its_signer() -> None:
    ring, liar = with_liar(padding=2 << 20)
    for wrong in (lambda chunk: chunk[:-1], lambda chunk: b"\0" + chunk[1:]):
        liar.say(0, liar.offer(0, part=liar.seq % 7))
        head, body = liar.chunk(0)
        liar.say(0, (head, wrong(body)))
        ring.settle(learn=False)
    assert ring[0].rejections == [Reason.BAD_CHUNK] * 2
    assert ring[0].peer.ledger.of(ring.ids[2]).rejected == 2
    assert not list(ring[0].peer.inbox.slots)
    everyone_honest_ends(ring)


@pytest.mark.fault("chunks")
def test_credit_counts_only_for_what_was_offered_and_each_chunk_is_sent_once() -> None:
    ring, liar = with_liar(padding=4 << 20)
    finish_learning(ring, 0)
    offer = next(m for m in sends(ring[0].of(Send)) if isinstance(m, wire.Offer))
    name = wire.decode_header(offer.header).chunks_digest
    sent = [len(sends(liar.say(0, (wire.encode(wire.Credit(name, upto)),)))) for upto in (4096, 4096, 1, 5)]
    assert sent == [5, 0, 0, 0]
    assert liar.say(0, (wire.encode(wire.Credit(b"x" * 32, 4096)),)) == []
    assert ring[0].rejections == []


@pytest.mark.fault("stalling")
def test_offers_without_end_hold_two_payloads_and_no_more() -> None:
    ring, liar = with_liar(padding=2 << 20)
    for i in range(60):
        liar.say(0, liar.offer(0, step=i % 6, part=i))
        liar.say(0, liar.chunk(0))
        ring.settle(learn=False)
        assert len(list(ring[0].peer.inbox.slots)) <= 2
        assert len(ring[0].peer.inbox._opening) <= 2
    everyone_honest_ends(ring)


# ---- saying two things --------------------------------------------------------------------------------------------------


@pytest.mark.fault("equivocation")
def test_two_contents_for_one_step_are_equivocation_and_the_first_one_counts() -> None:
    ring, liar = with_liar()
    liar.say(0, liar.offer(0, value=1.0))
    liar.say(0, liar.offer(0, value=2.0))
    assert ring[0].rejections == [Reason.EQUIVOCATION]
    ring.settle(learn=False)
    finish_learning(ring, 0, 1)
    assert [a.payload.buffer[:8] for a in ring[0].of(Learn)[1].arrived if a.sender == ring.ids[2]] == [b"\0" * 6 + b"\xf0\x3f"]


def test_another_content_after_a_restart_is_no_equivocation() -> None:
    ring, liar = with_liar()
    liar.say(0, liar.offer(0, value=1.0))
    again = Liar(ring, 2, epoch=2, boot_id=b"m" * 16)
    again.say(0, again.offer(0, value=2.0))
    assert ring[0].rejections == []


def test_what_was_mixed_is_not_mixed_again_when_it_is_offered_again() -> None:
    """A resend after a link came back must not stand in for the next round's update; nor is it fetched again."""
    ring, liar = with_liar()
    liar.say(0, liar.offer(0, value=1.0))
    finish_learning(ring, 0, 1)
    assert ring[0].peer.step == 1
    assert not [e for e in liar.say(0, liar.offer(0, value=1.0)) if isinstance(e, Open)]
    everyone_honest_ends(ring)
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 1
    assert ring[0].peer.ledger.of(ring.ids[2]).superseded == 1


@pytest.mark.fault("stalling")
def test_a_link_that_the_other_side_tears_down_without_end_costs_one_offer_each_time() -> None:
    ring, liar = with_liar()
    finish_learning(ring, 0, 1)
    for _ in range(10):
        ring.tell(0, LinkDown(ring.ids[2]))
        said = sends(ring.tell(0, LinkUp(ring.ids[2])) + liar.say(0, liar.hello(reply=True)))
        assert sum(isinstance(message, wire.Offer) for message in said) == 1
    everyone_honest_ends(ring)
