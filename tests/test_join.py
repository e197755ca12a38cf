"""Joining: a question to a member's door, an answer, and both believe only what is signed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import join
from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.join import AMPLIFICATION, REQUEST_BYTES, Door, Visit, question
from p2pfl.protocol.admission.joiner import Joined, news, understand
from p2pfl.protocol.admission.revocation import Cause
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters, SignedCharter, sign_charter
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.errors import Reason, RejectedFrame
from tests.admission import DAY, NOW, Network, Person, forged, receipted

ANN, BOB, CAT, DAN, EVE = (Person(name) for name in ("ann", "bob", "cat", "dan", "eve"))
NET = Network()
SECTIONS = {"task": {"name": "digits"}, "limits": {"max_abs": 1e3}, "codec": {"kind": "dense"}}


def charter(net: Network = NET, serial: int = 1) -> SignedCharter:
    agreed = Charter(net.name, net.root.key, b"s" * 32, 1000, GossipRules())
    return sign_charter(net.root.sign, agreed, serial, NOW, SECTIONS)


def door(own: Person, roster: Roster, net: Network = NET) -> Door:
    return Door(own.id, signer(own.identity.sign_seed), roster, Charters(net.root.key, charter(net)))


def ask(at: Door, credential: Credential, person: Person, wall: float = NOW, clock: bool = True) -> Visit:
    frame = question(credential, person.record(NET.id))
    return at.answer(frame, person.member.transport_key, wall, clock)


def joined(visit: Visit, credential: Credential, person: Person, wall: float = NOW) -> Joined:
    assert visit.answer is not None
    return understand(visit.answer, credential, person.record(NET.id), NET.root.key, wall)


def refused(visit: Visit, person: Person = BOB) -> Failure:
    with pytest.raises(Failure) as failed:
        joined(visit, NET.direct(person), person)
    assert "\n" not in str(failed.value) and failed.value.hint
    return failed.value


# ---- let in -------------------------------------------------------------------------------------------------------------


def test_an_invited_peer_becomes_a_member_on_both_sides_and_learns_charter_and_members() -> None:
    at, line = NET.roster(ANN, CAT), NET.invite()
    mine = line.redeem(BOB.id, "bob", NOW)
    visit = ask(door(ANN, at), mine, BOB)
    assert visit.admitted == BOB.id and at.members[BOB.id] == BOB.member
    found = joined(visit, mine, BOB)
    assert found.credential.receipt is not None and found.credential.receipt.admitter == ANN.id
    assert found.is_complete and dict(found.roster.members) == dict(at.members)
    assert found.charters.current.charter(NET.root.key).gossip == GossipRules()
    assert found.charters.current.sections["task"] == {"name": "digits"}


def test_whom_an_invited_member_let_in_can_show_all_that_it_rests_on() -> None:
    """Ann, whom the root vouches for, let in p0, who let in p1, and so on: each joiner knows its door and no more."""
    roster, own = NET.roster(ANN), ANN
    for k in range(6):
        person, line = Person(f"p{k}"), NET.invite(bytes([k]) * 32)
        mine = line.redeem(person.id, person.name, NOW)
        found = joined(ask(door(own, roster), mine, person), mine, person)
        assert found.roster.standing(own.id) is None and person.id in found.roster.members
        roster, own = found.roster, person
    assert len(roster.members) == 7


def test_asking_again_gives_the_same_credential_and_no_second_use() -> None:
    at, mine = NET.roster(ANN), NET.invite().redeem(BOB.id, "bob", NOW)
    first, again = (joined(ask(door(ANN, at), mine, BOB, wall), mine, BOB, wall) for wall in (NOW, NOW + 100))
    assert first.credential == again.credential
    anew = NET.invite().redeem(BOB.id, "bob", NOW + 50)  # its answer was lost with its disk, but not its identity
    assert joined(ask(door(ANN, at), anew, BOB, NOW + 50), anew, BOB, NOW + 50).credential == first.credential
    assert not at.conflicts


def test_a_certified_peer_needs_no_invite_and_no_receipt() -> None:
    at, mine = NET.roster(ANN), NET.direct(BOB, by=NET.issuer)
    found = joined(ask(door(ANN, at), mine, BOB), mine, BOB)
    assert found.credential == mine and BOB.id in at.members


def test_a_joiner_without_a_clock_takes_the_charters_time() -> None:
    at, mine = NET.roster(ANN), NET.direct(BOB)
    assert BOB.id in joined(ask(door(ANN, at), mine, BOB), mine, BOB, wall=0.0).roster.members


# ---- not let in ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("stranger")
def test_who_may_not_come_in_is_told_why_and_changes_nothing() -> None:
    line, root = NET.invite(), b"\1" * 32
    spent = NET.roster(ANN, CAT)
    ask(door(ANN, spent), line.redeem(DAN.id, "dan", NOW), DAN)
    revoked = NET.roster(ANN)
    revoked.revoke(NET.root.revoke(BOB.id, Cause.STOLEN, NOW).data, NOW)
    mine, late, month = line.redeem(BOB.id, "bob", NOW), NOW + 3600, NOW + 31 * DAY
    cases = [
        (NET.roster(ANN), Network(seed=2).direct(BOB), NOW, Reason.WRONG_NETWORK),
        (NET.roster(ANN), Credential(forged(b"\2" * 32, BOB, NET.id)), NOW, Reason.BAD_CHAIN),
        (NET.roster(ANN), Credential(forged(root, BOB, NET.id, not_after=int(NOW + 3650 * DAY))), NOW, Reason.BAD_TTL),
        (NET.roster(ANN), NET.invite(now=month).redeem(BOB.id, "bob", month), month, Reason.NO_RECEIPT),  # the door's has ended
        (NET.roster(ANN), NET.direct(BOB, NOW + 3 * DAY), NOW, Reason.CERT_FUTURE),
        (NET.roster(ANN), NET.direct(BOB, NOW - 60 * DAY), NOW, Reason.CERT_EXPIRED),
        (NET.roster(ANN), mine, late, Reason.INVITE_EXPIRED),
        (NET.roster(ANN), receipted(mine, EVE, NOW), NOW, Reason.NO_RECEIPT),
        (spent, mine, NOW, Reason.INVITE_SPENT),
        (revoked, mine, NOW, Reason.REVOKED),
        (revoked, NET.direct(BOB), NOW, Reason.REVOKED),
        (NET.roster(ANN), NET.invite(b"9" * 32).redeem(BOB.id, "ann", NOW), NOW, Reason.NAME_TAKEN),
        (NET.roster(), mine, NOW, Reason.NO_RECEIPT),  # the door itself is no member
    ]
    for roster, credential, wall, reason in cases:
        before = set(roster.members)
        visit = ask(door(ANN, roster), credential, BOB, wall)
        assert (visit.reason, visit.admitted) == (reason, None)
        failure = refused(visit)
        assert failure.code == reason and failure.exit_code is ExitCode.IDENTITY
        assert BOB.id not in roster.members and set(roster.members) <= before


def test_the_name_of_somebody_who_was_revoked_is_free_again() -> None:
    roster = NET.roster(ANN, CAT)
    mine = NET.invite().redeem(BOB.id, "cat", NOW)
    assert ask(door(ANN, roster), mine, BOB).reason is Reason.NAME_TAKEN
    roster.revoke(NET.root.revoke(CAT.id, Cause.STOLEN, NOW).data, NOW)
    assert ask(door(ANN, roster), mine, BOB).admitted == BOB.id


@pytest.mark.fault("clocks")
def test_with_a_clock_that_is_off_nobody_is_let_in() -> None:
    roster = NET.roster(ANN)
    assert ask(door(ANN, roster), NET.direct(BOB), BOB, clock=False).reason is Reason.BAD_CLOCK
    assert BOB.id not in roster.members


def test_nobody_joins_with_papers_that_it_saw_elsewhere() -> None:
    roster = NET.roster(ANN)
    seen = question(NET.direct(BOB), BOB.record(NET.id))
    assert door(ANN, roster).answer(seen, EVE.member.transport_key, NOW).reason is Reason.HOP_MISMATCH
    own = replace(BOB.member, transport_key=EVE.member.transport_key)
    made_up = question(NET.direct(BOB), EVE.record(NET.id, own=own))
    assert door(ANN, roster).answer(made_up, EVE.member.transport_key, NOW).reason is Reason.BAD_SIGNATURE
    swapped = question(NET.direct(BOB), EVE.record(NET.id))
    assert door(ANN, roster).answer(swapped, EVE.member.transport_key, NOW).reason is Reason.HOP_MISMATCH
    assert set(roster.members) == {ANN.id}


@pytest.mark.fault("invites")
def test_a_one_use_invite_lets_in_one_on_this_side() -> None:
    roster, line = NET.roster(ANN), NET.invite()
    outcomes = [ask(door(ANN, roster), line.redeem(p.id, p.name, NOW), p).reason for p in (BOB, CAT, DAN)]
    assert outcomes == [None, Reason.INVITE_SPENT, Reason.INVITE_SPENT]
    assert not roster.conflicts


@pytest.mark.fault("revoked")
def test_a_member_that_was_away_when_it_was_revoked_learns_it_at_any_door_by_the_signature() -> None:
    line = NET.invite(by=NET.issuer)
    own, at = NET.roster(ANN), NET.roster(ANN)
    admitted = NET.admitted(line, BOB, by=ANN)
    for roster in (own, at):
        roster.learn(admitted.data, BOB.record(NET.id).data, NOW)
    charters = Charters(NET.root.key, charter())
    assert admitted.issuer is not None
    for by, subject in ((NET.root, BOB.id), (NET.root, admitted.token), (NET.root, admitted.issuer.identity)):
        knows, asks = Roster.from_bytes(at.to_bytes(), NOW), Roster.from_bytes(own.to_bytes(), NOW)
        knows.revoke(NET.root.revoke(CAT.id, Cause.LEFT, NOW).data, NOW)
        knows.revoke(by.revoke(subject, Cause.STOLEN, NOW).data, NOW)
        visit = ask(door(ANN, knows), admitted, BOB)
        assert visit.reason is Reason.REVOKED and visit.answer is not None
        assert len(visit.answer) <= AMPLIFICATION * REQUEST_BYTES
        assert news(visit.answer, asks, charters, NOW) == "revoked"
        assert asks.standing(BOB.id) is Reason.REVOKED and len(asks.revocations) == 1
    lie = join.encode(join.Refused("revoked", (NET.issuer.revoke(ANN.id, Cause.STOLEN, NOW).data, b"junk")))
    assert news(lie, own, charters, NOW) == "revoked" and own.standing(BOB.id) is None and own.standing(ANN.id) is None


def test_a_member_that_asks_a_door_again_learns_who_came_meanwhile_and_the_newer_charter() -> None:
    own, at = NET.roster(ANN, BOB), NET.roster(ANN, BOB, CAT)
    charters, newer = Charters(NET.root.key, charter()), Charters(NET.root.key, charter(serial=5))
    host = Door(ANN.id, signer(ANN.identity.sign_seed), at, newer)
    answer = ask(host, NET.direct(BOB), BOB).answer
    assert answer is not None and news(answer, own, charters, NOW) == ""
    assert CAT.id in own.members and charters.current.serial == 5
    older = ask(door(ANN, at), NET.direct(BOB), BOB).answer
    assert older is not None and news(older, own, charters, NOW) == "" and charters.current.serial == 5


@pytest.mark.fault("revoked")
def test_who_was_certified_anew_while_it_was_away_gets_that_at_any_door_with_the_old_one() -> None:
    old = NET.direct(BOB, by=NET.issuer)
    own, at = NET.roster(ANN), NET.roster(ANN)
    for roster in (own, at):
        roster.learn(old.data, BOB.record(NET.id).data, NOW)
    gone = NET.root.revoke(NET.issuer.key, Cause.STOLEN, NOW).data
    own.revoke(gone, NOW)
    at.revoke(gone, NOW)
    assert ask(door(ANN, at), old, BOB).reason is Reason.REVOKED
    at.learn(NET.direct(BOB, now=NOW + 40 * DAY, serial=2).data, None, NOW + 40 * DAY)
    answer = ask(door(ANN, at), old, BOB, NOW + 40 * DAY).answer  # revoked, and expired as well
    assert answer is not None and news(answer, own, Charters(NET.root.key, charter()), NOW + 40 * DAY) == ""
    assert own.standing(BOB.id) is None


@pytest.mark.fault("stranger")
def test_a_refusal_tells_no_revocation_to_whom_the_root_never_vouched_for() -> None:
    at = NET.roster(ANN)
    at.revoke(NET.root.revoke(BOB.id, Cause.STOLEN, NOW).data, NOW)
    fake = Credential(forged(b"\5" * 32, BOB, NET.id))
    answer = ask(door(ANN, at), fake, BOB).answer
    assert answer == join.encode(join.Refused("bad_chain"))


# ---- bounds -------------------------------------------------------------------------------------------------------------


def test_no_answer_is_over_four_times_the_question_however_large_the_network() -> None:
    people = [Person(f"m{k}") for k in range(200)]
    roster = NET.roster(ANN, *people)
    for k in range(300):
        roster.revoke(NET.root.revoke(k.to_bytes(32, "big"), Cause.LEFT, NOW).data, NOW)
    mine = NET.direct(BOB)
    visit = ask(door(ANN, roster), mine, BOB)
    assert visit.answer is not None
    assert REQUEST_BYTES - 8 <= len(question(mine, BOB.record(NET.id))) <= REQUEST_BYTES
    assert len(visit.answer) <= AMPLIFICATION * REQUEST_BYTES
    found = joined(visit, mine, BOB)
    assert not found.is_complete
    assert {ANN.id, BOB.id} <= set(found.roster.members) and found.roster.revocations


def test_a_question_without_padding_gets_no_more_than_it_paid_for() -> None:
    bare = join.encode(join.Join(NET.id, NET.direct(BOB).data, BOB.record(NET.id).data))
    visit = door(ANN, NET.roster(ANN)).answer(bare, BOB.member.transport_key, NOW)
    assert visit.answer is not None and len(visit.answer) <= AMPLIFICATION * len(bare)


@pytest.mark.fault("junk")
@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_whatever_comes_to_the_door_is_refused_by_name_and_briefly(frame: bytes) -> None:
    visit = DOOR.answer(frame, EVE.member.transport_key, NOW)
    assert visit.admitted is None
    assert visit.reason in (Reason.BAD_HEADER, Reason.VERSION, Reason.KIND)
    assert len(visit.answer or b"") <= AMPLIFICATION * len(frame)
    assert (visit.answer is None) == (len(frame) < join.QUESTION_MIN)


DOOR = door(ANN, NET.roster(ANN))


def test_every_byte_of_a_question_but_its_padding_counts() -> None:
    credential = NET.invite(by=NET.issuer).redeem(BOB.id, "bob", NOW)
    frame = join.encode(join.Join(NET.id, credential.data, BOB.record(NET.id).data))
    at = door(ANN, NET.roster(ANN))
    for place in range(len(frame)):
        edited = frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]
        visit = at.answer(edited, BOB.member.transport_key, NOW)
        assert visit.admitted is None, place
    assert at.answer(frame, BOB.member.transport_key, NOW).admitted == BOB.id


# ---- what a joiner believes ---------------------------------------------------------------------------------------------


def test_a_joiner_believes_no_door_that_cannot_show_the_roots_signature() -> None:
    evil = Network(seed=9)
    mine = NET.direct(BOB)
    theirs = evil.roster(EVE)
    welcome = join.Welcome(charter(evil).data, mine.data, theirs.digest, theirs.entry(EVE.id), ())
    wrong_owner = join.Welcome(charter().data, NET.direct(CAT).data, bytes(32), (), ())
    alone = NET.invite().redeem(BOB.id, "bob", NOW)
    no_papers = join.Welcome(charter().data, receipted(alone, ANN, NOW).data, bytes(32), (), ())
    for answer in (welcome, wrong_owner, no_papers):
        with pytest.raises(Failure) as failed:
            understand(join.encode(answer), mine, BOB.record(NET.id), NET.root.key, NOW)
        assert (failed.value.code, failed.value.exit_code) == ("bad_welcome", ExitCode.IDENTITY)


@pytest.mark.fault("flipped bit")
def test_every_flipped_byte_of_a_welcome_is_noticed_or_harmless() -> None:
    """Harmless: the roster's digest, which only says whether gossip has more to bring, and what gossip brings again."""
    roster, mine = NET.roster(ANN), NET.invite().redeem(BOB.id, "bob", NOW)
    visit = ask(door(ANN, roster), mine, BOB)
    assert visit.answer is not None
    honest = joined(visit, mine, BOB)
    for place in range(len(visit.answer)):
        edited = visit.answer[:place] + bytes([visit.answer[place] ^ 1]) + visit.answer[place + 1 :]
        try:
            found = understand(edited, mine, BOB.record(NET.id), NET.root.key, NOW)
        except Failure:
            continue
        assert found.charters.current == honest.charters.current and found.credential == honest.credential
        assert found.roster.members.items() <= honest.roster.members.items()
        assert not found.is_complete


def test_another_version_and_an_unknown_refusal_are_said_in_one_line() -> None:
    frame = join.encode(join.Refused("later_reason"))
    with pytest.raises(Failure, match="does not know"):
        understand(frame, NET.direct(BOB), BOB.record(NET.id), NET.root.key, NOW)
    with pytest.raises(Failure) as failed:
        understand(frame[:1] + b"\2" + frame[2:], NET.direct(BOB), BOB.record(NET.id), NET.root.key, NOW)
    assert failed.value.exit_code is ExitCode.VERSION


# ---- charters -----------------------------------------------------------------------------------------------------------


def test_the_highest_serial_holds_the_one_before_for_a_day_and_an_old_one_never_again() -> None:
    agreed = [replace(charter(serial=k).charter(NET.root.key), gossip=GossipRules(rounds=k)) for k in range(1, 4)]
    signed = [sign_charter(NET.root.sign, one, k, NOW, SECTIONS) for k, one in enumerate(agreed, 1)]
    digests = [one.charter(NET.root.key).digest for one in signed]
    charters = Charters(NET.root.key, signed[0])
    assert charters.learn(signed[1].data, NOW) and not charters.learn(signed[1].data, NOW)
    for again in (charters, Charters.from_bytes(charters.to_bytes())):
        assert again.tolerated(NOW + 1) == (digests[0], NOW + DAY)
        assert again.tolerated(NOW + DAY) == again.tolerated(NOW - 1) == (b"", 0.0)
        with pytest.raises(RejectedFrame, match="old_charter"):
            again.learn(signed[0].data, NOW + 2)
        again.learn(signed[2].data, NOW + 3)
        assert again.tolerated(NOW + 4)[0] == digests[1]


@pytest.mark.fault("charters")
def test_two_charters_with_one_number_and_one_from_the_far_future_are_refused_by_name() -> None:
    charters = Charters(NET.root.key, charter(serial=2))
    agreed = replace(charter().charter(NET.root.key), gossip=GossipRules(rounds=3))
    for other, reason in (
        (sign_charter(NET.root.sign, agreed, 2, NOW, SECTIONS), Reason.CHARTER_CONFLICT),
        (sign_charter(NET.root.sign, agreed, 3, NOW + 2 * DAY, SECTIONS), Reason.CERT_FUTURE),
        (sign_charter(NET.issuer.sign, agreed, 3, NOW, SECTIONS), Reason.BAD_CHAIN),
        (sign_charter(NET.root.sign, agreed, 1, NOW, SECTIONS), Reason.OLD_CHARTER),
    ):
        with pytest.raises(RejectedFrame) as bad:
            charters.learn(other.data, NOW)
        assert bad.value.reason is reason and charters.current == charter(serial=2)


@pytest.mark.parametrize(
    "sections",
    [
        {"task": {"name": "evil.py:task"}},
        {"task": {"name": "../task"}},
        {"task": {"name": "a:b"}},
        {"task": {"name": 7}},
        {"data": {"file": "/etc/passwd"}},
        {"data": {"code": "x.py"}},
        {"data": {"nested": {"a": 1}}},
        {"data": {"list": ["a"]}},
        {"data": {"key with spaces": 1}},
        {"data": {"huge": 1 << 60}},
        {f"section{k}": {"x" * 60: 1} for k in range(40)},
    ],
)
def test_a_charter_names_no_file_no_code_and_nothing_endless(sections: dict[str, dict[str, object]]) -> None:
    agreed = charter().charter(NET.root.key)
    with pytest.raises(RejectedFrame, match="bad_header"):
        sign_charter(NET.root.sign, agreed, 1, NOW, sections)


@pytest.mark.parametrize(
    "settings_",
    [
        b"[]",
        b"{}",
        b"[" * 2000,
        b'{"gossip":{"x":1}}',
        b'{"gossip":{"floor_s":"1"}}',
        b'{"gossip":{"rounds":-1}}',
        b'{"a":{"x":1,"x":2}}',
        b'{"a":{"x":NaN}}',
        b"\xff",
    ],
)
def test_settings_that_are_no_settings_are_refused(settings_: bytes) -> None:
    with pytest.raises(RejectedFrame, match="bad_header"):
        signed = charter()
        SignedCharter(**{name: getattr(signed, name) for name in signed.__slots__} | {"settings": settings_}).sections["gossip"]


def test_a_charter_of_another_root_or_name_is_not_this_networks() -> None:
    charters = Charters(NET.root.key, charter())
    for other, reason in ((Network(seed=2), Reason.WRONG_NETWORK), (Network(name="x"), Reason.WRONG_NETWORK)):
        with pytest.raises(RejectedFrame) as bad:
            charters.learn(charter(other, serial=9).data, NOW)
        assert bad.value.reason is reason
    data = bytearray(charter(serial=9).data)
    for place in range(len(data)):
        data[place] ^= 1
        with pytest.raises(RejectedFrame):
            charters.learn(bytes(data), NOW)
        data[place] ^= 1


def test_what_was_signed_is_in_the_digest_that_peers_compare() -> None:
    plain = charter().charter(NET.root.key)
    other = sign_charter(NET.root.sign, plain, 1, NOW, SECTIONS | {"limits": {"max_abs": 2.0}}).charter(NET.root.key)
    assert plain.digest != other.digest and plain.gossip == other.gossip
