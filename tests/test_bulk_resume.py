"""A transfer that is cut off again and again, between real processes: what has arrived never travels a second time."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests import history
from tests.cluster import BRISK, Cluster, benched

pytestmark = pytest.mark.net

VALUES = 4_000_000  # float32
MODEL_BYTES = 4 * VALUES

TASK = f"""
import torch
from p2pfl import Task

class Weights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.randn({VALUES}))

    def forward(self, inputs):
        return inputs

def data(peer):
    pair = torch.zeros(1, 1), torch.zeros(1, 1)
    return pair, pair

task = Task(model=Weights, data=data, evaluate=lambda module, inputs, targets: {{"loss": 0.0}})
"""


@pytest.mark.fault("broken transfers")
@benched()
async def test_an_update_that_is_cut_off_goes_on_at_the_missing_chunk(tmp_path: Path) -> None:
    """Sixteen chunks, and no connection that carries more than a quarter of them: begun anew each time they would never be
    there. All that crosses, from A to B over whichever of their links, is less than one and a half models. What B sends is
    slower, so that A waits in its round until the end; and B, whose round is over first, stays while it has a link to A, which
    no stall of this machine may cost it."""
    (tmp_path / "weights.py").write_text(TASK)
    gossip = {"ceiling_s": 60.0, "gather_s": 60.0, "checkpoint_s": 1e6}
    task = {"name": str(tmp_path / "weights.py")}
    patient = replace(BRISK, heartbeat_s=5.0)
    bench = Cluster(2, tmp_path, rounds=1, gossip=gossip, task=task, training={"local_steps": 0}, patience=patient)
    a, b = bench.nodes
    ways = (b.proxy.toward(a.name), a.proxy.back(b.name))
    for way in ways:
        way.limit_bytes = MODEL_BYTES / 4
    a.proxy.toward(b.name).bytes_per_s = b.proxy.back(a.name).bytes_per_s = 3e6

    async with bench as cluster:
        await cluster.until(lambda: all(node.is_finished for node in cluster.nodes))
        assert MODEL_BYTES < sum(way.passed for way in ways) < 1.5 * MODEL_BYTES
        (last,) = (line for line in b.rounds if line["step"] == 1)
        assert last["applied"] == 1 and not last["missing"] and not last["rejected"]
        history.checked(cluster.histories())
