"""`p2pfl node status` and `p2pfl node leave`: a node says of itself what an operator needs; no member can spoil it."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
import pytest

from node.admission.enrolment import identity_in
from node.commands.status import duration, lines, size
from node.directory import NodeDirectory
from node.local.network import free_ports
from tests.nodes import children_of, line_with, network_of, p2pfl, reached, started
from tests.systemd import Systemd

HEAD = 'rounds = 100000\n[topology]\noverlay = "ring"\n[training]\nlocal_steps = 1\n[gossip]\nfloor_s = 0.5\n'


def status_of(name: str, cwd: Path) -> Any:
    ended = p2pfl("node", "status", "--dir", name, "--json", cwd=cwd)
    assert ended.returncode == 0, ended
    return json.loads(ended.stdout)["data"]


def until(name: str, cwd: Path, wanted: Any) -> Any:
    """The first status that is as wanted."""
    end = time.monotonic() + 60
    while not wanted(status := status_of(name, cwd)):
        assert time.monotonic() < end, status
    return status


def ended_with(process: "subprocess.Popen[str]") -> int:
    process.communicate(timeout=60)
    return process.returncode


@pytest.mark.net
def test_two_nodes_tell_of_each_other_their_books_balance_and_one_leaves_the_other_alone(tmp_path: Path) -> None:
    network_of(["a", "b"], tmp_path, HEAD)
    a, b = (started("node", "start", "--dir", name, cwd=tmp_path) for name in "ab")
    for process in (a, b):
        reached(process, 3)

    seen = status_of("a", tmp_path)
    (neighbor,) = seen["neighbors"]
    assert (seen["name"], seen["network"], seen["pid"], seen["members"]) == ("a", "wards", a.pid, 2)
    assert seen["state"] in ("learning", "waiting") and seen["alone_since"] is None
    assert 0 <= seen["round_age_s"] < 60
    assert 0 < seen["accuracy"] < 1 and seen["loss"] > 0 and seen["step"] >= 3
    assert (neighbor["name"], neighbor["state"], neighbor["trouble"]) == ("b", "ready", "")
    assert abs(neighbor["behind"]) <= 2
    fates = ("applied", "rejected", "superseded", "lost", "held")
    assert sum(neighbor[fate] for fate in fates) > 0
    assert neighbor["bytes_sent"] == seen["bytes_sent"] > 0 < neighbor["bytes_received"] == seen["bytes_received"]
    assert seen["trainer"]["is_up"] and {seen["trainer"]["pid"]} == children_of(a.pid)
    assert seen["trainer"]["memory_bytes"] > seen["memory_bytes"] > 1 << 20
    for who in (seen, neighbor):
        identity = identity_in(NodeDirectory(tmp_path / who["name"]), None)
        keys = {"identity": identity.peer_id, "transport": identity.transport_key, "seal": identity.seal_key}
        assert all(keys[name].hex().startswith(digits) for name, digits in who["keys"].items())

    shown = p2pfl("node", "status", "--dir", "a", cwd=tmp_path).stdout
    assert shown.startswith("a in wards: ") and "\x1b" not in shown and max(map(len, shown.splitlines())) <= 80

    ended = p2pfl("node", "leave", "--dir", "b", cwd=tmp_path)
    assert (ended.returncode, ended.stdout[:22]) == (0, "b has left after round"), ended
    assert ended_with(b) == 0, "systemd must not start it again"
    assert (tmp_path / "b" / "model.safetensors").exists()
    assert p2pfl("node", "status", "--dir", "b", cwd=tmp_path).returncode == 5

    alone = until("a", tmp_path, lambda status: status["alone_since"] is not None)
    assert (alone["membership"]["left"], alone["membership"]["alive"]) == (1, 1)
    assert all(one["state"] == "parted" and one["trouble"] for one in alone["neighbors"])  # until it forgets who left
    assert alone["updates_applied"] > 0 and not alone["rejected"]
    a.send_signal(signal.SIGTERM)
    assert ended_with(a) == 143
    assert not (tmp_path / "a" / "control.sock").exists()


@pytest.mark.fault("alone")
@pytest.mark.net
def test_a_node_that_nobody_answers_is_alone_and_can_be_watched_to_its_end_by_people_and_by_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network_of(["a", "b"], tmp_path, HEAD)
    with Systemd() as systemd:
        with monkeypatch.context() as as_a_service:
            as_a_service.setenv("NOTIFY_SOCKET", str(systemd.path))
            (port,) = free_ports(1)
            more = ("--metrics-port", str(port))
            a = started("node", "start", "--dir", "a", *more, cwd=tmp_path)
        starting = systemd.next()
        assert "READY=1" not in starting and "EXTEND_TIMEOUT_USEC=60000000" in starting
        systemd.wait_for("READY=1")
        reached(a, 0)
        seen = until("a", tmp_path, lambda status: status["state"] == "alone")
        assert time.time() - 60 < seen["alone_since"] < time.time()
        assert not any(one["state"] == "ready" for one in seen["neighbors"])
        with urlopen(f"http://127.0.0.1:{port}/metrics") as metrics:
            assert b"\np2pfl_alone 1.0\n" in metrics.read()
        systemd.wait_for(f"STATUS=alone, round {seen['step']}")
        watching = started("node", "status", "--dir", "a", "--watch", cwd=tmp_path)
        assert "no neighbor can be reached" in line_with(watching, "alone since")
        psutil.Process(seen["trainer"]["pid"]).kill()
        line_with(watching, "trainer was killed (SIGKILL)")
        assert p2pfl("node", "leave", "--dir", "a", "--json", cwd=tmp_path).returncode == 0
        line_with(watching, "the node has ended")
        assert (ended_with(watching), ended_with(a)) == (0, 0)
        systemd.wait_for("STOPPING=1")


def example(**changes: Any) -> dict[str, Any]:
    neighbor = {
        "name": "ward-b",
        "address": "10.0.0.6:7780",
        "keys": {},
        "state": "ready",
        "trouble": "",
        "step": 12,
        "behind": 0,
        "bytes_sent": 1_234_567,
        "bytes_received": 999,
        "messages_dropped": 0,
        "sent": 12,
        "applied": 11,
        "rejected": 0,
        "superseded": 1,
        "lost": 0,
        "held": 0,
        "refusals": {"rate_limited": 123456},
        "ignored_s": 0.0,
    }
    return {
        "name": "ward-a",
        "network": "wards",
        "state": "waiting",
        "step": 12,
        "accuracy": 0.9,
        "loss": None,
        "round_age_s": 3.0,
        "alone_since": None,
        "listens_at": "0.0.0.0:7780",
        "keys": {"identity": "0123456789abcdef"},
        "members": 2,
        "membership": None,
        "neighbors": [neighbor],
        "bytes_sent": 1,
        "bytes_received": 2,
        "updates_sent": 1,
        "updates_applied": 1,
        "rejected": {"rate_limited": 123456},
        "strangers_refused": 3,
        "messages_unknown": 0,
        "messages_dropped": 0,
        "messages_muted": 7,
        "listener_cycles": 1,
        "trainer": {"pid": 1, "is_up": True, "restarts": 2, "trouble": "", "memory_bytes": 1},
        "checkpoint": {"step": 10, "age_s": 75.0, "failures": 3},
        "journal_failures": 1,
        "incidents": {},
        "recent": [],
        "began": 0.0,
        "uptime_s": 93_784.0,
        "memory_bytes": 21_000_000,
        "pid": 1,
        "version": "1",
        **changes,
    }


def test_a_status_says_what_went_wrong_too() -> None:
    shown = "\n".join(lines(example()))
    for said in (
        *(
            "ward-a in wards: waiting, round 12",
            "accuracy 0.9000   last round ended 3 s ago   up 1 d 2 h",
            "round 10, 1 min 15 s ago; 3 failed",
        ),
        *(
            "up, 2 restarts",
            "refused     rate_limited 123456",
            "3 turned away; listener cycled 1 times",
            "did not take 1 lines",
            "ignored     7 messages",
        ),
    ):
        assert said in shown


SEEN = {"alive": 2, "suspected": 1, "dead": 1, "left": 0, "watched": 2, "bytes_sent": 4567}
SEEN |= {"attestation": {"as_of": 1_800_000_000, "revocations": 1, "is_whole": False, "is_stale": False}}
SEEN |= {"charter": 2, "at_restart": ["limits.max_abs"], "revocations": 1, "conflicts": 0, "is_clock_off": True}
"""What a node of a founded network says of its members."""


def test_a_status_of_a_founded_network_says_who_is_live_and_that_a_clock_is_wrong() -> None:
    shown = lines(example(membership=SEEN))
    assert "members     2 alive, 1 suspected, 1 dead, 0 left; 2 watched with 4.57kB" in shown
    assert "papers      1 revocations, 0 invites used too often" in shown
    assert any("some of them never came here" in line for line in shown) and all(len(line) <= 80 for line in shown)
    assert "charter     2; waits for a restart: limits.max_abs" in shown
    assert any(line.startswith("clock ") for line in shown) and max(map(len, shown)) <= 80


@pytest.mark.fault("hostile names")
def test_whatever_a_name_or_a_fault_says_a_line_stays_one_line_of_80_columns() -> None:
    evil = "\x1b[2J\r\n</script>" + "x" * 200
    neighbor = {
        **example()["neighbors"][0],
        "name": evil,
        "address": evil,
        "trouble": evil,
        "state": "ignored",
        "ignored_s": 9.0,
    }
    recent = [{"time": 0.0, "kind": "rejected", "member": evil, "text": evil}] * 5
    status = example(
        name=evil, network=evil, neighbors=[neighbor], recent=recent, rejected={f"reason{k}": k for k in range(30)}
    )
    shown = lines(status)
    assert all(len(line) <= 80 and line.isprintable() for line in shown), max(shown, key=len)


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0"), (999, "999"), (1000, "1k"), (12_345, "12.3k"), (999_999, "1000k"), (4_560_000, "4.56M")]
)
def test_sizes_are_short(count: int, shown: str) -> None:
    assert size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3661, "1 h 1 min"), (200_000, "2 d 7 h")]
)
def test_durations_have_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
