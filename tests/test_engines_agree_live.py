"""The third engine: real processes over real ZeroMQ links give the models that the simulators give."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.local.network import local_network
from node.local.outcome import mixed_vectors
from node.local.run import run_local
from sim.batch import run_batch
from tests.worlds import world

pytestmark = pytest.mark.net

# A busy machine may stall a process for long; here every round must wait for everybody, so that what is compared is the same.
PATIENT = {"floor_s": 60.0, "ceiling_s": 60.0, "gather_s": 60.0}


def live_vectors(topology: str, peers: int, rounds: int, directory: Path, **training: Any) -> np.ndarray:
    """The final vectors [peers, D] of as many pairs of processes."""
    network = local_network(
        [f"peer-{i}" for i in range(peers)],
        name="agreement",
        seed=7,
        rounds=rounds,
        task={"name": "digits"},
        data={"partition": "dirichlet:0.5"},
        training=training,
        topology={"kind": topology},
        gossip=PATIENT,
    )
    run = run_local(network, directory)
    assert [peer.state for peer in run.peers] == ["done"] * peers
    assert all(not line["missing"] and not line["rejected"] for peer in run.peers for line in peer.rounds)
    return np.stack([mixed_vectors(peer)[-1] for peer in run.peers])


@pytest.mark.parametrize(("topology", "peers"), [("ring", 8), ("random_regular:4", 16)])
@pytest.mark.parametrize(
    ("training", "bound"),
    [
        pytest.param({"local_steps": 0, "initial": "own"}, 1e-6, id="gossip alone"),
        pytest.param({"local_steps": 10, "batch_size": 8}, 1e-4, id="training"),
    ],
)
def test_real_processes_come_to_the_models_that_the_batched_engine_computes(
    topology: str,
    peers: int,
    training: dict[str, Any],
    bound: float,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = world(topology, peers, rounds=20, **training)
    batch = run_batch(run.task, run.peers, run.training, run.codec, run.limits, run.weights, run.rounds, run.seed)
    live = live_vectors(topology, peers, 20, tmp_path, **training)
    difference = float(np.abs(live - batch.parameters).max())
    with capsys.disabled():
        print(f"\n{topology}, {peers} peers: real processes and batch differ by at most {difference:.1e}")
    assert difference <= bound
