"""Runs a scenario on one of the engines, which agree where both can run it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.learning.codec import CODECS
from p2pfl.learning.minibatch import steps_per_round
from p2pfl.learning.parameters import Model
from p2pfl.report.record import Float, Mark, PeerRecord, RunRecord
from sim.accounting import is_real
from sim.batch import BatchOutcome, run_batch
from sim.checkpoint import Checkpoint
from sim.events import EventsOutcome, run_events
from sim.link_bytes import LinkBytes, edges_of
from sim.masks import FAULTS, Masks, masks_of
from sim.memory import check_models, free_bytes
from sim.merging import Pushes
from sim.mixing import Rows
from sim.result import Result
from sim.scenario import Scenario
from sim.trace import header
from sim.traffic import traffic, update_counts
from sim.world import OnRound, OnTrace, World, task_of, world_of
from topology import Schedule

EngineName = Literal["events", "batch"]

EVENTS_PEERS_MAX = 200  # above this `auto` prefers the batched engine, where that can run the scenario
IMPERFECT = 2_000, "with churn, faults and losses by whole rounds"  # the same, where the engines differ in when it happens

LARGE = 10_000  # from here on it is worth asking whether the models fit into memory before a world is made

CHECKPOINT_EVERY = 10


@dataclass(frozen=True, slots=True)
class Engine:
    """Which engine runs a scenario, and why."""

    name: EngineName
    why: str


def run(
    scenario: Scenario,
    engine: Literal["auto", "events", "batch"] | None = None,
    *,
    on_note: Callable[[str], None] | None = None,
    on_round: OnRound | None = None,
    on_trace: OnTrace | None = None,
    device: str = "cpu",
    resume: Path | None = None,
    checkpoint_every: int = CHECKPOINT_EVERY,
) -> Result:
    """Run it to its end. `engine` overrides the scenario's own. `device` is where the batched engine computes; in the folder
    `resume` it keeps its state every `checkpoint_every` rounds, and goes on from what is there.

    Whatever can't be is a `Failure` before anything runs. `on_note` hears in a line which engine was chosen and what
    begins, `on_round` of every row of the accuracy that is measured, `on_trace` of every event (event engine only).
    """
    if device == "cpu":
        check_size(scenario)
    world = world_of(scenario)
    chosen = choose(world, engine or scenario.engine, is_traced=on_trace is not None)
    note = on_note or (lambda line: None)
    note(f"engine {chosen.name}: {chosen.why}")
    if chosen.name == "events":
        _say_what_slows(world, note)
    if chosen.name == "events" and (resume is not None or device != "cpu"):
        key = "device" if resume is None else "resume"
        raise Failure("bad_configuration", f"{key}: the event engine has none.", "Use the engine batch.")
    batched = _Batched(world, scenario.model_dump_json(), device, resume, checkpoint_every, note)
    if on_trace is not None:
        on_trace(header(scenario))
    began = perf_counter()
    with one_thread():
        ran = _batch(batched, on_round) if chosen.name == "batch" else _events(world, on_round, on_trace)
        alone = np.empty((0, world.peers))
        if scenario.output.alone:
            note("the same without gossip, to compare")
            alone = _alone(batched, masks_of(world) if chosen.name == "batch" else Masks())
    return Result(ran.parameters, _record(scenario, world, chosen, ran, alone, perf_counter() - began), ran.events)


def check_size(scenario: Scenario) -> None:
    """A `Failure` where so many models can't fit into memory, told before their data and graph are made."""
    if scenario.peers > LARGE:
        free = free_bytes(torch.device("cpu"))
        check_models(Model(task_of(scenario), scenario.seed), scenario.peers, scenario.rounds, scenario.training, free)


def _say_what_slows(world: World, note: Callable[[str], None]) -> None:
    """A scenario that can be run, and in which next to nothing happens."""
    gather_s, session_s = world.gossip.gather_s, world.churn.mean_session_s
    if world.gossip.mode == "rounds" and world.churn.trace is None and not world.churn.is_calm and gather_s > session_s:
        note(
            f"gossip.gather_s = {gather_s:g}: so long whoever comes back waits for neighbors who may be away themselves, and a "
            f"session lasts {session_s:g} s. Peers will seldom end a round: try gossip.gather_s=0.5"
        )


def choose(world: World, asked: str, is_traced: bool = False) -> Engine:
    """The engine to run; a `Failure` where the one that was asked for can't run this world."""
    obstacle = _batch_obstacle(world, is_traced)
    match asked:
        case "events":
            return Engine("events", "as asked")
        case "batch":
            if obstacle is not None:
                raise Failure("bad_configuration", f"engine: the batched engine {obstacle}.", "Use the engine events.")
            return Engine("batch", "as asked")
        case "auto":
            if obstacle is not None:
                return Engine("events", f"the batched engine {obstacle}")
            is_perfect = world.churn.is_calm and not world.faults and world.network.loss == 0
            most, network = (EVENTS_PEERS_MAX, "on a network without delay or loss") if is_perfect else IMPERFECT
            if world.peers > most:
                return Engine("batch", f"{world.peers} peers, over {most}, {network}")
            return Engine("events", f"{world.peers} peers, at most {most}")
        case _:
            raise Failure("bad_configuration", f"engine: there is no engine {asked!r}.", "There are auto, events and batch.")


def _batch_obstacle(world: World, is_traced: bool) -> str | None:
    obstacles = {
        "sends nothing that network.latency could delay": world.network.latency != 0,
        f"knows no faults but {', '.join(FAULTS)}": any(fault.kind not in FAULTS for fault in world.faults),
        "sends nothing that network.bandwidth, duplicate or reorder could touch": world.network.bandwidth is not None
        or world.network.duplicate > 0
        or world.network.reorder > 0,
        "has no memberships, which an overlay follows": world.overlay is not None,
        "has no events to trace": is_traced,
    }
    return next((obstacle for obstacle, holds in obstacles.items() if holds), None)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch's own. Few peers are computed at a time: with two, waking them took longer than the work (6 times
    longer for examples/ring.toml on a busy machine of two cores); the batched engine divides many among threads of its own.
    The live trainer has one as well, and the same run gives the same bytes on any number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class _Ran:
    """What both engines leave behind. Arrays over [rounds + 1, peers], but for `parameters`, `consensus_distance` and
    `link_bytes`, [edges]."""

    parameters: NDArray[np.float32]
    accuracy: Float
    loss: Float
    consensus_distance: Float
    bytes_sent: Float
    bytes_received: Float
    link_bytes: Float
    updates_sent: Sequence[int]
    updates_applied: Sequence[int]
    rejected: Sequence[Mapping[str, int]]
    abstracts: str
    marks: tuple[Mark, ...] = ()
    up: NDArray[np.bool_] = field(default_factory=lambda: np.empty((0, 0), dtype=np.bool_))
    events: int = 0
    finished: Sequence[bool] | None = None  # None is everybody


def _events(world: World, on_round: OnRound | None, on_trace: OnTrace | None) -> _Ran:
    outcome = run_events(world, on_round, on_trace)
    by_link = LinkBytes(world.graph)
    by_link.add_pairs(outcome.link_bytes)
    network = world.network
    return _Ran(
        parameters=outcome.parameters,
        accuracy=outcome.accuracy,
        loss=outcome.loss,
        consensus_distance=outcome.consensus_distance,
        bytes_sent=outcome.bytes_sent,
        bytes_received=outcome.bytes_received,
        link_bytes=by_link.total,
        updates_sent=outcome.updates_sent,
        updates_applied=outcome.updates_applied,
        rejected=outcome.rejected,
        abstracts=f"The peers are real and their messages {_crypto(world)}; the network is not: a message takes "
        f"{_seconds(network.latency)} and is lost with probability {network.loss:g}, and a local step takes "
        f"{_seconds(world.compute.step_s if world.compute.step_s is not None else world.step_s.median)}. "
        f"{outcome.events:,} events in {outcome.virtual_s:.3g} s of virtual time." + outcome.awareness + _fallback(outcome),
        marks=outcome.marks,
        up=outcome.up,
        events=outcome.events,
        finished=outcome.finished,
    )


def _crypto(world: World) -> str:
    if is_real(world.network.crypto, world.peers):
        return "signed and sealed"
    return "of the size that signing and sealing give them, without the arithmetic"


def _seconds(given: float | str) -> str:
    return given if isinstance(given, str) else f"{given:.3g} s"


@dataclass(frozen=True, slots=True)
class _Batched:
    """How the batched engine runs a world."""

    world: World
    settings: str
    device: str
    folder: Path | None
    checkpoint_every: int
    note: Callable[[str], None]

    def run(
        self, name: str, weights: Rows | Schedule | Pushes | None, masks: Masks, on_round: OnRound | None = None
    ) -> BatchOutcome:
        world = self.world
        file = None if self.folder is None else self.folder / f"{name}.safetensors"
        return run_batch(
            world.task,
            world.peers,
            world.training,
            world.codec,
            world.limits,
            weights,
            world.rounds,
            world.seed,
            world.evaluate_every,
            None if on_round is None else lambda row, accuracy, loss, distance: on_round(row, accuracy),
            masks=masks,
            evaluated=world.evaluated,
            age_cap=world.gossip.age_cap,
            device=self.device,
            checkpoint=None if file is None else Checkpoint(file, self.checkpoint_every, self.settings),
            on_note=self.note,
        )


def _batch(batched: _Batched, on_round: OnRound | None) -> _Ran:
    world, masks = batched.world, masks_of(batched.world)
    weights = world.schedule or world.weights
    pushes = Pushes(weights, world.peers, masks, world.seed) if world.gossip.mode == "async" else None
    outcome = batched.run("together", pushes or weights, masks, on_round)
    steps = np.array([steps_per_round(world.training, int(samples)) for samples in world.samples])
    update_bytes = CODECS[world.codec.kind]().payload_bytes(outcome.parameters.shape[1])
    counted = traffic(world, update_bytes, steps, masks)
    updates_sent, updates_applied = update_counts(world, masks)
    missing = "" if masks.is_empty else " Peers come and go, and messages are lost, by whole rounds."
    periods = "" if pushes is None else " All periods begin together and are equally long."
    return _Ran(
        parameters=outcome.parameters,
        accuracy=outcome.accuracy,
        loss=outcome.loss,
        consensus_distance=outcome.consensus_distance,
        bytes_sent=counted.sent,
        bytes_received=counted.received,
        link_bytes=counted.link_bytes,
        updates_sent=updates_sent,
        updates_applied=updates_applied,
        rejected=[{}] * world.peers,
        abstracts="All peers are computed as one array and nothing is sent: no message is late, and bytes are those "
        "that the messages would have." + periods + missing + _fallback(outcome),
        marks=_marks(world),
        up=np.empty((0, 0), dtype=np.bool_) if masks.away is None else ~masks.away,
    )


def _marks(world: World) -> tuple[Mark, ...]:
    """When faults begin and end, in rounds."""
    found = [(fault.at, fault.text) for fault in world.faults]
    found += [(fault.heal, f"end of {fault.text}") for fault in world.faults if fault.heal is not None]
    return tuple(Mark(time / world.round_s if world.round_s else 0.0, text) for time, text in sorted(found))


def _alone(batched: _Batched, masks: Masks) -> Float:
    """Accuracy without gossip; nothing where that diverges, which is no reason to lose what was learned together."""
    try:
        return batched.run("alone", None, masks).accuracy
    except Failure as failure:
        if failure.code != "diverged":
            raise
        return np.empty((0, batched.world.peers))


def _fallback(outcome: BatchOutcome | EventsOutcome) -> str:
    reason = outcome.fallback_reason
    return f" Peers were computed one by one, because vmap can't run this task: {reason}." if reason else ""


def _record(scenario: Scenario, world: World, engine: Engine, ran: _Ran, alone: Float, seconds: float) -> RunRecord:
    peers = tuple(
        PeerRecord(
            name=world.names[i],
            state="done" if ran.finished is None or ran.finished[i] else "stopped",
            accuracy=_last(ran.accuracy[:, i]),
            loss=_last(ran.loss[:, i]),
            samples=int(world.samples[i]),
            bytes_sent=int(ran.bytes_sent[-1, i]),
            bytes_received=int(ran.bytes_received[-1, i]),
            updates_sent=int(ran.updates_sent[i]),
            updates_applied=int(ran.updates_applied[i]),
            rejected=dict(ran.rejected[i]),
        )
        for i in range(world.peers)
    )
    return RunRecord(
        title=scenario.title,
        engine=engine.name,
        abstracts=ran.abstracts + _sampled(world),
        seed=world.seed,
        settings={**scenario.model_dump(mode="json"), "engine": engine.name},
        seconds=seconds,
        peers=peers,
        edges=edges_of(world.graph),
        directed=world.graph.is_directed(),
        accuracy=ran.accuracy,
        loss=ran.loss,
        alone_accuracy=alone,
        consensus_distance=ran.consensus_distance,
        bytes_sent=ran.bytes_sent,
        labels=tuple(world.task.labels),
        label_counts=world.label_counts,
        marks=ran.marks,
        up=ran.up,
        link_bytes=ran.link_bytes if _keeps_its_links(world) else np.empty(0),
    )


def _keeps_its_links(world: World) -> bool:
    """Whether the graph has all links that anything is ever sent over."""
    return world.overlay is None and (world.schedule is None or world.schedule.period is not None)


def _sampled(world: World) -> str:
    count = int(world.evaluated.sum())
    return "" if count == world.peers else f" Accuracy and loss are those of {count} of the {world.peers:,} peers."


def _last(column: Float) -> float:
    """Of the last row that was measured; NaN where none was."""
    measured = column[~np.isnan(column)]
    return float(measured[-1]) if len(measured) else float("nan")
