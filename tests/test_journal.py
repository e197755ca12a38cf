"""The journal's files: whole lines or none, and never longer than was meant."""

import json
import resource
import signal
from pathlib import Path

import pytest

from node.upkeep import journal
from node.upkeep.journal import Journal


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.fault("full disk")
def test_a_full_disk_leaves_no_half_line_and_the_next_ones_are_whole(tmp_path: Path) -> None:
    said = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", {}, lambda _said: None)
    said.round_ended({"step": 1})
    full = (tmp_path / "metrics.jsonl").stat().st_size + 20  # room for 20 bytes of the next line
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, before[1]))
    try:
        said.round_ended({"step": 2, "text": "t" * 100})
        said.round_ended({"step": 3, "text": "t" * 100})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    said.round_ended({"step": 4})
    assert [line["step"] for line in lines_of(tmp_path / "metrics.jsonl")] == [1, 4]
    assert said.failed_writes == 2
    assert said.newest_round["step"] == 4


def test_a_file_that_is_long_is_put_aside_and_one_such_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "FILE_MAX", 1000)
    said = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", {}, lambda _said: None)
    for step in range(1000):
        said.round_ended({"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.1.jsonl", "metrics.jsonl"]
    kept = [line["step"] for name in ("metrics.1.jsonl", "metrics.jsonl") for line in lines_of(tmp_path / name)]
    assert kept == list(range(kept[0], 1000)) and len(kept) > 60
    assert all(path.stat().st_size < 1100 for path in tmp_path.iterdir())


def test_every_incident_counts_and_the_newest_lines_are_remembered(tmp_path: Path) -> None:
    said = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", {}, lambda _said: None)
    for k in range(100):
        said.incident("checkpoint_failed", "No space left on device")
        said.incident("degraded", f"reason {k}")
    assert said.incidents == {"checkpoint_failed": 100, "degraded": 100}
    assert [line["text"] for line in said.recent] == [f"reason {k}" for k in range(92, 100)]


@pytest.mark.fault("full disk")
def test_a_device_that_is_always_full_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    """/dev/full takes no byte, and can't be made shorter either."""
    for name in ("metrics.jsonl", "log.jsonl"):
        (tmp_path / name).symlink_to("/dev/full")
    told: list[object] = []
    said = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", {}, told.append)
    said.round_ended({"step": 1})
    said.incident("degraded", "there is no room")
    assert said.failed_writes == 2
    assert said.newest_round["step"] == 1 and said.incidents["degraded"] == 1
    assert len(told) == 2
