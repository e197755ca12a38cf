"""Whether a batched run fits into memory, and how many peers may be computed at a time."""

from dataclasses import dataclass

import psutil
import torch

from p2pfl.failure import Failure
from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.local import batch_loss
from p2pfl.learning.parameters import Model
from p2pfl.settings import DataSection, TaskSection, TrainingSection

FLOAT = 4
INDEX = 8  # of a row that a peer draws
ROW = 3 * 8  # accuracy, loss and what counts them, of one peer in one round


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes a peer: `held` for the whole run, `passing` only while it is computed."""

    held: int
    passing: int


def check_rows(task: TaskSection, data: DataSection, peers: int, free: int) -> None:
    """A `Failure` where the rows that a scenario asks for don't fit, told before they are made up or drawn."""
    made = (task.samples or 0) * 5 // 4 + (task.classes or 0)  # with those to test, and a center for each class
    drawn = peers * (data.samples_per_peer or 0)
    wanted = made * (task.features or 1) * FLOAT + drawn * INDEX
    if wanted > free:
        message = f"task: its rows take about {_gigabytes(wanted)}, and {_gigabytes(free)} are free."
        raise Failure("too_many_rows", message, "Take fewer rows or features, fewer peers, or a smaller data.samples_per_peer.")


def check_models(model: Model, peers: int, rounds: int, training: TrainingSection, free: int) -> None:
    """A `Failure` where not even the models and measurements of so many peers fit, told before their data and graph are made,
    which takes minutes for so many."""
    held = _copies(training) * model.layout.dimension * FLOAT + (rounds + 1) * ROW
    if peers * held > free:
        raise _too_many(peers, f"at least {_gigabytes(peers * held)}, {held:,} bytes each for models", free, free // held)


def need(model: Model, first: Pair, rounds: int, training: TrainingSection) -> Need:
    """What one peer takes, judged by the data of the first."""
    vector = model.layout.dimension * FLOAT
    rows = len(first[1])
    data = sum(tensor.numel() * tensor.element_size() for tensor in first)
    batch = -(-data * training.batch_size // rows)
    # Of a step: gradients, and what the chain rule keeps of them; of every output: its value and its gradient.
    return Need(
        _copies(training) * vector + data + (rounds + 1) * ROW, 3 * vector + 2 * (batch + _outputs(model, first, training))
    )


def at_a_time(peers: int, need: Need, most: int, workers: int, free: int) -> int:
    """How many peers a block may have; a `Failure` where all of them don't even fit while nothing is computed."""
    held = peers * need.held
    if held + workers * need.passing > free:
        fits = max(0, (free - workers * need.passing) // need.held)
        raise _too_many(peers, f"{_gigabytes(held)}, {need.held:,} bytes each", free, fits)
    return max(1, min(most, (free - held) // (2 * workers * need.passing)))


def free_bytes(device: torch.device) -> int:
    """Memory that a run may take at this moment."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available


def _copies(training: TrainingSection) -> int:
    """Of its vector that every peer has; the last is of what the run returns."""
    return 3 if training.momentum else 2


def _too_many(peers: int, needed: str, free: int, fits: int) -> Failure:
    return Failure(
        "too_many_peers",
        f"{peers:,} peers need {needed}; {_gigabytes(free)} are free.",
        f"About {fits:,} peers fit. Take fewer, a smaller model or fewer rows." if fits else "Take a smaller model.",
    )


def _outputs(model: Model, first: Pair, training: TrainingSection) -> int:
    """Bytes of all modules' outputs in one forward pass."""
    sizes: list[int] = []

    def count(module: torch.nn.Module, inputs: object, output: object) -> None:
        sizes.append(output.numel() * FLOAT if isinstance(output, torch.Tensor) else 0)

    hooks = [module.register_forward_hook(count) for module in model.module.modules() if not list(module.children())]
    inputs, targets = (tensor[: training.batch_size].to(model.first.device) for tensor in first)
    try:
        model.bind(model.first.clone(), {name: tensor.clone() for name, tensor in model.local.items()})
        batch_loss(model.task, model.module, inputs, targets)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(sizes)


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
