"""What an engine is given: everything that a scenario says, looked up and checked."""

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from p2pfl.learning.task import Task
from p2pfl.settings import CodecSection, GossipSection, LimitsSection, TrainingSection
from sim.network import NetworkSection

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
    graph: "nx.Graph[int]"
    weights: tuple[dict[int, float], ...]
    evaluate_every: int = 1

    def is_measured(self, row: int) -> bool:
        """Whether this row of the accuracy is wanted."""
        return row % self.evaluate_every == 0 or row == self.rounds

    def send_to(self, peer: int) -> tuple[int, ...]:
        """Whom this peer sends to, in ascending order."""
        graph = self.graph
        return tuple(sorted(graph.successors(peer) if isinstance(graph, nx.DiGraph) else graph.neighbors(peer)))
