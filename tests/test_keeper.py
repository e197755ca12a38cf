"""The roster on the disk follows the one in memory: seldom, whole, and at once where an invite was used."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from node.admission import owner_answers
from node.admission.keeper import Keeper
from node.admission.owner_answers import answers, charter_answers
from node.admission.papers import Papers
from node.directory import NodeDirectory
from p2pfl.failure import Failure
from p2pfl.protocol.admission.attestation import attest
from p2pfl.protocol.admission.revocation import Cause
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters, sign_charter
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.events import Instant
from tests.admission import NAME, NOW, Network, Person

ANN, BOB, CAT = Person("ann"), Person("bob"), Person("cat")
NET = Network()


@pytest.fixture
def papers() -> Papers:
    charter = Charter(NAME, NET.root.key, b"s" * 32, 100, GossipRules())
    return Papers(Charters(NET.root.key, sign_charter(NET.root.sign, charter, 1, NOW, {})), NET.roster(ANN))


def kept(directory: NodeDirectory) -> set[str]:
    roster = Roster.from_bytes(directory.roster.read_bytes(), NOW)
    return {member.name for member in roster.members.values()}


def test_what_must_be_durable_is_when_keep_returns_and_the_rest_soon(tmp_path: Path, papers: Papers) -> None:
    directory, troubles = NodeDirectory(tmp_path), list[str]()
    directory.write(directory.charter, papers.charters.to_bytes())

    async def run() -> None:
        keeper = Keeper(asyncio.get_running_loop(), directory, papers, troubles.append)
        assert keeper.keep() and kept(directory) == {"ann"}
        papers.roster.learn(NET.direct(BOB).data, BOB.record(NET.id).data, NOW)
        assert keeper.keep() and kept(directory) == {"ann", "bob"}
        papers.roster.learn(NET.direct(CAT).data, CAT.record(NET.id).data, NOW)
        keeper.look()
        keeper.close()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert kept(directory) == {"ann", "bob", "cat"} and not troubles


@pytest.mark.fault("full disk")
def test_a_disk_that_fails_is_told_of_and_tried_again(tmp_path: Path, papers: Papers) -> None:
    directory, troubles = NodeDirectory(tmp_path / "gone"), list[str]()

    async def run() -> None:
        keeper = Keeper(asyncio.get_running_loop(), directory, papers, troubles.append)
        assert not keeper.keep() and len(troubles) == 1
        directory.path.mkdir()
        assert keeper.keep() and kept(directory) == {"ann"}
        keeper.close()

    asyncio.run(run())


@pytest.mark.fault("full disk")
def test_the_owner_hears_of_what_is_not_kept_and_may_say_it_again(
    tmp_path: Path, papers: Papers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_answers, "instant", lambda: Instant(0.0, NOW))
    directory = NodeDirectory(tmp_path / "gone")
    charter = Charter(NAME, NET.root.key, b"s" * 32, 100, GossipRules())
    revoked = NET.root.revoke(ANN.id, Cause.EXPELLED, NOW)
    asks = {
        "admit": {"credential": NET.direct(BOB).data.hex()},
        "revoke": {"revocation": revoked.data.hex()},
        "amend": {"charter": sign_charter(NET.root.sign, charter, 2, NOW, {}).data.hex()},
        "attest": {"attestation": attest(NET.root.sign, NET.id, (revoked,), NOW).data.hex()},
        "keep": {},
    }

    async def run() -> None:
        keeper = Keeper(asyncio.get_running_loop(), directory, papers, lambda text: None)
        told = {
            **answers(papers.roster, dict, lambda revocation: None, keeper.keep),
            **charter_answers(papers, keeper.keep),
        }
        for name, request in asks.items():
            with pytest.raises(Failure) as failed:
                told[name](request)
            assert (name, failed.value.code) == (name, "not_kept")
        directory.path.mkdir()
        for name, request in asks.items():
            assert told[name](request) == {}
        keeper.close()

    asyncio.run(run())
    kept_roster = Roster.from_bytes(directory.roster.read_bytes(), NOW)
    assert BOB.id in kept_roster.identities and kept_roster.is_revoked(ANN.id)
    assert directory.charter.read_bytes() == papers.charters.to_bytes() and papers.charters.current.serial == 2


class Loop:
    """A clock that the test moves, and whatever a thread asks for is done at once."""

    def __init__(self) -> None:
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def call_soon_threadsafe(self, act: Callable[..., None], *arguments: object) -> None:
        act(*arguments)


@pytest.mark.fault("crowds")
def test_a_member_that_speaks_of_itself_all_the_time_wears_out_no_memory_card(tmp_path: Path, papers: Papers) -> None:
    """Records alone are written once a minute; a credential or a revocation is on the disk after two seconds."""
    loop, directory, writes = Loop(), NodeDirectory(tmp_path), 0
    directory.write(directory.charter, papers.charters.to_bytes())
    keeper = Keeper(loop, directory, papers, lambda text: None)  # type: ignore[arg-type]
    before = b""
    for second in range(600):
        loop.now += 1.0
        papers.roster.learn_record(ANN.record(NET.id, incarnation=1 + second), NOW)
        keeper.look()
        if keeper._under_way is not None:
            keeper._under_way.result()
        writes += (now := directory.roster.read_bytes()) != before
        before = now
    assert 10 <= writes <= 11
    papers.roster.learn(NET.direct(BOB).data, BOB.record(NET.id).data, NOW)
    loop.now += 2.0
    keeper.look()
    assert keeper._under_way is not None
    keeper._under_way.result()
    assert kept(directory) == {"ann", "bob"}
    keeper.close()
