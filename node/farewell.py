"""The last message to somebody who was revoked: why nobody will answer any more, so that it can tell its owner and end."""

from p2pfl.protocol.admission.revocation import REVOCATION
from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Records, Revoked, encode_item


def farewell(roster: Roster, peer: PeerId) -> bytes | None:
    """The frame; None for somebody who was not revoked."""
    credential = roster.credential(peer)
    if credential is None or roster.standing(peer) is not Reason.REVOKED:
        return None
    issuer = credential.issuer.identity if credential.issuer is not None else b""
    about = {peer, credential.token, issuer}
    items = [encode_item(Revoked(data)) for data in roster.revocations if REVOCATION.read(data).subject in about]
    return gossip_wire.encode(Records(b"".join(items)))
