"""The few numbers of a run: what `--json` prints and the last lines in the terminal say."""

import math
from typing import Any

import numpy as np

from p2pfl.report.record import Float, PeerRecord, RunRecord


def summary(record: RunRecord) -> dict[str, Any]:
    """JSON-ready. Killed peers are listed and left out of means and minima; what was not measured is None."""
    living = alive(record)
    accuracy = final_accuracy(record)[living]
    alone = final_alone(record)[living]
    return {
        "accuracy_mean": mean(accuracy),
        "accuracy_min": least(accuracy),
        "alone_mean": mean(alone),
        "consensus_distance": _number(record.consensus_distance[-1]) if len(record.consensus_distance) else None,
        "rounds": max(len(record.accuracy) - 1, 0),
        "seconds": record.seconds,
        "peers": [_peer(peer) for peer in record.peers],
    }


def alive(record: RunRecord) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """bool [n]: who counts in the means."""
    return np.array([peer.state != "killed" for peer in record.peers], dtype=np.bool_)


def final_accuracy(record: RunRecord) -> Float:
    return np.array([peer.accuracy for peer in record.peers], dtype=np.float64)


def final_alone(record: RunRecord) -> Float:
    """float64 [n], NaN where the run without mixing was not made."""
    if len(record.alone_accuracy) == 0:
        return np.full(len(record.peers), np.nan)
    last: Float = record.alone_accuracy[-1]
    return last


def mean(values: Float) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else None


def least(values: Float) -> float | None:
    finite = values[np.isfinite(values)]
    return float(finite.min()) if finite.size else None


def _peer(peer: PeerRecord) -> dict[str, Any]:
    return {
        "name": peer.name,
        "state": peer.state,
        "accuracy": _number(peer.accuracy),
        "bytes_sent": peer.bytes_sent,
        "bytes_received": peer.bytes_received,
        "updates_sent": peer.updates_sent,
        "updates_applied": peer.updates_applied,
        "rejected": dict(peer.rejected),
    }


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
