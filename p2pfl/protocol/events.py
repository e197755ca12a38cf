"""What a peer is told, and what it asks for.

`Peer.handle(event, now) -> list[Effect]` is the only door. Both unions are closed: whoever carries them out has one `match`
that ends in `assert_never`. Effects are carried out in the order given; a `Send` after a `Persist` waits until that is
durable; at equal times `Learned` and `LearnFailed` come after all other events.

Everything heavy is a handle. To the peer a `Payload` is a length, a digest and a buffer that only the engine looks into, so
`handle` costs as much as a header, never as much as a model. Hashing, sealing, opening and learning are effects that the
engine answers with an event.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NewType

from p2pfl.protocol.errors import Reason

if TYPE_CHECKING:
    from p2pfl.protocol.charter import Charter

PeerId = NewType("PeerId", bytes)
"""The Ed25519 public key of a peer, 32 bytes. The canonical order of peers is the order of these bytes."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment on both clocks, in seconds. Deadlines are monotonic; wall time serves certificates and invites only."""

    monotonic: float
    wall: float


@dataclass(frozen=True, slots=True)
class Payload:
    """A handle on bytes that the engine holds. `digest` is their BLAKE2b-256; where nobody compares payloads it is left empty,
    because hashing costs as much as sealing."""

    length: int
    digest: bytes
    buffer: object = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A neighbor's update, opened and waiting for the next `Learn`. `age` is what its signer claims; `Learn.weights` believe it
    up to a cap."""

    sender: PeerId
    epoch: int
    seq: int
    step: int
    age: int
    payload: Payload


@dataclass(frozen=True, slots=True)
class FoldedUpdate:
    """An update that `Fold` has added to the mix already; its payload was released."""

    sender: PeerId
    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An encoded vector for others to read. `readers` None means everyone that this round's plan sends to."""

    payload: Payload
    readers: tuple[PeerId, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the learner did with one arrived update: applied it (`reason` None) or refused its content."""

    sender: PeerId
    epoch: int
    seq: int
    reason: Reason | None = None


# ---- events: what a peer is told ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The engine is ready to carry out effects. Comes once, first."""


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Frames can be sent to this member now: the link is connected and both ends are authenticated."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link to this member broke, or was never made. What was handed to it may be lost."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class FrameReceived:
    """One message from `hop`, whose identity the link has proved. The first frame is bytes; a second is opaque."""

    hop: PeerId
    frames: tuple[Sized, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sealed:
    """Answers `Seal`: one handle per chunk of ciphertext, with its digest, in order."""

    ticket: int
    chunks: tuple[Payload, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """Answers `Open` for one chunk. The answer that completes the payload carries it."""

    ticket: int
    index: int
    reason: Reason | None = None
    payload: Payload | None = None


@dataclass(frozen=True, slots=True)
class Learned:
    """Answers `Learn`. The learner's new state counts from the moment this event is delivered, not before."""

    step: int
    outgoing: tuple[Outgoing, ...]
    verdicts: tuple[Verdict, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LearnFailed:
    """Answers `Learn` when nothing came of it; the learner's state is what it was. `reason` is for people."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Answers `Fold`: the payload is not needed any more. With a `reason` its content was refused, and nothing was added."""

    ticket: int
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class FoldsLost:
    """All that was folded since the last `Learn` is gone, with the learner that had it; what was not answered yet never will
    be. `reason` is for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """`peer.deadline` has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The operator wants the peer to end. It persists what it has and finishes."""


@dataclass(frozen=True, slots=True)
class DialRefused:
    """The member's machine answered a dial with a reset: nobody listens there."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Suspended:
    """This machine was asleep until now."""


@dataclass(frozen=True, slots=True)
class RegistryChanged:
    """Credentials came or expired otherwise than by gossip: through the join door, by reconciliation, with time."""


@dataclass(frozen=True, slots=True)
class Revocation:
    """An operator, or a neighbor outside of gossip, brought a revocation: checked by whoever tells it, signed as it came."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Amended:
    """The root amended the charter: this one holds from now on, whose schema is the same. What others say under the digest
    `before` is good until the wall moment `until`; none where it is empty."""

    charter: "Charter"
    before: bytes
    until: float


OfMembership = DialRefused | Suspended | RegistryChanged | Revocation
"""What only a peer with a membership makes something of."""
Event = (
    Started
    | LinkUp
    | LinkDown
    | FrameReceived
    | Sealed
    | Opened
    | Learned
    | LearnFailed
    | Folded
    | FoldsLost
    | DeadlineReached
    | StopRequested
    | Amended
    | OfMembership
)


# ---- effects: what a peer asks for --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dial:
    """Keep a link to this member, whatever it takes; answered by `LinkUp` and `LinkDown`, as often as it changes."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class HangUp:
    """No link to this member is needed any more; it may keep its own to us. Answered by `LinkDown` if ours was up."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Greet:
    """Say hello again on this link: we were asleep, and the other may have given us up. `Peer` makes it a `Send`."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class ViewChanged:
    """Other members are live than before. `version` is the view's, and counts such changes; `live` are so many, oneself among
    them."""

    version: int
    live: int


@dataclass(frozen=True, slots=True)
class IdentityConflict:
    """Two machines run under one identity. If it is our own, this one must stop; of another member it is an alarm.
    `addresses` are those that the two state."""

    peer: PeerId
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Send:
    """Hand a message to the link. `bulk` messages have a link of their own, so that small ones are never behind a model."""

    to: PeerId
    frames: tuple[Sized, ...] = field(repr=False)
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Seal:
    """Cut the payload into chunks of at most `envelope.CHUNK_BYTES` and seal each under `key`. Answered by `Sealed`."""

    ticket: int
    payload: Payload
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Open:
    """Check one sealed chunk against its digest and open it into the payload of `ticket`, which has `length` bytes in
    `count` chunks and may be allocated now. Answered by `Opened`."""

    ticket: int
    index: int
    count: int
    length: int
    digest: bytes
    key: bytes = field(repr=False)
    chunk: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Abandon:
    """Forget what was opened so far under this ticket; its answers are not awaited any more."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Release:
    """This payload is not needed any more; its buffer may be used again."""

    payload: Payload


@dataclass(frozen=True, slots=True)
class Fold:
    """Add `weight` times the difference that this update makes to the mix of the next `Learn`, now, so that its memory is free
    before that begins. `step` is of the update. Answered by `Folded`, or by `FoldsLost`."""

    ticket: int
    step: int
    sender: PeerId
    payload: Payload
    weight: float


@dataclass(frozen=True, slots=True)
class Learn:
    """Decode what arrived, mix, evaluate, train `local_steps`, encode. One at a time. Answered by `Learned` or `LearnFailed`.

    `weights` names the sender of every arrived update and the peer itself; they sum to at most 1, and what is missing
    (nobody to send it, or refused content) goes to the peer itself, in `learning.aggregation`. `folded` is what this mix
    consists of already, in the order of its `Fold`s; whoever has not all of it answers `LearnFailed`.
    """

    step: int
    phase: int
    arrived: tuple[Arrived, ...]
    weights: Mapping[PeerId, float]
    local_steps: int
    evaluate: bool
    folded: tuple[FoldedUpdate, ...] = ()

    @property
    def mixes(self) -> tuple[Arrived | FoldedUpdate, ...]:
        """Every update that it is about."""
        return *self.arrived, *self.folded


@dataclass(frozen=True, slots=True)
class Persist:
    """Make the peer's own state durable, together with the learner's. `state` is opaque to the engine."""

    step: int
    state: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Something was refused. `blame` is the hop before the signature was checked, the signer afterwards."""

    reason: Reason
    blame: PeerId


@dataclass(frozen=True, slots=True)
class RoundEnded:
    """A `Learn` was delivered. `step` counts finished mixes; `waited_s` is how long the peer waited for its neighbors;
    `missing` are those the plan names whose update was not there. For people and records; changes nothing."""

    step: int
    metrics: Mapping[str, float]
    waited_s: float
    applied: int
    missing: tuple[PeerId, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """The peer is done, with all its rounds or because it was asked to; the engine may end."""

    step: int


Effect = (
    Dial
    | HangUp
    | Send
    | Seal
    | Open
    | Abandon
    | Release
    | Fold
    | Learn
    | Persist
    | Rejected
    | RoundEnded
    | ViewChanged
    | IdentityConflict
    | Finished
)
MembershipEffect = Dial | HangUp | Greet | Send | Rejected | ViewChanged | IdentityConflict
"""What `membership.Membership` asks for."""
