"""Local training: steps of SGD from one vector, for one peer or for many as one array. Both compute the same mathematics.

    g = gradient of the batch's mean loss + weight_decay * w;   m <- momentum * m + g;   w <- w - learning_rate * m

which is torch.optim.SGD (first use of which costs a process 1 s and 67 MB). Momentum m is a peer's own and is kept from round
to round. What only torch can draw, such as dropout, is drawn from a generator seeded by (seed, peer, round) around the steps of
one peer; a model that draws therefore can't be computed together with others, and `why_not_together` says so.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import neg
from weakref import WeakKeyDictionary

import torch
from torch.func import functional_call

from p2pfl.learning.data.tensors import Pair
from p2pfl.learning.gradients import Gradients
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import Task
from p2pfl.settings import TrainingSection

Stacks = dict[str, torch.Tensor]

UNDER_VMAP = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, NotImplementedError)
"""What a task may raise only because it runs under vmap."""


@dataclass(frozen=True, slots=True)
class Descent:
    """Where the steps arrived: vector [D], momentum [D] or empty, local buffers, mean loss over the steps."""

    vector: torch.Tensor
    momentum: torch.Tensor
    local: Mapping[str, torch.Tensor]
    loss: float


def descend(
    model: Model,
    vector: torch.Tensor,
    momentum: torch.Tensor,
    local: Mapping[str, torch.Tensor],
    batches: Iterable[Pair],
    training: TrainingSection,
    torch_seed: int,
) -> Descent:
    """One step for each of `batches`, for one peer. Nothing that is passed in is changed."""
    vector, momentum, local = vector.clone(), momentum.clone(), {name: tensor.clone() for name, tensor in local.items()}
    model.bind(vector, local)
    model.module.train()
    weights, momenta = _trainable(model, vector), _trainable(model, momentum) if training.momentum else []
    loss_sum, steps = torch.zeros((), device=vector.device), 0
    with _seeded(torch_seed):
        for inputs, targets in batches:
            loss = batch_loss(model.task, model.module, inputs, targets)
            gradients = torch.autograd.grad(loss, model.trainable, allow_unused=True, materialize_grads=True)
            _step(weights, gradients, momenta, training)  # on the vector itself, which autograd doesn't watch
            loss_sum += loss.detach()
            steps += 1
    return Descent(vector, momentum, local, float(loss_sum) / max(steps, 1))


def descend_together(
    model: Model,
    stacks: Stacks,
    momenta: Stacks,
    local: Stacks,
    batches: Callable[[int, int], Pair],
    steps: Sequence[int],
    training: TrainingSection,
    records: bool = True,
) -> torch.Tensor:
    """The same for many peers at once, in place; returns the mean loss over the steps of each, [peers].

    stacks, momenta, local: [peers, *shape] per tensor of the vector, per tensor of the vector or none without momentum, and
    per local buffer. steps: of each peer, never increasing, so that those who still train are always the first so many.
    batches(peers, step): inputs [peers, batch, ...] and targets [peers, batch, ...] of the first so many peers.
    records: whether kernels that are familiar are recorded at the end. Whoever calls modules in other threads meanwhile must
    not, and calls `record_familiar` when these are done.
    """
    model.module.train()
    gradient = _gradients(model)
    losses = torch.zeros(len(steps), device=model.first.device)
    names = [slot.name for slot in model.layout.slots if slot.trainable]
    for step in range(steps[0] if steps else 0):
        active = bisect_left(steps, -step, key=neg)  # the counts never increase
        weights = {name: stacks[name][:active] for name in names}
        others = {name: tensor[:active] for name, tensor in [*stacks.items(), *local.items()] if name not in weights}
        gradients, (loss, changed) = gradient(weights, others, *batches(active, step))
        losses[:active] += loss
        moving = [momenta[name][:active] for name in names] if momenta else []
        _step(list(weights.values()), [gradients[name] for name in names], moving, training)
        for name, tensor in changed.items():
            others[name].copy_(tensor)
    if records:
        gradient.record()
    return losses / torch.tensor(steps, device=losses.device).clamp(min=1)


def record_familiar(model: Model) -> None:
    """Record the kernels that `descend_together` has called often, to be replayed. No other thread may call a module now."""
    _gradients(model).record()


def why_not_together(model: Model, batch: Pair, training: TrainingSection) -> str | None:
    """None if `descend_together` computes this task as `descend` does, else what went wrong, in one line. Tries one step."""
    alone = descend(model, model.first, no_momentum(model, training), model.local, [batch], training, 0)
    stacks = {name: torch.stack([tensor] * 2) for name, tensor in model.layout.unflatten(model.first).items()}
    momenta = {name: torch.zeros_like(tensor) for name, tensor in stacks.items()} if training.momentum else {}
    local = {name: torch.stack([tensor] * 2) for name, tensor in model.local.items()}
    inputs, targets = batch
    pairs = torch.stack([inputs] * 2), torch.stack([targets] * 2)
    try:
        descend_together(model, stacks, momenta, local, lambda peers, step: pairs, [1, 1], training)
    except UNDER_VMAP as error:
        return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
    together = model.layout.flatten(stacks)[1]
    if not torch.allclose(together, alone.vector, rtol=1e-3, atol=1e-4, equal_nan=True):
        return "one step under vmap gives other numbers than the same step by itself"
    return None


def batch_loss(task: Task, module: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The scalar that one step descends."""
    if task.train_step is not None:
        return task.train_step(module, inputs, targets)
    return (task.loss or torch.nn.functional.cross_entropy)(module(inputs), targets)


def no_momentum(model: Model, training: TrainingSection) -> torch.Tensor:
    """The momentum to begin with: [D] zeros, or empty where the training has no momentum."""
    return torch.zeros(model.layout.dimension if training.momentum else 0, device=model.first.device)


Tensors = list[torch.Tensor] | tuple[torch.Tensor, ...]


def _step(weights: Tensors, gradients: Tensors, momenta: Tensors, training: TrainingSection) -> None:
    if training.weight_decay:
        gradients = torch._foreach_add(gradients, weights, alpha=training.weight_decay)
    if training.momentum:
        torch._foreach_mul_(momenta, training.momentum)
        torch._foreach_add_(momenta, gradients)
        gradients = momenta
    torch._foreach_add_(weights, gradients, alpha=-training.learning_rate)


def _trainable(model: Model, vector: torch.Tensor) -> list[torch.Tensor]:
    """Views into `vector` [D], in the order of `model.trainable`."""
    parts = model.layout.unflatten(vector)
    return [parts[slot.name] for slot in model.layout.slots if slot.trainable]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The global generator in this state, and afterwards as it was. torch.random.fork_rng and manual_seed take 160 us."""
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(before)


class _Loss(torch.nn.Module):
    """The batch's loss as a module, so that `functional_call` also reaches a task's own train_step."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.task, self.module = model.task, model.module

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return batch_loss(self.task, self.module, inputs, targets)


_known: WeakKeyDictionary[Model, Gradients] = WeakKeyDictionary()


def _gradients(model: Model) -> Gradients:
    """One for each model, for as long as there is the model."""
    found = _known.get(model)
    if found is None:
        found = _known[model] = Gradients(_functional_loss(model))
    return found


def _functional_loss(
    model: Model,
) -> Callable[[Stacks, Stacks, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Stacks]]:
    """(weights, other tensors, inputs, targets) -> (loss, the buffers after it)."""
    module = _Loss(model)
    buffers = [name for name, _ in model.module.named_buffers()]

    def loss(weights: Stacks, others: Stacks, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, Stacks]:
        changing = {name: others[name].clone() for name in buffers}  # forward changes them in place
        values = {f"module.{name}": tensor for name, tensor in {**others, **weights, **changing}.items()}
        return functional_call(module, values, (inputs, targets)), changing

    return loss
