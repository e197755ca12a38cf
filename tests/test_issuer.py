"""Issuers: the root makes them from an application that their key signed; what they may do, and what ends with them."""

import pytest

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.admissions import ISSUED_MAX
from p2pfl.protocol.admission.authority import Authority
from p2pfl.protocol.admission.certificate import ISSUER_DAYS_MAX, Role
from p2pfl.protocol.admission.issuer import (
    APPLICATION,
    APPLICATION_MAX,
    IssuerLine,
    application_line,
    apply,
    delegated,
    read_application,
)
from p2pfl.protocol.admission.revocation import Cause
from p2pfl.protocol.admission.statement import public_key, signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from tests.admission import DAY, NOW, Network, Person, forged

NET, ANN, BOB, CAT = Network(), Person("ann"), Person("bob"), Person("cat")
SEED = b"o" * 32
KEY = public_key(SEED)
APPLIED = apply(signer(SEED), NET.id, KEY, "office", NOW)
LINE = delegated(NET.root, NET.name, APPLIED, NOW, 300, 1)
OFFICE = Authority(SEED, NET.id, LINE.statement())


def refusal(line: str, network: bytes = NET.id) -> Failure:
    with pytest.raises(Failure) as failed:
        read_application(line, network)
    assert failed.value.exit_code is ExitCode.IDENTITY and failed.value.hint
    return failed.value


def test_an_application_travels_as_a_line_and_the_answer_makes_an_issuer() -> None:
    assert read_application(application_line(APPLIED), NET.id) == APPLIED
    assert len(APPLIED.data) <= APPLICATION_MAX
    found = IssuerLine.parse(str(LINE))
    assert found == LINE and found.statement().role is Role.ISSUE
    assert (found.statement().identity, found.statement().name) == (KEY, "office")
    assert found.statement().not_after == NOW + 300 * DAY


@pytest.mark.fault("stranger")
def test_nobody_applies_for_another_key_another_network_or_with_a_signature_for_something_else() -> None:
    body = APPLIED.data[:-64]
    for signature in (signer(b"e" * 32)(APPLICATION.context, body), signer(SEED)(b"p2pfl/request/v1\0", body)):
        assert refusal(armor.to_line("application", body + signature)).code == "bad_application"
    assert refusal(application_line(APPLIED), Network(seed=2).id).code == "other_network"
    assert refusal(armor.to_line("request", APPLIED.data)).code == "not_application"
    for cut in range(len(APPLIED.data)):
        assert refusal(armor.to_line("application", APPLIED.data[:cut] or b"\0")).code == "bad_application"
    for place in range(len(APPLIED.data)):
        edited = APPLIED.data[:place] + bytes([APPLIED.data[place] ^ 1]) + APPLIED.data[place + 1 :]
        assert refusal(armor.to_line("application", edited)).code in ("bad_application", "other_network")


@pytest.mark.fault("stranger")
def test_only_the_root_makes_issuers_and_its_answer_is_of_its_network() -> None:
    evil = Network(seed=9)
    swapped = IssuerLine(NET.name, NET.root.key, delegated(evil.root, evil.name, APPLIED, NOW, 300, 1).certificate)
    by_issuer = forged(SEED, CAT, NET.id, role=Role.ISSUE)
    member = NET.direct(CAT).certificate
    for line in (
        swapped,
        IssuerLine(NET.name, NET.root.key, by_issuer.data),
        IssuerLine(NET.name, NET.root.key, member.data),
        IssuerLine("others", NET.root.key, LINE.certificate),
    ):
        with pytest.raises(Failure) as failed:
            IssuerLine.parse(str(line))
        assert (failed.value.code, failed.value.exit_code) == ("bad_issuer", ExitCode.IDENTITY)
    with pytest.raises(Failure, match="up to"):
        delegated(NET.root, NET.name, APPLIED, NOW, ISSUER_DAYS_MAX + 1, 1)


@pytest.mark.fault("revoked")
def test_with_an_issuer_go_all_whom_it_vouched_for_and_nobody_else() -> None:
    roster = NET.roster(ANN)
    for one, person in ((NET.direct(BOB, by=OFFICE), BOB), (NET.admitted(NET.invite(by=OFFICE), CAT, by=ANN), CAT)):
        roster.learn(one.data, person.record(NET.id).data, NOW)
    assert set(roster.members) == {ANN.id, BOB.id, CAT.id}
    assert [issuer.name for issuer in roster.issuers] == ["office"] and roster.issued_by(KEY) == 2
    with pytest.raises(RejectedFrame, match="bad_chain"):
        roster.revoke(OFFICE.revoke(ANN.id, Cause.EXPELLED, NOW).data, NOW)
    with pytest.raises(RejectedFrame, match="bad_chain"):
        roster.revoke(NET.issuer.revoke(BOB.id, Cause.EXPELLED, NOW).data, NOW)
    roster.revoke(NET.root.revoke(KEY, Cause.STOLEN, NOW).data, NOW)
    assert set(roster.members) == {ANN.id} and roster.is_revoked(KEY)
    assert [roster.standing(one.id) for one in (BOB, CAT)] == [Reason.REVOKED] * 2
    roster.learn(NET.direct(BOB, serial=2).data, None, NOW)  # the root takes the honest ones in again
    assert set(roster.members) == {ANN.id, BOB.id}


def test_the_newest_certificate_of_an_issuer_is_the_one_that_is_shown() -> None:
    roster = NET.roster(ANN)
    again = Authority(SEED, NET.id, delegated(NET.root, NET.name, APPLIED, NOW, 400, 2).statement())
    for by, person in ((again, BOB), (OFFICE, CAT)):
        roster.learn(NET.direct(person, by=by).data, None, NOW)
    assert [issuer.serial for issuer in roster.issuers] == [2]


@pytest.mark.slow
def test_no_issuer_fills_the_roster() -> None:
    roster = NET.roster(ANN)
    for k in range(ISSUED_MAX):
        roster.learn(NET.direct(Person(f"m{k}"), by=OFFICE).data, None, NOW)
    with pytest.raises(RejectedFrame, match="full"):
        roster.learn(NET.direct(Person("one more"), by=OFFICE).data, None, NOW)
    assert roster.issued_by(KEY) == ISSUED_MAX
    roster.learn(NET.direct(BOB).data, None, NOW)
