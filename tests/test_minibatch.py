import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.learning.minibatch import indices, steps_per_round
from p2pfl.learning.streams import Streams, key, philox
from p2pfl.settings import TrainingSection


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 12))
def test_batches_are_full_and_every_row_comes_once_in_each_pass(samples: int, batch_size: int, steps: int) -> None:
    rows = indices(7, 3, 5, samples, batch_size, steps)
    assert rows.shape == (steps, batch_size)
    flat = rows.reshape(-1)
    for start in range(0, len(flat), samples):
        once = flat[start : start + samples]
        assert len(set(once)) == len(once)
        assert all(0 <= row < samples for row in once)


def test_a_batch_wraps_into_the_next_permutation() -> None:
    rows = indices(7, 0, 0, samples=3, batch_size=2, steps=3).reshape(-1)
    assert sorted(rows[:3]) == sorted(rows[3:]) == [0, 1, 2]


def test_seed_peer_and_round_each_give_other_batches_and_the_same_give_the_same() -> None:
    known = indices(7, 1, 2, 100, 8, 12)
    assert np.array_equal(indices(7, 1, 2, 100, 8, 12), known)
    for other in (indices(8, 1, 2, 100, 8, 12), indices(7, 2, 2, 100, 8, 12), indices(7, 1, 3, 100, 8, 12)):
        assert not np.array_equal(other, known)


def test_more_steps_begin_with_the_same_batches() -> None:
    assert np.array_equal(indices(7, 1, 2, 10, 4, 9)[:3], indices(7, 1, 2, 10, 4, 3))


def test_an_epoch_is_as_many_full_batches_as_cover_the_data() -> None:
    assert steps_per_round(TrainingSection(batch_size=8), samples=144) == 18
    assert steps_per_round(TrainingSection(batch_size=8), samples=145) == 19
    assert steps_per_round(TrainingSection(batch_size=8, local_epochs=3), samples=5) == 3
    assert steps_per_round(TrainingSection(batch_size=8, local_steps=4), samples=145) == 4
    assert steps_per_round(TrainingSection(batch_size=8, local_steps=0), samples=145) == 0


def test_weighting_by_samples_scales_the_steps_within_a_cap() -> None:
    training = TrainingSection(local_steps=10, weighting="samples", weighting_cap=4, mean_samples=100)
    assert [steps_per_round(training, samples) for samples in (1, 50, 100, 250, 1000)] == [1, 5, 10, 25, 40]


def test_weighting_by_samples_counts_a_peers_size_once_under_epochs() -> None:
    training = TrainingSection(batch_size=10, local_epochs=1, weighting="samples", mean_samples=100)
    assert [steps_per_round(training, samples) for samples in (50, 100, 200)] == [5, 10, 20]


def test_a_generator_that_is_moved_from_stream_to_stream_draws_what_each_would() -> None:
    streams = Streams(5)
    for peer in (3, 1, 3):
        expected = philox(7, peer, "minibatch", 5)
        stream = streams.of(key(7, peer, "minibatch"))
        assert np.array_equal(stream.permutation(9), expected.permutation(9))
        assert stream.random() == expected.random()
        assert stream.integers(9, dtype=np.uint32) == expected.integers(9, dtype=np.uint32)
