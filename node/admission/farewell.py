"""What a member is told of itself, so that it can tell its owner and end: that it was revoked, or that another machine runs
under its identity."""

from p2pfl.protocol.admission.roster import Roster
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership import gossip_wire
from p2pfl.protocol.membership.gossip_wire import Introduction, Records, Revoked, encode_item


def farewell(roster: Roster, peer: PeerId) -> bytes | None:
    """The frame; None for somebody who was not revoked."""
    credential = roster.credential(peer)
    if credential is None or roster.standing(peer) is not Reason.REVOKED:
        return None
    items = [encode_item(Revoked(data)) for data in roster.revocations_of(credential)]
    return gossip_wire.encode(Records(b"".join(items)))


def own_record(roster: Roster, peer: PeerId) -> bytes | None:
    """The frame with the newest record of a member, to itself: news for it only where another machine has signed that one."""
    record = roster.records.get(peer)
    return gossip_wire.encode(Records(encode_item(Introduction(record.data)))) if record is not None else None
