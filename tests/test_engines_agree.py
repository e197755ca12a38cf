"""One peer, three engines: with no loss and no delay, the same seed gives the same models."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sim.batch import BatchOutcome, run_batch
from sim.events import EventsOutcome, run_events
from sim.world import World
from tests.worlds import world

GRAPHS = {"ring of 8": ("ring", 8), "random 4-regular of 16": ("random_regular:4", 16)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def both(run: World) -> tuple[EventsOutcome, BatchOutcome]:
    batch = run_batch(run.task, run.peers, run.training, run.codec, run.limits, run.weights, run.rounds, run.seed)
    return run_events(run), batch


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("codec", "bound"), [("dense", 1e-6), ("float16", 1e-4)])
def test_gossip_without_training_agrees(name: str, codec: str, bound: float) -> None:
    """Every peer starts from a vector of its own, so that there is something to agree on. A value that lies between two halves
    may be rounded either way, so float16 agrees to an ulp of its own: 2**-13 of values below 1/4."""
    events, batch = both(world(*GRAPHS[name], local_steps=0, codec=codec, initial="own"))
    assert events.consensus_distance[0] > 1.0
    assert np.abs(events.parameters - batch.parameters).max() <= bound


@pytest.mark.parametrize("name", GRAPHS)
def test_training_on_digits_agrees_to_1e4_in_every_parameter(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The same minibatches in the same order; only the order of float32 reductions differs."""
    events, batch = both(world(*GRAPHS[name], rounds=20))
    difference = float(np.abs(events.parameters - batch.parameters).max())
    with capsys.disabled():
        print(f"\n{name}: events and batch differ by at most {difference:.1e}")
    assert difference <= 1e-4
    assert np.abs(events.consensus_distance - batch.consensus_distance).max() <= 1e-3
    assert np.abs(events.accuracy - batch.accuracy).max() <= 0.01


def test_momentum_weight_decay_and_unequal_steps_agree_too() -> None:
    run = world("ring", 8, rounds=6, local_epochs=1, batch_size=16, momentum=0.9, weight_decay=1e-3, learning_rate=0.02)
    events, batch = both(run)
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4


def test_directed_graphs_agree_too() -> None:
    events, batch = both(world("exponential", 8, rounds=4, weights="uniform"))
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4


def test_a_slow_network_changes_when_but_not_what() -> None:
    """Rounds wait for their neighbors, so latency alone must not change one bit of any model."""
    quick, slow = (run_events(world("ring", 8, rounds=5, latency=latency)) for latency in (0.0, 0.05))
    assert np.array_equal(quick.parameters, slow.parameters)
    assert slow.virtual_s > quick.virtual_s == 0.0


def test_the_same_seed_gives_the_same_run_and_another_seed_another() -> None:
    first, again, other = (run_events(world("ring", 5, rounds=3, seed=seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.parameters, again.parameters)
    assert not np.array_equal(first.parameters, other.parameters)
