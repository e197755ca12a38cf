"""What an engine is given: everything that a scenario says, looked up and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.data.tensors import as_tensors
from p2pfl.learning.learner import label_counts
from p2pfl.learning.task import Task, TaskPeer
from p2pfl.learning.tasks import resolve
from p2pfl.settings import CodecSection, GossipSection, LimitsSection, TrainingSection
from p2pfl.task_file import blamed, load
from sim.network import NetworkSection
from sim.scenario import Scenario
from topology import Graph, TopologyError, from_specification, neighbor_weights

OnRound = Callable[[int, NDArray[np.float64]], None]
"""Called once per accuracy row, in order, row 0 included: (row, accuracy of every peer, NaN where it was not measured)."""

OnTrace = Callable[[dict[str, object]], None]
"""Called once per line of the trace, in order; values are what JSON knows. Bytes are written as hex by the caller."""


@dataclass(frozen=True, slots=True)
class World:
    """A federation that can be run. Peers are 0 .. peers - 1; the same seed gives the same run.

    graph: nodes 0 .. peers - 1; an edge i -> j means that i sends to j, an undirected one both.
    weights: weights[i][j] is what i gives to what comes from j, itself included; every row sums to 1.
    samples: training rows of every peer, [peers]. label_counts: [peers, classes], [peers, 0] where targets are no classes.
    evaluate_every: row r of the accuracy is measured when r is a multiple of it, and in row 0 and the last always.
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
    graph: Graph
    weights: tuple[dict[int, float], ...]
    samples: NDArray[np.int64]
    label_counts: NDArray[np.float64]
    evaluate_every: int = 1

    def is_measured(self, row: int) -> bool:
        """Whether this row of the accuracy is wanted."""
        return row % self.evaluate_every == 0 or row == self.rounds

    def send_to(self, peer: int) -> tuple[int, ...]:
        """Whom this peer sends to, in ascending order."""
        graph = self.graph
        return tuple(sorted(graph.successors(peer) if isinstance(graph, nx.DiGraph) else graph.neighbors(peer)))


def world_of(scenario: Scenario) -> World:
    """Look up what a scenario names. Whatever can't be is a `Failure` here, before anything runs."""
    peers = scenario.peers
    graph, weights = _graph(scenario)
    task = scenario.own_task or resolve(scenario.task, scenario.data, scenario.seed, lambda name: load(scenario.beside(name)))
    samples, counts = _census(task, peers)
    training = scenario.training
    if training.weighting == "samples" and training.mean_samples is None:
        training = training.model_copy(update={"mean_samples": max(1, round(samples.mean()))})
    return World(
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
        graph=graph,
        weights=weights,
        samples=samples,
        label_counts=counts,
        evaluate_every=scenario.output.evaluate_every,
    )


def _graph(scenario: Scenario) -> tuple[Graph, tuple[dict[int, float], ...]]:
    section = scenario.topology
    try:
        if scenario.own_graph is not None:
            graph = _numbered(scenario.own_graph, scenario.peers)
        else:
            arguments = section.model_dump(exclude={"kind", "weights", "seed"})
            seed = scenario.seed if section.seed is None else section.seed
            graph = from_specification(section.kind, scenario.peers, seed, **arguments)
        return graph, tuple(neighbor_weights(graph, section.weights))
    except TopologyError as error:
        raise Failure(error.code, f"topology: {error.message}", error.hint) from None


def _numbered(graph: "nx.Graph[Any]", peers: int) -> Graph:
    """A user's graph on 0 .. n-1, in the sorted order of its nodes."""
    if len(graph) != peers:
        raise TopologyError(f"the graph has {len(graph)} nodes, not {peers}.", "Leave out peers, or make them the same.")
    if graph.is_multigraph():
        raise TopologyError("the graph has parallel edges.", "Give nx.Graph(graph) or nx.DiGraph(graph).")
    ordered: Graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    ordered.remove_edges_from(list(nx.selfloop_edges(ordered)))
    return ordered


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
