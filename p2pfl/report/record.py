"""The record of one run: what the demo, a node and both simulators hand to the page, the JSON and the CSV."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """One row of the per-peer table. Bytes are what the links carried, envelope included; `samples` are training rows."""

    name: str
    state: Literal["done", "killed", "stopped", "failed"]
    accuracy: float  # of its last evaluation, NaN where there is none
    loss: float
    samples: int
    bytes_sent: int
    bytes_received: int
    updates_sent: int
    updates_applied: int
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened at a round (may lie between two): a kill, a restart, a fault. For the time line."""

    round: float
    text: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of n peers and R rounds. Arrays have row 0 before training, row r after the r-th mix, NaN where a peer is away.

    accuracy, loss, alone_accuracy: [R + 1, n]; alone is the same first model, steps and data with no mixing, empty [0, n]
    where it was not run. consensus_distance: [R + 1], sqrt(mean_i ||x_i - mean x||^2). bytes_sent: [R + 1, n], cumulative.
    label_counts: [n, classes] training rows per class, empty [n, 0] where targets are no classes. edges are (i, j), i sends
    to j; undirected graphs list each edge once. up: [R, n], who was up in round r; empty [0, 0] where all were, always.
    link_bytes: [edges], what was sent on each, both ways where the graph is undirected; empty where not counted, as with
    links that are others every round.
    """

    title: str
    engine: str  # "node", "events" or "batch"
    abstracts: str  # one sentence: what this engine leaves out of reality
    seed: int
    settings: Mapping[str, Any]  # the resolved configuration
    seconds: float
    peers: tuple[PeerRecord, ...]
    edges: tuple[tuple[int, int], ...]
    directed: bool
    accuracy: Float
    loss: Float
    alone_accuracy: Float
    consensus_distance: Float
    bytes_sent: Float
    labels: tuple[str, ...]
    label_counts: Float
    marks: tuple[Mark, ...] = ()
    up: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), dtype=np.bool_))
    link_bytes: Float = field(default_factory=lambda: np.empty(0))
