"""Does a task work, and what will it cost? One batch forward and backward as one peer would, before many peers start.

What makes a task useless is a `Failure` in one line. What works but is rarely meant is a remark.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from p2pfl.failure import Failure
from p2pfl.learning import minibatch
from p2pfl.learning.codec import CODECS
from p2pfl.learning.data.tensors import Pair, as_tensors
from p2pfl.learning.evaluation import measure
from p2pfl.learning.local import batch_loss, why_not_together
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.settings import DataSection, TaskSection, TrainingSection
from p2pfl.task_file import blamed, load

IGNORED = -100  # the target that torch's cross-entropy leaves out


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One named tensor of the model. Averaged ones are on the wire; frozen ones too, though no step moves them."""

    name: str
    shape: tuple[int, ...]
    role: str  # "averaged", "frozen", or "kept local"


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found. `update_bytes` by codec; `test_set` is "common" or "own"; `why_not_together` is None where one
    process can train many peers as one array (the batched engine), else the reason."""

    task: str
    parameters: int  # values that are learned
    dimension: int  # values on the wire
    update_bytes: dict[str, int]
    tensors: tuple[TensorReport, ...]
    train_samples: int
    test_samples: int
    test_set: str
    labels: tuple[str, ...]
    batch_loss: float
    metrics: dict[str, float]  # of the first model on the test set
    why_not_together: str | None
    remarks: tuple[str, ...]


def check(
    specification: str,
    *,
    model: str | None = None,
    index: int = 0,
    peers: int = 8,
    directory: Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> Report:
    """The task "FILE.py:NAME", or a bundled one with its `model`, as seen by peer `index` of `peers` with this directory."""
    task = resolve(TaskSection(name=specification, model=model), DataSection(), seed, load)
    remarks: list[str] = []
    with _remarked(remarks):
        made = _made(task, seed)
        train, test, test_set = _data(task, TaskPeer(index, peers, directory), remarks)
        batch = _batch(train, batch_size, seed)
        if task.loss is None and task.train_step is None:
            _fits_cross_entropy(task, made, train, test)
        loss = _descended(task, made, batch, remarks)
        metrics = _evaluated(made, test, remarks)
        with blamed("training"):
            reason = why_not_together(made, batch, TrainingSection(batch_size=batch_size))
    return Report(
        task=specification,
        parameters=sum(slot.size for slot in made.layout.slots if slot.trainable),
        dimension=made.layout.dimension,
        update_bytes={kind: codec().payload_bytes(made.layout.dimension) for kind, codec in CODECS.items()},
        tensors=_tensors(made),
        train_samples=len(train[1]),
        test_samples=len(test[1]),
        test_set=test_set,
        labels=tuple(task.labels),
        batch_loss=loss,
        metrics=metrics,
        why_not_together=reason,
        remarks=tuple(dict.fromkeys(remarks)),
    )


def _made(task: Task, seed: int) -> Model:
    with blamed("model()"):
        module = task.model()
    if not isinstance(module, torch.nn.Module):
        raise _bad(f"model() returned a {type(module).__name__}", "Return a torch.nn.Module.")
    with blamed("model()"):
        return Model(task, seed)


def _data(task: Task, peer: TaskPeer, remarks: list[str]) -> tuple[Pair, Pair, str]:
    """(train, the test set that is measured, "common" or "own")."""
    train, test = _asked(task, peer)
    if not _same(train, _asked(task, peer)[0]):
        remarks.append("data(peer) gave other training rows when asked again: a restarted peer will train on others; seed it")
    if peer.count > 1 and peer.directory is None:
        neighbor = TaskPeer((peer.index + 1) % peer.count, peer.count)
        if _same(train, _asked(task, neighbor)[0]):
            remarks.append(f"peers {peer.index} and {neighbor.index} have the same training rows: use peer.index")
    test_set = "own"
    if task.common_test is not None:
        with blamed("common_test()"):
            test, test_set = as_tensors(task.common_test(), "the common test set"), "common"
    if test[0].shape[1:] != train[0].shape[1:]:
        shapes = f"{list(train[0].shape[1:])} and {list(test[0].shape[1:])}"
        raise _bad(f"a training row and a test row have the shapes {shapes}", "Prepare both in the same way.")
    seen = {row.numpy().tobytes() for row in train[0]}
    if shared := sum(row.numpy().tobytes() in seen for row in test[0]):
        remarks.append(f"{shared} of {len(test[0])} test rows are also training rows: accuracy will flatter")
    return train, test, test_set


def _asked(task: Task, peer: TaskPeer) -> tuple[Pair, Pair]:
    what = f"data(peer {peer.index} of {peer.count})"
    hint = "Mend it there and check again." if peer.directory else "Mend it there; if it needs peer.directory, give --dir."
    with blamed(what, hint):
        answer = task.data(peer)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise _bad(f"{what} returned a {type(answer).__name__}", "Return (train, test), each a pair (inputs, targets).")
        return as_tensors(answer[0], f"the training set of {what}"), as_tensors(answer[1], f"the test set of {what}")


def _batch(train: Pair, batch_size: int, seed: int) -> Pair:
    rows = torch.from_numpy(minibatch.indices(seed, 0, 0, len(train[1]), batch_size, 1)[0])
    return train[0][rows], train[1][rows]


def _descended(task: Task, model: Model, batch: Pair, remarks: list[str]) -> float:
    """The loss of the first model on one batch, after it was seen to have a gradient."""
    model.bind(model.first.clone(), {name: tensor.clone() for name, tensor in model.local.items()})
    model.module.train()
    with blamed("the model or its loss" if task.train_step is None else "train_step"):
        loss: Any = batch_loss(task, model.module, *batch)
    if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
        found = f"of shape {list(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise _bad(f"the loss is {found}", "Return the mean over the batch, a scalar tensor.")
    if not bool(torch.isfinite(loss)):
        raise _bad(f"the loss of the first batch is {float(loss)}", "Scale the inputs, or mend the loss.")
    if not loss.requires_grad:
        raise _bad("the loss does not depend on the parameters", "Leave out .detach(), .item() and torch.no_grad().")
    with blamed("the gradient"):
        gradients = torch.autograd.grad(loss, model.trainable, allow_unused=True)
    names = [slot.name for slot in model.layout.slots if slot.trainable]
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is None:
            remarks.append(f"{name} has no part in the loss: it is sent and never learned")
        elif not bool(torch.isfinite(gradient).all()):
            raise _bad(f"the gradient of {name} is not finite", "Scale the inputs, or mend the loss.")
    return float(loss.detach())


def _fits_cross_entropy(task: Task, model: Model, train: Pair, test: Pair) -> None:
    """Refuses what cross-entropy would misread, or would refuse in words of its own."""
    inputs, targets = train[0][:2], train[1][:2]
    model.module.eval()  # a batch this small must not meet BatchNorm
    with blamed("the model"), torch.no_grad():
        outputs: Any = model.module(inputs)
    shape = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    if not isinstance(outputs, torch.Tensor) or outputs.ndim < 2 or len(outputs) != len(targets):
        raise _bad(f"the model's output is {shape} for {len(targets)} rows", "Cross-entropy needs [rows, classes].")
    if task.labels and outputs.shape[1] != len(task.labels):
        raise _bad(f"the model has {outputs.shape[1]} outputs for {len(task.labels)} labels", "Make them equal.")
    if targets.is_floating_point():
        if targets.shape != outputs.shape:
            raise _bad("the targets are real numbers", "For a regression give loss=torch.nn.functional.mse_loss.")
        return
    if targets.shape != outputs[:, 0].shape:
        raise _bad(f"the targets are {list(targets.shape)} for outputs {shape}", "Give one class number for every row.")
    for which, (_, numbers) in (("training", train), ("test", test)):
        classes = numbers[numbers != IGNORED]
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < outputs.shape[1]:
            span = f"{int(classes.min())} to {int(classes.max())}"
            raise _bad(
                f"the {which} targets go from {span}, and the model has {outputs.shape[1]} outputs",
                f"Number the classes from 0, and give the model {int(classes.max()) + 1} or more outputs.",
            )


def _evaluated(model: Model, test: Pair, remarks: list[str]) -> dict[str, float]:
    with blamed("the evaluation"):
        metrics = measure(model, model.first.clone(), {name: tensor.clone() for name, tensor in model.local.items()}, test)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _bad(f"the evaluation's {name} is {value}", "Mend it, or the test set.")
    missing = [name for name in ("loss", "accuracy") if name not in metrics]
    if missing:
        remarks.append(f"the evaluation gives no {' and no '.join(missing)}: curves of it will be empty")
    return metrics


def _tensors(model: Model) -> tuple[TensorReport, ...]:
    frozen = {name for name, parameter in model.module.named_parameters() if not parameter.requires_grad}
    shared = (TensorReport(s.name, s.shape, "frozen" if s.name in frozen else "averaged") for s in model.layout.slots)
    local = (TensorReport(name, tuple(tensor.shape), "kept local") for name, tensor in model.local.items())
    return (*shared, *local)


def _same(one: Pair, other: Pair) -> bool:
    return all(a.shape == b.shape and bool((a == b).all()) for a, b in zip(one, other, strict=True))


@contextmanager
def _remarked(remarks: list[str]) -> Iterator[None]:
    """Warnings of the libraries, such as one on shapes that broadcast, become remarks."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    remarks.extend(str(warning.message).strip().partition("\n")[0] for warning in caught)


def _bad(message: str, hint: str) -> Failure:
    return Failure("bad_task", f"{message[0].upper()}{message[1:]}.", hint)
