"""`p2pfl node rotate`: the same member with other keys; the old ones are nowhere any more."""

import os

import pytest

from node import node_settings
from node.admission import papers
from node.directory import NodeDirectory
from node.setup import Setup
from p2pfl.protocol.identity import Identity
from tests.test_network_cli import Desk, answering, becoming, desk  # noqa: F401 (fixtures)

pytestmark = pytest.mark.net


def identity(directory: NodeDirectory) -> Identity:
    return Identity.from_bytes(directory.read_identity(), None)


def test_a_member_with_new_keys_is_the_same_one_and_a_door_hears_of_them_at_once(
    desk: Desk,  # noqa: F811
    becoming: list[Setup],  # noqa: F811
) -> None:
    a = desk.founds()
    b = NodeDirectory(desk.path / "b")
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
        old = identity(b)
        said = desk.does("node", "rotate", "--dir", "b", "--json").data
    new = identity(b)
    assert (said["id"], said["transport_key"]) == (old.peer_id.hex(), new.transport_key.hex())
    assert (said["key_seq"], said["is_announced"]) == (1, True)
    assert new.sign_seed == old.sign_seed
    assert old.transport_key != new.transport_key and old.seal_key != new.seal_key
    for path in (path for path in b.path.iterdir() if path.is_file()):
        assert old.transport_secret not in path.read_bytes() and old.seal_secret not in path.read_bytes()
    for folder in (a, b):
        roster = papers.read(folder).roster
        assert roster.transport_keys(old.peer_id) == (new.transport_key,)
        assert roster.members[old.peer_id].seal_key == new.seal_key
    desk.is_refused("node", "start", "--dir", "b")
    assert becoming[-1].own.transport_key == new.transport_key


def test_where_nobody_can_be_told_the_node_does_so_when_it_starts(desk: Desk) -> None:  # noqa: F811
    a = desk.founds()
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
    for k in (1, 2):
        said = desk.types("node", "rotate", "--dir", "b")
        assert said.code == 0 and "No member could be told" in said.err
        roster = papers.read(NodeDirectory(desk.path / "b")).roster
        assert roster.records[identity(NodeDirectory(desk.path / "b")).peer_id].key_seq == k


def test_a_node_that_is_elsewhere_asks_no_loopback_door_that_a_record_names(desk: Desk) -> None:  # noqa: F811
    a, b = desk.founds(), NodeDirectory(desk.path / "b")
    with answering(a):
        desk.does(*desk.joining(desk.invites()))
        node_settings.save(b, node_settings.settings_of("a test", listen="0.0.0.0:7780", addresses=("192.0.2.1:7780",)))
        assert not desk.does("node", "rotate", "--dir", "b", "--json").data["is_announced"]
        node_settings.save(b, node_settings.settings_of("a test", listen="0.0.0.0:7780", addresses=("127.0.0.1:7780",)))
        assert desk.does("node", "rotate", "--dir", "b", "--json").data["is_announced"]


def test_keys_stay_sealed_and_a_node_that_runs_keeps_its_own(desk: Desk) -> None:  # noqa: F811
    def typed(text: str) -> str:
        reading, writing = os.pipe()
        os.write(writing, text.encode() + b"\n")
        os.close(writing)
        return str(reading)

    desk.does("network", "create", "wards", "--task", "digits", "--dir", "s", "--passphrase-fd", typed("a long one"))
    folder = NodeDirectory(desk.path / "s")
    before = folder.read_identity()
    wrong = desk.is_refused("node", "rotate", "--dir", "s", "--passphrase-fd", typed("another"))
    assert (wrong.code, folder.read_identity()) == (6, before)
    lock = folder.lock()
    running = desk.is_refused("node", "rotate", "--dir", "s", "--passphrase-fd", typed("a long one"))
    assert (running.code, "running" in running.err, folder.read_identity()) == (5, True, before)
    os.close(lock)
    assert desk.types("node", "rotate", "--dir", "s", "--passphrase-fd", typed("a long one")).code == 0
    old = Identity.from_bytes(before, "a long one")
    assert Identity.from_bytes(folder.read_identity(), "a long one").peer_id == old.peer_id
    assert folder.read_identity() != before
