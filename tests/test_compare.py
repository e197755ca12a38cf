"""`p2pfl sim compare`: finished runs beside one another."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p2pfl.__main__ import main
from p2pfl.failure import ExitCode
from p2pfl.report.record import RunRecord
from p2pfl.report.record_json import to_json
from tests.records import HOSTILE, a_record


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def a_run(folder: str, record: RunRecord) -> str:
    Path(folder).mkdir(parents=True)
    Path(folder, "result.json").write_text(to_json(record), encoding="utf-8")
    return folder


def test_runs_of_any_size_and_length_stand_in_one_table_and_on_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    killed = replace(a_record(peers=12, rounds=20, killed=3), seed=8)
    runs = [a_run("short", a_record()), a_run("long", killed), a_run("one", a_record(peers=1, rounds=0))]
    assert main(["sim", "compare", *runs]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [["short", "8", "10"], ["long", "12", "20"], ["one", "1", "0"]]
    assert all(len(line) <= 80 for line in lines[:4])
    assert "they differ in peers, seed" in lines
    page = Path("compare.html").read_text(encoding="utf-8")
    assert page.endswith("</html>")
    assert page.count('class="band c0"') == 3  # accuracy, loss and bytes; consensus has no band
    assert "<script" not in page


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "compare", a_run("a", a_record()), a_run("b/result", a_record(peers=2)), "--json"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    assert [(run["run"], run["peers"]) for run in answer["data"]["runs"]] == [("a", 8), ("result", 2)]


def test_folders_of_one_name_are_told_apart_by_where_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "compare", a_run("one/run", a_record()), a_run("other/run", a_record()) + "/result.json"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:3]] == ["one/run", "other/run"]


def test_text_of_others_stays_text() -> None:
    record = replace(a_record(names=HOSTILE), title=HOSTILE[0], settings={HOSTILE[1]: HOSTILE[0]})
    main(["sim", "compare", a_run("a<b>", record), a_run("b", a_record()), "--out", "page.html"])
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<img" not in page and "<b>" not in page and "<script" not in page


def test_a_run_in_which_nothing_was_measured_compares() -> None:
    empty = a_record()
    nothing = np.full_like(empty.accuracy, np.nan)
    empty = replace(empty, accuracy=nothing, loss=nothing, alone_accuracy=np.empty((0, 8)), consensus_distance=nothing[:, 0])
    assert main(["sim", "compare", a_run("a", empty), a_run("b", empty)]) == ExitCode.OK


@pytest.mark.parametrize(
    ("runs", "code", "says"),
    [
        (["a"], ExitCode.USAGE, "two runs or more"),
        (["a", "a"], ExitCode.USAGE, "given twice"),
        (["a", "missing"], ExitCode.CONFIGURATION, "missing: No such file"),
        (["a", "broken"], ExitCode.CONFIGURATION, "broken/result.json"),
    ],
)
def test_a_mistake_is_one_line(runs: list[str], code: ExitCode, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    a_run("a", a_record())
    Path("broken").mkdir()
    Path("broken/result.json").write_text("{}")
    assert main(["sim", "compare", *runs]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err.splitlines()[-1]
    assert not Path("compare.html").exists()
