"""What is learned: a model, data and a loss, in one small file of the user's.

    import torch
    from p2pfl import Task

    def data(peer):                      # peer.index, peer.count, peer.directory
        return (x_train, y_train), (x_test, y_test)

    task = Task(model=lambda: torch.nn.Linear(64, 10), data=data)

This module imports neither torch nor numpy, so that naming a task costs nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class TaskPeer:
    """Whose data is asked for: the `index`-th of `count` peers, whose own files are in `directory` (None in a simulation)."""

    index: int
    count: int
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A learning task. Only `model` and `data` are required.

    model: makes the module; called once per process. Its first parameters come from the run's seed, not from here.
    data: (train, test) of one peer; each an (inputs, targets) pair of arrays or tensors, or a map-style torch Dataset.
    loss: (outputs, targets) -> scalar mean over the batch; cross-entropy where None.
    train_step: (model, inputs, targets) -> scalar loss to differentiate, in place of loss(model(inputs), targets).
    evaluate: (model, inputs, targets) -> {"loss": ..., "accuracy": ...}; loss and arg-max accuracy where None.
    common_test: one test set that is in no peer's data; measured instead of data's own where given.
    labels: names of the classes, in order; part of the schema.
    """

    model: "Callable[[], torch.nn.Module]"
    data: Callable[[TaskPeer], tuple[Any, Any]]
    loss: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None" = None
    train_step: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor] | None" = None
    evaluate: "Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], dict[str, float]] | None" = None
    common_test: Callable[[], Any] | None = None
    labels: Sequence[str] = ()
    name: str = "task"
