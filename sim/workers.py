"""Threads that compute blocks of peers side by side, one core each.

torch's own threads meet after every operation and spin while they wait: on a busy machine of two cores that made a step up to
50 times slower (benchmarks/batched_scale.py). Blocks meet once a round.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

import torch

from p2pfl.learning.parameters import Model

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Workers(AbstractContextManager["Workers"]):
    """One thread a model: each needs a module of its own, because `functional_call` puts its tensors into the module."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.count = count = len(models)
        self.models = models
        self._models: SimpleQueue[Model] = SimpleQueue()
        for model in models:
            self._models.put(model)
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) if count > 1 else None

    def each(self, work: Callable[[Model, Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
        """What `work` gives for every item, in their order. After an exception no more work is begun."""
        if self._pool is None or len(items) == 1:
            return [self._with_model(work, item) for item in items]
        futures = [self._pool.submit(self._with_model, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def _with_model(self, work: Callable[[Model, Item], Outcome], item: Item) -> Outcome:
        model = self._models.get()
        try:
            return work(model, item)
        finally:
            self._models.put(model)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads_before)
