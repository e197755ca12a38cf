"""The image and the three nodes of compose.yaml, as far as that can be seen without a container: what they copy is there, and
what the nodes run first makes one network of three."""

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from node import network_file
from tests.nodes import environment, p2pfl

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "compose.yaml").read_text()


def script(shared: Path, folder: Path) -> str:
    """What a node of compose.yaml runs, up to its start, with its folders put elsewhere."""
    found = re.search(r"^    - \|\n((?:      .*\n)+)", COMPOSE, re.MULTILINE)
    assert found is not None
    text = (
        dedent(found[1])
        .replace("$$", "$")
        .replace("/shared", str(shared))
        .replace("/tmp/wards.toml", str(folder / "wards.toml"))
    )
    before, start = text.split("exec p2pfl node start", 1)
    assert start == f" --dir node --network {folder}/wards.toml --listen 0.0.0.0:7780\n"
    return before


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


def test_three_nodes_make_their_keys_and_agree_on_one_network_and_keep_both(tmp_path: Path) -> None:
    scripts = str(Path(sys.executable).parent)
    shared, seen = tmp_path / "shared", []
    shared.mkdir()
    for _ in range(2):  # the second time is a restart
        running = []
        for name in "abc":
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            told = {**environment(), "NAME": name, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
            running.append(subprocess.Popen(["sh", "-euc", script(shared, folder)], cwd=folder, env=told))
        assert [process.wait(60) for process in running] == [0, 0, 0]
        networks = {(tmp_path / name / "wards.toml").read_text() for name in "abc"}
        assert len(networks) == 1
        seen.append(networks)
    assert seen[0] == seen[1]
    network = network_file.load(tmp_path / "a" / "wards.toml")
    assert [member.address for member in network.member] == ["a:7780", "b:7780", "c:7780"]


def test_the_health_check_is_a_command_of_ours(tmp_path: Path) -> None:
    found = re.search(r'CMD \["p2pfl", (.+)\]$', DOCKERFILE, re.MULTILINE)
    assert found is not None
    words = [word.strip(' "') for word in found[1].split(",")]
    assert words[:2] == ["node", "status"]
    assert p2pfl(*words[:2], "--dir", str(tmp_path), cwd=tmp_path).returncode == 5, "no node runs there"
