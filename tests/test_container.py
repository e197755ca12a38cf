"""The image and the three nodes of compose.yaml, as far as that can be seen without a container: what they copy is there, and
what the nodes run makes one network of three, on loopback."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from node.upkeep.control import Caller
from p2pfl.failure import Failure
from tests.nodes import environment, on_loopback, p2pfl

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def script(service: str, invites: Path, address: str) -> str:
    """What the node of this service runs, with the folder of invites and its one address put elsewhere."""
    begin = COMPOSE.index("services:") if service == "a" else COMPOSE.index("x-join:")
    found = re.search(r"^( +)- \|\n((?:\1  .*\n)+)", COMPOSE[begin:], re.MULTILINE)
    assert found is not None
    text = dedent(found[2]).replace("$$", "$").replace("/invites", str(invites))
    assert (text.count("0.0.0.0:7780"), text.count('"$NAME:7780"')) == (1, 1)
    return text.replace("0.0.0.0:7780", address).replace('"$NAME:7780"', address)


def test_what_the_image_copies_is_there_and_not_ignored() -> None:
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE) for word in line.split()]
    assert {"p2pfl", "node", "topology", "sim"} <= set(copied)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == kept and all((ROOT / name).exists() for name in copied)


def test_nothing_runs_as_root_and_a_node_is_stopped_with_a_checkpoint() -> None:
    user = DOCKERFILE.index("USER p2pfl")
    assert user < DOCKERFILE.index("ENTRYPOINT") and "RUN" not in DOCKERFILE[user:]
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE
    assert "cap_drop: [ALL]" in COMPOSE and "no-new-privileges:true" in COMPOSE and "read_only: true" in COMPOSE


@pytest.mark.net
def test_three_nodes_found_a_network_join_it_learn_together_and_are_the_same_after_a_restart(tmp_path: Path) -> None:
    invites, seen = tmp_path / "invites", []
    invites.mkdir()
    (invites / "invite").touch()  # as a command leaves it that failed
    for name in "abc":
        (tmp_path / name).mkdir()
    places = {name: on_loopback().listen for name in "abc"}
    for _ in range(2):  # the second time is a restart
        running = []
        try:
            for name in "abc":
                running.append(composed(name, invites, tmp_path / name, places[name]))
                until(tmp_path / name, lambda status: status["state"] != "starting")  # what compose.yaml waits for of a
            statuses = [until(tmp_path / name, learns_with_two) for name in "abc"]
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            codes = [process.wait(60) for process in running]
        assert codes == [143, 143, 143]
        seen.append([status["keys"] for status in statuses])
    assert seen[0] == seen[1]
    assert "p2pfl-invite-1-" in (invites / "invite").read_text()


def composed(name: str, invites: Path, folder: Path, address: str) -> "subprocess.Popen[bytes]":
    """The container's one process, without the container."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = {**environment(), "NAME": name, "PATH": path}
    with (folder / "log").open("ab") as log:
        words = ["sh", "-euc", script(name, invites, address)]
        return subprocess.Popen(words, cwd=folder, env=told, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def until(folder: Path, wanted: Callable[[Any], bool]) -> Any:
    """The first status of this folder's node that is as wanted."""
    end = time.monotonic() + 60
    while True:
        with suppress(Failure), Caller(folder / "node" / "control.sock") as caller:
            if wanted(status := caller.ask("status")):
                return status
        assert time.monotonic() < end, (folder / "log").read_text()[-3000:]
        time.sleep(0.1)


def learns_with_two(status: Any) -> bool:
    """Whether both others are neighbors, and something of each was mixed."""
    return len(status["neighbors"]) == 2 and all(one["applied"] > 0 for one in status["neighbors"])


def test_the_health_check_is_a_command_of_ours(tmp_path: Path) -> None:
    found = re.search(r'CMD \["p2pfl", (.+)\]$', DOCKERFILE, re.MULTILINE)
    assert found is not None
    words = [word.strip(' "') for word in found[1].split(",")]
    assert words[:2] == ["node", "status"]
    assert p2pfl(*words[:2], "--dir", str(tmp_path), cwd=tmp_path).returncode == 5, "no node runs there"
