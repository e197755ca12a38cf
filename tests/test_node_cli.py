"""`p2pfl node` as an operator meets it: a life with a stop and a resume, and one line for every mistake."""

import json
import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from node.directory import NodeDirectory
from tests.nodes import children_of, line_with, network_of, p2pfl, reached, started

HEAD = 'rounds = 100000\n[topology]\noverlay = "ring"\n[training]\nlocal_steps = 1\n[gossip]\nfloor_s = 0.5\n'


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network of two members."""
    folder = tmp_path_factory.mktemp("wards")
    network_of(["a", "b"], folder, HEAD)
    return folder


@pytest.mark.net
def test_a_node_that_was_stopped_goes_on_where_it_was_and_leaves_nothing_behind(wards: Path) -> None:
    a, b = (started("node", "start", "--dir", name, cwd=wards) for name in "ab")
    for process in (a, b):
        reached(process, 3)
    theirs = children_of(a.pid)
    assert len(theirs) == 1
    a.send_signal(signal.SIGTERM)
    assert str(wards / "a" / "model.safetensors") in a.communicate(timeout=60)[0]
    assert (a.returncode, (wards / "a" / "model.safetensors").exists()) == (143, True)
    assert not any(psutil.pid_exists(pid) for pid in theirs)

    again = started("node", "start", "--dir", "a", cwd=wards)  # its port is free again
    assert reached(again, 5) >= 3
    for process in (again, b):
        process.send_signal(signal.SIGINT)
    for process in (again, b):
        process.communicate(timeout=60)
        assert process.returncode == 130
    steps = [json.loads(line)["step"] for line in (wards / "a" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def refused(wards: Path, *changes: str) -> tuple[int, str]:
    """The exit code, and the one line that `p2pfl node start` says."""
    ended = p2pfl("node", "start", "--dir", "a", *changes, cwd=wards)
    lines = [line for line in ended.stderr.splitlines() if "listens at" not in line]
    assert len(lines) == 1 and ended.stdout == "", ended
    return ended.returncode, lines[0]


@pytest.mark.net
def test_a_node_leaves_a_model_that_is_as_good_as_its_last_line_says(tmp_path: Path) -> None:
    network_of(["a", "b"], tmp_path, HEAD.replace("100000", "3").replace("local_steps = 1\n", "local_steps = 60\n"))
    a, b = (started("node", "start", "--dir", name, cwd=tmp_path) for name in "ab")
    for process in (a, b):
        line_with(process, "ended after round 3")
        model = line_with(process, "model    ").split()[1]
        process.communicate(timeout=60)
        measured = p2pfl("model", "evaluate", model, "--task", "digits", "--json", cwd=tmp_path)
        shown = json.loads((Path(model).parent / "metrics.jsonl").read_text().splitlines()[-1])
        assert json.loads(measured.stdout)["data"]["accuracy"] == pytest.approx(shown["accuracy"])


@pytest.mark.fault("settings")
@pytest.mark.net
def test_a_busy_port_is_one_line_and_exit_code_5(wards: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        code, line = refused(wards, "--listen", f"127.0.0.1:{busy.getsockname()[1]}")
    assert code == 5
    assert "127.0.0.1" in line


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_to_start_a_node_that_runs_says_one_thing_and_changes_nothing(wards: Path, form: tuple[str, ...]) -> None:
    directory = NodeDirectory(wards / "a")
    before = directory.settings.read_bytes()
    lock = directory.lock()
    ended = p2pfl("node", "start", "--dir", "a", "--listen", "127.0.0.1:7990", *form, cwd=wards)
    os.close(lock)
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert (ended.returncode, "this node is running already" in line) == (5, True)
    assert directory.settings.read_bytes() == before


@pytest.mark.fault("keys at rest")
def test_keys_that_others_can_read_are_one_line_and_exit_code_6(wards: Path) -> None:
    identity = wards / "a" / "identity"
    identity.chmod(0o644)
    code, line = refused(wards)
    identity.chmod(0o600)
    assert (code, "chmod 600" in line) == (6, True)


def test_a_missing_folder_and_a_missing_charter_are_each_one_line(wards: Path) -> None:
    assert refused(wards, "--dir", "nowhere")[0] == 3
    charter = wards / "a" / "charter"
    charter.rename(wards / "charter")
    code, line = refused(wards)
    (wards / "charter").rename(charter)
    assert (code, "no member of a network is here" in line) == (6, True)


def test_a_folder_of_data_must_be_there(wards: Path) -> None:
    assert refused(wards, "--data", "nowhere")[0] == 3


@pytest.mark.fault("settings")
def test_a_wrong_task_is_one_line(wards: Path) -> None:
    code, line = refused(wards, "--task", "digist")
    assert (code, "'digits'" in line) == (3, True)


def test_with_nobody_to_ask_a_passphrase_is_not_waited_for(wards: Path) -> None:
    ended = p2pfl("node", "init", "--name", "c", "--dir", "c", "--request", "c.request", cwd=wards)
    assert (ended.returncode, ended.stdout) == (6, "")
    assert "--no-passphrase" in ended.stderr and ended.stderr.count("\n") == 1
    assert not (wards / "c").exists()


def test_a_bad_name_and_no_place_for_the_request_make_no_folder(wards: Path) -> None:
    for code, *changes in ((3, "--name", "", "--request", "c.request"), (2, "--name", "c")):
        ended = p2pfl("node", "init", "--dir", "c", "--no-passphrase", *map(str, changes), cwd=wards)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (code, "", 1), ended
        assert not (wards / "c").exists()
