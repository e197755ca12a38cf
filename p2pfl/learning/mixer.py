"""What a peer makes of its own vector and the updates that came: all at once, or each as it comes, so that its memory is free.

A refused update adds nothing, and has a reason. Both ways give the same numbers; which digits of the last place, the order
decides: that of ids where all are mixed at once, that in which they came where they are folded.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from p2pfl.learning.aggregation import AGGREGATORS, FOLDS
from p2pfl.learning.codec import Codec, Memory, Refused, Vector, is_within, round_trip

BLOCK = 1 << 20  # values that are folded at a time: few enough to cost little memory where a codec has to convert them

Verdicts = tuple[tuple[bytes, str | None], ...]
"""(sender, None where it was applied, else a value of `protocol.errors.Reason`)."""


class Handle(Protocol):
    """The payload of an arrived update, as a peer knows it."""

    @property
    def buffer(self) -> object: ...


class ArrivedUpdate(Protocol):
    """What is read of `protocol.events.Arrived`."""

    @property
    def sender(self) -> bytes: ...
    @property
    def payload(self) -> Handle: ...


@dataclass(frozen=True, slots=True)
class Folding:
    """A mix that is to come, with what has arrived of it so far. Who goes on with it takes its array over.

    mixed: float32 [D]. senders: whose updates are in it, in the order they came.
    """

    mixed: Vector
    senders: tuple[bytes, ...] = ()


class Mixer:
    """Decodes and mixes for one peer. Raises `Unencodable` where its own vector is none that others could see."""

    def __init__(self, aggregator: str, codec: Codec, dimension: int, max_abs: float) -> None:
        self._aggregate = AGGREGATORS[aggregator]
        self._add = FOLDS.get(aggregator)
        self._codec = codec
        self._dimension = dimension
        self._max_abs = max_abs

    @property
    def can_fold(self) -> bool:
        """Whether its aggregator can take updates one by one."""
        return self._add is not None

    def fold(
        self,
        vector: Vector,
        memory: Memory,
        folding: Folding | None,
        sender: bytes,
        payload: Handle,
        weight: float,
        spare: Vector | None = None,
    ) -> Folding:
        """Add one update to the mix with `vector`; None begins one, in `spare` where that is given: an array like `vector` that
        nobody needs any more. Raises `Refused`, and then nothing has changed."""
        assert self._add is not None, "this aggregator needs all updates at once"
        blocks = list(self._blocks(payload.buffer))
        self._check(blocks, memory)
        into = Folding(_copied(vector, spare)) if folding is None else folding
        for values, octets in blocks:
            own = vector[values]
            self._add(into.mixed[values], self._as_sent(own, memory), self._codec.convert(octets), weight)
        return Folding(into.mixed, (*into.senders, sender))

    def mix(
        self,
        vector: Vector,
        memory: Memory,
        updates: Sequence[ArrivedUpdate],
        weights: Mapping[Any, float],
        folding: Folding | None,
    ) -> tuple[Vector, Verdicts]:
        """`vector` moved towards what has arrived, and was folded before; itself where nothing was. The verdicts are in the
        order of arrival, on those that were folded last."""
        so_far = Folding(vector) if folding is None else folding
        arrived = {update.sender: self._decoded(update, memory) for update in updates}
        rows = {sender: row for sender, row in sorted(arrived.items()) if not isinstance(row, Refused)}
        verdicts = {sender: row.reason if isinstance(row, Refused) else None for sender, row in arrived.items()}
        verdicts |= dict.fromkeys(so_far.senders)
        mixed = so_far.mixed
        if rows:
            sent = self._as_sent(vector, memory)
            mixed = self._aggregate(mixed, sent, list(rows.values()), [weights[sender] for sender in rows])
        if mixed is not vector and not is_within(mixed, self._max_abs):
            # Each was within bounds and their sum is not: keep the old vector. Nobody's update was used, so nobody's counts.
            mixed, verdicts = vector, verdicts | dict.fromkeys((*rows, *so_far.senders), "too_large")
        return mixed, tuple(verdicts.items())

    def _decoded(self, update: ArrivedUpdate, memory: Memory) -> Vector | Refused:
        try:
            return self._codec.decode(update.payload.buffer, memory, self._dimension, self._max_abs)[0]
        except Refused as refused:
            return refused

    def _as_sent(self, own: Vector, memory: Memory) -> Vector:
        """Q(x), of all or a part of the own vector."""
        return own if self._codec.is_exact else round_trip(self._codec, own, memory)

    def _blocks(self, buffer: object) -> Iterator[tuple[slice, memoryview]]:
        """Where in the vector each part of a payload belongs."""
        octets, each = memoryview(buffer).cast("B"), self._codec.value_bytes  # type: ignore[arg-type]
        if len(octets) != self._dimension * each:
            raise Refused("wrong_length")
        for start in range(0, self._dimension, BLOCK):
            end = min(start + BLOCK, self._dimension)
            yield slice(start, end), octets[start * each : end * each]

    def _check(self, blocks: Iterable[tuple[slice, memoryview]], memory: Memory) -> None:
        """Raises `Refused`, of several reasons the one that is found where all is decoded at once."""
        reasons = set()
        for values, octets in blocks:
            try:
                self._codec.decode(octets, memory, values.stop - values.start, self._max_abs)
            except Refused as refused:
                reasons.add(refused.reason)
        if reasons:
            raise Refused(min(reasons))  # "non_finite" before "too_large"


def _copied(vector: Vector, spare: Vector | None) -> Vector:
    if spare is None:
        return vector.copy()
    np.copyto(spare, vector)
    return spare
