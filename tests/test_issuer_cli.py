"""`p2pfl network issuer`, and what an issuer types in its own folder: no root key is near."""

import os
from pathlib import Path

import pytest

from node import moment
from node.admission import office, papers
from node.directory import NodeDirectory
from node.setup import Setup
from p2pfl.protocol.admission.certificate import DAY_S
from tests.test_network_cli import Desk, answering, becoming, desk  # noqa: F401 (fixtures)

pytestmark = pytest.mark.net


def made_issuer(desk: Desk) -> str:  # noqa: F811
    """Node b is a member, and its folder an issuer's from now on; returns the issuer's key."""
    a = desk.founds()
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
    desk.does("network", "issuer", "--request", "b.application", "--dir", "b", "--no-passphrase")
    signed = desk.does("network", "sign", "b.application", "--role", "issuer", "--days", "100", "--dir", "a", "--json").data
    desk.does("network", "issuer", signed["issuer"], "--dir", "b")
    return str(signed["key"])


def rows(desk: Desk, folder: str) -> dict[str, tuple[str, str, str]]:  # noqa: F811
    found = desk.does("network", "members", "--dir", folder, "--json").data["members"]
    return {row["name"]: (row["state"], row["vouched_for_by"]["signer"], row["vouched_for_by"]["let_in_by"]) for row in found}


def test_an_issuer_invites_signs_renews_and_revokes_without_the_root_key(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made_issuer(desk)
    b = NodeDirectory(desk.path / "b")
    assert not b.root_key.exists() and oct(b.issuer_key.stat().st_mode)[-3:] == "600"
    invite = desk.does("network", "invite", "--dir", "b", "--uses", "2").out
    with answering(b):
        desk.does(*desk.joining(invite, "c"))
    desk.does("node", "init", "--name", "node-d", "--dir", "d", "--request", "d.request", "--no-passphrase")
    credential = desk.does("network", "sign", "d.request", "--dir", "b").out
    with answering(b):
        desk.does(*desk.joining(credential, "d"))
    assert rows(desk, "b") == {
        "node-a": ("member", "root", ""),
        "node-b": ("member", "root", "node-a"),
        "node-c": ("member", "node-b", "node-b"),
        "node-d": ("member", "node-b", ""),
    }
    assert "node-b, node-b" in desk.does("network", "members", "--dir", "b").out
    month_later = moment.time.time() + 30 * DAY_S
    with monkeypatch.context() as later:
        later.setattr(moment.time, "time", lambda: month_later)
        renewed = desk.does("network", "sign", "node-c", "--dir", "b", "--json").data  # no longer than the issuer itself
        assert month_later + 69 * DAY_S < renewed["expires"] < month_later + 71 * DAY_S
    desk.does("network", "revoke", "node-d", "--dir", "b")
    assert rows(desk, "b")["node-d"][0] == "revoked"
    shown = desk.does("network", "issuer", "--dir", "b", "--json").data
    findings = {one["name"]: one for one in desk.types("doctor", "--dir", "b", "--json").data["findings"]}
    assert "has vouched for 2" in findings["issuer"]["text"] and not findings["issuer"]["mend"]
    assert (shown["name"], shown["vouched_for"], shown["may_vouch_for"], shown["trouble"]) == ("node-b", 2, 512, "")


@pytest.mark.fault("revoked")
def test_an_issuer_puts_out_nobody_that_it_did_not_vouch_for_and_makes_no_issuers(desk: Desk) -> None:  # noqa: F811
    made_issuer(desk)
    refused = desk.is_refused("network", "revoke", "node-a", "--dir", "b")
    assert (refused.code, "bad_chain" in refused.err, "root key" in refused.err) == (6, True, True)
    again = desk.is_refused("network", "sign", "b.application", "--role", "issuer", "--dir", "b")
    assert (again.code, "no root key" in again.err) == (6, True)
    assert rows(desk, "b")["node-a"][0] == "member"


@pytest.mark.fault("revoked")
def test_an_issuer_that_was_revoked_or_has_expired_signs_no_more_and_says_why(
    desk: Desk,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = made_issuer(desk)
    later = moment.time.time() + 101 * DAY_S
    monkeypatch.setattr(moment.time, "time", lambda: later)
    expired = desk.is_refused("network", "invite", "--dir", "b")
    assert (expired.code, "has expired" in expired.err) == (6, True)
    monkeypatch.undo()
    os.chdir(desk.path)
    unknown = desk.is_refused("network", "revoke", "node-b", "--issuer", "--dir", "a")  # it has vouched for nobody yet
    assert (unknown.code, "whole key" in unknown.err) == (6, True)
    desk.does("network", "revoke", key, "--issuer", "--reason", "stolen", "--dir", "a")
    (revocation,) = papers.read(NodeDirectory(desk.path / "a")).roster.revocations
    office._hand_over(NodeDirectory(desk.path / "b"), "revoke", revocation=revocation)  # as gossip does
    revoked = desk.is_refused("network", "invite", "--dir", "b")
    assert (revoked.code, "was revoked" in revoked.err) == (6, True)
    assert "was revoked" in desk.does("network", "issuer", "--dir", "b").out
    anew = desk.is_refused("network", "sign", "b.application", "--role", "issuer", "--dir", "a")
    assert (anew.code, "revoked" in anew.err) == (6, True)
    assert rows(desk, "b")["node-b"][0] == "member"  # the office is gone, and not the member who held it


def test_an_answer_for_another_issuer_or_network_is_not_taken(desk: Desk) -> None:  # noqa: F811
    made_issuer(desk)
    desk.does("network", "issuer", "--request", "a.application", "--dir", "a", "--no-passphrase")
    line = desk.does("network", "sign", "a.application", "--role", "issuer", "--dir", "a").out
    before = (desk.path / "b" / "issuer").read_bytes()
    refused = desk.is_refused("network", "issuer", line, "--dir", "b")
    assert (refused.code, "another key" in refused.err) == (6, True)
    desk.founds("others", "o")
    assert desk.is_refused("network", "sign", "a.application", "--role", "issuer", "--dir", "o").code == 6
    assert desk.is_refused("network", "issuer", line, "--dir", "o").code == 6
    assert (desk.path / "b" / "issuer").read_bytes() == before
    request = desk.is_refused("network", "sign", "a.application", "--dir", "a")
    assert (request.code, "another kind" in request.err) == (6, True)
    Path("b/issuer").write_bytes(before[:-1])
    damaged = desk.is_refused("network", "invite", "--dir", "b")
    assert (damaged.code, "issuer" in damaged.err) == (6, True)
    assert desk.is_refused("network", "issuer", "--dir", "o").code == 6


@pytest.mark.fault("revoked")
def test_who_went_with_its_issuer_starts_again_once_the_root_certified_it_directly(
    desk: Desk,  # noqa: F811
    becoming: list[Setup],  # noqa: F811
) -> None:
    key = made_issuer(desk)
    a, b, c = (NodeDirectory(desk.path / folder) for folder in "abc")
    with answering(b):
        desk.does(*desk.joining(desk.does("network", "invite", "--dir", "b").out, "c"))
    known = papers.read(a)
    known.roster.learn_all(papers.read(b).roster.entries(), (), moment.time.time())  # as gossip does
    a.write(a.roster, known.roster.to_bytes())
    desk.does("network", "revoke", "node-b", "--issuer", "--dir", "a")
    (revocation,) = papers.read(a).roster.revocations
    assert papers.read(a).roster.is_revoked(bytes.fromhex(key))
    office._hand_over(c, "revoke", revocation=revocation)
    refused = desk.is_refused("node", "start", "--dir", "c")  # and nobody answers
    assert (refused.code, "revoked" in refused.err, becoming) == (6, True, [])
    desk.does("network", "sign", "node-c", "--dir", "a")
    with answering(a):
        desk.is_refused("node", "start", "--dir", "c")
    assert [told.own.name for told in becoming] == ["node-c"]
    assert papers.read(c).roster.standing(becoming[0].own.id) is None
