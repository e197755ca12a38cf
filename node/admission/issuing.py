"""Being an issuer: its key and certificate in a member's folder, from the application to the root's answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from node.admission import papers
from node.admission.papers import Papers
from node.directory import NodeDirectory, read_secret
from node.disk import read_whole
from node.entropy import SystemEntropy
from node.moment import believed_time
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission import authority
from p2pfl.protocol.admission.admissions import ISSUED_MAX
from p2pfl.protocol.admission.authority import Authority
from p2pfl.protocol.admission.certificate import CERTIFICATE, CERTIFICATE_MAX, Certificate
from p2pfl.protocol.admission.issuer import Application, IssuerLine, apply, check_issuer
from p2pfl.protocol.admission.statement import KEY_BYTES, public_key, signer
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.report.plain import plain

Passphrase = Callable[[], str]
MEND = "Ask to be an issuer: p2pfl network issuer --request FILE"


@dataclass(frozen=True, slots=True)
class Standing:
    """What an issuer may do. `trouble`: why nothing; "" where nothing is wrong."""

    certificate: Certificate
    vouched_for: int
    trouble: str

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.certificate.name,
            "key": self.certificate.identity.hex(),
            "expires": self.certificate.not_after,
            "vouched_for": self.vouched_for,
            "may_vouch_for": ISSUED_MAX,
            "trouble": self.trouble,
        }


def applied(
    directory: NodeDirectory, name: str | None, new_passphrase: Callable[[], str | None], passphrase: Passphrase
) -> Application:
    """An application, with a new issuer's key in the folder, or with the one that is there; it is called as the member is, if
    it has no other name. Raises `Failure`."""
    known = papers.read(directory)
    now = believed_time()
    called = name or papers.credential(directory).certificate.name
    if directory.issuer_key.exists():
        seed = _seed(directory, passphrase)
        return apply(signer(seed), known.roster.network, public_key(seed), called, now)
    seed = SystemEntropy().draw(KEY_BYTES)
    application = apply(signer(seed), known.roster.network, public_key(seed), called, now)
    sealed = Authority(seed, known.roster.network).to_bytes(new_passphrase(), SystemEntropy())
    directory.write_secret(directory.issuer_key, sealed, "an issuer's key")
    return application


def accepted(directory: NodeDirectory, line: IssuerLine, passphrase: Passphrase) -> Certificate:
    """The root's answer, kept in the folder of who applied. Raises `Failure`."""
    known = papers.read(directory)
    certificate = line.statement()
    try:
        check_issuer(certificate, known.roster.root, known.roster.network)
    except RejectedFrame:
        message = f"This answer is for an issuer of another network than {plain(known.name)}."
        raise _failure("other_network", message, "Give the --dir of the node whose issuer applied.") from None
    if public_key(_seed(directory, passphrase)) != certificate.identity:
        message = f"{directory.issuer_key}: this answer is for another key."
        raise _failure("other_key", message, "Give the --dir of the node whose issuer applied.")
    directory.write(directory.issuer, certificate.data)
    return certificate


def standing(directory: NodeDirectory) -> Standing:
    """Raises `Failure` where there is no issuer in this folder."""
    known, certificate = papers.read(directory), certificate_in(directory)
    return Standing(certificate, known.roster.issued_by(certificate.identity), trouble_of(known, certificate))


def certificate_in(directory: NodeDirectory) -> Certificate:
    """The root's answer to whoever is an issuer here. Raises `Failure` with exit code IDENTITY."""
    try:
        return CERTIFICATE.read(read_whole(directory.issuer, CERTIFICATE_MAX))
    except FileNotFoundError:
        raise _failure("no_issuer", f"{directory.path}: there is no issuer here.", MEND) from None
    except OSError as error:
        raise _failure("unreadable_issuer", f"{directory.issuer}: {error.strerror}.", "Look at its owner and mode.") from None
    except RejectedFrame:
        message = f"{directory.issuer} is no issuer's certificate, or was cut off or changed."
        raise _failure("issuer_damaged", message, "Give the root's answer again: p2pfl network issuer LINE") from None


def opened(directory: NodeDirectory, known: Papers, passphrase: Passphrase) -> Authority:
    """What an issuer signs with. Raises `Failure`, also where it may sign nothing any more."""
    certificate = certificate_in(directory)
    trouble = trouble_of(known, certificate)
    if trouble:
        raise _failure("issuer_ended", f"The issuer {plain(certificate.name)} {trouble}.", "Ask the holder of the root key.")
    found = Authority(_seed(directory, passphrase), known.roster.network, certificate)
    if found.key != certificate.identity:
        message = f"{directory.issuer_key} and {directory.issuer} are of two keys."
        raise _failure("issuer_damaged", message, "Restore them from one copy.")
    return found


def trouble_of(known: Papers, certificate: Certificate) -> str:
    """Why nothing that this issuer signs counts any more, in words that follow its name."""
    try:
        check_issuer(certificate, known.roster.root, known.roster.network)
    except RejectedFrame:
        return "was never vouched for by the root of this network"
    if known.roster.is_revoked(certificate.identity):
        return "was revoked, and with it all that it vouched for"
    return "has expired" if certificate.not_after <= believed_time() else ""


def _seed(directory: NodeDirectory, passphrase: Passphrase) -> bytes:
    path = directory.issuer_key
    sealed = read_secret(path, "no issuer key", MEND)
    return authority.FILE.from_bytes(sealed, passphrase() if authority.FILE.is_sealed(sealed, str(path)) else None, str(path))


def _failure(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)
