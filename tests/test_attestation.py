"""The root's word on what it had revoked by some moment: who lacks one of them knows, and who hears no such word."""

import time

import pytest

from node import moment
from node.admission.attested import attested, in_words, is_trouble
from p2pfl.protocol.admission.attestation import (
    ATTESTATION,
    ATTESTATION_MAX,
    COVERED_DAYS,
    STALE_S,
    Attestation,
    Attestations,
    attest,
)
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.revocation import Cause, Revocation
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from tests.admission import DAY, NOW, Network, Person
from tests.test_network_cli import Desk, desk  # noqa: F401 (a fixture)
from tests.test_reconciliation import Side, exchange

ANN, BOB, CAT = Person("ann"), Person("bob"), Person("cat")
NET = Network()


def revoked(person: Person, at: float = NOW) -> Revocation:
    return NET.root.revoke(person.id, Cause.STOLEN, at)


def signed(*revocations: Revocation, at: float = NOW, net: Network = NET) -> Attestation:
    return attest(net.root.sign, net.id, revocations, at)


def refusal(data: bytes, now: float = NOW) -> Reason:
    with pytest.raises(RejectedFrame) as refused:
        Attestations(NET.id, NET.root.key).learn(data, now)
    return refused.value.reason


@pytest.mark.fault("revocations")
def test_who_lacks_a_revocation_that_the_root_counts_knows_it_until_that_comes() -> None:
    roster = NET.roster(ANN, BOB)
    assert attested(roster, NOW) is None
    roster.attest(signed(revoked(BOB)).data, NOW)
    lacking = attested(roster, NOW)
    assert lacking is not None and is_trouble(lacking) and "never came here" in in_words(lacking)
    roster.revoke(revoked(BOB).data, NOW)
    whole = attested(roster, NOW)
    assert whole is not None and not is_trouble(whole)
    again = Roster.from_bytes(roster.to_bytes(), NOW)
    assert again.attestation == roster.attestation and again.is_attested_whole


def test_what_was_whole_stays_so_when_what_ended_is_forgotten() -> None:
    roster = NET.roster(ANN)
    roster.learn(NET.direct(BOB, days=3).data, BOB.record(NET.id).data, NOW)
    roster.revoke(revoked(BOB).data, NOW)
    roster.attest(signed(revoked(BOB)).data, NOW)
    roster.expire(NOW + 11 * DAY)
    assert not roster.revocations and roster.is_attested_whole


@pytest.mark.fault("revocations")
def test_who_hears_no_newer_word_for_two_weeks_says_so() -> None:
    roster = NET.roster(ANN)
    roster.attest(signed().data, NOW)
    for later, stale in ((STALE_S - 1, False), (STALE_S, True)):
        found = attested(roster, NOW + later)
        assert found is not None and (found["is_stale"], is_trouble(found)) == (stale, stale)
    found = attested(roster, NOW + STALE_S)
    assert found is not None and "14 days" in in_words(found)


def test_only_the_days_before_it_are_counted_and_others_revocations_never() -> None:
    old, new = revoked(BOB, NOW - (COVERED_DAYS + 1) * DAY), revoked(CAT)
    assert signed(old, new).count == 1
    roster = NET.roster(ANN)
    roster.learn(NET.direct(BOB, by=NET.issuer).data, None, NOW)
    roster.revoke(NET.issuer.revoke(BOB.id, Cause.LEFT, NOW).data, NOW)
    roster.attest(signed().data, NOW)
    assert roster.is_attested_whole  # the issuer's own is no matter of the root's


@pytest.mark.fault("revocations")
def test_an_attestation_by_another_of_another_network_from_the_future_or_cut_off_is_refused_by_name() -> None:
    good = signed(revoked(BOB))
    assert len(good.data) <= ATTESTATION_MAX
    assert refusal(attest(NET.issuer.sign, NET.id, (), NOW).data) is Reason.BAD_CHAIN
    assert refusal(signed(net=Network(seed=2)).data) is Reason.WRONG_NETWORK
    assert refusal(signed(at=NOW + 2 * DAY).data) is Reason.CERT_FUTURE
    other = signer(b"\1" * 32)(b"p2pfl/revoke/v1\0", good.data[:-64])
    assert refusal(good.data[:-64] + other) is Reason.BAD_CHAIN
    for cut in range(len(good.data)):
        assert refusal(good.data[:cut]) in (Reason.BAD_HEADER, Reason.VERSION)
    for place in range(len(good.data)):
        edited = good.data[:place] + bytes([good.data[place] ^ 1]) + good.data[place + 1 :]
        assert refusal(edited) in (Reason.BAD_HEADER, Reason.VERSION, Reason.WRONG_NETWORK, Reason.BAD_CHAIN), place
    assert ATTESTATION.read(good.data) == good


@pytest.mark.fault("revocations")
def test_an_older_one_again_changes_nothing_in_whatever_order_they_come() -> None:
    first, second = signed(), signed(revoked(BOB), at=NOW + DAY)
    for order in ((first, second), (second, first), (second, first, second)):
        held = Attestations(NET.id, NET.root.key)
        for one in order:
            held.learn(one.data, NOW + DAY)
        assert held.newest == second


def test_it_spreads_with_the_papers() -> None:
    one, two = Side(NET.roster(ANN, BOB)), Side(NET.roster(ANN, BOB))
    one.roster.revoke(revoked(CAT).data, NOW)
    one.roster.attest(signed(revoked(CAT)).data, NOW)
    exchange(two, one)
    assert two.roster.attestation == one.roster.attestation and two.roster.is_attested_whole


@pytest.mark.net
def test_the_root_attests_and_the_doctor_tells_who_lacks_something(desk: Desk) -> None:  # noqa: F811
    desk.founds()
    line = desk.invites()
    desk.does("network", "revoke", line, "--dir", "a")
    said = desk.does("network", "attest", "--dir", "a", "--json").data
    assert (said["revocations"], said["days"]) == (1, COVERED_DAYS)
    assert "1 revocation of" in desk.does("network", "attest", "--dir", "a").out
    findings = {one["name"]: one for one in desk.types("doctor", "--dir", "a", "--json").data["findings"]}
    assert not findings["network"]["mend"] and "issuer" not in findings


@pytest.mark.net
def test_the_root_does_not_count_what_is_forgotten_everywhere(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Whoever keeps up forgets a revocation a week after the certificate it is about would have ended."""
    a = desk.founds()
    desk.does("node", "init", "--name", "c", "--request", "c.request", "--dir", "c", "--no-passphrase")
    line = CredentialLine.parse(desk.does("network", "sign", "c.request", "--dir", "a", "--days", "3").out)
    roster = Roster.from_bytes(a.roster.read_bytes(), time.time())
    roster.learn(line.credential, None, time.time())
    a.roster.write_bytes(roster.to_bytes())
    desk.does("network", "revoke", "c", "--dir", "a")
    for days_later, counted in ((9, 1), (11, 0)):
        shown = time.time() + days_later * DAY
        with monkeypatch.context() as clock:
            clock.setattr(moment.time, "time", lambda shown=shown: shown)
            assert desk.does("network", "attest", "--dir", "a", "--json").data["revocations"] == counted
