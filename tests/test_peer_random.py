"""Seeds draw graphs, faults and restarts; checkers look on after every event, and everybody must end once the faults stop.

A failure prints its seed; `run(seed)` repeats it.
"""

import heapq
import math
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from p2pfl.protocol import wire
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import (
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Fold,
    Folded,
    FoldsLost,
    FrameReceived,
    Learn,
    LinkDown,
    LinkUp,
    Open,
    Opened,
    PeerId,
    Persist,
    Rejected,
    RoundEnded,
    Seal,
    Sealed,
    Send,
    Started,
    StopRequested,
)
from p2pfl.protocol.peer import State
from tests.ring import Ring

FAULTS_UNTIL_S = 12.0
SEEDS, BATCH = 120, 20


class Storm(Ring):
    """A ring (or another graph) on an agenda: messages take time, get lost, doubled and overtaken; peers die and come back."""

    def __init__(self, seed: int) -> None:
        draw = self.draw = Random(seed)
        n = draw.randint(3, 8)
        mode = draw.choice(["rounds", "rounds", "rounds", "async"])
        rules = GossipRules(
            mode=mode, rounds=6, floor_s=0.2, ceiling_s=3.0, gather_s=4.0, period_s=0.5, checkpoint_s=draw.choice([0.01, 1.0])
        )
        is_chunked = seed % 15 == 0
        self.mode = mode
        self.agenda: list[tuple[float, int, int, Callable[[], None]]] = []
        self.count = 0
        self.dead: set[int] = set()
        self.dialled: set[tuple[int, int]] = set()
        self.disks: dict[int, tuple[bytes, float]] = {}
        self.busy: dict[int, float] = {}
        self.learners: Counter[int] = Counter()
        self.speed = [draw.choice([0.01, 0.05, 0.3]) for _ in range(n)]
        self.loss, self.doubling = draw.choice([(0.0, 0.0), (0.1, 0.1), (0.3, 0.2)])
        self.delay = draw.choice([0.0, 0.01, 0.2])
        self.delivered: Counter[tuple[int, int]] = Counter()  # offers, to the receiver's present life
        self.refused_early: Counter[tuple[int, int]] = Counter()
        self.offered: Counter[tuple[int, int]] = Counter()  # by the sender's present life
        self.numbers: set[tuple[PeerId, int, int, PeerId]] = set()
        self.windows: dict[int, dict[bytes, tuple[int, int]]] = {}
        self.saw: Counter[str] = Counter()
        self.wakes_in_vain: Counter[tuple[int, float]] = Counter()
        super().__init__(
            n if not is_chunked else 3,
            rules if not is_chunked else replace(rules, rounds=3),
            gain=0.1,
            padding=1_100_000 if is_chunked else draw.choice([0, 0, 0, 70_000]),
            values=[float(k) for k in range(n)],
            edges=draw.choice([ring_edges, complete_edges, exponential_edges, star_edges])(n if not is_chunked else 3),
            seed=seed,
            folds=mode == "rounds" and seed % 3 == 0,
            room=2 if seed % 6 == 0 else None,
        )

    # ---- the world --------------------------------------------------------------------------------------------------

    def at(self, delay: float, action: Callable[[], None], priority: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.agenda, (self.time + delay, priority, self.count, action))

    def event(self, k: int, event: Event, delay: float) -> None:
        """Tell it to this life of the peer, later; another life is not told."""
        peer = self[k].peer
        self.at(delay, lambda: None if self[k].peer is not peer or k in self.dead else self.tell(k, event))

    def tell(self, k: int, event: Event) -> list[Effect]:
        self.saw[type(event).__name__] += 1
        effects = super().tell(k, event)
        self.saw.update(type(effect).__name__ for effect in effects)
        self.check(k, event, effects)
        deadline = self[k].peer.deadline
        if deadline is not None:
            peer = self[k].peer
            self.at(max(0.0, deadline - self.time), lambda: self.wake(k, peer, deadline))
        return effects

    def wake(self, k: int, peer: object, deadline: float) -> None:
        if self[k].peer is peer and k not in self.dead and self[k].peer.deadline == deadline:
            self.wakes_in_vain[k, self.time] += 1
            assert self.wakes_in_vain[k, self.time] < 50, "a deadline that never passes"
            self.tell(k, DeadlineReached())

    def _carry_out(self, k: int, effect: Effect) -> None:
        match effect:
            case Dial(peer):
                self.dialled.add((k, self.ids.index(peer)))
                self.link(k, self.ids.index(peer))
            case Send(to, frames):
                self.send(k, self.ids.index(to), tuple(bytes(frame) for frame in frames))
            case Seal() | Open():
                super()._carry_out(k, effect)
                answer = self[k].inbox.pop()
                assert isinstance(answer, Sealed | Opened)
                self.busy[k] = max(self.busy.get(k, 0.0), self.time + self.draw.uniform(0.0, 0.02))  # one at a time
                self.event(k, answer, self.busy[k] - self.time)
            case Fold():
                super()._carry_out(k, effect)
                answer = self[k].inbox.pop()
                assert isinstance(answer, Folded)
                self.busy[k] = max(self.busy.get(k, 0.0), self.time + self.draw.uniform(0.0, 0.02))
                self.fold_ends(k, answer, self.busy[k] - self.time)
            case Learn():
                peer = self[k].peer
                took = self.speed[k] * self.draw.uniform(0.5, 2.0)
                self.at(took, lambda: self.learn_now(k, peer), priority=1)
            case Persist(_, state):
                self.disks[k] = state, self[k].value
            case _:
                super()._carry_out(k, effect)

    def fold_ends(self, k: int, answer: Folded, delay: float) -> None:
        """With the answer, or with the end of the learner, which takes all answers that are due later with it."""
        peer, life = self[k].peer, self.learners[k]
        is_over = self.time < FAULTS_UNTIL_S and self.draw.random() < 0.05

        def end() -> None:
            if self[k].peer is peer and k not in self.dead and self.learners[k] == life:
                self.learners[k] += is_over
                self.tell(k, FoldsLost("ended by the test") if is_over else answer)

        self.at(delay, end)

    def learn_now(self, k: int, peer: object) -> None:
        if self[k].peer is peer and k not in self.dead:
            self[k].is_learner_broken = self.time < FAULTS_UNTIL_S and self.draw.random() < 0.05
            self.learn(k)

    def send(self, k: int, j: int, frames: tuple[bytes, ...]) -> None:
        message = wire.decode(frames[0])
        if isinstance(message, wire.Offer):
            header = wire.decode_header(message.header)
            self.offered[k, j] += 1
            number = header.signer, header.boot_epoch, header.seq, self.ids[j]
            assert number not in self.numbers, "a sequence number was used twice"
            self.numbers.add(number)
        is_faulty = self.time < FAULTS_UNTIL_S
        for _ in range(2 if is_faulty and self.draw.random() < self.doubling else 1):
            if self.is_cut(k, j) or (is_faulty and self.draw.random() < self.loss):
                continue
            delay = self.delay * (self.draw.uniform(0.5, 3.0) if is_faulty else 1.0)
            self.at(delay, lambda: self.deliver(k, j, frames))

    def deliver(self, k: int, j: int, frames: tuple[bytes, ...]) -> None:
        if j not in self.dead:
            self.tell(j, FrameReceived(self.ids[k], frames))

    def is_cut(self, k: int, j: int) -> bool:
        return (self.ids[k], self.ids[j]) in self.cut or k in self.dead or j in self.dead

    def link(self, k: int, j: int) -> None:
        if (k, j) in self.dialled and k not in self.dead and not self.is_cut(k, j):
            self.event(k, LinkUp(self.ids[j]), self.draw.uniform(0.0, 0.2))

    # ---- faults -----------------------------------------------------------------------------------------------------

    def plan_faults(self) -> None:
        for _ in range(self.draw.randint(0, 6)):
            k, j = self.draw.sample(range(len(self.stages)), 2)
            begin = self.draw.uniform(0.0, FAULTS_UNTIL_S * 0.8)
            end = self.draw.uniform(begin, FAULTS_UNTIL_S)
            if self.draw.random() < 0.5:
                self.at(begin, lambda k=k: self.die(k))
                self.at(end, lambda k=k: self.revive(k))
            else:
                self.at(begin, lambda k=k, j=j: self.sever(k, j))
                self.at(end, lambda k=k, j=j: self.mend(k, j))

    def die(self, k: int) -> None:
        if k in self.dead:
            return
        self.dead.add(k)
        self[k].inbox.clear()
        for i, j in self.dialled:
            if j == k and i not in self.dead:
                self.event(i, LinkDown(self.ids[k]), self.draw.uniform(0.0, 0.3))

    def revive(self, k: int) -> None:
        if k not in self.dead:
            return
        self.dead.discard(k)
        old = self[k]
        state, value = self.disks.get(k, (None, float(k)))
        peer = self._peer(k, old.identity, boot=old.boot + 1, restored=state)
        self.stages[k] = replace(
            old,
            peer=peer,
            value=value,
            boot=old.boot + 1,
            log=[],
            inbox=deque(),
            learning=None,
            sum=None,
            summed=[],
            _opening={},
            _lent={},
            _sealing={},
        )
        for pair in [*self.delivered, *self.refused_early]:
            if pair[1] == k:
                self.delivered[pair] = self.refused_early[pair] = 0
        for pair in list(self.offered):
            if pair[0] == k:
                self.offered[pair] = 0
        self.windows.pop(k, None)
        self.dialled = {(i, j) for i, j in self.dialled if i != k}
        self.event(k, Started(), 0.0)
        for i, j in sorted(self.dialled):
            if j == k:
                self.link(i, k)

    def sever(self, k: int, j: int) -> None:
        self.cut.add((self.ids[k], self.ids[j]))
        if (k, j) in self.dialled and k not in self.dead:
            self.event(k, LinkDown(self.ids[j]), self.draw.uniform(0.0, 0.3))

    def mend(self, k: int, j: int) -> None:
        self.cut.discard((self.ids[k], self.ids[j]))
        self.link(k, j)

    # ---- what must always hold ----------------------------------------------------------------------------------------

    def check(self, k: int, event: Event, effects: list[Effect]) -> None:
        stage, peer = self[k], self[k].peer
        assert math.isfinite(stage.value)
        held = Counter(update.sender for update in peer.inbox.slots)
        assert all(count <= 2 for count in held.values())
        assert peer.deadline is None or peer.deadline >= self.time
        is_busy = bool(stage._sealing) or (peer._folding is not None and peer._folding.is_under_way)
        assert peer.state is not State.WAITING or peer.deadline is not None or is_busy, "nothing would ever wake it"
        assert peer.state is not State.LEARNING or stage.learning is not None
        if peer.state is State.WAITING and self.mode == "rounds":
            wait = peer._wait
            assert wait._awaited == {one for one, neighbor in wait._named.items() if wait._is_awaited(one, neighbor)}, (
                "a change of a neighbor was missed"
            )
        for ended in effects:
            if isinstance(ended, RoundEnded) and self.mode == "rounds":
                # The first wait is for neighbors who are still starting; sealing may add a little to any.
                assert ended.waited_s <= (4.0 if len(stage.of(Learn)) <= 2 else 3.0) + 0.1
        window = {signer: (epoch, highest) for signer, (epoch, highest, _) in peer._window.to_plain().items()}
        assert all(window[signer] >= seen for signer, seen in self.windows.get(k, {}).items())
        self.windows[k] = window
        if isinstance(event, FrameReceived) and peer.state is not State.FINISHED:
            self.count_offer(self.ids.index(event.hop), k, event, effects)
        learn_senders = Counter(update.sender for update in stage.learning.mixes) if stage.learning else Counter()
        for i in range(len(self.stages)):
            counts = peer.ledger.of(self.ids[i])
            known = counts.applied + counts.rejected + counts.superseded + counts.lost
            known += held[self.ids[i]] + learn_senders[self.ids[i]] + self.refused_early[i, k]
            assert self.delivered[i, k] == known, "an update is unaccounted for"
            assert self.offered[k, i] == counts.sent

    def count_offer(self, i: int, k: int, event: FrameReceived, effects: list[Effect]) -> None:
        """An offer was delivered. If it was refused before its signature was checked, it is in no pair's books."""
        try:
            message, _ = wire.read(event.frames)
        except RejectedFrame:
            return
        if isinstance(message, wire.Offer):
            self.delivered[i, k] += 1
            early = {"future_step", "not_neighbor", "replayed", "wrong_net", "wrong_charter", "bad_schema", "hop_mismatch"}
            self.refused_early[i, k] += sum(isinstance(e, Rejected) and e.reason.value in early for e in effects)

    # ---- a run ------------------------------------------------------------------------------------------------------

    def weather(self) -> None:
        """From the start to the end of everything, with a bound on virtual time."""
        for k in range(len(self.stages)):
            self.event(k, Started(), self.draw.uniform(0.0, 1.0))
        self.plan_faults()
        stopped = self.draw.randrange(len(self.stages)) if self.draw.random() < 0.2 else None
        if stopped is not None:
            self.at(self.draw.uniform(0.0, 5.0), lambda: None if stopped in self.dead else self.tell(stopped, StopRequested()))
        bound = FAULTS_UNTIL_S + 4.0 + 8 * (3.0 + 2.0)
        while self.agenda and self.time <= bound:
            self.time, _, _, action = heapq.heappop(self.agenda)
            action()
        assert all(stage.peer.state is State.FINISHED for stage in self), f"not done after {self.time} s"


def ring_edges(n: int) -> set[tuple[int, int]]:
    return {(k, (k + d) % n) for k in range(n) for d in (1, -1)}


def complete_edges(n: int) -> set[tuple[int, int]]:
    return {(i, j) for i in range(n) for j in range(n) if i != j}


def exponential_edges(n: int) -> set[tuple[int, int]]:
    return {(i, (i + hop) % n) for i in range(n) for hop in (1, 2, 4) if hop % n}


def star_edges(n: int) -> set[tuple[int, int]]:
    return {(0, k) for k in range(1, n)} | {(k, 0) for k in range(1, n)}


def run(seed: int) -> Storm:
    storm = Storm(seed)
    storm.weather()
    return storm


SOMETIMES = "Learned LearnFailed Fold Folded FoldsLost LinkUp LinkDown StopRequested Abandon Rejected Persist Release Finished"


@pytest.mark.fault("everything")
@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_happens_the_books_balance_and_everybody_ends(first: int) -> None:
    saw: Counter[str] = Counter()
    for seed in range(first, first + BATCH):
        try:
            storm = run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        saw += storm.saw
        for stage in storm:
            counts = stage.peer.ledger.pairs.values()
            saw["superseded"] += sum(pair.superseded for pair in counts)
            saw["lost"] += sum(pair.lost for pair in counts)
            saw["restarted"] += stage.boot > 1
    assert not [kind for kind in (*SOMETIMES.split(), "superseded", "restarted") if not saw[kind]]
