"""A bundled set as a task: every peer gets its part of the rows, and one common test set is in no peer's data."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from p2pfl.failure import Failure
from p2pfl.learning.data.bundled import Dataset
from p2pfl.learning.data.partition import Rows, divide, draw, parse
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.settings import DataSection, TaskSection

if TYPE_CHECKING:
    import torch

Models = dict[str, "Callable[[], torch.nn.Module]"]


def divided(dataset: Dataset, models: Models, section: TaskSection, data: DataSection, seed: int) -> Task:
    """`models` by name; the first is meant where the section names none."""
    partition = parse(data.partition)
    inputs, targets = dataset.train

    @functools.lru_cache(maxsize=1)  # all peers of a run ask for the same count
    def parts(peers: int) -> list[Rows]:
        if data.samples_per_peer is None:
            return divide(partition, targets, peers, seed)
        return draw(partition, targets, peers, data.samples_per_peer, seed)

    def of_peer(peer: TaskPeer) -> tuple[Any, Any]:
        rows = parts(peer.count)[peer.index]
        return (inputs[rows], targets[rows]), dataset.test

    return Task(
        model=_chosen(models, section),
        data=of_peer,
        common_test=lambda: dataset.test,
        labels=dataset.labels,
        name=section.name.replace("-", "_"),
    )


def _chosen(models: Models, section: TaskSection) -> "Callable[[], torch.nn.Module]":
    name = section.model or next(iter(models))
    if name not in models:
        raise Failure("unknown_model", f"The task {section.name!r} has no model {name!r}.", f"It has {', '.join(models)}.")
    return models[name]
