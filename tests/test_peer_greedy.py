"""Members that want more than their share, alone and together: what each of them gets is bounded, and the honest are heard."""

from dataclasses import replace

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Open, Persist, RoundEnded, Send
from p2pfl.protocol.peer import State
from tests.ring import Liar, Ring

RULES = GossipRules(rounds=6, floor_s=0.5, ceiling_s=5.0, gather_s=5.0)


def among_liars(honest: int, liars: int, rules: GossipRules = RULES, padding: int = 0) -> tuple[Ring, list[Liar]]:
    """All linked with all and learning; of the last ones only what the test says is heard."""
    n = honest + liars
    ring = Ring(n, rules, padding=padding, values=[0.0] * n, edges=[(i, j) for i in range(n) for j in range(n) if i != j])
    ring.start()
    ring.settle(learn=False)
    bad = set(ring.ids[honest:])
    for k in range(honest, n):
        ring[k].is_learner_stalled = True
    ring.tamper = lambda a, b, frames: None if a in bad or b in bad else frames
    return ring, [Liar(ring, k, boot_id=ring[k].peer._boot.id) for k in range(honest, n)]


def end(ring: Ring, honest: int) -> None:
    ring.settle()
    ring.pass_time(100.0)
    assert all(stage.peer.state is State.FINISHED for stage in ring.stages[:honest])


@pytest.mark.fault("colluders", "stalling")
@pytest.mark.parametrize("liars", [3, 7])
def test_of_many_liars_and_one_honest_neighbor_the_honest_one_is_mixed_every_round(liars: int) -> None:
    """Each of them every round: junk, an update of the far future, one that is wrapped for another, and one whose chunks never
    come. All of them together can stretch a wait to its ceiling, and no further."""
    ring, bad = among_liars(2, liars, padding=70_000)
    for step in range(6):
        for k in (0, 1):
            for liar in bad:
                liar.say(k, (b"junk",))
                liar.say(k, liar.offer(k, step=10**6))
                liar.say(k, liar.offer(k, step=step, part=1, wrapped_for=1 - k))
                liar.say(k, liar.offer(k, step=step))
        for k in (0, 1):
            if ring[k].learning is not None:
                ring.learn(k)
        ring.settle(learn=False)
        ring.pass_time(5.0, learn=False)
    end(ring, 2)
    for k in (0, 1):
        assert ring[k].peer.ledger.of(ring.ids[1 - k]).applied == 6
        assert all(ended.waited_s <= 5.0 for ended in ring[k].of(RoundEnded))
        blamed = {peer for peer, _ in ring[k].peer.ledger.reasons}
        assert blamed == set(ring.ids[2:])


@pytest.mark.fault("flood")
def test_valid_updates_without_end_hold_two_payloads_and_the_honest_neighbor_is_mixed() -> None:
    """Each supersedes the one before, as it should; a thousand for every one that is mixed."""
    ring, (liar,) = among_liars(2, 1)
    for step in range(6):
        for k in (0, 1):
            for part in range(500):
                liar.say(k, liar.offer(k, step=step, part=part))
            ring.settle(learn=False)
            assert len(list(ring[k].peer.inbox.slots)) <= 4
            assert len(ring[k].peer.inbox._opening) <= 4
        for k in (0, 1):
            ring.learn(k)
        ring.settle(learn=False)
    end(ring, 2)
    assert ring[0].rejections == []
    pair = ring[0].peer.ledger.of(ring.ids[2])
    assert pair.applied <= 6 and pair.applied + pair.superseded == 3000
    assert ring[0].peer.ledger.of(ring.ids[1]).applied == 6


@pytest.mark.fault("replay", "doubles")
def test_a_storm_of_restarts_costs_an_offer_each_and_leaves_one_life() -> None:
    ring, (liar,) = among_liars(2, 1)
    for epoch in range(2, 1000):
        life = Liar(ring, 2, epoch=epoch, boot_id=epoch.to_bytes(16, "big"))
        life.say(0, life.hello())
        life.say(0, life.offer(0, value=1.0))
    ring.settle(learn=False)
    peer = ring[0].peer
    assert len([update for update in peer.inbox.slots if update.sender == ring.ids[2]]) == 1
    assert len(peer.inbox._contents) == 1
    assert len(repr(peer._window.to_plain())) < 1000
    liar.say(0, liar.offer(0))
    assert ring[0].rejections == [Reason.REPLAYED]  # an earlier life has nothing more to say
    end(ring, 2)
    assert peer.ledger.of(ring.ids[1]).applied >= 5


@pytest.mark.fault("stalling")
def test_greetings_and_good_byes_in_turn_are_answered_with_nothing() -> None:
    ring, (liar,) = among_liars(2, 1)
    ring.learn(0)
    ring.settle(learn=False)
    said = []
    for _ in range(500):
        said += liar.say(0, (wire.encode(wire.Bye(0)),)) + liar.say(0, liar.hello())
    assert not [effect for effect in said if isinstance(effect, Send | Persist | Open)]
    end(ring, 2)
    assert ring[0].peer.ledger.of(ring.ids[1]).applied >= 5


@pytest.mark.fault("chunks", "flood")
def test_no_order_of_credits_makes_a_chunk_travel_twice_over_one_link() -> None:
    ring, (liar,) = among_liars(2, 1, padding=4 << 20)
    ring.learn(0)
    ring.settle(learn=False)
    offer = next(
        message
        for effect in ring[0].of(Send)
        if effect.to == ring.ids[2] and isinstance(message := wire.decode(effect.frames[0]), wire.Offer)
    )
    name, sent = wire.decode_header(offer.header).chunks_digest, []
    for upto, first in ((1, 0), (1, 0), (4096, 3), (4096, 0), (2, 0), (4096, 4096), (1, 4096)):
        effects = liar.say(0, (wire.encode(wire.Credit(name, upto, first)),))
        sent += [wire.decode(effect.frames[0]).index for effect in effects if isinstance(effect, Send)]
    assert sent == sorted(set(sent))
    assert max(sent) < len(offer.digests)


@pytest.mark.fault("equivocation", "claimed weight")
def test_two_members_with_the_same_content_count_each_for_itself() -> None:
    """A copy of another's update, with the same digests, is its copier's own: neither stands in the other's way."""
    ring, bad = among_liars(2, 2)
    offers = [liar.offer(0, step=0, value=6.0) for liar in bad]
    headers = [wire.decode_header(wire.decode(frames[0]).header) for frames in offers]
    assert headers[0].chunks_digest == headers[1].chunks_digest
    for liar, frames in zip(bad, offers, strict=True):
        liar.say(0, frames)
    for k in (0, 1):
        ring.learn(k)
    end(ring, 2)
    assert [ring[0].peer.ledger.of(ring.ids[k]).applied for k in (2, 3)] == [1, 1]
    assert ring[0].peer.ledger.of(ring.ids[1]).applied >= 5
    assert ring[0].rejections == []


@pytest.mark.fault("stalling", "step")
def test_late_updates_of_one_neighbor_of_three_stretch_no_wait() -> None:
    """Whoever is late on purpose is observed as late once a round, and the two others are on time."""
    ring, (liar,) = among_liars(3, 1, replace(RULES, rounds=40))
    for k in range(3):
        ring.learn(k)
    ring.settle(learn=False)
    for step in range(20):
        ring.pass_time(5.0, learn=False)
        for k in range(3):
            if ring[k].learning is not None:
                ring.learn(k)
        ring.settle(learn=False)
        for k in range(3):
            for part in range(5):
                liar.say(k, liar.offer(k, step=max(0, ring[k].peer.step - 1), part=5 * step + part))
    waits = [ended.waited_s for ended in ring[0].of(RoundEnded)]
    assert len(waits) > 8
    assert waits[-1] == 0.5
    end(ring, 3)
