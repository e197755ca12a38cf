"""Keys: the ones that published vectors name, at rest and at work; and a file that is not ours is refused in one line."""

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from nacl.exceptions import RuntimeError as SodiumError

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.envelope import Signer
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity, Keyring, is_sealed
from sim.entropy import SeededEntropy

ENTROPY = SeededEntropy(7, b"identity")
ANN, BOB = Identity.generate(ENTROPY), Identity.generate(ENTROPY)
PLAIN = ANN.to_bytes(None, ENTROPY)
SEALED = ANN.to_bytes("correct horse", ENTROPY)


def member(identity: Identity, name: str = "") -> Member:
    return Member(identity.peer_id, name, "", identity.transport_key, identity.seal_key)


def failure_of(data: bytes, passphrase: str | None = None) -> Failure:
    """How a file is refused: one line that names it, for an exit code of its own."""
    with pytest.raises(Failure) as refused:
        Identity.from_bytes(data, passphrase, "node/identity")
    failure = refused.value
    assert failure.exit_code is ExitCode.IDENTITY
    assert "\n" not in str(failure)
    assert failure.hint
    return failure


# ---- published vectors --------------------------------------------------------------------------------------------------

RFC_8032 = [  # 7.1, tests 1 to 3: seed, public key, message, signature
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
# RFC 7748, 6.1, and NaCl's tests/box.c, which box a message between the same two keys.
ALICE_SECRET = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
ALICE_PUBLIC = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
BOB_SECRET = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
BOB_PUBLIC = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
BOX_NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
BOX_MESSAGE = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce"
    "314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040"
    "e082f937763848645e0705"
)
BOXED = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011"
    "ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de"
    "56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
)


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_ids_and_signatures_are_those_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    signer = replace(ANN, sign_seed=bytes.fromhex(seed))
    assert signer.peer_id.hex() == public
    said = bytes.fromhex(message)
    ring = Keyring(signer, {signer.peer_id: member(signer)})
    for cut in range(len(said) + 1):  # what is signed is context ‖ digest, wherever the one ends
        assert ring.sign(said[:cut], said[cut:]).hex() == signature
        assert ring.verify(signer.peer_id, said[:cut], said[cut:], bytes.fromhex(signature))


def test_public_keys_are_those_of_rfc_7748() -> None:
    alice = replace(ANN, transport_secret=ALICE_SECRET, seal_secret=BOB_SECRET)
    assert (alice.transport_key, alice.seal_key) == (ALICE_PUBLIC, BOB_PUBLIC)


def test_a_wrapped_key_is_a_nacl_box_behind_its_nonce() -> None:
    alice, bob = replace(ANN, seal_secret=ALICE_SECRET), replace(BOB, seal_secret=BOB_SECRET)
    to_bob = Keyring(alice, {bob.peer_id: member(bob)}).wrap(bob.peer_id, BOX_MESSAGE, BOX_NONCE)
    assert to_bob == BOX_NONCE + BOXED
    assert Keyring(bob, {alice.peer_id: member(alice)}).unwrap(alice.peer_id, to_bob) == BOX_MESSAGE


# ---- at rest ------------------------------------------------------------------------------------------------------------


def test_an_identity_comes_back_with_its_passphrase_and_without_one() -> None:
    assert Identity.from_bytes(SEALED, "correct horse") == ANN
    assert Identity.from_bytes(PLAIN, None) == ANN
    assert (is_sealed(SEALED), is_sealed(PLAIN)) == (True, False)


def test_the_same_passphrase_typed_on_another_machine_opens_it() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert Identity.from_bytes(ANN.to_bytes(composed, ENTROPY), decomposed) == ANN


def test_secrets_are_distinct_and_never_shown() -> None:
    assert len({ANN.sign_seed, ANN.transport_secret, ANN.seal_secret, ANN.peer_id, ANN.transport_key, ANN.seal_key}) == 6
    assert repr(ANN) == "Identity()"
    assert ANN.sign_seed not in SEALED


def test_two_files_of_one_identity_share_nothing_but_the_form() -> None:
    again = ANN.to_bytes("correct horse", ENTROPY)
    assert again[:22] == SEALED[:22]  # magic, version, form, operations, memory
    assert not {again[k : k + 8] for k in range(22, len(again) - 8)} & {SEALED[k : k + 8] for k in range(22, len(SEALED) - 8)}


@pytest.mark.fault("keys at rest")
def test_a_wrong_passphrase_is_refused() -> None:
    assert failure_of(SEALED, "incorrect horse").code == "passphrase_wrong"


@pytest.mark.fault("keys at rest")
def test_a_missing_or_needless_or_empty_passphrase_is_refused() -> None:
    assert failure_of(SEALED, None).code == "passphrase_needed"
    assert failure_of(PLAIN, "correct horse").code == "identity_not_sealed"
    with pytest.raises(Failure, match="empty"):
        ANN.to_bytes("", ENTROPY)


@pytest.mark.fault("keys at rest")
@pytest.mark.parametrize("data", [PLAIN, SEALED], ids=["plain", "sealed"])
def test_a_file_cut_off_anywhere_or_with_something_behind_it_is_refused(data: bytes) -> None:
    for cut in range(len(data)):
        assert failure_of(data[:cut]).code == "identity_damaged"
    assert failure_of(data + b"\n").code == "identity_damaged"


def test_a_flipped_bit_in_any_byte_of_a_plain_file_is_refused() -> None:
    for at in range(len(PLAIN)):
        flipped = bytearray(PLAIN)
        flipped[at] ^= 1
        assert failure_of(bytes(flipped)).code in ("identity_damaged", "identity_version")


@pytest.mark.parametrize("at", [0, 8, 9, 13, 21, 22, 38, 62, 120, 158, len(SEALED) - 1])
def test_a_flipped_bit_in_a_sealed_file_is_refused_the_header_included(at: int) -> None:
    flipped = bytearray(SEALED)
    flipped[at] ^= 1
    assert failure_of(bytes(flipped), "correct horse").code in (
        "identity_damaged",
        "identity_version",
        "passphrase_wrong",
    )


@pytest.mark.fault("keys at rest")
@pytest.mark.parametrize(
    ("operations", "memory"),
    [(3, 64 << 30), (2**32 - 1, 64 << 20), (0, 64 << 20), (3, 0), (3, 2**64 - 1), (17, 64 << 20), (3, (512 << 20) + 1)],
)
def test_a_file_that_asks_for_hours_or_for_64_gib_is_refused_before_any_is_spent(operations: int, memory: int) -> None:
    greedy = SEALED[:10] + struct.pack("!IQ", operations, memory) + SEALED[22:]
    assert failure_of(greedy, "correct horse").code == "identity_kdf"


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04.", b"-----BEGIN OPENSSH PRIVATE KEY-----", bytes(200), b"p2pfl-id\x01\x02" + bytes(96)]
)
def test_what_is_no_identity_is_called_so(data: bytes) -> None:
    assert failure_of(data).code == "identity_damaged"


def test_a_file_of_a_later_version_is_called_so() -> None:
    assert failure_of(b"p2pfl-id\x02\x00" + PLAIN[10:]).code == "identity_version"


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_file_raises_anything_but_a_failure(data: bytes) -> None:
    failure_of(data)


# ---- at work ------------------------------------------------------------------------------------------------------------


def test_a_keyring_is_what_a_peer_signs_with() -> None:
    ring: Signer = Keyring(ANN, {BOB.peer_id: member(BOB)})
    back: Signer = Keyring(BOB, {ANN.peer_id: member(ANN)})
    assert back.verify(ANN.peer_id, b"context", b"digest", ring.sign(b"context", b"digest"))
    wrapped = ring.wrap(BOB.peer_id, b"k" * 32, b"n" * 24)
    assert (len(wrapped), back.unwrap(ANN.peer_id, wrapped)) == (72, b"k" * 32)


def test_a_stranger_signs_and_wraps_in_vain() -> None:
    ring = Keyring(ANN, {BOB.peer_id: member(BOB)})
    stranger = Identity.generate(ENTROPY)
    signature = Keyring(stranger, {}).sign(b"context", b"digest")
    wrapped = Keyring(stranger, {ANN.peer_id: member(ANN)}).wrap(ANN.peer_id, b"k" * 32, b"n" * 24)
    assert not ring.verify(stranger.peer_id, b"context", b"digest", signature)
    assert ring.unwrap(stranger.peer_id, wrapped) is None
    assert ring.unwrap(BOB.peer_id, wrapped) is None


FIELD = 2**255 - 19
LOW_ORDER = [0, 1, FIELD - 1, FIELD, FIELD + 1, 2**255, 2**255 + 1]
LOW_ORDER += [
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]


@pytest.mark.parametrize("u", LOW_ORDER)
def test_a_member_with_a_key_that_anybody_can_agree_with_is_refused_by_name(u: int) -> None:
    """On a point of low order every agreement gives zero (RFC 7748, 6.1). The list is checked against libsodium's own."""
    key = u.to_bytes(32, "little")
    with pytest.raises(SodiumError):
        bindings.crypto_box_beforenm(key, ANN.seal_secret)
    with pytest.raises(Failure, match=r"'bob</script>'.*seal_key"):
        Keyring(ANN, {BOB.peer_id: replace(member(BOB, "bob</script>"), seal_key=key)})


def test_a_member_with_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(Failure, match="seal_key"):
        Keyring(ANN, {BOB.peer_id: replace(member(BOB), seal_key=BOB.seal_key[:-1])})


@pytest.mark.parametrize("id", [bytes(32), b"\1" + bytes(31), b"\xff" * 32])
def test_an_id_that_is_no_point_of_the_curve_has_signed_nothing(id: bytes) -> None:
    ring = Keyring(ANN, {PeerId(id): replace(member(BOB), id=PeerId(id))})
    for signature in (bytes(64), id + bytes(32), ring.sign(b"context", b"digest")):
        assert not ring.verify(PeerId(id), b"context", b"digest", signature)
