"""Local steps per second of 1,000 peers in the batched engine, beside a plain loop over 1,000 modules and a bare vmap.

python benchmarks/batched_engine.py

MLP 64-64-10, batch 8, digits, random 4-regular graph. The loop is what one writes first: one torch.optim.SGD a module, and no
mixing. The bare vmap takes the same gradients of the same batch over and over: no gathering of minibatches, no mixing, no
checks. Ours are whole rounds: minibatches are drawn, 18 steps taken, results checked, sent through the codec and mixed; and
one evaluation of all peers in ten rounds. All take turns and the fastest turn of each counts: the machine may be shared.
"""

import sys
from collections.abc import Callable
from time import perf_counter

import torch
from torch.func import functional_call, grad, vmap

from p2pfl.learning import minibatch
from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.batch import run_batch
from topology import neighbor_weights, random_regular

PEERS, SAMPLES, BATCH, STEPS, ROUNDS, TURNS, SEED = 1_000, 144, 8, 18, 10, 4, 7
ASKED = 20.0
TASK = resolve(TaskSection(name="digits", model="mlp"), DataSection(samples_per_peer=SAMPLES), SEED)
Turn = Callable[[], tuple[int, float]]
"""Does some local steps and returns how many, and the seconds they took."""


def loop() -> Turn:
    """All modules, two steps each; every module has its own optimizer."""
    models = [TASK.model() for _ in range(PEERS)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    data = [as_tensors(TASK.data(TaskPeer(index, PEERS))[0]) for index in range(PEERS)]
    rows = [torch.from_numpy(minibatch.indices(SEED, index, 0, SAMPLES, BATCH, 2)) for index in range(PEERS)]

    def turn() -> tuple[int, float]:
        begin = perf_counter()
        for model, optimizer, (inputs, targets), batches in zip(models, optimizers, data, rows, strict=True):
            for batch in batches:
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch])
                torch.autograd.backward(loss)
                optimizer.step()
        return 2 * PEERS, perf_counter() - begin

    return turn


def bare_vmap() -> Turn:
    """Gradients and update only, on one batch that never changes."""
    model = Model(TASK, SEED)
    stacks = {k: v.expand(PEERS, *v.shape).contiguous() for k, v in model.layout.unflatten(model.first).items()}
    inputs, targets = torch.randn(PEERS, BATCH, 64), torch.randint(10, (PEERS, BATCH))

    def loss(values: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(model.module, values, (x,)), y)

    gradient = vmap(grad(loss))

    def turn() -> tuple[int, float]:
        begin = perf_counter()
        for _ in range(STEPS):
            for name, slope in gradient(stacks, inputs, targets).items():
                stacks[name].add_(slope, alpha=-0.1)
        return PEERS * STEPS, perf_counter() - begin

    return turn


def ours() -> Turn:
    """Whole rounds, from after the first measurement to after the last."""
    weights = neighbor_weights(random_regular(4, PEERS, seed=SEED))
    training = TrainingSection(batch_size=BATCH, learning_rate=0.1)

    def turn() -> tuple[int, float]:
        moments: list[float] = []
        run_batch(
            TASK, PEERS, training, CodecSection(), LimitsSection(), weights, ROUNDS, SEED,
            evaluate_every=ROUNDS, on_round=lambda *_: moments.append(perf_counter()),
        )  # fmt: skip
        return ROUNDS * PEERS * STEPS, moments[-1] - moments[0]

    return turn


if __name__ == "__main__":
    turns = {"a loop over modules": loop(), "bare vmap, one batch": bare_vmap(), "batched engine": ours()}
    best = dict.fromkeys(turns, 0.0)
    for _ in range(TURNS):
        for name, turn in turns.items():
            steps, seconds = turn()
            best[name] = max(best[name], steps / seconds)
    slowest = best["a loop over modules"]
    for name, rate in best.items():
        print(f"{name:22} {rate:9,.0f} local steps/s   {rate / slowest:5.1f} times the loop")
    print(f"asked: {ASKED:.0f} times; {torch.get_num_threads()} threads")
    sys.exit(best["batched engine"] < ASKED * slowest)
