"""`p2pfl sim sweep` as it is typed: every combination under every seed, once."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

import numpy as np
import pytest

from p2pfl.__main__ import main
from p2pfl.failure import ExitCode, Failure
from sim.grid import axis_from, cells
from sim.interval import mean_and_half_width, t_975
from sim.sweep import run_cells
from sim.sweep_result import overlay, points

FILE = """
peers = 4
rounds = 2
seed = 7
partition = "shards:2"
engine = "batch"

[task]
name = "digits"
model = "softmax"

[training]
local_steps = 2

[output]
alone = false
"""
SWEEP = ["sim", "sweep", "small.toml", "--over", "topology=ring,complete", "--over", "training.learning_rate=0.05,0.1"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(FILE)
    return tmp_path / ".p2pfl/sweeps/small"


def test_a_sweep_is_one_table_one_page_and_a_row_for_each_cell(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SWEEP, "--seeds", "2"]) == ExitCode.OK
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["ring", "0.05"],
        ["ring", "0.1"],
        ["complete", "0.05"],
        ["complete", "0.1"],
    ]
    assert all("±" in line and len(line) <= 80 for line in lines[1:5])
    assert re.search(r"3/8  kind=complete|3/8  topology=complete", shown.err)
    assert "s left" in shown.err
    rows = list(csv.DictReader((place / "sweep.csv").read_text().splitlines()))
    assert len(rows) == 8
    assert {row["seed"] for row in rows} == {"7", "8"}
    assert all((place / "cells" / row["cell"] / "report.html").is_file() for row in rows)
    assert (place / "sweep.html").read_text().count('class="band c') == 8  # two panels of two lines, two quantities


def test_finished_cells_are_not_run_again(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(SWEEP)
    before = {path: path.stat().st_mtime_ns for path in place.glob("cells/*/result.json")}
    first = capsys.readouterr().out
    assert main([*SWEEP, "--seeds", "2"]) == ExitCode.OK
    assert "4 of 8 cells are finished already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(SWEEP) == ExitCode.OK
    assert capsys.readouterr().out == first


def test_the_json_holds_mean_and_interval_over_the_seeds(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sim", "sweep", "small.toml", "--over", "topology=ring", "--seeds", "3", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    point = answer["data"]["points"][0]
    single = [float(row["accuracy_mean"]) for row in csv.DictReader((place / "sweep.csv").read_text().splitlines())]
    assert point["accuracy_mean"]["mean"] == pytest.approx(mean(single))
    assert point["accuracy_mean"]["half"] == pytest.approx(4.303 * stdev(single) / math.sqrt(3))
    assert Path(answer["data"]["page"]).is_file()


def test_ctrl_c_keeps_what_was_finished_and_the_same_command_goes_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The interrupt comes from the task's own evaluation, of the second cell."""
    Path("interrupted.py").write_text(
        "import numpy as np, torch\nfrom pathlib import Path\nfrom p2pfl import Task\n"
        "def evaluate(model, inputs, targets):\n"
        "    if list(Path('.p2pfl/sweeps/small/cells').glob('*/result.json')) and not Path('go-on').exists():\n"
        "        raise KeyboardInterrupt\n    return {'accuracy': 0.5}\n"
        "rows = np.ones((4, 2)), np.ones((4, 1))\nloss = torch.nn.functional.mse_loss\n"
        "task = Task(lambda: torch.nn.Linear(2, 1), lambda peer: (rows, rows), loss, evaluate=evaluate)\n"
    )
    Path("small.toml").write_text(FILE.replace('partition = "shards:2"', "").replace('model = "softmax"', ""))
    command = [*SWEEP, "--set", "task.name=interrupted.py:task"]
    assert main(command) == ExitCode.INTERRUPTED
    says = capsys.readouterr().err.splitlines()[-1]
    assert "1 of 4 cells are finished" in says
    assert "The same command goes on" in says
    assert [path.name for path in place.glob("cells/.unfinished*")] == []
    Path("go-on").touch()
    assert main(command) == ExitCode.OK
    assert "1 of 4 cells are finished already" in capsys.readouterr().err


def test_a_cell_that_is_not_what_its_name_says_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(SWEEP)
    one, other = sorted(place.glob("cells/*"))[:2]
    shutil.copy(one / "result.json", other / "result.json")
    assert main(SWEEP) == ExitCode.CONFIGURATION
    assert "another scenario's result" in capsys.readouterr().err
    (other / "result.json").write_text("{}")
    assert main(SWEEP) == ExitCode.CONFIGURATION
    assert "Remove its folder" in capsys.readouterr().err
    shutil.rmtree(other)
    assert main(SWEEP) == ExitCode.OK


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--over", "topology=ring,rng"], ExitCode.CONFIGURATION, "Did you mean 'ring'"),
        (["--over", "training.learning_rat=0.1"], ExitCode.CONFIGURATION, "learning_rat"),
        (["--over", "topology"], ExitCode.USAGE, "no key with values"),
        (["--over", "peers=4,4"], ExitCode.USAGE, "given twice"),
        (["--over", "peers=4", "--over", "peers=5"], ExitCode.USAGE, "given twice"),
        (["--over", "seed=1,2"], ExitCode.USAGE, "--seeds"),
        (["--over", "peers=4", "--seeds", "0"], ExitCode.USAGE, "--seeds"),
        (["--over", "peers=4", "--out", "."], ExitCode.CONFIGURATION, "something else than a sweep"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: ExitCode, says: str
) -> None:
    assert main(["sim", "sweep", "small.toml", *arguments]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert says in shown.err.splitlines()[-1]
    assert not list(Path().rglob("result.json"))


def test_the_name_of_a_cell_is_its_scenario(place: Path) -> None:
    def names(*overrides: str) -> list[str]:
        return [cell.name for cell in cells(Path("small.toml"), overrides, [axis_from("topology=ring,star")], 2)]

    assert names() == names()
    assert len(set(names())) == 4
    assert not set(names()) & set(names("rounds=3"))
    Path("other.toml").write_text(FILE)  # the file's own name says nothing
    other = [cell.name for cell in cells(Path("other.toml"), (), [axis_from("topology=star,ring")], 2)]
    assert set(other) == set(names())


def test_the_name_of_a_cell_changes_with_the_file_of_its_task(place: Path) -> None:
    def name() -> str:
        return cells(Path("small.toml"), ["task=own.py:task"], [], 1)[0].name

    Path("own.py").write_text("task = 1")
    first = name()
    Path("own.py").write_text("task = 2")
    assert name() != first


def test_every_graph_takes_what_it_knows_of_the_arguments(place: Path) -> None:
    """So that `--over topology.kind=ring,random-regular` compares them, whatever degree the file says."""
    axis = axis_from("topology.kind=ring,random-regular,random-regular:4")
    found = cells(Path("small.toml"), ["topology.degree=6", "topology.weights=uniform", "peers=8"], [axis], 1)
    assert [(cell.scenario.topology.degree, cell.scenario.topology.weights) for cell in found] == [
        (None, "uniform"),
        (6, "uniform"),
        (None, "uniform"),
    ]


def test_commas_in_brackets_and_quotes_separate_nothing() -> None:
    assert axis_from('a.b=[1,2],"x,y",3').values == ("[1,2]", '"x,y"', "3")
    with pytest.raises(Failure):
        axis_from("a.b=1,,2")


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (4, 2.776), (30, 2.042), (40, 2.021), (120, 1.980)])
def test_the_quantiles_are_those_of_the_printed_table(freedom: int, quantile: float) -> None:
    """Abramowitz and Stegun, table 26.10."""
    assert t_975(freedom) == pytest.approx(quantile, abs=6e-4)


def test_the_interval_covers_the_mean_of_normal_draws_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(7).normal(size=(5, 20_000))
    middle, half = mean_and_half_width(draws)
    assert np.mean(np.abs(middle) <= half) == pytest.approx(0.95, abs=0.005)


def test_one_run_has_no_interval() -> None:
    middle, half = mean_and_half_width(np.array([[0.5, np.nan]]))
    assert middle[0] == 0.5 and math.isnan(half[0]) and math.isnan(middle[1])


def test_a_band_of_shares_stays_within_nothing_and_all(place: Path) -> None:
    assert main(["sim", "sweep", "small.toml", "--seeds", "2"]) == ExitCode.OK
    finished = run_cells(place, [], cells(Path("small.toml"), [], [], 2), lambda line: None)
    apart = []
    for one, share in zip(finished, (0.1, 0.9), strict=True):
        assert one.outcome is not None
        apart.append(replace(one, outcome=replace(one.outcome, accuracy_curve=np.full(3, share))))
    (line,) = overlay("apart", [], 2, points(apart)).rows[0].panels[0].lines
    assert (line.low.tolist(), line.high.tolist()) == ([0.0] * 3, [1.0] * 3), "the interval of two such runs is 0.5 ± 5.1"


def test_a_page_that_cannot_be_written_is_one_line_and_keeps_the_cells(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "sweep.html").mkdir(parents=True)
    (place / "cells").mkdir()
    assert main(["sim", "sweep", "small.toml"]) == ExitCode.CONFIGURATION
    assert "sweep.html: Is a directory" in capsys.readouterr().err.splitlines()[-1]
    assert len(list((place / "cells").iterdir())) == 1
