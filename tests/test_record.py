"""A member's own record: only its subject makes one, every bit of it counts, and which of two holds is never in doubt."""

from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.protocol.admission.record import ADDRESSES_MAX, NEIGHBORS_MAX, RECORD, RECORD_MAX, Record, state
from p2pfl.protocol.admission.statement import signer, verify
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from sim.entropy import SeededEntropy

ENTROPY = SeededEntropy(7, b"record")
ANN, EVE = Identity.generate(ENTROPY), Identity.generate(ENTROPY)
NETWORK = b"n" * 16
OWN = Member(ANN.peer_id, "ann", "10.0.0.5:7780", ANN.transport_key, ANN.seal_key)
NEIGHBORS = [PeerId(bytes([k]) * 32) for k in range(40, 0, -1)]


def record(identity: Identity = ANN, own: Member = OWN, **values: Any) -> Record:
    plain: dict[str, Any] = {"boot_epoch": 3, "boot_id": b"b" * 16, "incarnation": 1, "wall": 1e9} | values
    return state(signer(identity.sign_seed), NETWORK, own, **plain)


def refusal(data: bytes) -> Reason:
    with pytest.raises(RejectedFrame) as refused:
        RECORD.read(data)
    return refused.value.reason


def test_what_a_member_says_of_itself_is_read_back_and_is_its_own() -> None:
    said = record(neighbors=NEIGHBORS[:5], key_seq=2, has_left=True)
    read = RECORD.read(said.data)
    assert read == said
    assert read.is_genuine()
    assert read.member("ann") == OWN
    assert read.neighbors == tuple(sorted(NEIGHBORS[:5]))


def test_a_join_door_at_another_port_is_said_and_the_next_port_goes_without_saying() -> None:
    plain, other = record(), record(door=443, addresses=["10.0.0.5:7780", "[fe80::1]:65535"])
    assert plain.data == record(door=0).data and plain.doors == ("10.0.0.5:7781",)
    read = RECORD.read(other.data)
    assert read == other and read.is_genuine() and read.doors == ("10.0.0.5:443", "[fe80::1]:443")
    for port in (-1, 65536, True):
        with pytest.raises(RejectedFrame, match="bad_header"):
            record(door=port)
    body = msgpack.packb([*msgpack.unpackb(plain.data[:-64]), 0])
    assert refusal(body + signer(ANN.sign_seed)(RECORD.context, body)) is Reason.BAD_HEADER
    assert (
        len(record(door=443, neighbors=NEIGHBORS[:16], addresses=["x" * 120 + f":{p}" for p in (1, 2, 3)]).data) <= RECORD_MAX
    )


def test_nobody_speaks_for_another() -> None:
    assert not record(EVE).is_genuine()  # Eve's signature under Ann's name


def test_every_single_byte_of_a_record_counts() -> None:
    data = record(neighbors=NEIGHBORS[:2]).data
    for place in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            edited = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
            try:
                assert not RECORD.read(edited).is_genuine(), place
            except RejectedFrame as refused:
                assert refused.reason in (Reason.BAD_HEADER, Reason.VERSION), place


def test_a_signature_for_something_else_does_not_serve_here() -> None:
    said = record()
    other = signer(ANN.sign_seed)(b"p2pfl/update/v1\0", said.data[:-64])
    assert not RECORD.read(said.data[:-64] + other).is_genuine()


def test_a_trusting_simulator_hands_in_its_own_check() -> None:
    assert record(EVE).is_genuine(lambda key, context, body, signature: True)
    assert not record().is_genuine(lambda key, context, body, signature: False)


def test_the_largest_record_has_room_and_nothing_larger_is_looked_at() -> None:
    full = record(
        own=replace(OWN, address=""),
        addresses=[f"{letter * 122}:65535" for letter in "abc"],
        neighbors=NEIGHBORS,
        boot_epoch=(1 << 63) - 1,
        incarnation=(1 << 63) - 1,
        key_seq=(1 << 63) - 1,
        wall=2.0**53 - 1,
    )
    assert (len(full.addresses), len(full.neighbors)) == (ADDRESSES_MAX, NEIGHBORS_MAX)
    assert len(full.data) <= RECORD_MAX
    assert refusal(full.data + bytes(RECORD_MAX)) is Reason.BAD_HEADER
    assert refusal(b"") is Reason.BAD_HEADER


@pytest.mark.parametrize("address", ["host", ":1", "host:0", "host:65536", "host:99999999", "a b:1", "a\n:1", "ö:1", "h:²"])
def test_what_is_no_address_is_not_signed(address: str) -> None:
    with pytest.raises(RejectedFrame):
        record(addresses=[address])


@pytest.mark.parametrize("key", [bytes(32), b"\1" + bytes(31), bytes(31) + b"\x80", b"short"])
def test_a_key_that_keeps_no_secret_is_refused(key: bytes) -> None:
    for which in ("transport_key", "seal_key"):
        with pytest.raises(RejectedFrame):
            record(own=replace(OWN, **{which: key}))


@given(st.binary(max_size=RECORD_MAX + 2))
def test_whatever_comes_is_refused_by_name(data: bytes) -> None:
    assert refusal(data) in (Reason.BAD_HEADER, Reason.VERSION)


def test_the_later_start_then_the_higher_incarnation_then_having_left_wins() -> None:
    later = [
        record(boot_epoch=3, incarnation=1),
        record(boot_epoch=3, incarnation=1, has_left=True),
        record(boot_epoch=3, incarnation=2),
        record(boot_epoch=4, incarnation=0),
    ]
    assert sorted((later[k] for k in (2, 0, 3, 1)), key=lambda one: one.precedence) == later


def test_a_key_of_small_order_signs_nothing() -> None:
    """With A = 0 and S = 0, R = identity would satisfy the equation for every message."""
    identity_point = b"\1" + bytes(31)
    assert not verify(identity_point, b"context", b"body", identity_point + bytes(32))
