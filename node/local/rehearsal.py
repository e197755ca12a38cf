"""A federation of real processes under real kills, as a test asks for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.local.network import local_network
from node.local.outcome import mixed_vectors, record_of
from node.local.run import Kill, run_local
from p2pfl.report.record import RunRecord


def rehearse(
    title: str, peers: int, sections: Mapping[str, Any], kills: Mapping[int, float], pace_s: float, directory: Path
) -> tuple[NDArray[np.float32], RunRecord]:
    """Run `peers` real peers; `sections` are those of `LocalTerms`, `kills` the seconds at which peers are killed, `pace_s`
    what a round takes at least. Returns the last vectors [peers, D], NaN for who has none, and the record."""
    network = local_network([f"peer-{i}" for i in range(peers)], name="rehearsal", **sections)
    planned = [Kill(peer, after_s) for peer, after_s in sorted(kills.items())]
    run = run_local(network, directory, kills=planned, pace_s=pace_s)
    held = [mixed_vectors(peer) if peer.rounds else np.empty((0, 0), dtype=np.float32) for peer in run.peers]
    dimension = max(vectors.shape[1] for vectors in held)
    last = [vectors[-1] if len(vectors) else np.full(dimension, np.nan, dtype=np.float32) for vectors in held]
    return np.stack(last), record_of(run, title)
