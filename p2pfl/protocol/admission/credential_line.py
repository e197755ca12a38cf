"""A credential as one line of text, for who was certified from a request: what an invite's line is to the invited. Nothing in
it is secret; without the identity that asked it is of no use."""

from dataclasses import dataclass

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import armor
from p2pfl.protocol.admission.certificate import CREDENTIAL_MAX, Credential
from p2pfl.protocol.admission.invite import DOORS_MAX
from p2pfl.protocol.admission.statement import KEY, KEY_BYTES, NAME_MAX, addresses, text
from p2pfl.protocol.charter import network_id
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.wire import Field, joined, octets, pack_values, read_fields, unpack_values, write_fields

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class CredentialLine:
    """The credential, the root key and the name that the network is known by, and of one to three members where they can be
    asked, and the X25519 key that they answer with."""

    name: str
    root: bytes
    credential: bytes
    addresses: tuple[str, ...]
    transport_keys: tuple[bytes, ...]

    @classmethod
    def make(cls, name: str, root: bytes, credential: Credential, doors: dict[str, bytes]) -> "CredentialLine":
        """`doors`: address to transport key, the first three of them are taken. Raises `Failure` where there is none."""
        taken = dict(list(doors.items())[:DOORS_MAX])
        if not taken:
            raise _failure("no_door", "Whoever is certified must know a member to ask.", "Give the address of one.")
        return cls(name, root, credential.data, tuple(taken), tuple(taken.values()))

    @classmethod
    def parse(cls, line: str) -> "CredentialLine":
        """What `str` gave. Raises `Failure` with exit code IDENTITY; what it returns is consistent and really from the root."""
        data = armor.from_line("credential", line)
        try:
            version, *values = unpack_values(data, 1 + len(FIELDS))
            if version != _FORMAT:
                raise RejectedFrame(Reason.VERSION)
            found = cls(*read_fields(values, FIELDS))
            if len(found.addresses) != len(found.transport_keys):
                raise RejectedFrame(Reason.BAD_HEADER)
            found.statement().verify(found.root, found.network)
        except RejectedFrame as refused:
            message = f"This credential is not for this network, or was changed ({refused.reason})."
            raise _failure("bad_credential", message, "Ask for it again.") from None
        return found

    def __str__(self) -> str:
        return armor.to_line("credential", pack_values([_FORMAT, *write_fields(self, FIELDS)]))

    @property
    def network(self) -> bytes:
        """The id of the network."""
        return network_id(self.root, self.name)

    def statement(self) -> Credential:
        """The credential itself."""
        return Credential.read(self.credential)


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)


FIELDS: dict[str, Field] = {
    "name": text(NAME_MAX),
    "root": KEY,
    "credential": octets(1, CREDENTIAL_MAX),
    "addresses": addresses(DOORS_MAX),
    "transport_keys": joined(KEY_BYTES, DOORS_MAX, "X25519 key of each"),
}
