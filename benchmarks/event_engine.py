"""The event engine: a run of a thousand peers under churn, and what one message and one empty event cost.

    python benchmarks/event_engine.py [--peers 1000] [--rounds 60]

Targets: at most 120 s and 2 GB for examples/churn.toml, report included; at most 100 us of engine and protocol a message, with
accounted crypto; at most 10 us an empty event. A message is an update from one peer to one other, with its share of all else
that a round takes but what the peers learn (decode, mix, train, encode), which is timed in the same run and given beside it.
Also beside them, measured in the same process: a bare heap of as many events, and the same local steps as one vmap call a
round, which is what no engine can beat without another way of learning. Times are of this process's CPU, so that a busy machine
blurs them less; the run is given in seconds of the clock too.
"""

import argparse
import heapq
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time

import torch

from p2pfl.learning.learner import Computed, Learner, LearnerState
from p2pfl.learning.parameters import Model
from p2pfl.learning.task import TaskPeer
from p2pfl.learning.together import Assignment, learn_together
from p2pfl.protocol.events import Learn
from p2pfl.report.page import render
from sim.agenda import Agenda
from sim.engine import run
from sim.events import Federation
from sim.scenario import Scenario
from sim.together import Together
from sim.world import World, world_of

CHURN = Path(__file__).parent.parent / "examples" / "churn.toml"


def empty_event_us(count: int = 200_000) -> tuple[float, float]:
    """(ours, a bare heapq loop), both over entries that do nothing."""

    def nothing() -> None:
        pass

    agenda = Agenda()
    began = process_time()
    for i in range(count):
        agenda.at(i % 97 / 97, nothing)
    while agenda.step():
        pass
    ours = process_time() - began
    heap: list[tuple[float, int]] = []
    began = process_time()
    for i in range(count):
        heapq.heappush(heap, (i % 97 / 97, i))
    while heap:
        heapq.heappop(heap)
    return ours / count * 1e6, (process_time() - began) / count * 1e6


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds of one update, from one peer to one other: of engine and protocol, and of what its peers learn."""

    ours_us: float
    learning_us: float
    messages: int


def message_cost(peers: int, crypto: str) -> Cost:
    """20 rounds without evaluation on a network without loss. Whatever a live peer's trainer process would do (decode, mix,
    train, encode) is timed where the engine asks for it; all the rest of the run is the messages': their events, headers,
    checks, slots, links, invariants, and the part that every round of a peer takes beside its learning."""
    scenario = Scenario(
        task="synthetic",
        model="softmax",
        features=8,
        samples=10 * peers,
        classes=2,
        peers=peers,
        rounds=20,
        topology="random_regular:6",
        local_steps=1,
        batch_size=4,
        latency=0.05,
        crypto=crypto,
        evaluate_every=20,
        step_s=0.01,
    )
    federation = Federation(world_of(scenario), None, None)
    learning = _timed(federation.together)
    began = process_time()
    federation.run()
    total = process_time() - began
    messages = sum(federation.outcome().updates_sent)
    return Cost((total - learning()) / messages * 1e6, learning() / messages * 1e6, messages)


def _timed(together: Together) -> Callable[[], float]:
    """From now on, CPU seconds that this one's answers take."""
    answer, spent = together.answer, 0.0

    def timed(peer: int) -> tuple[LearnerState, Computed]:
        nonlocal spent
        began = process_time()
        try:
            return answer(peer)
        finally:
            spent += process_time() - began

    together.answer = timed  # type: ignore[method-assign]
    return lambda: spent


def learning_s(world: World, rounds: int) -> float:
    """CPU seconds of everybody's local steps, as one vmap call a round, and nothing else."""
    model = Model(world.task, world.seed)
    sections = world.training, world.codec, world.limits, world.seed, model
    learners = [Learner(bytes(32), world.task, TaskPeer(i, world.peers), *sections) for i in range(world.peers)]
    states = [learner.first() for learner in learners]
    began = process_time()
    for step in range(rounds):
        requests = [Learn(step, 0, (), {}, learner.local_steps, evaluate=False) for learner in learners]
        outcomes = learn_together([Assignment(*one) for one in zip(learners, states, requests, strict=True)])
        states = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    return process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ours, bare = empty_event_us()
    print(f"an empty event     {ours:8.2f} us; a bare heap {bare:.2f} us (target 10)")
    message_cost(10, "accounted")  # imports, and torch's first vmap
    for crypto in ("accounted", "real"):
        cost = min((message_cost(100, crypto) for _ in range(3)), key=lambda one: one.ours_us)
        print(f"a message          {cost.ours_us:8.1f} us with {crypto} crypto, over {cost.messages:,} (target 100, accounted)")
        print(f"                   {cost.learning_us:8.1f} us a message of what the peers learn, which is not in it")
    scenario = Scenario.from_toml(CHURN, [f"peers={options.peers}", f"rounds={options.rounds}"])
    clock, began = perf_counter(), process_time()
    result = run(scenario)
    page = render(result.record)
    cpu, clock = process_time() - began, perf_counter() - clock
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    messages = sum(peer.updates_sent for peer in result.record.peers)
    pure = learning_s(world_of(scenario), 3) * options.rounds / 3
    print(f"the run            {cpu:8.1f} s of CPU, {clock:.1f} s of the clock, {peak:,.0f} MB, page {len(page):,} bytes")
    print(f"  {result.events:,} events, {messages:,} updates; all local steps as one vmap call a round {pure:.1f} s of CPU")
    print("  (target 120 s and 2,000 MB)")


if __name__ == "__main__":
    main()
