"""Microseconds of one local step of one peer, beside autograd alone and torch.optim, on one thread.

python benchmarks/local_step.py

MLP 64-64-10, batch 8. Ours is a whole `descend` of 18 steps with its copies of the vector and the gathering of minibatches,
divided by 18. All take turns and the fastest turn of each counts, because the machine may be shared.
"""

import sys
from collections.abc import Callable
from time import perf_counter

import torch
from torch.nn.functional import cross_entropy

from p2pfl.learning import minibatch
from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.local import descend, no_momentum
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.settings import DataSection, TaskSection, TrainingSection

STEPS, TURNS, LIMIT_US = 18, 300, 200.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    task = resolve(TaskSection(name="digits", model="mlp"), DataSection(samples_per_peer=144), 7)
    inputs, targets = as_tensors(task.data(TaskPeer(0, 10))[0])
    training = TrainingSection(batch_size=8)
    model, module = Model(task, 7), task.model()
    weights, optimizer = list(module.parameters()), torch.optim.SGD(module.parameters(), lr=0.1)

    def ours() -> None:
        rows = torch.from_numpy(minibatch.indices(7, 0, 0, 144, 8, STEPS))
        batches = ((inputs[batch], targets[batch]) for batch in rows)
        descend(model, model.first, no_momentum(model, training), {}, batches, training, torch_seed=7)

    def autograd() -> None:
        x, y = inputs[:8], targets[:8]
        for _ in range(STEPS):
            torch.autograd.grad(cross_entropy(module(x), y), weights)

    def torch_optim() -> None:
        x, y = inputs[:8], targets[:8]
        for _ in range(STEPS):
            optimizer.zero_grad()
            torch.autograd.backward(cross_entropy(module(x), y))
            optimizer.step()

    turns: dict[str, Callable[[], None]] = {"ours": ours, "autograd alone": autograd, "torch.optim.SGD": torch_optim}
    best = dict.fromkeys(turns, float("inf"))
    for _ in range(TURNS):
        for name, turn in turns.items():
            begin = perf_counter()
            turn()
            best[name] = min(best[name], (perf_counter() - begin) / STEPS * 1e6)
    for name, microseconds in best.items():
        print(f"{name:16} {microseconds:6.0f} us a step")
    print(f"limit            {LIMIT_US:6.0f} us")
    sys.exit(best["ours"] > LIMIT_US)
