"""Carries out `Seal` and `Open`: at once where the work is short, else on a thread, so that no megabyte blocks the loop.

A hop to a thread costs more than sealing a small update. One thread each way keeps the chunks of a payload in order.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from node.arena import Arena, Slot
from p2pfl.protocol import envelope
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Event, Open, Opened, Payload, Seal, Sealed

INLINE_BYTES = 64 << 10

Answer = TypeVar("Answer", Sealed, Opened)


@dataclass(slots=True)
class Opening:
    """A payload that is being opened into its slot, chunk by chunk. What is `under_way` may still write there."""

    slot: Slot = field(repr=False)
    under_way: set["Future[Opened]"] = field(default_factory=set)
    is_abandoned: bool = False


class Sealing:
    """`answer` gets each `Sealed` and `Opened`, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arena: Arena, answer: Callable[[Event], None]) -> None:
        self._loop = loop
        self._arena = arena
        self._answer = answer
        self._openings: dict[int, Opening] = {}
        self._sealer = ThreadPoolExecutor(1, "seal")
        self._opener = ThreadPoolExecutor(1, "open")

    def seal(self, effect: Seal) -> None:
        if effect.payload.length <= INLINE_BYTES:
            self._answer(_sealed(effect))
        else:
            self._on_thread(self._sealer.submit(_sealed, effect), lambda future: self._answer(future.result()))

    def open(self, effect: Open) -> None:
        opening = self._openings.get(effect.ticket)
        if opening is None:
            opening = self._openings[effect.ticket] = Opening(self._arena.take())
        if effect.length <= INLINE_BYTES:  # of the payload: a short last chunk must not overtake the others
            self._opened(opening, _opened(effect, opening.slot))
            return
        future = self._opener.submit(_opened, effect, opening.slot)
        opening.under_way.add(future)
        self._on_thread(future, lambda future: self._opened_on_thread(opening, future))

    def abandon(self, ticket: int) -> None:
        """What has not begun never will, so that of all that is abandoned one slot at most is held for a while."""
        opening = self._openings.pop(ticket, None)
        if opening is None:
            return
        opening.is_abandoned = True
        opening.under_way = {future for future in opening.under_way if not future.cancel()}
        if not opening.under_way:
            self._arena.give_back(opening.slot)

    def close(self) -> None:
        self._sealer.shutdown(wait=False, cancel_futures=True)
        self._opener.shutdown(wait=False, cancel_futures=True)

    def _opened_on_thread(self, opening: Opening, future: "Future[Opened]") -> None:
        opening.under_way.discard(future)
        if not opening.is_abandoned:
            self._opened(opening, future.result())
        elif not opening.under_way:
            self._arena.give_back(opening.slot)

    def _opened(self, opening: Opening, event: Opened) -> None:
        if event.payload is not None:
            del self._openings[event.ticket]  # the slot is the payload's now
        self._answer(event)

    def _on_thread(self, future: "Future[Answer]", done: Callable[["Future[Answer]"], None]) -> None:
        def back_to_the_loop(future: "Future[Answer]") -> None:
            if not future.cancelled():
                with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
                    self._loop.call_soon_threadsafe(done, future)

        future.add_done_callback(back_to_the_loop)


def _sealed(effect: Seal) -> Sealed:
    slot = effect.payload.buffer
    assert isinstance(slot, Slot)
    plain = slot.view[: effect.payload.length]
    count = envelope.chunk_count(len(plain))
    chunks = []
    for index in range(count):
        start = index * envelope.CHUNK_BYTES
        sealed = envelope.seal_chunk(effect.key, index, index == count - 1, plain[start : start + envelope.CHUNK_BYTES])
        chunks.append(Payload(len(sealed), envelope.digest(sealed), sealed))
    return Sealed(effect.ticket, tuple(chunks))


def _opened(effect: Open, slot: Slot) -> Opened:
    """Checks the chunk against its digest and opens it into its place."""
    is_last = effect.index == effect.count - 1
    start = effect.index * envelope.CHUNK_BYTES
    place = slot.view[start : effect.length if is_last else start + envelope.CHUNK_BYTES]
    chunk = effect.chunk
    assert isinstance(chunk, bytes | memoryview)
    if envelope.digest(chunk) != effect.digest:
        return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
    if envelope.open_chunk(effect.key, effect.index, is_last, chunk, place) is None:
        return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
    if not is_last:
        return Opened(effect.ticket, effect.index)
    return Opened(effect.ticket, effect.index, None, Payload(effect.length, b"", slot))
