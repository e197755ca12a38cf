"""Whole rounds of the batched engine from 1,000 to 100,000 peers: speed beside a bare vmap, memory, and the cost of a mix.

python benchmarks/batched_scale.py [speed|memory|gossip|mix]...

speed: MLP 64-64-10, batch 8, digits, random 4-regular graph, 1,000 peers, 18 local steps a round: minibatches are gathered,
steps taken, results checked and mixed; 64 peers, always the same, are measured every 10 rounds. Beside it, in turn, a bare vmap
that takes gradients of one batch over and over, and the same steps as plain C where there is a gcc. memory: the same with
10,000 peers. gossip: vectors of 10 numbers, nobody trains, up to 100,000 peers; what a peer costs a round. mix: one mix against
the number of edges, of 1,000 peers and of more.

All times are of CPU, summed over the threads, and the fastest turn of each counts: so a busy machine does not blur them, and
what is compared is work, whoever has how many cores for it.
"""

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch.func import functional_call, grad, vmap

from p2pfl import Task
from p2pfl.learning.parameters import Model
from p2pfl.learning.tasks import resolve
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.batch import run_batch
from sim.masks import Masks
from sim.mixing import Mixing, Product
from sim.workers import Workers
from topology import neighbor_weights, random_regular

SAMPLES, BATCH, STEPS, ROUNDS, TURNS, SEED = 144, 8, 18, 10, 5, 7
EVALUATED, EVERY = 64, 10  # peers, rounds
ASKED_SHARE, ASKED_GB, ASKED_GROWTH, ASKED_PEERS = 0.65, 4.0, 1.5, 100_000
SLACK = 2.0  # times: what caches and the machine's other users make of a cost that does not grow
PEAK_THREAD = 95e9  # sgemm on one thread of the machine of LIMITS, operations a second


def digits() -> Task:
    return resolve(TaskSection(name="digits", model="mlp"), DataSection(samples_per_peer=SAMPLES), SEED)


def ours(task: Task, peers: int, rounds: int, weights: Any, training: TrainingSection, masks: Masks | None = None) -> float:
    """CPU seconds of `rounds` rounds, from after the first measurement to after the last."""
    moments: list[float] = []
    evaluated = np.zeros(peers, dtype=bool)
    evaluated[np.random.default_rng(SEED).permutation(peers)[:EVALUATED]] = True
    run_batch(
        task, peers, training, CodecSection(), LimitsSection(), weights, rounds, SEED,
        evaluate_every=EVERY, on_round=lambda *_: moments.append(process_time()), masks=masks, evaluated=evaluated,
    )  # fmt: skip
    return moments[-1] - moments[0]


def bare_vmap(task: Task, peers: int) -> Callable[[], float]:
    """CPU seconds of a round's gradients and updates only, on one batch that never changes."""
    model = Model(task, SEED)
    stacks = {k: v.expand(peers, *v.shape).contiguous() for k, v in model.layout.unflatten(model.first).items()}
    inputs, targets = torch.randn(peers, BATCH, 64), torch.randint(10, (peers, BATCH))

    def loss(values: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(functional_call(model.module, values, (x,)), y)

    gradient = vmap(grad(loss))

    def turn() -> float:
        begin = process_time()
        for _ in range(STEPS):
            for name, slope in gradient(stacks, inputs, targets).items():
                stacks[name].add_(slope, alpha=-0.1)
        return process_time() - begin

    return turn


KERNEL = r"""
#include <math.h>
#include <string.h>
#define B 8
#define I 64
#define H 64
#define O 10
/* Local steps of SGD on one batch for `peers` models of 64-64-10, each laid out as W1[H][I] b1[H] W2[O][H] b2[O]. */
void steps(float *models, const float *x, const int *y, int peers, int count, float rate) {
  for (int p = 0; p < peers; p++) {
    float *W1 = models + (long)p * (H * I + H + O * H + O), *b1 = W1 + H * I, *W2 = b1 + H, *b2 = W2 + O * H;
    const float *in = x + (long)p * B * I; const int *t = y + (long)p * B;
    for (int s = 0; s < count; s++) {
      float h[B][H], d[B][O], g[B][H];
      for (int b = 0; b < B; b++) for (int j = 0; j < H; j++) {
        float a = 0; for (int i = 0; i < I; i++) a += W1[j * I + i] * in[b * I + i];
        a += b1[j]; h[b][j] = a > 0 ? a : 0;
      }
      for (int b = 0; b < B; b++) {
        float top = -1e30f, sum = 0;
        for (int o = 0; o < O; o++) {
          float a = 0; for (int j = 0; j < H; j++) a += W2[o * H + j] * h[b][j];
          d[b][o] = a + b2[o]; if (d[b][o] > top) top = d[b][o];
        }
        for (int o = 0; o < O; o++) { d[b][o] = expf(d[b][o] - top); sum += d[b][o]; }
        for (int o = 0; o < O; o++) d[b][o] = (d[b][o] / sum - (o == t[b])) / B;
      }
      memset(g, 0, sizeof g);
      for (int b = 0; b < B; b++) {
        for (int o = 0; o < O; o++) for (int j = 0; j < H; j++) g[b][j] += d[b][o] * W2[o * H + j];
        for (int j = 0; j < H; j++) if (h[b][j] <= 0) g[b][j] = 0;
      }
      for (int b = 0; b < B; b++) {
        for (int o = 0; o < O; o++) {
          for (int j = 0; j < H; j++) W2[o * H + j] -= rate * d[b][o] * h[b][j];
          b2[o] -= rate * d[b][o];
        }
        for (int j = 0; j < H; j++) {
          float a = rate * g[b][j];
          for (int i = 0; i < I; i++) W1[j * I + i] -= a * in[b * I + i];
          b1[j] -= a;
        }
      }
    }
  }
}
"""


def plain_c(peers: int) -> Callable[[], float] | None:
    """CPU seconds of a round's steps in C, one thread a core; None where there is no compiler."""
    if (compiler := shutil.which("gcc")) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "kernel.c"), Path(folder, "kernel.so")
        source.write_text(KERNEL)
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
        subprocess.run([compiler, *flags], check=True)
        kernel = ctypes.CDLL(str(library)).steps
    size, cores = 64 * 64 + 64 + 640 + 10, os.cpu_count() or 1
    chance = np.random.default_rng(SEED)
    models = chance.normal(0, 0.1, (peers, size)).astype(np.float32)
    inputs = chance.normal(0, 1, (peers, BATCH, 64)).astype(np.float32)
    targets = chance.integers(10, size=(peers, BATCH), dtype=np.int32)
    pool = ThreadPoolExecutor(cores)

    def part(places: range) -> None:
        arrays = (ctypes.c_void_p(array[places.start :].ctypes.data) for array in (models, inputs, targets))
        kernel(*arrays, len(places), STEPS, ctypes.c_float(0.1))

    def turn() -> float:
        begin = process_time()
        bounds = [peers * core // cores for core in range(cores + 1)]
        list(pool.map(part, (range(*pair) for pair in pairwise(bounds))))
        return process_time() - begin

    return turn


def speed() -> bool:
    peers, task = 1_000, digits()
    weights = neighbor_weights(random_regular(4, peers, seed=SEED))
    training = TrainingSection(batch_size=BATCH, learning_rate=0.1)
    away = np.random.default_rng(SEED).random((ROUNDS, peers)) < 0.3
    torch.set_num_threads(1)  # torch's own would spin while they wait for each other, and that is no work
    turns: dict[str, Callable[[], float]] = {
        "bare vmap": bare_vmap(task, peers),
        "whole rounds": lambda: ours(task, peers, ROUNDS, weights, training) / ROUNDS,
        "whole rounds, 30 % away": lambda: ours(task, peers, ROUNDS, weights, training, Masks(away)) / ROUNDS,
    }
    if (kernel := plain_c(peers)) is not None:
        turns["plain C"] = kernel
    best = dict.fromkeys(turns, float("inf"))
    for _ in range(TURNS):
        for name, turn in turns.items():
            best[name] = min(best[name], turn())
    work = {name: peers * STEPS * (1 - away.mean() if "away" in name else 1) for name in turns}
    for name, seconds in best.items():
        print(f"{name:26} {work[name] / seconds:10,.0f} local steps a CPU second")
    share = best["bare vmap"] / best["whole rounds"]
    print(f"whole rounds at {share:.2f} of the bare vmap (asked: {ASKED_SHARE})")
    if kernel is not None:
        print(f"and at {best['plain C'] / best['whole rounds']:.2f} of plain C")
    flops = 3 * 2 * BATCH * (64 * 64 + 64 * 10) * peers * STEPS
    print(
        f"and at {flops / best['whole rounds'] / PEAK_THREAD:.2f} of the {PEAK_THREAD / 1e9:.0f} GFLOP/s of a thread of LIMITS"
    )
    return share >= ASKED_SHARE


def memory() -> bool:
    peers, rounds = 10_000, 2
    weights = neighbor_weights(random_regular(4, peers, seed=SEED))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = ours(digits(), peers, rounds, weights, TrainingSection(batch_size=BATCH, learning_rate=0.1)) / rounds
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # kB
    rate = f"{peers * STEPS / seconds:,.0f} local steps a CPU second"
    print(f"{peers:,} peers: {rate}, at most {peak:.2f} GB ({before / 1e6:.2f} before)")
    return peak <= ASKED_GB


class Vector(torch.nn.Module):
    """Numbers to agree on."""

    def __init__(self) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.randn(10))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs @ self.x


def gossip() -> bool:
    row = torch.zeros(1, 10), torch.zeros(1)
    task = Task(Vector, lambda peer: (row, row), loss=torch.nn.functional.mse_loss, common_test=lambda: row)
    training = TrainingSection(local_steps=0)
    costs = {}
    for peers in (1_000, 10_000, ASKED_PEERS):
        weights, rounds = neighbor_weights(random_regular(4, peers, seed=SEED)), 100
        costs[peers] = min(ours(task, peers, rounds, weights, training) for _ in range(3)) / rounds / peers
        print(f"{peers:7,} peers: {costs[peers] * 1e9:6.0f} ns a peer and round")
    growth = costs[ASKED_PEERS] / costs[1_000]
    print(f"{growth:.2f} times as much for {ASKED_PEERS:,} as for 1,000 (asked: at most {ASKED_GROWTH})")
    return growth <= ASKED_GROWTH


def mix() -> bool:
    task = digits()
    model = Model(task, SEED)
    costs = {}
    with Workers([model, Model(task, SEED)]) as workers:
        for degree, peers in [(2, 1_000), (4, 1_000), (16, 1_000), (64, 1_000), (256, 1_000), (4, 2_000), (4, 8_000)]:
            graph: nx.Graph[int] = random_regular(degree, peers, seed=SEED)
            mixing = Mixing(neighbor_weights(graph), Product(range(peers), CodecSection(), torch.device("cpu")), Masks(), SEED)
            stacks = {k: torch.randn(peers, *v.shape) for k, v in model.layout.unflatten(model.first).items()}
            seconds = []
            for _ in range(7):
                begin = process_time()
                mixing.mix(stacks, 0, workers)
                seconds.append(process_time() - begin)
            edges = (degree + 1) * peers
            costs[degree, peers] = min(seconds) / edges
            cost = f"{min(seconds) * 1e3:7.1f} ms, {costs[degree, peers] * 1e9:6.0f} ns an edge"
            print(f"{peers:6,} peers, degree {degree:3}: {cost}")
    growth = 8 * costs[4, 8_000] / costs[4, 1_000]
    print(f"8 times the peers at degree 4: 8 times the edges, {growth:.1f} times the cost (n² would be 64 times)")
    # Below 16 neighbors the cost of a peer hides that of its edges. n² would be 8 times as much an edge for 8 times the peers.
    dense = [costs[degree, 1_000] for degree in (16, 64, 256)]
    dearer = max(more / fewer for fewer, more in pairwise(dense))
    print(
        f"an edge costs {dearer:.2f} times as much, or less, where there are 4 times as many (asked: it does not grow, {SLACK})"
    )
    return dearer <= SLACK and growth <= 8 * SLACK


PARTS = {"speed": speed, "memory": memory, "gossip": gossip, "mix": mix}

if __name__ == "__main__":
    asked = sys.argv[1:] or list(PARTS)
    if len(asked) == 1:
        sys.exit(not PARTS[asked[0]]())
    # Each in a process of its own, so that one's memory and threads are not another's.
    codes = [subprocess.run([sys.executable, __file__, part]).returncode for part in asked]
    sys.exit(max(codes))
