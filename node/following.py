"""Keeping up with a founded network while the node runs.

What changes the roster is gossip (in the peer's membership), the join door, reconciliation with neighbors, the owner at the
control socket, and time; whatever it was, links, membership and disk follow within a beat.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from node.admission import papers
from node.admission.amendments import Amendments
from node.admission.door import JoinDoor
from node.admission.exchange import Exchange, LinkSet
from node.admission.farewell import farewell
from node.admission.inquiry import Inquiry
from node.admission.keeper import Keeper
from node.admission.papers import Papers
from node.directory import NodeDirectory
from node.entropy import instant
from node.live import Live
from node.others import End
from node.transport.address import Address
from node.transport.sockets import TransportKeys
from node.upkeep.clock_watch import ClockWatch
from node.upkeep.journal import Journal
from node.upkeep.pulse import Pulse
from node.upkeep.sleep import Sleep
from p2pfl.failure import Failure
from p2pfl.protocol.admission.join import Door, Visit
from p2pfl.protocol.events import Instant, PeerId, RegistryChanged, Suspended
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.membership.membership import Membership

BEAT_S = 0.25
CLOCK_BEATS = 8
ASLEEP_S = 1.0
FAREWELL_S = 0.2  # for the word why to leave, before the link of somebody who was revoked is cut


@dataclass(frozen=True, slots=True)
class Known:
    """What the node has known from its start, and what changes in place: papers, charter, clocks, and who is live."""

    own: PeerId
    keys: TransportKeys
    directory: NodeDirectory
    papers: Papers
    amendments: Amendments
    clocks: ClockWatch
    membership: Membership
    dials_loopback: bool


class Following:
    """Of one node. `end` ends it for a reason, once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, known: Known, links: LinkSet, live: Live, journal: Journal, end: End
    ) -> None:
        self._loop, self._known = loop, known
        self.links, self.live, self.journal = links, live, journal
        self._end_node = end
        self._has_ended = False
        self._roster = known.papers.roster
        self._members_version = -1
        self._members = set(self._roster.members)
        self._sleep = Sleep()
        self._beats = 0
        self._keeper = Keeper(loop, known.directory, known.papers, lambda text: journal.incident("papers_not_kept", text))
        self.exchange = Exchange(known.papers, links, live.allowances, journal, self._follow)
        self._inquiry = Inquiry(loop, known.papers, known.own, known.keys, known.dials_loopback, journal, self._follow)
        self._door: JoinDoor | None = None
        self._pulse: Pulse | None = None

    async def begin(self, signer: Keyring, door: str) -> None:
        """`door`: HOST:PORT of the join door; "" for none. Raises `Failure` where it can't be opened."""
        if (tolerated := self._known.amendments.tolerated(instant().wall)) is not None:
            self.live.tell(tolerated)
        if door:
            self._door = await self._opened_door(signer, door)
        self._pulse = Pulse(self._loop, BEAT_S, self._beat)
        self._follow()

    async def close(self) -> None:
        if self._pulse is not None:
            self._pulse.close()
        if self._door is not None:
            await self._door.close()
        await self._inquiry.close()
        self._keeper.close()

    @property
    def let_in(self) -> int:
        """How many came in at the join door of this life."""
        return self._door.admitted if self._door is not None else 0

    def keep(self) -> bool:
        """Whether what the roster learned is durable when this returns; all of this process knows it either way."""
        is_kept = self._keeper.keep()
        self._follow()
        return is_kept

    def end(self, failure: Failure, may_part: bool) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._end_node(failure, may_part)

    # ---- what changes the roster --------------------------------------------------------------------------------------------

    async def _opened_door(self, signer: Keyring, place: str) -> JoinDoor:
        known = self._known
        door = Door(known.own, signer.sign, self._roster, known.papers.charters)

        def answer(question: bytes, key: bytes) -> Visit:
            wall = instant().wall
            return door.answer(question, key, wall, is_clock_good=not known.clocks.is_off(wall))

        def admitted(_peer: PeerId) -> bool:
            """Durable before it hears of it, so that no crash makes an invite good again; and nobody waits for a beat."""
            return self.keep()

        def trouble(text: str) -> None:
            self.journal.incident("join_door", text)

        opened = JoinDoor(self._loop, known.keys, self._roster.network, answer, admitted, trouble)
        await opened.open(Address.parse(place))
        return opened

    def _beat(self, _stalled_s: float) -> None:
        now = instant()
        if self._sleep.since_last() > ASLEEP_S:
            self.live.tell(Suspended())
        self._beats += 1
        if self._beats % CLOCK_BEATS == 0:
            self._look_at_clocks(self._known.membership.snapshot().watched, now)
        if not self._known.clocks.is_off(now.wall):  # a wrong clock closes no links
            self._roster.expire(now.wall)
        self.exchange.turn(now.monotonic)
        self._inquiry.turn(now.monotonic, is_alone=not self.exchange.linked)
        self._follow()
        self._keeper.look()

    def _look_at_clocks(self, neighbors: Iterable[PeerId], now: Instant) -> None:
        """What they have signed tells whether our clock is right, and what time it is at least where we have none."""
        clocks, roster = self._known.clocks, self._roster
        clocks.look(roster.records, neighbors, now)
        moment = clocks.witnessed(now, is_behind=roster.time(now.wall) > now.wall)
        if moment is not None:
            roster.witness(moment)

    # ---- what follows -------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """What is known is other than before."""
        if self._known.amendments.is_behind:
            self._amend()
        if self._roster.members_version != self._members_version:
            self._follow_members()

    def _amend(self) -> None:
        """The root amended the charter: whoever we have a link with gets it before we say anything under it."""
        try:
            amended, changes = self._known.amendments.follow(instant().wall)
        except Failure as failure:
            self.end(failure, may_part=True)
            return
        self.exchange.amended()
        self.live.tell(amended)
        self.journal.incident("charter", f"charter {self._known.papers.charters.current.serial} holds now; {changes}")

    def _follow_members(self) -> None:
        """Members are others than before, or said something else of themselves: links and membership hear of it."""
        self._members_version, members = self._roster.members_version, self._roster.members
        try:
            papers.check_standing(self._known.papers, self._known.own)
        except Failure as failure:
            self.end(failure, may_part=True)
            return
        gone, self._members = sorted(self._members - members.keys()), set(members)
        was_told = [self._told_why(peer) for peer in gone]
        self.exchange.linked &= members.keys()
        self.live.tell(RegistryChanged())  # nothing of theirs is taken from here on, whatever their links do
        if any(was_told):
            self._loop.call_later(FAREWELL_S, self.links.members_changed)
        else:
            self.links.members_changed()

    def _told_why(self, peer: PeerId) -> bool:
        """Over the link that we keep to it, or over one of its own."""
        frame = farewell(self._roster, peer)
        if frame is not None and peer in self.exchange.linked:
            self.links.send(peer, (frame,))
        elif frame is not None:
            self.links.answer(peer, (frame,))
        return frame is not None
