"""How much a relay holds, as far as it can know: what it passed on in bulk and nobody has said to have taken.

A sender that begins a new session is not rid of what it sent in the last one: that counts, until it has been `HELD_S`.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.relay.session import WINDOW

HELD_S = 30.0  # a link whose end reads nothing ends in half that time
LEAST = 16 * 1024  # bytes that a piece counts for, so that small ones can't be countless


@dataclass(frozen=True, slots=True)
class _Flow:
    sender: PeerId
    to: PeerId
    session: bytes


class Holding:
    """The pieces held, in the order in which they came. `bytes` is what they come to."""

    def __init__(self, most_of_one: int, most_in_all: int) -> None:
        """`most_of_one`: bytes of one sender, and for one addressee."""
        self.bytes = 0
        self._most_of_one, self._most_in_all = most_of_one, most_in_all
        self._pieces: OrderedDict[tuple[_Flow, int], tuple[int, float]] = OrderedDict()
        self._in_flow: Counter[_Flow] = Counter()
        self._of: Counter[PeerId] = Counter()
        self._for: Counter[PeerId] = Counter()

    def take(self, sender: PeerId, to: PeerId, session: bytes, count: int, size: int, now: float) -> bool:
        """Whether there is room for one more piece; it is held then."""
        self._let_go_of_old(now)
        flow, size = _Flow(sender, to, session), max(size, LEAST)
        is_full = (
            self._in_flow[flow] >= WINDOW
            or max(self._of[sender], self._for[to]) + size > self._most_of_one
            or self.bytes + size > self._most_in_all
        )
        if is_full or (flow, count) in self._pieces:
            return False
        self._pieces[flow, count] = size, now
        self._count(flow, size, 1)
        return True

    def taken(self, sender: PeerId, to: PeerId, session: bytes, count: int) -> None:
        """The addressee has all pieces of the session below this one."""
        flow = _Flow(sender, to, session)
        if flow in self._in_flow:
            self._drop([key for key in self._pieces if key[0] == flow and key[1] < count])

    def forget(self, to: PeerId) -> None:
        """What waited for this member is gone."""
        if to in self._for:
            self._drop([key for key in self._pieces if key[0].to == to])

    def _let_go_of_old(self, now: float) -> None:
        while self._pieces and next(iter(self._pieces.values()))[1] + HELD_S <= now:
            self._drop([next(iter(self._pieces))])

    def _drop(self, keys: list[tuple[_Flow, int]]) -> None:
        for key in keys:
            size, _ = self._pieces.pop(key)
            self._count(key[0], -size, -1)

    def _count(self, flow: _Flow, size: int, pieces: int) -> None:
        self.bytes += size
        counters: tuple[tuple[Counter[Any], object, int], ...] = (
            (self._in_flow, flow, pieces),
            (self._of, flow.sender, size),
            (self._for, flow.to, size),
        )
        for counter, key, change in counters:
            counter[key] += change
            if not counter[key]:
                del counter[key]
