"""Two members that exchange inventories come to know the same, however they differed; and what is bad goes no further."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.protocol.admission.attestation import attest
from p2pfl.protocol.admission.reconciliation import ANSWER_S, FRAME_MAX, Papers, Reconciliation, encode
from p2pfl.protocol.admission.revocation import Cause
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters, SignedCharter, sign_charter
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Instant
from p2pfl.protocol.randomness import Choices
from tests.admission import DAY, NOW, Network, Person

ANN, BOB, CAT, DAN = (Person(name) for name in ("ann", "bob", "cat", "dan"))
NET = Network()


def charter(serial: int) -> SignedCharter:
    agreed = Charter(NET.name, NET.root.key, b"s" * 32, 1000, GossipRules())
    return sign_charter(NET.root.sign, agreed, serial, NOW, {})


class Side:
    def __init__(self, roster: Roster, serial: int = 1) -> None:
        self.roster = roster
        self.charters = Charters(NET.root.key, charter(serial))
        self.talk = Reconciliation(roster, self.charters, Choices(7, b"side"))


def exchange(a: Side, b: Side, wall: float = NOW, at: float = 0.0) -> int:
    """`a` asks once; returns the bytes that went."""
    sent, waiting = 0, [(b, ANN, a.talk.inventory())]
    while waiting:
        side, hop, frame = waiting.pop(0)
        sent += len(frame)
        assert len(frame) <= FRAME_MAX
        outcome = side.talk.receive(hop.id, frame, Instant(at, wall))
        assert outcome.refused == 0
        other, name = (a, BOB) if side is b else (b, ANN)
        waiting += [(other, name, answer) for answer in outcome.answers]
    return sent


def test_both_learn_what_the_other_knew_and_the_newer_charter_holds() -> None:
    one, two = Side(NET.roster(ANN, BOB), serial=2), Side(NET.roster(ANN, CAT))
    two.roster.revoke(NET.root.revoke(ANN.id, Cause.STOLEN, NOW).data, NOW)
    exchange(one, two)
    assert one.roster.digest == two.roster.digest
    assert one.roster.standing(ANN.id) is two.roster.standing(ANN.id) is Reason.REVOKED
    assert two.charters.current == one.charters.current == charter(2)


def test_those_who_know_the_same_say_little() -> None:
    people = [Person(f"m{k}") for k in range(100)]
    one, two = Side(NET.roster(*people)), Side(NET.roster(*reversed(people)))
    assert exchange(one, two) < 1100


def test_a_renewed_certificate_reaches_those_who_know_the_old_one() -> None:
    one, two = Side(NET.roster(ANN, BOB)), Side(NET.roster(ANN, BOB))
    one.roster.learn(NET.direct(BOB, NOW + 20 * DAY, serial=2).data, None, NOW + 20 * DAY)
    exchange(one, two, wall=NOW + 20 * DAY)
    two.roster.expire(NOW + 40 * DAY)
    assert set(two.roster.members) == {BOB.id}


def test_a_new_charter_is_handed_on_at_once_and_an_older_one_is_answered_with_it() -> None:
    one, two = Side(NET.roster(ANN, BOB), serial=4), Side(NET.roster(ANN, BOB), serial=3)
    outcome = two.talk.receive(ANN.id, one.talk.amendment(), Instant(0.0, NOW))
    assert outcome.is_new and two.charters.current == charter(4)
    late = Side(NET.roster(ANN, BOB), serial=2)
    assert not one.talk.receive(BOB.id, late.talk.amendment(), Instant(0.0, NOW)).is_new
    exchange(one, late)  # whoever was away gets it with its first exchange
    assert late.charters.current == one.charters.current == charter(4)


@pytest.mark.fault("charters")
def test_two_charters_with_one_number_are_noticed_on_both_sides_and_change_nothing() -> None:
    one, two = Side(NET.roster(ANN, BOB)), Side(NET.roster(ANN, BOB))
    agreed = replace(charter(1).charter(NET.root.key), gossip=GossipRules(rounds=3))
    other = sign_charter(NET.root.sign, agreed, 1, NOW, {})
    two.charters = Charters(NET.root.key, other)
    two.talk = Reconciliation(two.roster, two.charters, Choices(7, b"side"))
    for asks, answers, held in ((one, two, charter(1)), (two, one, other)):
        (papers,) = answers.talk.receive(ANN.id, asks.talk.inventory(reply=False), Instant(0.0, NOW)).answers
        outcome = asks.talk.receive(BOB.id, papers, Instant(0.0, NOW))
        assert (outcome.is_new, outcome.refused, outcome.charter) == (False, 0, Reason.CHARTER_CONFLICT)
        assert asks.charters.current == held
    for side in (one, two):
        assert side.talk.receive(ANN.id, encode(Papers(charter(2).data, b"", (), ())), Instant(60.0, NOW)).is_new
        assert side.charters.current == charter(2)


@pytest.mark.fault("invites")
def test_an_invite_used_twice_is_known_to_those_who_met_neither_user() -> None:
    line = NET.invite()
    sides = [Side(NET.roster(ANN, BOB)) for _ in range(4)]
    for side, person, by in ((sides[0], CAT, ANN), (sides[3], DAN, BOB)):
        side.roster.learn(NET.admitted(line, person, by=by).data, person.record(NET.id).data, NOW)
    exchange(sides[0], sides[3])
    exchange(sides[1], sides[0])  # from whom both are gone by now
    exchange(sides[2], sides[1])
    for side in sides:
        assert len(side.roster.conflicts) == 1
        assert set(side.roster.members) == {ANN.id, BOB.id}


def test_who_rests_on_a_member_that_ended_long_ago_is_believed_by_a_newcomer() -> None:
    old = Side(NET.roster(ANN, BOB))
    when = NOW + 29 * DAY
    old.roster.learn(NET.admitted(NET.invite(now=when), CAT, by=BOB, now=when).data, CAT.record(NET.id).data, when)
    later = NOW + 100 * DAY
    old.roster.expire(later)
    new = Side(NET.roster())
    exchange(new, old, wall=later)
    new.roster.expire(later)
    assert new.roster.standing(CAT.id) is None
    assert new.roster.digest == old.roster.digest


def test_what_ended_and_is_forgotten_here_is_not_kept_because_others_still_know_it() -> None:
    one, two = Side(NET.roster(ANN)), Side(NET.roster(ANN))
    later = NOW + 60 * DAY
    one.roster.expire(later)
    exchange(one, two, wall=later)
    for side in (one, two):
        side.roster.expire(later)
        assert not side.roster.entries()


def test_a_large_difference_comes_in_bounded_messages_and_comes_whole() -> None:
    one, two = Side(NET.roster()), Side(NET.roster(*(Person(f"m{k}") for k in range(700))))
    sizes = []
    for turn in range(40):
        exchange(one, two, at=turn * ANSWER_S)
        sizes.append(len(one.roster.entries()))
        if one.roster.digest == two.roster.digest:
            break
    assert sizes[0] < 700 and sizes[-1] == 700


def test_who_asks_all_the_time_is_not_answered_all_the_time() -> None:
    side = Side(NET.roster(ANN, BOB, CAT))
    frame = Side(NET.roster()).talk.inventory()
    answered = 0
    for k in range(100):
        try:
            answered += bool(side.talk.receive(ANN.id, frame, Instant(k / 10, NOW)).answers)
        except RejectedFrame as refused:
            assert refused.reason is Reason.RATE_LIMITED
    assert answered == 3 + 1  # at once, and what came in ten seconds
    assert side.talk.receive(BOB.id, frame, Instant(10, NOW)).answers


def test_papers_that_nobody_asked_for_are_not_read_without_end() -> None:
    side, frame = Side(NET.roster(ANN)), encode(Papers(b"", b"", (b"junk",) * 500, ()))
    for _ in range(3):
        assert side.talk.receive(ANN.id, frame, Instant(0, NOW)).refused == 500
    with pytest.raises(RejectedFrame, match="rate_limited"):
        side.talk.receive(ANN.id, frame, Instant(0, NOW))


def test_bad_statements_are_counted_and_nothing_of_them_kept() -> None:
    side, other = Side(NET.roster(ANN)), Network(seed=2)
    before = side.roster.digest
    bad = Papers(
        sign_charter(other.root.sign, charter(9).charter(other.root.key), 9, NOW, {}).data,
        attest(other.root.sign, other.id, (), NOW).data,
        (other.direct(BOB).data, b"junk", NET.direct(BOB).data[:-1] + b"\1"),
        (other.root.revoke(ANN.id, Cause.STOLEN, NOW).data, b""),
    )
    outcome = side.talk.receive(ANN.id, encode(bad), Instant(0, NOW))
    assert (outcome.is_new, outcome.refused, outcome.charter) == (False, 6, Reason.WRONG_NETWORK)
    assert side.roster.digest == before and side.charters.current == charter(1)


@pytest.mark.fault("junk")
@settings(max_examples=200)
@given(st.binary(max_size=600))
def test_whatever_comes_is_refused_by_name(frame: bytes) -> None:
    with pytest.raises(RejectedFrame) as refused:
        SIDE.talk.receive(ANN.id, frame, Instant(0, NOW))
    assert refused.value.reason in (Reason.BAD_HEADER, Reason.VERSION, Reason.KIND)


SIDE = Side(NET.roster(ANN))
