"""Who is a member: what the root vouches for, directly or by an invite and a member's receipt; whatever came first."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import admissions
from p2pfl.protocol.admission.certificate import Credential, Role
from p2pfl.protocol.admission.record import state
from p2pfl.protocol.admission.revocation import Cause, Revocation, revoke
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from sim.entropy import SeededEntropy
from tests.admission import DAY, NOW, Network, Person, forged, receipted

ANN, BOB, CAT, DAN, EVE = (Person(name) for name in ("ann", "bob", "cat", "dan", "eve"))
NET = Network()
History = list[Callable[[Roster], object]]


def refusal(act: Callable[[], object]) -> Reason:
    with pytest.raises(RejectedFrame) as refused:
        act()
    return refused.value.reason


def show(roster: Roster, credential: Credential, person: Person, now: float = NOW) -> bool:
    return roster.learn(credential.data, person.record(NET.id).data, now)


def by_itself(person: Person, cause: Cause = Cause.LEFT) -> Revocation:
    return revoke(signer(person.identity.sign_seed), NET.id, person.id, person.id, cause, NOW)


# ---- chains -------------------------------------------------------------------------------------------------------------


def test_a_member_is_who_the_root_an_issuer_or_an_invite_with_a_receipt_vouches_for() -> None:
    roster = NET.roster(ANN)
    assert show(roster, NET.direct(BOB, by=NET.issuer), BOB)
    assert show(roster, NET.admitted(NET.invite(), CAT, by=BOB), CAT)
    assert show(roster, NET.admitted(NET.invite(b"u" * 32, by=NET.issuer), DAN, by=CAT), DAN)
    assert roster.members == {one.id: one.member for one in (ANN, BOB, CAT, DAN)}
    assert all(roster.standing(one.id) is None for one in (ANN, BOB, CAT, DAN))
    assert roster.standing(EVE.id) is Reason.NOT_MEMBER


def test_the_mapping_handed_out_is_live_and_nobody_outside_can_change_it() -> None:
    roster = NET.roster()
    members = roster.members
    assert not members
    show(roster, NET.direct(ANN), ANN)
    assert members[ANN.id] == ANN.member
    with pytest.raises(TypeError):
        members[BOB.id] = BOB.member  # type: ignore[index]


def test_versions_count_what_the_disk_and_the_links_must_hear_of_and_nothing_else() -> None:
    roster = NET.roster(ANN)
    version, members = roster.version, roster.members_version
    show(roster, NET.direct(BOB), BOB)
    assert roster.version > version and roster.members_version == members + 1
    version = roster.version
    show(roster, NET.direct(BOB), BOB)
    assert (roster.version, roster.members_version) == (version, members + 1)
    roster.learn_record(BOB.record(NET.id, incarnation=9), NOW)  # the same keys and address
    assert (roster.version, roster.members_version) == (version + 1, members + 1)
    roster.revoke(by_itself(BOB).data, NOW)
    assert roster.version > version + 1 and roster.members_version == members + 2


@pytest.mark.fault("stranger")
def test_a_self_made_root_another_network_and_another_name_are_refused() -> None:
    roster, other = NET.roster(ANN), Network(seed=2)
    assert refusal(lambda: roster.learn(other.direct(BOB).data, None, NOW)) is Reason.WRONG_NETWORK
    self_made = Credential(forged(b"\2" * 32, BOB, NET.id))
    assert refusal(lambda: roster.learn(self_made.data, None, NOW)) is Reason.BAD_CHAIN
    assert refusal(lambda: roster.learn(Network(name="other").direct(BOB).data, None, NOW)) is Reason.WRONG_NETWORK


def test_a_member_an_issuer_and_a_token_vouch_for_no_more_than_they_may() -> None:
    roster = NET.roster(ANN)
    line, office = NET.invite(), NET.issuer.certificate
    invite = line.statement()
    assert office is not None
    member_signs = Credential(forged(ANN.identity.sign_seed, BOB, NET.id))
    member_as_issuer = Credential(forged(ANN.identity.sign_seed, BOB, NET.id), NET.direct(ANN).certificate)
    issuer_makes_issuer = Credential(forged(b"\x65" * 32, BOB, NET.id, role=Role.ISSUE), office)
    token_makes_relay = receipted(Credential(forged(b"t" * 32, BOB, NET.id, role=Role.RELAY), None, invite), ANN, NOW)
    issuer_as_leaf = Credential(office)
    outlives_issuer = Credential(
        forged(b"\x65" * 32, BOB, NET.id, not_before=office.not_after - 10, not_after=office.not_after + 1), office
    )
    for credential in (member_signs, member_as_issuer, issuer_makes_issuer, token_makes_relay, outlives_issuer):
        assert refusal(lambda: roster.learn(credential.data, None, NOW)) is Reason.BAD_CHAIN  # noqa: B023
    assert refusal(lambda: roster.learn(issuer_as_leaf.data, None, NOW)) in (Reason.BAD_CHAIN, Reason.BAD_TTL)
    assert set(roster.members) == {ANN.id}


@pytest.mark.fault("lifetime")
def test_a_certificate_lasts_some_time_and_none_lasts_ten_years() -> None:
    roster = NET.roster()
    root = b"\1" * 32
    for not_before, not_after in ((0, 0), (5, 4), (NOW, NOW + 3650 * DAY), (NOW, NOW + 92 * DAY)):
        bad = Credential(forged(root, BOB, NET.id, not_before=int(not_before), not_after=int(not_after)))
        assert refusal(lambda: roster.learn(bad.data, None, NOW)) is Reason.BAD_TTL  # noqa: B023


@pytest.mark.fault("lifetime")
def test_a_certificate_counts_from_its_first_second_to_its_last() -> None:
    roster = NET.roster()
    show(roster, NET.direct(ANN, days=30), ANN)
    first, last = NOW - DAY, NOW + 30 * DAY
    for moment, expected in (
        (first - 1, Reason.CERT_FUTURE),
        (first, None),
        (last - 1, None),
        (last, Reason.CERT_EXPIRED),
        (last + 6 * DAY, Reason.CERT_EXPIRED),
        (last + 8 * DAY, Reason.NOT_MEMBER),  # forgotten
    ):
        roster.expire(moment)
        assert roster.standing(ANN.id) is expected
        assert (ANN.id in roster.members) is (expected is None)


@pytest.mark.fault("clocks")
def test_a_machine_without_a_clock_judges_by_what_it_knows_for_certain() -> None:
    roster = NET.roster(ANN)
    roster.expire(0.0)  # 1970
    assert roster.standing(ANN.id) is Reason.CERT_FUTURE
    roster.witness(NOW)  # when the charter was signed
    roster.expire(0.0)
    assert ANN.id in roster.members
    again = Roster.from_bytes(roster.to_bytes(), wall=0.0)
    assert ANN.id in again.members
    assert again.time(0.0) == NOW


def test_a_witnessed_time_is_kept_once_a_day_and_disturbs_nobody_whose_clock_is_ahead_of_it() -> None:
    roster = NET.roster(ANN)
    day = NOW - NOW % DAY
    roster.witness(day)
    version = roster.version
    roster.expire(NOW)
    for moment in range(int(day), int(day + DAY), 3600):
        roster.witness(float(moment))
    assert roster.version == version and ANN.id in roster.members
    roster.witness(day + DAY)
    assert roster.version == version + 1
    assert Roster.from_bytes(roster.to_bytes(), wall=0.0).time(0.0) == day + DAY


def test_a_newer_certificate_renews_a_member_without_a_gap() -> None:
    roster = NET.roster(ANN)
    roster.learn(NET.direct(ANN, NOW + 20 * DAY, serial=2).data, None, NOW + 20 * DAY)
    roster.expire(NOW + 40 * DAY)
    assert ANN.id in roster.members
    assert not roster.learn(NET.direct(ANN).data, None, NOW + 40 * DAY)  # the old one, replayed


# ---- invites ------------------------------------------------------------------------------------------------------------


def test_an_invite_alone_makes_no_member() -> None:
    roster = NET.roster(ANN)
    line = NET.invite()
    redeemed = line.redeem(BOB.id, "bob", NOW)
    assert refusal(lambda: show(roster, redeemed, BOB)) is Reason.NO_RECEIPT
    assert refusal(lambda: show(roster, receipted(redeemed, EVE, NOW), BOB)) is Reason.NO_RECEIPT  # Eve is a stranger
    assert refusal(lambda: show(roster, receipted(redeemed, BOB, NOW), BOB)) is Reason.BAD_CHAIN  # he lets himself in
    assert set(roster.members) == {ANN.id}


def test_a_receipt_is_for_one_certificate_while_the_invite_lasts() -> None:
    roster = NET.roster(ANN)
    line = NET.invite(ttl_s=3600.0)
    redeemed, other = line.redeem(BOB.id, "bob", NOW), line.redeem(CAT.id, "cat", NOW)
    late = receipted(redeemed, ANN, NOW + 3600)
    moved = replace(receipted(other, ANN, NOW), certificate=redeemed.certificate)
    for credential in (late, moved):
        assert refusal(lambda: show(roster, credential, BOB)) is Reason.BAD_CHAIN  # noqa: B023


def test_who_is_no_member_any_more_lets_nobody_in() -> None:
    later = NOW + 31 * DAY
    roster = NET.roster(ANN, BOB)
    roster.learn(NET.direct(BOB, later, serial=2).data, None, later)
    line = NET.invite(now=later)
    assert refusal(lambda: show(roster, NET.admitted(line, CAT, by=ANN, now=later), CAT, later)) is Reason.NO_RECEIPT
    assert show(roster, NET.admitted(line, CAT, by=BOB, now=later), CAT, later)


@pytest.mark.fault("invites")
def test_an_invite_used_on_both_sides_of_a_split_is_held_against_both_until_an_issuer_decides() -> None:
    line = NET.invite()
    left, right = NET.roster(ANN, BOB), NET.roster(ANN, BOB)
    cat, dan = NET.admitted(line, CAT, by=ANN), NET.admitted(line, DAN, by=BOB, now=NOW + 120)
    show(left, cat, CAT)
    show(right, dan, DAN)
    assert CAT.id in left.members and DAN.id in right.members
    show(left, dan, DAN)
    show(right, cat, CAT)
    for roster in (left, right):
        assert set(roster.members) == {ANN.id, BOB.id}
        assert roster.standing(CAT.id) is roster.standing(DAN.id) is Reason.HELD
        (conflict,) = roster.conflicts
        assert conflict.identities == tuple(sorted((CAT.id, DAN.id)))
        assert conflict.max_uses == 1
        show(roster, NET.direct(CAT), CAT)  # the issuer decides
        assert set(roster.members) == {ANN.id, BOB.id, CAT.id}
    assert left.digest == right.digest


@pytest.mark.fault("invites")
def test_an_invite_for_three_holds_nobody_before_the_fourth() -> None:
    line, roster = NET.invite(uses=3), NET.roster(ANN)
    people = [Person(f"p{k}") for k in range(4)]
    for count, person in enumerate(people[:3], 1):
        assert not roster.is_spent(line.statement(), person.id)
        show(roster, NET.admitted(line, person, by=ANN), person)
        assert len(roster.members) == 1 + count
    assert roster.is_spent(line.statement(), people[3].id)
    assert not roster.is_spent(line.statement(), people[0].id)  # his own use
    show(roster, NET.admitted(line, people[3], by=ANN), people[3])
    assert set(roster.members) == {ANN.id}


@pytest.mark.fault("revoked")
def test_who_is_revoked_cannot_come_back_by_the_same_invite() -> None:
    line, roster = NET.invite(), NET.roster(ANN, BOB)
    show(roster, NET.admitted(line, CAT, by=ANN), CAT)
    roster.revoke(NET.root.revoke(CAT.id, Cause.EXPELLED, NOW).data, NOW)
    show(roster, NET.admitted(line, DAN, by=BOB), DAN)  # her next identity, on the other side of a split
    assert set(roster.members) == {ANN.id, BOB.id}


def test_receipts_of_a_revoked_member_hold_nobody_whom_an_honest_one_let_in() -> None:
    line, roster = NET.invite(), NET.roster(ANN, EVE)
    show(roster, NET.admitted(line, BOB, by=ANN), BOB)
    show(roster, NET.admitted(line, CAT, by=EVE), CAT)  # Eve got hold of the spent invite
    assert set(roster.members) == {ANN.id, EVE.id}
    roster.revoke(NET.root.revoke(EVE.id, Cause.EXPELLED, NOW).data, NOW)
    assert set(roster.members) == {ANN.id, BOB.id}
    assert roster.standing(CAT.id) is Reason.HELD


def test_what_a_revoked_member_did_before_stands_while_nothing_speaks_against_it() -> None:
    roster = NET.roster(ANN, EVE)
    show(roster, NET.admitted(NET.invite(), BOB, by=EVE), BOB)
    roster.revoke(NET.root.revoke(EVE.id, Cause.EXPELLED, NOW).data, NOW)
    assert set(roster.members) == {ANN.id, BOB.id}


# ---- revocation ---------------------------------------------------------------------------------------------------------


@pytest.mark.fault("revoked")
def test_a_revoked_member_is_gone_at_once_and_for_ever() -> None:
    roster = NET.roster(ANN, BOB)
    assert roster.revoke(NET.root.revoke(BOB.id, Cause.STOLEN, NOW).data, NOW)
    assert set(roster.members) == {ANN.id}
    assert roster.standing(BOB.id) is Reason.REVOKED
    show(roster, NET.direct(BOB, NOW + 1, serial=2), BOB)
    roster.learn_record(BOB.record(NET.id, incarnation=9), NOW)
    assert set(roster.members) == {ANN.id}


def test_one_may_revoke_oneself_the_root_anybody_an_issuer_whom_it_vouched_for() -> None:
    roster = NET.roster(ANN, BOB)
    show(roster, NET.direct(CAT, by=NET.issuer), CAT)
    show(roster, NET.admitted(NET.invite(by=NET.issuer), DAN, by=ANN), DAN)
    by_bob = revoke(signer(BOB.identity.sign_seed), NET.id, ANN.id, BOB.id, Cause.STOLEN, NOW)
    assert refusal(lambda: roster.revoke(by_bob.data, NOW)) is Reason.BAD_CHAIN
    assert refusal(lambda: roster.revoke(NET.issuer.revoke(ANN.id, Cause.STOLEN, NOW).data, NOW)) is Reason.BAD_CHAIN
    assert set(roster.members) == {ANN.id, BOB.id, CAT.id, DAN.id}
    for data in (by_itself(BOB).data, NET.issuer.revoke(CAT.id, Cause.EXPELLED, NOW).data):
        assert roster.revoke(data, NOW)
    assert set(roster.members) == {ANN.id, DAN.id}
    assert roster.revoke(NET.root.revoke(NET.issuer.key, Cause.STOLEN, NOW).data, NOW)  # and with it all that it vouched for
    assert set(roster.members) == {ANN.id}


@pytest.mark.fault("revocations")
def test_a_stolen_issuers_key_removes_nobody_by_vouching_for_it_first() -> None:
    roster = NET.roster(ANN)
    show(roster, NET.admitted(NET.invite(), BOB, by=ANN), BOB)
    for person in (ANN, BOB):
        roster.learn(NET.direct(person, NOW, days=90, by=NET.issuer, serial=99).data, None, NOW)
        roster.revoke(NET.issuer.revoke(person.id, Cause.EXPELLED, NOW).data, NOW)
    assert set(roster.members) == {ANN.id, BOB.id}


def test_whatever_others_vouch_for_the_roots_word_finds_room() -> None:
    roster = NET.roster(ANN)
    for k in range(admissions.CREDENTIALS_MAX):
        roster.learn(NET.admitted(NET.invite(bytes([k]) * 32), BOB, by=ANN).data, None, NOW)
    more = NET.admitted(NET.invite(b"9" * 32), BOB, by=ANN)
    assert refusal(lambda: show(roster, more, BOB)) is Reason.FULL
    assert show(roster, NET.direct(BOB), BOB)


def test_a_revoked_invite_takes_along_whom_it_let_in() -> None:
    line, roster = NET.invite(), NET.roster(ANN)
    show(roster, NET.admitted(line, BOB, by=ANN), BOB)
    roster.revoke(NET.root.revoke(line.statement().token, Cause.STOLEN, NOW).data, NOW)
    assert set(roster.members) == {ANN.id}


def test_a_revocation_that_came_before_its_subject_still_counts() -> None:
    roster = NET.roster(ANN)
    data = NET.root.revoke(BOB.id, Cause.STOLEN, NOW).data
    assert roster.revoke(data, NOW) and not roster.revoke(data, NOW)
    show(roster, NET.direct(BOB), BOB)
    assert set(roster.members) == {ANN.id}
    assert len(roster.revocations) == 1


@pytest.mark.fault("revocations")
def test_strangers_revoke_nobody_not_even_themselves() -> None:
    roster = NET.roster(ANN)
    assert refusal(lambda: roster.revoke(by_itself(EVE).data, NOW)) is Reason.NOT_MEMBER
    of_ann = revoke(signer(EVE.identity.sign_seed), NET.id, ANN.id, EVE.id, Cause.LEFT, NOW)
    in_anns_name = revoke(signer(EVE.identity.sign_seed), NET.id, ANN.id, ANN.id, Cause.LEFT, NOW)
    in_roots_name = revoke(signer(EVE.identity.sign_seed), NET.id, ANN.id, NET.root.key, Cause.LEFT, NOW)
    assert refusal(lambda: roster.revoke(of_ann.data, NOW)) is Reason.BAD_CHAIN
    for forgery in (in_anns_name, in_roots_name):
        assert refusal(lambda: roster.revoke(forgery.data, NOW)) is Reason.BAD_SIGNATURE  # noqa: B023
    other = Network(seed=2).root.revoke(ANN.id, Cause.LEFT, NOW)
    assert refusal(lambda: roster.revoke(other.data, NOW)) is Reason.WRONG_NETWORK
    assert set(roster.members) == {ANN.id} and not roster.revocations


@pytest.mark.fault("revocations")
def test_an_old_set_replayed_takes_no_revocation_back() -> None:
    roster = NET.roster(ANN, BOB)
    old = roster.to_bytes()
    roster.revoke(by_itself(BOB).data, NOW)
    merge(roster, Roster.from_bytes(old, NOW))
    assert set(roster.members) == {ANN.id}


@pytest.mark.fault("revocations")
def test_a_hundred_thousand_revocations_fill_their_room_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "REVOCATIONS_MAX", 64)
    roster = Roster(NET.id, NET.root.key, check=lambda key, context, body, signature: True)
    show(roster, NET.direct(ANN), ANN)
    outcomes = set()
    sign = signer(bytes(32))
    for k in range(3000):
        data = revoke(sign, NET.id, k.to_bytes(32, "big"), NET.root.key, Cause.EXPELLED, NOW).data
        try:
            outcomes.add(roster.revoke(data, NOW))
        except RejectedFrame as refused:
            outcomes.add(refused.reason)
    assert outcomes == {True, Reason.FULL}
    assert len(roster.revocations) == 64
    assert roster.revoke(by_itself(ANN).data, NOW)  # others have room of their own
    assert not roster.members


def test_a_revocation_is_forgotten_a_week_after_the_certificate_would_have_ended() -> None:
    roster = NET.roster(ANN, BOB)
    roster.revoke(by_itself(BOB).data, NOW)
    roster.expire(NOW + 36 * DAY)
    assert len(roster.revocations) == 1
    roster.expire(NOW + 38 * DAY)
    assert not roster.revocations
    assert roster.standing(BOB.id) is Reason.NOT_MEMBER


# ---- records ------------------------------------------------------------------------------------------------------------


def test_a_record_of_a_stranger_of_another_network_or_by_another_is_not_kept() -> None:
    roster = NET.roster(ANN)
    assert refusal(lambda: roster.learn_record(EVE.record(NET.id), NOW)) is Reason.NOT_MEMBER
    assert refusal(lambda: roster.learn_record(ANN.record(bytes(16), 5), NOW)) is Reason.WRONG_NETWORK
    for has_left in (False, True):
        forgery = EVE.record(NET.id, 9, own=replace(EVE.member, id=ANN.id), has_left=has_left)
        assert refusal(lambda: roster.learn_record(forgery, NOW)) is Reason.BAD_SIGNATURE  # noqa: B023
    with pytest.raises(RejectedFrame):
        roster.learn(NET.direct(BOB).data, ANN.record(NET.id, 5).data, NOW)  # a record of somebody else beside the credential
    assert BOB.id not in roster.members
    assert roster.records[ANN.id].incarnation == 0


def test_the_newest_record_says_where_a_member_is_and_an_older_one_changes_nothing() -> None:
    roster = NET.roster(ANN)
    moved = replace(ANN.member, address="elsewhere:1")
    assert roster.learn_record(ANN.record(NET.id, 2, own=moved), NOW)
    assert not roster.learn_record(ANN.record(NET.id, 1), NOW)
    assert roster.members[ANN.id].address == "elsewhere:1"


def test_a_new_transport_key_and_the_one_before_are_good_for_a_day_and_never_a_third() -> None:
    roster = NET.roster(ANN)
    keys = [Identity.generate(SeededEntropy(k, b"keys")).transport_key for k in range(3)]
    for k, key in enumerate(keys, 1):
        own = replace(ANN.member, transport_key=key)
        roster.learn_record(ANN.record(NET.id, k, own=own, key_seq=k, wall=NOW + k), NOW + k)
        assert len(roster.transport_keys(ANN.id)) == 2
    assert roster.transport_keys(ANN.id) == (keys[2], keys[1])
    roster.expire(NOW + 3 + DAY)
    assert roster.transport_keys(ANN.id) == (keys[2],)
    assert roster.transport_keys(EVE.id) == ()


def test_two_members_may_have_one_name_after_a_split_and_it_names_both() -> None:
    roster = NET.roster(ANN)
    twin = Person("ann-too")
    roster.learn(NET.root.vouch(twin.id, "ann", NOW, 30, 1).data, twin.record(NET.id).data, NOW)
    assert roster.named("ann") == tuple(sorted((ANN.id, twin.id)))


# ---- bounds -------------------------------------------------------------------------------------------------------------


def test_a_full_roster_lets_go_of_who_left_and_of_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "MEMBERS_MAX", 8)
    monkeypatch.setattr("p2pfl.protocol.admission.roster.MEMBERS_MAX", 8)
    roster = NET.roster(ANN)
    for k in range(100):  # come and go
        person = Person(f"guest-{k}")
        assert show(roster, NET.direct(person), person)
        roster.learn_record(person.record(NET.id, 1, has_left=True, wall=NOW + k), NOW + k)
        assert len(roster.members) <= 8
    for k in range(7):
        show(roster, NET.direct(Person(f"resident-{k}")), Person(f"resident-{k}"))
    assert refusal(lambda: show(roster, NET.direct(BOB), BOB)) is Reason.FULL
    assert {ANN.id, *(Person(f"resident-{k}").id for k in range(7))} == set(roster.members)


@pytest.mark.fault("crowds")
@pytest.mark.slow
def test_a_hundred_thousand_who_come_and_leave_leave_no_more_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "MEMBERS_MAX", 16)
    monkeypatch.setattr("p2pfl.protocol.admission.roster.MEMBERS_MAX", 16)
    roster = Roster(NET.id, NET.root.key, check=lambda key, context, body, signature: True)
    show(roster, NET.direct(ANN), ANN)
    guest, sizes = Person("guest").member, set()
    for k in range(100_000):
        own = replace(guest, id=PeerId(k.to_bytes(32, "big")))
        credential = NET.root.vouch(own.id, "guest", NOW, 30, 1)
        record = state(lambda context, body: bytes(64), NET.id, own, 1, bytes(16), 0, NOW + k, has_left=True)
        assert roster.learn(credential.data, record.data, NOW)
        if k % 1000 == 999:
            sizes.add(len(roster.to_bytes()))
    assert len(roster.entries()) == 16 and ANN.id in roster.members
    assert len(sizes) == 1


@pytest.mark.fault("crowds")
def test_a_stolen_issuers_key_fills_its_share_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admissions, "ISSUED_MAX", 3)
    roster = NET.roster(ANN)
    for k in range(3):
        show(roster, NET.direct(Person(f"fake-{k}"), by=NET.issuer), Person(f"fake-{k}"))
    assert refusal(lambda: show(roster, NET.direct(BOB, by=NET.issuer), BOB)) is Reason.FULL
    assert show(roster, NET.direct(BOB), BOB)


def test_somebody_who_let_others_in_is_known_as_long_as_they_are() -> None:
    roster = NET.roster(ANN)
    line = NET.invite(now=NOW + 29 * DAY)
    show(roster, NET.admitted(line, BOB, by=ANN, now=NOW + 29 * DAY), BOB, NOW + 29 * DAY)
    roster.expire(NOW + 80 * DAY)
    assert set(roster.members) == {BOB.id}
    other = NET.roster()
    assert other.learn_all(roster.entries(), roster.revocations, NOW + 80 * DAY) == 0
    assert set(other.members) == {BOB.id}
    roster.expire(NOW + 130 * DAY)
    roster.expire(NOW + 131 * DAY)
    assert not roster.entries()


# ---- joining two --------------------------------------------------------------------------------------------------------


def merge(into: Roster, other: Roster) -> Roster:
    into.learn_all(other.entries(), other.revocations, NOW)
    return into


def copy(roster: Roster) -> Roster:
    return Roster.from_bytes(roster.to_bytes(), NOW)


def told(roster: Roster) -> tuple[object, ...]:
    """All that a roster says."""
    return (roster.digest, dict(roster.members), dict(roster.records), roster.conflicts and {c.token for c in roster.conflicts})


def statements() -> History:
    """What may befall a roster that knows Ann and Bob: two sides of a split use two invites, members move, renew, are
    revoked."""
    one, two = NET.invite(b"1" * 32), NET.invite(b"2" * 32, uses=2, by=NET.issuer)
    shown = [
        (NET.admitted(one, CAT, by=ANN), CAT),
        (NET.admitted(one, CAT, by=BOB, now=NOW + 30), CAT),
        (NET.admitted(one, DAN, by=BOB), DAN),
        (NET.admitted(two, EVE, by=CAT), EVE),
        (NET.admitted(two, DAN, by=ANN), DAN),
        (NET.admitted(two, CAT, by=EVE), CAT),
        (NET.direct(CAT), CAT),
        (NET.direct(ANN, NOW + DAY, serial=2), ANN),
        (NET.direct(EVE, by=NET.issuer), EVE),
    ]
    revoked = [
        NET.root.revoke(BOB.id, Cause.EXPELLED, NOW),
        NET.root.revoke(DAN.id, Cause.STOLEN, NOW),
        NET.root.revoke(NET.issuer.key, Cause.STOLEN, NOW),
        NET.root.revoke(bytes(32), Cause.LEFT, NOW),
        NET.root.revoke(bytes(32), Cause.LEFT, NOW + 1),
        by_itself(ANN),
    ]
    said = [ANN.record(NET.id, 1), ANN.record(NET.id, 2, has_left=True), BOB.record(NET.id, 1), CAT.record(NET.id, 3)]
    acts: History = [lambda r, c=c, p=p: show(r, c, p) for c, p in shown]
    acts += [lambda r, v=v: r.revoke(v.data, NOW) for v in revoked]
    acts += [lambda r, s=s: r.learn_record(s, NOW) for s in said]
    return acts


STATEMENTS = statements()
HISTORIES = st.lists(st.sampled_from(STATEMENTS), max_size=12)


def after(history: History) -> Roster:
    roster = NET.roster(ANN, BOB)
    for act in history:
        try:
            act(roster)
        except RejectedFrame as refused:
            assert refused.reason in (Reason.NO_RECEIPT, Reason.NOT_MEMBER)
    return roster


@settings(max_examples=60, deadline=None)
@given(HISTORIES, HISTORIES, HISTORIES)
def test_joining_rosters_is_idempotent_commutative_and_associative(one: History, two: History, three: History) -> None:
    a, b, c = after(one), after(two), after(three)
    assert told(merge(copy(a), a)) == told(a)
    assert told(merge(copy(a), b)) == told(merge(copy(b), a))
    assert told(merge(merge(copy(a), b), c)) == told(merge(copy(a), merge(copy(b), c)))


@settings(max_examples=60, deadline=None)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_the_order_of_what_is_heard_does_not_matter(history: History, random: object) -> None:
    heard = after(history)
    shuffled = heard.entries()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other = Roster(NET.id, NET.root.key)
    assert other.learn_all(shuffled, reversed(heard.revocations), NOW) == 0
    assert told(other) == told(heard)


# ---- at rest ------------------------------------------------------------------------------------------------------------


def test_a_roster_comes_back_from_the_disk_as_it_was() -> None:
    roster = after(STATEMENTS)
    assert told(Roster.from_bytes(roster.to_bytes(), NOW)) == told(roster)


def test_a_damaged_file_is_named_and_nothing_of_it_used() -> None:
    data = NET.roster(ANN).to_bytes()
    for damaged in (b"", data[:-1], data[:50], *(data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :] for k in range(len(data)))):
        with pytest.raises(Failure, match="node/roster") as failed:
            Roster.from_bytes(damaged, NOW, source="node/roster")
        assert failed.value.exit_code is ExitCode.IDENTITY
