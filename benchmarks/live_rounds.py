"""Rounds of real peers with a small model: 10 processes pairs on loopback, signed and sealed, beside the same training with no
network at all.

python benchmarks/live_rounds.py [--peers 10] [--rounds 50]

Digits, MLP 64-64-10, one local epoch at batch 8, random 4-regular graph. What is timed is the time after start-up: from the
moment all peers have mixed once, over links that are up by then, until the last is done. The asked number is 150 node-rounds
per second on two cores; the plain loop is what two cores could do if gossip, keys, sockets and processes cost nothing.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import torch

from node.local.network import local_network
from node.local.run import LocalRun, run_local
from p2pfl.learning.learner import data_of
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.settings import DataSection, TaskSection

ASKED = 150.0
BATCH = 8
RATE = 0.1
SEED = 7


def ours(peers: int, rounds: int) -> tuple[float, float]:
    """(node-rounds per second, mean accuracy) of real peers."""
    network = local_network(
        [f"peer-{i}" for i in range(peers)],
        name="live rounds",
        seed=SEED,
        rounds=rounds,
        training={"local_epochs": 1, "batch_size": BATCH, "learning_rate": RATE},
        topology={"kind": "random_regular:4"},
    )
    ended: list[float] = []
    begun: list[tuple[float, int]] = []  # when all had mixed once, and how many steps they had taken by then

    def watch(run: LocalRun) -> None:
        steps = [peer.step for peer in run.peers]
        if not begun and min(steps) >= 1:
            begun.append((perf_counter(), sum(steps)))
        if not ended and min(steps) == rounds:
            ended.append(perf_counter())

    with tempfile.TemporaryDirectory() as directory:
        run = run_local(network, Path(directory), watch=watch)
    (begin, taken), end = begun[0], ended[0]
    accuracies = [peer.rounds[-1]["accuracy"] for peer in run.peers]
    return (peers * rounds - taken) / (end - begin), sum(accuracies) / peers


def plain_loop(peers: int, rounds: int) -> float:
    """Node-rounds per second of the same local epochs over as many modules, in one process on one thread, twice: two cores."""
    torch.set_num_threads(1)
    task = resolve(TaskSection(), DataSection(), SEED)
    modules = [task.model() for _ in range(peers)]
    sets = [data_of(task, TaskPeer(i, peers))[0] for i in range(peers)]
    begin = perf_counter()
    for _ in range(rounds):
        for module, (inputs, targets) in zip(modules, sets, strict=True):
            parameters = list(module.parameters())
            for x, y in zip(inputs.split(BATCH), targets.split(BATCH), strict=True):
                gradients = torch.autograd.grad(torch.nn.functional.cross_entropy(module(x), y), parameters)
                with torch.no_grad():
                    torch._foreach_add_(parameters, gradients, alpha=-RATE)
    return 2 * peers * rounds / (perf_counter() - begin)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=50)
    arguments = parser.parse_args()
    rate, accuracy = ours(arguments.peers, arguments.rounds)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    limit = plain_loop(arguments.peers, max(5, arguments.rounds // 5))
    print(f"real peers, signed and sealed   {rate:7.0f} node-rounds/s   (asked {ASKED:.0f})   accuracy {accuracy:.3f}")
    print(f"training alone, on two cores    {limit:7.0f} node-rounds/s   ours is {rate / limit:.0%} of it")
    print(f"processor time of all processes {used.ru_utime + used.ru_stime:7.1f} s, start-up included")
    return int(rate < ASKED)


if __name__ == "__main__":
    sys.exit(main())
