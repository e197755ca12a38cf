"""SIGKILL at every step that a checkpoint takes on the disk, and at random moments of whole nodes: the newest valid state
loads, and no boot epoch, hence no sequence number, is ever used twice.

What a killed process leaves is what the kernel has: that fsync comes before rename, and so would hold for a machine that loses
its power too, is shown by the order of the calls.
"""

import os
import random
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from node import disk, processes
from tests import history
from tests.cluster import Cluster, benched

WRITTEN = 3  # checkpoints a life; the third lets the first go


def life(folder: Path, count: int, last: int) -> tuple[dict[str, list[int]], int]:
    """What it said, and how it ended."""
    command = processes.command("tests.checkpoint_writer", str(folder), str(count), str(last))
    done = subprocess.run(command, env=processes.environment(), capture_output=True, text=True, timeout=60)
    said: defaultdict[str, list[int]] = defaultdict(list)
    for line in done.stdout.splitlines():
        word, _, number = line.rpartition(" ")
        said[word].append(int(number))
    return said, done.returncode


def killed_everywhere(folder: Path, stride: int) -> None:
    whole, code = life(folder / "whole", WRITTEN, 0)
    assert (code, whole["saved"]) == (0, [1, 2, 3])
    (steps,) = whole["steps"]
    assert steps > 6 * WRITTEN
    for last in range(1, steps + 1, stride):
        node = folder / str(last)
        node.mkdir()
        first, code = life(node, WRITTEN, last)
        assert code == -9
        again, code = life(node, 1, 0)
        assert code == 0, again
        durable = max([0, *first["saved"]])
        (loaded,) = again["loaded"]
        assert loaded in (durable, durable + 1)  # it may have been killed between being durable and saying so
        assert again["saved"] == [loaded + 1]
        assert "passed over" not in " ".join(again)  # a half-written one is none: nothing was damaged
        assert again["epoch"] > first["epoch"]
        left = {path.name for path in (node / "checkpoints").iterdir()}
        assert len([name for name in left if name.endswith(".manifest")]) <= 2


@pytest.fixture
def whole_folder(tmp_path: Path) -> Path:
    (tmp_path / "whole").mkdir()
    return tmp_path


@pytest.mark.fault("kill")
def test_a_kill_at_some_steps_of_a_checkpoint_loses_no_checkpoint_before_and_no_epoch(whole_folder: Path) -> None:
    killed_everywhere(whole_folder, 11)


@pytest.mark.fault("kill")
@pytest.mark.slow
def test_a_kill_at_any_step_of_a_checkpoint_loses_no_checkpoint_before_and_no_epoch(whole_folder: Path) -> None:
    killed_everywhere(whole_folder, 1)


@pytest.mark.slow
def test_a_kill_at_any_step_of_the_next_start_loses_nothing_either(tmp_path: Path) -> None:
    """Killed again and again while it recovers: every life goes on from the newest of all before."""
    epochs, durable = [0], 0
    for last in range(1, 40):
        said, code = life(tmp_path, WRITTEN, last)
        assert code in (-9, 0)
        assert said["epoch"] == [] or said["epoch"][0] > epochs[-1]
        epochs += said["epoch"]
        if said["loaded"]:
            assert said["loaded"][0] in (durable, durable + 1)
            durable = max(said["loaded"][0], *said["saved"]) if said["saved"] else said["loaded"][0]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a loss of power needs and SIGKILL can't show."""
    called: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(fd: int) -> None:
        called.append("fsync " + Path(f"/proc/self/fd/{fd}").readlink().name.split(".")[-1])
        fsync(fd)

    def noted_rename(path: Path, target: Path) -> Path:
        called.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    disk.write_durably(tmp_path / "file", b"data")
    assert called == [f"fsync {os.getpid()}", "rename", f"fsync {tmp_path.name}"]


# ---- whole nodes ------------------------------------------------------------------------------------------------------------


async def killed_at_random(folder: Path, kills: int, seed: int) -> history.Balance:
    """SIGKILL to one of three nodes at a random moment, `kills` times; each lives again at once."""
    chance = random.Random(seed)
    async with Cluster(3, folder, topology="complete", pace_s=0.02) as cluster:
        steps = [0] * 3
        for _ in range(kills):
            node = chance.choice(cluster.nodes)
            if chance.random() < 0.7:
                await cluster.reach(chance.randint(1, 4), node)
            cluster.kill(node)
            cluster.start(node)
            if chance.random() < 0.8:
                await cluster.until(lambda node=node: node.is_up)
                begun = history.lives(node.lines())[-1][0]["step"]
                assert begun >= steps[node.index]
                steps[node.index] = begun
        await cluster.until(lambda: all(node.is_up for node in cluster.nodes))
        await cluster.hear_each_other()
        await cluster.stop(*cluster.nodes)
        assert not any(line["kind"] == "damaged_checkpoint" for node in cluster.nodes for line in node.incidents)
        return history.checked(cluster.histories())


@pytest.mark.fault("kill")
@pytest.mark.net
@benched()
async def test_six_random_kills_reuse_no_sequence_number_and_lose_no_checkpoint(tmp_path: Path) -> None:
    assert (await killed_at_random(tmp_path, 6, 1)).lives >= 3


@pytest.mark.fault("kill")
@pytest.mark.net
@pytest.mark.slow
@benched(480)
async def test_two_hundred_random_kills_reuse_no_sequence_number_and_lose_no_checkpoint(tmp_path: Path) -> None:
    balance = await killed_at_random(tmp_path, 200, 2)
    assert balance.lives > 100 and balance.applied > 100
