"""How good a vector is on a test set: mean loss and the share of right answers."""

from collections.abc import Mapping

import torch
from torch.func import functional_call, vmap

from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import Task

ROWS = 4096
"""Test rows of one forward pass, so that a large test set does not need memory of its size again."""


def measure(model: Model, vector: torch.Tensor, local: Mapping[str, torch.Tensor], test: Pair) -> dict[str, float]:
    """{"loss", "accuracy"} of the module with this vector in evaluation mode; no accuracy where targets are no classes.

    A task's own `evaluate` gets the whole test set at once, because not every measure is a mean over rows.
    """
    model.bind(vector, local)
    model.module.eval()
    inputs, targets = test
    with torch.no_grad():
        if model.task.evaluate is not None:
            return {name: float(value) for name, value in model.task.evaluate(model.module, inputs, targets).items()}
        sums: dict[str, float] = {}
        for x, y in zip(torch.split(inputs, ROWS), torch.split(targets, ROWS), strict=True):
            for name, value in measures(model.task, model.module(x), y).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(y) / len(targets)
    return sums


def measure_together(model: Model, stacks: Mapping[str, torch.Tensor], test: Pair) -> dict[str, torch.Tensor]:
    """The same for many peers on one test set, each [peers]. `stacks` holds every tensor and buffer as [peers, *shape]; for a
    task without an `evaluate` of its own."""
    model.module.eval()

    def outcome(values: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return measures(model.task, functional_call(model.module, values, (x,)), y)

    inputs, targets = test
    sums: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for x, y in zip(torch.split(inputs, ROWS), torch.split(targets, ROWS), strict=True):
            for name, value in vmap(outcome, in_dims=(0, None, None))(dict(stacks), x, y).items():
                sums[name] = sums.get(name, torch.zeros(())) + value * (len(y) / len(targets))
    return sums


def measures(task: Task, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Means over the rows of one batch, as scalars."""
    found = {"loss": (task.loss or torch.nn.functional.cross_entropy)(outputs, targets)}
    if not targets.is_floating_point() and outputs.ndim > targets.ndim:
        found["accuracy"] = (outputs.argmax(dim=1) == targets).float().mean()
    return found
