"""What a founded network adds to a network process: members who come and go, instead of a list.

Everybody is looked up in one live roster. What changes it is gossip (in the peer's membership), the join door, reconciliation
with neighbors, the owner at the control socket, and time; whatever it was, links, membership and disk follow within a beat.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from node.admission import papers
from node.admission.amendments import Amendments
from node.admission.attested import attested
from node.admission.door import JoinDoor
from node.admission.exchange import Exchange, LinkSet, concerns
from node.admission.farewell import farewell, own_record
from node.admission.inquiry import Inquiry
from node.admission.keeper import Keeper
from node.admission.owner_answers import answers, charter_answers
from node.directory import NodeDirectory
from node.entropy import SystemEntropy, instant
from node.live import Live
from node.neighborhood import Neighborhood
from node.others import End
from node.setup import FoundedOthers, Setup
from node.transport.address import Address
from node.transport.sockets import TransportKeys
from node.upkeep.clock_watch import ClockWatch
from node.upkeep.control import Answers
from node.upkeep.journal import Journal
from node.upkeep.pulse import Pulse
from node.upkeep.sleep import Sleep
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.join import Door, Visit
from p2pfl.protocol.admission.record import Record, state
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.events import (
    DialRefused,
    Event,
    FrameReceived,
    IdentityConflict,
    Instant,
    LinkDown,
    LinkUp,
    PeerId,
    RegistryChanged,
    Revocation,
    Suspended,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import EDGE, LAN
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.tunnels import Tunnels
from p2pfl.protocol.round import Plan

BEAT_S = 0.25
CLOCK_BEATS = 8
ASLEEP_S = 1.0
FAREWELL_S = 0.2  # for the word why to leave, before the link of somebody who was revoked is cut


class Founded:
    """Made before anything listens, from the papers in the node's folder; `begin` when all parts are there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        setup: Setup,
        told: FoundedOthers,
        directory: NodeDirectory,
        identity: Identity,
    ) -> None:
        """Raises `Failure` with exit code IDENTITY unless this node is a member."""
        self._loop, self._told, self._identity = loop, told, identity
        self._member, self._own = setup.own, setup.own.id
        own = self._own
        self._is_relay = setup.is_relay
        self._directory = directory
        self._papers = papers.read(directory)
        self.roster, self._charters = self._papers.roster, self._papers.charters
        self.roster.witness(float(self._charters.current.signed_at))
        papers.check_standing(self._papers, own)
        self.members: Mapping[PeerId, Member] = self.roster.members
        self.charter: Charter = self._charters.current.charter(self.roster.root)
        self.neighborhood = Neighborhood(
            own, self.charter.network_id, setup.seed, told.topology, self.roster.is_relay, self.roster.is_hidden
        )
        self._amendments = Amendments(self._papers, self.neighborhood)
        self._clocks, self._sleep = ClockWatch(), Sleep()
        self._members_version = -1
        self._known = set(self.members)
        self._beats = 0
        self._has_ended = False
        self._membership: Membership | None = None
        self._running: _Running | None = None

    @property
    def _transport_keys(self) -> TransportKeys:
        return TransportKeys(self._identity.transport_key, self._identity.transport_secret)

    # ---- before it runs -----------------------------------------------------------------------------------------------------

    @property
    def network_id(self) -> bytes:
        return self.charter.network_id

    @property
    def neighbors_most(self) -> int:
        return self.neighborhood.most

    @property
    def neighbors_held(self) -> int:
        return 2 * self.neighborhood.most

    @property
    def dials_loopback(self) -> bool:
        """Its owner put it there, or it is met there: otherwise such an address would be one of our own services."""
        return self._told.dials_loopback or any(Address.parse(text).is_loopback for text in self._told.addresses)

    def keys_of(self, peer: PeerId) -> tuple[bytes, ...]:
        return self.roster.transport_keys(peer)

    def addresses_of(self, peer: PeerId) -> tuple[str, ...]:
        record = self.roster.records.get(peer)
        return record.addresses if record is not None else ()

    @property
    def epoch_before(self) -> int:
        """The newest boot epoch that anybody has seen of us, as far as is known here."""
        record = self.roster.records.get(self._own)
        return record.boot_epoch if record is not None else 0

    def agreed(self, schema: bytes, update_bytes: int) -> Charter:
        """Raises `Failure` with exit code MISMATCH unless the trainer learns what the network does."""
        if (schema, update_bytes) != (self.charter.schema, self.charter.update_bytes):
            message = f"This node's task makes another model than the network {self.charter.name!r} agreed on."
            hint = "Give the same task and model: --task, and the same versions of its code."
            raise Failure("other_model", message, hint, ExitCode.MISMATCH)
        return self.charter

    def planned(self, signer: Keyring, boot: Boot) -> tuple[Plan, Liveness]:
        """By the membership of this life. From here on our own record is in the roster."""
        own, roster = self._member, self.roster
        before = roster.records.get(own.id)
        is_same = before is None or (before.transport_key, before.seal_key) == (own.transport_key, own.seal_key)
        key_seq = 0 if before is None else before.key_seq + (not is_same)

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, wall: float) -> Record:
            return state(
                signer.sign,
                roster.network,
                own,
                boot.epoch,
                boot.id,
                incarnation,
                wall,
                addresses=self._told.addresses,
                neighbors=neighbors,
                key_seq=key_seq,
                has_left=has_left,
                door=self._told.door_port,
            )

        self._membership = membership = Membership(
            own.id,
            roster.network,
            EDGE if self._told.topology.get("timers") == "edge" else LAN,
            roster,
            signer,
            boot,
            author,
            self.neighborhood.watch,
            Choices(int.from_bytes(boot.id[:8], "big"), b"membership"),
            instant(),
            bootstrap=tuple(sorted(peer for peer in roster.members if peer != own.id)),
        )
        liveness = Liveness(membership, self.neighborhood.plan_of)
        return liveness.plan, liveness

    # ---- those who can't be dialled -----------------------------------------------------------------------------------------

    def tunnels(self, signer: Keyring) -> Tunnels | None:
        """A relay needs none: it can be dialled."""
        if self._is_relay:
            return None
        entropy = SystemEntropy()
        choices = Choices(int.from_bytes(entropy.draw(8), "big"), b"tunnels")
        return Tunnels(self._own, self.charter.network_id, signer, entropy, choices, self)

    def relays(self) -> list[PeerId]:
        """The live ones."""
        live = self._membership.view.live if self._membership is not None else ()
        return [peer for peer in live if peer != self._own and self.roster.is_relay(peer)]

    def is_hidden(self, peer: PeerId) -> bool:
        return not self._told.addresses if peer == self._own else self.roster.is_hidden(peer)

    # ---- running ----------------------------------------------------------------------------------------------------------

    async def begin(self, signer: Keyring, links: LinkSet, live: Live, journal: Journal, end: End) -> None:
        """Open the join door, and keep up with what changes. Raises `Failure` where the door can't be opened."""
        keeper = Keeper(self._loop, self._directory, self._papers, lambda text: journal.incident("papers_not_kept", text))
        exchange = Exchange(self._papers, links, live.allowances, journal, self._follow)
        keys = self._transport_keys
        inquiry = Inquiry(self._loop, self._papers, self._own, keys, self.dials_loopback, journal, self._follow)
        self._running = running = _Running(links, live, journal, end, keeper, exchange, inquiry)
        if (known := self._amendments.tolerated(instant().wall)) is not None:
            live.tell(known)
        if self._told.door:
            running.door = await self._opened_door(signer, journal)
        running.pulse = Pulse(self._loop, BEAT_S, self._beat)
        self._follow()

    async def close(self) -> None:
        if self._running is not None:
            if self._running.pulse is not None:
                self._running.pulse.close()
            if self._running.door is not None:
                await self._running.door.close()
            await self._running.inquiry.close()
            self._running.keeper.close()

    def heard(self, event: Event) -> bool:
        """Something happened on a link. Whether it is no business of the peer's."""
        match event:
            case LinkUp(peer):
                self._clocks.linked(peer, self._loop.time())
                if self._running is not None:
                    self._running.exchange.link_up(peer)
            case LinkDown(peer):
                self._clocks.unlinked(peer)
                if self._running is not None:
                    self._running.exchange.link_down(peer)
            case FrameReceived(hop, (bytes() as frame,)) if concerns(frame):
                if self._running is not None:
                    self._running.exchange.receive(hop, frame)
                return True
            case _:
                pass
        return False

    def refused(self, peer: PeerId) -> None:
        """A member's machine said that nobody listens there; its suspicion may end sooner."""
        if self._running is not None:
            self._running.live.tell(DialRefused(peer))

    def called(self, peer: PeerId) -> None:
        """A member has dialled a new link to us. If another machine runs under its identity since, it hears of it there: what
        we send otherwise goes to where the newest record says."""
        running, frame = self._running, own_record(self.roster, peer)
        if running is None or frame is None:
            return
        if running.live.allowances.admits(peer, len(frame), instant().monotonic):
            running.links.answer(peer, (frame,))

    def conflicted(self, conflict: IdentityConflict) -> None:
        """Two machines say that they are one and the same member."""
        addresses = " and ".join(conflict.addresses) or "addresses that nobody states"
        if conflict.peer == self._own:
            message = f"Another machine runs with this node's identity: {addresses}."
            hint = "Stop one of the two; a copied folder is no second node. Then start this one again."
            self._end(Failure("identity_conflict", message, hint, ExitCode.IDENTITY), may_part=False)
        elif self._running is not None:
            member = self.members.get(conflict.peer)
            name = member.name if member is not None else conflict.peer.hex()[:16]
            self._running.journal.incident("identity_conflict", f"two machines run as {name}: {addresses}")

    # ---- asked by its owner -------------------------------------------------------------------------------------------------

    def states(self) -> dict[PeerId, str]:
        """What membership makes of everybody: alive, suspected, dead or left."""
        found = {peer: "left" for peer, record in self.roster.records.items() if record.has_left}
        if self._membership is not None:
            snapshot = self._membership.snapshot()
            found |= dict.fromkeys(snapshot.dead, "dead") | dict.fromkeys(snapshot.live, "alive")
            found |= dict.fromkeys(snapshot.suspects, "suspected")
        return found

    def account(self) -> dict[str, Any]:
        """For a status."""
        states = Counter(self.states().values())
        snapshot = self._membership.snapshot() if self._membership is not None else None
        refused = self._running.exchange.refused if self._running is not None else {}
        return {
            "view": len(snapshot.live) if snapshot is not None else 0,
            **{name: states[name] for name in ("alive", "suspected", "dead", "left")},
            "watched": len(snapshot.watched) if snapshot is not None else 0,
            "health": snapshot.health if snapshot is not None else 0,
            "revocations": len(self.roster.revocations),
            "conflicts": len(self.roster.conflicts),
            "attestation": attested(self.roster, instant().wall),
            "charter": self._charters.current.serial,
            "at_restart": list(self._amendments.at_restart),
            "is_clock_off": self._clocks.is_off(instant().wall),
            "let_in": self._running.door.admitted if self._running is not None and self._running.door is not None else 0,
            "bytes_sent": self._running.live.membership_bytes if self._running is not None else 0,
            "papers_refused": {str(reason): count for reason, count in sorted(refused.items())},
        }

    @property
    def answers(self) -> Answers:
        """What can be asked at the control socket."""
        return {
            **answers(self.roster, self.states, self._spread, self._kept),
            **charter_answers(self._papers, self._kept),
        }

    def _spread(self, revocation: bytes) -> None:
        if self._running is None:
            raise Failure("starting", "The node is still starting.", "Ask again in a moment.", ExitCode.NETWORK)
        self._running.live.tell(Revocation(revocation))

    def _kept(self) -> None:
        """Durable, and known to all of this process."""
        if self._running is not None:
            self._running.keeper.keep()
            self._follow()

    # ---- what changes the roster --------------------------------------------------------------------------------------------

    async def _opened_door(self, signer: Keyring, journal: Journal) -> JoinDoor:
        door = Door(self._own, signer.sign, self.roster, self._charters)

        def answer(question: bytes, key: bytes) -> Visit:
            wall = instant().wall
            return door.answer(question, key, wall, is_clock_good=not self._clocks.is_off(wall))

        opened = JoinDoor(
            self._loop,
            self._transport_keys,
            self.charter.network_id,
            answer,
            self._admitted,
            lambda text: journal.incident("join_door", text),
        )
        await opened.open(Address.parse(self._told.door))
        return opened

    def _admitted(self, _peer: PeerId) -> None:
        """Durable before it hears of it, so that no crash makes an invite good again; and nobody waits for the next beat."""
        self._kept()

    def _beat(self, _stalled_s: float) -> None:
        running, now = self._running, instant()
        assert running is not None
        if self._sleep.since_last() > ASLEEP_S:
            running.live.tell(Suspended())
        self._beats += 1
        if self._beats % CLOCK_BEATS == 0 and self._membership is not None:
            self._look_at_clocks(self._membership.snapshot().watched, now)
        if not self._clocks.is_off(now.wall):  # a wrong clock closes no links
            self.roster.expire(now.wall)
        running.exchange.turn(now.monotonic)
        running.inquiry.turn(now.monotonic, is_alone=not running.exchange.linked)
        self._follow()
        running.keeper.look()

    def _look_at_clocks(self, neighbors: Iterable[PeerId], now: Instant) -> None:
        """What they have signed tells whether our clock is right, and what time it is at least where we have none."""
        self._clocks.look(self.roster.records, neighbors, now)
        moment = self._clocks.witnessed(now, is_behind=self.roster.time(now.wall) > now.wall)
        if moment is not None:
            self.roster.witness(moment)

    def _follow(self) -> None:
        """What is known is other than before."""
        if self._amendments.is_behind:
            self._amend()
        if self.roster.members_version != self._members_version:
            self._follow_members()

    def _amend(self) -> None:
        """The root amended the charter: whoever we have a link with gets it before we say anything under it."""
        running = self._running
        if running is None:
            return
        try:
            amended, changes = self._amendments.follow(instant().wall)
        except Failure as failure:
            self._end(failure, may_part=True)
            return
        running.exchange.amended()
        running.live.tell(amended)
        running.journal.incident("charter", f"charter {self._charters.current.serial} holds now; {changes}")

    def _follow_members(self) -> None:
        """Members are others than before, or said something else of themselves: links and membership hear of it."""
        running = self._running
        if running is None:
            return
        self._members_version = self.roster.members_version
        try:
            papers.check_standing(self._papers, self._own)
        except Failure as failure:
            self._end(failure, may_part=True)
            return
        gone, self._known = sorted(self._known - self.members.keys()), set(self.members)
        was_told = [self._told_why(running, peer) for peer in gone]
        running.exchange.linked &= self.members.keys()
        running.live.tell(RegistryChanged())  # nothing of theirs is taken from here on, whatever their links do
        if any(was_told):
            self._loop.call_later(FAREWELL_S, running.links.members_changed)
        else:
            running.links.members_changed()

    def _told_why(self, running: "_Running", peer: PeerId) -> bool:
        """Over the link that we keep to it, or over one of its own."""
        frame = farewell(self.roster, peer)
        if frame is not None and peer in running.exchange.linked:
            running.links.send(peer, (frame,))
        elif frame is not None:
            running.links.answer(peer, (frame,))
        return frame is not None

    def _end(self, failure: Failure, may_part: bool) -> None:
        if self._running is not None and not self._has_ended:
            self._has_ended = True
            self._running.end(failure, may_part)


@dataclass(slots=True)
class _Running:
    """The parts that there are only while it runs."""

    links: LinkSet
    live: Live
    journal: Journal
    end: End
    keeper: Keeper
    exchange: Exchange
    inquiry: Inquiry
    door: JoinDoor | None = None
    pulse: Pulse | None = None
