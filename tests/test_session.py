"""A session of a tunnel: what goes in at one end comes out at the other, and nothing else ever does."""

import struct

import pytest

from p2pfl.protocol import cipher
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.relay.handshake import Ephemeral, SessionKeys, answer_digest, session_keys
from p2pfl.protocol.relay.relay_wire import PIECE_BYTES, SEALED_MAX
from p2pfl.protocol.relay.session import QUEUE_MAX, WINDOW, Piece, Session, Sort, Unwrapped
from p2pfl.protocol.wire import CHUNK_BYTES, HEADER_FRAME_MAX, TAG_BYTES
from sim.entropy import SeededEntropy

CALLER, CALLEE = PeerId(b"a" * 32), PeerId(b"b" * 32)
CHUNK = CHUNK_BYTES + TAG_BYTES


def keys(seed: int = 7) -> tuple[SessionKeys, SessionKeys]:
    """Of both ends of one session."""
    ours, theirs = (Ephemeral.generate(SeededEntropy(seed, b"%d" % k)) for k in range(2))
    transcript = answer_digest(bytes(16), CALLER, CALLEE, ours.public, theirs.public)
    return session_keys(ours.secret, theirs.public, transcript, True), session_keys(
        theirs.secret, ours.public, transcript, False
    )


def ends(seed: int = 7) -> tuple[Session, Session]:
    one, other = keys(seed)
    return Session(one), Session(other)


def carry(pieces: list[Piece], to: Session) -> list[Unwrapped]:
    found = [to.opened(piece.bulk, piece.count, piece.sealed) for piece in pieces]
    return [one for one in found if one is not None]


def reason(to: Session, bulk: bool, count: int, sealed: bytes | bytearray | memoryview) -> Reason:
    with pytest.raises(RejectedFrame) as refused:
        to.opened(bulk, count, memoryview(sealed))
    return refused.value.reason


def content(length: int) -> bytes:
    return bytes(k % 251 for k in range(min(length, 1000))) * (length // 1000 + 1)


@pytest.mark.parametrize(
    ("head", "body"),
    [(a, b) for a in (1, 200, PIECE_BYTES - 9, PIECE_BYTES - 8, HEADER_FRAME_MAX) for b in (0, 1, 64 * 1024, CHUNK)],
)
@pytest.mark.parametrize("bulk", [False, True])
def test_a_message_of_any_length_a_link_takes_comes_out_as_it_went_in(head: int, body: int, bulk: bool) -> None:
    one, other = ends()
    frames = (content(head)[:head], memoryview(content(body))[:body]) if body else (content(head)[:head],)
    pieces = one.put(frames, bulk)
    found = carry(pieces, other)
    while not found:
        pieces = one.told_taken(other.taken_now() or 0)
        found = carry(pieces, other)
    (unwrapped,) = found
    assert unwrapped.frames == frames
    assert all(len(piece.sealed) <= SEALED_MAX for piece in pieces)


def test_a_whole_chunk_and_its_head_are_eight_pieces_and_it_waits_until_all_are_taken() -> None:
    """Else the loss of the last ones would never be noticed."""
    one, _ = ends()
    assert len(one.put((content(60)[:60], content(CHUNK)[:CHUNK]), bulk=True)) == WINDOW
    pieces = WINDOW
    while more := one.told_taken(pieces):
        pieces += len(more)
        assert one.is_waiting
    assert pieces == 8 and not one.is_waiting


def test_no_more_than_a_window_is_under_way_whoever_says_what() -> None:
    one, other = ends()
    sent = [piece for k in range(20) for piece in one.put((b"%d" % k,), bulk=True)]
    assert len(sent) == WINDOW
    assert one.told_taken(0) == one.told_taken(-1) == one.told_taken(WINDOW + 1) == [], "the relay can say what it likes"
    carry(sent[:2], other)
    assert other.taken_now() == 2
    assert [piece.count for piece in one.told_taken(2)] == [WINDOW, WINDOW + 1]
    assert one.told_taken(1) == one.told_taken(2) == []


def test_the_control_lane_waits_for_nothing() -> None:
    one, other = ends()
    for k in range(20):
        one.put((b"%d" % k,), bulk=True)
    (unwrapped,) = carry(one.put((b"now",), bulk=False), other)
    assert unwrapped.frames == (b"now",)


def test_what_waits_is_bounded_and_what_does_not_fit_is_counted() -> None:
    one, _ = ends()
    for k in range(WINDOW + QUEUE_MAX + 5):
        one.put((b"%d" % k,), bulk=True)
    assert one.dropped == 5


@pytest.mark.parametrize("bit", range(0, 8 * 40, 13))
def test_a_flipped_bit_is_refused_and_harms_nothing(bit: int) -> None:
    one, other = ends()
    (piece,) = one.put((b"a message of 15",), bulk=False)
    assert len(piece.sealed) == 9 + 15 + TAG_BYTES
    bad = bytearray(piece.sealed)
    bad[bit // 8] ^= 1 << bit % 8
    assert reason(other, False, 0, bad) is Reason.BAD_SEAL
    assert carry([piece], other)


def test_a_piece_opens_at_its_own_place_only() -> None:
    one, other = ends()
    stranger, _ = ends(seed=8)
    first, second = (one.put((b"%d" % k,), bulk=False)[0] for k in range(2))
    assert reason(other, True, 0, first.sealed) is Reason.BAD_SEAL, "the other lane"
    assert reason(other, False, 0, second.sealed) is Reason.BAD_SEAL, "another count"
    assert reason(other, False, 0, stranger.put((b"0",), bulk=False)[0].sealed) is Reason.BAD_SEAL, "another session"
    assert reason(one, False, 0, first.sealed) is Reason.BAD_SEAL, "sent back to its sender"
    assert reason(other, False, 1, second.sealed) is Reason.GAP, "before the one that it follows"
    carry([first], other)
    assert reason(other, False, 0, first.sealed) is Reason.REPLAYED


def test_a_piece_of_another_length_is_refused() -> None:
    one, other = ends()
    (piece,) = one.put((b"message",), bulk=False)
    assert reason(other, False, 0, piece.sealed[:-1]) is Reason.BAD_SEAL
    assert reason(other, False, 0, bytes(piece.sealed) + b"x") is Reason.BAD_SEAL


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        b"12345678",
        struct.pack("!BII", Sort.MESSAGE, 0, 1) + b"x",
        struct.pack("!BII", Sort.MESSAGE, HEADER_FRAME_MAX + 1, 0),
        struct.pack("!BII", Sort.MESSAGE, 1, CHUNK + 1),
        struct.pack("!BII", Sort.MESSAGE, 1, (1 << 32) - 1),
        struct.pack("!BII", Sort.MESSAGE, 1, 0) + b"xy",
        struct.pack("!BII", Sort.NEEDED, 1, 0) + b"x",
        struct.pack("!BII", max(Sort) + 1, 0, 0),
    ],
)
def test_a_message_out_of_its_bounds_is_refused_before_memory_is_taken_for_it(plain: bytes) -> None:
    """Its sender is a member who has the keys, and seals what it likes."""
    (ours, theirs), place = keys(), bytearray(plain + bytes(TAG_BYTES))
    cipher.seal_in_place(memoryview(place), bytes(cipher.NONCE_BYTES), ours.outward)
    assert reason(Session(theirs), False, 0, place) is Reason.BAD_FRAMES


def test_a_piece_longer_than_what_is_missing_is_refused() -> None:
    ours, theirs = keys()
    other = Session(theirs)
    for count, plain in enumerate((struct.pack("!BII", Sort.MESSAGE, 1, 4), b"123456")):
        place = bytearray(plain + bytes(TAG_BYTES))
        cipher.seal_in_place(memoryview(place), count.to_bytes(8, "big") + bytes(16), ours.outward)
        if count == 0:
            assert other.opened(False, 0, memoryview(place)) is None
        else:
            assert reason(other, False, 1, place) is Reason.BAD_FRAMES


def test_what_arrived_can_be_passed_on_without_a_copy() -> None:
    one, other = ends()
    (unwrapped,) = carry(one.put((b"head", content(CHUNK)[:CHUNK]), bulk=False), other)
    body = unwrapped.frames[1]
    assert isinstance(body, memoryview) and body.readonly and body.contiguous
