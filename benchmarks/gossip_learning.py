"""Gossip learning in both engines, beside the public package gossipy-dfl and a plain loop that says what accuracy is right.

python benchmarks/gossip_learning.py [--env FOLDER]

100 peers on a random 20-regular graph, logistic regression on digits, 16 rows a peer of a Dirichlet 0.5 mixture, batch 8: in
every period each peer pushes its model to one random neighbor, and a model that comes is merged by age. A node-round is one
period of one peer: two local steps, a push, a merge. All get the same rows, first model and graph, and evaluate at the end
after all rounds. Times are of CPU, so that a busy machine does not blur them, and the fastest turn of each counts; the batched
engine goes on for thirty times the rounds, because it is over too soon to be timed. The learning rate is gossipy's example's.

gossipy-dfl runs in an environment of its own, made in FOLDER (.p2pfl/gossipy) if there is none: it sees this one's torch, numpy
and networkx, and is given what else it imports. It imports torchvision without declaring it, for data sets that are not used
here: an empty module of that name is put into that environment. Both its ways to merge are run, the one by age and the plain
mean. Neither is a reference for accuracy, its merge by age divides every step by the age: the plain loop is.
"""

import argparse
import json
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import process_time

import networkx as nx
import numpy as np
import torch

from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from sim.batch import run_batch
from sim.events import Federation
from sim.masks import Masks
from sim.merging import Pushes
from sim.scenario import Scenario
from sim.world import World, world_of

PEERS, DEGREE, ROWS, BATCH, RATE, ROUNDS, TURNS, SEED = 100, 20, 16, 8, 1.0, 60, 2, 7
ASKED_EVENTS, ASKED_BATCH = 5.0, 50.0
LONGER = 30  # times the rounds, for the batched engine
SLACK = 0.01  # of accuracy: what another order of random pushes changes
KINDS = "age", "mean"
RIVAL = Path(__file__).parent / "rivals" / "gossipy_push.py"
NEEDS = ("matplotlib", "pandas", "scikit-learn", "dill", "rich", "networkx")


@dataclass(frozen=True, slots=True)
class Turn:
    """CPU seconds of all rounds, and the mean accuracy of the peers at the end."""

    seconds: float
    accuracy: float

    @property
    def rate(self) -> float:
        """Node-rounds a second."""
        return PEERS * ROUNDS / self.seconds


def world() -> World:
    """A local step takes half a period, so that peers learn at the same time, as they do where training is what takes time."""
    return world_of(
        Scenario(
            peers=PEERS,
            rounds=ROUNDS,
            seed=SEED,
            task={"name": "digits", "model": "softmax"},
            data={"partition": "dirichlet:0.5", "samples_per_peer": ROWS},
            topology=f"random_regular:{DEGREE}",
            gossip={"mode": "async"},
            training={"batch_size": BATCH, "learning_rate": RATE},
            compute={"step_s": 0.5},
            network={"crypto": "accounted"},
            output={"evaluate_every": ROUNDS, "alone": False},
        )
    )


def events(of: World) -> Turn:
    """Real peers, their messages and all checks; from the first event to the last."""
    federation = Federation(of, None, None)
    began = process_time()
    federation.run()
    return Turn(process_time() - began, float(np.nanmean(federation.outcome().accuracy[-1])))


def batch(of: World) -> Turn:
    """From after the first evaluation to after the last, thirty-one in all."""
    moments: list[float] = []
    pushes = Pushes(of.weights, PEERS, Masks(), SEED)
    sections = of.training, of.codec, of.limits
    outcome = run_batch(
        of.task, PEERS, *sections, pushes, LONGER * ROUNDS, SEED, ROUNDS, lambda *_: moments.append(process_time())
    )
    return Turn((moments[-1] - moments[0]) / LONGER, float(np.mean(outcome.accuracy[ROUNDS])))


def plain_loop(given: dict[str, np.ndarray]) -> Turn:
    """Hegedus, Danner, Jelasity 2019, algorithm 1, as one writes it down: whoever gets a model merges it by age and trains."""
    chance = np.random.default_rng(SEED)
    inputs, targets = given["inputs"].astype(np.float64), given["targets"]
    weights = np.repeat(np.concatenate([given["weight"].T, given["bias"][None]])[None].astype(np.float64), PEERS, axis=0)
    ages, near = np.zeros(PEERS), [np.flatnonzero(row) for row in given["adjacency"]]
    inputs, test = (np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1) for x in (inputs, given["test_inputs"]))

    def train(peer: int) -> None:
        for rows in chance.permutation(ROWS).reshape(-1, BATCH):
            x, y = inputs[peer, rows], targets[peer, rows]
            scores = np.exp(x @ weights[peer] - (x @ weights[peer]).max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            scores[np.arange(BATCH), y] -= 1
            weights[peer] -= RATE * x.T @ scores / BATCH
            ages[peer] += 1

    began = process_time()
    for peer in range(PEERS):
        train(peer)
    for _ in range(ROUNDS):
        for sender in chance.permutation(PEERS):
            to = chance.choice(near[sender])
            share = ages[sender] / (ages[sender] + ages[to])
            weights[to] = (1 - share) * weights[to] + share * weights[sender]
            ages[to] = max(ages[to], ages[sender])
            train(to)
    seconds = process_time() - began
    return Turn(seconds, float(((test @ weights).argmax(axis=2) == given["test_targets"]).mean()))


def given_to_all(of: World) -> dict[str, np.ndarray]:
    """Everybody's rows, the first model, the graph and the test set."""
    pairs = [as_tensors(of.task.data(TaskPeer(i, PEERS))[0]) for i in range(PEERS)]
    model = Model(of.task, SEED)
    first = model.layout.unflatten(model.first)
    test = model.common_test()
    assert test is not None
    return {
        "inputs": torch.stack([inputs for inputs, _ in pairs]).numpy(),
        "targets": torch.stack([targets for _, targets in pairs]).numpy(),
        "weight": first["weight"].numpy(),
        "bias": first["bias"].numpy(),
        "adjacency": nx.to_numpy_array(of.graph, nodelist=range(PEERS)),
        "test_inputs": test[0].numpy(),
        "test_targets": test[1].numpy(),
    }


def rival_python(folder: Path) -> Path:
    """The interpreter of gossipy's environment, which is made where there is none. Raises `CalledProcessError`."""
    python = folder / "bin" / "python"
    if (folder / "ready").exists():
        return python
    print(f"making an environment for gossipy-dfl in {folder}")
    venv.create(folder, with_pip=True, clear=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "torchvision.py").write_text(
        '"""Empty: gossipy imports this name for data sets that the benchmark does not use."""\n'
    )
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for words in (["--no-deps", "gossipy-dfl==0.0.1"], list(NEEDS)):
        subprocess.run([*pip, *words], check=True, capture_output=True, text=True)
    (folder / "ready").touch()
    return python


def rival(python: Path, data: Path, kind: str) -> Turn:
    answer = data.with_suffix(".json")
    command = [str(python), str(RIVAL), str(data), str(ROUNDS), kind, str(RATE), str(BATCH), str(answer)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return Turn(**json.loads(answer.read_text()))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--env", type=Path, default=Path(".p2pfl/gossipy"), help="where gossipy-dfl is, or is installed to")
    torch.set_num_threads(1)
    of = world()
    given = given_to_all(of)
    best: dict[str, Turn] = {}
    rivals: dict[str, Callable[[], Turn]] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.npz")
        np.savez(data, **given)
        try:
            python = rival_python(parser.parse_args().env.absolute())
            rivals = {f"gossipy-dfl, {kind}": partial(rival, python, data, kind) for kind in KINDS}
        except (subprocess.CalledProcessError, OSError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            print(f"gossipy-dfl is missing: {said[-1] if said else error}")
        turns = {**rivals, "event engine": partial(events, of), "batched engine": partial(batch, of)}
        for name, turn in [*turns.items()] * TURNS:
            done = turn()
            print(f"{name}: {done.rate:,.0f} node-rounds/s", flush=True)
            best[name] = min(best.get(name, done), done, key=lambda one: one.seconds)
    best["plain loop"] = plain_loop(given)
    return judged(best)


def judged(best: dict[str, Turn]) -> int:
    """Print all and say whether what was asked is reached; 0 if it is, or nothing can be compared."""
    for name, turn in best.items():
        print(f"{name:28} {turn.rate:9,.0f} node-rounds/s   accuracy {turn.accuracy:.3f}")
    ours = best["event engine"], best["batched engine"]
    theirs = {name: turn for name, turn in best.items() if name.startswith("gossipy")}
    right = best["plain loop"].accuracy
    is_right = all(turn.accuracy >= max([right, *(one.accuracy for one in theirs.values())]) - SLACK for turn in ours)
    print(f"accuracy at least that of all others, less {SLACK}: {'yes' if is_right else 'no'}")
    if not theirs:
        return int(not is_right)
    for name, turn in theirs.items():
        times = [one.rate / turn.rate for one in ours]
        print(f"beside {name}: event engine {times[0]:.1f} times, batched engine {times[1]:.1f} times")
    age = next(turn for name, turn in theirs.items() if name.endswith("age"))
    print(f"asked, beside the merge by age: {ASKED_EVENTS:.0f} and {ASKED_BATCH:.0f} times")
    return int(not is_right or ours[0].rate < ASKED_EVENTS * age.rate or ours[1].rate < ASKED_BATCH * age.rate)


if __name__ == "__main__":
    sys.exit(main())
