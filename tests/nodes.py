"""The `p2pfl` command as its users run it, and nodes that were started with it."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from node import node_settings
from node.admission.founding import found, own_record, settle
from node.admission.office import Office
from node.admission.terms import Terms
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.local.network import free_ports
from node.moment import believed_time
from node.node_settings import NodeSettings
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import MEMBER_DAYS_MAX
from p2pfl.protocol.identity import Identity
from p2pfl.settings import parse

P2PFL = [sys.executable, "-m", "p2pfl"]


def p2pfl(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run to its end, with no terminal."""
    return subprocess.run(
        [*P2PFL, *arguments], cwd=cwd, env=environment(), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120
    )


def started(*arguments: str, cwd: Path, on: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Its stdout and stderr come as one stream of lines. `on` comes before the command, to have it run elsewhere."""
    return subprocess.Popen(
        [*on, *P2PFL, *arguments],
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


def network_of(names: list[str], directory: Path, terms: str = "", settings: list[NodeSettings] | None = None) -> None:
    """A folder with a node for each name, on loopback unless these `settings` say otherwise. The first founded the network by
    these terms (TOML), its root key certified the others, and each has the papers of all, as if it had met them before."""
    folders = {name: NodeDirectory(directory / name) for name in names}
    own = dict(zip(names, settings or [on_loopback() for _ in names], strict=True))
    first, *others = names
    found("wards", first, folders[first], parse(Terms, tomllib.loads(terms), "a test"), own[first], None)
    office, now = Office.open(folders[first], None, lambda: ""), believed_time()
    known, credentials = office.papers, {}
    for name in others:
        folder, identity = folders[name], Identity.generate(SystemEntropy())
        folder.create()
        folder.write_identity(identity.to_bytes(None, SystemEntropy()))
        credentials[name] = office.authority.vouch(identity.peer_id, name, now, MEMBER_DAYS_MAX, serial=int(now))
        record = own_record(identity, name, known.roster.network, folder, own[name], now)
        known.roster.learn(credentials[name].data, record.data, now)
        node_settings.save(folder, own[name])
    for name in others:
        settle(folders[name], credentials[name], known.charters, known.roster)
    folders[first].write(folders[first].roster, known.roster.to_bytes())


def on_loopback() -> NodeSettings:
    """At a free port with a free one after it."""
    while True:
        (port,) = free_ports(1)
        with suppress(Failure):
            settings = node_settings.settings_of("a test", listen=f"127.0.0.1:{port}")
            node_settings.refuse_busy(*settings.places)
            return settings


def children_of(pid: int) -> set[int]:
    """Of a process and of its children."""
    import psutil

    return {child.pid for child in psutil.Process(pid).children(recursive=True)}
