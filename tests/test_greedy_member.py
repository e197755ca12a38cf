"""A member that says no more than it may, and all of that: real nodes go on, and remember nothing of it."""

import asyncio
from pathlib import Path

import psutil
import pytest

from tests import history
from tests.cluster import Cluster, Node, benched
from tests.greedy_member import GreedyMember

pytestmark = pytest.mark.net
WIDE = {"name": "synthetic", "model": "softmax", "features": 1 << 16, "samples": 64, "classes": 8}  # an update of three chunks
JUNK = 200
UPDATE_BYTES = 4 * 8 * ((1 << 16) + 1)


async def peak_of(node: Node) -> int:
    """The most memory that its network process had, until this is cancelled."""
    assert node.process is not None
    looked, peak = psutil.Process(node.process.pid), 0
    try:
        while True:
            peak = max(peak, looked.memory_info().rss)
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        return peak


def books(of: Node, with_: Node) -> tuple[int, ...]:
    """Its newest counts with this one."""
    return next(tuple(line["counts"]) for line in reversed(of.lines()) if line["what"] == "pair" and line["peer"] == with_.name)


async def all_is_well(cluster: Cluster, liar: Node) -> None:
    """The member is itself again, everybody hears everybody, and the books of the honest are right."""
    await cluster.restart(liar)
    await cluster.hear_each_other()
    await cluster.stop(*cluster.nodes)
    history.checked({name: lines for name, lines in cluster.histories().items() if name != liar.name})


@pytest.mark.fault("flood")
@benched(150)
async def test_valid_updates_at_100_mb_a_second_are_superseded_and_the_honest_neighbor_is_mixed(tmp_path: Path) -> None:
    """FAULTS 46. Far below what a member may send, and every one of them opened."""
    async with Cluster(3, tmp_path, topology="complete", task=WIDE) as cluster:
        victim, honest, liar = cluster.nodes
        await cluster.hear_each_other()
        cluster.kill(liar)
        async with GreedyMember(cluster, liar) as greedy:
            await greedy.meet(victim)
            assert victim.process is not None and greedy.charter.update_bytes == UPDATE_BYTES
            before, began = psutil.Process(victim.process.pid).memory_info().rss, len(victim.rounds)
            watching = asyncio.create_task(peak_of(victim))
            await greedy.flood(victim, 3.0, bytes_per_s=100e6)
            await cluster.reach(2, victim, honest)
            watching.cancel()
            assert await watching - before <= 8 * UPDATE_BYTES
        flooded = victim.rounds[began:]
        mixed = [line for line in flooded if honest.name not in line["missing"]]
        assert len(mixed) >= len(flooded) / 2 > 0
        _, got, applied, rejected, superseded, lost, held = books(victim, liar)
        whole = greedy.bytes_sent[victim.identity.peer_id] // UPDATE_BYTES
        assert rejected == 0 and got == applied + superseded + lost + held and applied <= len(flooded) < whole
        # What was under way when a round was over is of no update any more; that happens to honest ones too.
        assert {line["reason"] for line in victim.lines() if line["what"] == "rejected"} <= {"unexpected_chunk"}
        await all_is_well(cluster, liar)


@pytest.mark.fault("flood")
@benched(120)
async def test_the_most_expensive_junk_just_under_the_limit_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    """FAULTS 46. Signed, new, and wrapped for nobody: 150 a second, where 181 would be too many."""
    async with Cluster(3, tmp_path, topology="complete") as cluster:
        victim, honest, liar = cluster.nodes
        await cluster.hear_each_other()
        cluster.kill(liar)
        async with GreedyMember(cluster, liar) as greedy:
            await greedy.meet(victim)
            began = len(victim.rounds)
            for _ in range(JUNK):
                greedy.offer_unreadable(victim)
                await asyncio.sleep(1 / 150)
            await cluster.until(lambda: books(victim, liar)[history.REJECTED] == JUNK)
            refused = [line for line in victim.lines() if line["what"] == "rejected"]
            assert {(line["reason"], line["blame"]) for line in refused} == {("bad_wrap", liar.name)} and len(refused) == JUNK
            junked = victim.rounds[began:]
            assert sum(honest.name not in line["missing"] for line in junked) >= len(junked) / 2
            before = books(victim, liar)[history.APPLIED]
            await greedy.flood(victim, 2.0, bytes_per_s=1e6)
            assert books(victim, liar)[history.APPLIED] > before
        await all_is_well(cluster, liar)
