"""Seeded draws of data: one independent stream for every purpose."""

import hashlib

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Philox, counter-based, so that its stream is the same on every machine and in every version of numpy's default."""
    digest = hashlib.blake2b(seed.to_bytes(16, "big", signed=True) + purpose.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "big")))
