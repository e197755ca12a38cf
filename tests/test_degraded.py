"""What goes wrong around a live peer is said once, and the peer goes on."""

import inspect
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zmq

from node.entropy import SystemEntropy
from node.local.network import local_network
from node.local.run import LocalRun, run_local
from node.network import Network
from node.setup import Setup
from node.upkeep.journal import Journal
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId

ROUNDS = 12


def two_peers(directory: Path, watch: Callable[[LocalRun], None], **sections: Any) -> LocalRun:
    network = local_network(
        ["a", "b"],
        name="degraded",
        rounds=ROUNDS,
        topology={"kind": "path"},
        training={"local_steps": 1},
        gossip={"floor_s": 0.1, "ceiling_s": 5.0},
        **sections,
    )
    return run_local(network, directory, pace_s=0.05, watch=watch)


@pytest.mark.fault("trainer")
@pytest.mark.net
def test_a_peer_whose_trainer_dies_stays_a_member_and_gets_another(tmp_path: Path) -> None:
    killed: list[int] = []

    def watch(run: LocalRun) -> None:
        if not killed and run.peers[0].step == 3:
            killed.append(run.peers[0].ready["pid"])
            os.kill(killed[0], signal.SIGKILL)

    run = two_peers(tmp_path, watch)
    assert [peer.state for peer in run.peers] == ["done", "done"]
    assert run.peers[0].counters["trainer_restarts"] == 1
    assert run.peers[0].ready["pid"] != killed[0]
    said = [line["kind"] for index, line in run.incidents if index == 0]
    assert said.count("degraded") == 1
    assert run.peers[0].step == run.peers[1].step == ROUNDS


@pytest.mark.fault("full disk")
@pytest.mark.net
def test_a_disk_that_takes_no_checkpoint_stops_neither_gossip_nor_training(tmp_path: Path) -> None:
    spoiled: list[Path] = []

    def watch(run: LocalRun) -> None:
        if not spoiled and run.peers[0].step == 1:
            spoiled.append(tmp_path / "0" / "checkpoints")
            spoiled[0].touch()  # a file where the folder should be made

    run = two_peers(tmp_path, watch)
    assert [peer.state for peer in run.peers] == ["done", "done"]
    assert "checkpoint_failed" in [line["kind"] for index, line in run.incidents if index == 0]
    assert run.peers[1].counters["updates_applied"] == ROUNDS


@pytest.mark.fault("other protocols")
@pytest.mark.net
def test_a_stranger_who_knows_our_key_is_counted_and_told_of(tmp_path: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        knocked: list[str] = []

        def watch(run: LocalRun) -> None:
            if not knocked and run.peers[0].step == 1:
                stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
                stranger.curve_serverkey = run.network.members[0].transport_key
                knocked.append(f"tcp://{run.peers[0].address}")
                stranger.connect(knocked[0])

        run = two_peers(tmp_path, watch)
    assert [peer.counters["strangers_refused"] > 0 for peer in run.peers] == [True, False]
    assert [peer.counters["messages_unknown"] for peer in run.peers] == [0, 0]
    told = [(index, line["text"]) for index, line in run.incidents if line["kind"] == "stranger"]
    assert told == [(0, "refused 1 connection(s) from strangers, the last from 127.0.0.1")]


@pytest.mark.fault("flood")
def test_a_liar_gets_one_line_of_the_log_however_often_it_lies(tmp_path: Path) -> None:
    liar, other = PeerId(b"l" * 32), PeerId(b"o" * 32)
    members = {peer: Member(peer, name, "127.0.0.1:1", b"", b"") for peer, name in ((liar, "liar\n{"), (other, "other"))}
    said: list[Any] = []
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", members, said.append)
    for _ in range(1000):
        journal.rejected(Reason.BAD_SIGNATURE, liar)
    journal.rejected(Reason.BAD_CHUNK, liar)
    journal.rejected(Reason.BAD_SIGNATURE, other)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["member"], line["text"]) for line in lines] == [
        ("liar\n{", "bad_signature"),
        ("liar\n{", "bad_chunk"),
        ("other", "bad_signature"),
    ]
    assert len(said) == 3


def test_a_journal_remembers_only_what_may_still_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", {}, lambda _said: None)
    for k in range(1000):
        monkeypatch.setattr("node.upkeep.journal.time.monotonic", lambda k=k: 60.0 * k)
        journal.incident("learn_failed", f"training diverged: a parameter of {k} is over max_abs")
    assert len(journal._said) == 1
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1000


@pytest.mark.fault("full disk")
def test_a_journal_that_can_not_be_written_is_silent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "no" / "metrics", tmp_path / "no" / "log", {}, lambda _said: None)
    journal.incident("degraded", "there is no such folder")
    journal.round_ended({"step": 1, "loss": float("nan")})


def test_a_live_node_can_not_be_given_other_randomness_than_the_systems() -> None:
    assert SystemEntropy().draw(32) != SystemEntropy().draw(32)
    assert list(inspect.signature(SystemEntropy).parameters) == []
    assert list(inspect.signature(Network).parameters) == ["setup"]
    assert not [name for name in Setup.__slots__ if "entropy" in name or "random" in name]
