"""What a peer's network process orders of its trainer, and what the trainer answers.

Orders are carried out one at a time, in the order they came. Bytes of updates never travel here: a message names slots of
the arena. `delivered` counts the `Learned` events that reached the peer, so that the learner's new state replaces the old one
then and not before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Prepare:
    """The first order. The sections are those of `p2pfl.settings`, as plain tables. `record` names a file that gets the mixed
    vector, float32, after every Learn, or, of vectors longer than `record_row_max` bytes, the newest only; "" for none."""

    peer: bytes
    index: int
    count: int
    data_directory: str
    task: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    codec: Mapping[str, Any]
    limits: Mapping[str, Any]
    seed: int
    record: str
    record_row_max: int


@dataclass(frozen=True, slots=True)
class UseArena:
    """Comes with the arena's file descriptor."""

    slot_bytes: int
    slots: int


@dataclass(frozen=True, slots=True)
class Load:
    """Take the learner's state from this checkpoint; its digest was checked."""

    path: str


@dataclass(frozen=True, slots=True)
class FoldOrder:
    """`protocol.events.Fold` with a slot in place of the payload. Ordered one at a time."""

    ticket: int
    sender: bytes
    slot: int
    length: int
    weight: float
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class LearnOrder:
    """`protocol.events.Learn` with slots in place of payloads: `arrived` are (sender, step, age, slot, length); `folded` are
    the senders of what was folded for it before."""

    step: int
    arrived: tuple[tuple[bytes, int, int, int, int], ...]
    weights: tuple[tuple[bytes, float], ...]
    local_steps: int
    evaluate: bool
    outgoing_slot: int
    delivered: int = 0
    folded: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Save:
    """Make the delivered state durable at this path."""

    path: str
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class WriteModel:
    """Leave the delivered state's vector at this path as a model that others can use."""

    path: str
    delivered: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """Answers `Prepare`. `layout` are names and shapes in the vector's order; `label_counts` is empty where targets are no
    classes. `can_fold`: updates can be mixed one by one."""

    schema: bytes
    update_bytes: int
    samples: int
    local_steps: int
    dimension: int
    layout: tuple[tuple[str, tuple[int, ...]], ...]
    labels: tuple[str, ...]
    label_counts: tuple[float, ...]
    pid: int
    can_fold: bool


@dataclass(frozen=True, slots=True)
class Unready:
    """Answers `Prepare` or `Load`: a `Failure` for the operator."""

    code: str
    message: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Answers `Load`."""


@dataclass(frozen=True, slots=True)
class LearnAnswer:
    """The update is in the slot that the order named. `verdicts` are (sender, reason or None)."""

    step: int
    length: int
    verdicts: tuple[tuple[bytes, str | None], ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FoldAnswer:
    """It is in the sum, or refused for this reason: the slot is not read any more."""

    ticket: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class FoldFailed:
    """The sum is gone, with all that was in it; the learner's state is what it was."""

    ticket: int
    reason: str


@dataclass(frozen=True, slots=True)
class LearnRefused:
    """Nothing came of it; the learner's state is what it was."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Saved:
    """Durable. `digest` is the BLAKE2b-256 of the file."""

    path: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """The disk did not take it; earlier checkpoints are as they were."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class ModelWritten:
    """Answers `WriteModel`. `failure` is why the disk did not take it; "" where it did."""

    path: str
    failure: str


Order = Prepare | UseArena | Load | FoldOrder | LearnOrder | Save | WriteModel
Answer = Ready | Unready | Loaded | FoldAnswer | FoldFailed | LearnAnswer | LearnRefused | Saved | SaveFailed | ModelWritten

_KINDS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        *(Prepare, UseArena, Load, FoldOrder, LearnOrder, Save, WriteModel),
        *(Ready, Unready, Loaded, FoldAnswer, FoldFailed, LearnAnswer, LearnRefused, Saved, SaveFailed, ModelWritten),
    )
}


def to_message(said: Order | Answer) -> tuple[Any, ...]:
    """For a channel."""
    return (type(said).__name__, *(getattr(said, name) for name in said.__slots__))


def order_from(message: Any) -> Order:
    order: Order = _KINDS[message[0]](*message[1:])
    return order


def answer_from(message: Any) -> Answer:
    answer: Answer = _KINDS[message[0]](*message[1:])
    return answer
