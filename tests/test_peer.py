"""The protocol as transcripts: real peers on fake links, and a clock that only the test moves."""

import math
from dataclasses import replace

import msgpack
import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Finished,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LinkDown,
    LinkUp,
    Open,
    Outgoing,
    Payload,
    Persist,
    RoundEnded,
    Seal,
    Send,
    Started,
    StopRequested,
)
from p2pfl.protocol.peer import State
from tests.ring import Ring, books_balance

ROUNDS = GossipRules(rounds=3, floor_s=0.5, ceiling_s=10.0, gather_s=20.0)


def run(ring: Ring) -> Ring:
    ring.start()
    ring.settle()
    return ring


def drop_updates(ring: Ring, sender: int, *receivers: int) -> None:
    """From now on, offers and chunks of one peer to some others vanish; its small messages pass."""
    silent = {(ring.ids[sender], ring.ids[r]) for r in receivers}

    def tamper(a: bytes, b: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
        is_update = isinstance(wire.decode(frames[0]), wire.Offer | wire.Chunk)
        return None if (a, b) in silent and is_update else frames

    ring.tamper = tamper


# ---- rounds -------------------------------------------------------------------------------------------------------------


def test_two_peers_meet_in_the_middle() -> None:
    ring = run(Ring(2, GossipRules(rounds=1), values=[0.0, 1.0]))
    assert ring.values == [0.5, 0.5]


def test_gossip_on_a_ring_contracts_as_its_eigenvalue_says_and_preserves_the_mean() -> None:
    """A cosine is an eigenvector of the ring with weights 1/3: each round multiplies it by (1 + 2 cos(2 pi / n)) / 3."""
    n, rounds = 8, 5
    wave = [math.cos(2 * math.pi * k / n) for k in range(n)]
    ring = run(Ring(n, GossipRules(rounds=rounds), values=[3.0 + w for w in wave]))
    factor = ((1 + 2 * math.cos(2 * math.pi / n)) / 3) ** rounds
    assert ring.values == pytest.approx([3.0 + factor * w for w in wave], abs=1e-12)


def test_every_round_mixes_then_trains_and_the_last_only_mixes() -> None:
    """R rounds train R times: R + 1 Learns, the first has nothing to mix, the last trains no more."""
    ring = run(Ring(4, ROUNDS, gain=1.0, values=[0.0] * 4))
    assert ring.values == pytest.approx([3.0] * 4)
    learns = ring[0].of(Learn)
    assert [learn.step for learn in learns] == [0, 1, 2, 3]
    assert [learn.local_steps for learn in learns] == [5, 5, 5, 0]
    assert [len(learn.arrived) for learn in learns] == [0, 2, 2, 2]
    assert ring[0].peer.age == 15


def test_everyone_finishes_and_every_update_is_accounted_for() -> None:
    ring = run(Ring(5, ROUNDS))
    for stage in ring:
        assert [e.step for e in stage.of(Finished)] == [3]
        assert stage.peer.state is State.FINISHED
        assert stage.rejections == []
    assert books_balance(ring)
    assert ring[0].peer.ledger.sent == 3 * 2 == ring[0].peer.ledger.applied


def test_arrivals_are_mixed_in_canonical_order() -> None:
    ring = run(Ring(5, ROUNDS))
    for learn in ring[2].of(Learn):
        senders = [arrived.sender for arrived in learn.arrived]
        assert senders == sorted(senders)


def test_a_peer_alone_trains_through_all_its_rounds() -> None:
    ring = run(Ring(1, ROUNDS, gain=1.0, values=[0.0]))
    assert ring.values == [3.0]
    assert ring[0].of(Finished)


def test_an_update_of_many_chunks_is_sent_only_as_credit_is_granted() -> None:
    """40 MiB: 41 chunks, of which a receiver credits 16 at a time."""
    ring = Ring(2, GossipRules(rounds=1), padding=40 << 20)
    ahead = 0

    def watch(a: bytes, b: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        nonlocal ahead
        message = wire.decode(frames[0])
        if isinstance(message, wire.Chunk) and b == ring.ids[1]:
            ahead = max(ahead, message.index + 1 - len(ring[1].of(Open)))
        return frames

    ring.tamper = watch
    run(ring)
    assert ring.values == [0.5, 0.5]
    assert 0 < ahead <= 16
    assert len(ring[1].of(Open)) == 41
    assert books_balance(ring)


# ---- neighbors who are gone, late or left behind ------------------------------------------------------------------------


def test_the_first_updates_are_awaited_until_neighbors_had_time_to_start() -> None:
    ring = Ring(3, ROUNDS, values=[0.0, 0.0, 9.0])
    ring.start(0, 1)
    ring.cut = {(a, b) for a in ring.ids for b in ring.ids if ring.ids[2] in (a, b)}
    ring.settle()
    assert ring[0].peer.state is State.WAITING
    ring.pass_time(19.9)
    assert ring[0].peer.step == 0
    ring.pass_time(0.1)
    assert ring[0].peer.state is State.FINISHED


def test_a_killed_neighbor_is_not_waited_for_and_its_weight_stays_with_the_peer() -> None:
    ring = Ring(3, ROUNDS, values=[0.0, 3.0, 6.0])
    ring.start()
    ring.settle(learn=False)
    ring.kill(2)
    ring.settle()
    assert ring.time == 0.0 or ring[0].peer.state is State.WAITING
    ring.pass_time(20.0)
    assert ring[0].peer.state is State.FINISHED
    # x0 <- x0 + (x1 - x0) / 3 and the reverse: the difference shrinks by 1/3 each round, the mean of the two stays
    assert sum(ring.values[:2]) == pytest.approx(3.0)
    assert ring.values[1] - ring.values[0] == pytest.approx(3.0 / 27)


def test_nobody_waits_longer_than_the_adaptive_deadline_for_a_silent_neighbor() -> None:
    rules = GossipRules(rounds=8, floor_s=0.5, ceiling_s=10.0, gather_s=20.0)
    ring = Ring(3, rules)
    drop_updates(ring, 2, 0, 1)
    run(ring)
    ring.pass_time(100.0)
    waits = [ended.waited_s for ended in ring[0].of(RoundEnded)][1:]
    assert waits[0] == 20.0  # the first, when neighbors are still starting
    assert all(wait <= 10.0 for wait in waits[1:])
    assert 0.5 in waits  # the floor, once it has seen how fast others answer
    assert all(wait <= 0.5 for wait in waits[waits.index(0.5) :])
    assert all(ring.ids[2] in ended.missing for ended in ring[0].of(RoundEnded)[1:])
    assert ring[0].of(Finished)


def test_a_neighbor_one_round_late_stands_in_for_itself() -> None:
    """With staleness 1, the update of the round before is mixed where this round's is missing."""
    rules = GossipRules(rounds=3, floor_s=0.5, ceiling_s=10.0, gather_s=20.0, staleness=1)
    ring = Ring(2, rules, values=[0.0, 8.0])
    held: list[tuple[bytes, ...]] = []

    def hold_back(a: bytes, b: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
        if a == ring.ids[1] and isinstance(wire.decode(frames[0]), wire.Offer):
            held.append(frames)
            return None
        return frames

    ring.tamper = hold_back
    ring.start()
    ring.settle(learn=False)
    ring.learn(1)
    ring[1].is_learner_stalled = True
    ring.settle()
    ring.pass_time(20.0)
    assert ring[0].peer.step == 1
    ring.tell(0, FrameReceived(ring.ids[1], held[0]))
    ring.settle()
    ring.pass_time(10.0)
    assert [(learn.step, a.step) for learn in ring[0].of(Learn) for a in learn.arrived] == [(2, 0)]


def test_a_peer_left_behind_joins_the_round_of_its_neighbors() -> None:
    rules = GossipRules(rounds=30, floor_s=0.5, ceiling_s=1.0, gather_s=1.0)
    ring = Ring(5, rules)
    slow = ring[4]
    slow.is_learner_stalled = True
    run(ring)
    ring.pass_time(8.0)
    ahead = ring[0].peer.step
    assert ahead > 6
    assert slow.peer.step == 0
    slow.is_learner_stalled = False
    ring.settle()
    steps = [learn.step for learn in slow.of(Learn)]
    assert steps[:2] == [0, 1]  # the updates of its own round were still here
    assert steps[2] >= ahead - 1  # it did not train alone through all the rounds it had missed
    ring.pass_time(100.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring)


def test_one_liar_about_its_step_cannot_carry_a_peer_away() -> None:
    """The lower median of what neighbors signed decides; with two neighbors that is the smaller one."""
    ring = Ring(3, GossipRules(rounds=50, floor_s=0.5, ceiling_s=1.0, gather_s=1.0))
    ring.start()
    ring.settle(learn=False)
    liar = ring[2].peer
    liar.step = 900
    ring[2].learning = None
    ring.settle(learn=False)
    ring.learn(0)
    ring.learn(1)
    ring.settle(learn=False)
    assert ring[0].peer.step <= 1


def test_a_restarted_peer_offers_its_last_update_again_and_never_reuses_a_sequence_number() -> None:
    ring = Ring(3, GossipRules(rounds=6, checkpoint_s=1e-9, floor_s=0.5, ceiling_s=2.0, gather_s=5.0))
    seen: set[tuple[bytes, int, int]] = set()

    def watch(a: bytes, b: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...]:
        message = wire.decode(frames[0])
        if isinstance(message, wire.Offer) and b == ring.ids[0]:
            header = wire.decode_header(message.header)
            key = (header.signer, header.boot_epoch, header.seq)
            assert key not in seen
            seen.add(key)
        return frames

    ring.tamper = watch
    ring.start()
    ring.time = 1.0
    for _ in range(2):
        ring.settle(learn=False)
        for k in range(3):
            ring.learn(k)
    ring.settle(learn=False)
    persisted = ring[2].of(Persist)[-1]
    ring.kill(2)
    ring.restart(2, persisted.state)
    ring.settle()
    ring.pass_time(60.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring)
    first = ring[2].of(Learn)[0]
    assert (first.step, first.local_steps) == (persisted.step, 0)
    assert {epoch for signer, epoch, _ in seen if signer == ring.ids[2]} == {1, 2}


def test_a_finished_peer_started_again_finishes_at_once() -> None:
    ring = run(Ring(2, ROUNDS))
    state = ring[1].of(Persist)[-1].state
    ring.kill(1)
    ring.restart(1, state)
    ring.settle()
    ring.pass_time(20.0)
    assert ring[1].of(Learn) == []
    assert ring[1].peer.state is State.FINISHED


# ---- stopping and failing -----------------------------------------------------------------------------------------------


def test_a_stopped_peer_persists_then_says_good_bye_then_ends() -> None:
    ring = Ring(3, ROUNDS)
    ring.start()
    ring.settle(learn=False)
    effects = ring.tell(0, StopRequested())
    assert [type(effect) for effect in effects] == [Persist, Send, Send, Finished]
    assert ring.tell(0, StopRequested()) == []
    ring.settle()
    assert ring[1].peer.state is State.FINISHED  # nobody waited for it


@pytest.mark.fault("trainer")
def test_a_broken_learner_costs_more_time_with_every_failure_and_stops_nobody_else() -> None:
    ring = Ring(3, GossipRules(rounds=4, floor_s=0.5, ceiling_s=10.0, gather_s=1.0))
    ring[1].is_learner_broken = True
    run(ring)
    ring.pass_time(200.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring)
    assert ring[1].value == 1.0
    assert ring[1].of(RoundEnded) == []
    assert books_balance(ring)


@pytest.mark.fault("not finite")
def test_a_learner_that_refuses_a_content_is_believed_and_counted() -> None:
    ring = Ring(3, GossipRules(rounds=2), values=[1.0, float("nan"), 1.0])
    run(ring)
    assert ring.values[0] == ring.values[2] == 1.0
    assert ring[0].peer.ledger.rejected == {"non_finite": 2}
    assert books_balance(ring)


# ---- asynchronous gossip ------------------------------------------------------------------------------------------------


def test_async_pushes_to_one_neighbor_each_period_and_needs_no_barrier() -> None:
    rules = GossipRules(mode="async", rounds=10, period_s=1.0, ceiling_s=5.0)
    ring = run(Ring(6, rules))
    ring.pass_time(30.0)
    for stage in ring:
        assert stage.peer.state is State.FINISHED
        assert stage.peer.ledger.sent <= 10
        assert len(stage.of(RoundEnded)) == 11
    assert sum(stage.peer.ledger.sent for stage in ring) >= 6 * 9
    assert max(ring.values) - min(ring.values) < 5.0
    assert books_balance(ring)


def test_async_keeps_going_when_a_neighbor_never_answers() -> None:
    ring = Ring(3, GossipRules(mode="async", rounds=5, period_s=1.0, ceiling_s=2.0))
    ring.start(0, 1)
    ring.settle()
    ring.pass_time(30.0)
    assert ring[0].peer.state is State.FINISHED


def test_async_merges_by_age_and_believes_an_age_only_up_to_the_cap() -> None:
    ring = Ring(2, GossipRules(mode="async", rounds=3, period_s=1.0, age_cap=7))
    ring[1].peer.age = 10**12
    run(ring)
    ring.pass_time(1.2)
    learn = ring[0].of(Learn)[1]
    # own age 5 after one Learn; believed 5 + 7 = 12
    assert learn.weights[ring.ids[1]] == pytest.approx(12 / 17)
    assert ring[0].peer.age == 12 + 5


# ---- hostile and unlucky input ------------------------------------------------------------------------------------------


@pytest.mark.fault("frames")
@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((), Reason.BAD_FRAMES),
        ((b"", b"", b""), Reason.BAD_FRAMES),
        ((b"x",) * 50, Reason.BAD_FRAMES),
        ((b"",), Reason.BAD_FRAMES),
        ((b"\x80" * 1000,), Reason.BAD_HEADER),
        ((b"x" * (1 << 20),), Reason.BAD_HEADER),
        ((msgpack.packb([2, 0]),), Reason.VERSION),
        ((msgpack.packb([wire.PROTOCOL_VERSION, 250]),), Reason.KIND),
    ],
)
def test_a_bad_frame_is_one_counted_refusal_and_changes_nothing_else(frames: tuple[bytes, ...], reason: Reason) -> None:
    ring = Ring(3, ROUNDS)
    ring.start()
    ring.settle(learn=False)
    before = ring[0].peer.step, ring[0].peer.deadline, len(ring[0].of(Learn))
    ring.tell(0, FrameReceived(ring.ids[1], frames))
    assert ring[0].rejections == [reason]
    assert ring[0].peer.ledger.reasons == {(ring.ids[1], reason): 1}
    assert (ring[0].peer.step, ring[0].peer.deadline, len(ring[0].of(Learn))) == before
    ring.settle()
    assert all(stage.peer.state is State.FINISHED for stage in ring)
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 3  # the next honest updates were applied


@pytest.mark.fault("stranger")
def test_a_stranger_is_refused_whatever_it_says() -> None:
    ring = Ring(2, ROUNDS)
    ring.start()
    stranger = b"\x01" * 32
    ring.tell(0, FrameReceived(stranger, (b"anything",)))
    assert ring[0].rejections == [Reason.NOT_MEMBER]


@pytest.mark.fault("version or kind")
def test_a_peer_of_another_version_is_told_ours_once() -> None:
    ring = Ring(2, ROUNDS)
    ring.start()
    ring.settle(learn=False)
    hello = (msgpack.packb([9, 0, "whatever a later version says"]),)
    answers = [ring.tell(0, FrameReceived(ring.ids[1], hello)) for _ in range(3)]
    assert [sum(isinstance(effect, Send) for effect in effects) for effects in answers] == [1, 0, 0]


def first_offer(ring: Ring, sender: int, receiver: int) -> list[tuple[bytes, ...]]:
    """Runs until `sender` offered its first update to `receiver`, which does not get it; returns its frames."""
    caught: list[tuple[bytes, ...]] = []

    def catch(a: bytes, b: bytes, frames: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
        if (a, b) == (ring.ids[sender], ring.ids[receiver]) and isinstance(wire.decode(frames[0]), wire.Offer):
            caught.append(frames)
            return None
        return frames

    ring.tamper = catch
    ring.start()
    ring.settle(learn=False)
    for k in range(len(ring.stages)):
        ring.learn(k)
    ring.settle(learn=False)
    return caught


@pytest.mark.fault("replay")
def test_a_replayed_offer_is_refused_and_the_honest_update_still_counts_once() -> None:
    ring = Ring(3, ROUNDS)
    (offer,) = first_offer(ring, 1, 0)
    ring.tamper = lambda a, b, frames: frames
    for _ in range(3):
        ring.tell(0, FrameReceived(ring.ids[1], offer))
    ring.settle()
    assert ring[0].rejections == [Reason.REPLAYED] * 2
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 3


@pytest.mark.fault("wrong link")
def test_an_update_delivered_over_anothers_link_is_refused() -> None:
    ring = Ring(3, ROUNDS)
    (offer,) = first_offer(ring, 1, 0)
    ring.tell(0, FrameReceived(ring.ids[2], offer))
    assert ring[0].rejections == [Reason.HOP_MISMATCH]
    assert list(ring[0].peer.ledger.reasons) == [(ring.ids[2], Reason.HOP_MISMATCH)]


def test_an_update_for_somebody_else_is_refused() -> None:
    ring = Ring(3, ROUNDS)
    (offer,) = first_offer(ring, 1, 0)
    message = wire.decode(offer[0])
    others = tuple(reader for reader in message.readers if reader[0] != ring.ids[0])
    ring.tell(0, FrameReceived(ring.ids[1], (wire.encode(replace(message, readers=others)), *offer[1:])))
    assert ring[0].rejections == [Reason.NOT_FOR_US]


@pytest.mark.fault("flipped bit")
@pytest.mark.parametrize("byte", range(0, 300, 7))
def test_a_flipped_bit_anywhere_in_an_offer_is_refused(byte: int) -> None:
    ring = Ring(3, ROUNDS)
    (offer,) = first_offer(ring, 1, 0)
    flipped = bytearray(offer[0])
    flipped[byte % len(flipped)] ^= 1
    ring.tell(0, FrameReceived(ring.ids[1], (bytes(flipped), *offer[1:])))
    assert len(ring[0].rejections) == 1


@pytest.mark.fault("flipped bit")
def test_a_flipped_bit_in_the_ciphertext_is_refused_and_the_next_update_is_applied() -> None:
    ring = Ring(3, ROUNDS)
    (offer,) = first_offer(ring, 1, 0)
    ring.tamper = lambda a, b, frames: frames
    flipped = bytearray(offer[1])
    flipped[3] ^= 1
    ring.tell(0, FrameReceived(ring.ids[1], (offer[0], bytes(flipped))))
    ring.settle()
    ring.pass_time(30.0)
    assert ring[0].rejections == [Reason.BAD_CHUNK]
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 2
    assert books_balance(ring)


@pytest.mark.fault("chunks")
def test_chunks_that_nobody_offered_or_credited_are_refused() -> None:
    ring = Ring(2, GossipRules(rounds=1), padding=3 << 20)
    ring.start()
    ring.settle(learn=False)
    chunk = (wire.encode(wire.Chunk(b"d" * 32, 0)), b"c" * 100)
    ring.tell(0, FrameReceived(ring.ids[1], chunk))
    assert ring[0].rejections == [Reason.UNEXPECTED_CHUNK]
    ring.settle()
    assert ring[0].peer.state is State.FINISHED


@pytest.mark.fault("step")
def test_a_step_too_far_in_the_future_is_refused_before_its_signature_is_checked() -> None:
    ring = Ring(3, GossipRules(rounds=3, step_window=1000))
    (offer,) = first_offer(ring, 1, 0)
    message = wire.decode(offer[0])
    header = replace(wire.decode_header(message.header), step=1_000_000_000)
    forged = replace(message, header=wire.encode_header(header))
    ring.tell(0, FrameReceived(ring.ids[1], (wire.encode(forged), *offer[1:])))
    assert ring[0].rejections == [Reason.FUTURE_STEP]


def test_a_link_that_flaps_costs_no_update_twice() -> None:
    ring = Ring(2, ROUNDS)
    ring.start()
    ring.settle(learn=False)
    for _ in range(3):
        ring.tell(0, LinkDown(ring.ids[1]))
        ring.tell(0, LinkUp(ring.ids[1]))
        ring.settle(learn=False)
    ring.settle()
    ring.pass_time(30.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring)
    assert ring.values[0] == pytest.approx(ring.values[1])
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 3


def test_handling_costs_no_more_for_a_large_update_than_for_a_small_one() -> None:
    """The peer never looks into a payload: an opaque handle of any length goes through."""
    ring = Ring(2, GossipRules(rounds=3))
    ring.start()
    ring.settle(learn=False)
    ring[0].learning = None
    huge = Payload(1 << 40, b"d" * 32, buffer=object())
    effects = ring[0].peer.handle(Learned(0, (Outgoing(huge),), (), {}), Instant(0.0, 0.0))
    assert [e.payload.buffer for e in effects if isinstance(e, Seal)] == [huge.buffer]


def test_starting_dials_every_neighbor() -> None:
    ring = Ring(5, ROUNDS)
    effects = ring.tell(2, Started())
    assert {e.peer for e in effects if hasattr(e, "peer")} == {ring.ids[1], ring.ids[3]}
