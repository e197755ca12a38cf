"""`p2pfl node rotate`: new keys for links and for wrapped updates, under the same identity. What the old ones opened stays
opened for whoever recorded it and steals them later; so they are replaced on the disk, and nothing keeps them."""

from dataclasses import dataclass
from typing import Any

from node import node_settings
from node.admission import papers
from node.admission.inquiry import ask_at_once
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.moment import believed_time
from node.transport.sockets import TransportKeys
from p2pfl.protocol.admission.record import Record, state
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.boot import BOOT_ID_BYTES
from p2pfl.protocol.charter import Member
from p2pfl.protocol.identity import SECRET_BYTES, Identity


@dataclass(frozen=True, slots=True)
class Rotated:
    """`is_announced`: a member has heard of it already; else the others hear of it from the node's next start."""

    record: Record
    is_announced: bool

    def as_data(self) -> dict[str, Any]:
        return {
            "id": self.record.identity.hex(),
            "transport_key": self.record.transport_key.hex(),
            "seal_key": self.record.seal_key.hex(),
            "key_seq": self.record.key_seq,
            "is_announced": self.is_announced,
        }


def rotated(directory: NodeDirectory, identity: Identity, passphrase: str | None) -> Rotated:
    """The folder's node has other keys from now on; it must not run, and whoever calls holds its lock. Raises `Failure`."""
    known = papers.read(directory)
    papers.check_standing(known, identity.peer_id)
    name = papers.credential(directory).certificate.name
    entropy = SystemEntropy()
    fresh = Identity(identity.sign_seed, entropy.draw(SECRET_BYTES), entropy.draw(SECRET_BYTES))
    record = _stated(directory, known.roster.records.get(identity.peer_id), fresh, name, known.roster.network)
    directory.write(directory.identity, fresh.to_bytes(passphrase, entropy))  # if all ends here, the next start states the rest
    known.roster.learn_record(record, believed_time())
    keys = TransportKeys(fresh.transport_key, fresh.transport_secret)
    is_announced = ask_at_once(known, fresh.peer_id, keys, node_settings.load(directory).dials_loopback)
    directory.write(directory.roster, known.roster.to_bytes())
    directory.write(directory.charter, known.charters.to_bytes())
    return Rotated(record, is_announced)


def _stated(directory: NodeDirectory, before: Record | None, fresh: Identity, name: str, network: bytes) -> Record:
    settings, now = node_settings.load(directory), believed_time()
    epoch = directory.next_boot_epoch(max(now, before.boot_epoch + 1 if before is not None else 0))
    return state(
        signer(fresh.sign_seed),
        network,
        Member(fresh.peer_id, name, "", fresh.transport_key, fresh.seal_key),
        epoch,
        SystemEntropy().draw(BOOT_ID_BYTES),
        0,
        now,
        addresses=settings.advertised(before.addresses if before is not None else ()),
        key_seq=before.key_seq + 1 if before is not None else 0,
        door=settings.door,
    )
