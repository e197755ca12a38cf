"""A founded network under virtual time: every host has a membership, and gossips along the overlay of those it sees alive.

Memberships, records and messages are those of live nodes. What is left out is admission: everybody in the scenario is a member
from the beginning, records are believed without their signatures, and credentials are bytes of the usual length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from statistics import median
from typing import TYPE_CHECKING

from p2pfl.protocol.admission.record import RECORD, Record, state
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Instant, PeerId
from p2pfl.protocol.identity import Identity
from p2pfl.protocol.liveness import Liveness
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import MembershipRules
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import Plan, RoundPlan, round_plan
from sim.entropy import SeededEntropy
from topology import overlay

if TYPE_CHECKING:
    from sim.events import Federation
    from sim.host import Host

CREDENTIAL_BYTES = 250  # what a member's certificate takes
PLANS_KEPT = 8  # rounds of one peer that are asked for at a time


@dataclass(frozen=True, slots=True)
class Overlay:
    """Who is whose neighbor among the live: `topology.overlay`, and the timers by which they are held for alive."""

    kind: str
    degree: int
    seed: int
    rules: MembershipRules


def identities_of(seed: int, peers: int) -> list[Identity]:
    """The keys of all peers of a run."""
    return [Identity.generate(SeededEntropy(seed, b"identity %d" % i)) for i in range(peers)]


def plan_of(overlay_: Overlay, own: PeerId, live: Sequence[PeerId]) -> Plan:
    """Whom one gossips with, while these are live."""
    given = overlay_.kind, live, own, overlay_.seed, overlay_.degree
    near = tuple(map(PeerId, overlay.overlay(*given)))
    links = overlay.round_links(*given)

    @lru_cache(PLANS_KEPT)
    def of(round: int) -> RoundPlan:
        found = links(round)
        return round_plan(own, map(PeerId, found.send_to), {PeerId(peer): weight for peer, weight in found.weights.items()})

    return Plan(of if overlay_.kind == "epidemic" else lambda _round: of(0), near, near)


class PeerFile:
    """What a host knows of the members, on its disk. It trusts."""

    def __init__(self, members: Mapping[PeerId, Member]) -> None:
        self.members = members
        self.records: dict[PeerId, Record] = {}

    def learn(self, credential: bytes, record: bytes | None, wall: float) -> bool:
        return record is not None and self.learn_record(RECORD.read(record), wall)

    def learn_record(self, record: Record, wall: float) -> bool:
        if record.identity not in self.members:
            raise RejectedFrame(Reason.NOT_MEMBER)
        old = self.records.get(record.identity)
        if old is not None and old.precedence >= record.precedence:
            return False
        self.records[record.identity] = record
        return True

    def entry(self, peer: PeerId) -> tuple[bytes, bytes]:
        record = self.records.get(peer)
        return bytes(peer).ljust(CREDENTIAL_BYTES, b"\0"), record.data if record is not None else b""

    def revoke(self, revocation: bytes, wall: float) -> bool:
        raise RejectedFrame(Reason.BAD_CHAIN)  # there is no root here that could have signed one

    @property
    def revocations(self) -> tuple[bytes, ...]:
        return ()


class Founded:
    """The memberships of a federation. `took` are the seconds until all who were up knew that somebody had gone."""

    def __init__(self, overlay_: Overlay, federation: "Federation", network: bytes, seed: int) -> None:
        self.took: list[float] = []
        self._overlay, self._federation, self._network, self._seed = overlay_, federation, network, seed
        self._watch = partial(_watched, overlay_.seed)
        self._files: dict[int, PeerFile] = {}
        self._doors: dict[int, tuple[PeerId, ...]] = {}
        self._gone: dict[int, float] = {}

    def found(self, hosts: Sequence["Host"]) -> None:
        """These begin together, and have met: each has what every other will say of itself first."""
        everyone = tuple(sorted(host.id for host in hosts))
        wall = hosts[0].now.wall if hosts else 0.0
        records = [self._record(host, self.boot(host, 1), 0, self._watch(everyone, host.id), False, wall) for host in hosts]
        for host in hosts:
            self._file(host).records.update((record.identity, record) for record in records)

    def boot(self, host: "Host", epoch: int | None = None) -> Boot:
        """That of a host's present life, or of another; known beforehand, unlike a live node's."""
        epoch = host.epoch if epoch is None else epoch
        return Boot(epoch, SeededEntropy(self._seed, b"boot %d %d" % (host.index, epoch)).draw(16))

    def liveness(self, host: "Host", boot: Boot, now: Instant) -> Liveness:
        """That of a life that begins. Who knows nobody is let in by somebody who is up, and gets to know whom that one does."""
        file = self._file(host)
        if not file.records.keys() - {host.id}:
            self._let_in(host, file)

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, wall: float) -> Record:
            return self._record(host, boot, incarnation, neighbors, has_left, wall)

        membership = Membership(
            host.id,
            self._network,
            self._overlay.rules,
            file,
            host.signer,
            boot,
            author,
            self._watch,
            Choices(self._seed, b"membership %d %d" % (host.index, boot.epoch)),
            now,
            self._doors.get(host.index, ()),
        )
        return Liveness(membership, partial(plan_of, self._overlay, host.id))

    def live(self, host: "Host") -> tuple[PeerId, ...]:
        """Whom this host sees alive; nobody where it never was up."""
        liveness = host.peer.liveness
        return () if liveness is None else liveness.membership.view.live

    def went(self, host: "Host") -> None:
        """The process of a peer has ended: from now on the others find out. Who is done goes as they all do."""
        if host.index not in self._federation.done:
            self._gone[host.index] = self._federation.agenda.now
            self._look()

    def viewed(self, host: "Host") -> None:
        """Somebody sees others alive than before."""
        self._look()

    def awareness(self) -> str:
        """For people."""
        said = " Everybody has a membership, and gossips with whom the overlay gives it among those it sees alive."
        if self.took:
            middle, most = median(self.took), max(self.took)
            said += f" That one was gone all others knew after {middle:.3g} s, {most:.3g} s at most ({len(self.took)} times)."
        return said

    def _look(self) -> None:
        hosts = self._federation.hosts
        for index in [index for index in self._gone if hosts[index].is_on]:
            del self._gone[index]  # back before all had missed it
        if not self._gone:
            return
        views = [set(self.live(host)) for host in hosts if host.is_on]
        for index in [index for index in self._gone if not any(hosts[index].id in view for view in views)]:
            self.took.append(self._federation.agenda.now - self._gone.pop(index))

    def _let_in(self, host: "Host", file: PeerFile) -> None:
        door = next((other for other in self._federation.hosts if other.is_on and other is not host), None)
        if door is not None:
            file.records.update(self._file(door).records)
            self._doors[host.index] = (door.id,)

    def _file(self, host: "Host") -> PeerFile:
        return self._files.setdefault(host.index, PeerFile(self._federation.members))

    def _record(
        self, host: "Host", boot: Boot, incarnation: int, neighbors: Sequence[PeerId], has_left: bool, wall: float
    ) -> Record:
        own = self._federation.members[host.id]
        sign = host.signer.sign
        return state(sign, self._network, own, boot.epoch, boot.id, incarnation, wall, neighbors=neighbors, has_left=has_left)


def _watched(seed: int, live: Sequence[PeerId], own: PeerId) -> tuple[PeerId, ...]:
    return tuple(map(PeerId, overlay.watched(live, own, seed)))
