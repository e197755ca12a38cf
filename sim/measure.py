"""What a run of the event engine leaves behind, row by row: accuracy, loss, consensus distance, bytes."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sim.world import OnRound

Float = NDArray[np.float64]


@dataclass(slots=True)
class _Row:
    """A row on its way to being complete: how many vectors came, their sum and the sum of their squared norms."""

    count: int = 0
    total: Float = field(default_factory=lambda: np.zeros(0))
    squares: float = 0.0

    def joined(self, vector: Float) -> float:
        """The consensus distance of all who came, this vector among them."""
        self.total = vector if self.count == 0 else self.total + vector
        self.squares += float(vector @ vector)
        self.count += 1
        mean = self.total / self.count
        # The mean of the squared distances, as E||x||^2 - ||E x||^2, in float64: no vector has to be kept.
        return float(np.sqrt(max(self.squares / self.count - float(mean @ mean), 0.0)))


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
        self._reached = np.full(peers, -1)
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
        if row >= self._reported:
            self.consensus_distance[row] = self._rows[row].joined(mixed.astype(np.float64))
        self._reached[peer] = row
        if row >= self._begun:  # the first who ends it
            self.up[self._begun : row + 1] = self._is_up
            self._begun = row + 1
        self._report()

    def came(self, peer: int) -> None:
        """A peer is up from now on."""
        self._is_up[peer] = True

    def went(self, peer: int) -> None:
        """A peer is away from now on; nobody waits for its rows."""
        self._is_up[peer] = False
        self._report()

    @property
    def round(self) -> float:
        """Which the first of the peers is in: the same that `up` counts by."""
        return float(self._begun)

    def _report(self) -> None:
        awaited = self._reached[self._is_up]
        least = int(awaited.min()) if len(awaited) else int(self._reached.max())
        while self._reported <= min(least, len(self._rows) - 1):
            self._rows[self._reported].total = np.zeros(0)  # whoever comes later is measured, but not compared
            if self._on_round is not None:
                self._on_round(self._reported, self.accuracy[self._reported])
            self._reported += 1
