"""What a relay passes on, what it refuses, and how much it can be made to hold."""

from collections.abc import Sized
from dataclasses import replace

import pytest

from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId, Rejected, Send
from p2pfl.protocol.relay import relay_wire
from p2pfl.protocol.relay.forwarder import PAIRS_KEPT, READ_OF_PAIR, Forwarder, ForwardingLimits
from p2pfl.protocol.relay.holding import HELD_S
from p2pfl.protocol.relay.relay_wire import SEALED_MAX, Answer, Carried, Knock, NotReachable, RelayMessage, Taken, Wake
from p2pfl.protocol.relay.session import WINDOW

A, B, C, STRANGER = (PeerId(bytes([k]) * 32) for k in range(4))
KEY = bytes(range(32))
SESSION = b"session."
MESSAGES: list[RelayMessage] = [
    Knock(B, KEY, bytes(64)),
    Answer(B, KEY, KEY, bytes(64)),
    Wake(B),
    Carried(B, SESSION, False, 7),
    Carried(B, SESSION, True, 7),
    Taken(B, SESSION, 7),
]


class Relay:
    """A forwarder to which A, B and C are members, and linked but for `unlinked`."""

    def __init__(self, unlinked: PeerId = STRANGER, limits: ForwardingLimits | None = None) -> None:
        self.forwarder = Forwarder({A, B, C}, lambda peer: peer != unlinked, limits)

    def hear(self, hop: PeerId, message: RelayMessage, now: float = 0.0, sealed: bytes = bytes(17)) -> list[Send | Rejected]:
        return self.forwarder.heard(hop, frames(message, sealed), now)

    def passes(self, hop: PeerId, message: RelayMessage, now: float = 0.0, sealed: bytes = bytes(17)) -> bool:
        """Whether it goes to its addressee."""
        return any(isinstance(effect, Send) and effect.to == message.peer for effect in self.hear(hop, message, now, sealed))


def frames(message: RelayMessage, sealed: bytes = bytes(17)) -> tuple[Sized, ...]:
    head = relay_wire.encode(message)
    return (head, sealed) if isinstance(message, Carried) else (head,)


def piece(count: int, to: PeerId = B, session: bytes = SESSION) -> Carried:
    return Carried(to, session, True, count)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_goes_to_its_addressee_with_its_sender_in_it_and_nothing_else_changed(message: RelayMessage) -> None:
    (sent,) = Relay().hear(A, message, sealed=b"s" * 100)
    assert isinstance(sent, Send) and sent.to == B
    passed, sealed = relay_wire.read(sent.frames)
    assert passed == replace(message, peer=A)
    assert sealed == (b"s" * 100 if isinstance(message, Carried) else None)
    assert sent.bulk == (isinstance(message, Carried) and message.bulk)


def test_the_sealed_piece_is_not_copied() -> None:
    sealed = memoryview(bytes(SEALED_MAX))
    (sent,) = Relay().forwarder.heard(A, (relay_wire.encode(piece(0)), sealed), 0.0)
    assert isinstance(sent, Send) and sent.frames[1] is sealed


@pytest.mark.parametrize("to", [B, STRANGER])
def test_who_has_no_link_is_not_reachable(to: PeerId) -> None:
    """A stranger gets the same answer: the relay tells nobody who is a member."""
    (sent,) = Relay(unlinked=B).hear(A, Wake(to))
    assert sent == Send(A, (relay_wire.encode(NotReachable(to)),))


@pytest.mark.parametrize(
    ("hop", "sent", "reason"),
    [
        (STRANGER, frames(Wake(B)), Reason.NOT_MEMBER),
        (A, frames(Wake(A)), Reason.BAD_HEADER),
        (A, frames(NotReachable(B)), Reason.NOT_RELAY),
        (A, (relay_wire.encode(Wake(B)), b"x" * 17), Reason.BAD_FRAMES),
        (A, (relay_wire.encode(piece(0)),), Reason.BAD_FRAMES),
        (A, (relay_wire.encode(piece(0)), b""), Reason.BAD_FRAMES),
        (A, (relay_wire.encode(piece(0)), bytes(16)), Reason.BAD_FRAMES),
        (A, (relay_wire.encode(piece(0)), bytes(SEALED_MAX + 1)), Reason.BAD_FRAMES),
        (A, (relay_wire.encode(piece(0)), bytes(17), b"third"), Reason.BAD_FRAMES),
        (A, frames(Knock(B, bytes(32), bytes(64))), Reason.BAD_HEADER),
        (A, (b"\x92\x02\x22" + bytes(20),), Reason.VERSION),
        (A, (b"\x92\x01\x22\xc0",), Reason.BAD_HEADER),
    ],
)
def test_what_is_none_of_the_messages_of_a_member_is_refused_and_counted(
    hop: PeerId, sent: tuple[Sized, ...], reason: Reason
) -> None:
    relay = Relay()
    assert relay.forwarder.heard(hop, sent, 0.0) == [Rejected(reason, hop)]
    assert relay.forwarder.refused == {(hop, reason): 1}
    assert relay.passes(A, Wake(B)), "and the next one goes on"


def test_a_flood_is_cut_off_and_costs_only_who_makes_it() -> None:
    relay = Relay()
    passed = sum(relay.passes(A, Taken(B, SESSION, k)) for k in range(50_000))
    assert passed == 16_000
    assert relay.passes(C, Taken(B, SESSION, 0))
    assert sum(relay.passes(A, Taken(B, SESSION, 0), now=1.0) for _ in range(10_000)) == 2_000


def test_a_relay_passes_on_no_more_for_a_pair_than_is_read_of_it() -> None:
    limits = ForwardingLimits()
    assert limits.messages_per_s <= READ_OF_PAIR.messages_per_s and limits.messages_burst <= READ_OF_PAIR.messages_burst
    assert limits.bytes_per_s <= READ_OF_PAIR.bytes_per_s and limits.bytes_burst <= READ_OF_PAIR.bytes_burst


def test_knocks_are_scarce_because_they_cost_their_addressee_signatures() -> None:
    relay = Relay()
    assert sum(relay.passes(A, MESSAGES[2 * (k % 2)]) for k in range(100)) == 16
    assert relay.passes(A, Carried(B, SESSION, False, 0)), "an open tunnel goes on"


@pytest.mark.fault("flood")
def test_ids_that_are_no_members_do_not_give_a_sender_its_knocks_back() -> None:
    relay = Relay()
    assert sum(relay.passes(A, Wake(B)) for _ in range(100)) == 16
    for k in range(PAIRS_KEPT + 1):
        nobody = PeerId(b"%032d" % k)
        assert relay.hear(A, Wake(nobody)) == [Send(A, (relay_wire.encode(NotReachable(nobody)),))]
    assert not relay.passes(A, Wake(B))
    assert relay.passes(C, Wake(B)), "another's first"


@pytest.mark.fault("flood")
def test_who_knocks_at_everybody_is_cut_off_and_the_others_are_not() -> None:
    members = [PeerId(bytes([k]) * 32) for k in range(100)]
    forwarder = Forwarder(set(members), lambda _: True)

    def passes(hop: PeerId, to: PeerId, now: float = 0.0) -> bool:
        return any(isinstance(effect, Send) for effect in forwarder.heard(hop, frames(Wake(to)), now))

    assert sum(passes(A, to) for _ in range(16) for to in members if to != A) == 128
    assert passes(C, B)
    assert sum(passes(A, to, now=1.0) for to in members if to != A) == 16


def test_no_pair_has_more_than_a_window_held() -> None:
    relay = Relay()
    assert [relay.passes(A, piece(k)) for k in range(WINDOW + 2)] == [True] * WINDOW + [False] * 2
    assert relay.forwarder.dropped == {B: 2}
    assert relay.passes(B, Taken(A, SESSION, 3))
    assert [relay.passes(A, piece(WINDOW + k)) for k in range(4)] == [True] * 3 + [False]


def test_what_is_taken_is_held_no_more() -> None:
    relay = Relay()
    for k in range(WINDOW):
        relay.hear(A, piece(k), sealed=bytes(SEALED_MAX))
    assert relay.forwarder.held > WINDOW * SEALED_MAX
    relay.hear(B, Taken(A, SESSION, WINDOW))
    assert relay.forwarder.held == 0


def test_a_link_that_ends_frees_what_waited_for_it() -> None:
    relay = Relay()
    relay.hear(A, piece(0), sealed=bytes(SEALED_MAX))
    relay.forwarder.unlinked(A)
    assert relay.forwarder.held > SEALED_MAX, "it waits for B"
    relay.forwarder.unlinked(B)
    assert relay.forwarder.held == 0


def test_new_sessions_over_and_over_do_not_make_a_relay_hold_more() -> None:
    """The sender is a member and names its sessions as it likes."""
    limits = ForwardingLimits()
    relay = Relay()
    passed = sum(relay.passes(A, piece(0, session=b"%08d" % k), sealed=bytes(SEALED_MAX)) for k in range(500))
    assert passed == limits.held_of_one // (SEALED_MAX + 50), "50: the first frame"
    assert relay.forwarder.held <= limits.held_of_one
    assert not relay.passes(C, piece(0), sealed=bytes(SEALED_MAX)), "B is full"
    assert relay.passes(C, piece(0, to=A), sealed=bytes(SEALED_MAX))


def test_nobody_makes_a_relay_hold_more_than_it_may_in_all() -> None:
    limits = ForwardingLimits()
    members = [PeerId(bytes([k]) * 32) for k in range(100)]
    forwarder = Forwarder(set(members), lambda _: True)
    for k, hop in enumerate(members):
        for count in range(WINDOW):
            forwarder.heard(hop, frames(piece(count, to=members[k - 1]), bytes(SEALED_MAX)), 0.0)
            assert forwarder.held <= limits.held_in_all
    assert forwarder.held > limits.held_in_all - 2 * SEALED_MAX


def test_what_is_never_said_to_be_taken_is_forgotten_when_no_link_can_hold_it_any_more() -> None:
    relay = Relay()
    for k in range(WINDOW):
        relay.hear(A, piece(k), sealed=bytes(SEALED_MAX))
    assert not relay.passes(A, piece(WINDOW), now=HELD_S - 0.1)
    assert relay.passes(A, piece(WINDOW), now=HELD_S)
