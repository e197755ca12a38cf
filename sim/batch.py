"""The batched engine: all peers as one array per layer. A round is local steps under vmap and one sparse product for the mix.

It computes what `Peer` and `Learner` compute together on a network that delays nothing: the same first vector, minibatches,
steps, codec and order of a round, or of a period of asynchronous gossip. What differs is the order in which float32 sums are
taken. What is missing in a round, peers or messages, is a mask on W.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import Task
from p2pfl.settings import CodecSection, GossipSection, LimitsSection, TrainingSection
from sim.checkpoint import Checkpoint
from sim.crowd import BLOCK_MIN, Crowd
from sim.masks import Masks
from sim.merging import Merging, Pushes
from sim.mixing import Mixing, Product, Rows, WeightSchedule
from sim.workers import Workers

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """Row 0 is before training, row r after the r-th mix; NaN where nothing was measured, or the peer was away.

    accuracy, loss: [rounds + 1, peers]. consensus_distance: [rounds + 1], sqrt(mean_i ||x_i - mean x||^2) of who was up.
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
    weights: Rows | WeightSchedule | Pushes | None,
    rounds: int,
    seed: int,
    evaluate_every: int = 1,
    on_round: Callable[[int, Float, Float, float], None] | None = None,
    *,
    masks: Masks | None = None,
    evaluated: NDArray[np.bool_] | None = None,
    age_cap: int = GossipSection().age_cap,
    device: str = "cpu",
    checkpoint: Checkpoint | None = None,
    on_note: Callable[[str], None] | None = None,
) -> BatchOutcome:
    """`weights[i][j]` is what peer i gives to what comes from j, in every round or by a schedule; `Pushes` is asynchronous
    gossip, whose rounds are periods, with masks of its own that are these and with `age_cap`; None is every peer alone.

    The first and the last row and every `evaluate_every`-th are measured, accuracy and loss of those who are `evaluated`,
    [peers] or None for all; `on_round(round, accuracy, loss, consensus distance)` hears of each. A `checkpoint` is written to
    as it says, and gone on from if it is there. Raises `Failure` when a peer's training diverges, when memory can't hold so
    many peers, when there is no such device.
    """
    masks, where, note = masks or Masks(), _device(device), on_note or (lambda line: None)
    count = 1 if where.type != "cpu" else max(1, min(os.cpu_count() or 1, peers // BLOCK_MIN))
    model = _model(task, seed, where)
    rows = Measured(np.full((rounds + 1, peers), np.nan), np.full((rounds + 1, peers), np.nan), np.full(rounds + 1, np.nan))

    with Workers([model, *(_model(task, seed, where) for _ in range(count - 1))]) as workers:
        crowd = Crowd(model, peers, training, seed, rounds, workers, note)
        if where.type != "cpu" and crowd.fallback_reason is not None:
            raise Failure(
                "bad_configuration",
                f"device: {device} computes peers together only, and this task can't be: {crowd.fallback_reason}.",
                "Use the device cpu.",
            )
        mixing = _mixing(weights, crowd, Product(crowd.order, codec, where), masks, seed, age_cap)
        state = {**crowd.state(), **(mixing.state() if mixing is not None else {})}

        def measure(row: int) -> None:
            if row % evaluate_every == 0 or row == rounds:
                up = masks.up(row, peers)
                found = crowd.measured(up if evaluated is None else up & evaluated)
                rows.accuracy[row] = found.get("accuracy", np.nan)
                rows.loss[row] = found.get("loss", np.nan)
                rows.consensus_distance[row] = crowd.consensus_distance(up)
                tell(row)

        def tell(row: int) -> None:
            if on_round is not None:
                on_round(row, rows.accuracy[row], rows.loss[row], float(rows.consensus_distance[row]))

        done = None if checkpoint is None else checkpoint.restore(state, rows.arrays())
        if done is None:
            measure(0)
        else:
            note(f"going on after round {done} of {rounds}")
            for row in np.flatnonzero(~np.isnan(rows.consensus_distance)).tolist():
                tell(row)
        for round in range(done or 0, rounds):
            crowd.train(round, masks.up(round, peers), limits.max_abs)
            if mixing is not None:
                mixing.mix(crowd.stacks, round, workers)
            measure(round + 1)
            if checkpoint is not None and checkpoint.is_due(round + 1, rounds):
                checkpoint.save(round + 1, state, rows.arrays())
        return BatchOutcome(
            rows.accuracy, rows.loss, rows.consensus_distance, crowd.parameters(), *crowd.data_counts(), crowd.fallback_reason
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows that fill up: see `BatchOutcome`."""

    accuracy: Float
    loss: Float
    consensus_distance: Float

    def arrays(self) -> dict[str, Float]:
        """By name, to be saved or written into."""
        return {"accuracy": self.accuracy, "loss": self.loss, "consensus_distance": self.consensus_distance}


def _mixing(
    weights: Rows | WeightSchedule | Pushes | None, crowd: Crowd, product: Product, masks: Masks, seed: int, age_cap: int
) -> Mixing | Merging | None:
    if weights is None:
        return None
    if isinstance(weights, Pushes):
        return Merging(weights, product, crowd.steps(), age_cap)
    return Mixing(weights, product, masks, seed)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise Failure("bad_configuration", f"device: there is no {name!r}.", "There are cpu and cuda.") from None
    if device.type not in ("cpu", "cuda"):
        raise Failure("bad_configuration", f"device: {name} can't be used.", "There are cpu and cuda.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise Failure("no_device", f"device: torch finds {found} CUDA devices here, so no {name}.", "Use the device cpu.")
    return device


def _model(task: Task, seed: int, device: torch.device) -> Model:
    model = Model(task, seed)
    if device.type != "cpu":
        model.module.to(device)
        model.first = model.first.to(device)
        model.local = {name: tensor.to(device) for name, tensor in model.local.items()}
    return model
