"""Statements: what is signed is small, every bit of it counts, and no signature serves for another kind."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.protocol.admission.authority import REQUEST, ask
from p2pfl.protocol.admission.certificate import CERTIFICATE, CREDENTIAL_MAX, INVITE, RECEIPT, Certificate, Credential, Role
from p2pfl.protocol.admission.record import RECORD
from p2pfl.protocol.admission.revocation import REVOCATION, Cause
from p2pfl.protocol.admission.signed_charter import CHARTER, sign_charter
from p2pfl.protocol.admission.statement import Form, Statement, signer, verify
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.errors import Reason, RejectedFrame
from tests.admission import NOW, Network, Person, forged

ANN, BOB = Person("ann"), Person("bob")
NET = Network()
ADMITTED = NET.admitted(NET.invite(by=NET.issuer), BOB, by=ANN)
assert ADMITTED.issuer is not None and ADMITTED.invite is not None and ADMITTED.receipt is not None
AGREED = Charter(NET.name, NET.root.key, b"s" * 32, 1000, GossipRules())

STATEMENTS: list[tuple[Form[Any], Statement, bytes]] = [
    (CERTIFICATE, NET.direct(ANN).certificate, NET.root.key),
    (CERTIFICATE, ADMITTED.certificate, ADMITTED.invite.token),
    (CERTIFICATE, ADMITTED.issuer, NET.root.key),
    (INVITE, ADMITTED.invite, NET.issuer.key),
    (RECEIPT, ADMITTED.receipt, ANN.id),
    (RECORD, ANN.record(NET.id, neighbors=[BOB.id]), ANN.id),
    (REVOCATION, NET.root.revoke(ANN.id, Cause.STOLEN, NOW), NET.root.key),
    (CHARTER, sign_charter(NET.root.sign, AGREED, 1, NOW, {"task": {"name": "digits"}}), NET.root.key),
    (REQUEST, ask(signer(ANN.identity.sign_seed), ANN.id, "ann", NOW), ANN.id),
]
KINDS = [pytest.param(*row, id=f"{k}-{type(row[1]).__name__}") for k, row in enumerate(STATEMENTS)]


@pytest.mark.parametrize(("form", "statement", "key"), KINDS)
def test_a_statement_is_read_back_and_is_its_signers(form: Form[Any], statement: Statement, key: bytes) -> None:
    assert form.read(statement.data) == statement
    assert form.is_by(statement, key)
    assert not form.is_by(statement, BOB.id)


@pytest.mark.parametrize(("form", "statement", "key"), KINDS)
def test_every_single_byte_of_a_statement_counts(form: Form[Any], statement: Statement, key: bytes) -> None:
    data = statement.data
    for place in range(len(data)):
        edited = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            assert not form.is_by(form.read(edited), key), place
        except RejectedFrame as refused:
            assert refused.reason in (Reason.BAD_HEADER, Reason.VERSION), place


@pytest.mark.parametrize(("form", "statement", "key"), KINDS)
def test_a_statement_is_neither_longer_nor_shorter(form: Form[Any], statement: Statement, key: bytes) -> None:
    for edited in (statement.data[:-1], statement.data + b"\0", b"", statement.data[-64:], bytes(form.most + 1)):
        try:
            assert not form.is_by(form.read(edited), key)
        except RejectedFrame as refused:
            assert refused.reason in (Reason.BAD_HEADER, Reason.VERSION)


@given(data=st.data(), bytes_=st.binary(max_size=300))
def test_whatever_comes_instead_is_refused_by_name(data: st.DataObject, bytes_: bytes) -> None:
    form = data.draw(st.sampled_from([row[0] for row in STATEMENTS]))
    for read in (form.read, Credential.read):
        with pytest.raises(RejectedFrame) as refused:
            read(bytes_)
        assert refused.value.reason in (Reason.BAD_HEADER, Reason.VERSION)


def test_no_context_is_the_beginning_of_another() -> None:
    contexts = {row[0].context for row in STATEMENTS} | {b"p2pfl/update/v1\0", b"p2pfl/swim/v1\0"}
    assert len(contexts) == len({id(row[0]) for row in STATEMENTS}) + 2
    assert all(context.startswith(b"p2pfl/") and context.endswith(b"/v1\0") for context in contexts)
    assert not [(a, b) for a in contexts for b in contexts if a != b and b.startswith(a)]


def test_the_same_bytes_signed_for_another_purpose_are_not_believed() -> None:
    certificate = NET.direct(ANN).certificate
    body = certificate.data[:-64]
    for form, _, _ in STATEMENTS:
        elsewhere = NET.root.sign(form.context, body)
        assert verify(NET.root.key, CERTIFICATE.context, body, elsewhere) == (form is CERTIFICATE)


def test_a_number_in_a_longer_encoding_is_another_statement() -> None:
    """msgpack reads 1 from one byte and from five: who would encode again before verifying would believe what nobody signed."""
    data = NET.direct(ANN).certificate.data
    assert data[1] == 1
    longer = data[:1] + b"\xce\0\0\0\1" + data[2:]
    found = CERTIFICATE.read(longer)
    assert found.name == "ann" and not CERTIFICATE.is_by(found, NET.root.key)


def test_every_byte_of_a_credential_counts() -> None:
    data = ADMITTED.data
    ADMITTED.verify(NET.root.key, NET.id)
    for place in range(len(data)):
        edited = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(RejectedFrame):
            Credential.read(edited).verify(NET.root.key, NET.id)


def test_a_credential_does_not_live_without_any_of_its_parts() -> None:
    parts = {"certificate": ADMITTED.certificate, "issuer": ADMITTED.issuer, "invite": ADMITTED.invite, "receipt": None}
    for missing in ("issuer", "invite"):
        with pytest.raises(RejectedFrame, match="bad_chain"):
            Credential(**parts | {missing: None}).verify(NET.root.key, NET.id)
    Credential(**parts).verify(NET.root.key, NET.id)  # the receipt is the roster's to miss


def test_what_travels_is_small() -> None:
    """The names here have three letters."""
    direct = NET.direct(ANN)
    assert len(direct.certificate.data) <= 165
    assert len(direct.data) <= 165 + 10
    assert len(ADMITTED.data) <= 640
    longest = forged(bytes(32), Person("x" * 64), NET.id, serial=(1 << 63) - 1, not_before=1 << 52, not_after=(1 << 53) - 1)
    assert len(longest.data) <= CERTIFICATE.most
    assert 2 * CERTIFICATE.most + INVITE.most + RECEIPT.most + 16 <= CREDENTIAL_MAX


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", b"k" * 33),
        ("name", ""),
        ("name", "x" * 65),
        ("name", "é" * 33),
        ("name", "line\nbreak"),
        ("name", "bell\a"),
        ("not_before", -1),
        ("not_after", 1 << 53),
        ("serial", 1 << 63),
    ],
)
def test_no_value_out_of_its_bounds_is_ever_signed(field: str, value: object) -> None:
    with pytest.raises(RejectedFrame, match="bad_header"):
        forged(bytes(32), ANN, NET.id, **{field: value})


@pytest.mark.fault("hostile names")
def test_a_name_may_be_anything_that_can_be_shown() -> None:
    for name in ("station-7", "Zürich 北", "</script><img>", "x" * 64):
        assert forged(bytes(32), Person(name), NET.id).name == name


def test_roles_are_the_ones_there_are() -> None:
    def role(number: int) -> Callable[[], Certificate]:
        return lambda: forged(bytes(32), ANN, NET.id, role=number)

    assert [role(number)().role for number in range(3)] == [Role.MEMBER, Role.RELAY, Role.ISSUE]
    with pytest.raises(RejectedFrame):
        role(3)()
