"""The systemd unit: what it promises, that systemd understands it, and one line for every mistake."""

import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from node.commands import service
from node.commands.service import Service, checked, install, name_of, remove, status, unit_of
from p2pfl.failure import ExitCode, Failure

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """One whose folder is where systemd would keep it; its units go to a folder of ours."""
    monkeypatch.setattr(service, "STATES", tmp_path)
    monkeypatch.setattr(service, "UNITS", tmp_path / "units")
    (tmp_path / "units").mkdir()
    (tmp_path / "ward-a").mkdir()
    (tmp_path / "ward-a" / "identity").touch()
    (tmp_path / "ward-a" / "node.json").touch()
    return Service("ward-a", tmp_path / "ward-a")


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What it was asked, one line each; it fails when there is a file `broken`."""
    fake, asked = tmp_path / "bin" / "systemctl", tmp_path / "asked"
    fake.parent.mkdir()
    breaks = f"[ ! -e {tmp_path}/broken ] || {{ echo no bus >&2; exit 1; }}"
    fake.write_text(f'#!/bin/sh\necho "$@" >>{asked}\necho ActiveState=active\n{breaks}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    return asked


def test_the_trainer_can_die_the_node_can_hang_and_a_wrong_configuration_is_not_tried_for_ever(node: Service) -> None:
    said = settings(unit_of(node))
    assert (said["OOMPolicy"], said["KillMode"], said["Restart"]) == ("continue", "mixed", "on-failure")
    assert (said["Type"], said["WatchdogSec"]) == ("notify", "60")
    assert said["RestartPreventExitStatus"] == "2 3 4 6 9 10"
    assert said["SuccessExitStatus"] == "130 143"


def test_it_is_shut_in(node: Service) -> None:
    said = settings(unit_of(node))
    for name, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "DynamicUser": "yes",
        "CapabilityBoundingSet": "",
        "MemoryMax": "4G",
        "StateDirectory": "ward-a",
        "StateDirectoryMode": "0700",
        "UMask": "0077",
        "LimitCORE": "0",
    }.items():
        assert said[name] == value
    assert "User" not in said
    assert settings(unit_of(replace(node, user=ME)))["User"] == ME


def test_a_member_needs_no_file_but_its_folder(node: Service) -> None:
    member = checked(replace(node, user="root"))
    assert settings(unit_of(member))["ExecStart"].endswith(f"node start --dir {node.directory}")
    assert "LoadCredential" not in unit_of(member)
    (node.directory / "node.json").unlink()
    with pytest.raises(Failure, match="no member of a network is here"):
        checked(node)


def test_the_passphrase_is_handed_over_by_systemd_and_in_no_command_line(node: Service) -> None:
    text = unit_of(replace(node, passphrase=Path("/etc/p2pfl/secret")))
    assert "LoadCredential=passphrase:/etc/p2pfl/secret" in text
    assert settings(text)["ExecStart"].endswith(" --passphrase-file %d/passphrase")


@pytest.mark.fault("hostile names")
def test_odd_paths_stay_one_word(node: Service) -> None:
    odd = replace(node, directory=Path('/var/lib/a b%n"$HOME'), listen="[::]:7780")
    assert '--dir "/var/lib/a b%%n\\"$$HOME" ' in unit_of(odd)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
@pytest.mark.parametrize("user", ["", "root"])
def test_systemd_understands_it(node: Service, tmp_path: Path, user: str) -> None:
    path = tmp_path / node.unit
    data = tmp_path / "data %n"
    path.write_text(unit_of(replace(node, user=user, passphrase=tmp_path / "secret", data=data, task="/srv/task.py:task")))
    found = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert (found.returncode, [line for line in found.stderr.splitlines() if node.unit in line]) == (0, [])


MISTAKES = {
    "no folder": ({"directory": Path("/nowhere/x")}, "no member of a network is here"),
    "a name that is a path": ({"name": "../x"}, "letters, digits"),
    "no amount": ({"memory_max": "lots"}, "is no amount of memory"),
    "no user": ({"user": "nobody-of-that-name"}, "there is no such user"),
    "a line break": ({"listen": "0.0.0.0:1\nUser=root"}, "control character"),
}


@pytest.mark.parametrize(("changes", "complaint"), MISTAKES.values(), ids=MISTAKES)
def test_every_mistake_is_one_line(node: Service, changes: dict, complaint: str) -> None:
    with pytest.raises(Failure, match=complaint):
        checked(replace(node, **changes))


def test_a_folder_elsewhere_needs_a_user(node: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "STATES", Path("/var/lib"))
    monkeypatch.setattr(sys, "prefix", "/opt/p2pfl")
    with pytest.raises(Failure, match="or give --user NAME"):
        checked(node)
    assert checked(replace(node, user=ME)).user == ME


def test_a_python_in_roots_home_is_no_use_to_another_user(node: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/root/p2pfl/.venv")
    with pytest.raises(Failure, match="where no other user can look"):
        checked(node)


def test_what_lies_at_home_can_be_read_there(node: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/ann/.venv")
    assert settings(unit_of(node))["ProtectHome"] == "read-only"
    monkeypatch.setattr(sys, "prefix", "/opt/p2pfl")
    assert settings(unit_of(node))["ProtectHome"] == "yes"


def test_it_is_installed_looked_at_and_removed(node: Service, systemctl: Path) -> None:
    assert "journalctl -fu p2pfl-ward-a.service" in "\n".join(install(node))
    path = service.UNITS / node.unit
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == (unit_of(node), 0o644)
    assert status("ward-a")["ActiveState"] == "active"
    assert name_of(None, node.directory) == "ward-a" and name_of(None, None) == "node" and name_of("x", node.directory) == "x"
    with pytest.raises(Failure, match="no service runs"):
        name_of(None, node.directory.parent)
    remove("ward-a")
    assert not path.exists() and node.directory.exists()
    asked = systemctl.read_text().splitlines()
    assert [line for line in asked if not line.startswith("show")] == [
        *("daemon-reload", "enable --now p2pfl-ward-a.service", "disable --now p2pfl-ward-a.service", "daemon-reload")
    ]


def test_what_systemctl_says_is_passed_on(node: Service, systemctl: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(Failure, match=r"systemctl daemon-reload: no bus\.") as refused:
        install(node)
    assert refused.value.exit_code is ExitCode.UNFIT


def test_a_service_that_is_not_there_is_told_with_those_that_are(node: Service, systemctl: Path) -> None:
    install(node)
    for name in ("ward-b", "../ward-a"):
        with pytest.raises(Failure, match="Installed are: ward-a"):
            remove(name)
