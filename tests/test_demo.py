"""`p2pfl demo`: real processes, a report a person can open, and nothing left behind."""

import json
import signal
import socket
from pathlib import Path

import psutil
import pytest

from node.local.demo import kill_from
from node.local.network import local_network
from node.local.run import Kill, run_local
from p2pfl.failure import ExitCode, Failure
from p2pfl.report.record_json import from_json
from tests.nodes import children_of, line_with, p2pfl, started

pytestmark = pytest.mark.net


def test_three_peers_learn_together_and_leave_a_report_and_a_model(tmp_path: Path) -> None:
    ended = p2pfl("demo", "--peers", "3", "--rounds", "3", "--pace", "0", "--out", "run", "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    data = answer["data"]
    assert [peer["updates_applied"] for peer in data["peers"]] == [6, 6, 6]
    assert all(peer["rejected"] == {} and peer["bytes_sent"] > 6 * 19_000 for peer in data["peers"])
    assert data["accuracy_mean"] > data["alone_mean"]
    record = from_json((tmp_path / "run" / "result.json").read_text())
    assert record.accuracy.shape == (4, 3) and record.alone_accuracy.shape == (4, 3)
    assert record.consensus_distance[0] == 0 < record.consensus_distance[-1]
    assert set(record.edges) == {(0, 1), (0, 2), (1, 2)}
    assert record.link_bytes.sum() == sum(peer.bytes_sent for peer in record.peers)
    assert record.link_bytes.min() > 6 * 19_000
    assert Path(data["report"]).read_text().startswith("<!")
    measured = p2pfl("model", "evaluate", data["model"], "--task", "digits", "--json", cwd=tmp_path)
    assert json.loads(measured.stdout)["data"]["accuracy"] > 0.5


def test_the_others_go_on_when_a_peer_is_killed(tmp_path: Path) -> None:
    network = local_network(
        [f"peer-{i}" for i in range(4)],
        name="kill",
        rounds=30,
        task={"name": "digits"},
        training={"local_steps": 1},
        gossip={"floor_s": 0.05, "ceiling_s": 2.0},
    )
    run = run_local(network, tmp_path, kills=[Kill(2, 0.3)], pace_s=0.05)
    assert [peer.state for peer in run.peers] == ["done", "done", "killed", "done"]
    assert all(peer.step == 30 for peer in run.peers if peer.state == "done")
    waited = max(line["waited_s"] for peer in run.peers for line in peer.rounds[1:])
    assert waited <= 2.0 + 0.5  # the ceiling, and a busy machine's share
    last = run.peers[1].rounds[-1]
    assert len(last["missing"]) == 1


def test_asynchronous_peers_learn_too(tmp_path: Path) -> None:
    ended = p2pfl(
        *("demo", "--peers", "3", "--rounds", "5", "--mode", "async", "--pace", "0.05", "--out", "run", "--json"), cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    data = json.loads(ended.stdout)["data"]
    assert sum(peer["updates_applied"] for peer in data["peers"]) > 0


def test_ctrl_c_leaves_no_process_and_no_port_behind(tmp_path: Path) -> None:
    demo = started("demo", "--peers", "3", "--rounds", "100000", "--pace", "0.6", "--out", "run", cwd=tmp_path)
    line_with(demo, "round 2/")
    theirs = children_of(demo.pid)
    ports = {
        connection.laddr.port
        for pid in theirs
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(theirs) == 3 + 1 + 3 + 1  # network processes, the zygote, trainers, and the one that trains alone
    assert len(ports) == 3
    demo.send_signal(signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert "Traceback" not in said
    assert not any(psutil.pid_exists(pid) for pid in theirs)
    for port in ports:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", port))


def test_nothing_survives_a_demo_that_is_killed(tmp_path: Path) -> None:
    demo = started("demo", "--peers", "2", "--rounds", "100000", "--topology", "path", "--pace", "0.1", cwd=tmp_path)
    line_with(demo, "round 2/")
    theirs = [psutil.Process(pid) for pid in children_of(demo.pid)]
    demo.kill()
    demo.communicate()
    _, alive = psutil.wait_procs(theirs, timeout=30)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--task", "digist"), 3, "'digits'"),
        (("--task", "nowhere.py:task"), 3, "no such file"),
        (("--topology", "rign"), 3, "'ring'"),
        (("--topology", "random_regular:7", "--peers", "3"), 3, "random_regular"),
        (("--partition", "dirichlet:-1"), 3, "dirichlet"),
        (("--kill", "soon"), 2, "--kill 2@5"),
        (("--kill", "8@1"), 2, "no peer 8"),
        (("--pace", "nan"), 2, "--pace"),
        (("--peers", "1"), 2, "--peers"),
        (("--out", "."), 3, "--out"),
    ],
)
def test_each_mistake_is_one_object_under_json(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    (tmp_path / "occupied").touch()
    ended = p2pfl("demo", *arguments, "--json", cwd=tmp_path)
    assert ended.returncode == code, ended
    answer = json.loads(ended.stdout)
    assert (answer["schema_version"], answer["status"]) == (1, "error")
    assert said in answer["error"]["message"] + answer["error"]["hint"]
    assert "Traceback" not in ended.stderr


def test_a_kill_names_a_peer_and_a_moment() -> None:
    assert kill_from("2@5", peers=8) == Kill(2, 5.0)
    assert kill_from("0@1.5s", peers=1) == Kill(0, 1.5)
    with pytest.raises(Failure) as refused:
        kill_from("2@-1", peers=8)
    assert refused.value.exit_code is ExitCode.USAGE


def test_a_run_that_came_to_nothing_leaves_its_folder_to_the_mended_command(tmp_path: Path) -> None:
    broken = """
import numpy, torch, p2pfl
rows = numpy.zeros((4, 1), numpy.float32), numpy.zeros(4, numpy.int64)
def loss(outputs, targets):
    raise ValueError("mend me")
task = p2pfl.Task(lambda: torch.nn.Linear(1, 2), lambda peer: (rows, rows), loss)
"""
    (tmp_path / "own.py").write_text(broken)
    for _ in range(2):
        ended = p2pfl(
            *("demo", "--peers", "2", "--topology", "path", "--rounds", "1", "--pace", "0"),
            *("--task", "own.py:task", "--out", "run"),
            cwd=tmp_path,
        )
        assert (ended.returncode, "mend me" in ended.stderr) == (3, True), ended.stderr
        assert not (tmp_path / "run").exists()
