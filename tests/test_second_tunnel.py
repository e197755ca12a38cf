"""A tunnel as docs/protocol.md has it: one end is ours, the other was written from the document alone."""

from collections.abc import Sequence
from typing import Any

import pytest
from nacl import bindings
from nacl.signing import SigningKey

from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import FrameReceived, LinkUp, PeerId, Send
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay import relay_wire
from p2pfl.protocol.relay.meeting import meeting_order
from p2pfl.protocol.relay.tunnel import Outcome, Party, Tunnel
from sim.entropy import SeededEntropy
from tests import second_tunnel
from tests.second_protocol import blake, fields_of, frame

NETWORK, RELAY = b"n" * 16, PeerId(b"r" * 32)
ONE, OTHER = sorted((Identity.generate(SeededEntropy(7, name)) for name in (b"one", b"other")), key=lambda one: one.peer_id)
HELLO, CHUNK = frame(1, b"hello"), (frame(4, bytes(32), 0), bytes(range(256)) * 4096)


class Meeting:
    """A relay that both are linked with, which hands over what `ours` says to `theirs`, and back."""

    def __init__(self, ours: Identity, theirs: Identity) -> None:
        own, self.peer = ours.peer_id, theirs.peer_id
        ring = Keyring(
            ours, {one.peer_id: Member(one.peer_id, "", "", one.transport_key, one.seal_key) for one in (ours, theirs)}
        )
        party = Party(own, NETWORK, ring, SeededEntropy(7, b"tunnel"), Choices(7, b"tunnel"))
        self.ours = Tunnel(party, self.peer, lambda: [RELAY], 0.0)
        self.key, self.own = SigningKey(theirs.sign_seed), own
        self.said: list[tuple[list[Any], bytes]] = []
        self.events: list[Outcome] = []
        self.theirs = self._begun() if own < self.peer else self._asked()

    def do(self, outcomes: Sequence[Outcome]) -> None:
        """Take down what our end says to the relay, and what it tells the peer."""
        for outcome in outcomes:
            if isinstance(outcome, Send):
                first, *rest = (bytes(one) for one in outcome.frames)  # type: ignore[call-overload]
                self.said.append((fields_of(first), rest[0] if rest else b""))
            else:
                self.events.append(outcome)

    def tell(self, first: bytes, sealed: bytes = b"") -> None:
        """What the relay brings our end."""
        message, piece = relay_wire.read((first, sealed) if sealed else (first,))
        ours, at = self.ours, (RELAY, message, 1.0)
        match message:
            case relay_wire.Knock():
                self.do(ours.knocked(*at))  # type: ignore[arg-type]
            case relay_wire.Answer():
                self.do(ours.answered(*at))  # type: ignore[arg-type]
            case relay_wire.Carried():
                assert piece is not None
                self.do(ours.carried(RELAY, message, piece, 1.0))
            case relay_wire.Taken():
                self.do(ours.taken(*at))  # type: ignore[arg-type]

    def _begun(self) -> second_tunnel.End:
        """Ours is the caller."""
        self.do(self.ours.want(0.0))
        ((kind, to, knock, signature), _) = self.said.pop()
        assert (kind, to) == (second_tunnel.KNOCK, self.peer)
        second_tunnel.is_signed(self.own, second_tunnel.knock_said(NETWORK, self.own, self.peer, knock), signature)
        secret = bytes([9]) * 32
        ephemeral = bindings.crypto_scalarmult_base(secret)
        said = second_tunnel.answer_said(NETWORK, self.own, self.peer, knock, ephemeral)
        self.tell(frame(second_tunnel.ANSWER, self.peer, knock, ephemeral, second_tunnel.signed(self.key, said)))
        return second_tunnel.End(secret, knock, said, is_caller=False)

    def _asked(self) -> second_tunnel.End:
        """Theirs is the caller, once ours has asked it to knock."""
        self.do(self.ours.want(0.0))
        assert self.said.pop()[0] == [second_tunnel.WAKE, self.peer]
        secret = bytes([9]) * 32
        knock = bindings.crypto_scalarmult_base(secret)
        signature = second_tunnel.signed(self.key, second_tunnel.knock_said(NETWORK, self.peer, self.own, knock))
        self.tell(frame(second_tunnel.KNOCK, self.peer, knock, signature))
        ((kind, _, answered, ephemeral, signature), _) = self.said.pop()
        said = second_tunnel.answer_said(NETWORK, self.peer, self.own, knock, ephemeral)
        assert (kind, answered) == (second_tunnel.ANSWER, knock)
        second_tunnel.is_signed(self.own, said, signature)
        end = second_tunnel.End(secret, ephemeral, said, is_caller=True)
        for message in end.carried(self.peer, (), False, second_tunnel.NEEDED):
            self.tell(*message)
        return end

    def heard(self) -> list[tuple[int, list[bytes]]]:
        """What their end makes of all that was said since, as it takes piece after piece."""
        found = []
        while self.said:
            (kind, _, session, bulk, count), sealed = self.said.pop(0)
            assert (kind, session) == (second_tunnel.CARRIED, self.theirs.session)
            whole = self.theirs.opened(bulk, count, sealed)
            found += [whole] if whole else []
            if bulk:
                self.tell(frame(second_tunnel.TAKEN, self.peer, session, self.theirs.had[True]))
        return found


@pytest.fixture(params=["ours calls", "theirs calls"])
def meeting(request: pytest.FixtureRequest) -> Meeting:
    return Meeting(*((ONE, OTHER) if request.param == "ours calls" else (OTHER, ONE)))


def test_both_ends_have_one_session_and_take_whole_messages_out_of_pieces(meeting: Meeting) -> None:
    assert meeting.events == [LinkUp(meeting.peer)] and meeting.ours.is_open
    assert meeting.heard() == [(second_tunnel.NEEDED, [])]

    meeting.do(meeting.ours.send((HELLO,), False, 1.0))
    meeting.do(meeting.ours.send(CHUNK, True, 1.0))
    meeting.do(meeting.ours.send(CHUNK, True, 1.0))
    assert len([said for said in meeting.said if said[0][3]]) == 4, "no more is under way before any is taken"
    assert meeting.heard() == [(second_tunnel.MESSAGE, one) for one in ([HELLO], [*CHUNK], [*CHUNK])]

    meeting.events.clear()
    for message in (*meeting.theirs.carried(meeting.peer, [HELLO], False), *meeting.theirs.carried(meeting.peer, CHUNK, True)):
        meeting.tell(*message)
    told = [event.frames for event in meeting.events if isinstance(event, FrameReceived)]
    assert [[bytes(one) for one in frames] for frames in told] == [[HELLO], [*CHUNK]]  # type: ignore[call-overload]
    taken = [said[-1] for said, _ in meeting.said if said[0] == second_tunnel.TAKEN]
    assert taken[-1] == meeting.theirs.sent[True] and all(b - a <= 2 for a, b in zip([0, *taken], taken, strict=False))


def test_pieces_are_refused_under_the_documented_names(meeting: Meeting) -> None:
    (one, two, three) = (meeting.theirs.carried(meeting.peer, [HELLO], False)[0] for _ in range(3))
    meeting.tell(*one)
    for reason, (first, sealed) in {Reason.REPLAYED: one, Reason.BAD_SEAL: (two[0], two[1][:-1] + b"?")}.items():
        with pytest.raises(RejectedFrame) as refused:
            meeting.tell(first, sealed)
        assert refused.value.reason is reason
    meeting.tell(*three)
    assert [event.reason for event in meeting.events if hasattr(event, "reason")] == [Reason.GAP]
    assert not meeting.ours.is_open


def test_both_look_for_each_other_at_the_same_relays() -> None:
    relays = tuple(PeerId(blake(b"%d" % k)) for k in range(9))
    for count in range(10):
        ours = meeting_order(ONE.peer_id, OTHER.peer_id, relays[:count])
        assert second_tunnel.meeting_order(OTHER.peer_id, ONE.peer_id, relays[:count]) == [*ours]
