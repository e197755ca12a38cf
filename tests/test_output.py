"""The folder of a run: whole or not there, and never over another."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from p2pfl.failure import Failure
from p2pfl.report.record_json import from_json
from sim import Result, Scenario, run
from sim.output import run_folder


@pytest.fixture(scope="module")
def result() -> Result:
    return run(Scenario(peers=3, rounds=2, model="softmax", local_steps=2), engine="batch")


def test_a_run_leaves_its_record_its_numbers_and_its_page(result: Result, tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "ring", 7) as folder:
        written = folder.write(result.record)
    assert written == tmp_path / "run"
    assert {path.name for path in written.iterdir()} == {"result.json", "metrics.csv", "report.html"}
    assert "<!doctype html>" in (written / "report.html").read_text().lower()


def test_the_record_reads_back_as_it_was_with_its_summary_before_it(result: Result, tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "ring", 7) as folder:
        text = (folder.write(result.record) / "result.json").read_text()
    assert np.array_equal(from_json(text).accuracy, result.accuracy)
    found = json.loads(text)
    assert found["schema_version"] == 1
    assert found["summary"]["accuracy_mean"] == result.accuracy[-1].mean()


def test_the_numbers_have_one_line_for_every_peer_and_row(result: Result, tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "ring", 7) as folder:
        written = folder.write(result.record)
    with (written / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3
    assert float(rows[-1]["accuracy"]) == result.accuracy[-1, -1]


def test_unnamed_runs_are_numbered(result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(2):
        with run_folder(None, "digits, 3 peers, ../ring", 7) as folder:
            names.append(folder.write(result.record))
    assert names == [Path(f".p2pfl/runs/digits-3-peers-..-ring-7-00{number}") for number in (1, 2)]


def test_a_run_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), run_folder(tmp_path / "run", "ring", 7) as folder:
        folder.trace()({"t": 0.0})
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").touch()
    with pytest.raises(Failure, match="is there already"), run_folder(tmp_path / "run", "ring", 7):
        raise AssertionError("it must not get here")
    assert (tmp_path / "run" / "precious").exists()


def test_an_empty_folder_is_filled(result: Result, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with run_folder(tmp_path / "run", "ring", 7) as folder:
        folder.write(result.record)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_folder_that_somebody_filled_meanwhile_is_not_overwritten(result: Result, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="run"), run_folder(tmp_path / "run", "ring", 7) as folder:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "precious").touch()
        folder.write(result.record)
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "precious"]


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Failure, match="--out"), run_folder(tmp_path / "file" / "run", "ring", 7):
        raise AssertionError("it must not get here")


def test_the_trace_is_one_line_of_json_an_event(result: Result, tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "ring", 7) as folder:
        write = folder.trace()
        write({"t": 0.0, "peer": "naïve\n"})
        write({"t": 1.5, "peer": "b"})
        folder.write(result.record)
    lines = (tmp_path / "run" / "trace.jsonl").read_bytes().decode("ascii").splitlines()
    assert [json.loads(line)["t"] for line in lines] == [0.0, 1.5]
    assert os.linesep not in lines[0]
