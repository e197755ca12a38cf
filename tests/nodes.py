"""The `p2pfl` command as its users run it, and nodes that were started with it."""

import os
import subprocess
import sys
from pathlib import Path

from node.local.run import _free_ports

P2PFL = [sys.executable, "-m", "p2pfl"]


def p2pfl(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run to its end, with no terminal."""
    return subprocess.run(
        [*P2PFL, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def started(*arguments: str, cwd: Path) -> "subprocess.Popen[str]":
    """Its stdout and stderr come as one stream of lines."""
    return subprocess.Popen(
        [*P2PFL, *arguments],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )


def environment() -> dict[str, str]:
    root = str(Path(__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": root, "NO_COLOR": "1", "COLUMNS": "200"}


def line_with(process: "subprocess.Popen[str]", text: str) -> str:
    """Wait for the next line that has `text`; what the process says meanwhile is shown if it never comes."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        if text in line:
            return line
        said.append(line)
    raise AssertionError(f"{text!r} never came:\n{''.join(said)}")


def reached(process: "subprocess.Popen[str]", step: int) -> int:
    """Wait until a node shows this round or a later one; returns the one that it showed first."""
    first = shown = int(line_with(process, "round ").split()[1])
    while shown < step:
        shown = int(line_with(process, "round ").split()[1])
    return first


def network_of(names: list[str], directory: Path, head: str) -> Path:
    """A folder with keys for each name, and the file that lists them."""
    blocks = []
    for name, port in zip(names, _free_ports(len(names)), strict=True):
        made = p2pfl(
            *("node", "init", "--name", name, "--dir", name, "--address", f"127.0.0.1:{port}", "--no-passphrase"), cwd=directory
        )
        assert made.returncode == 0, made.stderr
        blocks.append(made.stdout)
    path = directory / "wards.toml"
    path.write_text(head + "\n".join(blocks), encoding="utf-8")
    return path


def children_of(pid: int) -> set[int]:
    """Of a process and of its children."""
    import psutil

    return {child.pid for child in psutil.Process(pid).children(recursive=True)}
