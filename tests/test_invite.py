"""One pasted line makes a member; a line that is not as it was written says so. Requests travel as lines too."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.authority import (
    FILE,
    Authority,
    ask,
    read_request,
    request_line,
)
from p2pfl.protocol.admission.certificate import DAY_S, Role
from p2pfl.protocol.admission.clock import OFF_S, is_off
from p2pfl.protocol.admission.credential_line import CredentialLine
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.statement import public_key, signer
from p2pfl.protocol.charter import network_id
from p2pfl.protocol.errors import RejectedFrame
from sim.entropy import SeededEntropy
from tests.admission import DAY, NAME, NOW, Network, Person

ANN, EVE = Person("ann"), Person("eve")
NET = Network()
LINE = str(NET.invite(by=NET.issuer))
DOOR = {"10.0.0.1:7781": b"k" * 32}
ENTROPY = SeededEntropy(7, b"invite")


def failure_of(act: object) -> Failure:
    """How it is refused: one line, with a hint, for an exit code of its own."""
    with pytest.raises(Failure) as refused:
        act()  # type: ignore[operator]
    failure = refused.value
    assert failure.exit_code is ExitCode.IDENTITY
    assert "\n" not in str(failure) and failure.hint
    return failure


# ---- the line -----------------------------------------------------------------------------------------------------------


def test_an_invite_is_one_word_and_comes_back_from_it() -> None:
    line = NET.invite(by=NET.issuer)
    assert LINE.split() == [LINE] and LINE.startswith("p2pfl-invite-1-")
    assert InviteLine.parse(LINE) == line
    assert (line.network, line.root, line.name) == (NET.id, NET.root.key, NAME)
    assert line.addresses == ("10.0.0.1:7781",)


def test_how_long_the_line_is() -> None:
    assert len(str(NET.invite())) <= 480  # by the root itself
    assert len(LINE) <= 680  # by an issuer


def test_what_mail_and_terminals_do_to_it_does_no_harm() -> None:
    wrapped = "  " + "\n".join(LINE[k : k + 60] for k in range(0, len(LINE), 60)) + "\r\n"
    assert InviteLine.parse(wrapped) == InviteLine.parse(LINE)


def test_every_mistyped_character_is_noticed() -> None:
    chance = random.Random(7)
    for place in range(len("p2pfl-invite-1-"), len(LINE)):
        other = chance.choice([letter for letter in "ABCxyz019-_" if letter != LINE[place]])
        failure = failure_of(lambda: InviteLine.parse(LINE[:place] + other + LINE[place + 1 :]))  # noqa: B023
        assert failure.code == "invite_mistyped", place


def test_every_line_that_is_cut_off_is_noticed() -> None:
    for end in range(len(LINE)):
        assert failure_of(lambda: InviteLine.parse(LINE[:end])).code in ("not_invite", "invite_mistyped")  # noqa: B023


def test_another_kind_of_line_another_version_and_no_line_at_all_are_told_apart() -> None:
    request = request_line(ask(signer(ANN.identity.sign_seed), ANN.id, "ann", NOW))
    assert "another kind (request)" in failure_of(lambda: InviteLine.parse(request)).message
    assert failure_of(lambda: InviteLine.parse(LINE.replace("invite-1-", "invite-2-"))).code == "invite_version"
    for text in ("", "hello", "p2pfl-invite-1-", "x" * 100_000, LINE * 20, "p2pfl-invite-1-ä"):
        assert failure_of(lambda: InviteLine.parse(text)).code == "not_invite"  # noqa: B023


@given(st.binary(min_size=1, max_size=400))
def test_bytes_that_are_no_invite_in_a_line_that_is_whole_are_refused(data: bytes) -> None:
    assert failure_of(lambda: InviteLine.parse(armor.to_line("invite", data))).code == "bad_invite"


@pytest.mark.fault("invites")
def test_an_edited_invite_with_a_checksum_made_anew_is_refused() -> None:
    data = armor.from_line("invite", LINE)
    honest, accepted = InviteLine.parse(LINE), set()
    for place in range(len(data)):
        edited = armor.to_line("invite", data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = InviteLine.parse(edited)
        except Failure as failure:
            assert failure.code == "bad_invite"
            continue
        accepted |= {name for name in found.__slots__ if getattr(found, name) != getattr(honest, name)}
    # Where to ask is no secret, and not the root's to sign: whoever edits it can make the joiner ask in vain, and no more.
    assert accepted == {"addresses", "transport_keys"}


@pytest.mark.fault("invites")
def test_an_invite_for_another_network_or_by_nobodys_root_does_not_parse() -> None:
    token = b"t" * 32
    theirs = Network(seed=2)
    doors = {"10.0.0.1:1": b"k" * 32}
    for root, name in ((theirs.root.key, NAME), (NET.root.key, "other")):
        mixed = InviteLine.make(name, root, token, NET.root.invite(public_key(token), NOW, 60), None, doors)
        assert failure_of(lambda: InviteLine.parse(str(mixed))).code == "bad_invite"  # noqa: B023
    other_token = InviteLine.make(NAME, NET.root.key, bytes(32), NET.root.invite(public_key(token), NOW, 60), None, doors)
    assert failure_of(lambda: InviteLine.parse(str(other_token))).code == "bad_invite"
    assert (
        failure_of(lambda: InviteLine.make(NAME, NET.root.key, token, NET.root.invite(token, NOW, 60), None, {})).code
        == "no_door"
    )


@pytest.mark.fault("lifetime")
def test_an_invite_lasts_as_long_as_it_says_and_no_longer_than_a_month() -> None:
    line = NET.invite(ttl_s=3600.0)
    line.redeem(ANN.id, "ann", NOW + 3599)
    assert failure_of(lambda: line.redeem(ANN.id, "ann", NOW + 3600)).code == "invite_expired"
    assert failure_of(lambda: line.redeem(ANN.id, "ann", NOW - DAY - 1)).code == "invite_future"
    for ttl_s in (0.0, -1.0, 31 * DAY, 10 * 365 * DAY):
        assert failure_of(lambda: NET.invite(ttl_s=ttl_s)).code == "bad_ttl"  # noqa: B023
    for uses in (0, 1025):
        assert failure_of(lambda: NET.invite(uses=uses)).code == "bad_uses"  # noqa: B023


def test_a_line_names_at_most_three_doors_and_hides_its_secret() -> None:
    doors = {f"10.0.0.{k}:1": bytes([k]) * 32 for k in range(1, 9)}
    line = InviteLine.make(NAME, NET.root.key, b"t" * 32, NET.root.invite(public_key(b"t" * 32), NOW, 60), None, doors)
    assert InviteLine.parse(str(line)).addresses == ("10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1")
    assert "tttt" not in repr(line)


# ---- requests -----------------------------------------------------------------------------------------------------------


def test_a_request_signed_by_its_identity_is_answered_with_a_credential_that_fits() -> None:
    request = read_request(request_line(ask(signer(ANN.identity.sign_seed), ANN.id, "ann", NOW, is_relay=True)))
    credential = NET.issuer.certify(request, NOW, 30, serial=7)
    assert (credential.identity, credential.certificate.role, credential.certificate.serial) == (ANN.id, Role.RELAY, 7)
    assert credential.certificate.not_before == NOW - DAY_S and credential.certificate.not_after == NOW + 30 * DAY_S
    line = CredentialLine.parse(str(CredentialLine.make(NET.name, NET.root.key, credential, DOOR)))
    assert (line.statement(), line.network, line.addresses, line.transport_keys) == (
        credential,
        NET.id,
        ("10.0.0.1:7781",),
        (b"k" * 32,),
    )


def test_a_request_for_somebody_elses_key_is_refused() -> None:
    for_ann = ask(signer(EVE.identity.sign_seed), ANN.id, "ann", NOW)
    assert "not signed by the key" in failure_of(lambda: read_request(request_line(for_ann))).message
    assert failure_of(lambda: read_request(armor.to_line("request", b"junk"))).code == "bad_request"


def test_a_credential_of_another_network_is_refused() -> None:
    line = CredentialLine.make(NET.name, NET.root.key, Network(seed=2).direct(ANN), DOOR)
    assert failure_of(lambda: CredentialLine.parse(str(line))).code == "bad_credential"
    assert failure_of(lambda: CredentialLine.make(NET.name, NET.root.key, NET.direct(ANN), {})).code == "no_door"
    lopsided = replace(CredentialLine.make(NET.name, NET.root.key, NET.direct(ANN), DOOR), transport_keys=(b"k" * 32,) * 2)
    assert failure_of(lambda: CredentialLine.parse(str(lopsided))).code == "bad_credential"


def test_no_certificate_lasts_longer_than_ninety_days_or_than_its_issuer() -> None:
    for days in (0, -1, 91, 3650):
        assert failure_of(lambda: NET.direct(ANN, days=days)).code == "bad_ttl"  # noqa: B023
    office = NET.issuer.certificate
    assert office is not None
    near_its_end = office.not_after - 10
    assert NET.direct(ANN, near_its_end, by=NET.issuer).certificate.not_after == office.not_after
    assert failure_of(lambda: NET.direct(ANN, office.not_after, by=NET.issuer)).code == "issuer_expired"


@pytest.mark.fault("hostile names")
def test_what_cannot_be_a_name_is_told_so() -> None:
    for name in ("", "x" * 65, "a\nb", "\ud800"):
        with pytest.raises(Failure, match="can't be a name") as failed:
            ask(signer(ANN.identity.sign_seed), ANN.id, name, NOW)
        assert failed.value.code == "bad_name"


# ---- the root key at rest -----------------------------------------------------------------------------------------------


def test_a_root_key_rests_sealed_and_comes_back_with_its_passphrase_alone() -> None:
    root = Authority(b"\1" * 32, NET.id)
    data = root.to_bytes("correct horse", ENTROPY)
    assert FILE.is_sealed(data, "root.key") and b"\1" * 32 not in data
    assert Authority.from_bytes(data, "correct horse", NET.id, None, "root.key") == root
    assert failure_of(lambda: Authority.from_bytes(data, "wrong", NET.id, None, "root.key")).code == "passphrase_wrong"
    assert failure_of(lambda: Authority.from_bytes(data, None, NET.id, None, "root.key")).code == "passphrase_needed"
    assert "root key" in failure_of(lambda: Authority.from_bytes(b"junk", None, NET.id, None, "root.key")).message
    identity = ANN.identity.to_bytes(None, ENTROPY)
    assert failure_of(lambda: Authority.from_bytes(identity, None, NET.id, None, "root.key")).code == "identity_damaged"
    plain = root.to_bytes(None, ENTROPY)
    for place in range(len(plain)):
        edited = plain[:place] + bytes([plain[place] ^ 1]) + plain[place + 1 :]
        failure_of(lambda: Authority.from_bytes(edited, None, NET.id, None, "root.key"))  # noqa: B023


def test_secrets_are_never_shown() -> None:
    assert "\\x01\\x01" not in repr(Authority(b"\1" * 32, NET.id))


def test_a_network_is_named_by_its_root_and_its_name() -> None:
    assert network_id(NET.root.key, NAME) == NET.id and len(NET.id) == 16
    assert len({network_id(NET.root.key, "a"), network_id(NET.root.key, "b"), network_id(EVE.id, "a")}) == 3


def test_a_value_that_cannot_be_signed_is_no_bug_that_passes() -> None:
    with pytest.raises(RejectedFrame):
        NET.root.revoke(b"short", 0, NOW)  # type: ignore[arg-type]


# ---- clocks -------------------------------------------------------------------------------------------------------------


def test_a_clock_is_off_when_it_is_more_than_an_hour_from_most_of_the_neighbors() -> None:
    assert not is_off(NOW, [])
    assert not is_off(NOW, [NOW + OFF_S, NOW - OFF_S, NOW])
    assert is_off(NOW, [NOW + OFF_S + 1])
    assert is_off(0.0, [NOW, NOW, NOW])
    assert not is_off(NOW, [NOW, NOW + 1, 0.0, 4e9, NOW - 2])  # two of five lie
