"""`p2pfl network amend`: what the root may change, what a running node makes of it, and what it refuses."""

from pathlib import Path

import pytest

from node.admission import papers
from node.admission.amending import changes
from node.admission.amendments import Amendments
from node.admission.founding import signed
from node.admission.papers import Papers
from node.admission.terms import Terms, of_charter
from node.directory import NodeDirectory
from node.neighborhood import Neighborhood
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.signed_charter import GRACE_S, Charters, SignedCharter
from p2pfl.protocol.charter import Charter
from p2pfl.settings import CodecSection, GossipSection, LimitsSection, OverlaySection, TrainingSection
from tests.admission import NOW, Network, Person
from tests.test_network_cli import Desk, desk  # noqa: F401 (a fixture)

ANN = Person("ann")
NET = Network()
TERMS = Terms()


def charter(terms: Terms = TERMS, serial: int = 1, schema: bytes = b"s" * 32) -> SignedCharter:
    agreed = Charter(NET.name, NET.root.key, schema, 1000, terms.rules)
    return signed(NET.root, agreed, serial, NOW, terms)


class Started:
    """A node that started under the first charter."""

    def __init__(self) -> None:
        self.charters = Charters(NET.root.key, charter())
        self.graph = Neighborhood(ANN.id, NET.id, 7, TERMS.topology.model_dump())
        self.amendments = Amendments(Papers(self.charters, NET.roster(ANN)), self.graph)

    def hears(self, terms: Terms, serial: int = 2, schema: bytes = b"s" * 32) -> None:
        self.charters.learn(charter(terms, serial, schema).data, NOW)
        assert self.amendments.is_behind


def test_what_only_times_and_bounds_the_gossip_counts_at_once() -> None:
    node = Started()
    before = node.charters.current.charter(NET.root.key).digest
    node.hears(TERMS.model_copy(update={"rounds": 9, "gossip": GossipSection(ceiling_s=33.0)}))
    amended, found = node.amendments.follow(NOW)
    assert found.at_once == ("gossip.ceiling_s", "rounds") and not found.at_restart
    assert (amended.charter.gossip.ceiling_s, amended.charter.gossip.rounds) == (33.0, 9)
    assert amended.charter.digest == node.charters.current.charter(NET.root.key).digest != before
    assert (amended.before, amended.until) == (before, NOW + GRACE_S)
    assert not node.amendments.is_behind


def test_what_a_trainer_or_membership_was_made_with_waits_for_the_next_start_and_is_named() -> None:
    node = Started()
    training, gossip = TrainingSection(learning_rate=0.5), GossipSection(mode="async", staleness=3, floor_s=0.5)
    topology, limits = OverlaySection(timers="edge"), LimitsSection(max_abs=5.0)
    node.hears(TERMS.model_copy(update={"training": training, "gossip": gossip, "topology": topology, "limits": limits}))
    amended, found = node.amendments.follow(NOW)
    expected = ("gossip.mode", "gossip.staleness", "limits.max_abs", "topology.timers", "training.learning_rate")
    assert found.at_restart == node.amendments.at_restart == expected and found.at_once == ("gossip.floor_s",)
    assert (amended.charter.gossip.mode, amended.charter.gossip.staleness, amended.charter.gossip.floor_s) == ("rounds", 1, 0.5)
    node.hears(TERMS, serial=3)  # and back: nothing waits any more
    assert node.amendments.follow(NOW)[1].at_restart == node.amendments.at_restart == ()


def test_a_graph_that_needs_no_more_room_is_taken_at_once_and_a_larger_one_at_the_next_start() -> None:
    node, live = Started(), tuple(sorted([ANN.id, *(Person(f"m{k}").id for k in range(30))]))
    before = len(node.graph.plan_of(live).near)
    node.hears(TERMS.model_copy(update={"topology": OverlaySection(degree=2)}))
    assert node.amendments.follow(NOW)[1].at_once == ("topology.degree",)
    assert len(node.graph.plan_of(live).near) < before
    node.hears(TERMS.model_copy(update={"topology": OverlaySection(degree=8), "rounds": 5}), serial=3)
    found = node.amendments.follow(NOW)[1]
    assert (found.at_once, found.at_restart) == (("rounds",), ("topology.degree",))


def test_another_model_ends_the_node_with_a_mismatch_and_another_program_with_a_version() -> None:
    for terms, schema in ((TERMS.model_copy(update={"codec": CodecSection(kind="float16")}), b"s" * 32), (TERMS, b"t" * 32)):
        node = Started()
        node.hears(terms, schema=schema)
        with pytest.raises(Failure) as failed:
            node.amendments.follow(NOW)
        assert failed.value.exit_code is ExitCode.MISMATCH
    assert changes(TERMS, TERMS.model_copy(update={"parts": 3, "seed": 1})).never == ("parts", "seed")


def test_the_charter_before_is_still_good_after_a_restart_within_a_day() -> None:
    node = Started()
    assert node.amendments.tolerated(NOW) is None
    before = node.charters.current.charter(NET.root.key).digest
    node.hears(TERMS.model_copy(update={"rounds": 9}))
    kept = Charters.from_bytes(node.charters.to_bytes())
    again = Amendments(Papers(kept, NET.roster(ANN)), node.graph)
    known = again.tolerated(NOW + 10)
    assert known is not None and (known.before, known.until) == (before, NOW + GRACE_S)
    assert again.tolerated(NOW + GRACE_S) is None


# ---- as it is typed -------------------------------------------------------------------------------------------------------


@pytest.mark.net
def test_the_root_amends_by_file_and_by_word_and_everything_else_stays(desk: Desk) -> None:  # noqa: F811
    a = desk.founds()
    first = papers.read(a).charters.current
    Path("more.toml").write_text("[gossip]\nceiling-s = 20.0\n[limits]\nmax_abs = 50.0\n")
    typed = ("--settings", "more.toml", "--set", "topology.overlay=complete", "--set", "training.batch_size=4")
    said = desk.does("network", "amend", *typed, "--dir", "a", "--json").data
    assert said == {
        "serial": 2,
        "at_once": ["gossip.ceiling_s", "topology.overlay"],
        "at_restart": ["limits.max_abs", "training.batch_size"],
    }
    known = papers.read(a).charters
    terms = of_charter(known.current)
    assert known.predecessor == first and terms.seed == 3 and terms.rounds == 50
    assert (terms.gossip.ceiling_s, terms.gossip.floor_s, terms.limits.max_abs) == (20.0, 0.3, 50.0)
    assert (terms.topology.overlay, terms.training.batch_size, terms.training.local_steps) == ("complete", 4, 2)
    said = desk.does("network", "amend", "--set", "training.local_steps=none", "--set", "training.local_epochs=1", "--dir", "a")
    assert "charter 3" in said.out and "next start" in said.out
    assert of_charter(papers.read(a).charters.current).training.local_epochs == 1


@pytest.mark.net
@pytest.mark.parametrize(
    ("typed", "code", "word"),
    [
        (("--set", "task.model=mlp"), 9, "network create"),
        (("--set", "codec.kind=float16"), 9, "codec.kind"),
        (("--set", "seed=4"), 9, "seed"),
        (("--set", "gossip.flor_s=1.0"), 3, "floor_s"),
        (("--set", "gossip.floor_s"), 2, "KEY=VALUE"),
        (("--set", "rounds.x=1"), 2, "rounds"),
        (("--set", "rounds=50"), 2, "--set"),
        ((), 2, "--set"),
        (("--settings", "nowhere.toml"), 3, "nowhere.toml"),
    ],
)
def test_what_cannot_be_amended_is_said_and_changes_nothing(
    desk: Desk,  # noqa: F811
    typed: tuple[str, ...],
    code: int,
    word: str,
) -> None:
    a = desk.founds()
    before = a.charter.read_bytes()
    refused = desk.is_refused("network", "amend", *typed, "--dir", "a")
    assert (refused.code, word in refused.err) == (code, True), refused.err
    assert a.charter.read_bytes() == before


@pytest.mark.net
def test_only_the_root_amends(desk: Desk) -> None:  # noqa: F811
    a = desk.founds()
    a.root_key.rename(desk.path / "root.key")
    refused = desk.is_refused("network", "amend", "--set", "rounds=9", "--dir", "a")
    assert (refused.code, "--key FILE" in refused.err) == (6, True)
    desk.does("network", "amend", "--set", "rounds=9", "--dir", "a", "--key", "root.key")
    assert papers.read(NodeDirectory(desk.path / "a")).charters.current.serial == 2
