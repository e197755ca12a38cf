"""Made-up classification of any size: one round cloud of points for every class.

The clouds have standard deviation 1 in every direction, and their centers lie `DISTANCE` / sqrt(2) from the origin in random
directions, hence about `DISTANCE` from one another in many dimensions. Two classes can then be told apart with accuracy
Phi(DISTANCE / 2), however many features there are. A large `features` makes large models: `mlp` has about 64 of them each.
"""

import math

import numpy as np

from p2pfl.learning.data.bundled import Dataset
from p2pfl.learning.streams import philox
from p2pfl.learning.task import Task
from p2pfl.learning.tasks.divided import divided
from p2pfl.learning.tasks.layers import mlp, softmax
from p2pfl.settings import DataSection, TaskSection

DISTANCE = 4.0


def synthetic(section: TaskSection, data: DataSection, seed: int) -> Task:
    """`samples` (2,000) training rows of `features` (20) in `classes` (4), drawn by the run's seed; a quarter more to test."""
    features, samples, classes = section.features or 20, section.samples or 2000, section.classes or 4
    models = {"mlp": lambda: mlp(features, 64, classes), "softmax": lambda: softmax(features, classes)}
    return divided(clouds(features, samples, classes, seed), models, section, data, seed)


def clouds(features: int, samples: int, classes: int, seed: int) -> Dataset:
    rng = philox(seed, -1, "synthetic", 0)
    centers = rng.standard_normal((classes, features), dtype=np.float32)
    centers *= DISTANCE / math.sqrt(2) / np.linalg.norm(centers, axis=1, keepdims=True)
    tests = max(classes, samples // 4)
    targets = rng.permuted(np.arange(samples + tests) % classes)
    inputs = rng.standard_normal((samples + tests, features), dtype=np.float32)
    inputs += centers[targets]
    return Dataset(
        train=(inputs[:samples], targets[:samples]),
        test=(inputs[samples:], targets[samples:]),
        labels=tuple(str(label) for label in range(classes)),
    )
