"""What comes out of a run."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from p2pfl.report.record import Float, RunRecord


@dataclass(frozen=True, slots=True)
class Result:
    """The peers' last models, and the record that the page is made from.

    parameters: float32 [peers, D], after the last mix; rows in the order of the peers. The arrays below have row 0 before
    training and row r after the r-th mix, NaN where a peer was away or the row was not measured.
    """

    parameters: NDArray[np.float32] = field(repr=False)
    record: RunRecord = field(repr=False)
    events: int = 0
    """That the event engine handled; 0 of the batched engine."""

    @property
    def accuracy(self) -> Float:
        """[rounds + 1, peers], on the common test set."""
        return self.record.accuracy

    @property
    def loss(self) -> Float:
        """[rounds + 1, peers], on the common test set."""
        return self.record.loss

    @property
    def alone_accuracy(self) -> Float:
        """[rounds + 1, peers] with the same first model, steps and data but no gossip; [0, peers] where it was not run."""
        return self.record.alone_accuracy

    @property
    def consensus_distance(self) -> Float:
        """[rounds + 1], sqrt(mean_i ||x_i - mean x||^2)."""
        return self.record.consensus_distance

    @property
    def up(self) -> NDArray[np.bool_]:
        """[rounds, peers], who was up in which round."""
        up, (rows, peers) = self.record.up, self.record.accuracy.shape
        return up if up.size else np.ones((max(rows - 1, 0), peers), dtype=np.bool_)

    @property
    def bytes_sent(self) -> NDArray[np.int64]:
        """[peers], in the whole run, envelope included."""
        return np.array([peer.bytes_sent for peer in self.record.peers], dtype=np.int64)

    @property
    def rejected(self) -> dict[str, int]:
        """Refusals by reason, over all peers."""
        return dict(sum((Counter(peer.rejected) for peer in self.record.peers), Counter()))

    @property
    def seconds(self) -> float:
        """Wall time of the run, the one without gossip included."""
        return self.record.seconds
