"""Which rows make up each minibatch of a round, and how many minibatches a round has."""

from math import ceil

import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.streams import philox
from p2pfl.settings import TrainingSection

PURPOSE = "minibatch"
"""Of the stream that they are drawn from."""


def indices(seed: int, peer_index: int, round: int, samples: int, batch_size: int, steps: int) -> NDArray[np.int64]:
    """Rows [steps, batch_size] of this peer's training set: consecutive permutations of it, cut into full batches.

    A batch may run over the end of one permutation into the next, and fewer samples than a batch simply wrap. Batches are
    always full, so that all peers can be computed as one array.
    """
    return drawn(philox(seed, peer_index, PURPOSE, round), samples, steps * batch_size).reshape(steps, batch_size)


def drawn(stream: np.random.Generator, samples: int, count: int) -> NDArray[np.int64]:
    """The first `count` rows of consecutive permutations of a training set."""
    if count <= samples:
        return stream.permutation(samples)[:count]
    return np.concatenate([stream.permutation(samples) for _ in range(ceil(count / samples))])[:count]


def steps_per_round(training: TrainingSection, samples: int) -> int:
    """Local steps of a peer with this many training rows.

    `weighting` "samples" scales them by samples / mean_samples, at least 1 and at most weighting_cap times; with no
    mean_samples to compare with it changes nothing.
    """
    if training.local_steps is not None:
        steps = training.local_steps
    else:
        # Under "samples" an epoch is that of the mean peer: its length must not count a peer's size twice.
        rows = training.mean_samples if training.weighting == "samples" and training.mean_samples else samples
        steps = ceil(rows / training.batch_size) * (training.local_epochs or 1)
    if training.weighting == "peers" or training.mean_samples is None or steps == 0:
        return steps
    return max(1, min(round(steps * samples / training.mean_samples), int(training.weighting_cap * steps)))
