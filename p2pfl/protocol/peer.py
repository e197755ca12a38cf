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
from p2pfl.protocol.allowance import Allowance, Allowances
from p2pfl.protocol.charter import Charter, Member
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
    Payload,
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
from p2pfl.protocol.outbox import Boot, Outbox, OwnUpdate
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
        members: Mapping[PeerId, Member],
        plan: Plan,
        local_steps: int,
        samples: int,
        boot: Boot,
        choices: Choices,
        entropy: Entropy,
        restored: bytes | None = None,
        evaluate_every: int = 1,
    ) -> None:
        """`members` may change while the peer lives; who is not in it now is a stranger. `restored` is the newest
        `Persist.state` of an earlier life; the learner must have been restored with it. `evaluate_every` is how many rounds lie
        between evaluations; the first and the last are always evaluated."""
        self.own = own
        self.deadline: float | None = None
        self.ledger = Ledger()
        self.state = State.IDLE
        self.step = 0  # of the Learn under way or last delivered
        self.age = 0  # local steps that this model has seen, or merged
        self._charter = charter
        self._rules = charter.gossip
        self._members = members
        self._plan = plan
        self._local_steps = local_steps
        self._boot = boot
        self._evaluate_every = evaluate_every
        self._choices = choices
        self._window = ReplayWindow()
        self._learned_step = 0
        self._learn: Learn | None = None
        self._failures = 0
        self._wait_began = 0.0
        self._waited = 0.0
        self._mixed_age = 0
        self._persisted_at = 0.0  # monotonic; of the start, until something was persisted
        if restored is not None:
            self._restore(restored)
        self._neighbors = Neighbors()
        self._allowances = Allowances(Allowance())
        self.inbox = Inbox(own, signer, charter, self._window, self.ledger, self._neighbors)
        self.inbox.slots.advance(self.step)
        self._outbox = Outbox(own, samples, signer, charter, boot, entropy)
        self._tickets = count(1)
        self._waits = Waits(self._rules)
        self._is_gathering = True

    @property
    def neighbors(self) -> Neighbors:
        """For people and records, like the ledger: not to be changed from outside."""
        return self._neighbors

    @property
    def allowances(self) -> Allowances:
        """As `neighbors`."""
        return self._allowances

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What follows from one event. Costs as much as a header, never as much as a model."""
        if self.state is State.FINISHED:
            return self._release_the_rest(event)
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
                return self._sealed(event, now)
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
        dials: list[Effect] = [Dial(peer) for peer in self._everyone_near()]
        if self._is_last(self.step):
            return [*dials, *self._part(now)]
        # A model that was trained before a restart lacks only its encoded update; learning nothing makes it anew.
        local_steps = 0 if self.age else self._local_steps
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
        if now.monotonic - self._persisted_at >= self._rules.checkpoint_s:
            effects.append(self._persist(now))
        return effects + self._wait(now)

    def _learn_failed(self, now: Instant) -> list[Effect]:
        """The model is what it was. Go on with it, more slowly each time, so that a broken trainer can't spin."""
        self._failures += 1
        effects = self._release_arrived()
        return effects + (self._part(now) if self._is_last(self.step) else self._wait(now))

    # ---- waiting --------------------------------------------------------------------------------------------------------

    def _wait(self, now: Instant) -> list[Effect]:
        self.state = State.WAITING
        self._wait_began = now.monotonic
        if self._rules.mode == "async":
            jitter = self._choices.uniform(0.9, 1.1)
            self.deadline = now.monotonic + self._rules.period_s * jitter * self._slowdown
        else:
            patience = self._rules.gather_s if self._is_gathering else self._waits.patience()
            self.deadline = now.monotonic + max(patience, self._penance)
        return self._greet_the_silent() + self._end_wait_if_over(now)

    def _greet_the_silent(self) -> list[Effect]:
        """A hello may be lost like any message; ask again those who are linked and have not answered."""
        silent = [p for p in self._everyone_near() if self._neighbors.of(p).has_link and not self._neighbors.of(p).is_ready]
        return [self._hello(peer, reply=True) for peer in silent]

    def _end_wait_if_over(self, now: Instant) -> list[Effect]:
        """A wait ends at its deadline, or when everything is here; never before one's own update is sealed, so that at most one
        is under way to the sealer, however slow that is."""
        if self.state is not State.WAITING or self._outbox.is_sealing:
            return []
        is_overdue = self.deadline is None or now.monotonic >= self.deadline
        return self._mix(now) if is_overdue or self._is_complete(now) else []

    def _is_complete(self, now: Instant) -> bool:
        """Whether nothing that is worth waiting for can still come."""
        if self._rules.mode == "async" or now.monotonic < self._wait_began + self._penance:
            return False
        return not any(map(self._is_awaited, self._plan(self.step).weights)) and not self._is_cut_off()

    def _is_cut_off(self) -> bool:
        """Whether no neighbor that has not parted can be reached. Links come back; a peer that did not wait for that would
        train alone through all its rounds within seconds."""
        remaining = [p for p in self._plan(self.step).weights if p != self.own and not self._neighbors.of(p).is_parted]
        return bool(remaining) and not any(self._neighbors.of(peer).is_ready for peer in remaining)

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
        self._waited = now.monotonic - self._wait_began
        effects: list[Effect] = []
        if self._rules.mode == "rounds":
            self._observe_waits()
            effects += self._jump_if_left_behind()
        self._is_gathering = False
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

    def _observe_waits(self) -> None:
        """How late everybody was who has come this far: once a round, however many updates somebody sends. Who is further
        was not late."""
        if self._is_gathering:
            return
        for peer in self._plan(self.step).weights:
            update = self.inbox.slots.current(peer)
            if update is not None and update.payload is not None and update.header.step == self.step:
                self._waits.observe(update.whole_at - self._wait_began)
            elif self.inbox.slots.later(peer) is not None:
                self._waits.observe(0.0)

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
                return self._end_wait_if_over(now)
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
        if hop not in self._members:
            raise RejectedFrame(Reason.NOT_MEMBER, hop)
        if not self._allowances.admits(hop, sum(map(len, frames)), now.monotonic):
            raise RejectedFrame(Reason.RATE_LIMITED, hop)
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
            case wire.Bye():
                self._neighbors.of(hop).is_parted = True
                return self._look_again(now)
            case _:
                assert_never(message)

    def _reject(self, hop: PeerId, refusal: RejectedFrame) -> list[Effect]:
        blame = PeerId(refusal.blame) if refusal.blame is not None else hop
        self.ledger.reasons[blame, refusal.reason] += 1
        if refusal.reason is not Reason.RATE_LIMITED:
            self._allowances.refused(hop)
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
        was_ready = self._neighbors.of(hop).is_ready
        self._neighbors.of(hop).greeted(hello.boot_id)
        effects: list[Effect] = [self._hello(hop, reply=False)] if hello.reply else []
        return effects + self._catch_up_if_new(hop, was_ready) + self._look_again(now)

    def _link_up(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.link_up(peer)
        effects = [self._hello(peer, reply=True), *self.inbox.credit_again(peer)]
        return effects + self._catch_up_if_new(peer, was_ready=False) + self._look_again(now)

    def _link_down(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.of(peer).link_down()
        return self._look_again(now)

    def _catch_up_if_new(self, peer: PeerId, was_ready: bool) -> list[Effect]:
        """A neighbor became ready: offer it what it missed, or tell it that no more will come. Only this moment counts, so that
        a neighbor who greets a thousand times is sent nothing a thousand times."""
        effects: list[Effect] = []
        if was_ready or not self._neighbors.of(peer).is_ready:
            return effects
        if self._rules.mode == "rounds":
            for own in self._outbox.newest():
                if peer in self._readers_of(own):
                    effects += self._outbox.offer(own, (peer,), self.ledger)
        return [*effects, self._bye(peer)] if self.state is State.PARTING else effects

    def _offered(self, hop: PeerId, offer: wire.Offer, body: Sized | None, now: Instant) -> list[Effect]:
        def is_expected(sender: PeerId, step: int) -> bool:
            return sender in self._plan(step).weights

        was_ready = self._neighbors.of(hop).is_ready
        effects = self.inbox.offered(hop, offer, body, is_expected)
        return effects + self._catch_up_if_new(hop, was_ready) + self._look_again(now)

    def _opened(self, event: Opened, now: Instant) -> list[Effect]:
        update, effects = self.inbox.opened(event)
        if update is not None:
            update.whole_at = now.monotonic
        return effects + self._look_again(now)

    def _sealed(self, event: Sealed, now: Instant) -> list[Effect]:
        update, effects = self._outbox.sealed(event)
        if update is not None:
            ready = [
                p for p in self._readers_of(update) if self._neighbors.of(p).is_ready and not self._neighbors.of(p).is_parted
            ]
            if self._rules.mode == "async" and ready:
                ready = [ready[self._choices.below(len(ready))]]
            effects += self._outbox.offer(update, ready, self.ledger)
        return effects + self._end_wait_if_over(now)

    def _readers_of(self, update: OwnUpdate) -> tuple[PeerId, ...]:
        return self._plan(update.step).send_to if update.readers is None else update.readers

    def _everyone_near(self) -> list[PeerId]:
        """All that this round's plan sends to or receives from."""
        plan = self._plan(self.step)
        return sorted({*plan.send_to, *plan.weights} - {self.own})

    def _look_again(self, now: Instant) -> list[Effect]:
        """Something about a neighbor changed: perhaps the wait is over, or nobody needs us any more."""
        if self.state is State.PARTING and self._everyone_parted():
            return self._finish()
        return self._end_wait_if_over(now)

    # ---- ending ---------------------------------------------------------------------------------------------------------

    def _is_last(self, step: int) -> bool:
        return 0 < self._rules.rounds <= step

    def _part(self, now: Instant) -> list[Effect]:
        """All rounds are done. Stay reachable until the neighbors are done too, or the ceiling is over."""
        self.state = State.PARTING
        self.deadline = now.monotonic + self._rules.ceiling_s
        effects = [self._persist(now), *self._byes()]
        return effects + self._finish() if self._everyone_parted() else effects

    def _everyone_parted(self) -> bool:
        neighbors = (self._neighbors.of(peer) for peer in self._plan(self.step).send_to)
        return all(neighbor.is_parted or not neighbor.is_ready for neighbor in neighbors)

    def _byes(self) -> list[Effect]:
        """Those we send to need not await us, and those we receive from need not stay for us."""
        return [self._bye(peer) for peer in self._everyone_near() if self._neighbors.of(peer).is_ready]

    def _bye(self, peer: PeerId) -> Send:
        # On the bulk link, so that it can't overtake the last offer.
        return Send(peer, (wire.encode(wire.Bye(self._learned_step)),), bulk=True)

    def _finish(self) -> list[Effect]:
        self.state, self.deadline = State.FINISHED, None
        return [Finished(self._learned_step)]

    def _stop(self, now: Instant) -> list[Effect]:
        return [self._persist(now), *self._byes(), *self._finish()]

    def _release_the_rest(self, event: Event) -> list[Effect]:
        """Nothing matters after the end, but that what was still under way is given back."""
        match event:
            case Sealed():
                return self._outbox.sealed(event)[1]
            case Opened(payload=Payload() as payload):
                return [Release(payload)]
            case Learned(outgoing=outgoing):
                return [*self._release_arrived(), *(Release(one.payload) for one in outgoing)]
            case LearnFailed():
                return self._release_arrived()
            case _:
                return []

    def _release_arrived(self) -> list[Effect]:
        """A `Learn` came to nothing, and with it what it was to mix."""
        learn, self._learn = self._learn, None
        if learn is None:
            raise AssertionError("an answer to a Learn that nobody asked for")
        for arrived in learn.arrived:
            self.ledger.of(arrived.sender).lost += 1
        return [Release(arrived.payload) for arrived in learn.arrived]

    # ---- what outlives the process --------------------------------------------------------------------------------------

    def _persist(self, now: Instant) -> Persist:
        self._persisted_at = now.monotonic
        state = {
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
