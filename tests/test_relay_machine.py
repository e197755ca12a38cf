"""A member that learns nothing: it carries, it is a member in all else, and what makes no sense of it is refused by name."""

from collections.abc import Mapping

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    DeadlineReached,
    Dial,
    Event,
    Finished,
    FrameReceived,
    Instant,
    LinkDown,
    LinkUp,
    PeerId,
    Rejected,
    Send,
    Started,
    StopRequested,
)
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Records, Wanted
from p2pfl.protocol.relay.forwarder import Forwarder
from p2pfl.protocol.relay.relay import ALLOWANCE, Relay, RelayEffect
from p2pfl.protocol.relay.relay_wire import PIECE_BYTES, Carried, Wake, encode, read
from p2pfl.protocol.round import Plan, RoundPlan
from tests.village import WALL, Village, id_of

RELAY, A, B = (id_of(k) for k in range(3))
CHARTER = Charter("wards", b"root", b"s" * 32, 2600, GossipRules())
MEMBERS: Mapping[PeerId, Member] = {peer: Member(peer, "somebody", "", b"t" * 32, b"k" * 32) for peer in (RELAY, A, B)}


class Stage:
    """A relay among three members who all have links with it, whose membership is real."""

    def __init__(self) -> None:
        village = Village(3)
        nothing = RoundPlan((), {})
        liveness = Liveness(village.life(RELAY), lambda live: Plan(lambda _round: nothing, (A, B), (A, B)))
        self.relay = Relay(
            RELAY, CHARTER, MEMBERS, Boot(1, b"b" * 16), liveness, Forwarder(MEMBERS, lambda peer: peer in self.relay.linked)
        )
        self.now = 0.0
        self.tell(Started())
        for peer in (A, B):
            self.tell(LinkUp(peer))

    def tell(self, event: Event) -> list[RelayEffect]:
        return self.relay.handle(event, Instant(self.now, WALL + self.now))

    def hear(self, hop: PeerId, *frames: bytes) -> list[RelayEffect]:
        return self.tell(FrameReceived(hop, frames))

    def refuses(self, hop: PeerId, *frames: bytes) -> Reason:
        (refusal,) = (effect for effect in self.hear(hop, *frames) if isinstance(effect, Rejected))
        assert refusal.blame == hop
        return refusal.reason


def hello(network: bytes = CHARTER.network_id, charter: bytes = CHARTER.digest, reply: bool = True) -> bytes:
    return wire.encode(wire.Hello(network, charter, b"a" * 16, 1, 0, reply))


def piece(to: PeerId, count: int) -> tuple[bytes, bytes]:
    return encode(Carried(to, b"session-", True, count)), bytes(PIECE_BYTES)


def test_it_keeps_links_to_those_who_may_need_it() -> None:
    relay = Relay(RELAY, CHARTER, MEMBERS, Boot(1, b"b" * 16), Stage().relay.liveness, Forwarder(MEMBERS, lambda _: True))
    assert [effect.peer for effect in relay.handle(Started(), Instant(0.0, WALL)) if isinstance(effect, Dial)] == sorted((A, B))


def test_it_passes_on_with_the_senders_name_in_it_and_nothing_else_changed() -> None:
    stage = Stage()
    head, sealed = piece(B, 0)
    (sent,) = (effect for effect in stage.hear(A, head, sealed) if isinstance(effect, Send))
    assert (sent.to, sent.bulk, sent.frames[1]) == (B, True, sealed)
    message, _ = read(sent.frames)
    assert message == Carried(A, b"session-", True, 0)
    assert stage.relay.account() == {
        "messages": 1,
        "bytes": len(head) + len(sealed),
        "dropped": 0,
        "held": len(head) + len(sealed),
    }
    stage.tell(LinkDown(B))
    assert stage.relay.account()["held"] == 0


def test_it_answers_a_greeting_and_membership_as_any_member_does() -> None:
    stage = Stage()
    sent = [effect for effect in stage.hear(A, hello()) if isinstance(effect, Send) and effect.to == A]
    answer = wire.decode(bytes(sent[0].frames[0]))  # type: ignore[call-overload]
    assert isinstance(answer, wire.Hello) and not answer.reply and answer.charter == CHARTER.digest
    told = [effect for effect in stage.hear(A, gossip_wire.encode(Wanted((B,)))) if isinstance(effect, Send) and effect.to == A]
    assert isinstance(gossip_wire.decode(bytes(told[0].frames[0])), Records)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((hello(network=b"n" * 16),), Reason.WRONG_NETWORK),
        ((hello(charter=b"c" * 32),), Reason.WRONG_CHARTER),
        ((wire.encode(wire.Offer(b"h", b"s" * 64, 1, (b"d" * 32,), ((A, b"w" * 72),))),), Reason.NOT_NEIGHBOR),
        ((wire.encode(wire.Chunk(b"d" * 32, 0)), b"chunk"), Reason.UNEXPECTED_CHUNK),
        ((b"\x93\x01\x63\x00",), Reason.KIND),
        ((b"nonsense",), Reason.BAD_HEADER),
        ((encode(Wake(A)),), Reason.BAD_HEADER),
    ],
)
def test_what_makes_no_sense_of_a_relay_is_refused_and_the_next_message_passes(
    frames: tuple[bytes, ...], reason: Reason
) -> None:
    stage = Stage()
    assert stage.refuses(A, *frames) is reason
    assert stage.relay.rejected == {(A, reason): 1}
    assert any(isinstance(effect, Send) and effect.to == B for effect in stage.hear(A, *piece(B, 0)))


def test_another_version_is_told_ours_once() -> None:
    stage = Stage()
    other = b"\x93\x02\x01\x00"
    told = [effect for _ in range(3) for effect in stage.hear(A, other) if isinstance(effect, Send) and effect.to == A]
    assert len(told) == 1 and isinstance(wire.decode(bytes(told[0].frames[0])), wire.Hello)  # type: ignore[call-overload]


@pytest.mark.fault("flood")
def test_a_member_that_floods_it_is_not_heard_for_a_while_and_the_others_are() -> None:
    stage = Stage()
    wake = encode(Wake(B))
    passed = sum(any(isinstance(e, Send) and e.to == B for e in stage.hear(A, wake)) for _ in range(5_000))
    assert passed == 16 and stage.relay.rejected[A, Reason.RATE_LIMITED] == 5_000 - 16
    assert stage.relay.allowances.banned_until(A) > 0.0, "each refusal cost it more than a message"
    assert ALLOWANCE.messages_burst > 5_000
    assert any(isinstance(effect, Send) and effect.to == A for effect in stage.hear(B, *piece(A, 0)))


def test_who_is_no_member_is_refused() -> None:
    stage = Stage()
    assert stage.refuses(id_of(7), hello()) is Reason.NOT_MEMBER


def test_it_says_good_bye_when_it_is_asked_to_end_and_nothing_after() -> None:
    stage = Stage()
    effects = stage.tell(StopRequested())
    assert effects[-1] == Finished(0)
    assert {effect.to for effect in effects if isinstance(effect, Send)} == {A, B}
    assert stage.tell(DeadlineReached()) == stage.hear(A, hello()) == [] and stage.relay.deadline is None
