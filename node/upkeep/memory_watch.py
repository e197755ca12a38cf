"""Keeps a member from filling this process's memory through libzmq.

A message of many frames is held by libzmq until its last one has come, whatever the limits on frames and queues; a member that
never ends one fills our memory and we never see a byte. Only the end of its connection frees that, and libzmq has no call to
end one connection; so the listener is cycled, which ends all, and the honest ones are back within a second.
"""

from collections.abc import Callable

MARGIN = 256 << 20  # bytes over what was held at the start: queues of libzmq, chunks on their way, Python's own
RELAY_MARGIN = 64 << 20  # of a relay, which holds no model and at most 12 MiB of what others say
PER_NEIGHBOR = 48 << 20  # bytes: the chunks that a neighbor may have been granted, in and out
SETTLE_S = 2.0  # after a cycle, for libzmq to let go; twice as long each time while that doesn't help
SETTLE_S_MAX = 3600.0


class MemoryWatch:
    """Asks `cycle` when more than `bound` bytes are held. Pure: readings and time are arguments."""

    def __init__(self, bound: int, cycle: Callable[[int], None]) -> None:
        """`cycle` hears how many bytes are held."""
        self._bound = bound
        self._cycle = cycle
        self._settle_s = SETTLE_S
        self._not_before = float("-inf")

    def saw(self, held: int, now: float) -> None:
        """`held` bytes now. Called several times a second: a fast member sends 100 MB in one."""
        if held <= self._bound:
            self._settle_s = SETTLE_S
        elif now >= self._not_before:
            self._not_before = now + self._settle_s
            self._settle_s = min(2 * self._settle_s, SETTLE_S_MAX)
            self._cycle(held)


def bound(held: int, arena_bytes: int, neighbors: int) -> int:
    """What an honest network can make this process hold, which holds `held` now, before its arena is touched."""
    return held + arena_bytes + MARGIN + PER_NEIGHBOR * neighbors
