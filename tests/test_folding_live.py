"""Folding in real nodes, which here have no memory for two updates at once, however small."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests import history
from tests.cluster import BRISK, Cluster, benched

pytestmark = pytest.mark.net


@benched()
async def test_nodes_that_fold_apply_everything_that_was_sent(tmp_path: Path) -> None:
    async with Cluster(4, tmp_path, topology="complete", rounds=6, folds=True) as cluster:
        await cluster.until(lambda: all(node.is_finished for node in cluster.nodes))
        balance = history.checked(cluster.histories())
        assert balance.sent == balance.applied + balance.superseded == 6 * 4 * 3
        folds = [line for node in cluster.nodes for line in node.lines() if line["what"] == "fold"]
        assert len(folds) == balance.applied
        last = [node.rounds[-1]["loss"] for node in cluster.nodes]
        assert max(last) < cluster.nodes[0].rounds[0]["loss"]


@pytest.mark.fault("trainer")
@benched()
async def test_a_trainer_that_dies_with_what_was_folded_costs_that_and_the_node_goes_on(tmp_path: Path) -> None:
    """One neighbor stands still, and its link is not given up for long, so that the sum waits for it when its trainer is
    killed."""
    patient = replace(BRISK, heartbeat_s=5.0)
    gossip = {"floor_s": 4.0, "ceiling_s": 4.0, "gather_s": 8.0, "checkpoint_s": 0.2}
    async with Cluster(3, tmp_path, topology="complete", gossip=gossip, patience=patient, folds=True) as cluster:
        node, _, idler = cluster.nodes

        def holds_a_sum() -> bool:
            whats = [line["what"] for line in node.lines() if line["what"] in ("fold", "learned")]
            return whats[-1:] == ["fold"]

        await cluster.hear_each_other()
        cluster.pause(idler)
        await cluster.until(holds_a_sum)
        os.kill(node.ready["pid"], signal.SIGKILL)
        await cluster.until(lambda: any(one["kind"] in ("fold_failed", "learn_failed") for one in node.incidents))
        cluster.resume(idler)
        await cluster.hear_each_other()
        await cluster.stop(*cluster.nodes)
        balance = history.checked(cluster.histories())
        assert balance.lost >= 1 and balance.rejected == 0 and balance.lives == 3  # what a stop interrupts is lost as well
