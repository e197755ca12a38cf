"""Many `Membership`s on a virtual network: frames take time, get lost, are cut one way; peers die, sleep, leave and come back.

Signatures are keyed hashes, which nobody here forges unless a test means to; records and messages are the real bytes.
"""

import hashlib
import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from p2pfl.protocol.admission import record
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import (
    Dial,
    Greet,
    HangUp,
    IdentityConflict,
    Instant,
    MembershipEffect,
    PeerId,
    Rejected,
    Send,
    ViewChanged,
)
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import LAN, MembershipRules
from p2pfl.protocol.randomness import Choices
from topology.overlay import watched

NETWORK = b"village-network!"
WALL = 1_800_000_000.0
LINK_TIMEOUT_S = 15.0  # a link over a path that carries nothing is given up by both ends
REDIAL_S = 1.0


def id_of(k: int) -> PeerId:
    """The k-th peer's id; ids are spread as public keys are."""
    return PeerId(hashlib.blake2b(b"peer %d" % k, digest_size=32).digest())


def signature(peer: bytes, context: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(peer + context + digest, digest_size=64).digest()


class FakeOath:
    """Signs as one peer; checks anybody's."""

    def __init__(self, own: PeerId) -> None:
        self.own = own

    def sign(self, context: bytes, digest: bytes) -> bytes:
        return signature(self.own, context, digest)

    def verify(self, signer: PeerId, context: bytes, digest: bytes, signed: bytes) -> bool:
        return signed == signature(signer, context, digest)


def check(key: bytes, context: bytes, body: bytes, signed: bytes) -> bool:
    return signed == signature(key, context, body)


class FakeRegistry:
    """Knows a credential when it sees one: b"member" and the id."""

    def __init__(self) -> None:
        self.members: dict[PeerId, Member] = {}
        self.records: dict[PeerId, Record] = {}
        self._revoked: dict[bytes, None] = {}

    def learn(self, credential: bytes, data: bytes | None, wall: float) -> bool:
        peer = PeerId(credential[6:])
        if credential[:6] != b"member" or len(peer) != 32:
            raise RejectedFrame(Reason.NOT_MEMBER)
        if b"revoke" + peer in self._revoked:
            raise RejectedFrame(Reason.REVOKED)
        self.members.setdefault(peer, Member(peer, "somebody", "", bytes(32), bytes(32)))
        return data is not None and self.learn_record(record.RECORD.read(data), wall)

    def learn_record(self, told: Record, wall: float) -> bool:
        if told.identity not in self.members:
            raise RejectedFrame(Reason.NOT_MEMBER)
        if not told.is_genuine(check):
            raise RejectedFrame(Reason.BAD_SIGNATURE, told.identity)
        old = self.records.get(told.identity)
        if old is not None and old.precedence >= told.precedence:
            return False
        self.records[told.identity] = told
        return True

    @property
    def revocations(self) -> tuple[bytes, ...]:
        return tuple(self._revoked)

    def revoke(self, revocation: bytes, wall: float) -> bool:
        """b"revoke" and the id."""
        if revocation[:6] != b"revoke":
            raise RejectedFrame(Reason.BAD_CHAIN)
        is_new = revocation not in self._revoked
        self._revoked[revocation] = None
        self.members.pop(PeerId(revocation[6:]), None)
        return is_new

    def entry(self, peer: PeerId) -> tuple[bytes, bytes]:
        told = self.records.get(peer)
        return b"member" + peer, told.data if told is not None else b""


def record_of(
    peer: PeerId, incarnation: int = 0, neighbors: Iterable[PeerId] = (), epoch: int = 1, has_left: bool = False, boot: int = 0
) -> Record:
    """A genuine record. `boot` tells apart two starts in one epoch."""
    own = Member(peer, "somebody", f"host{peer[0]}-{boot}:4000", hashlib.blake2b(peer, digest_size=32).digest(), b"\7" * 32)
    boot_id = hashlib.blake2b(peer + b"%d %d" % (epoch, boot), digest_size=16).digest()
    sign = FakeOath(peer).sign
    return record.state(sign, NETWORK, own, epoch, boot_id, incarnation, WALL, neighbors=tuple(neighbors), has_left=has_left)


@dataclass
class House:
    """One peer of the village. `epoch` survives its deaths; so does the registry, which is its peer file."""

    peer: PeerId
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    epoch: int = 0
    boot: int = 0
    life: Membership | None = None
    is_paused: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)
    wanted: set[PeerId] = field(default_factory=set)
    links: set[PeerId] = field(default_factory=set)
    clock_ahead: float = 0.0
    bytes_sent: int = 0
    largest: int = 0
    dials: list[float] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    conflicts: list[IdentityConflict] = field(default_factory=list)
    greeted: list[PeerId] = field(default_factory=list)


class Village:
    """The network. `now` is virtual; the same seed is the same story."""

    def __init__(
        self,
        count: int,
        seed: int = 0,
        rules: MembershipRules = LAN,
        delay: tuple[float, float] = (0.001, 0.005),
        loss: float = 0.0,
        watch: Callable[[Sequence[PeerId], PeerId], Sequence[PeerId]] | None = None,
    ) -> None:
        self.now = 0.0
        self.rules, self.delay, self.loss = rules, delay, loss
        self.houses: dict[PeerId, House] = {}
        self.cuts: set[tuple[PeerId, PeerId]] = set()
        self.seed = seed
        self.watch = watch or (lambda live, own: watched(live, own, seed))
        self.chance = Choices(seed, b"village")
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        for k in range(count):
            self.build(k)
        everyone = tuple(sorted(self.houses))
        acquaintance = FakeRegistry()
        for peer in everyone:  # what each will say at its first start, so that nobody has news
            acquaintance.learn(b"member" + peer, record_of(peer, neighbors=self.watch(everyone, peer)).data, WALL)
        for house in self.houses.values():
            house.registry.members.update(acquaintance.members)
            house.registry.records.update(acquaintance.records)
        for house in list(self.houses.values()):
            self.start(house.peer)

    # ---- peers ----------------------------------------------------------------------------------------------------------

    def build(self, k: int) -> PeerId:
        """A peer that was never started."""
        peer = id_of(k)
        self.houses[peer] = House(peer)
        return peer

    def join(self, k: int, via: PeerId) -> PeerId:
        """A newcomer that got the records of a few members from the one that let it in."""
        peer = self.build(k)
        registry, host = self.houses[peer].registry, self.houses[via].registry
        registry.learn(b"member" + peer, None, WALL)
        for known in {via, *self.life(via).view.live[:3]}:
            registry.learn(b"member" + known, host.records[known].data, WALL)
        self.start(peer)
        return peer

    def start(self, peer: PeerId, boot: int = 0, epoch: int | None = None) -> Membership:
        """Start it, or start it again."""
        house = self.houses[peer]
        house.epoch = house.epoch + 1 if epoch is None else epoch
        house.boot, house.is_paused = boot, False

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, _wall: float) -> Record:
            return record_of(peer, incarnation, neighbors, house.epoch, has_left, boot)

        boot_id = record_of(peer, epoch=house.epoch, boot=boot).boot_id
        choices = Choices(self.seed, peer + bytes([house.epoch]))
        house.life = Membership(
            peer,
            NETWORK,
            self.rules,
            house.registry,
            FakeOath(peer),
            Boot(house.epoch, boot_id),
            author,
            self.watch,
            choices,
            self.instant(peer),
            bootstrap=tuple(sorted(house.registry.members))[:3],
        )
        self.call(peer, lambda life: life.tick(self.instant(peer)))
        return house.life

    def kill(self, peer: PeerId, silently: bool = False) -> None:
        """SIGKILL: the machine resets its links at once. Silently: the power went, and links hang."""
        house = self.houses[peer]
        house.life = None
        house.wanted.clear()
        for other in sorted(house.links):
            if silently:
                self._watch_link(peer, other)
            else:
                self._drop(peer, other)

    def leave(self, peer: PeerId) -> None:
        """It says good-bye and ends."""
        self.call(peer, lambda life: life.leave(self.instant(peer)))
        self.at(self.now + self.delay[1], lambda: self.kill(peer))  # what was sent before a link is closed arrives

    def pause(self, peer: PeerId) -> None:
        """SIGSTOP: its clock goes on, it does not."""
        self.houses[peer].is_paused = True

    def resume(self, peer: PeerId) -> None:
        """SIGCONT: what waited is read at once."""
        house = self.houses[peer]
        house.is_paused = False
        waiting, house.waiting = house.waiting, []
        for deliver in waiting:
            deliver()
        self.call(peer, lambda life: life.tick(self.instant(peer)))

    # ---- paths ----------------------------------------------------------------------------------------------------------

    def cut(self, sender: PeerId, receiver: PeerId) -> None:
        """Nothing goes this way any more."""
        self.cuts.add((sender, receiver))
        self._watch_link(sender, receiver)

    def split(self, *groups: Iterable[PeerId]) -> None:
        """Nothing goes between groups."""
        side = {peer: k for k, group in enumerate(groups) for peer in group}
        for one in self.houses:
            for other in self.houses:
                if one != other and side.get(one) != side.get(other):
                    self.cut(one, other)

    def heal(self) -> None:
        self.cuts.clear()

    # ---- looking on -----------------------------------------------------------------------------------------------------

    def life(self, peer: PeerId) -> Membership:
        life = self.houses[peer].life
        assert life is not None
        return life

    @property
    def living(self) -> list[PeerId]:
        return sorted(peer for peer, house in self.houses.items() if house.life is not None)

    def agree(self, on: Iterable[PeerId] | None = None) -> bool:
        """Whether every living peer sees exactly these, the living if none are named."""
        expected = tuple(sorted(self.living if on is None else on))
        return all(self.life(peer).view.live == expected for peer in expected if self.houses[peer].life is not None)

    def until(self, holds: Callable[[], bool], within: float, step: float = 0.25) -> float:
        """Run until something holds; how long it took. Fails where it does not in time."""
        began = self.now
        while not holds():
            assert self.now - began < within, f"not within {within} s (seed {self.seed})"
            self.run(step)
        return self.now - began

    def rejections(self) -> list[Reason]:
        return [rejected.reason for house in self.houses.values() for rejected in house.rejected]

    # ---- time -----------------------------------------------------------------------------------------------------------

    def instant(self, peer: PeerId) -> Instant:
        return Instant(self.now, WALL + self.now + self.houses[peer].clock_ahead)

    def at(self, moment: float, act: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (moment, self._count, act))

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        end = self.now + seconds
        while self._agenda and self._agenda[0][0] <= end:
            self.now, _, act = heapq.heappop(self._agenda)
            act()
        self.now = end

    def call(self, peer: PeerId, door: Callable[[Membership], list[MembershipEffect]]) -> None:
        """Something happens to a peer; its effects are carried out."""
        house = self.houses[peer]
        life = house.life
        if life is None:
            return
        if house.is_paused:
            house.waiting.append(lambda: self.call(peer, door))
            return
        before = life.deadline
        for effect in door(life):
            self._carry_out(house, effect)
        if life.deadline != before:
            self.at(max(life.deadline, self.now), lambda: self._due(peer, life))

    def _due(self, peer: PeerId, life: Membership) -> None:
        if self.houses[peer].life is life and life.deadline <= self.now and not self.houses[peer].is_paused:
            self.call(peer, lambda life: life.tick(self.instant(peer)))
            if life.deadline <= self.now:
                self.at(self.now, lambda: self._due(peer, life))

    def _carry_out(self, house: House, effect: MembershipEffect) -> None:
        match effect:
            case Send(to, frames):
                frame = bytes(frames[0])  # type: ignore[call-overload]
                house.bytes_sent += len(frame)
                house.largest = max(house.largest, len(frame))
                self._send(house.peer, to, frame)
            case Dial(peer):
                house.wanted.add(peer)
                house.dials.append(self.now)
                self._dial(house.peer, peer)
            case HangUp(peer):
                house.wanted.discard(peer)
                if peer in house.links and house.peer not in self.houses[peer].wanted:
                    self._drop(house.peer, peer)
            case Rejected():
                house.rejected.append(effect)
            case IdentityConflict():
                house.conflicts.append(effect)
            case Greet(peer):
                house.greeted.append(peer)
            case ViewChanged():
                pass
            case _:
                assert_never(effect)

    def _send(self, sender: PeerId, receiver: PeerId, frame: bytes) -> None:
        if receiver not in self.houses[sender].links or (sender, receiver) in self.cuts:
            return
        if self.loss and self.chance.uniform(0.0, 1.0) < self.loss:
            return

        def deliver() -> None:
            if sender in self.houses[receiver].links:
                message = gossip_wire.decode(frame)
                self.call(receiver, lambda life: life.receive(self.instant(receiver), sender, message))

        self.at(self.now + self.chance.uniform(*self.delay), deliver)

    def _is_open(self, one: PeerId, other: PeerId) -> bool:
        return (one, other) not in self.cuts and (other, one) not in self.cuts

    def _dial(self, caller: PeerId, callee: PeerId) -> None:
        """A handshake takes one way there and one back."""

        def shake() -> None:
            ends = self.houses[caller], self.houses[callee]
            if ends[0].life is None or callee not in ends[0].wanted or callee in ends[0].links:
                return
            if not self._is_open(caller, callee) or ends[1].is_paused:
                self.at(self.now + REDIAL_S, lambda: self._dial(caller, callee))
            elif ends[1].life is None:
                self.call(caller, lambda life: life.dial_refused(self.instant(caller), callee))
                self.at(self.now + REDIAL_S, lambda: self._dial(caller, callee))
            elif self._knows(callee, caller):
                ends[0].links.add(callee)
                ends[1].links.add(caller)
                self.call(caller, lambda life: life.link_up(self.instant(caller), callee))
                self.call(callee, lambda life: life.link_up(self.instant(callee), caller))

        self.at(self.now + self.chance.uniform(*self.delay) + self.chance.uniform(*self.delay), shake)

    def _knows(self, callee: PeerId, caller: PeerId) -> bool:
        """Whom it does not know yet shows its credential and its record at the join door."""
        registry = self.houses[callee].registry
        if caller not in registry.members:
            try:
                registry.learn(b"member" + caller, self.life(caller).record.data, WALL)
            except RejectedFrame:
                return False
        return True

    def _watch_link(self, one: PeerId, other: PeerId) -> None:
        """Both ends give a link up that has carried nothing for a while."""

        def look() -> None:
            ends = self.houses[one], self.houses[other]
            if not self._is_open(one, other) or ends[0].life is None or ends[1].life is None:
                self._drop(one, other)

        self.at(self.now + LINK_TIMEOUT_S, look)

    def _drop(self, one: PeerId, other: PeerId) -> None:
        for end, far in ((one, other), (other, one)):
            if far in self.houses[end].links:
                self.houses[end].links.discard(far)
                self.call(end, lambda life, end=end, far=far: life.link_down(self.instant(end), far))  # type: ignore[misc]
                if far in self.houses[end].wanted:
                    self._dial(end, far)


def entry_map(village: Village) -> Mapping[PeerId, tuple[PeerId, ...]]:
    """Whom everybody sees."""
    return {peer: village.life(peer).view.live for peer in village.living}
