"""A founded network of real nodes on loopback: they come by an invite, learn together, and go in every way there is."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from node import node_settings
from node.admission.enrolment import identity_in
from node.admission.founding import found
from node.admission.joining import join, new_identity
from node.admission.office import Office, revoke
from node.admission.terms import Terms
from node.commands.starting import prepared
from node.directory import NodeDirectory
from node.local.network import free_ports
from node.network import Network
from node.node_settings import NodeSettings, settings_of
from node.upkeep.control import Caller
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.admission.revocation import Cause
from p2pfl.protocol.events import Instant, MembershipEffect, PeerId
from p2pfl.protocol.membership.membership import Membership
from p2pfl.settings import GossipSection, TaskSection, TrainingSection
from tests.nodes import started
from tests.test_network_cli import answering

LIMIT_S = 40.0
TERMS = Terms(
    rounds=1_000_000,
    task=TaskSection(name="digits", model="softmax"),
    training=TrainingSection(local_steps=2),
    gossip=GossipSection(floor_s=0.2, ceiling_s=2.0, gather_s=3.0, checkpoint_s=0.2),
)


class Ward:
    """A member's folder, and its process while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = NodeDirectory(folder)
        self.process: subprocess.Popen[str] | None = None

    @property
    def name(self) -> str:
        return self.folder.path.name

    def start(self, on: Sequence[str] = ()) -> None:
        self.process = started("node", "start", "--dir", self.name, cwd=self.folder.path.parent, on=on)

    def ask(self, name: str, **arguments: Any) -> Any:
        with Caller(self.folder.control) as caller:
            return caller.ask(name, **arguments)

    def states(self) -> dict[str, str]:
        """What it makes of everybody it knows."""
        return {row["name"]: row["state"] for row in self.ask("members")}

    def neighbors(self) -> dict[str, Any]:
        return {one["name"]: one for one in self.ask("status")["neighbors"]}

    def steps(self) -> list[int]:
        """Of every round it ever ended, in all its lives."""
        return [json.loads(line)["step"] for line in self.folder.metrics.read_text().splitlines()]

    def kill(self) -> None:
        assert self.process is not None
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.communicate()

    def ended(self, limit_s: float = LIMIT_S) -> tuple[int, str]:
        """Its exit code and all that it said, once it has ended."""
        assert self.process is not None
        said, _ = self.process.communicate(timeout=limit_s)
        return self.process.returncode, said


def until(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> float:
    """Ask until it holds; how long it took."""
    began = time.monotonic()
    while not _holds(holds):
        assert time.monotonic() - began < limit_s, "it never came to this"
        time.sleep(0.1)
    return time.monotonic() - began


def _holds(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except Failure as nobody:  # it is only being started
        assert nobody.code in ("not_running", "no_answer"), nobody
        return False


@contextmanager
def ended_after(*wards: Ward) -> Iterator[None]:
    try:
        yield
    finally:
        for ward in wards:
            if ward.process is not None and ward.process.poll() is None:
                ward.kill()


def settings() -> NodeSettings:
    while True:
        (port,) = free_ports(1)
        if port < 65535:
            return settings_of("a test", listen=f"127.0.0.1:{port}")


def founded(folder: Path) -> Ward:
    ward = Ward(folder / "ann")
    found("wards", "ann", ward.folder, TERMS, settings(), None)
    return ward


def joined(folder: Path, name: str, line: Any) -> Ward:
    ward = Ward(folder / name)
    join(line, name, ward.folder.path, settings(), lambda directory: new_identity(directory, lambda: None))
    return ward


def office(ward: Ward) -> Office:
    return Office.open(ward.folder, None, lambda: "")


@pytest.fixture
def wards(tmp_path: Path) -> Iterator[tuple[Ward, Ward, Ward]]:
    """Three members who learn together: ann founded the network, bob and cat joined by one invite."""
    ann = founded(tmp_path)
    bob, cat = Ward(tmp_path / "bob"), Ward(tmp_path / "cat")
    with ended_after(ann, bob, cat):
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line, _ = office(ann).invite(3600.0, 2, Role.MEMBER)
        for ward in (bob, cat):
            joined(tmp_path, ward.name, line)
            ward.start()
        for ward in (ann, bob, cat):
            until(lambda ward=ward: ward.states() == dict.fromkeys(("ann", "bob", "cat"), "alive"))
            until(lambda ward=ward: len(ward.neighbors()) == 2)
            until(lambda ward=ward: min((one["applied"] for one in ward.neighbors().values()), default=0) > 0)
        yield ann, bob, cat


@pytest.mark.fault("revoked")
@pytest.mark.net
def test_members_learn_together_and_go_by_a_crash_by_revocation_and_in_peace(wards: tuple[Ward, Ward, Ward]) -> None:
    ann, bob, cat = wards
    status = ann.ask("status")
    assert status["membership"]["view"] == 3 and status["membership"]["let_in"] == 2 and not status["rejected"]

    # A crash: all know it; the same node again is a full member with what it had.
    until(lambda: bob.ask("status")["checkpoint"]["step"] is not None)
    identity, kept = bob.ask("status")["keys"], bob.ask("status")["checkpoint"]["step"]
    bob.kill()
    until(lambda: ann.states()["bob"] == cat.states()["bob"] == "dead", 15.0)
    lived = len(bob.steps())
    bob.start()
    until(lambda: bob.ask("status")["state"] != "starting")
    until(lambda: ann.states()["bob"] == cat.states()["bob"] == "alive", 5.0)
    until(lambda: len(bob.steps()) > lived)
    assert bob.steps()[lived] >= kept and bob.ask("status")["keys"] == identity

    # Revoked by another member's owner, while it is connected and sends.
    until(lambda: cat.neighbors()["bob"]["state"] == "ready")
    revoke(office(ann), "bob", Cause.EXPELLED)
    assert ann.states()["bob"] == "revoked"
    code, said = bob.ended()
    assert (code, "revoked" in said) == (6, True)
    until(lambda: cat.states()["bob"] == "revoked", 5.0)
    until(lambda: ann.neighbors().keys() == {"cat"} and cat.neighbors().keys() == {"ann"})
    bob.start()  # it knows now
    assert bob.ended()[0] == 6

    # In peace.
    before = ann.neighbors()["cat"]["applied"]
    until(lambda: ann.neighbors()["cat"]["applied"] > before + 3)
    cat.ask("leave")
    assert cat.ended()[0] == 0
    until(lambda: ann.states()["cat"] == "left", 5.0)
    assert ann.ask("status")["membership"]["alive"] == 1


@pytest.mark.net
def test_membership_hears_that_nobody_listens_where_a_member_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = founded(tmp_path)
    line, _ = office(ann).invite(3600.0, 1, Role.MEMBER)
    with answering(ann.folder):
        bob = joined(tmp_path, "bob", line)
    refused = list[bytes]()
    hear = Membership.dial_refused

    def dial_refused(membership: Membership, now: Instant, peer: PeerId) -> list[MembershipEffect]:
        if not refused:
            os.kill(os.getpid(), signal.SIGTERM)
        refused.append(peer)
        return hear(membership, now, peer)

    monkeypatch.setattr(Membership, "dial_refused", dial_refused)
    told = prepared(ann.folder, identity_in(ann.folder, None), node_settings.load(ann.folder))

    async def run() -> int:
        async with asyncio.timeout(LIMIT_S):
            return await Network(told).run()

    assert asyncio.run(run()) == 143
    assert set(refused) == {identity_in(bob.folder, None).peer_id}


@pytest.mark.fault("doubles")
@pytest.mark.net
@pytest.mark.slow
def test_of_two_machines_with_one_folder_the_elder_ends_though_everybody_else_talks_to_the_younger(tmp_path: Path) -> None:
    ann = founded(tmp_path)
    bob, copy = Ward(tmp_path / "bob"), Ward(tmp_path / "copy")
    with ended_after(ann, bob, copy):
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line, _ = office(ann).invite(3600.0, 1, Role.MEMBER)
        joined(tmp_path, "bob", line)
        shutil.copytree(bob.folder.path, copy.folder.path)
        bob.start()
        until(lambda: bob.states() == {"ann": "alive", "bob": "alive"})
        until(lambda: "ann" in bob.neighbors() and bob.neighbors()["ann"]["applied"] > 0)
        copy.process = started("node", "start", "--dir", "copy", "--listen", settings().listen, cwd=tmp_path)
        until(lambda: "ann" in copy.neighbors() and copy.neighbors()["ann"]["applied"] > 0)
        code, said = bob.ended(limit_s=100.0)  # it has to hold ann for dead, and to dial it again: at most 45 s later
        assert (code, "Another machine runs with this node's identity" in said) == (6, True), said
        assert copy.states() == {"ann": "alive", "bob": "alive"}
