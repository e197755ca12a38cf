"""What a peer makes of all it hears about members: who is live, who is suspected, who is gone.

Two things come from outside, records and accusations, and both are facts: signed, and joined by `standing.merge`. Verdicts are
nobody's but our own: DEAD is never heard, only concluded, when a suspicion has run its time and nothing came from the member
itself. Whoever is heard over its own link is alive, whatever is said of it, and is told what is said, so that it can refute it
by a new record.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Instant, PeerId
from p2pfl.protocol.identity import Oath
from p2pfl.protocol.membership.gossip_wire import Introduction, encode_item
from p2pfl.protocol.membership.rules import MembershipRules
from p2pfl.protocol.membership.rumors import Rumors
from p2pfl.protocol.membership.standing import SWIM_CONTEXT, Accusation, Standing, Version, accusation_digest, merge, version_of
from p2pfl.protocol.membership.suspicion import Suspicion
from p2pfl.protocol.membership.tombstones import Tombstones
from p2pfl.protocol.membership.view import Known, View


class Registry(Protocol):
    """Who may be a member, and the newest record of each: `roster.Roster`, or a simulator's that trusts."""

    @property
    def members(self) -> Mapping[PeerId, Member]: ...
    @property
    def records(self) -> Mapping[PeerId, Record]: ...
    def learn(self, credential: bytes, record: bytes | None, wall: float) -> bool: ...
    def learn_record(self, record: Record, wall: float) -> bool: ...
    def entry(self, peer: PeerId) -> tuple[bytes, bytes]: ...
    def revoke(self, revocation: bytes, wall: float) -> bool: ...
    @property
    def revocations(self) -> tuple[bytes, ...]: ...


Watch = Callable[[Sequence[PeerId], PeerId], Sequence[PeerId]]
"""The stable overlay: (live members in canonical order, one of them) to those who watch it and whom it watches, 4 to 8 where
the network is that large. Everybody must use the same."""


class Census:
    """The verdicts. `is_cut_off` while no link is up."""

    def __init__(
        self,
        own: PeerId,
        network: bytes,
        rules: MembershipRules,
        registry: Registry,
        oath: Oath,
        watch: Watch,
    ) -> None:
        self.own, self.network, self.rules = own, network, rules
        self.registry, self.oath, self.watch = registry, oath, watch
        self.is_cut_off = False
        self.view = View()
        self.tombstones = Tombstones()
        self.rumors = Rumors()
        self._heard: dict[PeerId, float] = {}

    def enter(self, record: Record) -> None:
        """A member whose record is known from before, or our own: it is live until shown otherwise."""
        self.view.put(record.identity, Known(Standing(record)))

    # ---- facts ----------------------------------------------------------------------------------------------------------

    def held(self, peer: PeerId) -> Standing | None:
        """What is known of a member, live or gone."""
        known = self.view.get(peer)
        if known is not None:
            return known.standing
        stone = self.tombstones.get(peer)
        return stone.standing if stone is not None else None

    def version(self, peer: PeerId) -> Version | None:
        """The newest version that was heard of."""
        known = self.view.get(peer)
        if known is not None:
            return known.standing.version
        stone = self.tombstones.get(peer)
        return stone.version if stone is not None else None

    def is_news(self, record: Record) -> bool:
        """Whether this says more than what is held. A dead member's old record does not."""
        held = self.held(record.identity)
        if held is not None:
            return record.precedence > held.record.precedence
        version = self.version(record.identity)
        return version is None or version_of(record) > version

    def introduced(self, record: Record, credential: bytes, now: Instant, hop: PeerId) -> None:
        """A record that is news. Raises `RejectedFrame` for what is forged, or from no member."""
        peer = record.identity
        is_new = self.version(peer) is None
        if credential:
            self.registry.learn(credential, record.data, now.wall)
        else:
            self.registry.learn_record(record, now.wall)
        if not record.has_left and peer not in self.registry.members:
            raise RejectedFrame(Reason.NOT_MEMBER, peer)
        held = self.held(peer)
        standing = Standing(record) if held is None else merge(held, Standing(record))
        if record.has_left:
            self._bury(peer, standing, now.monotonic)
        else:
            self.tombstones.remove(peer)
            self.view.put(peer, Known(standing))
        for accusation in held.accusations if held is not None else ():  # of an older record: not worth telling any more
            self.rumors.drop(("accusation", peer, accusation.accuser))
        self.spread(standing.record, hop, with_credential=is_new)

    def spread(self, record: Record, heard_from: PeerId | None, with_credential: bool) -> None:
        """Make a rumor of a record."""
        peer = record.identity
        credential = self.registry.entry(peer)[0] if with_credential else b""
        self.rumors.add(("record", peer), encode_item(Introduction(record.data, credential)), heard_from)

    def accused(self, accusation: Accusation, now: Instant, hop: PeerId) -> bool:
        """Somebody could not reach a live member. True where this was news that counts. Raises `RejectedFrame`."""
        known = self.view.get(accusation.subject)
        if known is None or accusation.version != known.standing.version:
            return False
        if any(accusation.accuser == other.accuser for other in known.standing.accusations):
            return False
        if not self.is_near(accusation.accuser, known.standing.record):
            raise RejectedFrame(Reason.NOT_NEIGHBOR, hop)
        self.verify(accusation, hop)
        self._charge(known, accusation, now.monotonic, hop)
        return True

    def verify(self, accusation: Accusation, hop: PeerId) -> None:
        """Raises `RejectedFrame` unless its accuser, a member, signed it."""
        if accusation.accuser not in self.registry.members:
            raise RejectedFrame(Reason.NOT_MEMBER, hop)
        digest = accusation_digest(self.network, accusation.accuser, accusation.subject, accusation.version)
        if not self.oath.verify(accusation.accuser, SWIM_CONTEXT, digest, accusation.signature):
            raise RejectedFrame(Reason.BAD_SIGNATURE, hop)

    def is_near(self, accuser: PeerId, subject: Record) -> bool:
        """Whether the link between the two is mutual: the subject names the accuser, who signed the accusation; or the overlay
        makes them neighbors, so that a subject that names nobody can die all the same."""
        if accuser in subject.neighbors:
            return True
        return accuser in self.view and accuser in self.watch(self.view.live, subject.identity)

    def accuse(self, peer: PeerId, now: Instant) -> None:
        """Our own probe of a live member failed."""
        known = self.view.get(peer)
        if known is None or any(self.own == other.accuser for other in known.standing.accusations):
            return
        version = known.standing.version
        digest = accusation_digest(self.network, self.own, peer, version)
        self._charge(known, Accusation(self.own, peer, version, self.oath.sign(SWIM_CONTEXT, digest)), now.monotonic, None)

    def _charge(self, known: Known, accusation: Accusation, now: float, hop: PeerId | None) -> None:
        peer = accusation.subject
        standing = merge(known.standing, Standing(known.standing.record, (accusation,)))
        self.view.put(peer, Known(standing, known.suspicion))
        if known.suspicion is not None:
            self._pass_on(accusation, hop)
        else:
            self.weigh(peer, now, hop)

    def _pass_on(self, accusation: Accusation, hop: PeerId | None) -> None:
        self.rumors.add(("accusation", accusation.subject, accusation.accuser), encode_item(accusation), hop)

    # ---- verdicts -------------------------------------------------------------------------------------------------------

    def weigh(self, peer: PeerId, now: float, hop: PeerId | None = None) -> None:
        """Begin to suspect an accused member and say so, unless a live link speaks for it."""
        known = self.view.get(peer)
        if known is None or self.is_fresh(peer, now):
            return
        self.view.put(peer, Known(known.standing, Suspicion(now, *self.rules.suspicion_s(len(self.view)))))
        for accusation in known.standing.accusations:
            self._pass_on(accusation, hop)

    def is_fresh(self, peer: PeerId, now: float) -> bool:
        """Whether its own link shows it alive: something came over it lately."""
        return now < self.fresh_until(peer)

    def fresh_until(self, peer: PeerId) -> float:
        """Until when what came over its own link overrides what others say."""
        return self._heard.get(peer, float("-inf")) + self.rules.fresh_s

    def heard_since(self, peer: PeerId, moment: float) -> bool:
        """Whether something came over its own link since then."""
        return self._heard.get(peer, float("-inf")) >= moment

    def heard(self, peer: PeerId, now: float) -> tuple[Accusation, ...] | None:
        """Something came from the member itself. If it was a suspect or dead, it is alive again here, and what it is accused
        of is returned, for it to refute."""
        known = self.view.get(peer)
        if known is not None:
            self._heard[peer] = now
            if known.suspicion is None:
                return None
            self.view.put(peer, Known(known.standing))
            return known.standing.accusations
        stone = self.tombstones.get(peer)
        record = self.registry.records.get(peer)
        if peer not in self.registry.members or record is None or record.has_left or (stone is not None and stone.has_left):
            return None
        standing = stone.standing if stone is not None and stone.standing is not None else Standing(record)
        self._heard[peer] = now
        self.tombstones.remove(peer)
        self.view.put(peer, Known(standing))
        return standing.accusations

    def refused(self, peer: PeerId) -> None:
        """Its machine refuses to be dialled: as good as one confirmation, once."""
        known = self.view.get(peer)
        if known is not None and known.suspicion is not None:
            known.suspicion.refusals = 1

    def ends(self, peer: PeerId) -> float:
        """When the suspicion of this suspect is over."""
        known = self.view.get(peer)
        assert known is not None and known.suspicion is not None
        accusers = {accusation.accuser for accusation in known.standing.accusations}
        return known.suspicion.ends(len(accusers), self._expected(known, accusers))

    def judge(self, now: float) -> list[PeerId]:
        """Declare dead whose time is over, and suspect whom a live link spoke for until now. Returns the dead."""
        for peer in sorted(self.view.doubted):
            self.weigh(peer, now)
        dead = [peer for peer in sorted(self.view.suspects) if self.ends(peer) <= now and not self.is_fresh(peer, now)]
        for peer in dead:
            known = self.view.get(peer)
            assert known is not None
            self._bury(peer, known.standing, now)
        return dead

    def restart_suspicions(self, now: float) -> None:
        """We were asleep: nobody could be heard, so everybody's time begins anew."""
        for peer in sorted(self.view.suspects):
            known = self.view.get(peer)
            assert known is not None
            self.view.put(peer, Known(known.standing, Suspicion(now, *self.rules.suspicion_s(len(self.view)))))

    @property
    def deadline(self) -> float:
        """When `judge` has something to do."""
        doubts = (self.fresh_until(peer) for peer in self.view.doubted)
        return min((*doubts, *(self.ends(peer) for peer in self.view.suspects)), default=float("inf"))

    def revise(self) -> None:
        """Drop whom the registry does not hold any more: revoked, or expired. Whom it learned of without us, by the join door,
        is live until shown otherwise; and we tell of it, since nobody else may know whose links to let in."""
        members = self.registry.members
        for peer in sorted(peer for peer in members if peer != self.own and self.version(peer) is None):
            record = self.registry.records.get(peer)
            if record is not None and not record.has_left:
                self.enter(record)
                self.spread(record, None, with_credential=True)
        for peer in [peer for peer in self.view.live if peer != self.own and peer not in members]:
            self.view.remove(peer)
            self._heard.pop(peer, None)
            self.rumors.drop(("record", peer))
        records = self.registry.records
        self.tombstones.retain(peer for peer in records if peer in members or records[peer].has_left)

    def _expected(self, known: Known, accusers: set[PeerId]) -> int:
        """How many confirmations there can be: as many as were, and one from each neighbor of the subject that is itself well.

        Who hears nobody at all can't expect any, and takes the longest time, because the fault is likely its own.
        """
        most = self.rules.suspicion_mult - 2
        if self.is_cut_off:
            return most
        well = self.view.live if not known.standing.record.neighbors else known.standing.record.neighbors
        others = sum(peer in self.view and peer not in self.view.suspects and peer not in accusers for peer in well)
        refusals = known.suspicion.refusals if known.suspicion is not None else 0
        return min(most, max(0, len(accusers) - 1) + refusals + others)

    def _bury(self, peer: PeerId, standing: Standing, now: float) -> None:
        if peer in self.view:
            self.view.remove(peer)
        self._heard.pop(peer, None)
        self.tombstones.bury(peer, standing, now)
        self.tombstones.trim(self.rules.tombstones(len(self.view)))
