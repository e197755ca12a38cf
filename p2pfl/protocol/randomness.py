"""Two kinds of randomness that must never be confused, hence two types.

`Choices` decide whom to ask and how much to jitter; they are seeded, so that a run can be repeated. `Entropy` makes keys,
nonces, masks and noise; in a live node it is the operating system's, always, and nothing else can be passed.
"""

import hashlib
from typing import Protocol


class Entropy(Protocol):
    """Unpredictable bytes."""

    def draw(self, count: int) -> bytes:
        """`count` fresh bytes."""
        ...


class Choices:
    """A repeatable stream of choices: BLAKE2b of (seed, purpose, counter)."""

    def __init__(self, seed: int, purpose: bytes) -> None:
        self._key = hashlib.blake2b(seed.to_bytes(16, "big", signed=True) + purpose, digest_size=32).digest()
        self._count = 0

    def below(self, bound: int) -> int:
        """A whole number in [0, bound). The bias of the modulus is below bound / 2**64."""
        self._count += 1
        draw = hashlib.blake2b(self._count.to_bytes(8, "big"), key=self._key, digest_size=8).digest()
        return int.from_bytes(draw, "big") % bound

    def uniform(self, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * (self.below(1 << 53) / (1 << 53))
