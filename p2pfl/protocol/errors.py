"""Whose fault it is, and which of the known reasons.

A frame that breaks the protocol raises `RejectedFrame` with a reason from the closed list below; `Peer.handle` turns it
into the effect `Rejected` and leaves the peer as it was. Anything else that is raised inside the core is our own bug.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why something from the network, or from a trainer's decoding of it, was refused. The order is the order of the checks."""

    NOT_MEMBER = "not_member"  # the hop or the signer is not in the membership
    RATE_LIMITED = "rate_limited"  # more messages or bytes than a member may send; not looked at
    BAD_FRAMES = "bad_frames"  # not the frames that its kind has, an empty one, or a chunk over its limit
    BAD_HEADER = "bad_header"  # the first frame is not one of our messages, or a field is out of its bounds
    VERSION = "version"  # another protocol version
    KIND = "kind"  # a kind of message this version does not know
    NOT_RELAY = "not_relay"  # a tunnel's message by way of a member that is no relay, or for a relay to pass on that is none
    NO_TUNNEL = "no_tunnel"  # of a session, a knock or an order of calling that there is not between these two
    BAD_SEAL = "bad_seal"  # a piece that the other end of the tunnel did not seal for this place
    GAP = "gap"  # a piece of a tunnel before which others are missing
    WRONG_NETWORK = "wrong_net"  # another network id
    WRONG_CHARTER = "wrong_charter"  # the digest of neither the charter that holds nor, for a day, of the one before
    OLD_CHARTER = "old_charter"  # a charter with a lower serial number than one that was seen
    CHARTER_CONFLICT = "charter_conflict"  # another charter with the serial number of the one that holds: the root signed both
    BAD_CHAIN = "bad_chain"  # the root does not vouch for this certificate, invite, revocation or charter
    BAD_TTL = "bad_ttl"  # a certificate or an invite that lasts no time, or longer than any may
    CERT_FUTURE = "cert_future"  # a certificate, or a charter, that is not valid yet
    CERT_EXPIRED = "cert_expired"  # a certificate that is not valid any more
    REVOKED = "revoked"  # the certificate, or what it rests on, was revoked
    INVITE_EXPIRED = "invite_expired"  # an invite that is not valid any more, or not yet
    INVITE_SPENT = "invite_spent"  # an invite that was used as often as it may be
    NO_RECEIPT = "no_receipt"  # certified by an invite, but no known member says that it let it in
    HELD = "held"  # one of several that an invite let in too often, until an issuer decides
    NAME_TAKEN = "name_taken"  # a member of that name is there already
    FULL = "full"  # no room for more members, revocations or tunnels
    BAD_CLOCK = "bad_clock"  # a clock more than an hour from the neighbors' median: nobody is let in meanwhile
    BAD_SCHEMA = "bad_schema"  # another layout, codec or algorithm, or a length that this schema can't have
    HOP_MISMATCH = "hop_mismatch"  # signed by somebody else than who delivered it
    FUTURE_STEP = "future_step"  # a step further ahead than the charter allows
    NOT_NEIGHBOR = "not_neighbor"  # a member that the plan does not receive from
    REPLAYED = "replayed"  # an (epoch, sequence number), or a piece of a tunnel, seen before or older than the replay window
    BAD_SIGNATURE = "bad_signature"  # the signature is not the signer's over these bytes
    EQUIVOCATION = "equivocation"  # a second, different content for one (signer, boot id, step, phase, part)
    NOT_FOR_US = "not_for_us"  # our id is not among the readers
    BAD_READERS = "bad_readers"  # the readers are not the ones that the signed digest names
    BAD_WRAP = "bad_wrap"  # the key wrapped for us does not open
    BAD_COMMITMENT = "bad_commitment"  # the opened key is not the one that was committed to
    UNEXPECTED_CHUNK = "unexpected_chunk"  # a chunk that was never offered, never credited or that came before
    BAD_CHUNK = "bad_chunk"  # a chunk of another length or digest than offered, or one that does not open
    WRONG_LENGTH = "wrong_length"  # the payload decodes to another number of values
    NON_FINITE = "non_finite"  # a value is NaN or infinite
    TOO_LARGE = "too_large"  # a value is over the bound of the charter


ADMISSION = frozenset(list(Reason)[list(Reason).index(Reason.OLD_CHARTER) : list(Reason).index(Reason.BAD_CLOCK) + 1])
"""What concerns certificates, invites, revocations and charters. Whoever is told one of them is no member, so that its updates
are never looked at."""

TUNNEL = frozenset({Reason.NOT_RELAY, Reason.NO_TUNNEL, Reason.BAD_SEAL, Reason.GAP})
"""What concerns tunnels and those who carry them; what a tunnel brings is checked afterwards, as if a link had."""


class RejectedFrame(Exception):
    """A frame that its sender should not have sent. Never leaves `Peer.handle`."""

    def __init__(self, reason: Reason, blame: bytes | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.blame = blame
