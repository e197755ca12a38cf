"""Who is in the network: neighbors watch each other, and everybody hears of everybody (SWIM, with Lifeguard).

`Membership` is told what happens (`receive`, `link_up`, `link_down`, `dial_refused`, `tick`, ...) and returns effects; it has
no clock, socket, chance or file of its own, and a `deadline` at which it wants its `tick`. What it concludes is `view`: the
live members in canonical order, equal on all members some seconds after the last change.

`census` has the verdicts, `hearing` what others say, `watching` the probes, `push_pull` the comparing of views, `healing` the
search for the lost; here they come together. docs/membership.md says what all of it promises.
"""

from dataclasses import dataclass
from typing import assert_never

from p2pfl.protocol.admission.record import NEIGHBORS_MAX, Record
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Greet, Instant, MembershipEffect, PeerId, ViewChanged
from p2pfl.protocol.identity import Oath
from p2pfl.protocol.membership import gossip_wire, push_pull
from p2pfl.protocol.membership.census import Census, Registry, Watch
from p2pfl.protocol.membership.dialling import Dialling
from p2pfl.protocol.membership.gossip_wire import (
    Ack,
    Digests,
    Introduction,
    MembershipMessage,
    Nack,
    Ping,
    PingRequest,
    Records,
    Summary,
    Wanted,
)
from p2pfl.protocol.membership.healing import Healing
from p2pfl.protocol.membership.health import Health
from p2pfl.protocol.membership.hearing import Hearing
from p2pfl.protocol.membership.post import Post
from p2pfl.protocol.membership.rules import MembershipRules
from p2pfl.protocol.membership.self_statement import Author, SelfStatement
from p2pfl.protocol.membership.view import View
from p2pfl.protocol.membership.watching import Watching
from p2pfl.protocol.randomness import Choices


@dataclass(frozen=True, slots=True)
class Snapshot:
    """For people: ids in canonical order. `alone_since` is monotonic, None while any link is up."""

    live: tuple[PeerId, ...]
    suspects: tuple[PeerId, ...]
    dead: tuple[PeerId, ...]
    watched: tuple[PeerId, ...]
    health: int
    alone_since: float | None


class Membership:
    """One peer's membership."""

    def __init__(
        self,
        own: PeerId,
        network: bytes,
        rules: MembershipRules,
        registry: Registry,
        oath: Oath,
        boot: Boot,
        author: Author,
        watch: Watch,
        choices: Choices,
        now: Instant,
        bootstrap: tuple[PeerId, ...] = (),
    ) -> None:
        """Begins with every member that the registry has a record of: of a peer file, or from whom one joined through.
        `bootstrap` are looked for as long as they are members, whatever became of them."""
        self.own, self._rules, self._registry, self._choices = own, rules, registry, choices
        self._bootstrap = bootstrap
        self._health = Health(rules.health_max)
        self._census = Census(own, network, rules, registry, oath, watch)
        self._post = Post(self._census)
        for peer in registry.members:
            record = registry.records.get(peer)
            if peer != own and record is not None and not record.has_left:
                self._census.enter(record)
        neighbors = tuple(watch(tuple(sorted({*self.view.live, own})), own))[:NEIGHBORS_MAX]
        self._self = SelfStatement(author, self._census, neighbors, now)
        self._hearing = Hearing(self._census, self._self, boot, self._health, self._post)
        self._dialling = Dialling()
        self._watching = Watching(self._census, self._health, self._post, self._dialling, boot.id, choices)
        self._healing = Healing(rules, choices, now.monotonic)
        self._pulled: dict[PeerId, int] = {}
        self._push_pull_due = now.monotonic + rules.push_pull_s * choices.uniform(0.0, 1.0)
        self._judges_from = now.monotonic
        self._alone_since: float | None = now.monotonic
        self._last: Instant | None = None
        self._view_told = -1
        self.deadline = now.monotonic

    @property
    def view(self) -> View:
        """The live members."""
        return self._census.view

    @property
    def record(self) -> Record:
        """What we say of ourselves now."""
        return self._self.record

    def snapshot(self) -> Snapshot:
        """What a status page shows."""
        suspects, dead = tuple(sorted(self.view.suspects)), tuple(sorted(self._census.tombstones.dead))
        return Snapshot(self.view.live, suspects, dead, self._dialling.watched, self._health.score, self._alone_since)

    # ---- the doors: each returns what follows ---------------------------------------------------------------------------

    def tick(self, now: Instant) -> list[MembershipEffect]:
        """The deadline came, or may have."""
        self._wake(now)
        return self._settle(now)

    def receive(self, now: Instant, hop: PeerId, message: MembershipMessage) -> list[MembershipEffect]:
        """A message over the authenticated link of `hop`."""
        self._wake(now)
        try:
            if hop not in self._registry.members:
                raise RejectedFrame(Reason.NOT_MEMBER, hop)
            self._hear(hop, now)
            self._receive(now, hop, message)
        except RejectedFrame as refusal:
            self._post.reject(refusal, hop)
        return self._settle(now)

    def heard(self, now: Instant, peer: PeerId) -> list[MembershipEffect]:
        """Anything else came over the authenticated link of a member: that too shows that it is alive. Costs a look-up."""
        if peer not in self._registry.members or not self._hear(peer, now):
            return []
        self._wake(now)
        return self._settle(now)

    def link_up(self, now: Instant, peer: PeerId) -> list[MembershipEffect]:
        """Frames can be sent to this member: compare views at once, and ask for what we dialled it for."""
        self._wake(now)
        if peer in self._registry.members:
            self._dialling.links.add(peer)
            self._alone_since, self._census.is_cut_off = None, False
            self._hear(peer, now)
            self._post.send(peer, push_pull.digests(self._census))
            self._watching.linked(now.monotonic, peer)
        return self._settle(now)

    def link_down(self, now: Instant, peer: PeerId) -> list[MembershipEffect]:
        """The link broke, or was never made: see at once whether others can reach it."""
        self._wake(now)
        if peer in self._dialling.links:
            self._dialling.links.discard(peer)
            self._pulled.pop(peer, None)
            self._watching.probes.hurry(peer, now.monotonic)
            if not self._dialling.links:
                self._alone_since, self._census.is_cut_off = now.monotonic, True
                self._healing.alone(now.monotonic)
        return self._settle(now)

    def dial_refused(self, now: Instant, peer: PeerId) -> list[MembershipEffect]:
        """The member's machine answered our dial with a reset: nobody listens there."""
        self._wake(now)
        self._census.refused(peer)
        return self._settle(now)

    def strained(self, now: Instant) -> list[MembershipEffect]:
        """A learning step of our own failed. We trust our judgement less."""
        self._wake(now)
        self._health.worse()
        return self._settle(now)

    def suspended(self, now: Instant) -> list[MembershipEffect]:
        """The engine knows that this machine was asleep until now."""
        self._last = now
        self._amnesty(now)
        return self._settle(now)

    def revoke(self, now: Instant, revocation: bytes) -> list[MembershipEffect]:
        """A revocation came from elsewhere: an operator, the join door. Raises `RejectedFrame` for one that is not valid."""
        self._wake(now)
        self._hearing.revoked(revocation, now, None)
        return self._settle(now)

    def registry_changed(self, now: Instant) -> list[MembershipEffect]:
        """A credential expired, or the registry learned something by itself: whom the join door let in is told of from here."""
        self._wake(now)
        self._census.revise()
        return self._settle(now)

    def leave(self, now: Instant) -> list[MembershipEffect]:
        """Say good-bye to every link. Nothing else is to be asked of this object afterwards."""
        self._self.leave(now)
        farewell = Records(gossip_wire.encode_item(Introduction(self.record.data)))
        for peer in sorted(self._dialling.links):
            self._post.send(peer, farewell)
        return self._post.taken()

    # ---- messages -------------------------------------------------------------------------------------------------------

    def _receive(self, now: Instant, hop: PeerId, message: MembershipMessage) -> None:
        match message:
            case Ping(ticket, origin):
                self._watching.pinged(now.monotonic, hop, ticket, origin)
                self._hearing.items(message.rumors, now, hop)
            case Ack(ticket, signature):
                self._watching.answered(now.monotonic, hop, ticket, signature)
                self._hearing.items(message.rumors, now, hop)
            case PingRequest(ticket, target):
                self._watching.requested(now.monotonic, hop, ticket, target)
                self._hearing.items(message.rumors, now, hop)
            case Nack(ticket):
                self._watching.denied(hop, ticket)
                self._hearing.items(message.rumors, now, hop)
            case Digests():
                self._post.asked(now.monotonic, hop)
                first = self._choices.below(1 << 16)
                self._post.serve(now.monotonic, hop, push_pull.revocations(self._census, message, first))
                self._post.serve(now.monotonic, hop, push_pull.summarize(self._census, message, first))
            case Summary():
                self._post.asked(now.monotonic, hop)
                self._compare(now, hop, message)
            case Wanted(peers):
                self._post.asked(now.monotonic, hop)
                records = push_pull.bounded(push_pull.introductions(self._census, peers))
                self._post.serve(now.monotonic, hop, records)
            case Records(items):
                news = self._hearing.items(items, now, hop, is_answering=True)
                if news and self._pulled.pop(hop, 0) > news:  # one message did not carry all
                    self._post.send(hop, push_pull.digests(self._census))
            case _:
                assert_never(message)

    def _compare(self, now: Instant, hop: PeerId, theirs: Summary) -> None:
        for peer in push_pull.seen_alive(self._census, theirs):
            self._healing.hope(peer, now.monotonic)
        wanted, records = push_pull.differences(self._census, theirs)
        if wanted is not None:
            self._pulled[hop] = len(theirs.entries)
            self._post.send(hop, wanted)
        self._post.serve(now.monotonic, hop, records)

    def _hear(self, peer: PeerId, now: Instant) -> bool:
        """Something came from this member itself. Whatever it is accused of it is told, to refute it. Returns whether it was
        held for anything but alive."""
        was_gone = peer not in self.view
        accusations = self._census.heard(peer, now.monotonic)
        if accusations is None:
            return False
        self._hearing.tell(peer, accusations)
        if was_gone:
            self._healing.met(now.monotonic)
        return True

    # ---- time -----------------------------------------------------------------------------------------------------------

    def _wake(self, now: Instant) -> None:
        """See how late we are. A monotonic clock may or may not run while a machine sleeps; the wall's always does."""
        last, self._last = self._last, now
        if last is None:
            return
        lag = now.monotonic - max(self.deadline, last.monotonic)
        jump = (now.wall - last.wall) - (now.monotonic - last.monotonic)
        if max(lag, jump) > self._rules.suspend_s:
            self._amnesty(now)
        elif lag > self._rules.lag_s:
            self._health.worse()

    def _amnesty(self, now: Instant) -> None:
        """We were asleep: the others were not silent, we were deaf. Greet them, and judge nobody for the longest suspicion."""
        _, longest = self._rules.suspicion_s(len(self.view))
        self._judges_from = now.monotonic + longest
        self._watching.probes.restart(now.monotonic)
        self._census.restart_suspicions(now.monotonic)
        self._health.worse()
        for peer in sorted(self._dialling.links):
            self._post.add(Greet(peer))
            self._post.send(peer, push_pull.digests(self._census))

    def _settle(self, now: Instant) -> list[MembershipEffect]:
        """Do what is due, follow the view, and say when to be woken."""
        if now.monotonic >= self.deadline:
            self._turn(now)
        self._self.restate(now)
        if self.view.version != self._view_told:
            self._follow_view(now.monotonic)
        for effect in self._dialling.changes(now.monotonic):
            self._post.add(effect)
        self.deadline = min(
            self._watching.deadline,
            max(self._census.deadline, self._judges_from),
            self._self.due,
            self._push_pull_due,
            self._healing.due,
            self._dialling.deadline,
        )
        return self._post.taken()

    def _turn(self, now: Instant) -> None:
        may_judge = now.monotonic >= self._judges_from
        self._watching.turn(now, may_judge)
        if may_judge:
            for peer in self._census.judge(now.monotonic):
                self._hearing.forget(peer)
        if now.monotonic >= self._push_pull_due:
            self._push_pull(now.monotonic)
        if now.monotonic >= self._healing.due:
            self._look_for_the_lost(now.monotonic)

    def _push_pull(self, now: float) -> None:
        self._push_pull_due = now + self._rules.push_pull_s * self._choices.uniform(0.5, 1.5)
        self._census.tombstones.shrink(now - self._rules.tombstone_s)
        linked = sorted(peer for peer in self._dialling.links if peer in self.view)
        if linked:
            self._post.send(linked[self._choices.below(len(linked))], push_pull.digests(self._census))

    def _look_for_the_lost(self, now: float) -> None:
        """The dead, and those we began with even if they left: they may be back. Without any link, everybody whom we don't dial
        anyway: those we watch may all be gone."""
        members, is_alone = self._registry.members, self._alone_since is not None
        lost = {*self._census.tombstones.dead, *(members if is_alone else self._bootstrap)}
        dialled = self._dialling.watched if is_alone else self.view
        awaited = sorted(peer for peer in lost if peer in members and peer != self.own and peer not in dialled)
        target = self._healing.target(now, awaited, len(self.view) - 1, is_alone)
        if target is not None:
            self._dialling.borrow(target, now + self._rules.reconnect_patience_s)

    def _follow_view(self, now: float) -> None:
        """Watch whom the overlay gives us among those who are live now."""
        self._view_told = self.view.version
        neighbors = tuple(self._census.watch(self.view.live, self.own))
        self._dialling.watched = neighbors
        self._watching.neighbors_are(neighbors, now)
        self._self.watches(neighbors[:NEIGHBORS_MAX], now)
        self._post.add(ViewChanged(self.view.version, len(self.view)))
