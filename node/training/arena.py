"""The memory that a peer's two processes share: equal slots for updates, in a file that has no name.

The file is gone when the last process that has it open is gone, however that one ends, so SIGKILL leaks nothing. Pages cost
nothing before they are touched; the lowest free slot is used first, so that few ever are.
"""

import heapq
import mmap
import os
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from p2pfl.protocol.envelope import sealed_bytes

PAGE_BYTES = 16384  # a multiple of every page size in use, so that a slot never shares a page


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for one update. `view` is all of it; whoever fills it knows how much is meant."""

    index: int
    view: memoryview = field(repr=False, compare=False)


class Arena:
    """Slots of `slot_bytes` each. The network process decides which are in use; the trainer only looks where it is told."""

    def __init__(self, fd: int, slot_bytes: int, count: int) -> None:
        """Map an arena that `create` made, here or in the other process; takes over `fd`."""
        self.fd = fd
        self.slot_bytes = slot_bytes
        self.count = count
        self._stride = _rounded(max(1, slot_bytes))
        self._map = mmap.mmap(fd, self._stride * count)
        self._view = memoryview(self._map)
        self._free = list(range(count))
        self._users: Counter[int] = Counter()

    @classmethod
    def create(cls, update_bytes: int, count: int) -> "Arena":
        """Of slots with room for an update of `update_bytes`, sealed or not."""
        slot_bytes = sealed_bytes(update_bytes)
        fd = unnamed_file()
        os.ftruncate(fd, _rounded(max(1, slot_bytes)) * count)
        return cls(fd, slot_bytes, count)

    def slot(self, index: int) -> Slot:
        if not 0 <= index < self.count:
            raise IndexError(f"slot {index} of an arena of {self.count}")
        start = index * self._stride
        return Slot(index, self._view[start : start + self.slot_bytes])

    def take(self) -> Slot:
        """The lowest free slot. The peer bounds how many updates it holds, so running out is our own bug."""
        if not self._free:
            raise AssertionError(f"all {self.count} slots are in use")
        slot = self.slot(heapq.heappop(self._free))
        self._users[slot.index] = 1
        return slot

    def share(self, slot: Slot) -> None:
        """One more has a use for a slot that is in use; it is free when all have given it back."""
        if not self._users[slot.index]:
            raise AssertionError(f"slot {slot.index} is free")
        self._users[slot.index] += 1

    def give_back(self, slot: Slot) -> None:
        if not self._users[slot.index]:
            raise AssertionError(f"slot {slot.index} was given back twice")
        self._users[slot.index] -= 1
        if not self._users[slot.index]:
            heapq.heappush(self._free, slot.index)

    def forget(self, slot: Slot, start: int, end: int) -> None:
        """Nobody will read these bytes of a slot again before they are written: the system may have their pages."""
        offset = slot.index * self._stride
        first, last = _rounded(offset + start), (offset + end) // PAGE_BYTES * PAGE_BYTES
        if first < last and hasattr(mmap, "MADV_REMOVE"):
            self._map.madvise(mmap.MADV_REMOVE, first, last - first)


def _rounded(size: int) -> int:
    return -(-size // PAGE_BYTES) * PAGE_BYTES


def unnamed_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("p2pfl-arena", os.MFD_CLOEXEC)
    fd, path = tempfile.mkstemp(prefix="p2pfl-arena-")
    Path(path).unlink()
    return fd
