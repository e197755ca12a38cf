"""A network to admit members to: its root, an issuer, identities, and a clock that only tests move."""

from dataclasses import dataclass
from functools import cached_property

from p2pfl.protocol.admission.authority import Authority
from p2pfl.protocol.admission.certificate import CERTIFICATE, DAY_S, RECEIPT, Certificate, Credential, Receipt, Role
from p2pfl.protocol.admission.invite import InviteLine
from p2pfl.protocol.admission.record import Record, state
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.statement import public_key, signer
from p2pfl.protocol.charter import Member, network_id
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity
from sim.entropy import SeededEntropy

NAME = "wards"
NOW = 1_800_000_000.0
DAY = float(DAY_S)


@dataclass(frozen=True)
class Person:
    """Somebody with an identity, in the network or not."""

    name: str

    @cached_property
    def identity(self) -> Identity:
        return Identity.generate(SeededEntropy(7, self.name.encode()))

    @cached_property
    def id(self) -> PeerId:
        return self.identity.peer_id

    @cached_property
    def member(self) -> Member:
        return Member(self.id, self.name, f"{self.name}:7780", self.identity.transport_key, self.identity.seal_key)

    def record(self, network: bytes, incarnation: int = 0, **values: object) -> Record:
        own = values.pop("own", self.member)
        wall = values.pop("wall", NOW)
        sign = signer(self.identity.sign_seed)
        return state(sign, network, own, 1, b"b" * 16, incarnation, wall, **values)  # type: ignore[arg-type]


class Network:
    """A root and what it makes. `seed` tells two networks of one name apart."""

    def __init__(self, seed: int = 1, name: str = NAME) -> None:
        root = bytes([seed]) * 32
        self.name = name
        self.root = Authority(root, network_id(public_key(root), name))
        self.id = self.root.network
        office = bytes([seed + 100]) * 32
        self.issuer = Authority(office, self.id, self.root.delegate(public_key(office), "office", NOW, 300, 1))

    def roster(self, *people: Person) -> Roster:
        """One that knows these, certified by the root."""
        roster = Roster(self.id, self.root.key)
        for person in people:
            roster.learn(self.direct(person).data, person.record(self.id).data, NOW)
        return roster

    def direct(
        self, person: Person, now: float = NOW, days: float = 30, by: Authority | None = None, serial: int = 1
    ) -> Credential:
        return (by or self.root).vouch(person.id, person.name, now, days, serial)

    def invite(
        self, token: bytes = b"t" * 32, uses: int = 1, now: float = NOW, ttl_s: float = 3600.0, by: Authority | None = None
    ) -> InviteLine:
        """`token` is the seed."""
        authority = by or self.root
        invite = authority.invite(public_key(token), now, ttl_s, uses)
        return InviteLine.make(self.name, self.root.key, token, invite, authority.certificate, {"10.0.0.1:7781": b"k" * 32})

    def admitted(self, line: InviteLine, person: Person, by: Person, now: float = NOW + 60) -> Credential:
        """What `person` has once `by` let it in."""
        return receipted(line.redeem(person.id, person.name, now), by, now)


def receipted(credential: Credential, by: Person, now: float) -> Credential:
    """The credential with a receipt; honest members would first look whether there is a use left."""
    certificate = credential.certificate
    receipt = sign_receipt(by, certificate, credential.token, now)
    return Credential(certificate, credential.issuer, credential.invite, receipt)


def sign_receipt(by: Person, certificate: Certificate, token: bytes, now: float, **values: object) -> Receipt:
    said = {
        "network": certificate.network,
        "token": token,
        "certificate": certificate.digest,
        "admitter": by.id,
        "admitted_at": int(now),
    }
    return RECEIPT.issue(signer(by.identity.sign_seed), **said | values)


def forged(seed: bytes, person: Person, network: bytes, **values: object) -> Certificate:
    """A certificate with any values, by any key."""
    said = {
        "network": network,
        "identity": person.id,
        "name": person.name,
        "role": Role.MEMBER,
        "not_before": int(NOW - DAY),
        "not_after": int(NOW + 30 * DAY),
        "serial": 1,
    }
    return CERTIFICATE.issue(signer(seed), **said | values)
