"""The two data sets that come with the package; see ATTRIBUTION.md beside the files. Nothing is downloaded.

In each, every fifth row of a class, in the file's order, belongs to the common test set, whatever the seed.
"""

import functools
import importlib.resources
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TEST_EVERY = 5


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows to be divided among peers, and the test rows that no peer has. Inputs float32 [n, features], targets int64 [n]."""

    train: tuple[NDArray[np.float32], NDArray[np.int64]]
    test: tuple[NDArray[np.float32], NDArray[np.int64]]
    labels: tuple[str, ...]


@functools.cache
def digits() -> Dataset:
    """1,797 handwritten digits of 8 by 8 pixels, each the count 0..16 of its inked dots, divided by 16."""
    inputs, targets = _read("digits.npz")
    return _split(inputs.astype(np.float32) / np.float32(16), targets, tuple("0123456789"))


@functools.cache
def breast_cancer() -> Dataset:
    """569 tumours, 30 measurements of cell nuclei each. Every measurement is standardised to mean 0 and standard deviation 1
    over the training rows of all peers together."""
    inputs, targets = _read("breast_cancer.npz")
    train = inputs[~_is_test(targets)].astype(np.float64)
    standardised = (inputs - train.mean(axis=0)) / train.std(axis=0)
    return _split(standardised.astype(np.float32), targets, ("malignant", "benign"))


def _read(name: str) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    content = (importlib.resources.files(__package__) / name).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return arrays["inputs"], arrays["targets"].astype(np.int64)


def _split(inputs: NDArray[np.float32], targets: NDArray[np.int64], labels: tuple[str, ...]) -> Dataset:
    test = _is_test(targets)
    return Dataset((inputs[~test], targets[~test]), (inputs[test], targets[test]), labels)


def _is_test(targets: NDArray[np.int64]) -> NDArray[np.bool_]:
    test = np.zeros(len(targets), dtype=np.bool_)
    for label in np.unique(targets):
        test[np.flatnonzero(targets == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    return test
