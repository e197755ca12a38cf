"""What an algorithm of decentralised learning is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Model = Any
"""However the engine holds a model: one vector [D], or one array [peers, ...] per layer. Algorithms don't look inside."""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One round is local, then outgoing, then combine. All are pure.

    init(first) -> x:          the state of a peer from the run's first vector
    local(x, descend) -> y:    `descend` takes this round's steps of SGD from a model and returns where it arrives
    outgoing(y) -> z:          what neighbors see of it, through the codec
    combine(y, mixed) -> x:    `mixed` is y moved towards the neighbors' z by the aggregator
    """

    init: Callable[[Model], Model]
    local: Callable[[Model, Callable[[Model], Model]], Model]
    outgoing: Callable[[Model], Model]
    combine: Callable[[Model, Model], Model]
