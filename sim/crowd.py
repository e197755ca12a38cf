"""All peers of a batched run as one array per layer: their data, their models, and what a round does to them.

Peers stand in `order`, those with the most local steps first, so that whoever still trains is always among the first of its
block. A place is where a peer stands.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning import minibatch
from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.evaluation import measure, measure_together
from p2pfl.learning.learner import data_of, label_counts
from p2pfl.learning.local import Stacks, descend, descend_together, no_momentum, record_familiar, why_not_together
from p2pfl.learning.parameters import Model
from p2pfl.learning.streams import Streams, key, torch_seed
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.settings import TrainingSection
from p2pfl.task_file import blamed
from sim.memory import at_a_time, free_bytes, need
from sim.mixing import diverged, tiles
from sim.workers import Workers

Places = NDArray[np.int64]

# Peers of one vmap call: enough to make its overhead small, few enough to stay in the last cache
# (benchmarks/batched_engine.py); below the least, a second thread costs more than it saves.
BLOCK, BLOCK_MIN = 512, 64

# Peers that are measured at once: a bound on the memory of their outputs.
MEASURED = 64


class Crowd:
    """Has the models in `stacks`, [peers, *shape] per tensor of the vector."""

    def __init__(
        self,
        model: Model,
        peers: int,
        training: TrainingSection,
        seed: int,
        rounds: int,
        workers: Workers,
        on_note: Callable[[str], None],
    ) -> None:
        """Raises `Failure`, with the numbers, where memory can't hold so many peers."""
        self._model, self._training, self._seed, self._workers = model, training, seed, workers
        self._device = model.first.device
        self._block = self._block_that_fits(peers, rounds, on_note)
        train, tests = _data(model, peers)
        steps = [minibatch.steps_per_round(training, len(targets)) for _, targets in train]
        self.order = sorted(range(peers), key=lambda index: -steps[index])
        self._indices = np.array(self.order)
        self._steps = np.array(steps)[self._indices]
        self._tests = [tests[index] for index in self.order] if tests else []
        self._counts = [label_counts(targets, len(model.task.labels)) for _, targets in train]
        self._samples = [len(train[index][1]) for index in self.order]
        self._keys = [key(seed, index, minibatch.PURPOSE) for index in self.order]
        self._starts = np.array([0, *accumulate(self._samples)])
        self._data = _joined(train, self.order, self._device)
        self.stacks = _first_stacks(model, self.order, training)
        self._momenta = {name: torch.zeros_like(stack) for name, stack in self.stacks.items()} if training.momentum else {}
        self._local = _stacked(model.local, peers)
        with blamed("the first step of training"):
            self.fallback_reason = why_not_together(model, self._first_batch(), training)

    def train(self, round: int, up: NDArray[np.bool_], max_abs: float) -> None:
        """The local steps of this round of those who are up ([peers] by index). Raises `Failure` when one gets a parameter that
        its neighbors would refuse."""
        places = np.flatnonzero(up[self._indices] & (self._steps > 0))
        if self.fallback_reason is not None:
            for place in places.tolist():
                self._train_alone(place, round)
                own = np.array([place])
                self._check(_taken(self.stacks, own), own, round, max_abs)
            return
        blocks = max(1, min(self._workers.count, len(places) // BLOCK_MIN), math.ceil(len(places) / self._block))
        if blocks > 1:
            blocks = math.ceil(blocks / self._workers.count) * self._workers.count  # so that all threads end together
        if len(places):
            self._workers.each(
                lambda model, block: self._train_block(model, block, round, max_abs), np.array_split(places, blocks)
            )
            for model in self._workers.models:
                record_familiar(model)

    def measured(self, up: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Loss and accuracy of every peer, each [peers] by index; NaN of those who are away."""
        places = np.flatnonzero(up[self._indices])
        common = self._model.common_test()
        found: dict[str, NDArray[np.float64]] = {}
        if common is not None and self._model.task.evaluate is None and self.fallback_reason is None:
            values = {**self.stacks, **self._local}
            test = self._there(common)
            blocks = [places[start : start + MEASURED] for start in range(0, len(places), MEASURED)]

            def work(model: Model, block: Places) -> dict[str, torch.Tensor]:
                return measure_together(model, _taken(values, block), test)

            for block, outcome in zip(blocks, self._workers.each(work, blocks), strict=True):
                for name, column in outcome.items():
                    self._put_column(found, name, block, column.cpu().numpy())
            return found
        for place in places.tolist():
            with blamed(f"evaluating peer {self.order[place]}"):
                test = self._there(self._test(place))
                row = measure(self._model, self._vector(self.stacks, place), _row(self._local, place), test)
            for name, value in row.items():
                self._put_column(found, name, np.array([place]), np.array([value]))
        return found

    def consensus_distance(self, up: NDArray[np.bool_]) -> float:
        """sqrt(mean_i ||x_i - mean x||^2) over those who are up; NaN where nobody is."""
        places = torch.from_numpy(np.flatnonzero(up[self._indices])).to(self._device)
        if not len(places):
            return math.nan

        def squares(model: Model, tile: torch.Tensor) -> float:
            rows = tile if len(places) == len(tile) else tile[places]
            apart = rows - rows[0]  # so that equal peers are exactly 0 apart
            apart -= apart.mean(dim=0)
            return float(apart.square_().sum())

        return math.sqrt(sum(self._workers.each(squares, list(tiles(self.stacks)))) / len(places))

    def parameters(self) -> NDArray[np.float32]:
        """[peers, D], by index."""
        found = np.empty((len(self.order), self._model.layout.dimension), dtype=np.float32)
        for slot in self._model.layout.slots:
            rows = self.stacks[slot.name].reshape(len(self.order), -1).cpu().numpy()
            found[self.order, slot.offset : slot.offset + slot.size] = rows
        return found

    def data_counts(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(label counts [peers, classes], samples [peers]), by index."""
        counts = np.zeros((len(self.order), max(map(len, self._counts))))
        for row, count in zip(counts, self._counts, strict=True):
            row[: len(count)] = count
        samples = np.empty(len(self.order), dtype=np.int64)
        samples[self.order] = self._samples
        return counts, samples

    def steps(self) -> Places:
        """Local steps of every peer in a round, [peers] by index."""
        steps: Places = np.empty_like(self._steps)
        steps[self._indices] = self._steps
        return steps

    def state(self) -> dict[str, torch.Tensor]:
        """All that changes, to be saved; and to be written into, to go on from what was saved."""
        groups = {"stack": self.stacks, "momentum": self._momenta, "local": self._local}
        return {f"{group}.{name}": stack for group, stacks in groups.items() for name, stack in stacks.items()}

    def _block_that_fits(self, peers: int, rounds: int, on_note: Callable[[str], None]) -> int:
        first, _ = _data_of(self._model.task, TaskPeer(0, peers))
        with blamed("the first step of training"):
            wanted = need(self._model, first, rounds, self._training)
        free = free_bytes(self._device)
        block = at_a_time(peers, wanted, BLOCK, self._workers.count, free)
        if block < min(BLOCK, peers):
            on_note(
                f"{block:,} peers at a time, because {free / 1e9:,.1f} GB are free and every peer that is computed takes "
                f"{wanted.passing / 1e6:,.1f} MB"
            )
        return block

    def _train_block(self, model: Model, places: Places, round: int, max_abs: float) -> None:
        groups = self.stacks, self._momenta, self._local
        stacks, momenta, local = (_taken(group, places) for group in groups)
        steps = self._steps[places].tolist()
        batches = self._batches(places, round, steps)
        descend_together(model, stacks, momenta, local, batches, steps, self._training, records=False)
        self._check(stacks, places, round, max_abs)
        if not _is_run(places):
            where = torch.from_numpy(places).to(self._device)
            for group, changed in zip(groups, (stacks, momenta, local), strict=True):
                for name, stack in changed.items():
                    group[name].index_copy_(0, where, stack)

    def _train_alone(self, place: int, round: int) -> None:
        layout, index, steps = self._model.layout, self.order[place], int(self._steps[place])
        batches = self._batches(np.array([place]), round, [steps])
        own = ((inputs[0], targets[0]) for inputs, targets in (batches(1, step) for step in range(steps)))
        momentum = self._vector(self._momenta, place) if self._momenta else no_momentum(self._model, self._training)
        chance = torch_seed(self._seed, index, "training", round)
        vector, local = self._vector(self.stacks, place), _row(self._local, place)
        with blamed(f"training peer {index}"):
            end = descend(self._model, vector, momentum, local, own, self._training, chance)
        _put(self.stacks, place, layout.unflatten(end.vector))
        _put(self._local, place, end.local)
        if self._momenta:
            _put(self._momenta, place, layout.unflatten(end.momentum))

    def _check(self, stacks: Stacks, places: Places, round: int, max_abs: float) -> None:
        """Refuse to go on with numbers that a peer's neighbors would refuse. stacks: of these places."""
        for stack in stacks.values():
            low, high = (float(bound) for bound in stack.aminmax())
            if not (-max_abs <= low and high <= max_abs):
                flat = stack.reshape(len(places), -1).abs().amax(dim=1)
                row = int((~(flat <= max_abs)).nonzero()[0, 0])
                why = f"a parameter of {float(flat[row]):g} is over max_abs = {max_abs:g}"
                raise diverged(self.order[places[row]], round, why)

    def _first_batch(self) -> Pair:
        size = min(self._training.batch_size, self._samples[0])
        inputs, targets = self._data
        return inputs[:size], targets[:size]

    def _batches(self, places: Places, round: int, steps: Sequence[int]) -> Callable[[int, int], Pair]:
        """(peers, step) -> the minibatches of the first so many of `places`, gathered from everybody's rows at once."""
        size = self._training.batch_size
        streams = Streams(round)
        drawn = np.zeros((len(places), max(steps) * size), dtype=np.int64)
        for row, place, own in zip(drawn, places.tolist(), steps, strict=True):
            count = own * size
            row[:count] = minibatch.drawn(streams.of(self._keys[place]), self._samples[place], count)
        drawn += self._starts[places, None]
        rows = torch.from_numpy(drawn).view(len(places), -1, size).to(self._device)
        inputs, targets = self._data

        def batch(peers: int, step: int) -> Pair:
            chosen = rows[:peers, step].reshape(-1)  # index_select copies whole rows, several times as fast as [peers, batch]
            return _gathered(inputs, chosen, peers), _gathered(targets, chosen, peers)

        return batch

    def _there(self, pair: Pair) -> Pair:
        """The same where the models are."""
        return pair[0].to(self._device), pair[1].to(self._device)

    def _test(self, place: int) -> Pair:
        return self._model.common_test() or self._tests[place]

    def _vector(self, stacks: Stacks, place: int) -> torch.Tensor:
        return self._model.layout.flatten(_row(stacks, place))

    def _put_column(self, found: dict[str, NDArray[np.float64]], name: str, places: Places, column: NDArray[Any]) -> None:
        row = found.setdefault(name, np.full(len(self.order), np.nan))
        row[self._indices[places]] = column


def _data(model: Model, peers: int) -> tuple[list[Pair], list[Pair]]:
    """(training sets, test sets) of all peers; no test sets where there is a common one."""
    train, tests = [], []
    for index in range(peers):
        own, test = _data_of(model.task, TaskPeer(index, peers))
        train.append(own)
        if model.common_test() is None:
            tests.append(test)
    return train, tests


def _data_of(task: Task, peer: TaskPeer) -> tuple[Pair, Pair]:
    with blamed(f"the data of peer {peer.index}"):
        return data_of(task, peer)


def _joined(sets: list[Pair], order: Sequence[int], device: torch.device) -> Pair:
    """All rows one below the other, in this order. Empties `sets`, so that there are never two copies of everything."""
    rows = sum(len(targets) for _, targets in sets)
    joined = tuple(torch.empty((rows, *part.shape[1:]), dtype=part.dtype, device=device) for part in sets[order[0]])
    start = 0
    for index in order:
        own = sets[index]
        for whole, part in zip(joined, own, strict=True):
            if part.shape[1:] != whole.shape[1:] or part.dtype != whole.dtype:
                raise Failure(
                    "bad_data",
                    f"The rows of peer {index} are {part.dtype} {list(part.shape[1:])}, those of peer {order[0]} "
                    f"{whole.dtype} {list(whole.shape[1:])}.",
                    "Give all peers rows of one shape and type.",
                )
            whole[start : start + len(part)] = part
        start += len(own[1])
        sets[index] = own[0][:0], own[1][:0]
    return joined[0], joined[1]


def _gathered(data: torch.Tensor, rows: torch.Tensor, peers: int) -> torch.Tensor:
    return data.index_select(0, rows).view(peers, -1, *data.shape[1:])


def _first_stacks(model: Model, order: Sequence[int], training: TrainingSection) -> Stacks:
    if training.initial == "shared":
        return _stacked(model.layout.unflatten(model.first), len(order))
    vectors = torch.stack([model.first_of(index, training.initial) for index in order]).to(model.first.device)
    return {name: stack.contiguous() for name, stack in model.layout.unflatten(vectors).items()}


def _stacked(tensors: Mapping[str, torch.Tensor], peers: int) -> Stacks:
    return {name: tensor.expand(peers, *tensor.shape).contiguous() for name, tensor in tensors.items()}


def _is_run(places: Places) -> bool:
    """Whether these places, which ascend, leave none out."""
    return int(places[-1] - places[0]) + 1 == len(places)


def _taken(stacks: Mapping[str, torch.Tensor], places: Places) -> Stacks:
    """Of these places: views where they are all side by side, else copies."""
    if _is_run(places):
        return {name: stack[int(places[0]) : int(places[-1]) + 1] for name, stack in stacks.items()}
    return {name: stack[torch.from_numpy(places).to(stack.device)] for name, stack in stacks.items()}


def _row(stacks: Mapping[str, torch.Tensor], place: int) -> Stacks:
    return {name: stack[place] for name, stack in stacks.items()}


def _put(stacks: Stacks, place: int, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        stacks[name][place] = tensor
