"""`p2pfl network` and `p2pfl node join` as operators meet them: what they leave on the disk, and one line for every mistake.

The node that answers at the join door is a real `JoinDoor` in this process; the verbs are called as `p2pfl` calls them.
"""

import asyncio
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from node import moment, node_settings
from node.admission import papers
from node.admission.door import JoinDoor
from node.commands import starting
from node.directory import NodeDirectory
from node.setup import FoundedOthers, Setup
from node.transport.address import Address
from node.transport.sockets import TransportKeys
from p2pfl.__main__ import main
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import DAY_S, Role
from p2pfl.protocol.admission.join import Door
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from tests.loopback import CALM

pytestmark = pytest.mark.net
SETTINGS = """
rounds = 50
seed = 3
[task]
name = "digits"
model = "softmax"
[training]
local-steps = 2
[topology]
overlay = "ring"
[gossip]
floor_s = 0.3
"""
TASK = """
import torch
from p2pfl import Task

def data(peer):
    x = torch.randn(20, {width}, generator=torch.Generator().manual_seed(peer.index))
    y = (x.sum(dim=1) > 0).long()
    return (x, y), (x, y)

task = Task(model=lambda: torch.nn.Linear({width}, 2), data=data)
"""


@dataclass
class Said:
    code: int
    out: str
    err: str

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)["data"]
        return found


class Desk:
    """A folder to work in, where commands are typed."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def types(self, *words: str) -> Said:
        self._capsys.readouterr()
        code = main(words)
        shown = self._capsys.readouterr()
        return Said(code, shown.out, shown.err)

    def does(self, *words: str) -> Said:
        said = self.types(*words)
        assert said.code == 0, said.err
        return said

    def is_refused(self, *words: str) -> Said:
        """One line on stderr, nothing on stdout."""
        said = self.types(*words)
        assert (said.out, said.err.count("\n"), said.code != 0) == ("", 1, True), said
        return said

    def founds(self, name: str = "wards", folder: str = "a", *more: str) -> NodeDirectory:
        settings = self.path / "wards.toml"
        settings.write_text(SETTINGS)
        chosen = ("--settings", str(settings)) if "--task" not in more and "--settings" not in more else ()
        where = ("--dir", folder, "--listen", f"127.0.0.1:{two_ports()}", "--no-passphrase")
        self.does("network", "create", name, "--node", f"node-{folder}", *chosen, *where, *more)
        return NodeDirectory(self.path / folder)

    def invites(self, *more: str) -> str:
        return self.does("network", "invite", "--dir", "a", *more).out

    def joining(self, line: str, folder: str = "b", *more: str) -> tuple[str, ...]:
        where = ("--dir", folder, "--name", f"node-{folder}", "--listen", f"127.0.0.1:{two_ports()}")
        return ("node", "join", line, *where, "--no-passphrase", *more)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Desk(tmp_path, capsys)


@pytest.fixture
def becoming(monkeypatch: pytest.MonkeyPatch) -> list[Setup]:
    """What network processes were told, which are not started."""
    told: list[Setup] = []

    def become(setup: Setup) -> None:
        os.close(setup.secrets_fd)
        told.append(setup)
        raise Failure("not_started", "Not here.", "")

    monkeypatch.setattr(starting, "become", become)
    return told


def two_ports() -> int:
    """A free one whose next is free as well."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def answering(directory: NodeDirectory, passphrase: str | None = None) -> Iterator[None]:
    """The join door of this folder's node, in a thread, keeping whom it admits as a network process does."""
    known = papers.read(directory)
    identity = Identity.from_bytes(directory.read_identity(), passphrase)
    door = Door(identity.peer_id, signer(identity.sign_seed), known.roster, known.charters)
    place = Address.parse(node_settings.load(directory).listens_at_door)
    ready, done = threading.Event(), threading.Event()

    def kept(_peer: PeerId) -> bool:
        directory.write(directory.roster, known.roster.to_bytes())
        return True

    async def serve() -> None:
        keys = TransportKeys(identity.transport_key, identity.transport_secret)
        loop = asyncio.get_running_loop()
        opened = JoinDoor(
            loop,
            keys,
            known.roster.network,
            lambda frame, key: door.answer(frame, key, time.time()),
            kept,
            lambda _text: None,
            CALM,
        )
        await opened.open(place)
        ready.set()
        await asyncio.to_thread(done.wait)
        await opened.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        done.set()
        thread.join()


# ---- a life ---------------------------------------------------------------------------------------------------------------


def test_a_founder_has_a_root_key_a_charter_and_a_first_member(desk: Desk) -> None:
    made = desk.founds()
    known = papers.read(made)
    charter = known.charters.current
    own = Identity.from_bytes(made.read_identity(), None).peer_id
    assert {path.name for path in made.path.iterdir()} == {
        *("boot", "charter", "credential", "identity", "node.json", "root.key", "roster")
    }
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in made.path.iterdir())
    assert [member.name for member in known.roster.members.values()] == ["node-a"] and own in known.roster.members
    assert charter.charter(known.charters.root).gossip == GossipRules(rounds=50, floor_s=0.3)
    assert charter.update_bytes == 4 * (64 * 10 + 10)
    assert charter.sections["topology"] == {"overlay": "ring", "degree": 4, "timers": "lan"}
    assert charter.sections["network"] == {"seed": 3, "parts": 8}


def test_one_pasted_line_makes_a_member_that_both_sides_know(desk: Desk) -> None:
    a = desk.founds()
    line = desk.invites()
    assert line.count("\n") == 1
    with answering(a):
        joined = desk.does(*desk.joining(line), "--json").data
    assert (joined["network"], joined["member"], joined["role"], joined["others"]) == ("wards", "node-b", "member", 1)
    rosters = [papers.read(NodeDirectory(desk.path / folder)).roster for folder in "ab"]
    assert [{member.name for member in roster.members.values()} for roster in rosters] == [{"node-a", "node-b"}] * 2
    listed = desk.does("network", "members", "--dir", "a", "--json").data["members"]
    assert [(row["name"], row["role"], row["state"]) for row in listed] == [
        ("node-a", "member", "member"),
        ("node-b", "member", "member"),
    ]
    shown = desk.does("network", "members", "--dir", "b").out.splitlines()
    assert shown[0].split() == ["name", "id", "role", "expires", "state", "voucher", "addresses"] and len(shown) == 3


def test_an_invite_names_other_members_too_so_that_one_can_join_while_this_node_is_away(desk: Desk) -> None:
    a = desk.founds()
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
    b = NodeDirectory(desk.path / "b")
    ports = [Address.parse(json.loads(place.settings.read_text())["listen"]).port + 1 for place in (a, b)]
    invite = desk.does("network", "invite", "--dir", "a", "--json").data
    assert invite["addresses"] == [f"127.0.0.1:{port}" for port in ports]
    with answering(b):
        assert desk.does(*desk.joining(invite["invite"], "c"), "--json").data["member"] == "node-c"


def test_an_invite_is_for_as_many_members_as_it_says(desk: Desk) -> None:
    a = desk.founds()
    line = desk.invites("--uses", "2")
    with answering(a):
        assert desk.does(*desk.joining(line, "b"), "--json").data["role"] == "member"
        assert desk.does(*desk.joining(line, "c"), "--json").data["role"] == "member"
        refused = desk.is_refused(*desk.joining(line, "d"))
    assert (refused.code, "invite_spent" in refused.err) == (6, True)


def test_a_request_is_signed_without_a_network_and_its_holder_joins_by_the_answer(desk: Desk) -> None:
    a = desk.founds()
    desk.does("node", "init", "--name", "node-c", "--dir", "c", "--request", "c.request", "--no-passphrase")
    signed = desk.does("network", "sign", "c.request", "--dir", "a", "--days", "30").out
    Path("c.credential").write_text(signed)
    with answering(a):
        stolen = desk.is_refused(*desk.joining("c.credential", "eve"))
        assert (stolen.code, "another identity" in stolen.err) == (6, True)
        assert desk.does(*desk.joining("c.credential", "c"), "--json").data["member"] == "node-c"
    certificate = papers.read(NodeDirectory(desk.path / "c")).roster
    own = Identity.from_bytes((desk.path / "c" / "identity").read_bytes(), None).peer_id
    credential = certificate.credential(own)
    assert credential is not None and credential.certificate.role is Role.MEMBER
    assert credential.certificate.not_after - credential.certificate.not_before == 31 * DAY_S


def test_who_is_revoked_is_no_member_and_gets_in_no_more(desk: Desk) -> None:
    a = desk.founds()
    first, second = desk.invites("--uses", "3"), desk.invites()
    with answering(a):
        desk.does(*desk.joining(first))
    desk.does("network", "revoke", "node-b", "--dir", "a", "--reason", "stolen")
    desk.does("network", "revoke", second, "--dir", "a")
    listed = desk.does("network", "members", "--dir", "a", "--json").data["members"]
    assert [(row["name"], row["state"]) for row in listed] == [("node-a", "member"), ("node-b", "revoked")]
    with answering(a):
        for path in (desk.path / "b").iterdir():
            if path.name not in ("identity", "boot"):
                path.unlink()
        again, others = desk.is_refused(*desk.joining(first)), desk.is_refused(*desk.joining(second, "c"))
    assert (again.code, "revoked" in again.err, others.code, "revoked" in others.err) == (6, True, 6, True)


def test_a_member_is_named_by_the_beginning_of_its_id_and_nobody_by_less(desk: Desk) -> None:
    a = desk.founds()
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
    rows = desk.does("network", "members", "--dir", "a", "--json").data["members"]
    b = next(row["id"] for row in rows if row["name"] == "node-b")
    assert desk.is_refused("network", "revoke", b[:7], "--dir", "a").code == 6
    assert desk.does("network", "revoke", b[:8], "--dir", "a", "--json").data["revoked"] == b


def test_a_member_gets_a_new_certificate_by_its_name(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk.founds()
    (own,) = papers.read(made).roster.members
    shorter = desk.is_refused("network", "sign", "node-a", "--dir", "a", "--days", "30")
    assert (shorter.code, "lasts longer" in shorter.err) == (6, True)
    month_later = time.time() + 30 * DAY_S
    monkeypatch.setattr(moment.time, "time", lambda: month_later)
    renewed = desk.does("network", "sign", "node-a", "--dir", "a", "--json").data
    assert (renewed["name"], renewed["id"], renewed["expires"]) == ("node-a", own.hex(), int(month_later + 90 * DAY_S))
    (row,) = desk.does("network", "members", "--dir", "a", "--json").data["members"]
    assert (row["state"], row["expires"]) == ("member", renewed["expires"])


def test_the_root_key_may_rest_elsewhere(desk: Desk) -> None:
    made = desk.founds()
    kept = desk.path / "stick" / "root.key"
    kept.parent.mkdir()
    made.root_key.rename(kept)
    refused = desk.is_refused("network", "invite", "--dir", "a")
    assert (refused.code, "--key FILE" in refused.err) == (6, True)
    assert desk.invites("--key", str(kept)).startswith("p2pfl-invite-1-")
    desk.founds("others", "o")
    wrong = desk.is_refused("network", "invite", "--dir", "a", "--key", "o/root.key")
    assert (wrong.code, "another network" in wrong.err) == (6, True)


def test_keys_are_sealed_under_a_passphrase_that_every_use_asks_for(desk: Desk, becoming: list[Setup]) -> None:
    def typed(text: str) -> str:
        reading, writing = os.pipe()
        os.write(writing, text.encode() + b"\n")
        os.close(writing)
        return str(reading)

    where = ("--dir", "a", "--listen", f"127.0.0.1:{two_ports()}")
    desk.does("network", "create", "wards", "--task", "digits", *where, "--passphrase-fd", typed("a long one"))
    assert desk.does("network", "invite", "--dir", "a", "--passphrase-fd", typed("a long one")).out
    line = desk.does("network", "invite", "--dir", "a", "--passphrase-fd", typed("a long one")).out
    joining = [word for word in desk.joining(line, "b", "--start") if word != "--no-passphrase"]
    with answering(NodeDirectory(desk.path / "a"), "a long one"):
        desk.types(*joining, "--passphrase-fd", typed("b's own"))
    assert [told.own.name for told in becoming] == ["node-b"]  # the passphrase was read once, and used for both
    desk.is_refused("node", "start", "--dir", "b", "--passphrase-fd", typed("b's own"))
    assert len(becoming) == 2
    wrong = desk.is_refused("network", "invite", "--dir", "a", "--passphrase-fd", typed("another"))
    assert (wrong.code, "passphrase" in wrong.err) == (6, True)
    nobody = desk.is_refused("network", "invite", "--dir", "a")
    assert (nobody.code, "--passphrase-fd" in nobody.err) == (6, True)


def test_a_node_is_started_with_what_its_folder_and_the_charter_say(desk: Desk, becoming: list[Setup]) -> None:
    a = desk.founds()
    desk.is_refused("node", "start", "--dir", "a", "--metrics-port", "9100")
    (told,) = becoming
    listen = json.loads(a.settings.read_text())["listen"]
    assert (told.network, told.own.name, told.parts, told.seed) == ("wards", "node-a", 8, 3)
    assert isinstance(told.others, FoundedOthers)
    assert (told.listen, told.others.addresses, told.metrics_port) == (listen, (listen,), 9100)
    assert Address.parse(told.others.door).port == Address.parse(listen).port + 1
    assert (told.learning["task"]["name"], told.learning["training"]["local_steps"]) == ("digits", 2)
    assert told.others.topology["overlay"] == "ring"
    assert told.gossip == GossipRules(rounds=50, floor_s=0.3) and 0 <= told.index < 8


def test_a_join_door_at_another_port_is_in_invites_and_in_what_others_know(desk: Desk, becoming: list[Setup]) -> None:
    door = two_ports()
    a = desk.founds("wards", "a", "--door", str(door))
    (own,) = papers.read(a).roster.records.values()
    assert own.doors == (f"127.0.0.1:{door}",)
    said = desk.does("network", "invite", "--dir", "a", "--json").data
    assert said["addresses"] == [f"127.0.0.1:{door}"]
    with answering(a):
        desk.does(*desk.joining(said["invite"]))
    assert f"127.0.0.1:{door}" in desk.does("network", "invite", "--dir", "a", "--json").data["addresses"]
    known = papers.read(NodeDirectory(desk.path / "b")).roster  # b invites to a's door as well as to its own
    assert {record.doors[0] for record in known.records.values()} > {f"127.0.0.1:{door}"}
    desk.is_refused("node", "start", "--dir", "a")
    assert isinstance(becoming[-1].others, FoundedOthers)
    assert (becoming[-1].others.door, becoming[-1].others.door_port) == (f"127.0.0.1:{door}", door)
    other = two_ports()
    desk.is_refused("node", "start", "--dir", "a", "--door", str(other))
    desk.is_refused("node", "start", "--dir", "a")
    assert isinstance(becoming[-1].others, FoundedOthers) and becoming[-1].others.door_port == other
    same = json.loads(a.settings.read_text())["listen"].rpartition(":")[2]
    refused = desk.is_refused("node", "start", "--dir", "a", "--door", same)
    assert (refused.code, "join door" in refused.err) == (3, True)


def test_where_a_node_listens_from_now_on_is_remembered(desk: Desk, becoming: list[Setup]) -> None:
    desk.founds()
    desk.is_refused("node", "start", "--dir", "a", "--listen", "127.0.0.1:45673")
    desk.is_refused("node", "start", "--dir", "a")
    assert [told.listen for told in becoming] == ["127.0.0.1:45673"] * 2
    assert desk.does("network", "invite", "--dir", "a", "--json").data["addresses"] == ["127.0.0.1:45674"]


def test_joining_can_be_starting(desk: Desk, becoming: list[Setup]) -> None:
    Path("wards.py").write_text(TASK.format(width=4))
    a = desk.founds("wards", "a", "--task", "wards.py:task")
    line = desk.invites()
    with answering(a):
        said = desk.types(*desk.joining(line, "b", "--start", "--task", "wards.py:task"))
    assert "node-b is a member of wards" in said.err
    desk.is_refused("node", "start", "--dir", "b")
    assert [told.own.name for told in becoming] == ["node-b", "node-b"]
    desk.is_refused("node", "start", "--dir", "a")
    assert becoming[-1].learning["task"] == {"name": f"{desk.path}/wards.py:task"}


def test_addresses_that_others_reach_are_what_invites_and_records_say(desk: Desk) -> None:
    a = desk.founds("wards", "a", "--address", "ward.example.org:9000", "--address", "[2001:db8::1]:9000")
    assert desk.does("network", "invite", "--dir", "a", "--json").data["addresses"] == [
        "ward.example.org:9001",
        "[2001:db8::1]:9001",
    ]
    (record,) = papers.read(a).roster.records.values()
    assert record.addresses == ("ward.example.org:9000", "[2001:db8::1]:9000")


# ---- tasks ----------------------------------------------------------------------------------------------------------------


def test_a_task_of_ones_own_is_named_in_the_charter_and_brought_by_everybody(desk: Desk) -> None:
    Path("wards.py").write_text(TASK.format(width=4))
    Path("other.py").write_text(TASK.format(width=5))
    Path("relabelled.py").write_text(TASK.format(width=4).replace("data=data)", 'data=data, labels=("no", "yes"))'))
    a = desk.founds("wards", "a", "--task", "wards.py:task")
    assert papers.read(a).charters.current.sections["task"] == {"name": "wards", "own": True}
    line = desk.invites()
    with answering(a):
        without = desk.is_refused(*desk.joining(line))
        assert (without.code, "--task FILE.py:NAME" in without.err) == (9, True)
        for file in ("other.py", "relabelled.py"):
            wrong = desk.is_refused(*desk.joining(line, "b", "--task", f"{file}:task"))
            assert (wrong.code, "not the one of wards" in wrong.err) == (9, True)
    # The use of the invite was not lost, and nobody needs to be asked again.
    desk.does(*desk.joining(line, "b", "--task", "wards.py:task"))
    assert json.loads((desk.path / "b" / "node.json").read_text())["task"] == f"{desk.path}/wards.py:task"


def test_settings_that_others_get_name_no_code_and_are_strict(desk: Desk) -> None:
    for text, complaint in (
        ('task = {name = "wards.py:task"}', "--task wards.py:task"),
        ("ruonds = 3", "did you mean 'rounds'"),
        ("[topology]\noverlay = 'random_regular'\ndegree = 3", "even degree"),
        ("[topology]\noverlay = 'star'", "random_regular"),
        ("rounds = 0", "rounds"),
        ("seed =", "Strings are quoted"),
        ('[training]\nweighting = "samples"', "mean_samples"),
    ):
        Path("bad.toml").write_text(text)
        refused = desk.is_refused("network", "create", "wards", "--settings", "bad.toml", "--dir", "a", "--no-passphrase")
        assert (refused.code, complaint in refused.err) == (3, True), refused.err
        assert not Path("a").exists()


def test_an_unknown_task_is_told_before_anything_is_made(desk: Desk) -> None:
    refused = desk.is_refused("network", "create", "wards", "--task", "digist", "--dir", "a", "--no-passphrase")
    assert (refused.code, "'digits'" in refused.err, Path("a").exists()) == (3, True, False)


# ---- mistakes -------------------------------------------------------------------------------------------------------------


def test_a_line_that_was_not_copied_whole_says_so(desk: Desk) -> None:
    desk.founds()
    line = desk.invites().strip()
    for wrong, complaint in (
        (line[:-4], "not copied whole"),
        (line.swapcase(), "This is no invite"),
        (line.replace("-1-", "-2-", 1), "version 2"),
        ("hello", "begins with p2pfl-invite-1-"),
        ("", "This is no invite"),
    ):
        refused = desk.is_refused(*desk.joining(wrong))
        assert (refused.code, complaint in refused.err) == (6, True), refused.err
        assert not Path("b").exists()


def test_white_space_of_mail_and_terminals_in_a_line_does_not_matter(desk: Desk) -> None:
    a = desk.founds()
    line = desk.invites().strip()
    broken = " ".join(line[i : i + 60] + "\n" for i in range(0, len(line), 60))
    with answering(a):
        assert desk.does(*desk.joining(broken), "--json").data["member"] == "node-b"


@pytest.mark.fault("lifetime", "invites")
def test_an_invite_that_has_expired_or_a_clock_that_is_wrong_is_told_apart(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.founds()
    line, now = desk.invites("--ttl", "30m"), time.time()
    for shown, code, complaint in (
        (now + 31 * 60, 6, "has expired"),
        (now - 2 * DAY_S, 6, "not valid yet. Set this machine's clock"),
        (1_000_000.0, 4, "timedatectl"),
    ):
        monkeypatch.setattr(moment.time, "time", lambda shown=shown: shown)
        refused = desk.is_refused(*desk.joining(line))
        assert (refused.code, complaint in refused.err) == (code, True), refused.err
    refused = desk.is_refused("network", "create", "late", "--task", "digits", "--dir", "l", "--no-passphrase")
    assert (refused.code, "clock" in refused.err) == (4, True)
    assert desk.is_refused("network", "invite", "--dir", "a").code == 4


@pytest.mark.fault("settings")
def test_nobody_at_the_address_is_exit_code_5_and_the_same_command_goes_on_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from node.admission import asking

    monkeypatch.setattr(asking.ask_first, "__defaults__", (0.3,))
    a = desk.founds()
    joining = desk.joining(desk.invites())
    refused = desk.is_refused(*joining)
    assert (refused.code, "run it again" in refused.err) == (5, True)
    identity = (desk.path / "b" / "identity").read_bytes()
    with answering(a):
        desk.does(*joining)
    assert (desk.path / "b" / "identity").read_bytes() == identity
    again = desk.is_refused(*joining)
    assert (again.code, "p2pfl node start" in again.err) == (6, True)


def test_a_name_that_is_taken_asks_for_another(desk: Desk) -> None:
    a = desk.founds()
    line = desk.invites()
    with answering(a):
        taken = desk.is_refused(*desk.joining(line), "--name", "node-a")
        assert (taken.code, "--name" in taken.err) == (6, True)
        desk.does(*desk.joining(line))
    desk.does("node", "init", "--name", "node-b", "--dir", "c", "--request", "c.request", "--no-passphrase")
    twice = desk.is_refused("network", "sign", "c.request", "--dir", "a")
    assert (twice.code, "called node-b already" in twice.err) == (6, True)


def test_an_invite_to_another_network_finds_no_way_into_a_folder_in_use(desk: Desk) -> None:
    a = desk.founds()
    o = desk.founds("others", "o")
    theirs = desk.does("network", "invite", "--dir", "o").out
    Path("own.py").write_text(TASK.format(width=4))
    with answering(a), answering(o):
        wrong = desk.is_refused(*desk.joining(theirs, "b", "--task", "own.py:task"))
        assert wrong.code == 9  # admitted, but not yet complete
        refused = desk.is_refused(*desk.joining(desk.invites(), "b"))
    assert (refused.code, "another network" in refused.err) == (6, True)


@pytest.mark.fault("settings")
def test_a_folder_in_use_a_port_in_use_and_a_folder_that_is_not_there_are_one_line_each(desk: Desk) -> None:
    made = desk.founds()
    before = {path.name: path.read_bytes() for path in made.path.iterdir()}
    twice = desk.is_refused("network", "create", "wards", "--task", "digits", "--dir", "a", "--no-passphrase")
    assert (twice.code, "already" in twice.err) == (6, True)
    assert {path.name: path.read_bytes() for path in made.path.iterdir()} == before
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        refused = desk.is_refused(*desk.joining(desk.invites()), "--listen", f"127.0.0.1:{port}")
    assert (refused.code, "--listen" in refused.err) == (5, True)
    for words in (("invite",), ("members",), ("revoke", "x"), ("sign", "x")):
        missing = desk.is_refused("network", *words, "--dir", "nowhere")
        assert (missing.code, "nowhere" in missing.err) == (6, True)
    assert desk.is_refused("node", "join", "x", "--data", "nowhere", "--no-passphrase").code == 3
    assert desk.is_refused(*desk.joining(desk.invites()), "--address", "0.0.0.0:1").code == 3


def test_without_dir_the_only_node_at_home_is_meant_and_several_must_be_told_apart(desk: Desk) -> None:
    assert "p2pfl network create" in desk.is_refused("network", "members").err
    where = ("--listen", f"127.0.0.1:{two_ports()}", "--no-passphrase")
    desk.does("network", "create", "wards", "--task", "digits", "--node", "a", *where)
    assert (desk.path / "home" / ".p2pfl" / "wards" / "root.key").exists()
    assert desk.does("network", "members", "--json").data["members"][0]["name"] == "a"
    desk.does("network", "create", "others", "--task", "digits", *where)
    refused = desk.is_refused("network", "members")
    assert (refused.code, "others, wards" in refused.err) == (2, True)


@pytest.mark.fault("hostile names")
def test_no_name_of_a_network_leads_out_of_the_folder_of_nodes(desk: Desk) -> None:
    for name in ("../evil", "a/b", "..", ".ssh", "x" * 65):
        refused = desk.is_refused("network", "create", name, "--task", "digits", "--no-passphrase")
        assert refused.code in (2, 3)
    desk.founds("../evil", "a")  # a folder that was chosen is no matter
    refused = desk.is_refused("node", "join", desk.invites(), "--no-passphrase")
    assert (refused.code, "--dir" in refused.err) == (2, True)
    assert not list(desk.path.glob("home/**/*"))


@pytest.mark.fault("keys at rest")
@pytest.mark.parametrize("name", ["charter", "roster", "credential", "node.json"])
def test_a_damaged_file_is_named(desk: Desk, name: str) -> None:
    made = desk.founds()
    path = made.path / name
    path.write_bytes(path.read_bytes()[:-3])
    refused = desk.is_refused("node", "start", "--dir", "a") if name != "credential" else None
    if refused is not None:
        assert str(path) in refused.err and refused.code in (3, 6)
    else:
        assert desk.is_refused("network", "invite", "--dir", "a").code == 6


@pytest.mark.fault("revoked")
def test_a_member_that_was_revoked_or_has_expired_does_not_start(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.founds()
    now = time.time()
    monkeypatch.setattr(papers.time, "time", lambda: now + 91 * DAY_S)
    expired = desk.is_refused("node", "start", "--dir", "a")
    assert (expired.code, "p2pfl network sign" in expired.err) == (6, True)
    monkeypatch.undo()
    os.chdir(desk.path)
    desk.does("network", "revoke", "node-a", "--dir", "a")
    revoked = desk.is_refused("node", "start", "--dir", "a")
    assert (revoked.code, "revoked" in revoked.err) == (6, True)


def test_times_are_written_with_their_unit(desk: Desk) -> None:
    desk.founds()
    for bad in ("1", "h", "-1h", "1.5h", "1w", "31d"):
        assert desk.is_refused("network", "invite", "--dir", "a", f"--ttl={bad}").code in (2, 6)
    for uses in ("0", "1025"):
        assert desk.is_refused("network", "invite", "--dir", "a", "--uses", uses).code == 6
