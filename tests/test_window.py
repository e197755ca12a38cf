"""The replay window: every (epoch, sequence number) of a signer counts once, whatever order they come in."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.protocol.window import WINDOW, ReplayWindow

LARGEST = (1 << 63) - 1


def window_after(*seqs: int, epoch: int = 1) -> ReplayWindow:
    window = ReplayWindow()
    for seq in seqs:
        window.record(b"ann", epoch, seq)
    return window


def test_checking_alone_burns_no_number() -> None:
    window = ReplayWindow()
    assert window.check(b"ann", 1, 5) and window.check(b"ann", 1, 5)


def test_a_number_counts_once() -> None:
    assert not window_after(5).check(b"ann", 1, 5)


@pytest.mark.fault("replay")
def test_reordered_within_64_each_counts_once() -> None:
    order = [(7 * k) % WINDOW for k in range(WINDOW)]  # 7 and 64 have no common divisor: every number once, out of order
    window = ReplayWindow()
    for seq in order:
        assert window.check(b"ann", 1, seq)
        window.record(b"ann", 1, seq)
    assert not any(window.check(b"ann", 1, seq) for seq in order)


@pytest.mark.parametrize(("seq", "is_new"), [(1000 - 63, True), (1000 - 64, False), (0, False), (999, True), (1001, True)])
def test_what_is_older_than_the_window_is_refused_unseen(seq: int, is_new: bool) -> None:
    assert window_after(1000).check(b"ann", 1, seq) is is_new


def test_a_gap_of_a_million_is_accepted_once() -> None:
    window = window_after(3, 1_000_003)
    assert not window.check(b"ann", 1, 1_000_003)
    assert not window.check(b"ann", 1, 4)


@pytest.mark.fault("replay")
def test_the_largest_sequence_number_costs_no_more_than_the_smallest() -> None:
    window = window_after(0, LARGEST)
    assert not window.check(b"ann", 1, LARGEST)
    assert window.check(b"ann", 1, LARGEST - 1)


def test_a_later_epoch_begins_anew_and_ends_the_earlier_one() -> None:
    window = window_after(1000)
    window.record(b"ann", 2, 0)
    assert not window.check(b"ann", 1, 1001)
    assert not window.check(b"ann", 2, 0)
    assert window.check(b"ann", 2, 1)


def test_one_signer_cannot_burn_the_numbers_of_another() -> None:
    assert window_after(5).check(b"bob", 1, 5)


@pytest.mark.fault("replay")
def test_nothing_can_be_replayed_across_a_restart() -> None:
    window = window_after(0, 2, LARGEST - 1, LARGEST, epoch=LARGEST)
    stored = msgpack.packb(window.to_plain())
    restored = ReplayWindow.from_plain(msgpack.unpackb(stored))
    assert not restored.check(b"ann", LARGEST, LARGEST)
    assert not restored.check(b"ann", LARGEST - 1, 0)
    assert restored.check(b"ann", LARGEST, LARGEST - 2)
    assert restored.to_plain() == window.to_plain()


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200)), max_size=200))
def test_it_accepts_what_a_set_of_all_that_was_seen_would(arrivals: list[tuple[int, int]]) -> None:
    window = ReplayWindow()
    seen: set[tuple[int, int]] = set()
    for epoch, seq in arrivals:
        newest = max(seen, default=(-1, 0))
        expected = epoch > newest[0] or (epoch == newest[0] and seq > newest[1] - WINDOW and (epoch, seq) not in seen)
        assert window.check(b"ann", epoch, seq) is expected
        if expected:
            window.record(b"ann", epoch, seq)
            seen.add((epoch, seq))
