"""Watching one's neighbors, and helping others watch theirs: pings, acks, and what follows from silence."""

from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Instant, PeerId
from p2pfl.protocol.membership.census import Census
from p2pfl.protocol.membership.dialling import Dialling
from p2pfl.protocol.membership.gossip_wire import Ack, Nack, Ping, PingRequest
from p2pfl.protocol.membership.health import Health
from p2pfl.protocol.membership.post import Post
from p2pfl.protocol.membership.probe import Errand, Errands, Probe, Probes, Turn
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, answer_digest
from p2pfl.protocol.randomness import Choices

REDIAL_AFTER = 3  # probes in a row that were answered by detours only


class Watching:
    """Probes in both roles: asker and helper."""

    def __init__(
        self, census: Census, health: Health, post: Post, dialling: Dialling, boot_id: bytes, choices: Choices
    ) -> None:
        self._census, self._health, self._post, self._dialling = census, health, post, dialling
        self._rules, self._choices = census.rules, choices
        self.probes = Probes(census.rules, health, boot_id, choices)
        self._errands = Errands()
        self._detours: dict[PeerId, int] = {}

    @property
    def deadline(self) -> float:
        return min(self.probes.deadline, self._errands.deadline)

    def neighbors_are(self, neighbors: tuple[PeerId, ...], now: float) -> None:
        """From now on watch these."""
        self.probes.watch(neighbors, now)
        self._detours = {peer: count for peer, count in self._detours.items() if peer in neighbors}

    def pinged(self, now: float, hop: PeerId, ticket: bytes, origin: bytes) -> None:
        """Answer. Over a helper the answer is signed, so that no helper can answer for the dead."""
        digest = answer_digest(self._census.network, self._census.own, PeerId(origin), ticket)
        signature = self._census.oath.sign(SWIM_CONTEXT, digest) if origin else b""
        self._post.send(hop, Ack(ticket, signature, self._riding(now, hop)))

    def answered(self, now: float, hop: PeerId, ticket: bytes, signature: bytes) -> None:
        """An answer for us, or one to pass on. Raises `RejectedFrame` for one that a helper made up."""
        errand = self._errands.answered(hop, ticket)
        if errand is not None:
            self._post.send(errand.origin, Ack(ticket, signature, self._riding(now, errand.origin)))
        elif not signature:
            if self.probes.answered(hop, ticket, now):
                self._detours.pop(hop, None)
                self._health.better()
        elif (probe := self.probes.of(ticket)) is not None and not probe.is_vouched:
            digest = answer_digest(self._census.network, probe.target, self._census.own, ticket)
            if not self._census.oath.verify(probe.target, SWIM_CONTEXT, digest, signature):
                raise RejectedFrame(Reason.BAD_SIGNATURE, hop)
            probe.is_vouched = True

    def requested(self, now: float, hop: PeerId, ticket: bytes, target: PeerId) -> None:
        """Be a helper: one ping for one request, so that nobody can make us send more than it sends. A ticket begins with its
        asker's boot id; who took somebody else's would have that one's request refused."""
        errand = Errand(hop, target, now + self._rules.probe_timeout_s)
        asker = self._census.registry.records.get(hop)
        is_own = asker is not None and ticket.startswith(asker.boot_id)
        if is_own and target in self._dialling.links and target != hop and self._errands.add(ticket, errand):
            self._post.send(target, Ping(ticket, hop, self._riding(now, target)))
        else:
            self._post.send(hop, Nack(ticket, self._riding(now, hop)))

    def denied(self, hop: PeerId, ticket: bytes) -> None:
        """A helper is well, and got no answer either."""
        probe = self.probes.of(ticket)
        if probe is not None:
            probe.silent.discard(hop)

    def linked(self, now: float, peer: PeerId) -> None:
        """A member that was dialled to help can be asked now."""
        for probe in self.probes.wanting(peer):
            self._request(now, probe, peer)

    def turn(self, now: Instant, may_judge: bool) -> None:
        """Everything that is due: pings, requests, nacks and the ends of probes."""
        for ticket, errand in self._errands.overdue(now.monotonic):
            self._post.send(errand.origin, Nack(ticket, self._riding(now.monotonic, errand.origin)))
        for turn, probe in self.probes.turns(now.monotonic, self._dialling.links):
            if turn is Turn.PING:
                self._post.send(probe.target, Ping(probe.ticket, b"", self._riding(now.monotonic, probe.target)))
            elif turn is Turn.ASK_HELPERS:
                self._seek_help(now.monotonic, probe)
            else:
                self._end(probe, now, may_judge)

    def _seek_help(self, now: float, probe: Probe) -> None:
        """Three of the members that the target names as its neighbors; who is not linked is dialled for it, and kept for as
        long as the next probes may want it: a handshake costs it more than a request."""
        known = self._census.view.get(probe.target)
        if known is None:
            return
        view = self._census.view
        named = [
            peer
            for peer in known.standing.record.neighbors
            if peer in view and peer not in view.suspects and peer not in (self._census.own, probe.target)
        ]
        linked = [peer for peer in named if peer in self._dialling.links]
        others = [peer for peer in named if peer not in self._dialling.links]
        for _ in range(self._rules.helpers):
            pool = linked or others
            if not pool:
                break
            helper = pool.pop(self._choices.below(len(pool)))
            if helper in self._dialling.links:
                self._request(now, probe, helper)
            else:
                probe.wanted.add(helper)
            if helper not in self._dialling.watched:
                self._dialling.borrow(helper, probe.ends + self._rules.reconnect_patience_s)

    def _request(self, now: float, probe: Probe, helper: PeerId) -> None:
        probe.wanted.discard(helper)
        probe.silent.add(helper)
        probe.has_helpers = True
        self._post.send(helper, PingRequest(probe.ticket, probe.target, self._riding(now, helper)))

    def _end(self, probe: Probe, now: Instant, may_judge: bool) -> None:
        if probe.is_answered or not may_judge:
            return
        if probe.is_vouched or self._census.heard_since(probe.target, probe.began):
            self._detour(probe.target)
            return
        self._health.worse(len(probe.silent) if probe.has_helpers else 1)
        self._census.accuse(probe.target, now)

    def _detour(self, peer: PeerId) -> None:
        """It lives, but our link to it carries one way only, or nothing: a new one may be better."""
        count = self._detours.get(peer, 0) + 1
        self._detours[peer] = count % REDIAL_AFTER
        if count == REDIAL_AFTER:
            for effect in self._dialling.again(peer):
                self._post.add(effect)

    def _riding(self, now: float, to: PeerId) -> bytes:
        return self._post.riding(now, to, self._dialling.links)
