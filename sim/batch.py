"""The batched engine: all peers as one array per layer. A round is local steps under vmap and one sparse product for the mix.

It computes what `Peer` and `Learner` compute together on a network that neither loses nor delays anything: the same first
vector, minibatches, steps, codec and order of a round. What differs is the order in which float32 sums are taken.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning import minibatch
from p2pfl.learning.codec import CODECS, Unencodable, round_trip
from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.evaluation import measure, measure_together
from p2pfl.learning.learner import data_of, label_counts
from p2pfl.learning.local import Stacks, descend, descend_together, no_momentum, why_not_together
from p2pfl.learning.parameters import Model
from p2pfl.learning.streams import torch_seed
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.settings import CodecSection, LimitsSection, TrainingSection
from p2pfl.task_file import blamed

Float = NDArray[np.float64]
Weights = Sequence[Mapping[int, float]]

# Peers of one vmap call: enough to make its overhead small, few enough to stay in the last cache
# (benchmarks/batched_engine.py).
BLOCK = 512

# Peers that are measured at once: a bound on the memory of their outputs.
MEASURED = 64


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """Row 0 is before training, row r after the r-th mix; NaN where nothing was measured.

    accuracy, loss: [rounds + 1, peers]. consensus_distance: [rounds + 1], sqrt(mean_i ||x_i - mean x||^2).
    parameters: float32 [peers, D]. label_counts: [peers, classes], [peers, 0] where targets are no classes. samples: [peers].
    fallback_reason: why the peers were computed one by one, if they were.
    """

    accuracy: Float
    loss: Float
    consensus_distance: Float
    parameters: NDArray[np.float32]
    label_counts: Float
    samples: NDArray[np.int64]
    fallback_reason: str | None


def run_batch(
    task: Task,
    peers: int,
    training: TrainingSection,
    codec: CodecSection,
    limits: LimitsSection,
    weights: Weights | None,
    rounds: int,
    seed: int,
    evaluate_every: int = 1,
    on_round: Callable[[int, Float, Float, float], None] | None = None,
) -> BatchOutcome:
    """`weights[i][j]` is what peer i gives to what comes from j; None is every peer alone.

    The first and the last row and every `evaluate_every`-th are measured; `on_round(round, accuracy, loss, consensus
    distance)` hears of each. Raises `Failure` when a peer's training diverges.
    """
    model = Model(task, seed)
    crowd = _Crowd(model, peers, training, seed)
    mixing = None if weights is None else _Mixing(weights, crowd.order, codec)
    accuracy, loss = np.full((2, rounds + 1, peers), np.nan)
    consensus = np.full(rounds + 1, np.nan)
    for round in range(rounds + 1):
        if round % evaluate_every == 0 or round == rounds:
            measured = crowd.measured()
            accuracy[round, crowd.order] = measured.get("accuracy", np.nan)
            loss[round, crowd.order] = measured.get("loss", np.nan)
            consensus[round] = crowd.consensus_distance()
            if on_round is not None:
                on_round(round, accuracy[round], loss[round], float(consensus[round]))
        if round < rounds:
            crowd.train(round)
            crowd.check(round, limits.max_abs)
            if mixing is not None:
                mixing.mix(crowd.stacks, round)
    return BatchOutcome(accuracy, loss, consensus, crowd.parameters(), *crowd.data_counts(), crowd.fallback_reason)


class _Crowd:
    """All peers' data and models. They stand in `order`, those with the most local steps first, so that whoever still trains
    is always among the first of its block."""

    def __init__(self, model: Model, peers: int, training: TrainingSection, seed: int) -> None:
        self._model, self._training, self._seed = model, training, seed
        sets = [_data(model.task, TaskPeer(index, peers)) for index in range(peers)]
        steps = [minibatch.steps_per_round(training, len(targets)) for (_, targets), _ in sets]
        self.order = sorted(range(peers), key=lambda index: -steps[index])
        self._steps = [steps[index] for index in self.order]
        train = [sets[index][0] for index in self.order]
        self._tests = [sets[index][1] for index in self.order] if model.common_test() is None else []
        self._samples = [len(targets) for _, targets in train]
        self._starts = [0, *accumulate(self._samples)]
        self._counts = [label_counts(targets, len(model.task.labels)) for _, targets in train]
        self._data: Pair = torch.cat([inputs for inputs, _ in train]), torch.cat([targets for _, targets in train])
        self.stacks = _first_stacks(model, self.order, training)
        self._momenta = {name: torch.zeros_like(stack) for name, stack in self.stacks.items()} if training.momentum else {}
        self._local = _stacked(model.local, peers)
        with blamed("the first step of training"):
            self.fallback_reason = why_not_together(model, self._first_batch(), training)

    def train(self, round: int) -> None:
        """Every peer's local steps of this round."""
        if self.fallback_reason is not None:
            return self._train_one_by_one(round)
        for start in range(0, len(self.order), BLOCK):
            block = slice(start, min(start + BLOCK, len(self.order)))
            stacks, momenta, local = (_views(group, block) for group in (self.stacks, self._momenta, self._local))
            steps = self._steps[block]
            descend_together(
                self._model, stacks, momenta, local, self._batches(block, round, max(steps)), steps, self._training
            )
        return None

    def check(self, round: int, max_abs: float) -> None:
        """Refuse to go on with numbers that a peer's neighbors would refuse."""
        for stack in self.stacks.values():
            low, high = (float(bound) for bound in stack.aminmax())
            if not (-max_abs <= low and high <= max_abs):
                flat = stack.reshape(len(self.order), -1).abs().amax(dim=1)
                place = int((~(flat <= max_abs)).nonzero()[0, 0])
                raise _diverged(
                    self.order[place], round, f"a parameter of {float(flat[place]):g} is over max_abs = {max_abs:g}"
                )

    def measured(self) -> dict[str, NDArray[np.floating]]:
        """Loss and accuracy of every peer, each [peers] in `order`."""
        common = self._model.common_test()
        if common is not None and self._model.task.evaluate is None and self.fallback_reason is None:
            values = {**self.stacks, **self._local}
            blocks = [
                measure_together(self._model, _views(values, slice(start, start + MEASURED)), common)
                for start in range(0, len(self.order), MEASURED)
            ]
            return {name: torch.cat([block[name] for block in blocks]).numpy() for name in blocks[0]}
        rows = []
        for place, index in enumerate(self.order):
            with blamed(f"evaluating peer {index}"):
                test = common or self._tests[place]
                rows.append(measure(self._model, self._vector(self.stacks, place), _row(self._local, place), test))
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def consensus_distance(self) -> float:
        """sqrt(mean_i ||x_i - mean x||^2)."""
        apart = (stack - stack[0] for stack in self.stacks.values())  # so that equal peers are exactly 0 apart
        squares = sum(float((rows - rows.mean(dim=0)).square().sum()) for rows in apart)
        return math.sqrt(squares / len(self.order))

    def parameters(self) -> NDArray[np.float32]:
        """[peers, D], in the order of their indices."""
        found = np.empty((len(self.order), self._model.layout.dimension), dtype=np.float32)
        found[self.order] = self._model.layout.flatten(self.stacks).numpy()
        return found

    def data_counts(self) -> tuple[Float, NDArray[np.int64]]:
        """(label counts [peers, classes], samples [peers]), in the order of the peers' indices."""
        counts = np.zeros((len(self.order), max(map(len, self._counts))))
        samples = np.empty(len(self.order), dtype=np.int64)
        for place, index in enumerate(self.order):
            counts[index, : len(self._counts[place])] = self._counts[place]
            samples[index] = self._samples[place]
        return counts, samples

    def _train_one_by_one(self, round: int) -> None:
        layout = self._model.layout
        for place, index in enumerate(self.order):
            steps = self._steps[place]
            batches = self._batches(slice(place, place + 1), round, steps)
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

    def _first_batch(self) -> Pair:
        size = min(self._training.batch_size, self._samples[0])
        inputs, targets = self._data
        return inputs[:size], targets[:size]

    def _batches(self, places: slice, round: int, steps: int) -> Callable[[int, int], Pair]:
        """(peers, step) -> the minibatches of the first so many of `places`, gathered from everybody's rows at once."""
        size = self._training.batch_size
        drawn = np.zeros((places.stop - places.start, steps, size), dtype=np.int64)
        for row, place in zip(drawn, range(places.start, places.stop), strict=True):
            samples, own = self._samples[place], min(steps, self._steps[place])
            own_rows = minibatch.indices(self._seed, self.order[place], round, samples, size, own)
            np.add(own_rows, self._starts[place], out=row[:own])
        rows = torch.from_numpy(drawn)
        inputs, targets = self._data

        def batch(peers: int, step: int) -> Pair:
            chosen = rows[:peers, step].reshape(-1)  # index_select copies whole rows, several times as fast as [peers, batch]
            return _taken(inputs, chosen, peers), _taken(targets, chosen, peers)

        return batch

    def _vector(self, stacks: Stacks, place: int) -> torch.Tensor:
        return self._model.layout.flatten(_row(stacks, place))


class _Mixing:
    """x_i + sum_j W_ij (Q(x_j) - Q(x_i)) for all peers: one sparse matrix, whose diagonal takes what its row gives away."""

    def __init__(self, weights: Weights, order: Sequence[int], codec: CodecSection) -> None:
        self._codec, self._order = CODECS[codec.kind](), order
        place = {index: place for place, index in enumerate(order)}
        columns, values, ends = [], [], [0]
        for index in order:
            others = {place[j]: weight for j, weight in sorted(weights[index].items()) if j != index}
            columns += [*others, place[index]]
            values += [*others.values(), -sum(others.values())]
            ends.append(len(columns))
        self._columns, self._ends = torch.tensor(columns), torch.tensor(ends[:-1])
        self._values = torch.tensor(values, dtype=torch.float32)

    def mix(self, stacks: Stacks, round: int) -> None:
        """One mix, in place."""
        for stack in stacks.values():
            rows = stack.view(len(self._order), -1)
            # embedding_bag is torch's fastest sparse-times-dense product on a CPU: bag i is the weighted sum of its rows.
            rows += torch.nn.functional.embedding_bag(
                self._columns, self._sent(rows, round), self._ends, mode="sum", per_sample_weights=self._values
            )

    def _sent(self, rows: torch.Tensor, round: int) -> torch.Tensor:
        """Q of every row. The codecs work value by value, so that one layer of all peers is one vector to them."""
        try:
            return torch.from_numpy(round_trip(self._codec, rows.numpy().reshape(-1), {})).view_as(rows)
        except Unencodable as error:
            place = int(rows.abs().amax(dim=1).argmax())
            raise _diverged(self._order[place], round, str(error)) from error


def _data(task: Task, peer: TaskPeer) -> tuple[Pair, Pair]:
    with blamed(f"the data of peer {peer.index}"):
        return data_of(task, peer)


def _taken(data: torch.Tensor, rows: torch.Tensor, peers: int) -> torch.Tensor:
    return data.index_select(0, rows).view(peers, -1, *data.shape[1:])


def _diverged(peer: int, round: int, why: str) -> Failure:
    return Failure("diverged", f"Peer {peer} diverged in round {round}: {why}.", "Lower training.learning_rate.")


def _first_stacks(model: Model, order: Sequence[int], training: TrainingSection) -> Stacks:
    if training.initial == "shared":
        return _stacked(model.layout.unflatten(model.first), len(order))
    vectors = torch.stack([model.first_of(index, training.initial) for index in order])
    return {name: stack.contiguous() for name, stack in model.layout.unflatten(vectors).items()}


def _stacked(tensors: Mapping[str, torch.Tensor], peers: int) -> Stacks:
    return {name: tensor.expand(peers, *tensor.shape).contiguous() for name, tensor in tensors.items()}


def _views(stacks: Mapping[str, torch.Tensor], places: slice) -> Stacks:
    return {name: stack[places] for name, stack in stacks.items()}


def _row(stacks: Mapping[str, torch.Tensor], place: int) -> Stacks:
    return {name: stack[place] for name, stack in stacks.items()}


def _put(stacks: Stacks, place: int, tensors: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in tensors.items():
        stacks[name][place] = tensor
