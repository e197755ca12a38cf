"""Repeatable entropy: keys and nonces of a simulated peer, so that the same seed gives the same bytes. Never in a live node."""

import hashlib


class SeededEntropy:
    """BLAKE2b in counter mode over (seed, purpose)."""

    def __init__(self, seed: int, purpose: bytes) -> None:
        self._key = hashlib.blake2b(seed.to_bytes(16, "big", signed=True) + purpose, digest_size=32).digest()
        self._count = 0

    def draw(self, count: int) -> bytes:
        """`count` bytes that nobody drew before."""
        blocks = []
        for _ in range(-(-count // 64)):
            self._count += 1
            blocks.append(hashlib.blake2b(self._count.to_bytes(8, "big"), key=self._key).digest())
        return b"".join(blocks)[:count]
