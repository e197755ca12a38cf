"""`p2pfl sim check` and `p2pfl sim schema`: what a scenario may say, without running it."""

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from p2pfl.__main__ import main
from p2pfl.failure import ExitCode

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("example", ["ring.toml", "random_regular.toml", "churn.toml"])
def test_a_good_scenario_is_said_to_be_one_and_nothing_is_run(
    example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sim", "check", str(EXAMPLES / example)]) == ExitCode.OK
    assert "rounds; engine " in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('[[fault]]\nat = 99\nkind = "crash"\npeers = 1', "at = 99 is after the end"),
        ('[[fault]]\nat = 1\nkind = "partition"\ngroups = ["0-3", "3-7"]\nheal = 2', "the groups overlap"),
        ("[churn]\nrate = -1", "churn.rate"),
        ("[chrun]\nrate = 0.1", "'churn'"),
    ],
)
def test_a_bad_scenario_is_one_line(lines: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text(lines)
    assert main(["sim", "check", str(file)]) == ExitCode.CONFIGURATION
    shown = capsys.readouterr()
    assert shown.out == "" and says in shown.err.splitlines()[-1]


def test_the_schema_names_every_section_and_kind_of_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sim", "schema"]) == ExitCode.OK
    schema = json.loads(capsys.readouterr().out)
    assert {"peers", "topology", "churn", "network", "compute", "fault"} <= schema["properties"].keys()
    kinds = schema["$defs"]["FaultSection"]["properties"]["kind"]["enum"]
    assert {"crash", "restart", "pause", "partition", "cut", "slow", "corrupt", "hostile"} <= set(kinds)


def test_models_that_do_not_fit_are_refused_before_their_data_are_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scenario.toml"
    file.write_text('peers = 1000000\nsamples_per_peer = 1\n[task]\nname = "synthetic"\nfeatures = 20000\nsamples = 40')
    with patch("sim.world._census", side_effect=AssertionError("data of all peers were read")):
        assert main(["sim", "check", str(file)]) == ExitCode.CONFIGURATION
    assert "1,000,000 peers need at least" in capsys.readouterr().err
