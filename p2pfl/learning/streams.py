"""Where chance in learning comes from: counter-based streams keyed by (seed, peer, purpose), one block per round.

Nothing is drawn from a global generator, so the same (seed, peer, round) gives the same minibatches in every engine, in
whatever order peers are computed.
"""

import hashlib

import numpy as np


def philox(seed: int, peer: int, purpose: str, round: int) -> np.random.Generator:
    """The stream of this peer, purpose and round. Rounds are 2**192 numbers apart, so they never overlap."""
    key = np.frombuffer(_digest(seed, peer, purpose, 16), dtype="<u8")
    counter = np.array([0, 0, 0, round], dtype=np.uint64)  # numpy takes 3 us more to convert whole numbers of this size
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def torch_seed(seed: int, peer: int, purpose: str, round: int = 0) -> int:
    """A seed for a torch generator, for what only torch can draw: first parameters and dropout."""
    return int.from_bytes(_digest(seed, peer, f"{purpose} {round}", 8), "little") >> 1


def _digest(seed: int, peer: int, purpose: str, size: int) -> bytes:
    return hashlib.blake2b(f"{seed} {peer} {purpose}".encode(), digest_size=size, person=b"p2pfl/streams").digest()
