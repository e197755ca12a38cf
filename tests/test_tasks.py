"""The bundled tasks: what is in them, and that a wrong name is mended in one line."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from p2pfl import TaskPeer
from p2pfl.failure import Failure
from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.tasks import BUNDLED, resolve
from p2pfl.learning.tasks.synthetic import clouds
from p2pfl.settings import DataSection, TaskSection

MODELS = [
    ("digits", "mlp", 64 * 64 + 64 + 64 * 10 + 10),
    ("digits", "softmax", 64 * 10 + 10),
    ("digits", "cnn", (9 * 8 + 8) + (9 * 8 * 16 + 16) + (64 * 10 + 10)),
    ("breast_cancer", "mlp", 30 * 32 + 32 + 32 * 2 + 2),
    ("breast_cancer", "softmax", 30 * 2 + 2),
    ("synthetic", "mlp", 20 * 64 + 64 + 64 * 4 + 4),
    ("synthetic", "softmax", 20 * 4 + 4),
]


def task(name="digits", seed=7, partition="dirichlet:0.5", samples_per_peer=None, **arguments):
    return resolve(
        TaskSection(name=name, **arguments), DataSection(partition=partition, samples_per_peer=samples_per_peer), seed
    )


@pytest.mark.parametrize(("name", "model", "parameters"), MODELS)
def test_every_bundled_model_takes_its_data_and_gives_one_output_a_class(name, model, parameters):
    bundled = task(name, model=model)
    inputs, targets = as_tensors(bundled.common_test())
    module = bundled.model()
    assert module(inputs[:3]).shape == (3, len(bundled.labels))
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert set(targets.tolist()) == set(range(len(bundled.labels)))


@pytest.mark.parametrize("name", BUNDLED)
def test_the_common_test_set_is_in_no_peers_data(name):
    bundled = task(name)
    tests = {row.tobytes() for row in bundled.common_test()[0]}
    rows = [bundled.data(TaskPeer(index, 6))[0][0] for index in range(6)]
    assert not any(row.tobytes() in tests for part in rows for row in part)


@pytest.mark.parametrize(
    ("name", "train", "test"), [("digits", 1442, 355), ("breast_cancer", 456, 113), ("synthetic", 2000, 500)]
)
def test_the_peers_together_have_every_training_row(name, train, test):
    bundled = task(name)
    assert sum(len(bundled.data(TaskPeer(index, 6))[0][1]) for index in range(6)) == train
    assert len(bundled.common_test()[1]) == test


def test_the_digits_test_set_is_the_same_for_every_seed_and_has_a_fifth_of_each_digit():
    one, other = task(seed=1).common_test(), task(seed=2).common_test()
    assert np.array_equal(one[0], other[0])
    assert np.bincount(one[1]).tolist() == [n // 5 for n in (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)]


def test_a_peer_gets_the_same_rows_when_it_asks_again_and_whoever_asked_before():
    first = task().data(TaskPeer(3, 8))
    bundled = task()
    bundled.data(TaskPeer(0, 4))
    again = bundled.data(TaskPeer(3, 8))
    assert np.array_equal(first[0][0], again[0][0]) and np.array_equal(first[0][1], again[0][1])


def test_breast_cancer_is_standardised_over_the_training_rows():
    inputs = np.concatenate([task("breast_cancer", partition="iid").data(TaskPeer(i, 3))[0][0] for i in range(3)])
    assert np.abs(inputs.mean(axis=0)).max() < 1e-5
    assert np.abs(inputs.std(axis=0) - 1).max() < 1e-5


def test_a_thousand_peers_can_share_the_digits():
    bundled = task(partition="dirichlet:0.3", samples_per_peer=32)
    assert all(bundled.data(TaskPeer(index, 1000))[0][0].shape == (32, 64) for index in range(1000))


def test_two_synthetic_classes_can_be_told_apart_as_well_as_theory_says_and_no_better():
    # Two unit normal clouds at distance d: the best rule is the nearer center, right with probability Phi(d / 2).
    made = clouds(features=400, samples=40_000, classes=2, seed=3)
    inputs, targets = made.train
    centers = np.stack([inputs[targets == label].mean(axis=0) for label in (0, 1)])
    nearest = ((made.test[0][:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    distance = np.linalg.norm(centers[1] - centers[0])
    best = 0.5 * (1 + math.erf(distance / 2 / math.sqrt(2)))
    assert distance == pytest.approx(4.0, rel=0.1)
    assert (nearest == made.test[1]).mean() == pytest.approx(best, abs=4 * math.sqrt(best * (1 - best) / 10_000))


def test_synthetic_makes_models_of_16_megabytes():
    module = task("synthetic", features=62_500, samples=32, classes=2).model()
    assert sum(p.numel() for p in module.parameters()) * 4 == pytest.approx(16e6, rel=0.01)


def test_softmax_learns_most_of_the_digits():
    bundled = task(model="softmax", partition="iid")
    inputs, targets = as_tensors(bundled.data(TaskPeer(0, 1))[0])
    torch.manual_seed(0)
    module = bundled.model()
    for _ in range(100):
        grads = torch.autograd.grad(torch.nn.functional.cross_entropy(module(inputs), targets), list(module.parameters()))
        with torch.no_grad():
            for parameter, grad in zip(module.parameters(), grads, strict=True):
                parameter -= 1.0 * grad
    tests, answers = as_tensors(bundled.common_test())
    assert (module(tests).argmax(dim=1) == answers).float().mean() > 0.93


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "digit"}, "Did you mean 'digits'"),
        ({"name": "mnist"}, "FILE.py:NAME"),
        ({"name": "digits", "model": "resnet"}, "It has mlp, softmax, cnn"),
        ({"name": "digits", "features": 3}, "Leave out task.features"),
        ({"name": "my.py:task"}, "only bundled"),
    ],
)
def test_a_wrong_task_is_one_line_that_says_how_to_mend_it(arguments, says):
    with pytest.raises(Failure, match=says) as failure:
        task(**arguments)
    assert "\n" not in str(failure.value)


def test_hyphens_in_a_name_are_underscores():
    assert task("breast-cancer").name == "breast_cancer"


def test_naming_a_task_imports_no_torch():
    code = (
        "import sys; from p2pfl.learning.tasks import resolve; from p2pfl.settings import DataSection, TaskSection;"
        "resolve(TaskSection(), DataSection(), 0); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
