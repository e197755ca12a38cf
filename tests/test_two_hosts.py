"""Two nodes on two hosts with a cable between them: two network namespaces, each with its own addresses and its own names."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.node_settings import settings_of
from tests import namespaces
from tests.namespaces import Host
from tests.nodes import P2PFL, environment, line_with, network_of

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(not namespaces.can_make(), reason="two hosts take root and network namespaces"),
]
SETTINGS = 'rounds = 100000\n[task]\nname = "digits"\nmodel = "softmax"\n[topology]\noverlay = "ring"\n'
SETTINGS += "[training]\nlocal_steps = 1\n[gossip]\nfloor_s = 0.3\nceiling_s = 1.0\n"
PORT = 7780


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Each knows the other as "a.ward" and "b.ward", by a file of names of its own."""
    with namespaces.two_hosts() as two:
        folders = [Path("/etc/netns") / host.name for host in two]
        try:
            for folder in folders:
                folder.mkdir(parents=True)
                (folder / "hosts").touch()
            named(two, "10.77.0.1", "10.77.0.2")
            yield two
        finally:
            for folder in folders:
                shutil.rmtree(folder)


def named(hosts: tuple[Host, Host], a: str, b: str) -> None:
    """From now on these are the addresses of the names."""
    for host in hosts:
        (Path("/etc/netns") / host.name / "hosts").write_text(f"127.0.0.1 localhost\n{a} a.ward\n{b} b.ward\n")


def two_nodes(folder: Path, hosts: tuple[Host, Host]) -> list["subprocess.Popen[str]"]:
    """Each listens everywhere, and states its name."""
    network_of(
        ["a", "b"],
        folder,
        SETTINGS,
        [settings_of("a test", listen=f"0.0.0.0:{PORT}", addresses=(f"{name}.ward:{PORT}",)) for name in "ab"],
    )
    return [
        subprocess.Popen(
            host.command(
                "timeout",
                "150",
                *P2PFL,
                "node",
                "start",
                "--dir",
                name,
            ),
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        for name, host in zip("ab", hosts, strict=True)
    ]


def ended(nodes: list["subprocess.Popen[str]"]) -> None:
    for node in nodes:
        node.send_signal(signal.SIGTERM)
    try:
        assert [node.communicate(timeout=30) and node.returncode for node in nodes] == [143, 143]
    finally:
        for node in nodes:
            node.kill()


def rounds(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def test_two_hosts_learn_together(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    nodes = two_nodes(tmp_path, hosts)
    try:
        for node in nodes:
            for _ in range(2):
                line_with(node, "applied 1  missing 0")
    finally:
        ended(nodes)
    assert all(sum(int(str(line["applied"])) for line in rounds(tmp_path, name)) > 2 for name in "ab")


@pytest.mark.slow
def test_a_host_that_moves_to_another_address_is_found_by_its_name(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    """Its old one is gone from one moment to the next: nobody says good-bye, and no connection survives."""
    nodes = two_nodes(tmp_path, hosts)
    try:
        for node in nodes:
            line_with(node, "applied 1  missing 0")
        hosts[1].remove_address("10.77.0.2")
        hosts[1].add_address("10.77.0.9")
        for node in nodes:
            line_with(node, "missing 1")
        named(hosts, "10.77.0.1", "10.77.0.9")
        for node in nodes:
            line_with(node, "applied 1  missing 0")
    finally:
        ended(nodes)
    assert [any(line["missing"] for line in rounds(tmp_path, name)[3:]) for name in "ab"] == [True, True]


@pytest.mark.slow
def test_a_cable_that_is_pulled_and_plugged_in_again_is_no_more_than_a_pause(tmp_path: Path, hosts: tuple[Host, Host]) -> None:
    nodes = two_nodes(tmp_path, hosts)
    try:
        for node in nodes:
            line_with(node, "applied 1  missing 0")
        hosts[0].run("ip", "link", "set", hosts[0].interface, "down")
        for node in nodes:
            line_with(node, "missing 1")
        hosts[0].run("ip", "link", "set", hosts[0].interface, "up")
        for node in nodes:
            line_with(node, "applied 1  missing 0")
    finally:
        ended(nodes)
