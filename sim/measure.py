"""What a run of the event engine leaves behind, row by row: accuracy, loss, consensus distance, bytes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.world import OnRound

Float = NDArray[np.float64]


@dataclass(slots=True)
class _Row:
    """A row on its way to being complete: how many vectors came, and of their differences from the first the sum and the sum
    of the squared norms. From the first, because equal vectors are then exactly 0 apart."""

    count: int = 0
    first: Float = field(default_factory=lambda: np.zeros(0))
    total: Float = field(default_factory=lambda: np.zeros(0))
    squares: float = 0.0

    def joined(self, vector: Float) -> float:
        """The consensus distance of all who came, this vector among them."""
        if self.count == 0:
            self.first, self.total = vector, np.zeros_like(vector)
        apart = vector - self.first
        self.total += apart
        self.squares += float(apart @ apart)
        self.count += 1
        mean = self.total / self.count
        # The mean of the squared distances, as E||x||^2 - ||E x||^2, in float64: no vector has to be kept but the first.
        return float(np.sqrt(max(self.squares / self.count - float(mean @ mean), 0.0)))

    def close(self) -> None:
        """Whoever comes later is measured, but not compared."""
        self.first = self.total = np.zeros(0)


class Measures:
    """[rows, peers] arrays that fill up as peers end their rounds; NaN where one never came by."""

    def __init__(self, rounds: int, peers: int, on_round: OnRound | None) -> None:
        self.accuracy: Float = np.full((rounds + 1, peers), np.nan)
        self.loss: Float = np.full((rounds + 1, peers), np.nan)
        self.bytes_sent: Float = np.zeros((rounds + 1, peers))
        self.bytes_received: Float = np.zeros((rounds + 1, peers))
        self.consensus_distance: Float = np.full(rounds + 1, np.nan)
        self.up = np.zeros((rounds, peers), dtype=bool)
        self._is_up = np.zeros(peers, dtype=bool)
        self._begun = 0
        self._rows = [_Row() for _ in range(rounds + 1)]
        self._reached = [-1] * peers
        self._passed = [0] * (rounds + 1)  # how many of those who are up have ended each row, or a later one
        self._count_up = 0
        self._closed = 0  # rows that everybody who is up has ended
        self._reported = 0
        self._on_round = on_round

    def ended(
        self, row: int, peer: int, mixed: NDArray[np.float32], metrics: dict[str, float], sent: int, received: int
    ) -> None:
        """A peer mixed for the `row`-th time; `mixed` is its vector then. Rows it jumped over keep its last bytes.

        A peer that is started again ends the row of its checkpoint once more: its first time counts.
        """
        if row <= self._reached[peer]:
            return
        self.accuracy[row, peer] = metrics.get("accuracy", np.nan)
        self.loss[row, peer] = metrics.get("loss", np.nan)
        self.bytes_sent[row:, peer], self.bytes_received[row:, peer] = sent, received
        if row >= self._closed:
            self.consensus_distance[row] = self._rows[row].joined(mixed.astype(np.float64))
        if self._is_up[peer]:
            self._pass(self._reached[peer] + 1, row, 1)
        self._reached[peer] = row
        if row >= self._begun:  # the first who ends it
            self.up[self._begun : row + 1] = self._is_up
            self._begun = row + 1
        self._report()

    def came(self, peer: int) -> None:
        """A peer is up from now on."""
        self._count(peer, True)

    def went(self, peer: int) -> None:
        """A peer is away from now on; nobody waits for its rows."""
        self._count(peer, False)
        self._report()

    @property
    def round(self) -> float:
        """Which the first of the peers is in: the same that `up` counts by."""
        return float(self._begun)

    def _count(self, peer: int, is_up: bool) -> None:
        if self._is_up[peer] != is_up:
            self._is_up[peer] = is_up
            self._count_up += 1 if is_up else -1
            self._pass(0, self._reached[peer], 1 if is_up else -1)

    def _pass(self, first: int, last: int, by: int) -> None:
        for row in range(first, last + 1):
            self._passed[row] += by

    def _report(self) -> None:
        """Rows are closed in order, when everybody who is up has ended them. They are reported then too, or before that, when
        half of those who are up have ended the next: so that no straggler hides how far the others are. Where nobody is up, the
        furthest counts."""
        while self._closed < len(self._rows) and self._is_passed(self._closed, self._count_up):
            self._rows[self._closed].close()
            self._closed += 1
        half = self._count_up - (self._count_up - 1) // 2
        while self._reported < len(self._rows) and (
            self._reported < self._closed
            or (self._reported + 1 < len(self._rows) and self._is_passed(self._reported + 1, half))
        ):
            if self._on_round is not None:
                self._on_round(self._reported, self.accuracy[self._reported])
            self._reported += 1

    def _is_passed(self, row: int, count: int) -> bool:
        """Whether so many of those who are up have ended this row."""
        return self._passed[row] >= count if self._count_up else row <= max(self._reached)
