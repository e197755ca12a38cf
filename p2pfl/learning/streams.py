"""Where chance in learning comes from: counter-based streams keyed by (seed, peer, purpose), one block per round.

Nothing is drawn from a global generator, so the same (seed, peer, round) gives the same minibatches in every engine, in
whatever order peers are computed.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import NDArray

Key = NDArray[np.uint64]


def philox(seed: int, peer: int, purpose: str, round: int) -> np.random.Generator:
    """The stream of this peer, purpose and round. Rounds are 2**192 numbers apart, so they never overlap."""
    return of_key(key(seed, peer, purpose), round)


def key(seed: int, peer: int, purpose: str) -> Key:
    """What the streams of all rounds have in common, [2]; for who draws in many rounds."""
    return np.frombuffer(_digest(seed, peer, purpose, 16), dtype="<u8")


def of_key(key: Key, round: int) -> np.random.Generator:
    """The stream of this key and round."""
    counter = np.array([0, 0, 0, round], dtype=np.uint64)  # numpy takes 3 us more to convert whole numbers of this size
    # numpy takes any ISeedSequence; its annotation knows only its own.
    return np.random.Generator(np.random.Philox(_Given(key), counter=counter))  # type: ignore[arg-type]


class Streams:
    """The streams of a round, for who draws from many: one generator, moved from each to the next. That is cheaper than as many
    generators, but a stream is gone when the next is asked for."""

    def __init__(self, round: int) -> None:
        self._generator = of_key(np.zeros(2, dtype=np.uint64), round)
        self._state = self._generator.bit_generator.state

    def of(self, key: Key) -> np.random.Generator:
        """The same as `of_key` for this round."""
        self._state["state"]["key"] = key
        self._generator.bit_generator.state = self._state
        return self._generator


class _Given(ISeedSequence):
    """A key handed to Philox as its seed. Handed over as its key it costs 5 us more: numpy then also draws a seed from the
    operating system, which it does not use."""

    __slots__ = ("_key",)

    def __init__(self, key: Key) -> None:
        self._key = key

    def generate_state(self, n_words: int, dtype: Any = np.uint32) -> Key:
        return self._key


def torch_seed(seed: int, peer: int, purpose: str, round: int = 0) -> int:
    """A seed for a torch generator, for what only torch can draw: first parameters and dropout."""
    return int.from_bytes(_digest(seed, peer, f"{purpose} {round}", 8), "little") >> 1


def _digest(seed: int, peer: int, purpose: str, size: int) -> bytes:
    return hashlib.blake2b(f"{seed} {peer} {purpose}".encode(), digest_size=size, person=b"p2pfl/streams").digest()
