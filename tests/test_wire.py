"""Decoding: what we write is read back, all else is refused by name, cheaply, and nothing but `RejectedFrame` escapes."""

import random
import time
import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pfl.protocol import wire
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.wire import Bye, Chunk, Credit, Header, Hello, Message, Offer

LARGEST = (1 << 63) - 1
MESSAGES: list[Message] = [
    Hello(b"n" * 16, b"c" * 32, b"b" * 16, LARGEST, 0, True),
    Offer(
        header=b"h" * 300,
        signature=b"s" * 64,
        length=wire.CHUNK_BYTES + 1,
        digests=(b"1" * 32, b"2" * 32),
        readers=((PeerId(b"a" * 32), b"w" * 72), (PeerId(b"b" * 32), b"x" * 72)),
    ),
    Credit(b"d" * 32, 4096),
    Chunk(b"d" * 32, 4095),
    Bye(LARGEST),
]
HEADER = Header(
    network=b"n" * 16,
    charter=b"c" * 32,
    schema=b"s" * 32,
    signer=PeerId(b"p" * 32),
    boot_id=b"b" * 16,
    boot_epoch=LARGEST,
    seq=LARGEST,
    step=LARGEST,
    phase=0xFFFF,
    part=0xFFFF,
    age=LARGEST,
    samples=LARGEST,
    chunks_digest=b"1" * 32,
    readers_digest=b"2" * 32,
    key_commitment=b"3" * 32,
)
BAD_VALUES = [None, -1, 1 << 63, 2**64 - 1, 1.0, float("nan"), float("inf"), True, "text", "../../x", b"", [], [1], {}, {1: 2}]
BAD_VALUES += [msgpack.ExtType(1, b""), msgpack.ExtType(5, b"12345"), msgpack.Timestamp(0), [[]], b"x" * 200_000]


def reason_of(frame: bytes) -> Reason:
    """Why a frame is refused. Any other exception, and being accepted, fails the test."""
    with pytest.raises(RejectedFrame) as refusal:
        wire.decode(frame)
    assert refusal.value.blame is None
    return refusal.value.reason


# ---- what we write ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("message", MESSAGES)
def test_what_was_encoded_is_decoded(message: Message) -> None:
    assert wire.decode(wire.encode(message)) == message


def test_the_longest_header_fits_its_limit() -> None:
    encoded = wire.encode_header(HEADER)
    assert wire.decode_header(encoded) == HEADER
    assert len(encoded) == 295 <= wire.HEADER_MAX


def test_the_longest_offer_fits_the_frame() -> None:
    readers = tuple((PeerId(k.to_bytes(32, "big")), b"w" * 72) for k in range(wire.READERS_MAX))
    length = wire.CHUNKS_MAX * wire.CHUNK_BYTES
    offer = Offer(b"h" * wire.HEADER_MAX, b"s" * 64, length, (b"d" * 32,) * wire.CHUNKS_MAX, readers)
    frame = wire.encode(offer)
    assert len(frame) <= wire.HEADER_FRAME_MAX
    assert wire.decode(frame) == offer


@pytest.mark.parametrize(("length", "count"), [(1, 1), (1 << 20, 1), ((1 << 20) + 1, 2), (1 << 32, 4096)])
def test_a_payload_is_cut_into_chunks_of_a_mebibyte(length: int, count: int) -> None:
    assert wire.chunk_count(length) == count


# ---- version and kind ---------------------------------------------------------------------------------------------------


@pytest.mark.fault("version or kind")
@pytest.mark.parametrize("version", [0, 2, 127])
@pytest.mark.parametrize("rest", [b"\x01", b"\xff\xff", b"\x01" + b"\x91" * 5000, b"\xc1garbage", b"\x63"])
def test_another_version_is_called_so_though_we_cannot_read_the_rest(version: int, rest: bytes) -> None:
    assert reason_of(bytes([0x95, version]) + rest) is Reason.VERSION


@pytest.mark.fault("version or kind")
@pytest.mark.parametrize("kind", [0, 6, 127, 128, 255])
@pytest.mark.parametrize("rest", [b"", b"\x81\x01\x02", b"\xc1"])
def test_an_unknown_kind_is_called_so_though_we_cannot_read_the_rest(kind: int, rest: bytes) -> None:
    assert reason_of(bytes([0x93, 1, kind]) + rest) is Reason.KIND


def test_a_header_of_another_version_is_refused() -> None:
    values = msgpack.unpackb(wire.encode_header(HEADER))
    with pytest.raises(RejectedFrame) as refusal:
        wire.decode_header(msgpack.packb([2, *values[1:]]))
    assert refusal.value.reason is Reason.VERSION


# ---- fields -------------------------------------------------------------------------------------------------------------


def bad_values_for(name: str, field: wire.Field, value: Any) -> list[Any]:
    """Everything in the list that the field's own bounds don't happen to allow, and its own value one byte off."""
    off = [value[:-1], value + b"x"] if isinstance(value, bytes) and name != "header" else []
    return off + [bad for bad in BAD_VALUES if not (field.type == "flag" and bad is True)]


@pytest.mark.parametrize("message", [*MESSAGES, HEADER], ids=lambda m: type(m).__name__)
def test_a_field_of_another_type_or_out_of_its_bounds_is_refused(message: Message | Header) -> None:
    is_header = isinstance(message, Header)
    frame = wire.encode_header(message) if isinstance(message, Header) else wire.encode(message)
    values = msgpack.unpackb(frame)
    first = 1 if is_header else 2
    for k, (name, field) in enumerate(wire.FIELDS[type(message)].items(), start=first):
        for bad in bad_values_for(name, field, values[k]):
            forged = msgpack.packb([*values[:k], bad, *values[k + 1 :]])
            with pytest.raises(RejectedFrame) as refusal:
                wire.decode_header(forged) if is_header else wire.decode(forged)
            assert refusal.value.reason is Reason.BAD_HEADER, (name, bad)


@pytest.mark.fault("cut off")
@pytest.mark.parametrize("message", MESSAGES)
def test_a_field_too_many_or_too_few_is_refused(message: Message) -> None:
    values = msgpack.unpackb(wire.encode(message))
    assert reason_of(msgpack.packb(values[:-1])) is Reason.BAD_HEADER
    assert reason_of(msgpack.packb([*values, 0])) is Reason.BAD_HEADER


@pytest.mark.fault("cut off")
@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_cut_off_anywhere_or_with_something_behind_it_is_refused(message: Message) -> None:
    frame = wire.encode(message)
    assert {reason_of(frame[:cut]) for cut in range(len(frame))} == {Reason.BAD_HEADER}
    assert reason_of(frame + b"\0") is Reason.BAD_HEADER


@pytest.mark.fault("cut off")
def test_a_header_cut_off_anywhere_is_refused() -> None:
    frame = wire.encode_header(HEADER)
    for cut in range(len(frame)):
        with pytest.raises(RejectedFrame):
            wire.decode_header(frame[:cut])


def test_readers_must_ascend_so_that_nobody_is_named_twice() -> None:
    a, b = PeerId(b"a" * 32), PeerId(b"b" * 32)
    for ids in ((b, a), (a, a)):
        offer = Offer(b"h", b"s" * 64, 1, (b"d" * 32,), tuple((reader, b"w" * 72) for reader in ids))
        assert reason_of(wire.encode(offer)) is Reason.BAD_HEADER


@pytest.mark.parametrize(("length", "digests"), [(1, 2), (1 << 20, 2), ((1 << 20) + 1, 1), (1 << 32, 1)])
def test_an_offer_has_as_many_digests_as_its_length_has_chunks(length: int, digests: int) -> None:
    offer = Offer(b"h", b"s" * 64, length, (b"d" * 32,) * digests, ((PeerId(b"a" * 32), b"w" * 72),))
    assert reason_of(wire.encode(offer)) is Reason.BAD_HEADER


@pytest.mark.fault("bombs")
def test_more_readers_or_digests_than_the_bound_are_refused() -> None:
    readers = tuple((PeerId(k.to_bytes(32, "big")), b"w" * 72) for k in range(wire.READERS_MAX + 1))
    assert reason_of(wire.encode(Offer(b"h", b"s" * 64, 1, (b"d" * 32,), readers))) is Reason.BAD_HEADER
    digests = (b"d" * 32,) * (wire.CHUNKS_MAX + 1)
    assert reason_of(wire.encode(Offer(b"h", b"s" * 64, 1 << 32, digests, readers[:1]))) is Reason.BAD_HEADER


# ---- bombs --------------------------------------------------------------------------------------------------------------

OFFER_HEAD = b"\x97\x01\x02"


def tree(depth: int) -> bytes:
    """Lists of seven, which is as many as an offer's fields, so that no bound on their length can stop them."""
    return b"\x97" + tree(depth - 1) * 7 if depth else b"\x01"


BOMBS = {
    "a megabyte of empty maps": b"\x80" * 1_000_000,
    "empty maps in a field": OFFER_HEAD + b"\x80" * 260_000,
    "empty maps in lists": OFFER_HEAD + b"\x97\x80\x80\x80\x80\x80\x80\x80" * 32_000,
    "empty lists in lists": OFFER_HEAD + b"\x97\x90\x90\x90\x90\x90\x90\x90" * 32_000,
    "a tree of 19,608 lists": OFFER_HEAD + tree(6),
    "nested 600 deep": OFFER_HEAD + b"\x91" * 600 + b"\x01",
    "nested 100,000 deep": OFFER_HEAD + b"\x91" * 100_000,
    "maps nested 100,000 deep": OFFER_HEAD + b"\x81\x01" * 50_000,
    "a list of 2^32 - 1": OFFER_HEAD + b"\xdd\xff\xff\xff\xff",
    "a map of 2^32 - 1": OFFER_HEAD + b"\xdf\xff\xff\xff\xff",
    "bytes of 2^32 - 1": OFFER_HEAD + b"\xc6\xff\xff\xff\xff",
    "a text of 2^32 - 1": OFFER_HEAD + b"\xdb\xff\xff\xff\xff",
    "an extension of 2^32 - 1": OFFER_HEAD + b"\xc9\xff\xff\xff\xff\x01",
    "no array but 2^32 - 1 of them": b"\xdd\xff\xff\xff\xff\x01\x02",
    "invalid UTF-8": OFFER_HEAD + b"\xa2\xff\xfe" * 6,
    "a long text": OFFER_HEAD + b"\xda\x27\x10" + b"x" * 10_000,
    "a timestamp": OFFER_HEAD + b"\xd6\xff\0\0\0\0" * 6,
    "a pickle": b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
}


@pytest.mark.fault("bombs")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_milliseconds_without_memory(name: str) -> None:
    bomb = BOMBS[name]
    assert reason_of(bomb) is Reason.BAD_HEADER
    times = []
    for _ in range(5):
        began = time.perf_counter()
        reason_of(bomb)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.005
    tracemalloc.start()
    try:
        reason_of(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000 + len(bomb), f"{peak} bytes"  # msgpack copies what is behind a whole value


@pytest.mark.fault("junk")
@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_refused_and_nothing_else_escapes(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(25_000):
        # Half of them begin like one of our messages, so that they get past the first three bytes; not like a Bye, which is
        # one number more.
        head = bytes([0x90 + draw.randrange(16), 1, draw.randrange(1, 5)]) if draw.random() < 0.5 else b""
        frame = head + draw.randbytes(draw.randrange(200))
        assert reason_of(frame) in (Reason.BAD_HEADER, Reason.VERSION, Reason.KIND)


@pytest.mark.fault("junk")
@settings(max_examples=500)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_mutated_message_is_refused_or_is_within_all_bounds(message: Message, data: st.DataObject) -> None:
    frame = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "repeat"])):
            case "set":
                frame[at] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[at : at + data.draw(st.integers(1, 8))]
            case "insert":
                frame[at:at] = data.draw(st.binary(max_size=8))
            case "repeat":
                frame[at:at] = frame[at : at + 40]
        if not frame:
            break
    try:
        decoded = wire.decode(bytes(frame))
    except RejectedFrame as refusal:
        assert refusal.reason in (Reason.BAD_HEADER, Reason.VERSION, Reason.KIND)
    else:
        assert wire.decode(wire.encode(decoded)) == decoded


# ---- frames -------------------------------------------------------------------------------------------------------------

CHUNK = wire.encode(Chunk(b"d" * 32, 0))
BYE = wire.encode(Bye(1))
TOO_LONG = (CHUNK, bytes(wire.CHUNK_BYTES + wire.TAG_BYTES + 1))


def test_a_message_is_one_frame_or_a_chunk_with_its_bytes() -> None:
    assert wire.read((BYE,)) == (Bye(1), None)
    assert wire.read((CHUNK, b"sealed")) == (Chunk(b"d" * 32, 0), b"sealed")
    offer = MESSAGES[1]
    assert wire.read((wire.encode(offer),)) == (offer, None)
    assert wire.read((wire.encode(offer), b"sealed")) == (offer, b"sealed")


@pytest.mark.fault("frames")
@pytest.mark.parametrize(
    "frames",
    [(), (b"",), (BYE, b""), (BYE, b"x"), (CHUNK,), (CHUNK, b""), (CHUNK, b"x", b"y"), (b"",) * 3, (BYE,) * 50, TOO_LONG],
    ids=lambda frames: f"{len(frames)} frames",
)
def test_any_other_number_or_size_of_frames_is_refused(frames: tuple[bytes, ...]) -> None:
    with pytest.raises(RejectedFrame) as refusal:
        wire.read(frames)
    assert refusal.value.reason is Reason.BAD_FRAMES
