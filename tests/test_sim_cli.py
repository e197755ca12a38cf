"""`p2pfl sim run` as it is typed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from p2pfl.__main__ import main
from p2pfl.failure import ExitCode

EXAMPLES = Path(__file__).parent.parent / "examples"
FILE = """
peers = 4
rounds = 3
seed = 7
partition = "shards:2"

[task]
name = "digits"
model = "softmax"

[training]
local_steps = 4
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    Path("scenario.toml").write_text(FILE)
    return "scenario.toml"


def test_it_prints_one_table_and_where_the_report_is(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", file]) == ExitCode.OK
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].startswith("done in ") and "alone" in lines[0]
    assert [line.split()[0] for line in lines[3:7]] == [f"peer-{i}" for i in range(4)]
    assert Path(lines[-1].split()[-1]).is_file()
    assert max(map(len, lines[:-1])) <= 80


def test_progress_is_plain_and_on_stderr(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "run", file])
    shown = capsys.readouterr()
    assert "engine events: 4 peers, at most 200" in shown.err
    assert "round 3/3  accuracy 0." in shown.err
    assert "\x1b" not in shown.err + shown.out


def test_json_is_exactly_one_object(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", file, "--json", "--engine", "batch", "--seed", "3", "--out", "here"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    data = answer["data"]
    assert {"accuracy_mean", "accuracy_min", "alone_mean", "consensus_distance", "rounds", "seconds", "report", "peers"} <= set(
        data
    )
    assert (data["rounds"], data["engine"], data["seed"], data["report"]) == (3, "batch", 3, "here/report.html")
    assert len(data["peers"]) == 4


def test_overrides_reach_the_run(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "run", file, "--json", "--set", "peers=2", "--set", "output.alone=false"])
    data = json.loads(capsys.readouterr().out)["data"]
    assert len(data["peers"]) == 2
    assert data["alone_mean"] is None


def test_many_peers_are_shown_from_the_least_accurate(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "run", file, "--set", "peers=30", "--set", "rounds=1", "--engine", "batch"])
    lines = capsys.readouterr().out.splitlines()
    accuracies = [float(line.split()[1]) for line in lines if line.startswith("peer-")]
    assert len(accuracies) == 16 and accuracies == sorted(accuracies)
    assert "the 16 least accurate of 30 peers; all are in metrics.csv" in lines


def test_the_same_seed_writes_the_same_trace_byte_for_byte(file: str) -> None:
    for number, hash_seed in enumerate(("0", "1")):
        command = [sys.executable, "-m", "p2pfl", "sim", "run", file, "--trace", "--out", f"run-{number}"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True)
    first, second = (Path(f"run-{number}/trace.jsonl").read_bytes() for number in (0, 1))
    assert first == second
    assert b'"Learned"' in first


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["missing.toml"], ExitCode.CONFIGURATION, "missing.toml: No such file"),
        (["scenario.toml", "--engine", "btach"], ExitCode.CONFIGURATION, "engine"),
        (["scenario.toml", "--engine", "batch", "--trace"], ExitCode.CONFIGURATION, "no events to trace"),
        (["scenario.toml", "--set", "topology.kind=rng"], ExitCode.CONFIGURATION, "Did you mean 'ring'"),
        (["scenario.toml", "--set", "topology.degre=3"], ExitCode.CONFIGURATION, "'degree'"),
        (["scenario.toml", "--set", "task=digit"], ExitCode.CONFIGURATION, "Did you mean 'digits'"),
        (["scenario.toml", "--set", "nonsense"], ExitCode.USAGE, "section.key=value"),
        (["scenario.toml", "--seed", "many"], ExitCode.USAGE, "--seed"),
        (["scenario.toml", "--out", "."], ExitCode.CONFIGURATION, "already"),
        ([], ExitCode.USAGE, "SCENARIO.toml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(
    file: str, capsys: pytest.CaptureFixture[str], arguments: list[str], code: ExitCode, says: str
) -> None:
    assert main(["sim", "run", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err.splitlines()[-1]
    assert [path.name for path in Path().rglob("*") if path.is_file()] == ["scenario.toml"]


def test_a_mistake_under_json_is_one_object(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "run", file, "--json", "--set", "topology.kind=rng"]) == ExitCode.CONFIGURATION
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "bad_topology"
    assert error["hint"]


def test_ctrl_c_ends_with_130_and_leaves_no_folder(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The interrupt comes while the run is under way: from the task's own evaluation."""
    Path("interrupted.py").write_text(
        "import numpy as np, torch\nfrom p2pfl import Task\n"
        "def evaluate(model, inputs, targets):\n    raise KeyboardInterrupt\n"
        "rows = np.ones((4, 2)), np.ones((4, 1))\nloss = torch.nn.functional.mse_loss\n"
        "task = Task(lambda: torch.nn.Linear(2, 1), lambda peer: (rows, rows), loss, evaluate=evaluate)\n"
    )
    arguments = ["sim", "run", file, "--set", "task=interrupted.py:task", "--out", "run"]
    assert main(arguments) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.endswith("p2pfl: Interrupted.\n")
    assert {path.name for path in Path().iterdir()} - {"__pycache__"} == {"scenario.toml", "interrupted.py"}


@pytest.mark.parametrize("example", ["ring.toml", "random_regular.toml"])
def test_the_example_scenarios_can_be_run(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["rounds=1", "peers=8", "output.alone=false"]
    assert main(["sim", "run", str(EXAMPLES / example), *(word for key in few for word in ("--set", key))]) == ExitCode.OK


def test_the_example_task_learns_what_no_peer_has_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    task = f"task.name={EXAMPLES / 'own_task.py'}:task"
    main(["sim", "run", str(EXAMPLES / "ring.toml"), "--set", task, "--set", "peers=6", "--engine", "batch", "--out", "run"])
    record = json.loads(Path("run/result.json").read_text())
    assert mean(record["loss"][-1]) < mean(record["loss"][0]) / 1.5


def test_what_sigterm_does_is_as_before_when_a_run_is_over(file: str) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert main(["sim", "run", file]) == ExitCode.OK
    assert signal.getsignal(signal.SIGTERM) is before
