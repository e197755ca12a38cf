"""What a person sees while peers run: the numbers of one round together, and a table that fits into 80 columns."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from node.local.network import local_network
from node.local.outcome import write_mean_model
from node.local.progress import _drawn, _lines, missed
from node.local.run import LocalPeer, LocalRun
from p2pfl.failure import Failure


def run_of(*peers: LocalPeer) -> LocalRun:
    network = local_network([peer.name for peer in peers], name="shown", rounds=20)
    return LocalRun(network, (), False, list(peers))


def line(step: int, accuracy: float) -> dict[str, object]:
    return {"step": step, "accuracy": accuracy, "loss": 285.2581, "waited_s": 12.3456, "missing": ["m"] * 10}


def test_a_round_is_judged_by_what_everybody_reached_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    ahead = LocalPeer("ahead", "", "up", rounds=[line(0, 0.1), line(1, 0.9)])
    _lines()(run_of(ahead, LocalPeer("behind", "", "up", rounds=[line(0, 0.3)])))
    assert capsys.readouterr().err == "round 0/20  accuracy 0.200 (min 0.100)\n"


def test_the_table_fits_into_80_columns_with_every_number_whole() -> None:
    counters = {"bytes_sent": 99_999_000, "bytes_received": 99_999_000, "rejected": {"bad_header": 99_999}}
    run = run_of(*(LocalPeer("peer-10", "127.0.0.1:31999", "stopped", {}, [line(100, 0.5)], counters) for _ in range(8)))
    shown = StringIO()
    Console(width=80, file=shown).print(_drawn("digits", run))
    rows = [row for row in shown.getvalue().splitlines() if "peer-10" in row]
    assert len(rows) == 8
    assert rows[0].split() == ["peer-10", "stopped", "100", "0.500", "285", "12346", "10", *["99999"] * 3]


def test_a_task_that_never_learns_is_said_to_and_is_no_bug_of_ours(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = run_of(LocalPeer("ann", "", "done"), LocalPeer("bob", "", "done"))
    run.incidents.append((1, {"kind": "learn_failed", "text": "the model raised\x1b ValueError"}))
    watch = _lines()
    watch(run)
    watch(run)
    assert capsys.readouterr().err == "bob could not learn: the model raised\\x1b ValueError\n"
    assert missed(run) == [f"{name} could not finish 21 of 21 steps" for name in ("ann", "bob")]
    with pytest.raises(Failure, match=r"the model raised.*p2pfl task check"):
        write_mean_model(run, tmp_path)
