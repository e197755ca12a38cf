import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from p2pfl.learning.codec import CODECS, Refused, Unencodable, round_trip
from p2pfl.protocol.errors import Reason

KINDS = sorted(CODECS)
BOUNDED = arrays(np.float32, st.integers(1, 40), elements=st.floats(-60_000, 60_000, width=32))


def encoded(kind: str, values: object) -> bytes:
    return bytes(CODECS[kind]().encode(np.array(values, dtype=np.float32), {})[0])


def reason(kind: str, payload: object, dimension: int, max_abs: float = 1e6) -> str:
    with pytest.raises(Refused) as refused:
        CODECS[kind]().decode(payload, {}, dimension, max_abs)
    return Reason(refused.value.reason).value  # every reason that learning gives is in the protocol's closed list


@given(BOUNDED)
def test_dense_gives_every_value_back(vector: np.ndarray) -> None:
    assert round_trip(CODECS["dense"](), vector, {}).tobytes() == vector.tobytes()


@given(BOUNDED)
def test_float16_rounds_to_11_bits(vector: np.ndarray) -> None:
    error = np.abs(round_trip(CODECS["float16"](), vector, {}) - vector)
    assert np.all(error <= np.maximum(np.abs(vector) * 2.0**-11, 2.0**-25))  # half a unit in the last place; subnormals


@pytest.mark.parametrize(("kind", "size"), [("dense", 4), ("float16", 2)])
def test_the_length_follows_from_the_layout(kind: str, size: int) -> None:
    assert CODECS[kind]().payload_bytes(33) == 33 * size == len(encoded(kind, np.ones(33)))


def test_the_wire_is_little_endian() -> None:
    assert encoded("dense", [1.0]) == bytes.fromhex("0000803f")
    assert encoded("float16", [1.0]) == bytes.fromhex("003c")


@pytest.mark.fault("another layout")
@pytest.mark.parametrize("kind", KINDS)
def test_another_length_is_refused(kind: str) -> None:
    payload = encoded(kind, np.ones(4))
    for wrong in (payload[:-1], payload + b"\0", payload[: len(payload) // 2], b""):
        assert reason(kind, wrong, 4) == "wrong_length"


@pytest.mark.fault("not finite")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_refused(kind: str, value: float) -> None:
    dtype = {"dense": "<f4", "float16": "<f2"}[kind]
    assert reason(kind, np.array([0, 0, value], dtype).tobytes(), 3) == "non_finite"
    assert reason(kind, np.full(3, value, dtype).tobytes(), 3) == "non_finite"


@pytest.mark.fault("not finite")
def test_a_signaling_nan_is_refused() -> None:
    assert reason("dense", bytes.fromhex("0100807f") * 3, 3) == "non_finite"


@pytest.mark.fault("too large")
@pytest.mark.parametrize("value", [1e38, -1e38, 1.1e6])
def test_a_finite_value_over_the_bound_is_refused(value: float) -> None:
    assert reason("dense", encoded("dense", [0.0, value]), 2) == "too_large"
    assert reason("float16", encoded("float16", [0.0, -11.0]), 2, max_abs=10) == "too_large"


@pytest.mark.fault("denormals")
@pytest.mark.parametrize("kind", KINDS)
def test_denormals_and_negative_zero_are_ordinary_values(kind: str) -> None:
    smallest = 1e-45 if kind == "dense" else 6e-8
    vector = np.array([smallest, -smallest, -0.0], dtype=np.float32)
    back = round_trip(CODECS[kind](), vector, {})
    assert back[0] > 0 > back[1]
    assert np.signbit(back[2])


@pytest.mark.parametrize(("kind", "value"), [("float16", 65_520.0), ("float16", -1e5), ("float16", np.inf), ("dense", np.nan)])
def test_what_readers_must_refuse_is_never_encoded(kind: str, value: float) -> None:
    with pytest.raises(Unencodable, match=f"does not fit {'float32' if kind == 'dense' else kind}"):
        encoded(kind, [value])


def test_decoding_reads_any_buffer_without_copying_dense_values() -> None:
    payload = memoryview(bytearray(encoded("dense", [1.0, 2.0])))
    vector, _ = CODECS["dense"]().decode(payload, {}, 2, 1e6)
    payload[:4] = encoded("dense", [5.0])
    assert vector.tolist() == [5.0, 2.0]
