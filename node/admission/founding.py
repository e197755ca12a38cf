"""`p2pfl network create`: a root key, the charter that it signs, and the first member."""

from dataclasses import dataclass
from typing import Any

from node import node_settings
from node.admission.fitting import measured
from node.admission.terms import Terms
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.node_settings import NodeSettings
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.authority import Authority, check_name
from p2pfl.protocol.admission.certificate import MEMBER_DAYS_MAX, Credential
from p2pfl.protocol.admission.record import Record, state
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.admission.signed_charter import Charters, SignedCharter, sign_charter
from p2pfl.protocol.admission.statement import KEY_BYTES, public_key, signer
from p2pfl.protocol.boot import BOOT_ID_BYTES
from p2pfl.protocol.charter import Charter, Member, network_id
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.identity import Identity


@dataclass(frozen=True, slots=True)
class Founded:
    """What was made."""

    name: str
    network: bytes
    root: bytes
    member: str
    directory: NodeDirectory

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "network": self.network.hex(),
            "root": self.root.hex(),
            "member": self.member,
            "directory": str(self.directory.path),
        }


def found(
    name: str, member: str, directory: NodeDirectory, terms: Terms, settings: NodeSettings, passphrase: str | None
) -> Founded:
    """Make the network and its first node in this folder; the last file to be written is the one that says so. Raises
    `Failure`."""
    check_name(name)
    check_name(member)
    now = believed_time()
    refuse_inhabited(directory)
    entropy = SystemEntropy()
    identity = Identity.generate(entropy)
    seed = entropy.draw(KEY_BYTES)
    root = Authority(seed, network_id(public_key(seed), name))
    fit = measured(terms, settings, identity.peer_id)
    agreed = Charter(name, root.key, fit.schema, fit.update_bytes, terms.rules)
    charter = signed(root, agreed, 1, now, terms)
    sealed = [secret.to_bytes(passphrase, entropy) for secret in (root, identity)]
    directory.create()
    directory.write_secret(directory.root_key, sealed[0], "a root key")
    directory.write_identity(sealed[1])
    credential = root.vouch(identity.peer_id, member, now, MEMBER_DAYS_MAX, serial=int(now))
    roster = Roster(root.network, root.key)
    record = own_record(identity, member, root.network, directory, settings, now)
    roster.learn(credential.data, record.data, now)
    roster.witness(now)
    settle(directory, credential, Charters(root.key, charter), roster)
    node_settings.save(directory, settings)
    return Founded(name, root.network, root.key, member, directory)


def signed(root: Authority, agreed: Charter, serial: int, now: float, terms: Terms) -> SignedCharter:
    """The charter, under the root's signature. Raises `Failure` for settings that have no room in one."""
    try:
        return sign_charter(root.sign, agreed, serial, now, terms.sections())
    except RejectedFrame:
        message = "These settings can't be in a charter: it has room for words, numbers and 2 KiB."
        raise Failure("bad_settings", message, "Give shorter names, without spaces or paths.") from None


def refuse_inhabited(directory: NodeDirectory) -> None:
    """Raises `Failure` for a folder with somebody's keys or network in it."""
    for path in (directory.identity, directory.root_key, directory.settings):
        if path.exists():
            message = f"{directory.path}: there is a node already."
            hint = "It was left as it is; choose another --dir, or start it: p2pfl node start"
            raise Failure("directory_exists", message, hint, ExitCode.IDENTITY)


def own_record(
    identity: Identity, name: str, network: bytes, directory: NodeDirectory, settings: NodeSettings, now: float
) -> Record:
    """What the node says of itself before it runs; at its start it says more. Takes a boot epoch."""
    own = Member(identity.peer_id, name, "", identity.transport_key, identity.seal_key)
    epoch = directory.next_boot_epoch(now)
    boot_id = SystemEntropy().draw(BOOT_ID_BYTES)
    sign = signer(identity.sign_seed)
    return state(sign, network, own, epoch, boot_id, 0, now, addresses=settings.advertised(), door=settings.door)


def settle(directory: NodeDirectory, credential: Credential, charters: Charters, roster: Roster) -> None:
    """What a member knows, on its disk."""
    directory.write(directory.charter, charters.to_bytes())
    directory.write(directory.roster, roster.to_bytes())
    directory.write(directory.credential, credential.data)
