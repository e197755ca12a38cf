"""How somebody becomes an issuer: an application, which its key signed, and the root's answer. Both are lines of text.

An issuer's key is no member's identity: it can rest under a passphrase while the node beside it runs without anybody, and it
can be revoked alone.
"""

from dataclasses import dataclass, field

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.authority import Authority, check_name
from p2pfl.protocol.admission.certificate import CERTIFICATE, CERTIFICATE_MAX, Certificate, Role
from p2pfl.protocol.admission.statement import KEY, NAME_MAX, NETWORK, SECONDS, Form, Sign, text
from p2pfl.protocol.charter import network_id
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.wire import Field, octets, pack_values, read_fields, require, unpack_values, write_fields

APPLICATION_MAX = 256
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Application:
    """Somebody asks the root of a network to be an issuer under this key, which signed it, and this name."""

    network: bytes
    key: bytes
    name: str
    wall: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuerLine:
    """The root's answer: an issuer's certificate, with the name and the root key that its network is known by."""

    name: str
    root: bytes
    certificate: bytes

    @classmethod
    def parse(cls, line: str) -> "IssuerLine":
        """What `str` gave. Raises `Failure` with exit code IDENTITY unless the root in it really made an issuer."""
        data = armor.from_line("issuer", line)
        try:
            version, *values = unpack_values(data, 1 + len(FIELDS))
            if version != _FORMAT:
                raise RejectedFrame(Reason.VERSION)
            found = cls(*read_fields(values, FIELDS))
            check_issuer(found.statement(), found.root, network_id(found.root, found.name))
        except RejectedFrame as refused:
            message = f"This answer was changed, or made by another program ({refused.reason})."
            raise _failure("bad_issuer", message, "Ask the holder of the root key for it again.") from None
        return found

    def __str__(self) -> str:
        return armor.to_line("issuer", pack_values([_FORMAT, *write_fields(self, FIELDS)]))

    def statement(self) -> Certificate:
        """The certificate itself."""
        return CERTIFICATE.read(self.certificate)


def check_issuer(certificate: Certificate, root: bytes, network: bytes) -> None:
    """Raises `RejectedFrame` with WRONG_NETWORK or BAD_CHAIN unless the root made its holder an issuer of this network, at
    whatever time."""
    if certificate.network != network:
        raise RejectedFrame(Reason.WRONG_NETWORK)
    if certificate.role is not Role.ISSUE or not CERTIFICATE.is_by(certificate, root):
        raise RejectedFrame(Reason.BAD_CHAIN)


def apply(sign: Sign, network: bytes, key: bytes, name: str, now: float) -> Application:
    """An application for oneself. Raises `Failure` for a name that can't be one."""
    check_name(name)
    return APPLICATION.issue(sign, network=network, key=key, name=name, wall=int(now))


def application_line(application: Application) -> str:
    """The application as a line of text."""
    return armor.to_line("application", application.data)


def read_application(line: str, network: bytes) -> Application:
    """The application in a line, if its key signed it for this network. Raises `Failure` with exit code IDENTITY."""
    try:
        found = APPLICATION.read(armor.from_line("application", line))
        require(APPLICATION.is_by(found, found.key))
    except RejectedFrame as refused:
        message = f"This application can't be believed ({refused.reason})."
        raise _failure("bad_application", message, "Have it made again: p2pfl network issuer --request FILE") from None
    if found.network != network:
        raise _failure("other_network", "This application is for another network.", "Give the --dir of that network's node.")
    return found


def delegated(root: Authority, name: str, application: Application, now: float, days: float, serial: int) -> IssuerLine:
    """The root's answer, in the network of this name. Raises `Failure` for too many days."""
    certificate = root.delegate(application.key, application.name, now, days, serial)
    return IssuerLine(name, root.key, certificate.data)


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)


APPLICATION = Form(
    b"p2pfl/issuer/v1\0",
    Application,
    {"network": NETWORK, "key": KEY, "name": text(NAME_MAX), "wall": SECONDS},
    APPLICATION_MAX,
)

FIELDS: dict[str, Field] = {"name": text(NAME_MAX), "root": KEY, "certificate": octets(1, CERTIFICATE_MAX)}
