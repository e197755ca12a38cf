"""Bytes by the edges of a graph, however its links are walked."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from topology import Graph

Whole = NDArray[np.int64]
Edges = tuple[tuple[int, int], ...]


def edges_of(graph: Graph) -> Edges:
    """(i, j), i sends to j; of an undirected graph each edge once, with i < j. Ascending."""
    pairs = ((int(i), int(j)) for i, j in graph.edges)
    return tuple(sorted(pair if graph.is_directed() else (min(pair), max(pair)) for pair in pairs))


class LinkBytes:
    """What was sent on every edge: both ways where the graph is undirected. What passes between others is not counted, such as
    credit that goes against the direction of an edge."""

    def __init__(self, graph: Graph) -> None:
        edges = np.array(edges_of(graph), dtype=np.int64).reshape(-1, 2)
        self._peers = len(graph)
        self._is_directed = graph.is_directed()
        self._codes = self._coded(edges[:, 0], edges[:, 1])
        self._walked: tuple[Whole, Whole] | None = None
        self._places = self._is_there = np.empty(0, dtype=np.int64)
        self.total = np.zeros(len(edges))

    def add(self, senders: Whole, receivers: Whole, sizes: NDArray[np.integer]) -> None:
        """senders, receivers, sizes: [messages]."""
        if self._walked is None or self._walked[0] is not senders or self._walked[1] is not receivers:
            codes = self._coded(senders, receivers)
            places = np.minimum(np.searchsorted(self._codes, codes), max(len(self._codes) - 1, 0))
            self._is_there = np.flatnonzero(self._codes[places] == codes) if len(self._codes) else np.empty(0, dtype=np.int64)
            self._places = places[self._is_there]
            self._walked = senders, receivers
        self.total += np.bincount(self._places, sizes[self._is_there], len(self.total))

    def add_pairs(self, sent: Mapping[tuple[int, int], int]) -> None:
        """sent: by (sender, receiver)."""
        pairs = np.array(list(sent), dtype=np.int64).reshape(-1, 2)
        self.add(pairs[:, 0], pairs[:, 1], np.array(list(sent.values()), dtype=np.int64))

    def _coded(self, senders: Whole, receivers: Whole) -> Whole:
        if self._is_directed:
            return senders * self._peers + receivers
        return np.minimum(senders, receivers) * self._peers + np.maximum(senders, receivers)
