"""The memory that two processes share, and that nobody has to clean up."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from node.training.arena import PAGE_BYTES, Arena


def test_what_one_process_writes_into_a_slot_another_reads_from_it() -> None:
    arena = Arena.create(update_bytes=100_000, count=3)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = (
            "import socket, sys; from node.training.arena import Arena\n"
            "_, fds, _, _ = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)\n"
            "sys.stdout.buffer.write(Arena(fds[0], 100_016, 3).slot(1).view[:5])"
        )
        arena.slot(1).view[:5] = b"hello"
        socket.send_fds(ours, [b"."], [arena.fd])
        read = subprocess.run(
            [sys.executable, "-c", reader, str(theirs.fileno())], pass_fds=[theirs.fileno()], stdout=subprocess.PIPE
        )
    assert read.stdout == b"hello"


def test_slots_do_not_overlap_and_have_room_for_an_update_that_is_sealed_where_it_lies() -> None:
    arena = Arena.create(update_bytes=5, count=2)
    arena.slot(0).view[:] = b"a" * (5 + 16)
    arena.slot(1).view[:] = b"b" * (5 + 16)
    assert bytes(arena.slot(0).view) == b"a" * (5 + 16)
    assert Arena.create(update_bytes=(1 << 20) + 1, count=1).slot_bytes == (1 << 20) + 1 + 2 * 16


def test_the_lowest_free_slot_is_taken_first_so_that_few_pages_are_ever_touched() -> None:
    arena = Arena.create(update_bytes=1, count=3)
    first, second = arena.take(), arena.take()
    arena.give_back(first)
    assert (arena.take().index, second.index) == (0, 1)


def test_running_out_and_giving_back_twice_are_our_own_bugs() -> None:
    arena = Arena.create(update_bytes=1, count=1)
    slot = arena.take()
    with pytest.raises(AssertionError, match="in use"):
        arena.take()
    arena.give_back(slot)
    with pytest.raises(AssertionError, match="twice"):
        arena.give_back(slot)


def test_a_shared_slot_is_free_when_all_have_given_it_back() -> None:
    arena = Arena.create(update_bytes=1, count=1)
    slot = arena.take()
    arena.share(slot)
    arena.give_back(slot)
    with pytest.raises(AssertionError, match="in use"):
        arena.take()
    arena.give_back(slot)
    assert arena.take() == slot
    arena.give_back(slot)
    with pytest.raises(AssertionError, match="free"):
        arena.share(slot)


def test_what_is_forgotten_takes_no_memory_and_what_lies_around_it_is_as_it_was() -> None:
    arena = Arena.create(update_bytes=10 * PAGE_BYTES, count=2)
    for index in (0, 1):
        arena.slot(index).view[:] = b"x" * arena.slot_bytes
    before = os.fstat(arena.fd).st_blocks
    arena.forget(arena.slot(1), 100, 4 * PAGE_BYTES)
    assert (before - os.fstat(arena.fd).st_blocks) * 512 == 3 * PAGE_BYTES
    assert bytes(arena.slot(0).view) == b"x" * arena.slot_bytes
    assert bytes(arena.slot(1).view[:100]) == b"x" * 100
    assert bytes(arena.slot(1).view[4 * PAGE_BYTES :]) == b"x" * (arena.slot_bytes - 4 * PAGE_BYTES)
    arena.forget(arena.slot(0), 5, 6)  # less than a page: nothing to give
    assert bytes(arena.slot(0).view) == b"x" * arena.slot_bytes


def test_it_has_no_name_on_any_disk() -> None:
    arena = Arena.create(update_bytes=1, count=1)
    assert os.fstat(arena.fd).st_nlink == 0


def test_a_slot_that_does_not_exist_is_not_found() -> None:
    arena = Arena.create(update_bytes=1, count=1)
    with pytest.raises(IndexError):
        arena.slot(1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_slots_that_nobody_has_used_take_no_memory() -> None:
    """A thousand slots of 100 MB. What is touched is what counts, to the page."""

    def shared() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Shmem:"))

    before = shared()
    arena = Arena.create(100_000_000, 1_000)
    assert shared() == before
    slot = arena.take()
    slot.view[: 8 << 20] = bytes(8 << 20)
    assert shared() - before == 8 << 20
    arena.give_back(slot)
    assert arena.take().index == slot.index  # the same pages again, and no fresh ones
