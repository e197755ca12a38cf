"""Where memory is short, updates take turns; and what a broken link has delivered is not sent again."""

from collections.abc import Iterator
from random import Random

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import Effect, Event, FrameReceived, LinkDown, LinkUp, PeerId
from p2pfl.protocol.room import Room
from tests.ring import Liar, Ring, books_balance

MEGABYTES = 2 << 20  # three chunks
STAR = [edge for k in (1, 2, 3, 4) for edge in ((k, 0), (0, k))]


class Narrow(Ring):
    """A ring whose peers hold to their room: at every moment no more long updates have memory than there are places."""

    def tell(self, k: int, event: Event) -> list[Effect]:
        effects = super().tell(k, event)
        stage = self[k]
        held = [update for update in stage.peer.inbox.slots if update.credited]
        assert self.room is None or len(held) + len(stage.learning.arrived if stage.learning else ()) <= self.room
        return effects


def star(room: int | None, rounds: int = 4) -> Ring:
    """Four around peer 0, which hears them all; run to their end."""
    ring = Narrow(5, GossipRules(rounds=rounds), gain=1.0, padding=MEGABYTES, edges=STAR, room=room)
    ring.start()
    ring.settle()
    for _ in range(100):
        ring.pass_time(1.0)
    assert {stage.peer.step for stage in ring} == {rounds}
    assert books_balance(ring)
    return ring


def test_places_for_all_neighbors_change_nothing_of_what_is_learned() -> None:
    assert star(room=4).values == star(room=None).values


@pytest.mark.fault("stalling")
@pytest.mark.parametrize("room", [1, 2, 3])
def test_with_too_few_places_every_neighbor_gets_its_turn(room: int) -> None:
    ring = star(room, rounds=8)
    turns = [ring[0].peer.ledger.of(ring.ids[sender]).applied for sender in (1, 2, 3, 4)]
    assert sum(turns) >= 4 * room
    assert max(turns) - min(turns) <= 1


@pytest.mark.fault("stalling")
def test_a_neighbor_that_takes_a_place_and_sends_nothing_loses_it_to_those_who_wait() -> None:
    ring = Narrow(3, GossipRules(rounds=6, staleness=5), padding=MEGABYTES, edges=[(1, 0), (2, 0)], room=1)
    idler, other = Liar(ring, 1), Liar(ring, 2)
    ring.start(0)
    ring.learn(0)
    assert credits(idler.say(0, idler.offer(0))) == [(3, 0)]
    assert credits(other.say(0, other.offer(0))) == []
    granted = []
    while ring[0].peer.step < 3:
        ring.pass_time(1.0)
        granted += credits([entry for entry in ring[0].log if hasattr(entry, "frames") and hasattr(entry, "to")])
    assert ring[0].peer.ledger.of(ring.ids[1]).lost == 1
    assert (3, 0) in granted
    for index in range(3):
        other.say(0, other.chunk(index))
    while ring[0].peer.step < 5:
        ring.pass_time(1.0)
    assert ring[0].peer.ledger.of(ring.ids[2]).applied == 1


def test_a_neighbor_gets_a_second_place_only_when_every_other_has_one_left() -> None:
    edges = [(1, 0), (2, 0)]
    ring = Narrow(3, GossipRules(rounds=6), padding=MEGABYTES, edges=edges, room=2)
    liar = Liar(ring, 2)
    ring.start(0)
    assert credits(liar.say(0, liar.offer(0, step=1))) == [(3, 0)]  # its own
    assert credits(liar.say(0, liar.offer(0, step=0))) == []
    ring.start(1)
    ring.settle(learn=False)
    ring.learn(1)
    ring.settle(learn=False)
    assert any(update.sender == ring.ids[1] and update.payload for update in ring[0].peer.inbox.slots)


def test_with_fewer_places_than_neighbors_later_rounds_wait() -> None:
    ring = Narrow(3, GossipRules(rounds=6), padding=MEGABYTES, edges=[(1, 0), (2, 0)], room=1)
    liar = Liar(ring, 2)
    ring.start(0)
    assert credits(liar.say(0, liar.offer(0, step=1))) == []
    assert credits(liar.say(0, liar.offer(0, step=0))) == [(3, 0)]


def test_an_update_that_is_offered_anew_goes_on_at_the_missing_chunk() -> None:
    ring = Ring(2, padding=MEGABYTES)
    liar = Liar(ring, 1)
    ring.start(0)
    liar.say(0, liar.offer(0))
    liar.say(0, liar.chunk(0))
    ring.settle(learn=False)
    assert credits(liar.say(0, liar.offer(0))) == [(3, 1)]
    assert liar.say(0, liar.chunk(0)) == []  # from the link that broke, too late
    assert ring[0].rejections == []
    for index in (1, 2):
        liar.say(0, liar.chunk(index))
        ring.settle(learn=False)
    (update,) = ring[0].peer.inbox.slots
    assert update.payload is not None and update.header.seq == liar.seq
    assert ring[0].peer.ledger.of(ring.ids[1]).superseded == 1


def test_another_content_under_an_old_name_starts_from_nothing() -> None:
    """The same chunks under another key are another update: what the old key opened is not carried over."""
    ring = Ring(2, padding=MEGABYTES)
    liar = Liar(ring, 1)
    ring.start(0)
    liar.say(0, liar.offer(0))
    liar.say(0, liar.chunk(0))
    ring.settle(learn=False)
    assert credits(liar.say(0, liar.offer(0, part=1))) == [(3, 0)]


@pytest.mark.fault("chunks", "broken transfers")
@pytest.mark.parametrize("seed", range(8))
def test_a_link_that_breaks_again_and_again_never_makes_a_delivered_chunk_travel_twice(seed: int) -> None:
    """Peer 0 sends nine chunks to peer 1; its link is cut at random moments, and what is on its way then is lost."""
    chance = Random(seed)
    ring = Ring(2, GossipRules(rounds=1, gather_s=1e6), gain=1.0, padding=8 << 20, edges=[(0, 1)])
    ring.start()
    delivered: list[int] = []
    cuts = 0
    for _ in range(5_000):
        waiting = [k for k in (0, 1) if ring[k].inbox]
        if not waiting:
            learning = [k for k in (0, 1) if ring[k].learning is not None]
            if not learning:
                break
            ring.learn(learning[0])
            continue
        if chance.random() < 0.4 and cuts < 40:
            cuts += 1
            lost = [e for e in ring[1].inbox if isinstance(e, FrameReceived)]
            ring[1].inbox = type(ring[1].inbox)(e for e in ring[1].inbox if e not in lost)
            ring.tell(0, LinkDown(ring.ids[1]))
            ring.tell(0, LinkUp(ring.ids[1]))
            continue
        k = chance.choice(waiting)
        event = ring[k].inbox.popleft()
        delivered += [message.index for message in messages([event]) if isinstance(message, wire.Chunk)]
        ring.tell(k, event)
    assert cuts > 10
    assert delivered == list(range(9))
    counts, sent = ring[1].peer.ledger.of(ring.ids[0]), ring[0].peer.ledger.of(ring.ids[1]).sent
    assert counts.applied == 1 and ring[1].rejections == []
    assert counts.applied + counts.superseded <= sent  # the rest were offers that were lost on the way


def test_a_peer_with_no_room_at_all_is_our_own_bug() -> None:
    with pytest.raises(ValueError, match="learns from nobody"):
        Room(0, lambda: 1)


def messages(events: list[Event]) -> Iterator[wire.Message]:
    for event in events:
        if isinstance(event, FrameReceived):
            yield wire.read(event.frames)[0]


def credits(effects: list[Effect]) -> list[tuple[int, int]]:
    """(upto, first) of every credit among them."""
    said = messages([FrameReceived(PeerId(b""), e.frames) for e in effects if hasattr(e, "frames")])
    return [(message.upto, message.first) for message in said if isinstance(message, wire.Credit)]
