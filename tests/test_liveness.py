"""A peer and its membership: what goes to which of them, and what links, plans and deadlines come of both."""

from collections.abc import Iterable

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    DeadlineReached,
    Dial,
    DialRefused,
    Finished,
    FrameReceived,
    HangUp,
    Instant,
    LearnFailed,
    LinkUp,
    MembershipEffect,
    PeerId,
    Persist,
    Rejected,
    Revocation,
    Send,
    StopRequested,
    Suspended,
    ViewChanged,
)
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Ack, Ping, Records, decode_items
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.round import Plan, static_plan
from tests.ring import Ring
from tests.test_sim_founded import Story, at
from tests.village import Village, id_of

A, B, C, D = (id_of(k) for k in range(4))
TICKET = b"t" * gossip_wire.TICKET_BYTES


class Told:
    """A membership that asks for what the test says."""

    def __init__(self, *live: PeerId) -> None:
        self.live = live
        self.view = self
        self.deadline = 0.0
        self.own = A
        self.asks: list[MembershipEffect] = []

    def tick(self, now: object) -> list[MembershipEffect]:
        return self.asks


def plan_of(live: Iterable[PeerId]) -> Plan:
    """Everybody with everybody."""
    others = [peer for peer in live if peer != A]
    return static_plan(A, others, dict.fromkeys([A, *others], 1.0 / (len(others) + 1)))


def links(live: tuple[PeerId, ...], *rounds: tuple[tuple[PeerId, ...], list[MembershipEffect]]) -> list[MembershipEffect]:
    """What is asked for in the last of several rounds of (live members, what membership asks for)."""
    membership = Told(*live)
    liveness = Liveness(membership, plan_of)  # type: ignore[arg-type]
    asked: list[MembershipEffect] = []
    for membership.live, membership.asks in rounds:
        asked = liveness.told(DeadlineReached(), Village(1).instant(A))
    return asked


def test_a_link_is_dialled_once_for_both_and_let_go_when_neither_wants_it() -> None:
    change = ViewChanged(1, 2)
    assert links((A, B), ((A, B), [Dial(B), Dial(C)])) == [Dial(C)]  # the peer has dialled B for its plan
    assert links((A, B), ((A, B), [Dial(B)]), ((A, B), [HangUp(B)])) == []
    assert links((A, B), ((A, B), [Dial(B)]), ((A, B), [HangUp(B)]), ((A,), [change])) == [HangUp(B), change]
    assert links((A, B), ((A, B), [Dial(B)]), ((A,), [change])) == [change]
    assert links((A, B), ((A, B), [Dial(C)]), ((A, C, D), [change])) == [Dial(D), HangUp(B), change]


def test_a_link_that_is_to_be_dialled_anew_is_whoever_else_wants_it() -> None:
    assert links((A, B), ((A, B), [Dial(B)]), ((A, B), [HangUp(B), Dial(B)])) == [HangUp(B), Dial(B)]


def test_a_peer_without_a_membership_knows_none_of_its_messages() -> None:
    ring = Ring(3)
    ring.start()
    ring.tell(0, FrameReceived(ring.ids[1], (gossip_wire.encode(Ping(TICKET)),)))
    assert ring[0].rejections[-1] is Reason.KIND
    assert ring[0].peer.handle(Suspended(), Village(1).instant(A)) == []


def test_the_kind_decides_whom_a_message_is_for_and_each_is_checked_by_its_own_rules() -> None:
    story = Story(peers=4)
    story.run(3.0)
    host, other = story.federation.hosts[:2]

    def said(*frames: bytes) -> list[object]:
        return list(host.peer.handle(FrameReceived(other.id, frames), host.now))

    ping = gossip_wire.encode(Ping(TICKET))
    answers = [gossip_wire.decode(bytes(e.frames[0])) for e in said(ping) if isinstance(e, Send)]  # type: ignore[call-overload]
    assert [answer.ticket for answer in answers if isinstance(answer, Ack)] == [TICKET]
    for frames, reason in [
        ((ping, b"more"), Reason.BAD_FRAMES),
        ((ping[:-1],), Reason.BAD_HEADER),
        ((bytes([ping[0], 2]) + ping[2:],), Reason.VERSION),
        ((bytes([ping[0], 1, 15]) + ping[3:],), Reason.KIND),
        ((bytes([ping[0], 1, 24]) + ping[3:],), Reason.KIND),
    ]:
        assert [e.reason for e in said(*frames) if isinstance(e, Rejected)] == [reason]
        assert host.peer.ledger.reasons[other.id, reason] >= 1
    assert not any(isinstance(e, Rejected) for e in said(wire.encode(wire.Bye(0))))


def test_an_update_that_comes_in_shows_that_its_sender_lives() -> None:
    """Membership hears of every frame, whatever it is and whether it is good."""
    story = Story(peers=4)
    story.run(3.0)
    host, other = story.federation.hosts[:2]
    assert host.peer.liveness is not None
    census = host.peer.liveness.membership._census
    for frames in ((wire.encode(wire.Chunk(bytes(32), 0)), b"chunk"), (b"junk",)):
        later = Instant(host.now.monotonic + 100.0, host.now.wall)
        assert not census.is_fresh(other.id, later.monotonic)
        host.peer.handle(FrameReceived(other.id, frames), later)
        assert census.is_fresh(other.id, later.monotonic)
        del census._heard[other.id]


def test_who_is_stopped_persists_says_that_it_leaves_and_ends() -> None:
    story = Story(peers=4)
    story.run(3.0)
    host = story.federation.hosts[0]
    effects = host.peer.handle(StopRequested(), host.now)
    assert isinstance(effects[0], Persist) and isinstance(effects[-1], Finished)
    small = [bytes(e.frames[0]) for e in effects if isinstance(e, Send) and not e.bulk]  # type: ignore[call-overload]
    farewells = [message for frame in small if isinstance(message := gossip_wire.decode(frame), Records)]
    assert len(farewells) == 3 and all(len(list(decode_items(said.items))) == 1 for said in farewells)
    assert host.peer.handle(LinkUp(story.federation.hosts[1].id), host.now) == []


def test_what_goes_wrong_at_home_makes_a_peer_judge_others_more_slowly() -> None:
    story = Story(peers=4)
    story.run(3.0)
    host = story.federation.hosts[0]
    assert host.peer.liveness is not None
    membership = host.peer.liveness.membership
    before = membership.snapshot().health
    lag = membership.deadline + 1.2 * LAN.lag_s - host.now.monotonic
    host.peer.handle(DeadlineReached(), Instant(host.now.monotonic + lag, host.now.wall + lag))
    assert membership.snapshot().health == before + 1
    host.peer.handle(LearnFailed(0, "out of memory"), host.now)
    assert membership.snapshot().health == before + 2
    host.peer.handle(DialRefused(story.federation.hosts[1].id), host.now)
    refused = host.peer.handle(Revocation(b"forged"), host.now)
    assert [effect.reason for effect in refused if isinstance(effect, Rejected)] == [Reason.BAD_CHAIN]


@pytest.mark.parametrize("kind", ["crash", "leave"])
def test_nobody_waits_for_who_is_gone(kind: str) -> None:
    """Once the view has lost it, a round takes no longer than before."""
    story = Story(at(6.0, kind, 3), peers=6, step_s=1.0, floor_s=4.0, ceiling_s=8.0, topology={"overlay": "complete"})
    story.run(20.0)
    before = [host.peer.step for host in story.on]
    story.run(40.0)
    after = [host.peer.step for host in story.on]
    assert all(late - early >= 19 for early, late in zip(before, after, strict=True))
