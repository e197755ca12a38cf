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


class Measures:
    """[rows, peers] arrays that fill up as peers end their rounds; NaN where one never came by."""

    def __init__(self, rounds: int, peers: int, on_round: OnRound | None) -> None:
        self.accuracy: Float = np.full((rounds + 1, peers), np.nan)
        self.loss: Float = np.full((rounds + 1, peers), np.nan)
        self.bytes_sent: Float = np.zeros((rounds + 1, peers))
        self.bytes_received: Float = np.zeros((rounds + 1, peers))
        self.consensus_distance: Float = np.full(rounds + 1, np.nan)
        self._rows = [_Row() for _ in range(rounds + 1)]
        self._reached = np.full(peers, -1)
        self._reported = 0
        self._on_round = on_round

    def ended(
        self, row: int, peer: int, mixed: NDArray[np.float32], metrics: dict[str, float], sent: int, received: int
    ) -> None:
        """A peer mixed for the `row`-th time; `mixed` is its vector then. Rows it jumped over keep its last bytes."""
        self.accuracy[row, peer] = metrics.get("accuracy", np.nan)
        self.loss[row, peer] = metrics.get("loss", np.nan)
        self.bytes_sent[row:, peer], self.bytes_received[row:, peer] = sent, received
        state = self._rows[row]
        vector = mixed.astype(np.float64)
        state.total = vector if state.count == 0 else state.total + vector
        state.squares += float(vector @ vector)
        state.count += 1
        mean = state.total / state.count
        # The mean of the squared distances, as E||x||^2 - ||E x||^2, in float64: no vector has to be kept.
        self.consensus_distance[row] = np.sqrt(max(state.squares / state.count - float(mean @ mean), 0.0))
        self._reached[peer] = row
        self._report()

    def left(self, peer: int) -> None:
        """A peer will end no more rounds."""
        self._reached[peer] = len(self._rows) - 1
        self._report()

    def _report(self) -> None:
        while self._reported <= int(self._reached.min()):
            self._rows[self._reported].total = np.zeros(0)
            if self._on_round is not None:
                self._on_round(self._reported, self.accuracy[self._reported])
            self._reported += 1
