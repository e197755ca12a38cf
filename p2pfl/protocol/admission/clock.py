"""Whether a clock can be believed. Only certificates and invites need one, so a bad one stops admission and nothing else."""

from collections.abc import Iterable
from statistics import median

OFF_S = 3600.0


def is_off(wall: float, neighbors: Iterable[float]) -> bool:
    """Whether a clock is more than an hour from the median of the neighbors' at the same moment; False where there is none.
    Fewer than half of them can't make it seem so."""
    offsets = [abs(other - wall) for other in neighbors]
    return bool(offsets) and median(offsets) > OFF_S
