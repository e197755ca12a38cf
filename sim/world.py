"""What an engine is given: everything that a scenario says, looked up and checked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.data.tensors import as_tensors
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
    training = scenario.training
    if training.weighting == "samples" and training.mean_samples is None:
        mean = sum(_samples(task, TaskPeer(i, peers)) for i in range(peers)) / peers
        training = training.model_copy(update={"mean_samples": max(1, round(mean))})
    else:
        _samples(task, TaskPeer(0, peers))  # a division that can't be is refused by the first peer already
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


def _samples(task: Task, peer: TaskPeer) -> int:
    with blamed(f"data of peer {peer.index}"):
        train, _ = task.data(peer)
    return len(as_tensors(train, f"the training data of peer {peer.index}")[1])
