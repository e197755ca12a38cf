"""Faults under virtual time: what becomes of real peers when machines, links and disks fail."""

from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import pytest

from p2pfl.failure import Failure
from p2pfl.protocol import wire
from sim import Scenario, run
from sim.events import EventsOutcome, Federation, run_events
from sim.world import World, world_of

ROUNDS = 12


def small(*faults: dict[str, Any], **settings: Any) -> Scenario:
    """Six peers on a complete graph; a round's training lasts 1 s."""
    defaults: dict[str, Any] = {
        "peers": 6,
        "rounds": ROUNDS,
        "model": "softmax",
        "local_steps": 4,
        "topology": "complete",
        "partition": "shards:3",
        "alone": False,
        "gather_s": 2,
        "checkpoint_s": 0.1,
        "latency": 0.01,
    }
    return Scenario(fault=list(faults), **{**defaults, **settings})


def world(*faults: dict[str, Any], **settings: Any) -> World:
    return world_of(small(*faults, **settings))


@cache
def calm(topology: str = "complete") -> EventsOutcome:
    """Without any fault, at the same pace."""
    return run_events(world(topology=topology, step_s=0.25))


def rows(outcome: EventsOutcome, peer: int) -> list[bool]:
    """Whether the peer ended each row."""
    return np.isfinite(outcome.accuracy[:, peer]).tolist()


class Diary:
    """Notes every event and effect by peer."""

    def __init__(self, of: World) -> None:
        self.lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.federation = Federation(of, None, lambda line: self.lines[str(line["peer"])].append(line))
        self.federation.run()
        self.outcome = self.federation.outcome()

    def told(self, peer: int, kind: str) -> list[float]:
        return [line["t"] for line in self.lines[f"peer-{peer}"] if line["event"]["kind"] == kind]

    def asked(self, peer: int, kind: str) -> list[tuple[float, dict[str, Any]]]:
        lines = self.lines[f"peer-{peer}"]
        return [(line["t"], effect) for line in lines for effect in line["effects"] if effect["kind"] == kind]


def offers(federation: Federation) -> list[tuple[int, wire.Header]]:
    """(sender, header) of every offer that is sent from now on."""
    found: list[tuple[int, wire.Header]] = []
    send = federation.links.send

    def noting(sender: Any, receiver: Any, frames: Any, bulk: bool) -> None:
        message = wire.decode(frames[0])
        if isinstance(message, wire.Offer):
            found.append((sender.index, wire.decode_header(message.header)))
        send(sender, receiver, frames, bulk)

    federation.links.send = noting  # type: ignore[method-assign]
    return found


# ---- crash and restart --------------------------------------------------------------------------------------------------


def test_a_crashed_peer_is_away_from_then_on_and_the_others_finish() -> None:
    outcome = run_events(world({"at": 4.5, "kind": "crash", "peers": 2}))
    assert outcome.finished == (True, True, False, True, True, True)
    assert rows(outcome, 2) == [True] * 4 + [False] * (ROUNDS - 3)
    assert outcome.up[:4].all() and not outcome.up[4:, 2].any() and np.delete(outcome.up, 2, axis=1).all()
    assert np.isfinite(np.delete(outcome.accuracy, 2, axis=1)).all()


def test_a_restarted_peer_goes_on_from_its_checkpoint_and_joins_its_neighbors_round() -> None:
    diary = Diary(world({"at": 4.5, "kind": "crash", "peers": 2, "heal": 7.5}))
    outcome = diary.outcome
    assert all(outcome.finished)
    assert rows(outcome, 2)[:5] == [True] * 4 + [False] and rows(outcome, 2)[-1]
    assert not all(rows(outcome, 2))  # it jumped over what it had missed
    resumed = [effect for time, effect in diary.asked(2, "Learn") if time >= 7.5]
    assert (resumed[0]["step"], resumed[0]["local_steps"]) == (
        3,
        0,
    )  # the last that was delivered: made anew, not trained again
    assert resumed[1]["step"] >= 7
    assert [mark.text for mark in outcome.marks] == ["crash 2", "end of crash 2"]
    assert outcome.marks[0].round == pytest.approx(4, abs=1)


@pytest.mark.fault("replay", "kill")
def test_a_crash_never_makes_a_peer_reuse_a_sequence_number() -> None:
    crashes = [{"at": at, "kind": "restart", "peers": [1, 4]} for at in (2.3, 2.9, 5.1, 7.7)]
    federation = Federation(world(*crashes), None, None)
    sent = offers(federation)
    federation.run()
    contents = defaultdict(set)
    for sender, header in sent:
        contents[sender, header.boot_epoch, header.seq].add(header.chunks_digest)
    assert all(len(digests) == 1 for digests in contents.values())
    assert {epoch for sender, epoch, _ in contents if sender == 1} == {1, 2, 3, 4, 5}
    assert len({header.boot_id for sender, header in sent if sender == 1}) == 5
    assert not [reason for host in federation.hosts for reason in host.peer.ledger.rejected if reason == "replayed"]


def test_a_crash_while_the_disk_is_writing_leaves_what_was_durable_before() -> None:
    """Every checkpoint takes 0.4 s: the one that begins at 3.8 s is torn by a crash at 4 s."""
    diary = Diary(world({"at": 4.0, "kind": "crash", "peers": 2, "heal": 6.0}, disk_s=0.4, latency=0.0))
    begun = [time for time, effect in diary.asked(2, "Persist") if time < 4.0]
    durable = [effect["step"] for time, effect in diary.asked(2, "Persist") if time + 0.4 <= 4.0]
    assert len(durable) == len(begun) - 1
    first = next(effect for time, effect in diary.asked(2, "Learn") if time >= 6.0)
    assert first["step"] == durable[-1]


def test_nothing_that_follows_a_checkpoint_is_sent_before_that_is_durable() -> None:
    federation = Federation(world(disk_s=0.25, latency=0.0, rounds=4, step_s=0.25), None, None)
    durable_from: dict[int, float] = {}
    early: list[float] = []
    send = federation.links.send

    def checking(sender: Any, receiver: Any, frames: Any, bulk: bool) -> None:
        if federation.agenda.now < durable_from.get(sender.index, 0.0):
            early.append(federation.agenda.now)
        send(sender, receiver, frames, bulk)

    federation.links.send = checking  # type: ignore[method-assign]
    for host in federation.hosts:
        persist = host._persist

        def noting(state: bytes, host: Any = host, persist: Any = persist) -> None:
            durable_from[host.index] = federation.agenda.now + 0.25
            persist(state)

        host._persist = noting  # type: ignore[method-assign]
    federation.run()
    assert durable_from and not early


def test_a_peer_without_any_checkpoint_begins_anew_with_a_later_epoch() -> None:
    diary = Diary(world({"at": 1.5, "kind": "restart", "peers": 0}, checkpoint_s=1000))
    first = next(effect for time, effect in diary.asked(0, "Learn") if time >= 1.5)
    assert (first["step"], first["local_steps"]) == (0, 4)
    assert diary.federation.hosts[0].epoch == 2 and all(diary.outcome.finished)


def test_a_peer_that_leaves_persists_and_is_not_awaited() -> None:
    """Its neighbors' rounds take no longer than with it: nobody waits for who said good-bye."""
    diary = Diary(world({"at": 4.5, "kind": "leave", "peers": 2, "heal": 8.5}))
    assert [time for time, _ in diary.asked(2, "Persist") if time == 4.5]
    assert diary.outcome.virtual_s < calm().virtual_s + 3
    assert all(diary.outcome.finished)


@pytest.mark.fault("churn")
def test_all_peers_can_restart_at_once() -> None:
    """The thundering herd: within the second after, all train again."""
    diary = Diary(world({"at": 5.3, "kind": "restart", "peers": "0-5"}))
    assert all(diary.outcome.finished)
    assert diary.outcome.virtual_s < ROUNDS + 6
    assert diary.outcome.consensus_distance[-1] < calm("ring").consensus_distance[-1] + 0.1


def test_a_late_peer_joins_the_round_of_the_others() -> None:
    diary = Diary(world({"at": 5.2, "kind": "join", "peers": 3}, gather_s=0.5))
    assert diary.told(3, "Started") == [5.2]
    assert rows(diary.outcome, 3)[0] and not all(rows(diary.outcome, 3)) and rows(diary.outcome, 3)[-1]
    assert not diary.outcome.up[:4, 3].any() and diary.outcome.up[6:, 3].all()


# ---- pauses, clocks, speeds ---------------------------------------------------------------------------------------------


@pytest.mark.fault("sleep")
def test_a_paused_peer_finds_everything_waiting_and_catches_up() -> None:
    diary = Diary(world({"at": 3.5, "kind": "pause", "peers": 1, "heal": 8.0}))
    times = [line["t"] for line in diary.lines["peer-1"]]
    assert not [time for time in times if 3.5 < time < 8.0]
    assert times.count(8.0) > 5
    assert all(diary.outcome.finished) and rows(diary.outcome, 1)[-1]
    assert len({line["event"]["kind"] for line in diary.lines["peer-1"] if line["t"] == 8.0}) > 1


@pytest.mark.fault("sleep")
def test_an_hour_of_sleep_costs_no_peer_its_place() -> None:
    """FAULTS 64: no one is judged on wake, and nothing new is taken for a replay."""
    faults = {"at": 2.5, "kind": "pause", "peers": "0-5", "heal": 3602.5}
    outcome = run_events(world(faults))
    assert all(outcome.finished) and not any(outcome.rejected)
    assert np.isfinite(outcome.accuracy).all()


@pytest.mark.fault("clocks")
@pytest.mark.parametrize("offset", [600.0, -600.0, -1.7e9])
def test_a_wrong_clock_changes_nothing(offset: float) -> None:
    """FAULTS 59: liveness is monotonic time, freshness counters."""
    wrong = run_events(world({"at": 1.5, "kind": "clock", "peers": [0, 3], "offset_s": offset}, step_s=0.25))
    assert np.array_equal(wrong.parameters, calm().parameters)


def test_training_takes_virtual_time() -> None:
    """A round is as long as its slowest peer's training: 4 steps of 0.5 s, and one latency."""
    outcome = run_events(world(step_s=0.5, latency=0.125))
    assert outcome.virtual_s == pytest.approx(ROUNDS * (2 + 0.125) + 0.125, abs=0.5)


def test_speed_alone_changes_when_but_not_what() -> None:
    uneven = run_events(world(step_s="lognormal:0.25,0.3"))
    assert np.array_equal(calm().parameters, uneven.parameters)
    assert calm().virtual_s < uneven.virtual_s


def test_as_many_peers_are_stragglers_as_the_scenario_says() -> None:
    settings = {"peers": 20, "samples_per_peer": 16, "topology": "ring", "stragglers": 0.25, "straggler_factor": 8}
    hosts = Federation(world(step_s=0.25, **settings), None, None).hosts
    assert sorted(host.step_s for host in hosts) == [0.25] * 15 + [2.0] * 5


def test_nobody_waits_longer_for_a_straggler_than_the_ceiling() -> None:
    slow = {"at": 2.5, "kind": "slow", "peers": 5, "factor": 8}
    outcome = run_events(world(slow, ceiling_s=2, floor_s=0.5))
    others = Diary(world(slow, ceiling_s=2, floor_s=0.5)).asked(0, "RoundEnded")
    assert max(effect["waited_s"] for _, effect in others) <= 2.0
    assert any(effect["missing"] for _, effect in others)
    assert outcome.finished[:5] == (True,) * 5


# ---- links --------------------------------------------------------------------------------------------------------------


@pytest.mark.fault("split")
def test_both_halves_of_a_split_train_on_and_converge_again_after_it() -> None:
    """While they are apart nothing passes, each half agrees within itself; after it they come nearer round by round."""
    split = {"at": 3.5, "kind": "partition", "groups": ["0-2"], "heal": 12.5}
    diary = Diary(world(split, rounds=24))
    outcome = diary.outcome
    assert all(outcome.finished)
    distance = outcome.consensus_distance
    assert distance[12] > 3 * distance[3] and distance[-1] < distance[12] / 3
    for peer in range(6):
        applied = [effect["applied"] for time, effect in diary.asked(peer, "RoundEnded") if 6.5 < time < 12]
        assert applied and max(applied) == 2
        assert diary.asked(peer, "RoundEnded")[-1][1]["applied"] == 5


@pytest.mark.fault("split")
def test_a_split_that_begins_while_another_heals_ends_too() -> None:
    splits = [
        {"at": 2.5, "kind": "partition", "groups": ["0-2", "3-5"], "heal": 6.5},
        {"at": 6.0, "kind": "partition", "groups": ["0,3", "1,4", "2,5"], "heal": 10.5},
    ]
    outcome = run_events(world(*splits, rounds=20))
    assert all(outcome.finished)
    assert outcome.consensus_distance[-1] < outcome.consensus_distance[9] / 3


@pytest.mark.fault("one-way link")
def test_a_cut_one_way_kills_nobody() -> None:
    cut = {"at": 2.5, "kind": "cut", "groups": [0, 1], "heal": 8.5}
    diary = Diary(world(cut))
    assert all(diary.outcome.finished)
    assert len(diary.told(0, "LinkDown")) == len(diary.told(1, "LinkDown")) >= 1
    assert diary.asked(1, "RoundEnded")[-1][1]["applied"] == 5


@pytest.mark.fault("flipped bit")
def test_damaged_updates_are_refused_counted_and_harmless() -> None:
    damage = {"at": 2.5, "kind": "corrupt", "peers": 4, "share": 0.7}
    outcome = run_events(world(damage))
    refused = sum(sum(reasons.values()) for peer, reasons in enumerate(outcome.rejected) if peer != 4)
    assert refused > 10 and all(outcome.finished)
    assert np.abs(outcome.parameters).max() < 100


@pytest.mark.fault("loss")
@pytest.mark.parametrize("mode", ["rounds", "async"])
def test_loss_duplicates_and_reordering_cost_little_accuracy(mode: str) -> None:
    """FAULTS 50: 30 % loss, 10 % duplicates, reordering; within 5 % of the clean run at equal steps."""
    settings = {
        "mode": mode,
        "rounds": 12,
        "period_s": 1.0,
        "step_s": 0.05,
        "latency": 0.05,
        "ceiling_s": 2,
        "partition": "iid",
    }
    clean = run_events(world(**settings))
    rough = run_events(world(**settings, loss=0.3, duplicate=0.1, reorder=0.1))
    assert all(rough.finished)
    assert rough.accuracy[-1].mean() > clean.accuracy[-1].mean() - 0.05


@pytest.mark.fault("slow links")
def test_a_slow_and_jittery_link_makes_rounds_slower_and_nothing_else() -> None:
    """FAULTS 51: 2 s latency, +-1 s jitter, 64 kbit/s. An update of 2.6 kB takes 0.33 s."""
    settings = {"latency": 2.0, "jitter": 1.0, "bandwidth": 8000.0, "step_s": 0.1, "topology": "ring", "gather_s": 30}
    diary = Diary(world(**settings))
    assert all(diary.outcome.finished)
    assert not [peer for peer in range(6) if diary.told(peer, "LinkDown") and diary.told(peer, "LinkDown")[0] < ROUNDS]
    assert np.isfinite(diary.outcome.accuracy).all()


def test_the_bytes_of_the_links_are_those_of_their_senders() -> None:
    """Lost ones among them; and one good-bye to each neighbor, after the last row of what peers have sent."""
    outcome = run_events(world(loss=0.2))
    sent = np.zeros(6)
    for (sender, _), size in outcome.link_bytes.items():
        sent[sender] += size
    assert np.array_equal(sent - outcome.bytes_sent[-1], [5 * len(wire.encode(wire.Bye(ROUNDS)))] * 6)


# ---- the same run, and what is refused ----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_storm_byte_for_byte() -> None:
    faults = [
        {"at": 2.5, "kind": "crash", "peers": 1, "heal": 5.5},
        {"at": 3.5, "kind": "partition", "groups": ["0-2"], "heal": 6.5},
        {"at": 4.5, "kind": "corrupt", "peers": 4},
    ]
    churn = {"rate": 0.2, "mean_session_s": 4}
    rough = {"rounds": 7, "ceiling_s": 2, "loss": 0.1, "duplicate": 0.1, "reorder": 0.1, "jitter": 0.005, "churn": churn}
    first, again = (Diary(world(*faults, **rough)) for _ in range(2))
    assert first.lines == again.lines
    assert np.array_equal(first.outcome.parameters, again.outcome.parameters)
    assert first.lines != Diary(world(*faults, **rough, seed=8)).lines


def test_churn_takes_peers_away_and_brings_them_back() -> None:
    """About a third of 16 peers is away at any moment; whoever is away has no row, and all learn when they are there."""
    churn = {"rate": 0.3, "mean_session_s": 6.0}
    settings = {"peers": 16, "rounds": 12, "topology": "random_regular:4", "samples_per_peer": 32, "gather_s": 0.5}
    outcome = run_events(world(churn=churn, ceiling_s=2, **settings))
    assert 1 - outcome.up.mean() == pytest.approx(0.3, abs=0.15)
    assert not np.isfinite(outcome.accuracy[1:]).all()
    last = np.array([column[np.isfinite(column)][-1] for column in outcome.accuracy.T])
    assert last.mean() > 1.5 * np.nanmean(outcome.accuracy[0])


def test_the_record_of_a_run_shows_faults_and_who_stopped() -> None:
    record = run(small({"at": 3.5, "kind": "crash", "peers": 1})).record
    assert [mark.text for mark in record.marks] == ["crash 1"]
    assert [peer.state for peer in record.peers] == ["done", "stopped", "done", "done", "done", "done"]
    assert np.isfinite([peer.accuracy for peer in record.peers]).all()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"at": 500, "kind": "crash", "peers": 1}, "at = 500 is after the end"),
        ({"at": -1, "kind": "crash", "peers": 1}, "fault.1.at"),
        ({"at": 1, "kind": "crsh", "peers": 1}, "fault.1.kind"),
        ({"at": 1, "kind": "crash", "peer": 1}, "fault.1.peer: unknown key, did you mean 'peers'"),
        ({"at": 1, "kind": "crash"}, "crash needs peers"),
        ({"at": 1, "kind": "crash", "peers": 6}, "there is no peer 6. Peers are 0 to 5"),
        ({"at": 1, "kind": "crash", "peers": "4-2"}, "no range"),
        ({"at": 2, "kind": "crash", "peers": 1, "heal": 1}, "before it begins"),
        ({"at": 1, "kind": "restart", "peers": 1, "heal": 3}, "leave out heal"),
        ({"at": 1, "kind": "pause", "peers": 1}, "pause needs heal"),
        ({"at": 1, "kind": "partition", "groups": ["0-3", "3-5"]}, "the groups overlap: peer 3 is in two"),
        ({"at": 1, "kind": "partition", "groups": ["0-5"]}, "all peers are in one group"),
        ({"at": 1, "kind": "partition", "groups": []}, "at least one peer"),
        ({"at": 1, "kind": "cut", "groups": [0]}, "two groups"),
        ({"at": 1, "kind": "hostile", "peers": 1}, "give both or neither"),
        ({"at": 1, "kind": "hostile", "peers": 1, "attack": "sign_flop"}, "no attack 'sign_flop'"),
        ({"at": 1, "kind": "slow", "peers": 1, "factor": 0}, "fault.1.factor"),
    ],
)
def test_a_fault_that_cannot_be_is_one_line_before_anything_runs(fault: dict[str, Any], says: str) -> None:
    with pytest.raises(Failure) as refusal:
        world(fault)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_several_wrong_faults_are_named_at_once() -> None:
    with pytest.raises(Failure) as refusal:
        world({"at": -1, "kind": "crash", "peers": 1}, {"at": 1, "kind": "crash", "peers": 1, "haul": 2})
    assert "fault.1.at" in refusal.value.message and "'heal'" in refusal.value.message
