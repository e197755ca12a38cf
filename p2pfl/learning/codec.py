"""How a vector becomes bytes. Little-endian on every machine; the length follows from the layout, never from the wire.

A codec is a pair of functions with a memory per sender, for codecs that build on what was sent before; these two keep none.
`encode` raises `Unencodable` for a vector that its readers would have to refuse: a value that is not finite, or one over
65504 under float16, which would silently become infinite. Clipping it instead would hide that training diverged.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

Vector = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Memory = Mapping[str, NDArray[np.generic]]

ROUNDED = 1 - 1e-6  # what rounding may leave of a square, and more
LARGEST_SUM = 1e38  # of squares that float32 holds


class Unencodable(Exception):
    """The vector can't be sent; the message says why, for people."""


class Refused(Exception):
    """An arrived payload can't be used. `reason` is a value of `protocol.errors.Reason`, which learning doesn't know."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Encode(Protocol):
    """Raises `Unencodable`."""

    def __call__(self, vector: Vector, memory: Memory, within: float = inf) -> tuple[Bytes, Memory]: ...


@dataclass(frozen=True, slots=True)
class Codec:
    """`encode(vector, memory, within) -> (payload, memory)`, where all of the vector is known to be `within` of 0;
    `decode(payload, memory, dimension, max_abs) -> (vector, memory)`, which raises `Refused`; `payload_bytes(dimension)` is the
    exact length of every payload; `convert(octets)` decodes what `decode` has found right.

    value_bytes: of each value, encoded by itself, so that a part of a payload is the payload of a part. largest: over which
    `encode` refuses a value. is_exact: what is decoded is what was encoded, to the bit.
    """

    encode: Encode
    decode: Callable[[object, Memory, int, float], tuple[Vector, Memory]]
    payload_bytes: Callable[[int], int]
    convert: Callable[[memoryview], Vector]
    value_bytes: int
    largest: float
    is_exact: bool


def dense() -> Codec:
    """Every value as float32. Encoding and decoding copy nothing on a little-endian machine."""
    return _plain(np.dtype("<f4"))


def float16() -> Codec:
    """Every value rounded to the nearest float16: half the bytes, 11 bits of precision, nothing over 65504."""
    return _plain(np.dtype("<f2"))


CODECS = {"dense": dense, "float16": float16}


def round_trip(codec: Codec, vector: Vector, memory: Memory) -> Vector:
    """Q(vector): what the readers of this vector see."""
    payload, _ = codec.encode(vector, memory)
    decoded, _ = codec.decode(payload, memory, vector.size, float("inf"))
    return decoded


def _plain(wire: np.dtype[np.floating]) -> Codec:
    largest = float(np.finfo(wire).max)

    def encode(vector: Vector, memory: Memory, within: float = inf) -> tuple[Bytes, Memory]:
        if within > largest and not is_within(vector, largest):
            bound = largest_magnitude(vector)
            raise Unencodable(f"a value of {bound:g} does not fit {wire.name}, which ends at {largest:g}")
        return _converted(vector, wire).view(np.uint8), memory

    def decode(payload: object, memory: Memory, dimension: int, max_abs: float) -> tuple[Vector, Memory]:
        octets = memoryview(payload).cast("B")  # type: ignore[arg-type]
        if len(octets) != dimension * wire.itemsize:
            raise Refused("wrong_length")
        vector = convert(octets)
        if not is_within(vector, max_abs):
            raise Refused("too_large" if np.isfinite(largest_magnitude(vector)) else "non_finite")
        return vector, memory

    def convert(octets: memoryview) -> Vector:
        return _converted(np.frombuffer(octets, dtype=wire), np.dtype(np.float32))

    is_exact = wire.itemsize == np.dtype(np.float32).itemsize
    return Codec(encode, decode, lambda dimension: dimension * wire.itemsize, convert, wire.itemsize, largest, is_exact)


def _converted(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if values.dtype == dtype:
        return values
    # Torch converts to and from float16 in hardware: 30 times as fast as numpy, 1,000 times where values are subnormal.
    native = np.require(values, dtype=values.dtype.newbyteorder("="), requirements="W")
    return torch.from_numpy(native).to(getattr(torch, dtype.name)).numpy().astype(dtype, copy=False)


def is_within(vector: Vector, bound: float) -> bool:
    """Whether all values are finite and none is further from 0 than `bound`.

    The sum of the squares nearly always tells, in half the time that the largest takes: no rounding makes a sum of what is not
    negative less than any of it. Only where that sum is over the square of the bound does the largest decide.
    """
    squares = float(np.vdot(vector, vector))
    if squares < min(bound * bound * ROUNDED, LARGEST_SUM):
        return True
    largest = largest_magnitude(vector)
    return isfinite(largest) and largest <= bound


def largest_magnitude(vector: Vector) -> float:
    """max |x|; NaN if any value is. Two reductions and no temporary, unlike abs()."""
    with np.errstate(invalid="ignore"):  # a signaling NaN is an answer here, not an accident
        return max(float(vector.max()), -float(vector.min()))  # a NaN makes both NaN
