"""A trace is enough to see what every peer was doing at any moment of its run."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from p2pfl import Task
from p2pfl.failure import Failure
from sim.cli import app
from sim.engine import run
from sim.output import run_folder
from sim.replay import replay
from sim.scenario import Scenario
from sim.trace import header

SCENARIO = """
peers = 5
rounds = 3
seed = 3
engine = "events"
topology = "ring"
[task]
name = "synthetic"
model = "softmax"
features = 4
samples = 100
classes = 3
[network]
latency = "lognormal:0.02,0.5"
loss = 0.1
[gossip]
ceiling_s = 0.5
[compute]
step_s = 0.01
[[fault]]
kind = "crash"
at = 0.1
peers = [2]
heal = 5.0
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO)
    scenario = Scenario.from_toml(file)
    with run_folder(tmp_path / "run", "run", 3) as folder:
        return folder.write(run(scenario, on_trace=folder.trace()).record) / "trace.jsonl"


def test_to_the_end_it_is_the_run_that_was(trace: Path) -> None:
    moment = replay(trace, float("inf"))
    assert moment.lines == len(trace.read_text().splitlines()) - 1
    result = json.loads((trace.parent / "result.json").read_text())
    assert [peer.applied for peer in moment.peers] == [peer["updates_applied"] for peer in result["peers"]]


def test_until_a_moment_it_shows_who_was_away_and_how_far_the_others_were(trace: Path) -> None:
    before, during = replay(trace, 0.05), replay(trace, 0.3)
    assert before.time <= 0.05 < during.time <= 0.3
    assert [peer.state == "away" for peer in before.peers] == [False] * 5
    assert [peer.state == "away" for peer in during.peers] == [False, False, True, False, False]
    assert before.lines < during.lines
    assert all(then.age <= now.age for then, now in zip(before.peers, during.peers, strict=True))
    assert 0 <= replay(trace, 0.0).time <= 0.0


def test_who_left_and_will_come_back_is_away_and_has_not_finished(tmp_path: Path) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO.replace('"crash"', '"leave"'))
    with run_folder(tmp_path / "run", "run", 3) as folder:
        trace = folder.write(run(Scenario.from_toml(file), on_trace=folder.trace()).record) / "trace.jsonl"
    assert replay(trace, 3.0).peers[2].state == "away"
    assert [peer.state for peer in replay(trace, float("inf")).peers] == ["finished"] * 5


def test_the_command_shows_it(trace: Path) -> None:
    shown = CliRunner().invoke(app, ["replay", str(trace), "--until", "0.3"])
    assert shown.exit_code == 0 and "peer-2      away" in shown.stdout
    data = json.loads(CliRunner().invoke(app, ["replay", str(trace), "--json"]).stdout)["data"]
    assert [peer["name"] for peer in data["peers"]] == [f"peer-{i}" for i in range(5)]


def test_a_trace_of_another_run_is_refused_at_the_first_line_that_differs(trace: Path) -> None:
    lines = trace.read_text().splitlines(keepends=True)
    lines[20] = lines[20].replace('"peer":"peer-', '"peer":"poor-')
    trace.write_text("".join(lines))
    with pytest.raises(Failure, match=r"line 21 says .*poor-") as caught:
        replay(trace, float("inf"))
    assert caught.value.code == "other_run"
    assert replay(trace, 0.0).lines < 20, "it is the same run until there"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"t":0.0}',
        "\xff",
        '{"trace":1}',
        '{"trace":1,"scenario":{}}',
        '{"trace":1,"scenario":[1],"folder":"."}',
        '{"trace":1,"scenario":{"self":3},"folder":"."}',
        '{"trace":1,"scenario":{},"folder":3}',
        '{"trace":1,"scenario":{},"folder":"a\\u0000"}',
    ],
)
def test_what_is_no_trace_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "trace.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match="no trace"):
        replay(tmp_path / "trace.jsonl", 1.0)
    with pytest.raises(Failure, match="elsewhere"):
        replay(tmp_path / "elsewhere.jsonl", 1.0)


def test_a_task_that_is_an_object_is_not_replayed(tmp_path: Path) -> None:
    own = Task(model=lambda: None, data=lambda peer: (np.zeros(1), np.zeros(1)))  # type: ignore[arg-type, return-value]
    (tmp_path / "trace.jsonl").write_text(json.dumps(header(Scenario(task=own))) + "\n")
    with pytest.raises(Failure, match="object in Python"):
        replay(tmp_path / "trace.jsonl", 1.0)
