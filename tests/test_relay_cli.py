"""How a relay and a node behind NAT come to be: what is asked of their owners, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from node.admission import papers
from node.commands.starting import UNREACHED
from node.directory import NodeDirectory
from node.setup import FoundedOthers, Setup
from p2pfl.protocol.admission.certificate import Role
from tests.nodes import environment
from tests.test_network_cli import TASK, Desk, answering, becoming, desk, two_ports

__all__ = ["becoming", "desk"]
pytestmark = pytest.mark.net


def relay_of_own_task(desk: Desk) -> tuple[NodeDirectory, str]:
    """A network that learns a task of its own, and an invite to carry for it."""
    Path("wards.py").write_text(TASK.format(width=4))
    a = desk.founds("wards", "a", "--task", "wards.py:task")
    return a, desk.invites("--role", "relay")


def test_a_relay_joins_by_an_invite_and_is_asked_for_no_task(desk: Desk) -> None:
    a, line = relay_of_own_task(desk)
    with answering(a):
        said = desk.does(*desk.joining(line))
    assert "node-b is a relay of wards, with 1 other" in said.out
    assert papers.credential(NodeDirectory(desk.path / "b")).certificate.role is Role.RELAY


def test_a_relay_joins_by_a_request_and_whoever_signs_it_is_told(desk: Desk) -> None:
    a, _ = relay_of_own_task(desk)
    desk.does("node", "init", "--name", "node-b", "--dir", "b", "--request", "b.request", "--relay", "--no-passphrase")
    signed = desk.does("network", "sign", "b.request", "--dir", "a")
    assert "For the relay node-b" in signed.err
    Path("b.credential").write_text(signed.out)
    with answering(a):
        said = desk.does("node", "join", "b.credential", "--dir", "b", "--listen", f"127.0.0.1:{two_ports()}")
    assert "node-b is a relay of wards" in said.out


def test_only_the_holder_of_the_root_key_makes_a_relay(desk: Desk) -> None:
    said = desk.is_refused("node", "init", "--name", "b", "--relay", "--no-passphrase")
    assert (said.code, "--request" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "saying"),
    [(("--outbound-only",), "outbound-only"), (("--data", "."), "no task"), (("--task", "wards.py:task"), "no task")],
)
def test_a_relay_can_be_reached_and_learns_nothing(desk: Desk, words: tuple[str, ...], saying: str) -> None:
    _, line = relay_of_own_task(desk)
    said = desk.is_refused(*desk.joining(line, "b", *words))
    assert (said.code, saying in said.err) == (2, True), said
    assert not (desk.path / "b").exists()


def test_a_relay_starts_with_nothing_to_learn(desk: Desk, becoming: list[Setup]) -> None:
    a, line = relay_of_own_task(desk)
    with answering(a):
        desk.does(*desk.joining(line))
    desk.is_refused("node", "start", "--dir", "b")
    (told,) = becoming
    assert isinstance(told.others, FoundedOthers)
    assert told.is_relay and told.others.addresses and told.others.door
    assert not told.learning and not told.data_directory


NEEDED = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "numpy", "networkx", "safetensors", "jinja2"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from p2pfl.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_where_nothing_is_learned_nothing_that_learns_need_be_installed(desk: Desk) -> None:
    a, line = relay_of_own_task(desk)
    with answering(a):
        for words in (desk.joining(line), ("doctor", "--dir", "b")):
            done = subprocess.run([sys.executable, "-c", NEEDED, *words], env=environment(), capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    assert "torch" not in done.stdout and "certified" not in done.stdout and "node-b" in done.stdout


IMPORTED = """
import sys
import node.network
print(*{name.partition(".")[0] for name in sys.modules})
"""


def test_a_network_process_loads_nothing_that_takes_much_memory() -> None:
    """What reads files of settings and computes belongs to whoever starts it, and to its trainer."""
    done = subprocess.run([sys.executable, "-c", IMPORTED], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "zmq" in loaded and not loaded & {"torch", "numpy", "networkx", "safetensors", "pydantic", "psutil", "rich", "typer"}


# ---- behind NAT ----------------------------------------------------------------------------------------------------------


def test_a_node_that_nobody_can_reach_opens_no_port_and_states_no_address(desk: Desk, becoming: list[Setup]) -> None:
    a = desk.founds()
    line = desk.invites("--uses", "2")
    with answering(a):
        desk.does(*desk.joining(line, "b", "--outbound-only"))
    known = papers.read(NodeDirectory(desk.path / "b"))
    own = papers.credential(NodeDirectory(desk.path / "b")).identity
    assert known.roster.records[own].addresses == ()
    desk.is_refused("node", "start", "--dir", "b")
    (told,) = becoming
    assert isinstance(told.others, FoundedOthers)
    assert (told.listen, told.others.addresses, told.others.door, told.others.dials_loopback) == (UNREACHED, (), "", True)
    doctor = desk.does("doctor", "--dir", "b")
    assert "none is opened to others" in doctor.out and "which nobody can reach; there is no relay" in doctor.out
    invite = desk.does("network", "invite", "--dir", "b", "--key", "a/root.key", "--json").data
    assert invite["addresses"] == desk.does("network", "invite", "--dir", "a", "--json").data["addresses"]


def test_whether_a_node_can_be_reached_may_change(desk: Desk, becoming: list[Setup]) -> None:
    a = desk.founds()
    for words in (("--outbound-only",), (), ("--reachable",), ()):
        desk.is_refused("node", "start", "--dir", "a", *words)
    assert [bool(told.own.address) for told in becoming] == [False, False, True, True]
    assert json.loads(a.settings.read_text())["outbound_only"] is False


def test_where_one_is_reached_and_that_nobody_can_are_not_said_together(desk: Desk) -> None:
    desk.founds()
    said = desk.is_refused(*desk.joining(desk.invites(), "b", "--outbound-only", "--address", "nas.example:7780"))
    assert (said.code, "give one of the two" in said.err) == (3, True), said
