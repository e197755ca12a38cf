"""What changes in a founded network of real nodes while one of them is away: its charter, and who is a member."""

import json
from pathlib import Path

import pytest

from node import node_settings
from node.admission import papers
from node.admission.enrolment import identity_in
from node.admission.joining import join
from node.admission.office import revoke
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.admission.revocation import Cause
from tests.nodes import p2pfl, started
from tests.test_founded import Ward, ended_after, founded, joined, office, settings, until

pytestmark = pytest.mark.net


@pytest.mark.fault("revoked")
@pytest.mark.fault("charters")
@pytest.mark.slow
def test_who_was_away_gets_the_amended_charter_and_learns_at_a_door_that_it_was_revoked(tmp_path: Path) -> None:
    ann, bob, cat = founded(tmp_path), Ward(tmp_path / "bob"), Ward(tmp_path / "cat")
    with ended_after(ann, bob, cat):
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line, _ = office(ann).invite(3600.0, 2, Role.MEMBER)
        for ward in (bob, cat):
            joined(tmp_path, ward.name, line)
        bob.start()
        until(lambda: bob.neighbors().get("ann", {}).get("applied", 0) > 0)

        # Amended while cat has never run: ann and bob go on without a single refusal.
        charter, changes = office(ann).amend(None, ["gossip.ceiling_s=1.5", "limits.max_abs=500.0"])
        assert (charter.serial, changes.at_once, changes.at_restart) == (2, ("gossip.ceiling_s",), ("limits.max_abs",))
        for ward in (ann, bob):
            until(lambda ward=ward: ward.ask("status")["membership"]["charter"] == 2, 5.0)
            assert ward.ask("status")["membership"]["at_restart"] == ["limits.max_abs"]
        applied = ann.neighbors()["bob"]["applied"]
        until(lambda: ann.neighbors()["bob"]["applied"] > applied + 3)
        assert "wrong_charter" not in {**ann.ask("status")["rejected"], **bob.ask("status")["rejected"]}
        cat.start()  # it knows the charter of the day when it joined
        until(lambda: cat.ask("status")["membership"]["charter"] == 2)
        until(lambda: cat.neighbors().get("ann", {}).get("applied", 0) > 0)

        # New keys between two lives: ann's door is told, and both go on.
        bob.ask("leave")
        assert bob.ended()[0] == 0
        keys = ann.folder, {row["name"]: row for row in ann.ask("members")}["bob"]["id"]
        rotated_ = p2pfl("node", "rotate", "--dir", "bob", "--json", cwd=tmp_path)
        assert rotated_.returncode == 0 and json.loads(rotated_.stdout)["data"]["is_announced"], rotated_.stdout
        assert json.loads(rotated_.stdout)["data"]["id"] == keys[1]
        bob.start()
        until(lambda: bob.neighbors().get("ann", {}).get("applied", 0) > 0)

        # Revoked while it is away: nobody lets it in, and a door tells it why.
        bob.kill()
        revoke(office(ann), "bob", Cause.STOLEN)
        until(lambda: cat.states()["bob"] == "revoked", 5.0)
        bob.start()
        code, said = bob.ended()
        assert (code, "revoked" in said) == (6, True), said


@pytest.mark.fault("full disk")
def test_a_node_whose_disk_takes_nothing_lets_nobody_in_and_tells_its_owner(tmp_path: Path) -> None:
    ann = founded(tmp_path)
    with ended_after(ann):
        ann.start()
        until(lambda: ann.ask("status")["state"] != "starting")
        line, _ = office(ann).invite(3600.0, 1, Role.MEMBER)
        ann.folder.roster.rename(ann.folder.path / "aside")
        ann.folder.roster.mkdir()  # no file can take its place
        with pytest.raises(Failure) as failed:
            joined(tmp_path, "bob", line)
        assert failed.value.code == "no_receipt"
        with pytest.raises(Failure) as failed:
            ann.ask("keep")
        assert failed.value.code == "not_kept"
        ann.folder.roster.rmdir()
        join(line, "bob", tmp_path / "bob", settings(), lambda directory: identity_in(directory, None))
        assert {member.name for member in papers.read(ann.folder).roster.members.values()} == {"ann", "bob"}
        ann.ask("keep")


def test_a_start_says_where_the_node_can_be_met_and_how_it_ended_as_one_object_a_line(tmp_path: Path) -> None:
    ann = founded(tmp_path)
    with ended_after(ann):
        ann.process = started("node", "start", "--dir", "ann", "--json", cwd=tmp_path)
        until(lambda: ann.ask("status")["state"] != "starting")
        pid = ann.ask("status")["pid"]
        ann.ask("leave")
        code, said = ann.ended()
    first, last = (json.loads(line) for line in said.splitlines() if line.startswith("{"))  # what a round came to is no answer
    listen = node_settings.load(ann.folder).listen
    assert (code, first["status"], last["status"]) == (0, "ok", "ok")
    assert (first["data"]["name"], first["data"]["listen"], first["data"]["pid"]) == ("ann", listen, pid)
    assert first["data"]["door"] == node_settings.load(ann.folder).listens_at_door
    assert last["data"]["model"] == str(ann.folder.model) and ann.folder.model.exists()
    refused = p2pfl("node", "start", "--dir", "nobody", "--json", cwd=tmp_path)
    assert json.loads(refused.stdout)["status"] == "error" and refused.returncode != 0
