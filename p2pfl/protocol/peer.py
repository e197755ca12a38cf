"""One peer: events in, effects out. No socket, clock, thread or random number generator of its own.

    started ──> learning ──Learned──> waiting ──all here, or deadline──> learning ──> ... ──last Learned──> parting ──> finished
                                         (async: waits for its next period instead)

*Rounds*: train, offer the update to this round's neighbors, wait for theirs, mix. *Async*: every period merge by age what has
come, train, push to one random neighbor. There is no barrier and nobody to ask: a neighbor who is gone, late or hostile costs
at most one adaptive deadline, and its weight goes to the peer itself.
"""

from collections.abc import Mapping, Sized
from enum import Enum, auto
from itertools import count
from typing import assert_never

import msgpack

from p2pfl.protocol import wire
from p2pfl.protocol.charter import Charter
from p2pfl.protocol.envelope import Signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import (
    Arrived,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    Opened,
    PeerId,
    Persist,
    Rejected,
    Release,
    RoundEnded,
    Sealed,
    Send,
    Started,
    StopRequested,
)
from p2pfl.protocol.inbox import Inbox
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.neighbors import Neighbors
from p2pfl.protocol.outbox import Boot, Outbox
from p2pfl.protocol.randomness import Choices, Entropy
from p2pfl.protocol.round import Plan, Waits, age_weights
from p2pfl.protocol.window import ReplayWindow


class State(Enum):
    """What the peer is doing. `PARTING`: its rounds are done, but neighbors may still need its last update."""

    IDLE = auto()
    LEARNING = auto()
    WAITING = auto()
    PARTING = auto()
    FINISHED = auto()


class Peer:
    """The state machine. `handle` is the only door; `deadline` is the next monotonic moment it wants `DeadlineReached`."""

    def __init__(
        self,
        own: PeerId,
        signer: Signer,
        charter: Charter,
        plan: Plan,
        local_steps: int,
        samples: int,
        boot: Boot,
        choices: Choices,
        entropy: Entropy,
        restored: bytes | None = None,
        evaluate_every: int = 1,
    ) -> None:
        """`restored` is the newest `Persist.state` of an earlier life; the learner must have been restored with it.
        `evaluate_every` is how many rounds lie between evaluations; the first and the last are always evaluated."""
        self.own = own
        self.deadline: float | None = None
        self.ledger = Ledger()
        self.state = State.IDLE
        self.step = 0  # of the Learn under way or last delivered
        self.age = 0  # local steps that this model has seen, or merged
        self._charter = charter
        self._rules = charter.gossip
        self._plan = plan
        self._local_steps = local_steps
        self._boot = boot
        self._evaluate_every = evaluate_every
        self._choices = choices
        self._window = ReplayWindow()
        self._is_resumed = restored is not None
        self._learned_step = 0
        self._learn: Learn | None = None
        self._failures = 0
        self._wait_began = 0.0
        self._waited = 0.0
        self._mixed_age = 0
        self._persisted_at: float | None = None
        if restored is not None:
            self._restore(restored)
        self.inbox = Inbox(own, signer, charter, self._window, self.ledger)
        self.inbox.slots.advance(self.step)
        self._outbox = Outbox(own, samples, signer, charter, boot, entropy)
        self._tickets = count(1)
        self._waits = Waits(self._rules)
        self._neighbors = Neighbors()
        self._is_gathering = True

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What follows from one event. Costs as much as a header, never as much as a model."""
        match event:
            case Started():
                return self._start(now)
            case LinkUp(peer):
                return self._link_up(peer, now)
            case LinkDown(peer):
                return self._link_down(peer, now)
            case FrameReceived(hop, frames):
                try:
                    return self._receive(hop, frames, now)
                except RejectedFrame as refusal:
                    return self._reject(hop, refusal)
            case Sealed():
                return self._sealed(event)
            case Opened():
                return self._opened(event, now)
            case Learned():
                return self._learned(event, now)
            case LearnFailed():
                return self._learn_failed(now)
            case DeadlineReached():
                return self._deadline_reached(now)
            case StopRequested():
                return self._stop(now)
            case _:
                assert_never(event)

    # ---- starting and learning ------------------------------------------------------------------------------------------

    def _start(self, now: Instant) -> list[Effect]:
        self._persisted_at = now.monotonic
        plan = self._plan(self.step)
        dials: list[Effect] = [Dial(peer) for peer in sorted({*plan.send_to, *plan.weights} - {self.own})]
        if self._is_last(self.step) and self._is_resumed:
            return [*dials, *self._part(now)]
        # What a restart lost is the encoded update of its last step; learning nothing makes it anew.
        local_steps = 0 if self._is_resumed else self._local_steps
        return [*dials, *self._begin_learning((), {self.own: 1.0}, local_steps, self.age)]

    def _begin_learning(
        self, arrived: tuple[Arrived, ...], weights: Mapping[PeerId, float], local_steps: int, mixed_age: int
    ) -> list[Effect]:
        self.state, self.deadline, self._mixed_age = State.LEARNING, None, mixed_age
        self._learn = Learn(
            step=self.step,
            phase=0,
            arrived=arrived,
            weights=weights,
            local_steps=0 if self._is_last(self.step) else local_steps,
            evaluate=self.step % self._evaluate_every == 0 or self._is_last(self.step),
        )
        return [self._learn]

    def _learned(self, event: Learned, now: Instant) -> list[Effect]:
        learn = self._learn
        if learn is None or event.step != learn.step:
            raise AssertionError(f"learned step {event.step}, which nobody asked for")
        self._learn, self._failures, self._learned_step = None, 0, event.step
        self.age = self._mixed_age + learn.local_steps
        effects: list[Effect] = [Release(arrived.payload) for arrived in learn.arrived]
        applied = 0
        for verdict in event.verdicts:
            if verdict.reason is None:
                applied += 1
                self.ledger.of(verdict.sender).applied += 1
            else:
                self.ledger.of(verdict.sender).rejected += 1
                self.ledger.reasons[verdict.sender, verdict.reason] += 1
                effects.append(Rejected(verdict.reason, verdict.sender))
        present = {arrived.sender for arrived in learn.arrived}
        missing = tuple(peer for peer in sorted(learn.weights) if peer != self.own and peer not in present)
        effects.append(RoundEnded(event.step, event.metrics, self._waited, applied, missing))
        if self._is_last(event.step):
            effects += [Release(outgoing.payload) for outgoing in event.outgoing]
            return effects + self._part(now)
        for part, outgoing in enumerate(event.outgoing):
            effects += self._outbox.begin(outgoing, next(self._tickets), event.step, part, self.age)
        if now.monotonic - (self._persisted_at or 0.0) >= self._rules.checkpoint_s:
            effects.append(self._persist(now))
        return effects + self._wait(now)

    def _learn_failed(self, now: Instant) -> list[Effect]:
        """The model is what it was. Go on with it, more slowly each time, so that a broken trainer can't spin."""
        learn = self._learn
        if learn is None:
            raise AssertionError("a Learn failed that nobody asked for")
        self._learn = None
        self._failures += 1
        for arrived in learn.arrived:
            self.ledger.of(arrived.sender).lost += 1
        effects: list[Effect] = [Release(arrived.payload) for arrived in learn.arrived]
        if self._is_last(learn.step):
            return effects + self._part(now)
        return effects + self._wait(now)

    # ---- waiting --------------------------------------------------------------------------------------------------------

    def _wait(self, now: Instant) -> list[Effect]:
        self.state = State.WAITING
        self._wait_began = now.monotonic
        if self._rules.mode == "async":
            jitter = self._choices.uniform(0.9, 1.1)
            self.deadline = now.monotonic + self._rules.period_s * jitter * self._slowdown
            return []
        patience = self._rules.gather_s if self._is_gathering else self._waits.patience()
        self.deadline = now.monotonic + max(patience, self._penance)
        return self._greet_the_silent() + self._end_wait_if_complete(now)

    def _greet_the_silent(self) -> list[Effect]:
        """A hello may be lost like any message; ask again those who are linked and have not answered."""
        neighbors = sorted({*self._plan(self.step).send_to, *self._plan(self.step).weights} - {self.own})
        silent = [p for p in neighbors if self._neighbors.of(p).has_link and not self._neighbors.of(p).is_ready]
        return [self._hello(peer, reply=True) for peer in silent]

    def _end_wait_if_complete(self, now: Instant) -> list[Effect]:
        if self.state is not State.WAITING or self._rules.mode == "async":
            return []
        if now.monotonic < self._wait_began + self._penance or any(map(self._is_awaited, self._plan(self.step).weights)):
            return []
        return self._mix(now)

    def _is_awaited(self, peer: PeerId) -> bool:
        """Whether this round's update of a neighbor can still come, and is not here."""
        if peer == self.own:
            return False
        neighbor = self._neighbors.of(peer)
        update = self.inbox.slots.current(peer)
        if update is not None and update.header.step == self.step:
            return update.payload is None and neighbor.is_ready
        if not neighbor.is_ready:
            return self._is_gathering and not neighbor.is_parted
        return not neighbor.is_parted and self.inbox.slots.later(peer) is None

    def _mix(self, now: Instant) -> list[Effect]:
        """The wait is over: take what is here into the next `Learn`."""
        self._is_gathering = False
        self._waited = now.monotonic - self._wait_began
        effects: list[Effect] = []
        if self._rules.mode == "rounds":
            effects += self._jump_if_left_behind()
        weights, age = self._plan(self.step).weights, self.age
        taken = self.inbox.slots.take()
        if self._rules.mode == "async":
            ages = {update.sender: update.header.age for update in taken}
            weights, age = age_weights(self.own, self.age, ages, self._rules.age_cap)
        unnamed = [update for update in taken if update.sender not in weights]
        arrived = tuple(update.arrived() for update in taken if update.sender in weights)
        self.step += 1
        for update in [*unnamed, *self.inbox.slots.advance(self.step)]:
            effects += self.inbox.let_go(update)
        return effects + self._begin_learning(arrived, weights, self._local_steps, age)

    def _jump_if_left_behind(self) -> list[Effect]:
        """A peer that was slow or away, and has nothing to mix in its own round while most neighbors are ahead, joins theirs.

        The lower median of what neighbors signed decides, so that fewer than half of them can't exile it with a lie.
        """
        senders = [peer for peer in self._plan(self.step).weights if peer != self.own]
        if any((u := self.inbox.slots.current(p)) is not None and u.header.step == self.step for p in senders):
            return []
        steps = sorted(neighbor.signed_step for p in senders if (neighbor := self._neighbors.of(p)).is_ready)
        lower_median = steps[(len(steps) - 1) // 2] if steps else -1
        if lower_median <= self.step:
            return []
        self.step = lower_median
        return [effect for stale in self.inbox.slots.advance(self.step) for effect in self.inbox.let_go(stale)]

    def _deadline_reached(self, now: Instant) -> list[Effect]:
        if self.deadline is None or now.monotonic < self.deadline:
            return []
        self.deadline = None
        match self.state:
            case State.WAITING:
                return self._mix(now)
            case State.PARTING:
                return self._finish()
            case State.IDLE | State.LEARNING | State.FINISHED:
                return []
            case _:
                assert_never(self.state)

    @property
    def _slowdown(self) -> float:
        return float(2 ** min(self._failures, 6))

    @property
    def _penance(self) -> float:
        """Seconds that failed Learns in a row cost before the next."""
        if not self._failures:
            return 0.0
        return min(max(self._rules.floor_s, 0.1) * self._slowdown, self._rules.ceiling_s)

    # ---- neighbors ------------------------------------------------------------------------------------------------------

    def _receive(self, hop: PeerId, frames: tuple[Sized, ...], now: Instant) -> list[Effect]:
        if hop not in self._charter.members:
            raise RejectedFrame(Reason.NOT_MEMBER, hop)
        message, body = wire.read(frames)
        match message:
            case wire.Hello():
                return self._hello_received(hop, message, now)
            case wire.Offer():
                return self._offered(hop, message, body, now)
            case wire.Credit():
                return self._outbox.credited(hop, message)
            case wire.Chunk():
                return self.inbox.chunk(hop, message, body)
            case wire.Bye(step):
                self._neighbors.of(hop).is_parted = True
                self._neighbors.of(hop).step = step
                return self._look_again(now)
            case _:
                assert_never(message)

    def _reject(self, hop: PeerId, refusal: RejectedFrame) -> list[Effect]:
        blame = PeerId(refusal.blame) if refusal.blame is not None else hop
        self.ledger.reasons[blame, refusal.reason] += 1
        effects: list[Effect] = [Rejected(refusal.reason, blame)]
        if refusal.reason is Reason.VERSION and self._neighbors.should_tell_version(hop):
            effects.append(self._hello(hop, reply=False))
        return effects

    def _hello(self, peer: PeerId, reply: bool) -> Send:
        charter, boot = self._charter, self._boot
        hello = wire.Hello(charter.network_id, charter.digest, boot.id, boot.epoch, self._learned_step, reply)
        return Send(peer, (wire.encode(hello),))

    def _hello_received(self, hop: PeerId, hello: wire.Hello, now: Instant) -> list[Effect]:
        if hello.network != self._charter.network_id:
            raise RejectedFrame(Reason.WRONG_NETWORK, hop)
        if hello.charter != self._charter.digest:
            raise RejectedFrame(Reason.WRONG_CHARTER, hop)
        neighbor = self._neighbors.of(hop)
        was_ready = neighbor.is_ready
        neighbor.greet(hello.boot_id, hello.step)
        effects: list[Effect] = [self._hello(hop, reply=False)] if hello.reply else []
        if not was_ready and neighbor.is_ready:
            effects += self._catch_up(hop)
        return effects + self._look_again(now)

    def _link_up(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.link_up(peer)
        effects = [self._hello(peer, reply=True), *self.inbox.credit_again(peer)]
        if self._neighbors.of(peer).is_ready:
            effects += self._catch_up(peer)
        return effects + self._look_again(now)

    def _link_down(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.of(peer).link_down()
        return self._look_again(now)

    def _catch_up(self, peer: PeerId) -> list[Effect]:
        """A neighbor became ready: offer it what it missed, or tell it that no more will come."""
        effects: list[Effect] = []
        if self._rules.mode == "rounds":
            for own in self._outbox.newest():
                if peer in (own.readers or self._plan(own.step).send_to):
                    effects += self._outbox.offer(own, (peer,), self.ledger)
        return [*effects, self._bye(peer)] if self.state is State.PARTING else effects

    def _offered(self, hop: PeerId, offer: wire.Offer, body: Sized | None, now: Instant) -> list[Effect]:
        def is_expected(sender: PeerId, step: int) -> bool:
            return sender in self._plan(step).weights

        header, effects = self.inbox.offered(hop, offer, body, is_expected)
        neighbor = self._neighbors.of(hop)
        neighbor.step = neighbor.signed_step = max(neighbor.signed_step, header.step)
        return effects + self._look_again(now)

    def _opened(self, event: Opened, now: Instant) -> list[Effect]:
        update, effects = self.inbox.opened(event)
        is_in_time = self.state is State.WAITING and not self._is_gathering
        if update is not None and is_in_time and update.header.step == self.step:
            self._waits.observe(now.monotonic - self._wait_began)
        return effects + self._look_again(now)

    def _sealed(self, event: Sealed) -> list[Effect]:
        update, effects = self._outbox.sealed(event)
        if update is None:
            return effects
        send_to = update.readers or self._plan(update.step).send_to
        ready = [peer for peer in send_to if self._neighbors.of(peer).is_ready and not self._neighbors.of(peer).is_parted]
        if self._rules.mode == "async" and ready:
            ready = [ready[self._choices.below(len(ready))]]
        return effects + self._outbox.offer(update, ready, self.ledger)

    def _look_again(self, now: Instant) -> list[Effect]:
        """Something about a neighbor changed: perhaps the wait is over, or nobody needs us any more."""
        if self.state is State.PARTING and self._everyone_parted():
            return self._finish()
        return self._end_wait_if_complete(now)

    # ---- ending ---------------------------------------------------------------------------------------------------------

    def _is_last(self, step: int) -> bool:
        return 0 < self._rules.rounds <= step

    def _part(self, now: Instant) -> list[Effect]:
        """All rounds are done. Stay reachable until the neighbors are done too, or the ceiling is over."""
        self.state = State.PARTING
        self.deadline = now.monotonic + self._rules.ceiling_s
        plan = self._plan(self.step)
        byes: list[Effect] = [self._bye(peer) for peer in plan.send_to if self._neighbors.of(peer).is_ready]
        effects = [self._persist(now), *byes]
        return effects + self._finish() if self._everyone_parted() else effects

    def _everyone_parted(self) -> bool:
        neighbors = (self._neighbors.of(peer) for peer in self._plan(self.step).send_to)
        return all(neighbor.is_parted or not neighbor.is_ready for neighbor in neighbors)

    def _bye(self, peer: PeerId) -> Send:
        # On the bulk link, so that it can't overtake the last offer.
        return Send(peer, (wire.encode(wire.Bye(self._learned_step)),), bulk=True)

    def _finish(self) -> list[Effect]:
        self.state, self.deadline = State.FINISHED, None
        return [Finished(self._learned_step)]

    def _stop(self, now: Instant) -> list[Effect]:
        if self.state is State.FINISHED:
            return []
        ready = [peer for peer in self._plan(self.step).send_to if self._neighbors.of(peer).is_ready]
        return [self._persist(now), *map(self._bye, ready), *self._finish()]

    # ---- what outlives the process --------------------------------------------------------------------------------------

    def _persist(self, now: Instant) -> Persist:
        self._persisted_at = now.monotonic
        state = {
            "epoch": self._boot.epoch,
            "step": self._learned_step,
            "age": self.age,
            "window": self._window.to_plain(),
        }
        return Persist(self._learned_step, msgpack.packb(state))

    def _restore(self, restored: bytes) -> None:
        state = msgpack.unpackb(restored, strict_map_key=False)
        self.step = self._learned_step = state["step"]
        self.age = state["age"]
        self._window = ReplayWindow.from_plain(state["window"])
