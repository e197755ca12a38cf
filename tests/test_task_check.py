"""`p2pfl task check` finds a user's mistake in one line before any peer starts, and says what a good task costs."""

import json
import sys

import pytest

from p2pfl.__main__ import main
from p2pfl.failure import Failure
from p2pfl.task_check import check

START = """
import numpy as np
import torch
from torch import nn
from p2pfl import Task

def model():
    return nn.Linear(4, 3)

def data(peer):
    rng = np.random.default_rng(peer.index)
    x = rng.normal(size=(40, 4))
    y = np.arange(40) % 3
    return (x[:30], y[:30]), (x[30:], y[30:])

"""
GOOD = "task = Task(model=model, data=data, labels=('a', 'b', 'c'))\n"


@pytest.fixture
def checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def checked(text, **how):
        (tmp_path / "mine.py").write_text(START + text)
        return check("mine.py:task", **how)

    return checked


def test_a_good_task_is_reported_with_its_size_and_no_remark(checked):
    report = checked(GOOD)
    assert (report.parameters, report.dimension, report.update_bytes) == (15, 15, {"dense": 60, "float16": 30})
    assert (report.train_samples, report.test_samples, report.test_set) == (30, 10, "own")
    assert report.why_not_together is None
    assert report.remarks == ()
    assert report.metrics.keys() == {"loss", "accuracy"}


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "synthetic"])
def test_bundled_tasks_work_too(name):
    report = check(name)
    assert report.why_not_together is None and report.test_set == "common" and report.remarks == ()


def test_it_says_what_is_averaged_what_is_frozen_and_what_stays(checked):
    report = checked("""
def model():
    net = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2), nn.Linear(2, 3))
    net[0].requires_grad_(False)
    return net
task = Task(model=model, data=data)
""")
    roles = {tensor.name: tensor.role for tensor in report.tensors}
    assert roles["0.weight"] == roles["0.bias"] == "frozen"
    assert roles["2.weight"] == roles["1.running_mean"] == roles["1.running_var"] == "averaged"
    assert roles["1.num_batches_tracked"] == "kept local"
    # 8 + 2 frozen, 2 + 2 of BatchNorm, 6 + 3 of the last layer, 2 + 2 statistics
    assert report.dimension == 8 + 2 + 4 + 9 + 4
    assert report.parameters == 4 + 9


def test_a_model_that_cannot_be_trained_with_others_is_said_to_be_so_with_the_reason(checked):
    report = checked("""
class Odd(nn.Linear):
    def forward(self, x):
        return super().forward(x) if x.sum().item() > 0 else super().forward(2 * x)
task = Task(model=lambda: Odd(4, 3), data=data)
""")
    assert report.why_not_together


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = Task(model=lambda: None, data=data)", r"Model\(\) returned a NoneType"),
        ("task = Task(model=lambda: nn.Linear(4), data=data)", r"model\(\) raised TypeError in mine.py line \d+"),
        ("task = Task(model=nn.Identity, data=data)", "no parameters to learn"),
        ("task = Task(model=lambda: nn.Linear(4, 3).double(), data=data)", "with .float()"),
        ("task = Task(model=lambda: nn.Linear(5, 3), data=data)", "the model raised RuntimeError: mat1 and mat2"),
        ("task = Task(model=lambda: nn.Linear(4, 2), data=data)", "go from 0 to 2, and the model has 2 outputs"),
        (GOOD.replace("'c'", "'c', 'd'"), "3 outputs for 4 labels"),
        ("task = Task(model=lambda: nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), data=data)", r"needs \[rows, classes\]"),
        ("task = Task(model=model, data=lambda peer: None)", r"Return \(train, test\)"),
        ("task = Task(model=model, data=lambda peer: data(peer)[0])", "has no rows|targets|Give"),
        (
            "task = Task(model=model, data=lambda peer: 1 / 0)",
            r"data\(peer 0 of 8\) raised ZeroDivisionError in mine.py line 16",
        ),
        (
            "task = Task(model=model, data=lambda peer: peer.directory / 'x')",
            "raised TypeError in mine.py line 16: .* give --dir",
        ),
        (
            "task = Task(model=model, data=lambda peer: ((data(peer)[0][0], np.zeros(30) + 0.5), data(peer)[1]))",
            "For a regression",
        ),
        (
            "task = Task(model=model, data=lambda peer: (data(peer)[0], (np.ones((10, 5)), np.zeros(10, int))))",
            "Prepare both in the same way",
        ),
        (
            "task = Task(model=model, data=data, loss=lambda o, t: nn.functional.cross_entropy(o, t, reduction='none'))",
            "a scalar",
        ),
        ("task = Task(model=model, data=data, loss=lambda o, t: 1.0)", "The loss is a float"),
        ("task = Task(model=model, data=data, loss=lambda o, t: o.sum() * float('nan'))", "The loss of the first batch is nan"),
        ("task = Task(model=model, data=data, loss=lambda o, t: o.sum().detach())", "does not depend on the parameters"),
        (
            "task = Task(model=model, data=data, loss=lambda o, t: o.abs().sum().sub(o.abs().sum()).sqrt())",
            "gradient of .* finite",
        ),
        ("task = Task(model=model, data=data, train_step=lambda m, x, y: m.nothing)", "train_step raised AttributeError"),
        ("task = Task(model=model, data=data, evaluate=lambda m, x, y: {'loss': x.nothing})", "the evaluation raised Attrib"),
        (
            "task = Task(model=model, data=data, evaluate=lambda m, x, y: {'loss': float('nan')})",
            "The evaluation's loss is nan",
        ),
        ("task = Task(model=model, data=data, common_test=lambda: ([], []))", "the common test set has no rows"),
    ],
)
def test_a_mistake_is_one_line(checked, text, says):
    with pytest.raises(Failure, match=says) as failure:
        checked(text)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "rng = np.random.default_rng(0)\n"
            "task = Task(model=model, data=lambda peer: ((rng.normal(size=(9, 4)), np.arange(9) % 3), data(peer)[1]))",
            "other training rows when asked again",
        ),
        ("one = data(type('Peer', (), {'index': 0}))\ntask = Task(model=model, data=lambda peer: one)", "use peer.index"),
        ("task = Task(model=model, data=lambda peer: (data(peer)[0], data(peer)[0]))", "30 of 30 test rows are also training"),
        (
            "class Two(nn.Linear):\n"
            "    def __init__(self):\n"
            "        super().__init__(4, 3)\n"
            "        self.spare = nn.Parameter(torch.zeros(2))\n"
            "task = Task(model=Two, data=data)",
            "spare has no part in the loss",
        ),
        (
            "task = Task(model=lambda: nn.Linear(4, 1), data=lambda p: tuple((x, y / 2) for x, y in data(p)),"
            " loss=nn.functional.mse_loss)",
            "Using a target size",
        ),
        ("task = Task(model=model, data=data, evaluate=lambda m, x, y: {'f1': 1.0})", "no loss and no accuracy"),
    ],
)
def test_what_works_but_is_rarely_meant_is_remarked(checked, text, says):
    assert any(says in remark for remark in checked(text).remarks)


def test_a_training_step_of_ones_own_is_used(checked):
    report = checked("""
def step(model, x, y):
    return model(x).square().mean() * 0 + 7 + 0 * model.weight.sum()
task = Task(model=model, data=data, train_step=step)
""")
    assert report.batch_loss == 7


def test_the_directory_is_what_the_peer_is_given(checked, tmp_path):
    np_save = "import numpy as np\n"
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "a.csv").write_text("w,x,y,z,c\n" + "1,2,3,4,0\n5,6,7,8,2\n" * 5)
    report = checked(
        np_save
        + "from p2pfl.learning.data import from_csv\n"
        + "task = Task(model=model, data=lambda peer: (from_csv(peer.directory / 'a.csv', target='c'), data(peer)[1]))",
        directory=tmp_path / "ward",
    )
    assert report.train_samples == 10


def test_the_command_prints_a_report_or_one_object(checked, capsys):
    checked(GOOD)
    assert main(["task", "check", "mine.py:task"]) == 0
    assert "60 bytes dense, 30 bytes float16" in capsys.readouterr().out
    assert main(["task", "check", "mine.py:task", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["schema_version"], printed["status"], printed["data"]["parameters"]) == (1, "ok", 15)


def test_the_command_ends_a_mistake_with_exit_code_3_and_one_line(checked, capsys):
    checked(GOOD)
    assert main(["task", "check", "mine.py:taks"]) == 3
    assert capsys.readouterr().err == "p2pfl: mine.py: it has no 'taks'. Did you mean 'task'?\n"
    assert main(["task", "check", "mine.py:task", "--index", "8"]) == 2
