"""The others of a founded network: members who come and go, looked up in one live roster."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from node.admission import papers
from node.admission.amendments import Amendments
from node.admission.attested import attested
from node.admission.exchange import LinkSet, concerns
from node.admission.farewell import own_record
from node.admission.owner_answers import answers, charter_answers
from node.directory import NodeDirectory
from node.entropy import SystemEntropy, instant
from node.following import Following, Known
from node.live import Live
from node.neighborhood import Neighborhood
from node.others import End
from node.setup import FoundedOthers, Setup
from node.transport.address import Address
from node.transport.sockets import TransportKeys
from node.upkeep.clock_watch import ClockWatch
from node.upkeep.control import Answers
from node.upkeep.journal import Journal
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.record import Record, state
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, Member
from p2pfl.protocol.events import (
    DialRefused,
    Event,
    FrameReceived,
    IdentityConflict,
    LinkDown,
    LinkUp,
    PeerId,
    Revocation,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import EDGE, LAN
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.relay.tunnels import Tunnels
from p2pfl.protocol.round import Plan


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
        self._clocks = ClockWatch()
        self._membership: Membership | None = None
        self._following: Following | None = None

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
        assert self._membership is not None, "the peer was planned"
        keys = TransportKeys(self._identity.transport_key, self._identity.transport_secret)
        known = Known(
            self._own,
            keys,
            self._directory,
            self._papers,
            self._amendments,
            self._clocks,
            self._membership,
            self.dials_loopback,
        )
        self._following = following = Following(self._loop, known, links, live, journal, end)
        await following.begin(signer, self._told.door)

    async def close(self) -> None:
        if self._following is not None:
            await self._following.close()

    def heard(self, event: Event) -> bool:
        """Something happened on a link. Whether it is no business of the peer's."""
        match event:
            case LinkUp(peer):
                self._clocks.linked(peer, self._loop.time())
                if self._following is not None:
                    self._following.exchange.link_up(peer)
            case LinkDown(peer):
                self._clocks.unlinked(peer)
                if self._following is not None:
                    self._following.exchange.link_down(peer)
            case FrameReceived(hop, (bytes() as frame,)) if concerns(frame):
                if self._following is not None:
                    self._following.exchange.receive(hop, frame)
                return True
            case _:
                pass
        return False

    def refused(self, peer: PeerId) -> None:
        """A member's machine said that nobody listens there; its suspicion may end sooner."""
        if self._following is not None:
            self._following.live.tell(DialRefused(peer))

    def called(self, peer: PeerId) -> None:
        """A member has dialled a new link to us. If another machine runs under its identity since, it hears of it there: what
        we send otherwise goes to where the newest record says."""
        following, frame = self._following, own_record(self.roster, peer)
        if following is None or frame is None:
            return
        if following.live.allowances.admits(peer, len(frame), instant().monotonic):
            following.links.answer(peer, (frame,))

    def conflicted(self, conflict: IdentityConflict) -> None:
        """Two machines say that they are one and the same member."""
        addresses = " and ".join(conflict.addresses) or "addresses that nobody states"
        if conflict.peer == self._own:
            message = f"Another machine runs with this node's identity: {addresses}."
            hint = "Stop one of the two; a copied folder is no second node. Then start this one again."
            if self._following is not None:
                self._following.end(Failure("identity_conflict", message, hint, ExitCode.IDENTITY), may_part=False)
        elif self._following is not None:
            member = self.members.get(conflict.peer)
            name = member.name if member is not None else conflict.peer.hex()[:16]
            self._following.journal.incident("identity_conflict", f"two machines run as {name}: {addresses}")

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
        following = self._following
        refused = following.exchange.refused if following is not None else {}
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
            "let_in": following.let_in if following is not None else 0,
            "bytes_sent": following.live.membership_bytes if following is not None else 0,
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
        if self._following is None:
            raise Failure("starting", "The node is still starting.", "Ask again in a moment.", ExitCode.NETWORK)
        self._following.live.tell(Revocation(revocation))

    def _kept(self) -> bool:
        return self._following is not None and self._following.keep()
