"""One peer: events in, effects out. No socket, clock, thread or random number generator of its own.

    started ──> learning ──Learned──> waiting ──all here, or deadline──> learning ──> ... ──last Learned──> parting ──> finished
                                         (async: waits for its next period instead)

*Rounds*: train, offer the update to this round's neighbors, wait for theirs, mix. *Async*: every period merge by age what has
come, train, push to one random neighbor. There is no barrier and nobody to ask: a neighbor who is gone, late or hostile costs
at most one adaptive deadline, and its weight goes to the peer itself.

Where members come and go, `liveness` hosts the membership, and the plan follows the live view.
"""

from collections.abc import Mapping, Sized
from enum import Enum, auto
from itertools import count
from typing import assert_never

import msgpack

from p2pfl.protocol import wire
from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.allowance import Allowance, Allowances
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.departed import Departed
from p2pfl.protocol.envelope import Signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import (
    Amended,
    Arrived,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
    Folded,
    FoldedUpdate,
    FoldsLost,
    FrameReceived,
    Greet,
    Instant,
    Learn,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    MembershipEffect,
    OfMembership,
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
from p2pfl.protocol.folding import Folding
from p2pfl.protocol.inbox import Inbox
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.neighbors import Neighbors
from p2pfl.protocol.outbox import Outbox, OwnUpdate
from p2pfl.protocol.randomness import Choices, Entropy
from p2pfl.protocol.room import Room
from p2pfl.protocol.round import Plan, age_weights, newcomer_weights
from p2pfl.protocol.setbacks import Setbacks
from p2pfl.protocol.wait import Wait
from p2pfl.protocol.window import ReplayWindow

TURN = 0.25  # of the ceiling of a wait: how long one neighbor may keep others from bringing theirs, where they take turns


class State(Enum):
    """What the peer is doing. `PARTING`: its rounds are done, but neighbors may still need its last update."""

    IDLE = auto()
    LEARNING = auto()
    WAITING = auto()
    PARTING = auto()
    FINISHED = auto()


class Peer:
    """The state machine. `handle` is the only door."""

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
        room: int | None = None,
        reader: wire.Reader = wire.READER,
        liveness: Liveness | None = None,
        folds: bool = False,
    ) -> None:
        """`members` may change while the peer lives; who is not in it now is a stranger. `restored` is the newest
        `Persist.state` of an earlier life; the learner must have been restored with it. `evaluate_every` is how many rounds lie
        between evaluations; the first and the last are always evaluated. `room` is how many long updates of others may take
        memory at once; None for all that may come. `reader` may remember what other peers of an engine were sent.
        With `liveness`, `plan` is its plan now, and the peer follows it. With `folds` updates take turns, and each is mixed as
        it comes: the learner must be able to, and there must be rounds."""
        if folds and charter.gossip.mode != "rounds":
            raise ValueError("what is merged by age is merged in the order of ids, all at once")
        self.own = own
        self.ledger = Ledger()
        self.state = State.IDLE
        self.step = 0  # of the Learn under way or last delivered
        self.age = 0  # local steps that this model has seen, or merged
        self._agreement = agreement = Agreement(charter)
        self._rules = charter.gossip
        self._members = members
        self._plan = plan
        self._local_steps = local_steps
        self._boot = boot
        self._evaluate_every = evaluate_every
        self._reader = reader
        self._choices = choices
        self._window = ReplayWindow()
        self._due: float | None = None  # monotonic, of the state it is in
        self._learned_step = 0
        self._learn: Learn | None = None
        self._setbacks = Setbacks(self._rules)
        self._mixed_age = 0
        self._persisted_at = 0.0  # monotonic; of the start, until something was persisted
        if restored is not None:
            self._restore(restored)
        self._neighbors = Neighbors()
        self._allowances = Allowances(Allowance())
        places = Room(room, lambda: len(self._plan.senders), self._rules.ceiling_s * TURN if folds else None)
        self.inbox = Inbox(own, signer, agreement, self._window, self.ledger, self._neighbors, places, reader)
        self.inbox.slots.advance(self.step)
        self._folding = Folding(self.inbox, self.ledger) if folds else None
        self._departed = Departed(members, self.ledger, self._neighbors, self._window, self.inbox)
        self._outbox = Outbox(own, samples, signer, agreement, boot, entropy)
        self._tickets = count(1)
        self._wait = Wait(own, plan, self._rules, self._neighbors, self.inbox.slots, is_open=liveness is not None)
        self.liveness = liveness
        self.inbox.is_new = liveness is not None and restored is None

    @property
    def deadline(self) -> float | None:
        """The next monotonic moment it wants `DeadlineReached`."""
        if self.state is State.FINISHED:
            return self._due
        live = None if self.liveness is None else self.liveness.deadline
        return min((due for due in (self._due, self.inbox.deadline, live) if due is not None), default=None)

    @property
    def neighbors(self) -> Neighbors:
        """For people and records, like the ledger: not to be changed from outside."""
        return self._neighbors

    @property
    def allowances(self) -> Allowances:
        return self._allowances

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        """What follows from one event. Costs as much as a header, never as much as a model."""
        if self.state is State.FINISHED:
            return self._release_the_rest(event)
        self.inbox.now = now.monotonic
        effects = self._handle(event, now)
        if self.liveness is not None:
            effects += self._follow(self.liveness.told(event, now), now)
            self._departed.look(self._plan.near)
        return effects

    def _handle(self, event: Event, now: Instant) -> list[Effect]:
        match event:  # the most frequent first
            case FrameReceived(hop, frames):
                try:
                    return self._receive(hop, frames, now)
                except RejectedFrame as refusal:
                    return self._reject(hop, refusal)
            case Opened():
                return self._opened(event, now)
            case Started():
                return self._start(now)
            case LinkUp(peer):
                return self._link_up(peer, now)
            case LinkDown(peer):
                return self._link_down(peer, now)
            case Sealed():
                return self._sealed(event, now)
            case Learned():
                return self._learned(event, now)
            case LearnFailed():
                return self._learn_failed(now)
            case Folded() | FoldsLost():
                return self._folded(event, now)
            case DeadlineReached():
                return [*self.inbox.grant(), *self._deadline_reached(now)]
            case StopRequested():
                return self._stop(now)
            case Amended():
                return self._amend(event)
            case _ if isinstance(event, OfMembership):
                return []
            case _:
                assert_never(event)

    # ---- starting and learning ------------------------------------------------------------------------------------------

    def _start(self, now: Instant) -> list[Effect]:
        self._persisted_at = now.monotonic
        dials: list[Effect] = [Dial(peer) for peer in self._plan.near]
        if self._is_last(self.step):
            return [*dials, *self._part(now)]
        # A model that was trained before a restart lacks only its encoded update; learning nothing makes it anew.
        local_steps = 0 if self.age else self._local_steps
        return [*dials, *self._begin_learning((), {self.own: 1.0}, local_steps, self.age)]

    def _begin_learning(
        self,
        arrived: tuple[Arrived, ...],
        weights: Mapping[PeerId, float],
        local_steps: int,
        mixed_age: int,
        folded: tuple[FoldedUpdate, ...] = (),
    ) -> list[Effect]:
        self.state, self._due, self._mixed_age = State.LEARNING, None, mixed_age
        self._learn = Learn(
            step=self.step,
            phase=0,
            arrived=arrived,
            weights=weights,
            local_steps=0 if self._is_last(self.step) else local_steps,
            evaluate=self.step % self._evaluate_every == 0 or self._is_last(self.step),
            folded=folded,
        )
        return [self._learn]

    def _learned(self, event: Learned, now: Instant) -> list[Effect]:
        learn = self._learn
        if learn is None or event.step != learn.step:
            raise AssertionError(f"learned step {event.step}, which nobody asked for")
        self._learn, self._learned_step = None, event.step
        self._setbacks.count = 0
        self.age = self._mixed_age + learn.local_steps
        effects: list[Effect] = [Release(arrived.payload) for arrived in learn.arrived]
        effects += self.inbox.mixed()
        applied, refused = self.ledger.judged(event.verdicts)
        effects += refused
        present = {update.sender for update in learn.mixes}
        missing = tuple(peer for peer in sorted(learn.weights) if peer != self.own and peer not in present)
        effects.append(RoundEnded(event.step, event.metrics, self._wait.seconds, applied, missing))
        if self._is_last(event.step):
            effects += [Release(outgoing.payload) for outgoing in event.outgoing]
            return effects + self._part(now)
        for part, outgoing in enumerate(event.outgoing):
            if self._plan(event.step).send_to if outgoing.readers is None else outgoing.readers:
                effects += self._outbox.begin(outgoing, next(self._tickets), event.step, part, self.age)
            else:
                effects.append(Release(outgoing.payload))  # nobody to seal it for
        if now.monotonic - self._persisted_at >= self._rules.checkpoint_s:
            effects.append(self._persist(now))
        return effects + self._begin_waiting(now)

    def _learn_failed(self, now: Instant) -> list[Effect]:
        """The model is what it was. Go on with it, more slowly each time, so that a broken trainer can't spin."""
        self._setbacks.count += 1
        effects = self._release_arrived()
        return effects + (self._part(now) if self._is_last(self.step) else self._begin_waiting(now))

    # ---- waiting --------------------------------------------------------------------------------------------------------

    def _begin_waiting(self, now: Instant) -> list[Effect]:
        self.state = State.WAITING
        if self._rules.mode == "async":
            period_s = self._rules.period_s * self._choices.uniform(0.9, 1.1) * self._setbacks.slowdown
            self._due = self._wait.begin_period(now.monotonic, period_s)
        else:
            self._due = self._wait.begin(now.monotonic, least=self._setbacks.penance_s)
        turns = self.inbox.take_turns(may_begin=True)
        return [*self._greet_the_silent(), *turns, *self._fold(), *self._end_wait_if_over(now)]

    def _fold(self) -> list[Effect]:
        """Add to the mix that is to come what is whole. Not before the model that it is mixed with counts."""
        if self._folding is None or self.state is not State.WAITING:
            return []
        return self._folding.begin(self._plan(self.step).weights)

    def _folded(self, event: Folded | FoldsLost, now: Instant) -> list[Effect]:
        assert self._folding is not None, "an answer to a Fold that nobody asked for"
        effects = self._folding.folded(event) if isinstance(event, Folded) else self._folding.lost()
        return effects + self._end_wait_if_over(now)

    def _greet_the_silent(self) -> list[Effect]:
        """A hello may be lost like any message; ask again those who are linked and have not answered."""
        return [self._hello(peer, reply=True) for peer in self._neighbors.silent(self._plan.near)]

    def _end_wait_if_over(self, now: Instant) -> list[Effect]:
        """A wait ends at its deadline, or when everything is here; never before one's own update is sealed, so that at most one
        is under way to the sealer, however slow that is, nor while anything is being folded."""
        if self.state is not State.WAITING or self._outbox.is_sealing or (self._folding and self._folding.is_under_way):
            return []
        is_overdue = self._due is None or now.monotonic >= self._due
        return self._mix(now) if is_overdue or self._wait.is_complete(now.monotonic) else []

    def _mix(self, now: Instant) -> list[Effect]:
        """The wait is over: take what is here into the next `Learn`."""
        effects: list[Effect] = []
        self._wait.end(now.monotonic)
        effects += self.inbox.take_turns(may_begin=False)
        round = self.step
        if self._rules.mode == "rounds" and not (self._folding and self._folding.is_begun):
            effects += self._go_on_to(self._wait.round_to_join(self.inbox.is_new))
        weights, age = self._plan(self.step).weights, self.age
        folded: tuple[FoldedUpdate, ...] = ()
        if self._folding is not None:
            weights = self._folding.weights or weights
            folded = self._folding.end()
        taken, freed = self.inbox.take()
        effects += freed
        if self._rules.mode == "async":
            ages = {update.sender: update.header.age for update in taken}
            weights, age = age_weights(self.own, self.age, ages, self._rules.age_cap)
        taken = [update for update in taken if not update.is_folded]
        arrived = tuple(update.arrived() for update in taken if update.sender in weights)
        if self.inbox.is_new and (arrived or folded):
            self.inbox.is_new = False
            if self.step > round:
                weights = newcomer_weights(self.own, weights, [one.sender for one in arrived])
        unnamed = [effect for update in taken if update.sender not in weights for effect in self.inbox.let_go(update)]
        effects += [*unnamed, *self._go_on_to(self.step + 1)]
        return effects + self._begin_learning(arrived, weights, self._local_steps, age, folded)

    def _go_on_to(self, step: int) -> list[Effect]:
        """Be in this round; nothing follows where that is the present one."""
        if step == self.step:
            return []
        self.step = step
        return [effect for update in self.inbox.slots.advance(step) for effect in self.inbox.let_go(update)]

    def _deadline_reached(self, now: Instant) -> list[Effect]:
        if self._due is None or now.monotonic < self._due:
            return []
        self._due = None
        match self.state:
            case State.WAITING:
                return self._end_wait_if_over(now)
            case State.PARTING:
                return self._finish(now)
            case State.IDLE | State.LEARNING | State.FINISHED:
                return []
            case _:
                assert_never(self.state)

    # ---- neighbors ------------------------------------------------------------------------------------------------------

    def _receive(self, hop: PeerId, frames: tuple[Sized, ...], now: Instant) -> list[Effect]:
        if hop not in self._members:
            raise RejectedFrame(Reason.NOT_MEMBER, hop)
        if not self._allowances.admits(hop, sum(map(len, frames)), now.monotonic):
            raise RejectedFrame(Reason.RATE_LIMITED, hop)
        if self.liveness is not None and self.liveness.concerns(frames):
            return self._follow(self.liveness.received(hop, frames, now), now)
        message, body = self._reader.read(frames)
        match message:
            case wire.Offer():
                return self._offered(hop, message, body, now)
            case wire.Hello():
                return self._hello_received(hop, message, now)
            case wire.Credit():
                return self._outbox.credited(hop, message)
            case wire.Chunk():
                return self.inbox.chunk(hop, message, body) + self._look_again(hop, now)
            case wire.Bye():
                self._neighbors.of(hop).is_parted = True
                return self._look_again(hop, now)
            case _:
                assert_never(message)

    def _reject(self, hop: PeerId, refusal: RejectedFrame) -> list[Effect]:
        blame = PeerId(refusal.blame) if refusal.blame is not None else hop
        self.ledger.reasons[blame, refusal.reason] += 1
        if refusal.reason is not Reason.RATE_LIMITED:
            self._allowances.refused(hop)
        self._wait.look_at(hop)  # what was refused for its content has still shown that its signer is there
        effects: list[Effect] = [Rejected(refusal.reason, blame)]
        if refusal.reason is Reason.VERSION and self._neighbors.should_tell_version(hop):
            effects.append(self._hello(hop, reply=False))
        return effects

    def _hello(self, peer: PeerId, reply: bool) -> Send:
        boot, charter = self._boot, self._agreement.charter
        hello = wire.Hello(charter.network_id, charter.digest, boot.id, boot.epoch, self._learned_step, reply)
        return Send(peer, (wire.encode(hello),))

    def _hello_received(self, hop: PeerId, hello: wire.Hello, now: Instant) -> list[Effect]:
        if hello.network != self._agreement.charter.network_id:
            raise RejectedFrame(Reason.WRONG_NETWORK, hop)
        if not self._agreement.accepts(hello.charter, now.wall):
            raise RejectedFrame(Reason.WRONG_CHARTER, hop)
        was_ready = self._neighbors.of(hop).is_ready
        self._neighbors.of(hop).greeted(hello.boot_id)
        effects: list[Effect] = [self._hello(hop, reply=False)] if hello.reply else []
        return effects + self._catch_up_if_new(hop, was_ready) + self._look_again(hop, now)

    def _amend(self, amended: Amended) -> list[Effect]:
        """Other rules, from the next wait on. Who refused our hello under the charter before gets one under this."""
        self._agreement.amend(amended.charter, amended.before, amended.until)
        self._rules = self._setbacks.rules = amended.charter.gossip
        self._wait.amend(self._rules)
        return self._greet_the_silent()

    def _link_up(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.link_up(peer)
        effects = [self._hello(peer, reply=True), *self.inbox.credit_again(peer)]
        return effects + self._catch_up_if_new(peer, was_ready=False) + self._look_again(peer, now)

    def _link_down(self, peer: PeerId, now: Instant) -> list[Effect]:
        self._neighbors.of(peer).link_down()
        return self._look_again(peer, now)

    def _catch_up_if_new(self, peer: PeerId, was_ready: bool) -> list[Effect]:
        """A neighbor became ready: offer it what it missed, or tell it that no more will come. Only this moment counts, so that
        a neighbor who greets a thousand times is sent nothing a thousand times."""
        effects: list[Effect] = []
        if was_ready or not self._neighbors.of(peer).is_ready:
            return effects
        if self._rules.mode == "rounds" or self.liveness is not None:
            for own in self._outbox.newest():
                if peer in self._readers_of(own):
                    effects += self._outbox.offer(own, (peer,), self.ledger)
        return [*effects, self._bye(peer)] if self.state is State.PARTING else effects

    def _offered(self, hop: PeerId, offer: wire.Offer, body: Sized | None, now: Instant) -> list[Effect]:
        was_ready = self._neighbors.of(hop).is_ready
        effects = self.inbox.offered(hop, offer, body, lambda sender, step: sender in self._plan(step).weights, now.wall)
        self._wait.offered(hop, now.monotonic)
        return effects + self._catch_up_if_new(hop, was_ready) + self._look_again(hop, now)

    def _opened(self, event: Opened, now: Instant) -> list[Effect]:
        sender, effects = self.inbox.opened(event, now.monotonic)
        return effects if sender is None else [*effects, *self._fold(), *self._look_again(sender, now)]

    def _sealed(self, event: Sealed, now: Instant) -> list[Effect]:
        update, effects = self._outbox.sealed(event)
        if update is not None:
            ready = self._neighbors.listening(self._readers_of(update))
            if self._rules.mode == "async" and ready:
                ready = [ready[self._choices.below(len(ready))]]
            effects += self._outbox.offer(update, ready, self.ledger)
        return effects + self._end_wait_if_over(now)

    def _readers_of(self, update: OwnUpdate) -> tuple[PeerId, ...]:
        return self._plan(update.step).send_to if update.readers is None else update.readers

    def _look_again(self, peer: PeerId, now: Instant) -> list[Effect]:
        """Something about a neighbor changed: perhaps the wait is over, or nobody needs us any more."""
        if self.state is State.WAITING:
            self._wait.look_at(peer)
            return self._end_wait_if_over(now)
        return self._finish(now) if self.state is State.PARTING and self._everyone_parted() else []

    def _follow(self, asked: list[MembershipEffect], now: Instant) -> list[Effect]:
        """What membership asks for, and what follows where the plan is another now: who became a neighbor is offered what it
        missed, who is gone is not awaited."""
        assert self.liveness is not None
        effects: list[Effect] = []
        for effect in asked:
            if isinstance(effect, Rejected):
                self.ledger.reasons[effect.blame, effect.reason] += 1
                self._allowances.refused(effect.blame)
            effects.append(self._hello(effect.peer, reply=True) if isinstance(effect, Greet) else effect)
        if self._plan is self.liveness.plan:
            return effects
        before, self._plan = self._plan.near, self.liveness.plan
        self._wait.follow(self._plan)
        for peer in self._plan.near:
            if peer not in before:
                effects += self._catch_up_if_new(peer, was_ready=False)
        return effects + self._look_again(self.own, now)

    # ---- ending ---------------------------------------------------------------------------------------------------------

    def _is_last(self, step: int) -> bool:
        return 0 < self._rules.rounds <= step

    def _part(self, now: Instant) -> list[Effect]:
        """All rounds are done. Stay reachable until the neighbors are done too, or the ceiling is over."""
        self.state = State.PARTING
        self._due = now.monotonic + self._rules.ceiling_s
        effects = [self._persist(now), *self._byes()]
        return effects + self._finish(now) if self._everyone_parted() else effects

    def _everyone_parted(self) -> bool:
        neighbors = (self._neighbors.of(peer) for peer in self._plan.readers)
        return all(neighbor.is_parted or not neighbor.is_ready for neighbor in neighbors)

    def _byes(self) -> list[Effect]:
        """Those we send to need not await us, and those we receive from need not stay for us."""
        return [self._bye(peer) for peer in self._plan.near if self._neighbors.of(peer).is_ready]

    def _bye(self, peer: PeerId) -> Send:
        # On the bulk link, so that it can't overtake the last offer.
        return Send(peer, (wire.encode(wire.Bye(self._learned_step)),), bulk=True)

    def _finish(self, now: Instant) -> list[Effect]:
        farewell = self._follow(self.liveness.leave(now), now) if self.liveness is not None else []
        self.state, self._due = State.FINISHED, None
        return [*farewell, Finished(self._learned_step)]

    def _stop(self, now: Instant) -> list[Effect]:
        return [self._persist(now), *self._byes(), *self._finish(now)]

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
        for update in learn.mixes:
            self.ledger.of(update.sender).lost += 1
        return [*(Release(arrived.payload) for arrived in learn.arrived), *self.inbox.mixed()]

    # ---- what outlives the process --------------------------------------------------------------------------------------

    def _persist(self, now: Instant) -> Persist:
        self._persisted_at = now.monotonic
        state = {"step": self._learned_step, "age": self.age, "window": self._window.to_plain()}
        return Persist(self._learned_step, msgpack.packb(state))

    def _restore(self, restored: bytes) -> None:
        state = msgpack.unpackb(restored, strict_map_key=False)
        self.step = self._learned_step = state["step"]
        self.age = state["age"]
        self._window = ReplayWindow.from_plain(state["window"])
