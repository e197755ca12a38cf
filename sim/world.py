"""What an engine is given: everything that a scenario says, looked up and checked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import psutil
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning import minibatch
from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.learner import label_counts
from p2pfl.learning.streams import philox
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.rules import EDGE, LAN
from p2pfl.settings import CodecSection, GossipSection, LimitsSection, TrainingSection
from p2pfl.task_file import blamed, load
from sim import fault
from sim.churn import Change, ChurnSection, changes, read_trace
from sim.fault import FaultSection
from sim.founded import Overlay, identities_of
from sim.hostile import ATTACKS, ON_CLASSES
from sim.links import Latency, latency_of
from sim.memory import check_rows
from sim.network import ComputeSection, NetworkSection, Spread, spread
from sim.scenario import Scenario
from topology import (
    FORMATS,
    Graph,
    Schedule,
    TopologyError,
    decode_graph,
    from_networkx,
    from_specification,
    is_schedule,
    links,
    neighbor_weights,
    schedule_from_specification,
)
from topology.overlay import graph as overlay_graph

OnRound = Callable[[int, NDArray[np.float64]], None]
"""Called once per accuracy row, in order, row 0 included: (row, accuracy of every peer, NaN where it was not measured, or has
not been yet: of peers that come and go or run behind, a row is told when half of them have ended the next)."""

OnTrace = Callable[[dict[str, object]], None]
"""Called once per line of the trace, in order; values are what JSON knows. Bytes are written as hex by the caller."""


@dataclass(frozen=True, slots=True)
class World:
    """A federation that can be run. Peers are 0 .. peers - 1; the same seed gives the same run.

    graph: nodes 0 .. peers - 1; an edge i -> j means that i sends to j, an undirected one both.
    weights: weights[i][j] is what i gives to what comes from j, itself included; every row sums to 1.
    schedule: where links and weights are others every round: `graph` is that of a period or the first round, `weights` those of
    round 0. The weights of any round are `rows`.
    samples: training rows of every peer, [peers]. label_counts: [peers, classes], [peers, 0] where targets are no classes.
    latency: of every link, as `network.latency` says. step_s: seconds of a local step, before stragglers.
    round_s: virtual seconds that a round takes nominally: round r is the time from r * round_s to (r + 1) * round_s.
    sessions: of a trace of churn, when every peer comes and goes.
    evaluate_every: row r of the accuracy is measured when r is a multiple of it, and in row 0 and the last always.
    evaluated: whose accuracy and loss are measured, [peers]; always the same.
    overlay: of a founded network; `graph` and `weights` are then those while all are live.
    """

    task: Task
    names: tuple[str, ...]
    peers: int
    rounds: int
    seed: int
    training: TrainingSection
    codec: CodecSection
    limits: LimitsSection
    gossip: GossipSection
    network: NetworkSection
    compute: ComputeSection
    churn: ChurnSection
    faults: tuple[FaultSection, ...]
    latency: Latency
    step_s: Spread
    round_s: float
    sessions: tuple[tuple[Change, ...], ...]
    graph: Graph
    weights: tuple[dict[int, float], ...]
    schedule: Schedule | None
    samples: NDArray[np.int64]
    label_counts: NDArray[np.float64]
    evaluated: NDArray[np.bool_]
    evaluate_every: int = 1
    overlay: Overlay | None = None

    def rows(self, round: int) -> Sequence[Mapping[int, float]]:
        """The weights of a round."""
        return self.weights if self.schedule is None else self.schedule.rows(round)

    def send_to(self, peer: int) -> tuple[int, ...]:
        """Whom this peer sends to, in ascending order."""
        graph = self.graph
        return tuple(sorted(graph.successors(peer) if isinstance(graph, nx.DiGraph) else graph.neighbors(peer)))

    def changes(self, peer: int) -> Iterator[Change]:
        """When churn makes this peer come and go."""
        return changes(self.churn, peer, self.seed, self.sessions[peer] if self.sessions else ())


def world_of(scenario: Scenario) -> World:
    """Look up what a scenario names. Whatever can't be is a `Failure` here, before anything runs."""
    peers = scenario.peers
    graph, weights, schedule = _graph(scenario)
    task = task_of(scenario)
    samples, counts = _census(task, peers)
    training = scenario.training
    if training.weighting == "samples" and training.mean_samples is None:
        training = training.model_copy(update={"mean_samples": max(1, round(samples.mean()))})
    step_s, round_s = _pace(scenario, training, samples)
    trace = scenario.churn.trace
    world = World(
        task=task,
        names=tuple(f"peer-{i}" for i in range(peers)),
        peers=peers,
        rounds=scenario.rounds,
        seed=scenario.seed,
        training=training,
        codec=scenario.codec,
        limits=scenario.limits,
        gossip=scenario.gossip,
        network=scenario.network,
        compute=scenario.compute,
        churn=scenario.churn,
        faults=scenario.fault,
        latency=latency_of(scenario.network, peers, scenario.seed, scenario.beside),
        step_s=step_s,
        round_s=round_s,
        sessions=() if trace is None else read_trace(Path(scenario.beside(trace)), peers),
        graph=graph,
        weights=weights,
        schedule=schedule,
        samples=samples,
        label_counts=counts,
        evaluated=_sample(scenario.output.evaluate_peers, peers, scenario.seed),
        evaluate_every=scenario.output.evaluate_every,
        overlay=_overlay(scenario),
    )
    _check_time(world)
    return world


def task_of(scenario: Scenario) -> Task:
    """What is learned."""
    check_rows(scenario.task, scenario.data, scenario.peers, psutil.virtual_memory().available)
    return scenario.own_task or resolve(scenario.task, scenario.data, scenario.seed, lambda name: load(scenario.beside(name)))


def _sample(count: int | None, peers: int, seed: int) -> NDArray[np.bool_]:
    """[peers]: `count` of them, drawn by the seed; all where there are no more, or none is given."""
    chosen = np.zeros(peers, dtype=bool)
    chosen[philox(seed, 0, "evaluated", 0).permutation(peers)[:count]] = True
    return chosen


ROUND_S = 1.0  # what a mean peer's training takes in a round where something happens in time, and nothing else is said


def _pace(scenario: Scenario, training: TrainingSection, samples: NDArray[np.int64]) -> tuple[Spread, float]:
    """(seconds of a local step, seconds of a round)."""
    steps = float(np.mean([minibatch.steps_per_round(training, int(count)) for count in samples]))
    given = scenario.compute.step_s
    if given is not None:
        step_s = spread(given)
    else:
        is_timeless = scenario.churn.is_calm and not scenario.fault and scenario.topology.overlay is None
        step_s = Spread(0.0 if is_timeless or not steps else ROUND_S / steps)
    waits = scenario.gossip.period_s if scenario.gossip.mode == "async" else _mean_latency(scenario)
    return step_s, steps * step_s.mean + waits


def _mean_latency(scenario: Scenario) -> float:
    given = scenario.network.latency
    return spread(given, ("lognormal", "coordinates")).mean if not isinstance(given, str) or ":" in given else 0.0


def _check_time(world: World) -> None:
    is_timeless = world.churn.is_calm and not any(one.at > 0 or one.heal is not None for one in world.faults)
    if world.round_s == 0 and not is_timeless:
        raise Failure(
            "bad_configuration",
            "compute.step_s: no time passes in this scenario, so nobody can come or go in it.",
            "Give compute.step_s or network.latency.",
        )
    if world.round_s > 0:
        fault.check(world.faults, world, tuple(ATTACKS))
    for one in world.faults:
        if one.attack in ON_CLASSES and not world.task.labels:
            raise Failure(
                "bad_fault", f"fault: {one.attack} needs classes, and this task has no labels.", "Name labels in the task."
            )


def _graph(scenario: Scenario) -> tuple[Graph, tuple[dict[int, float], ...], Schedule | None]:
    section = scenario.topology
    try:
        if (overlay := _overlay(scenario)) is not None:
            graph = _whole(overlay, scenario)
        elif scenario.own_graph is not None:
            graph = _of_all(scenario.own_graph, scenario.peers)
        elif Path(section.kind).suffix.lower() in FORMATS:
            graph = _of_all(_read(Path(scenario.beside(section.kind))), scenario.peers)
        else:
            arguments = section.model_dump(exclude={"kind", "weights", "seed", "overlay", "timers"})
            seed = scenario.seed if section.seed is None else section.seed
            _check_size(section.kind, peers=scenario.peers)
            if is_schedule(section.kind):
                schedule = schedule_from_specification(section.kind, scenario.peers, seed, **arguments)
                return links(schedule), tuple(schedule.rows(0)), schedule
            graph = from_specification(section.kind, scenario.peers, seed, **arguments)
        return graph, tuple(neighbor_weights(graph, section.weights)), None
    except TopologyError as error:
        raise Failure(error.code, f"topology: {error.message}", error.hint) from None


def _overlay(scenario: Scenario) -> Overlay | None:
    section = scenario.topology
    if section.overlay is None:
        return None
    seed = scenario.seed if section.seed is None else section.seed
    return Overlay(section.overlay, section.degree or DEGREE, seed, TIMERS[section.timers])


def _whole(overlay: Overlay, scenario: Scenario) -> Graph:
    """The overlay while all are live."""
    ids = [identity.peer_id for identity in identities_of(scenario.seed, scenario.peers)]
    index = {peer: i for i, peer in enumerate(ids)}
    _check_size("complete" if overlay.kind in ("complete", "epidemic") else overlay.kind, scenario.peers)
    links = overlay_graph(overlay.kind, tuple(sorted(ids)), overlay.seed, overlay.degree)
    found: Graph = nx.Graph()
    found.add_nodes_from(range(len(ids)))
    found.add_edges_from((index[PeerId(one)], index[PeerId(other)]) for one, others in links.items() for other in others)
    return found


DEGREE = 4  # of an overlay, where none is given
TIMERS = {"lan": LAN, "edge": EDGE}

EDGE_BYTES = 340  # of an edge of a graph and its two weights, measured on 1,200 peers


def _check_size(kind: str, peers: int) -> None:
    """Before a graph is made that memory can't hold. All others have a bounded degree, or one that is asked for."""
    joined = {"complete": peers, "dumbbell": peers // 2}.get(kind.partition(":")[0].strip().lower(), 0)
    wanted, free = joined * (peers - 1) // 2 * EDGE_BYTES, psutil.virtual_memory().available
    if wanted > free:
        raise Failure(
            "too_many_peers",
            f"topology: {kind} of {peers:,} peers takes about {wanted / 1e9:,.1f} GB, and {free / 1e9:,.1f} GB are free.",
            "Take fewer peers, or a graph with fewer links, such as random_regular:6.",
        )


def _read(path: Path) -> Graph:
    try:
        return decode_graph(path.read_bytes(), path.suffix)
    except OSError as error:
        raise TopologyError(
            f"{path} can't be read: {error.strerror}.", "Give a file of a graph, beside the scenario."
        ) from None


def _of_all(graph: "nx.Graph[Any]", peers: int) -> Graph:
    """A user's graph on 0 .. n-1, in the sorted order of its nodes."""
    if len(graph) != peers:
        raise TopologyError(f"the graph has {len(graph)} nodes, not {peers}.", "Leave out peers, or make them the same.")
    return from_networkx(graph)


def _census(task: Task, peers: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """How many training rows every peer has, and how many of each class: so all data are seen before anything runs."""
    samples = np.zeros(peers, dtype=np.int64)
    counts = []
    for i in range(peers):
        with blamed(f"data of peer {i}"):
            train, _ = task.data(TaskPeer(i, peers))
        _, targets = as_tensors(train, f"the training data of peer {i}")
        samples[i] = len(targets)
        counts.append(label_counts(targets, len(task.labels)))
    table = np.zeros((peers, max(map(len, counts))))
    for row, count in zip(table, counts, strict=True):
        row[: len(count)] = count
    return samples, table
