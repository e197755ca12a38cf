"""Membership over the real `Roster` and `Keyring`: certificates, Ed25519 and all, for few peers."""

from collections.abc import Iterable

import pytest

from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.reconciliation import Reconciliation
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.admission.revocation import Cause, revoke
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters, sign_charter
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, GossipRules
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Dial, HangUp, Instant, MembershipEffect, PeerId, Rejected, Send
from p2pfl.protocol.identity import Keyring
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Introduction, Records
from p2pfl.protocol.membership.membership import Membership
from p2pfl.protocol.membership.rules import LAN
from p2pfl.protocol.randomness import Choices
from tests.admission import NOW, Network, Person, forged
from topology.overlay import watched

ANN, BOB, CAT, DAN = (Person(name) for name in ("ann", "bob", "cat", "dan"))


class Table:
    """Peers at one table: every frame arrives at once, everybody is linked to everybody who lives."""

    def __init__(self, network: Network, people: Iterable[Person]) -> None:
        self.network, self.now = network, 0.0
        self.rosters: dict[PeerId, Roster] = {}
        self.lives: dict[PeerId, Membership] = {}
        self.dials: set[tuple[PeerId, PeerId]] = set()
        self.rejected: list[Reason] = []
        people = list(people)
        for person in people:
            self.seat(person, network.roster(*people))

    def seat(self, person: Person, roster: Roster) -> None:
        keyring = Keyring(person.identity, roster.members)

        def author(incarnation: int, neighbors: tuple[PeerId, ...], has_left: bool, wall: float) -> Record:
            return person.record(self.network.id, incarnation + 1, neighbors=neighbors, has_left=has_left, wall=wall)

        self.rosters[person.id] = roster
        self.lives[person.id] = Membership(
            person.id,
            self.network.id,
            LAN,
            roster,
            keyring,
            Boot(1, b"b" * 16),
            author,
            lambda live, own: [PeerId(peer) for peer in watched(live, own, 1)],
            Choices(1, person.id),
            self.instant,
        )

    @property
    def instant(self) -> Instant:
        return Instant(self.now, NOW + self.now)

    def carry_out(self, own: PeerId, effects: list[MembershipEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Send) and effect.to in self.lives:
                message = gossip_wire.decode(bytes(effect.frames[0]))  # type: ignore[call-overload]
                self.carry_out(effect.to, self.lives[effect.to].receive(self.instant, own, message))
            elif isinstance(effect, Dial):
                self.dials.add((own, effect.peer))
            elif isinstance(effect, Rejected):
                self.rejected.append(effect.reason)

    def dial(self, own: PeerId, peer: PeerId) -> None:
        """Nobody answers a stranger; whoever dialled tries again."""
        if peer in self.lives and own in self.rosters[peer].members:
            self.dials.discard((own, peer))
            self.carry_out(own, self.lives[own].link_up(self.instant, peer))
            self.carry_out(peer, self.lives[peer].link_up(self.instant, own))

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.1)):
            self.now += 0.1
            for own in sorted(self.lives):
                if self.lives[own].deadline <= self.now:
                    self.carry_out(own, self.lives[own].tick(self.instant))
            for own, peer in sorted(self.dials):
                self.dial(own, peer)

    def views(self) -> set[tuple[PeerId, ...]]:
        return {life.view.live for life in self.lives.values()}


def ids(*people: Person) -> tuple[PeerId, ...]:
    return tuple(sorted(person.id for person in people))


@pytest.mark.fault("stranger", "revoked")
def test_certified_members_see_a_death_a_newcomer_and_a_revocation_and_refuse_a_self_made_certificate() -> None:
    network = Network()
    table = Table(network, (ANN, BOB, CAT))
    table.run(5.0)
    assert table.views() == {ids(ANN, BOB, CAT)} and not table.rejected

    del table.lives[CAT.id]
    _, longest = LAN.suspicion_s(3)
    table.run(longest + 3.0)
    assert table.views() == {ids(ANN, BOB)}

    # Ann alone has admitted Dan; Bob learns his certificate with his record.
    table.rosters[ANN.id].learn(network.direct(DAN).data, DAN.record(network.id).data, NOW)
    table.seat(DAN, network.roster(ANN, BOB, DAN))
    table.run(5.0)
    assert table.views() == {ids(ANN, BOB, DAN)} and not table.rejected

    own_word = revoke(signer(DAN.identity.sign_seed), network.id, DAN.id, DAN.id, Cause.STOLEN, NOW)
    table.carry_out(ANN.id, table.lives[ANN.id].revoke(table.instant, own_word.data))
    table.run(5.0)
    assert table.lives[BOB.id].view.live == table.lives[ANN.id].view.live == ids(ANN, BOB)

    eve = Person("eve")
    self_made = Introduction(eve.record(network.id).data, Credential(forged(b"\2" * 32, eve, network.id)).data)
    effects = table.lives[BOB.id].receive(table.instant, ANN.id, Records(gossip_wire.encode_item(self_made)))
    assert Reason.BAD_CHAIN in [effect.reason for effect in effects if isinstance(effect, Rejected)]
    assert eve.id not in table.lives[BOB.id].view


# ---- one invite, two halves ------------------------------------------------------------------------------------------------


class Halves(Table):
    """Also what a node does beside: links that break and are dialled again, inventories of papers that are exchanged over each
    new link and now and then, and a membership that hears when the roster changed."""

    def __init__(self, network: Network, people: Iterable[Person]) -> None:
        self.sides: dict[PeerId, int] = {}
        self.wanted: set[tuple[PeerId, PeerId]] = set()
        self.versions: dict[PeerId, int] = {}
        self.talks: dict[PeerId, Reconciliation] = {}
        super().__init__(network, people)

    def seat(self, person: Person, roster: Roster) -> None:
        super().seat(person, roster)
        charter = Charter(self.network.name, self.network.root.key, b"s" * 32, 1000, GossipRules())
        signed = sign_charter(self.network.root.sign, charter, 1, NOW, {})
        charters = Charters(self.network.root.key, signed)
        self.talks[person.id] = Reconciliation(roster, charters, Choices(7, person.id))

    def is_open(self, one: PeerId, other: PeerId) -> bool:
        return self.sides.get(one) == self.sides.get(other)

    def carry_out(self, own: PeerId, effects: list[MembershipEffect]) -> None:
        for effect in effects:
            if isinstance(effect, Dial):
                self.wanted.add((own, effect.peer))
            elif isinstance(effect, HangUp):
                self.wanted.discard((own, effect.peer))
                self.dials.discard((own, effect.peer))
        reached = [e for e in effects if not isinstance(e, Send) or self.is_open(own, e.to)]
        super().carry_out(own, reached)

    def dial(self, own: PeerId, peer: PeerId) -> None:
        """The callee has to know the caller, who is told nothing otherwise."""
        if self.is_open(own, peer) and peer in self.lives and own in self.rosters[peer].members:
            super().dial(own, peer)
            self.compare_papers(own, peer)

    def compare_papers(self, own: PeerId, peer: PeerId) -> None:
        waiting = [(peer, own, self.talks[own].inventory())]
        while waiting:
            at, hop, frame = waiting.pop()
            waiting += [(hop, at, answer) for answer in self.talks[at].receive(hop, frame, self.instant).answers]

    def split(self, *sides: tuple[Person, ...]) -> None:
        self.sides = {person.id: k for k, side in enumerate(sides) for person in side}
        for own in sorted(self.lives):
            for peer in sorted(self.lives):
                if not self.is_open(own, peer):
                    self.carry_out(own, self.lives[own].link_down(self.instant, peer))
        self.dials |= {pair for pair in self.wanted if not self.is_open(*pair)}

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            super().run(1.0)
            for own in sorted(self.lives):
                if self.versions.get(own) != self.rosters[own].members_version:
                    self.versions[own] = self.rosters[own].members_version
                    self.carry_out(own, self.lives[own].registry_changed(self.instant))


@pytest.mark.fault("invites")
@pytest.mark.fault("split")
def test_an_invite_for_one_that_was_used_in_both_halves_of_a_split_is_found_when_it_heals_and_both_are_held() -> None:
    """Neither half could know. Nobody says who was first; an issuer decides, and whom it certifies is a member."""
    network, founders = Network(), (ANN, BOB, CAT, DAN)
    eve, fay = Person("eve"), Person("fay")
    table = Halves(network, founders)
    table.run(5)
    line = network.invite(uses=1)
    table.split((ANN, BOB, eve), (CAT, DAN, fay))
    table.run(40)
    assert table.views() == {ids(ANN, BOB), ids(CAT, DAN)}
    for newcomer, door in ((eve, ANN), (fay, CAT)):
        credential = network.admitted(line, newcomer, by=door, now=NOW + table.now)
        table.rosters[door.id].learn(credential.data, newcomer.record(network.id).data, NOW + table.now)
        roster = network.roster(*founders)
        roster.learn(credential.data, newcomer.record(network.id).data, NOW + table.now)
        table.seat(newcomer, roster)
    table.run(10)
    assert table.views() == {ids(ANN, BOB, eve), ids(CAT, DAN, fay)}
    assert not any(roster.conflicts for roster in table.rosters.values())

    table.sides = {}
    table.run(120)
    for founder in founders:
        (conflict,) = table.rosters[founder.id].conflicts
        assert set(conflict.identities) == {eve.id, fay.id}
        assert table.rosters[founder.id].standing(eve.id) is table.rosters[founder.id].standing(fay.id) is Reason.HELD
        assert table.lives[founder.id].view.live == ids(*founders)

    table.rosters[ANN.id].learn(network.direct(eve, NOW + table.now, serial=2).data, None, NOW + table.now)
    table.run(60)
    assert table.rosters[ANN.id].standing(eve.id) is None
    assert {founder.id for founder in founders if eve.id in table.lives[founder.id].view} >= {ANN.id}
