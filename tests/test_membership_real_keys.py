"""Membership over the real `Roster` and `Keyring`: certificates, Ed25519 and all, for few peers."""

from collections.abc import Iterable

import pytest

from p2pfl.protocol.admission.certificate import Credential
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.admission.revocation import Cause, revoke
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Dial, Instant, MembershipEffect, PeerId, Rejected, Send
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
