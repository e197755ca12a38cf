"""The operating system's randomness, and its clocks: the only ones a live node has. Nothing here takes an argument that could
put another in their place."""

import os
import time

from p2pfl.protocol.events import Instant


class SystemEntropy:
    """Keys, nonces and boot ids."""

    def draw(self, count: int) -> bytes:
        return os.urandom(count)


def instant() -> Instant:
    return Instant(time.monotonic(), time.time())
