"""Many learners of one process as one array: each `Learn` gives the numbers that it gives by itself, to float32 rounding.

Every learner decodes and mixes by itself, which is memory-bound and gains nothing. What gains is what torch is asked for:
evaluation and the steps of training, under vmap.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.learning.algorithms import ALGORITHMS
from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.evaluation import measure_together
from p2pfl.learning.learner import ALGORITHM, Begun, Computed, Learner, LearnerState, LearningFailed, LearnRequest
from p2pfl.learning.local import UNDER_VMAP, Stacks, descend_together, why_not_together
from p2pfl.learning.mixer import Folding

FEW = 4  # up to so many, vmap's overhead is more than the work of one after the other
BLOCK = 512  # learners of one vmap call: enough to make its overhead small, few enough to stay in the last cache
MEASURED = 64  # learners that are evaluated at once: a bound on the memory of their outputs


@dataclass(frozen=True, slots=True)
class Assignment:
    """A learner, its state, what it is asked, and what was folded for that before."""

    learner: Learner
    state: LearnerState
    request: LearnRequest
    folding: Folding | None = None


Outcome = tuple[LearnerState, Computed] | LearningFailed


def why_not(learner: Learner) -> str | None:
    """None if learners of this task can be computed together, else what is in the way, in one line."""
    inputs, targets = learner.train
    size = min(learner.training.batch_size, learner.samples)
    return why_not_together(learner.model, (inputs[:size], targets[:size]), learner.training)


def learn_together(assignments: Sequence[Assignment]) -> list[Outcome]:
    """What every learner makes of its request, in their order. They must share one model and one way of training."""
    if len(assignments) <= FEW:
        return [_alone(one) for one in assignments]
    return [outcome for start in range(0, len(assignments), BLOCK) for outcome in _block(assignments[start : start + BLOCK])]


def learn_one_by_one(assignments: Sequence[Assignment]) -> list[Outcome]:
    """The same without vmap."""
    return [_alone(one) for one in assignments]


def _alone(one: Assignment) -> Outcome:
    try:
        return one.learner.learn(one.state, one.request, one.folding)
    except LearningFailed as failure:
        return failure


def _block(block: Sequence[Assignment]) -> list[Outcome]:
    try:
        begun = [one.learner.begin(one.state, one.request, one.folding) for one in block]
        metrics = _measured(block, begun)
        after = _descended(block, begun, metrics)
    except (*UNDER_VMAP, LearningFailed):  # by one of them: one by one it is only that one's failure
        return learn_one_by_one(block)
    outcomes: list[Outcome] = []
    for one, start, end, found in zip(block, begun, after, metrics, strict=True):
        try:
            outcomes.append(one.learner.finish(start, end, found))
        except LearningFailed as failure:
            outcomes.append(failure)
    return outcomes


def _measured(block: Sequence[Assignment], begun: Sequence[Begun]) -> list[dict[str, float]]:
    """Of everyone who was asked to evaluate: together where all have one test set."""
    metrics: list[dict[str, float]] = [{} for _ in block]
    model = block[0].learner.model
    wanted = [place for place, one in enumerate(block) if one.request.evaluate]
    common = model.common_test()
    if common is None or model.task.evaluate is not None:
        for place in wanted:
            metrics[place] = block[place].learner.measured(begun[place])
        return metrics
    for start in range(0, len(wanted), MEASURED):
        places = wanted[start : start + MEASURED]
        states = [begun[place].state for place in places]
        found = measure_together(model, {**model.layout.unflatten(_vectors(states)), **_local(states)}, common)
        for name, values in found.items():
            for place, value in zip(places, values.tolist(), strict=True):
                metrics[place][name] = value
    return metrics


def _descended(block: Sequence[Assignment], begun: Sequence[Begun], metrics: Sequence[dict[str, float]]) -> list[LearnerState]:
    """Everybody's state after its local steps. Those with the most stand first, as `descend_together` wants them."""
    after = [start.state for start in begun]
    steps = {place: one.request.local_steps for place, one in enumerate(block) if one.request.local_steps}
    places = sorted(steps, key=lambda place: -steps[place])
    if not places:
        return after
    rows = [block[place].learner.rows(block[place].request) for place in places]
    states = [begun[place].state for place in places]
    learners = [block[place].learner for place in places]
    model, training = learners[0].model, learners[0].training
    momenta = torch.from_numpy(np.stack([state.momentum for state in states]))
    local = _local(states)

    def batches(peers: int, step: int) -> Pair:
        chosen = [(learner.train, own[step]) for learner, own in zip(learners[:peers], rows[:peers], strict=True)]
        return _gathered([(x, own) for (x, _), own in chosen]), _gathered([(y, own) for (_, y), own in chosen])

    def descend(vectors: torch.Tensor) -> torch.Tensor:
        stacks = model.layout.unflatten(vectors.clone())
        moving = model.layout.unflatten(momenta) if training.momentum else {}
        losses = descend_together(model, stacks, moving, local, batches, [steps[place] for place in places], training)
        for place, loss in zip(places, losses.tolist(), strict=True):
            metrics[place]["train_loss"] = loss
        return model.layout.flatten(stacks)

    vectors = ALGORITHMS[ALGORITHM].local(_vectors(states), descend).numpy()
    for row, place in enumerate(places):
        # Copies: a view would keep everybody's vectors for as long as one of them stays where it is.
        own_local = {name: tensor[row].numpy().copy() for name, tensor in local.items()}
        after[place] = replace(after[place], vector=vectors[row].copy(), momentum=momenta[row].numpy().copy(), local=own_local)
    return after


def _gathered(chosen: Sequence[tuple[torch.Tensor, NDArray[np.int64]]]) -> torch.Tensor:
    """[peers, batch, ...]: of each its rows. numpy takes a quarter of the time that torch takes for a few rows."""
    first, rows = chosen[0]
    gathered = torch.empty((len(chosen), len(rows), *first.shape[1:]), dtype=first.dtype)
    places = gathered.numpy()
    for place, (data, own) in zip(places, chosen, strict=True):
        data.numpy().take(own, axis=0, out=place, mode="clip")  # mode "raise" would copy once more; no row is out of bounds
    return gathered


def _vectors(states: Sequence[LearnerState]) -> torch.Tensor:
    """[states, D]."""
    return torch.from_numpy(np.stack([state.vector for state in states]))


def _local(states: Sequence[LearnerState]) -> Stacks:
    """[states, *shape] per local buffer."""
    return {name: torch.from_numpy(np.stack([state.local[name] for state in states])) for name in states[0].local}
