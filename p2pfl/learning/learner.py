"""Carries out one `Learn`: decode what arrived, mix, evaluate, train, encode. Takes a state and returns the next one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning import minibatch
from p2pfl.learning.algorithms import ALGORITHMS
from p2pfl.learning.codec import CODECS, Bytes, Memory, Unencodable, Vector, is_within, largest_magnitude
from p2pfl.learning.data.tensors import Pair, as_tensors
from p2pfl.learning.evaluation import measure
from p2pfl.learning.local import descend, no_momentum
from p2pfl.learning.mixer import ArrivedUpdate, Folding, Handle, Mixer, Verdicts
from p2pfl.learning.parameters import Model
from p2pfl.learning.streams import torch_seed
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.settings import CodecSection, LimitsSection, TrainingSection

ALGORITHM = "dsgd"
AGGREGATOR = "mean"


class LearningFailed(Exception):
    """Nothing came of a `Learn`, and the state is what it was. The message is for people."""


class FoldedUpdate(Protocol):
    """What is read of `protocol.events.FoldedUpdate`."""

    @property
    def sender(self) -> bytes: ...


class LearnRequest(Protocol):
    """What is read of `protocol.events.Learn`, which has this shape."""

    @property
    def step(self) -> int: ...
    @property
    def arrived(self) -> Sequence[ArrivedUpdate]: ...
    @property
    def weights(self) -> Mapping[Any, float]: ...
    @property
    def local_steps(self) -> int: ...
    @property
    def evaluate(self) -> bool: ...
    @property
    def folded(self) -> Sequence["FoldedUpdate"]: ...


@dataclass(frozen=True, slots=True)
class LearnerState:
    """All that a learner remembers from one `Learn` to the next. Its arrays are never written to: states share them.

    vector: float32 [D]. momentum: float32, empty without momentum. local: buffers that are never sent. codec: its memory.
    """

    vector: Vector
    momentum: NDArray[np.float32]
    local: Mapping[str, NDArray[Any]]
    codec: Memory


@dataclass(frozen=True, slots=True)
class Computed:
    """What one `Learn` gave.

    payload: the trained vector, encoded; not to be written to, because it may share memory with the state.
    verdicts: (sender, None where it was applied, else a value of `protocol.errors.Reason`), in the order of arrival, those
    that were folded before last.
    metrics: "accuracy" and "loss" of the mixed vector where asked for, "train_loss" where trained.
    mixed: float32 [D], after the mix and before the training.
    """

    payload: Bytes
    verdicts: Verdicts
    metrics: Mapping[str, float]
    mixed: Vector


@dataclass(frozen=True, slots=True)
class Begun:
    """A `Learn` between mixing and training: the state with the mixed vector, and the verdicts on what arrived."""

    state: LearnerState
    verdicts: Verdicts


class Learner:
    """One peer's data, and how it learns from it. Has no state that changes: see `LearnerState`.

    Learners of one process and one task can share `model`, which is otherwise made here. What they share, they can also
    compute as one array: `p2pfl.learning.together`.
    """

    def __init__(
        self,
        own_id: bytes,
        task: Task,
        peer: TaskPeer,
        training: TrainingSection,
        codec: CodecSection,
        limits: LimitsSection,
        seed: int,
        model: Model | None = None,
    ) -> None:
        self.own_id = own_id
        self.model = model or Model(task, seed)
        self.training = training
        self.train, own_test = data_of(task, peer)
        self._test = self.model.common_test() or own_test
        self._peer, self._limits, self._seed = peer, limits, seed
        self._codec = CODECS[codec.kind]()
        self._labels = tuple(task.labels)
        self.dimension = self.model.layout.dimension
        self._mixer = Mixer(AGGREGATOR, self._codec, self.dimension, limits.max_abs)
        self.can_fold = self._mixer.can_fold
        self.samples = len(self.train[1])
        self.local_steps = minibatch.steps_per_round(training, self.samples)
        self.update_bytes = self._codec.payload_bytes(self.dimension)
        self.schema = self.model.layout.digest(codec=codec.kind, algorithm=ALGORITHM, labels=list(task.labels))

    def label_counts(self) -> NDArray[np.float64]:
        """Training rows per class; empty where targets are no classes."""
        return label_counts(self.train[1], len(self._labels))

    def first(self) -> LearnerState:
        """The state before anything was learned; `training.initial` says whether all peers of a seed start from one vector."""
        vector = ALGORITHMS[ALGORITHM].init(self.model.first_of(self._peer.index, self.training.initial).numpy())
        return LearnerState(vector, no_momentum(self.model, self.training).numpy(), _arrays(self.model.local), {})

    def fold(
        self,
        state: LearnerState,
        folding: Folding | None,
        sender: bytes,
        payload: Handle,
        weight: float,
        spare: Vector | None = None,
    ) -> Folding:
        """Add one update to the mix before its `Learn` begins, so that its memory is free; None begins one, in `spare` where
        that is given: the vector of a state that nobody has any more. Raises `Refused`, and then nothing has changed, or
        `LearningFailed`."""
        with _encodable():
            return self._mixer.fold(state.vector, state.codec, folding, sender, payload, weight, spare)

    def learn(
        self, state: LearnerState, request: LearnRequest, folding: Folding | None = None
    ) -> tuple[LearnerState, Computed]:
        """`folding` holds what the request calls folded. Raises `LearningFailed` where the task's own code raises, and rather
        than let out what its readers must refuse."""
        begun = self.begin(state, request, folding)
        metrics = self.measured(begun) if request.evaluate else {}
        after = begun.state
        if request.local_steps:

            def descend_from(vector: Vector) -> Vector:
                nonlocal after
                after, metrics["train_loss"] = self._descended(vector, begun.state, request)
                return after.vector

            vector = ALGORITHMS[ALGORITHM].local(begun.state.vector, descend_from)  # first: it also gives `after` the rest
            after = replace(after, vector=vector)
        return self.finish(begun, after, metrics)

    def begin(self, state: LearnerState, request: LearnRequest, folding: Folding | None = None) -> Begun:
        """Decode what arrived and mix. Raises `LearningFailed`."""
        if tuple(update.sender for update in request.folded) != (folding.senders if folding is not None else ()):
            raise LearningFailed("what was folded before is not here any more")
        with _encodable():
            mixed, verdicts = self._mixer.mix(state.vector, state.codec, request.arrived, request.weights, folding)
        mixed = ALGORITHMS[ALGORITHM].combine(state.vector, mixed)
        return Begun(LearnerState(mixed, state.momentum, state.local, state.codec), verdicts)

    def measured(self, begun: Begun) -> dict[str, float]:
        """How good the mixed vector is. Raises `LearningFailed`."""
        try:
            return measure(self.model, torch.from_numpy(begun.state.vector), _tensors(begun.state.local), self._test)
        except Exception as error:
            raise LearningFailed(f"the task's evaluation raised {_first_line(error)}") from error

    def rows(self, request: LearnRequest) -> NDArray[np.int64]:
        """Which rows of `train` make up the minibatches of this `Learn`, [local steps, batch]."""
        size, peer = self.training.batch_size, self._peer.index
        return minibatch.indices(self._seed, peer, request.step, self.samples, size, request.local_steps)

    def finish(self, begun: Begun, after: LearnerState, metrics: Mapping[str, float]) -> tuple[LearnerState, Computed]:
        """Encode the trained state. Raises `LearningFailed` for one that its readers must refuse."""
        payload, memory = self._encoded(ALGORITHMS[ALGORITHM].outgoing(after.vector), after)
        return replace(after, codec=memory), Computed(payload, begun.verdicts, metrics, begun.state.vector)

    def _descended(self, vector: Vector, state: LearnerState, request: LearnRequest) -> tuple[LearnerState, float]:
        inputs, targets = self.train
        batches = ((inputs[batch], targets[batch]) for batch in torch.from_numpy(self.rows(request)))
        start = torch.from_numpy(vector), torch.from_numpy(state.momentum), _tensors(state.local)
        try:
            chance = torch_seed(self._seed, self._peer.index, "training", request.step)
            end = descend(self.model, *start, batches, self.training, chance)
        except Exception as error:
            raise LearningFailed(f"the task's training raised {_first_line(error)}") from error
        return LearnerState(end.vector.numpy(), end.momentum.numpy(), _arrays(end.local), state.codec), end.loss

    def _encoded(self, vector: Vector, state: LearnerState) -> tuple[Bytes, Memory]:
        if not is_within(vector, self._limits.max_abs):
            bound = largest_magnitude(vector)
            raise LearningFailed(f"training diverged: a parameter of {bound:g} is over max_abs = {self._limits.max_abs:g}")
        try:
            return self._codec.encode(vector, state.codec, self._limits.max_abs)
        except Unencodable as error:
            raise LearningFailed(f"training diverged: {error}") from error


@contextmanager
def _encodable() -> Iterator[None]:
    try:
        yield
    except Unencodable as error:
        raise LearningFailed(f"the model to mix with can't be encoded: {error}") from error


def data_of(task: Task, peer: TaskPeer) -> tuple[Pair, Pair]:
    """(train, test) of one peer as tensors."""
    train, test = task.data(peer)
    return as_tensors(train, f"the training set of peer {peer.index}"), as_tensors(test, f"the test set of peer {peer.index}")


def label_counts(targets: torch.Tensor, classes: int) -> NDArray[np.float64]:
    """Rows per class [classes or more]; empty where targets are no classes."""
    if targets.is_floating_point() or targets.ndim != 1 or (len(targets) and int(targets.min()) < 0):
        return np.empty(0)
    return np.bincount(targets.numpy(), minlength=classes).astype(np.float64)


def state_to_arrays(state: LearnerState) -> dict[str, NDArray[Any]]:
    """The state as named arrays, for a checkpoint."""
    parts = {"local": state.local, "codec": state.codec}
    nested = {f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    return {"vector": state.vector, "momentum": state.momentum, **nested}


def state_from_arrays(arrays: Mapping[str, NDArray[Any]], like: LearnerState) -> LearnerState:
    """What `state_to_arrays` gave; refused unless it has the names, shapes and types of `like`, any state of the learner."""
    expected = state_to_arrays(like)
    for name in sorted(expected.keys() | arrays.keys()):
        here, there = expected.get(name), arrays.get(name)
        if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
            raise Failure(
                "bad_checkpoint",
                f"The checkpoint does not fit the task: {name} is {_described(there)}, the task needs {_described(here)}.",
                "Start with the task and training settings that wrote it, or with an empty directory.",
            )
    if not np.isfinite(largest_magnitude(np.asarray(arrays["vector"]))):
        raise Failure("bad_checkpoint", "The checkpoint's vector is not finite.", "Remove it and start again.")

    def part(name: str) -> dict[str, NDArray[Any]]:
        return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}

    return LearnerState(arrays["vector"], arrays["momentum"], part("local"), part("codec"))


def _described(array: NDArray[Any] | None) -> str:
    return "missing" if array is None else f"{array.dtype} {list(array.shape)}"


def _arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensors(arrays: Mapping[str, NDArray[Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
