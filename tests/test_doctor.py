"""The doctor: every doubt comes with the line that mends it, and a healthy machine gets none."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from node import moment
from node.commands import doctor
from node.commands.doctor import Finding, Patient, examined, lines
from node.directory import NodeDirectory
from p2pfl.failure import ExitCode
from tests.nodes import network_of, p2pfl


@pytest.fixture(scope="module")
def wards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wards")
    network_of(["a", "b"], folder)
    return folder


def patient(wards: Path, name: str = "a", listen: str | None = None) -> Patient:
    return Patient(NodeDirectory(wards / name), listen, None)


def finding(patient: Patient, name: str) -> Finding:
    (found,) = (one for one in examined(patient) if one.name == name)
    return found


def test_a_healthy_machine_is_ok_in_every_line_and_torch_is_not_imported(wards: Path) -> None:
    code = "import sys; from p2pfl.__main__ import main; code = main(); assert 'torch' not in sys.modules; sys.exit(code)"
    asked = ["doctor", "--dir", "a", "--json"]
    ended = subprocess.run([sys.executable, "-c", code, *asked], cwd=wards, capture_output=True, text=True)
    assert ended.returncode == 0, ended
    data = json.loads(ended.stdout)["data"]
    assert data["is_fit"] and [one["mend"] for one in data["findings"]] == [""] * len(data["findings"])
    assert [one["name"] for one in data["findings"]] == [
        *("python", "packages", "curve", "port", "clock", "disk", "open files", "memory", "identity", "network")
    ]


def test_a_machine_without_any_node_is_as_healthy(tmp_path: Path) -> None:
    ended = p2pfl("doctor", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert ended.returncode == 0 and "p2pfl node join makes one" in ended.stdout, ended


def test_something_to_mend_is_exit_code_4_and_says_how(wards: Path, tmp_path: Path) -> None:
    ended = p2pfl("doctor", "--dir", str(tmp_path / "no"), "--listen", "127.0.0.1:0", cwd=wards)
    assert ended.returncode == ExitCode.UNFIT == 4
    assert "MEND  identity" in ended.stdout and "p2pfl node init --name NAME" in ended.stdout
    ended = p2pfl("doctor", "--dir", str(tmp_path / "no"), "--json", cwd=wards)
    assert (ended.returncode, json.loads(ended.stdout)["data"]["is_fit"]) == (4, False)


@pytest.mark.net
def test_a_port_that_is_taken_is_named(wards: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = finding(patient(wards, listen=f"127.0.0.1:{port}"), "port")
    assert found.text == f"Can't listen at 127.0.0.1:{port}: Address already in use." and "--listen HOST:PORT" in found.mend


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1", "no-such-host.invalid:80", "203.0.113.1:7780"])
def test_an_address_that_can_not_be_listened_at_is_to_be_mended(wards: Path, listen: str) -> None:
    assert finding(patient(wards, listen=listen), "port").mend


@pytest.mark.fault("keys at rest")
def test_keys_that_others_can_read_are_told_with_the_command_that_shuts_them(wards: Path) -> None:
    identity = wards / "b" / "identity"
    identity.chmod(0o644)
    try:
        assert finding(patient(wards, "b"), "identity").mend == f"chmod 600 {identity}"
    finally:
        identity.chmod(0o600)


@pytest.mark.fault("keys at rest")
@pytest.mark.parametrize("kept", ["truncated", "empty", "nothing of ours"])
def test_an_identity_that_is_damaged_is_to_be_mended(wards: Path, tmp_path: Path, kept: str) -> None:
    whole = (wards / "a" / "identity").read_bytes()
    (tmp_path / "identity").write_bytes({"truncated": whole[:50], "empty": b"", "nothing of ours": b"\x80" * 300}[kept])
    (tmp_path / "identity").chmod(0o600)
    assert finding(Patient(NodeDirectory(tmp_path), "127.0.0.1:0", None), "identity").mend


def test_papers_of_another_network_are_told_of(wards: Path, tmp_path: Path) -> None:
    network_of(["c"], tmp_path)
    roster = wards / "b" / "roster"
    kept = roster.read_bytes()
    roster.write_bytes((tmp_path / "c" / "roster").read_bytes())
    try:
        assert finding(patient(wards, "b"), "network").mend
    finally:
        roster.write_bytes(kept)


@pytest.mark.fault("clocks")
@pytest.mark.parametrize(("now", "is_right"), [(0.0, False), (1e9, False), (moment.RELEASED + 1, True), (2e9, True)])
def test_a_clock_before_this_version_is_wrong(monkeypatch: pytest.MonkeyPatch, now: float, is_right: bool) -> None:
    monkeypatch.setattr(doctor.time, "time", lambda: now)
    assert (finding(Patient(None, "127.0.0.1:0", None), "clock").mend == "") is is_right


@pytest.mark.fault("clocks")
def test_a_clock_behind_the_newest_start_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "boot").write_text("1900000000\n")
    for now, is_right in ((1.9e9 - 3601, False), (1.9e9 - 3599, True)):
        monkeypatch.setattr(doctor.time, "time", lambda now=now: now)
        assert (finding(Patient(NodeDirectory(tmp_path), "127.0.0.1:0", None), "clock").mend == "") is is_right


def test_a_pipe_where_the_newest_start_should_stand_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "boot")
    assert finding(Patient(NodeDirectory(tmp_path), "127.0.0.1:0", None), "clock").mend == ""


def test_little_disk_memory_and_few_files_are_told_of(wards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    usage, memory = type("Usage", (), {"free": 5 << 20}), type("Memory", (), {"available": 100 << 20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _place: usage)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 1024))
    found = {one.name: one for one in examined(patient(wards)) if one.mend}
    assert set(found) == {"disk", "memory", "open files"}
    assert found["open files"].mend == "ulimit -Hn 4096, or LimitNOFILE= of the service"


def test_a_member_of_a_founded_network_is_told_of_its_ports_its_standing_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = ("--node", "a", "--dir", "a", "--listen", "127.0.0.1:45671", "--no-passphrase")
    made = p2pfl("network", "create", "wards", "--task", "digits", *where, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    member = Patient(NodeDirectory(tmp_path / "a"), None, None)
    assert finding(member, "network") == Finding("network", "wards: 1 members, this node is a")
    assert member.places == ("127.0.0.1:45671", "127.0.0.1:45672")
    now = time.time()
    monkeypatch.setattr(doctor.time, "time", lambda: now + 80 * 86_400)
    assert "p2pfl network sign" in finding(member, "network").mend
    monkeypatch.setattr(doctor.time, "time", lambda: now + 91 * 86_400)
    assert "has expired" in finding(member, "network").text


def test_what_mends_stands_below_what_is_wrong() -> None:
    shown = list(lines([Finding("disk", "/x: full.", "Free it."), Finding("clock", "2026")]))
    assert shown == ["MEND  disk        /x: full.", "                  Free it.", "ok    clock       2026"]


def test_it_does_not_need_to_be_root_to_tell(wards: Path) -> None:
    assert os.access(wards, os.R_OK) and not [one for one in examined(patient(wards)) if "Permission" in one.text]
