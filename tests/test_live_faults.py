"""Real nodes on the fault bench: what breaks between them and under them, and that nothing is lost that could be kept.

Every test ends by asking the nodes to stop, which they do with exit code 0, and by checking their histories.
"""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from node.upkeep.journal import QUIET_S
from tests import history
from tests.cluster import GOSSIP, Cluster, Node, benched, can_mount
from tests.history import Balance, Line

pytestmark = pytest.mark.net


async def end(cluster: Cluster) -> Balance:
    """All stop in good order, and their books are right."""
    await cluster.stop(*(node for node in cluster.nodes if node.is_running))
    return history.checked(cluster.histories())


def _newest_checkpoint(node: Node) -> Path:
    return max((node.folder / "checkpoints").glob("*.manifest"))


def told_of(lines: list[Line], what: str, peer: Node) -> int:
    return sum(line["what"] == what and line["peer"] == peer.name for line in lines)


@benched()
async def test_where_nothing_breaks_everything_that_was_sent_is_applied_until_the_end(tmp_path: Path) -> None:
    async with Cluster(4, tmp_path, rounds=12, gossip={**GOSSIP, "gather_s": 30.0}) as cluster:
        await cluster.until(lambda: all(node.is_finished for node in cluster.nodes))
        balance = await end(cluster)
        assert balance.sent == balance.applied + balance.superseded == 12 * 4 * 2
        assert balance.missing == () and balance.lives == 4
        for node in cluster.nodes:
            shown = [json.loads(line)["step"] for line in (node.folder / "metrics.jsonl").read_text().splitlines()]
            assert shown == list(range(13))


@pytest.mark.fault("one-way link")
@benched()
async def test_a_link_cut_one_way_is_down_for_both_and_comes_back_with_no_zombie(tmp_path: Path) -> None:
    """FAULTS 53. Between them; all others hear them as ever."""
    async with Cluster(4, tmp_path) as cluster:
        a, b, c, d = cluster.nodes
        await cluster.hear_each_other()
        cluster.cut(a, b)
        await cluster.until(lambda: told_of(a.lines(), "down", b) == 1 and told_of(b.lines(), "down", a) == 1)
        await cluster.reach(5)
        assert not any(told_of(n.lines(), "down", o) for n, o in ((a, d), (b, c), (c, b), (d, a), (c, d), (d, c)))
        assert [*a.rounds[-1]["missing"], *b.rounds[-1]["missing"]] == [b.name, a.name]
        cluster.heal()
        await cluster.hear_each_other()
        await end(cluster)


@pytest.mark.fault("sleep")
@benched()
async def test_a_node_that_slept_goes_on_in_the_same_life_and_nothing_it_says_is_refused(tmp_path: Path) -> None:
    """FAULTS 64. Its neighbors have given its links up meanwhile, and have trained on."""
    async with Cluster(3, tmp_path, topology="complete") as cluster:
        sleeper, *others = cluster.nodes
        await cluster.hear_each_other()
        cluster.pause(sleeper)
        await cluster.until(lambda: all(told_of(other.lines(), "down", sleeper) for other in others))
        await cluster.reach(5, *others)
        cluster.resume(sleeper)
        await cluster.hear_each_other()
        await cluster.reach(3)
        balance = await end(cluster)
        assert balance.lives == 3 and balance.rejected == 0
        assert not any(line["what"] == "rejected" for lines in cluster.histories().values() for line in lines)


@pytest.mark.fault("full disk")
@pytest.mark.skipif(not can_mount(), reason="a file system of 64 KiB is mounted, which takes root")
@benched()
async def test_a_full_disk_stops_neither_training_nor_gossip_and_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """FAULTS 63."""
    cluster = Cluster(3, tmp_path, topology="complete")
    node = cluster.nodes[0]
    cluster.give_small_disk(node)
    async with cluster:
        await cluster.until(lambda: any((node.folder / "checkpoints").glob("*.manifest")))
        cluster.fill_disk(node)
        await cluster.until(lambda: any(line["kind"] == "checkpoint_failed" for line in node.incidents))
        step = node.step
        await cluster.hear_each_other()
        assert node.step > step
        kept = sorted((node.folder / "checkpoints").glob("*.manifest"))
        assert kept

        cluster.kill(node)
        cluster.start(node)  # with no room for its boot epoch it says nothing to anybody
        await cluster.until(lambda: bool(node.failure) and not node.is_running)
        assert node.failure[0] == "unwritable" and "boot" in node.failure[1]
        lives = node.lives

        cluster.free_disk(node)
        await cluster.restart(node)
        assert node.lives == lives + 1
        assert history.lives(node.lines())[-1][0]["step"] > 0  # the old checkpoint was whole
        await cluster.hear_each_other()
        await cluster.until(lambda: kept[-1] not in (node.folder / "checkpoints").glob("*.manifest"))
        await end(cluster)


@pytest.mark.fault("full disk")
@pytest.mark.skipif(not can_mount(), reason="a file system is mounted read-only, which takes root")
@benched()
async def test_a_file_system_that_turns_read_only_is_named_once_while_training_and_gossip_go_on(tmp_path: Path) -> None:
    """FAULTS 63. As ext4 does after an error, under a running node. A checkpoint is due every 0.2 s."""
    cluster = Cluster(3, tmp_path, topology="complete")
    node = cluster.nodes[0]
    cluster.give_small_disk(node, kib=1024)
    async with cluster:
        await cluster.until(lambda: any((node.folder / "checkpoints").glob("*.manifest")))
        await cluster.remount(node, "ro")
        kept, lines = _newest_checkpoint(node), (node.folder / "metrics.jsonl").read_text()
        await cluster.until(lambda: any(line["kind"] == "checkpoint_failed" for line in node.incidents))
        began = time.monotonic()
        await cluster.reach(10)
        await cluster.hear_each_other()
        told = [line["text"] for line in node.incidents if line["kind"] == "checkpoint_failed"]
        assert set(told) == {"Read-only file system"} and len(told) <= 1 + (time.monotonic() - began) / QUIET_S
        assert _newest_checkpoint(node) == kept and (node.folder / "metrics.jsonl").read_text() == lines

        await cluster.remount(node, "rw")
        await cluster.until(lambda: _newest_checkpoint(node) != kept)
        await cluster.hear_each_other()
        await end(cluster)
        for text in (node.folder / "metrics.jsonl").read_text().splitlines():
            json.loads(text)


@pytest.mark.fault("trainer")
@pytest.mark.slow
@benched()
async def test_a_trainer_that_hangs_costs_its_node_no_link(tmp_path: Path) -> None:
    """FAULTS 67, the half that a restart does not mend."""
    async with Cluster(3, tmp_path, topology="complete") as cluster:
        node, *others = cluster.nodes
        await cluster.hear_each_other()
        os.kill(node.ready["pid"], signal.SIGSTOP)
        begin = node.step
        await cluster.reach(15, *others)  # ten times as long as a silent link would last
        assert node.step <= begin + 1
        os.kill(node.ready["pid"], signal.SIGCONT)
        await cluster.hear_each_other()
        assert not any(told_of(other.lines(), "down", node) for other in others)
        await end(cluster)


@pytest.mark.fault("trainer")
@pytest.mark.slow
@benched()
async def test_what_diverges_at_one_node_is_never_sent(tmp_path: Path) -> None:
    """FAULTS 67: its training overflows at every step; the others see silence, and not one bad number."""
    wild = {"local_steps": 8, "batch_size": 16, "learning_rate": 1e9}
    async with Cluster(3, tmp_path, topology="complete", differs={0: {"training": wild}}) as cluster:
        node, *others = cluster.nodes
        await cluster.until(lambda: any(line["kind"] == "learn_failed" for line in node.incidents))
        await cluster.reach(5, *others)
        assert not any(line["what"] == "sent" for line in node.lines())
        assert all(other.rounds[-1]["loss"] < 10 and not other.rounds[-1]["rejected"] for other in others)
        assert not any(told_of(other.lines(), "down", node) for other in others)
        await end(cluster)


@pytest.mark.fault("split")
@pytest.mark.slow
@benched(180)
async def test_every_side_of_a_split_trains_on_and_all_are_one_after_it(tmp_path: Path) -> None:
    """FAULTS 54: two sides; three, beginning in the moment in which the first heals; then none."""
    async with Cluster(6, tmp_path, topology="complete") as cluster:
        a, b, c, d, e, f = cluster.nodes
        for sides in (((a, b, c), (d, e, f)), ((a, b), (c, d), (e, f))):
            cluster.heal()
            cluster.split(*sides)
            for side in sides:
                others = {node.name for node in cluster.nodes} - {node.name for node in side}
                await cluster.until(
                    lambda side=side, others=others: all(
                        node.rounds and set(node.rounds[-1]["missing"]) == others for node in side
                    )
                )
            await cluster.reach(5)
        cluster.heal()
        await cluster.hear_each_other(limit_s=10)
        await end(cluster)


@pytest.mark.fault("alone")
@pytest.mark.slow
@benched()
async def test_a_node_cut_off_from_all_dials_at_its_own_pace_and_is_back_soon_after(tmp_path: Path) -> None:
    """FAULTS 56. Its neighbors dial it no oftener than it dials them."""
    async with Cluster(3, tmp_path, topology="complete") as cluster:
        node, *others = cluster.nodes
        await cluster.hear_each_other()
        cluster.split([node], others)
        await cluster.until(lambda: all(told_of(node.lines(), "down", other) for other in others))
        before = [other.proxy.connections for other in cluster.nodes]
        await cluster.reach(60, *others)
        seconds = 60 * 0.05  # at least
        dials = [n.proxy.connections - was for n, was in zip(cluster.nodes, before, strict=True)]
        # Each dial is two connections and ends after the handshake's 1 s at the earliest.
        assert all(count <= 2 * 2 * (60 * 2.0 + 1) for count in dials) and min(dials) >= seconds / 2
        cluster.heal()
        await cluster.hear_each_other(limit_s=5)
        await end(cluster)


@pytest.mark.fault("slow links")
@pytest.mark.slow
@benched()
async def test_a_slow_long_link_makes_rounds_slower_and_nothing_worse(tmp_path: Path) -> None:
    """FAULTS 51: 0.3 s each way, with jitter; 64 kbit/s; pieces of 500 bytes. A silent link is given up after 1.2 s."""
    patient = {**GOSSIP, "floor_s": 1.5, "ceiling_s": 5.0}
    async with Cluster(3, tmp_path, topology="complete", gossip=patient) as cluster:
        node, *others = cluster.nodes
        await cluster.hear_each_other()
        ways = [node.proxy.toward(o.name) for o in others] + [node.proxy.back(o.name) for o in others]
        ways += [o.proxy.toward(node.name) for o in others] + [o.proxy.back(node.name) for o in others]
        for way in ways:
            way.delay_s, way.jitter_s, way.bytes_per_s, way.slice_bytes = 0.2, 0.2, 8000, 500
        await cluster.reach(12)
        assert sum(line["applied"] for line in node.rounds[-8:]) >= 8
        assert not any(told_of(other.lines(), "down", node) for other in others)
        cluster.heal()
        await cluster.hear_each_other()
        await end(cluster)
