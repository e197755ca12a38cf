"""The contract for whatever a member says that it should not: one refusal of one reason is counted, nothing else moves, and all
models end as they would have without it."""

import random
from collections.abc import Iterator
from typing import Any

import msgpack
import pytest

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import FrameReceived, Persist
from p2pfl.protocol.peer import State
from tests.ring import Liar, Ring
from tests.test_check_order import FAULTS, PROVED, RECEIVER, SIGNER, Stage

ROUNDS = GossipRules(rounds=3)
Frames = tuple[bytes, ...]


def everything(ring: Ring, k: int) -> tuple[Any, ...]:
    """Model, place in the rounds, replay window, slots and members of one peer: all but its counters."""
    peer = ring[k].peer
    slots = [(update.sender, update.header.seq, update.received) for update in peer.inbox.slots]
    model = envelope.digest(repr((ring[k].value, peer.age)).encode())
    return model, peer.step, peer.state, peer.deadline, peer._window.to_plain(), slots, tuple(peer._members), ring[k].learning


def at_work() -> Ring:
    """Three peers, linked, of whom 0 has trained and waits for the others."""
    ring = Ring(3, ROUNDS, gain=1.0)
    ring.start()
    ring.settle(learn=False)
    ring.learn(0)
    ring.settle(learn=False)
    return ring


def calm_end() -> list[float]:
    ring = at_work()
    ring.settle()
    return ring.values


def random_frames(count: int) -> Iterator[Frames]:
    source = random.Random(7)
    for _ in range(count):
        yield (source.randbytes(source.randrange(1, 300)),)


CREDIT = wire.encode(wire.Credit(b"d" * 32, 1))
BAD: dict[str, tuple[Frames, Reason]] = {
    "none": ((), Reason.BAD_FRAMES),
    "empty": ((b"",), Reason.BAD_FRAMES),
    "three": ((CREDIT, b"", b""), Reason.BAD_FRAMES),
    "fifty": ((CREDIT,) * 50, Reason.BAD_FRAMES),
    "a body that its kind has not": ((CREDIT, b"body"), Reason.BAD_FRAMES),
    "a megabyte of maps": ((b"\x80" * (1 << 20),), Reason.BAD_HEADER),
    "600 arrays in each other": ((b"\x91" * 600,), Reason.BAD_HEADER),
    "100,000 arrays in each other": ((b"\x91" * 100_000,), Reason.BAD_HEADER),
    "an array of 4 billion": ((b"\xdd\xff\xff\xff\xff",), Reason.BAD_HEADER),
    "a map of 4 billion": ((b"\xdf\xff\xff\xff\xff",), Reason.BAD_HEADER),
    "4 GiB": ((b"\xc6\xff\xff\xff\xff",), Reason.BAD_HEADER),
    "text of 4 GiB": ((b"\xdb\xff\xff\xff\xff",), Reason.BAD_HEADER),
    "no text": ((msgpack.packb([wire.PROTOCOL_VERSION, 3]) + b"\xa4\xff\xfe\x00\x00",), Reason.BAD_HEADER),
    "cut off": ((CREDIT[:-1],), Reason.BAD_HEADER),
    "something behind it": ((CREDIT + b"\0",), Reason.BAD_HEADER),
    "an older version": ((msgpack.packb([0, 0]),), Reason.VERSION),
    "a later version": ((msgpack.packb([127, 0]),), Reason.VERSION),
    "an unknown kind": ((msgpack.packb([wire.PROTOCOL_VERSION, 250]),), Reason.KIND),
    "a chunk of nothing": ((wire.encode(wire.Chunk(b"d" * 32, 0)), b"c" * 100), Reason.UNEXPECTED_CHUNK),
}


@pytest.mark.fault("frames", "cut off", "bombs", "version or kind", "chunks")
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_message_is_counted_once_and_all_models_end_as_without_it(bad: str) -> None:
    ring = at_work()
    frames, reason = BAD[bad]
    before = everything(ring, 0)
    ring.tell(0, FrameReceived(ring.ids[1], frames))
    assert ring[0].rejections == [reason]
    assert ring[0].peer.ledger.reasons == {(ring.ids[1], reason): 1}
    assert everything(ring, 0) == before
    ring.settle()
    assert ring.values == calm_end()
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 3


@pytest.mark.fault("junk")
def test_random_messages_are_counted_one_by_one_and_all_models_end_as_without_them() -> None:
    ring = at_work()
    before = everything(ring, 0)
    for frames in random_frames(1000):
        ring.tell(0, FrameReceived(ring.ids[1], frames))
    assert len(ring[0].rejections) == sum(ring[0].peer.ledger.reasons.values()) == 1000
    assert everything(ring, 0) == before
    ring.settle()
    assert ring.values == calm_end()


@pytest.mark.fault("flipped bit", "another network", "wrong reader", "wrong link", "step", "equivocation", "stranger", "replay")
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault is not Reason.RATE_LIMITED])
def test_a_bad_update_is_counted_once_and_all_models_end_as_without_it(fault: Reason) -> None:
    calm, stage = Stage(), Stage()
    if fault in (Reason.REPLAYED, Reason.EQUIVOCATION):  # these are about another one, that came before
        content = b"other..." if fault is Reason.EQUIVOCATION else b"content."
        for each in (calm, stage):
            each.tell(each.ring.ids[SIGNER], each.offer(seq=5 if fault is Reason.REPLAYED else 4, content=content))
    before = everything(stage.ring, RECEIVER)
    if fault in (Reason.REPLAYED, Reason.EQUIVOCATION):
        stage.tell(stage.ring.ids[SIGNER], stage.offer())
    else:
        stage.tell_faulty(fault)
    after = everything(stage.ring, RECEIVER)
    assert stage.ring[RECEIVER].rejections == [fault]
    assert sum(stage.ring[RECEIVER].peer.ledger.reasons.values()) == 1
    window = 4  # the place of the replay window: what is really signed counts as seen
    assert [i for i in range(len(before)) if before[i] != after[i]] == ([window] if fault in PROVED else [])
    for each in (calm, stage):
        each.ring.settle()
        each.ring.pass_time(60.0)
        assert all(peer.peer.state is State.FINISHED for peer in each.ring)
    assert stage.ring.values == calm.ring.values
    assert [stage.ring[RECEIVER].peer.ledger.of(one).applied for one in stage.ring.ids] == [
        calm.ring[RECEIVER].peer.ledger.of(one).applied for one in calm.ring.ids
    ]


@pytest.mark.fault("not finite")
def test_a_number_that_is_none_is_counted_once_and_the_next_update_is_mixed() -> None:
    ring = Ring(3, GossipRules(rounds=4, floor_s=0.5, ceiling_s=5.0, gather_s=5.0), values=[0.0] * 3)
    ring.start()
    ring.settle(learn=False)
    liar = Liar(ring, 2, boot_id=ring[2].peer._boot.id)
    ring[2].is_learner_stalled = True
    ring.tamper = lambda a, b, frames: None if ring.ids[2] in (a, b) else frames
    for k, value in enumerate((float("nan"), float("inf"), 3.0)):
        ring.learn(0)
        ring.settle(learn=False)
        ring.learn(1)
        liar.say(0, liar.offer(0, step=k, value=value))
        ring.settle(learn=False)
        ring.pass_time(5.0, learn=False)
    ring.settle()
    ring.pass_time(100.0)
    assert ring[0].peer.ledger.reasons == {(ring.ids[2], Reason.NON_FINITE): 2}
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 1
    assert 0.0 < ring[0].value < 3.0


@pytest.mark.fault("kill")
def test_an_update_that_was_seen_before_a_restart_is_refused_after_it() -> None:
    """The replay window is in what a checkpoint has."""
    ring = Ring(2, GossipRules(rounds=4, floor_s=0.5, ceiling_s=5.0, gather_s=5.0, checkpoint_s=1e-9))
    ring.start()
    ring.settle(learn=False)
    liar = Liar(ring, 1, boot_id=ring[1].peer._boot.id)
    seen = liar.offer(0, step=0)
    liar.say(0, seen)
    ring.settle(learn=False)
    ring.time = 1.0
    ring.learn(0)
    (persisted,) = ring[0].of(Persist)
    ring.kill(0)
    ring.restart(0, persisted.state)
    ring.settle(learn=False)
    liar.say(0, seen)
    assert ring[0].rejections == [Reason.REPLAYED]
    liar.say(0, liar.offer(0, step=1))
    assert ring[0].rejections == [Reason.REPLAYED]


def test_the_contract_looks_at_real_peers() -> None:
    """Positive control: an update that nobody refuses does change how it ends."""
    ring = at_work()
    liar = Liar(ring, 1, epoch=2, boot_id=ring[1].peer._boot.id)
    liar.say(0, liar.offer(0, 2, value=99.0))
    ring.settle()
    ring.pass_time(60.0)
    assert ring.values != calm_end()
