"""Real nodes that only dial out learn together through relays: processes that hold no model, and next to no memory."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import node_settings
from node.admission.joining import join, new_identity
from node.admission.office import revoke
from node.node_settings import NodeSettings, settings_of
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.admission.revocation import Cause
from tests import namespaces
from tests.nodes import p2pfl
from tests.test_founded import Ward, ended_after, founded, office, settings, until
from tests.test_network_cli import answering

pytestmark = pytest.mark.net
RELAY_BYTES_MAX = 60_000_000


def outbound_only() -> NodeSettings:
    return settings().model_copy(update={"outbound_only": True})


def pss(pid: int) -> int:
    """Bytes of memory that this process is to blame for."""
    told = Path(f"/proc/{pid}/smaps_rollup").read_text()
    (kib,) = re.findall(r"^Pss:\s+(\d+) kB$", told, re.MULTILINE)
    return int(kib) * 1024


def joined(folder: Path, relays: dict[str, NodeSettings]) -> tuple[Ward, Ward, dict[str, Ward]]:
    """ann, who founded the network, and bob: behind NATs since. And relays."""
    ann, bob = founded(folder), Ward(folder / "bob")
    wards = {name: Ward(folder / name) for name in relays}
    for_relays, _ = office(ann).invite(3600.0, len(relays), Role.RELAY)
    for_bob, _ = office(ann).invite(3600.0, 1, Role.MEMBER)
    joins = [(wards[name], for_relays, how) for name, how in relays.items()]
    with answering(ann.folder):
        for ward, line, how in (*joins, (bob, for_bob, outbound_only())):
            join(line, ward.name, ward.folder.path, how, lambda directory: new_identity(directory, lambda: None))
    node_settings.save(ann.folder, outbound_only())
    return ann, bob, wards


@pytest.fixture
def wards(tmp_path: Path) -> Iterator[tuple[Ward, Ward, dict[str, Ward]]]:
    """All of them run, with two relays."""
    ann, bob, relays = joined(tmp_path, {"relay-1": settings(), "relay-2": settings()})
    with ended_after(ann, bob, *relays.values()):
        for ward in (*relays.values(), ann, bob):
            ward.start()
        yield ann, bob, relays


def meet(ann: Ward, bob: Ward, but: str = "") -> str:
    """Wait until each has applied three more updates of the other, over a relay that is not this one; returns which."""
    for one, other in ((ann, bob), (bob, ann)):
        until(lambda one=one, other=other: one.neighbors().get(other.name, {}).get("through", but) not in ("", but))
        enough = one.neighbors()[other.name]["applied"] + 3
        until(lambda one=one, other=other, enough=enough: one.neighbors()[other.name]["applied"] >= enough)
    through = ann.neighbors()["bob"]["through"]
    assert through == bob.neighbors()["ann"]["through"] and through != but
    return str(through)


@pytest.mark.fault("revoked", "dead relay")
def test_two_nodes_that_only_dial_out_learn_together_through_one_relay_and_when_that_is_killed_through_the_other(
    wards: tuple[Ward, Ward, dict[str, Ward]], tmp_path: Path
) -> None:
    ann, bob, relays = wards
    first = meet(ann, bob)
    shown = p2pfl("node", "status", "--dir", "ann", cwd=tmp_path).stdout
    assert f"  through {first}, which can't read what it carries" in shown
    assert re.search(r"^tunnels     1 open, 2 relays, ", shown, re.MULTILINE)
    assert ann.ask("status")["listens_at"].startswith("127.0.0.1:")

    # The relay: it carries, holds no model, and is a member like any other.
    relay, other = relays[first], next(ward for name, ward in relays.items() if name != first)
    status = relay.ask("status")
    assert (status["role"], status["state"]) == ("relay", "relaying") and status["relayed"]["messages"] > 0
    assert "trainer" not in status and not status["rejected"]
    assert status["memory_bytes"] < RELAY_BYTES_MAX and pss(status["pid"]) < RELAY_BYTES_MAX
    loaded = Path(f"/proc/{status['pid']}/maps").read_text()
    assert not re.search(r"torch|numpy|safetensors", loaded)
    assert sorted(path.name for path in relay.folder.path.iterdir() if "model" in path.name or "checkpoint" in path.name) == []
    shown = p2pfl("node", "status", "--dir", first, cwd=tmp_path).stdout
    assert shown.startswith(f"{first} in wards: relaying\npassed on ") and max(map(len, shown.splitlines())) <= 80
    until(lambda: relay.states() == dict.fromkeys(("ann", "bob", *relays), "alive"))
    assert {one["name"]: one["applied"] for one in ann.ask("status")["neighbors"]}[first] == 0

    relay.kill()
    assert meet(ann, bob, but=first) == other.name
    until(lambda: ann.states()[first] == "dead")
    relay.start()
    until(lambda: ann.states()[first] == bob.states()[first] == "alive")

    revoke(office(ann), "bob", Cause.STOLEN)
    code, said = bob.ended()
    assert (code, "revoked" in said) == (6, True)
    until(lambda: other.states()["bob"] == "revoked")
    until(lambda: "bob" not in ann.neighbors())

    assert p2pfl("node", "leave", "--dir", other.name, cwd=tmp_path).stdout == f"{other.name} has left\n"
    code, said = other.ended()
    assert code == 0 and "messages were passed on" in said
    until(lambda: ann.states()[other.name] == "left")


@pytest.mark.skipif(not namespaces.can_make(), reason="three hosts take root and network namespaces")
def test_two_hosts_that_reach_nobody_but_a_third_learn_together_through_it(tmp_path: Path) -> None:
    with namespaces.two_behind_one() as (middle, one, other):
        own = settings_of("a test", listen="0.0.0.0:7780", addresses=("10.77.0.1:7780", "10.78.0.1:7780"))
        ann, bob, relays = joined(tmp_path, {"relay": own})
        assert other.reaches("10.78.0.1") and not other.reaches("10.77.0.2") and not one.reaches("10.78.0.1")
        with ended_after(ann, bob, relays["relay"]):
            relays["relay"].start(middle.command())
            ann.start(one.command())
            bob.start(other.command())
            assert meet(ann, bob) == "relay"
            status = relays["relay"].ask("status")
            assert pss(status["pid"]) < RELAY_BYTES_MAX and status["relayed"]["dropped"] == 0
