"""Carries out `Seal` and `Open`: at once where the work is short, else on threads, so that no megabyte blocks the loop.

A hop to a thread costs more than sealing a small update. A long one is sealed where it lies, in its slot, and sent from there:
the slot is in use until the last reference to its ciphertext is gone, those of libzmq among them. So an update costs its sender
its own size once, however many read it. What arrives is opened from libzmq's memory into its slot, with nothing in between.
"""

import asyncio
import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from node.training.arena import Arena, Slot
from p2pfl.protocol import envelope
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Event, Open, Opened, Payload, Seal, Sealed
from p2pfl.protocol.wire import TAG_BYTES

INLINE_BYTES = 64 << 10

THREADS = 2  # each way; more would take the cores from the links and the trainer

IN_PLACE_MAX = 4
"""Slots that may hold ciphertext: this step's, the step before's while a slow reader fetches it, and what libzmq has not sent
of older ones: chunk by chunk, the rest of their memory is given back. A reader that grants credit and then reads nothing can
hold on to some chunks of more updates than that; those are sealed beside their slots."""


@dataclass(slots=True, eq=False)
class Ciphertext:
    """A slot that holds some. Chunks are `gone` when nothing refers to them any more, libzmq neither."""

    slot: Slot
    left: int
    gone: list[tuple[int, int]] = field(default_factory=list)


@dataclass(slots=True)
class SealingUnderWay:
    """A payload that all sealing threads take chunks of, until none is left."""

    effect: Seal
    places: list[memoryview]
    is_in_place: bool
    left: Iterator[int]
    chunks: list[Payload | None]
    threads: int = THREADS


@dataclass(slots=True)
class Opening:
    """A payload that is being opened into its slot, chunk by chunk. What is `under_way` may still write there; it is answered
    in order."""

    slot: Slot = field(repr=False)
    under_way: "deque[Future[Opened]]" = field(default_factory=deque)
    is_abandoned: bool = False


class Sealing:
    """`answer` gets each `Sealed` and `Opened`, in the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, arena: Arena, answer: Callable[[Event], None]) -> None:
        self._loop = loop
        self._arena = arena
        self._answer = answer
        self._openings: dict[int, Opening] = {}
        self._ciphertexts: set[Ciphertext] = set()
        self._sealer = ThreadPoolExecutor(THREADS, "seal")
        self._opener = ThreadPoolExecutor(THREADS, "open")

    def seal(self, effect: Seal) -> None:
        """A long payload's slot is shared from now on: it is in use until the ciphertext is not."""
        slot = effect.payload.buffer
        assert isinstance(slot, Slot)
        if effect.payload.length <= INLINE_BYTES:
            self._answer(_sealed_short(effect, slot))
            return
        is_in_place = self.in_place < IN_PLACE_MAX
        places = (
            self._lent(slot, effect.payload.length) if is_in_place else list(envelope.places(slot.view, effect.payload.length))
        )
        count = len(places)
        under_way = SealingUnderWay(effect, places, is_in_place, iter(range(count)), [None] * count)
        for _ in range(THREADS):
            self._on_thread(self._sealer.submit(_seal_some, under_way), lambda future: self._sealed_some(under_way, future))

    def open(self, effect: Open) -> None:
        opening = self._openings.get(effect.ticket)
        if opening is None:
            opening = self._openings[effect.ticket] = Opening(self._arena.take())
        if effect.length <= INLINE_BYTES:  # of the payload: a short last chunk must not overtake the others
            self._opened(opening, _opened(effect, opening.slot))
            return
        future = self._opener.submit(_opened, effect, opening.slot)
        opening.under_way.append(future)
        self._on_thread(future, lambda _future: self._opened_some(opening))

    def abandon(self, ticket: int) -> None:
        """What has not begun never will, so that of all that is abandoned as many slots as threads are held for a while."""
        opening = self._openings.pop(ticket, None)
        if opening is None:
            return
        opening.is_abandoned = True
        opening.under_way = deque(future for future in opening.under_way if not future.cancel() and not future.done())
        if not opening.under_way:
            self._arena.give_back(opening.slot)

    def close(self) -> None:
        self._sealer.shutdown(wait=False, cancel_futures=True)
        self._opener.shutdown(wait=False, cancel_futures=True)

    @property
    def in_place(self) -> int:
        """How many slots hold ciphertext."""
        return len(self._ciphertexts)

    def _lent(self, slot: Slot, length: int) -> list[memoryview]:
        """The places of the chunks, each of which is in use for as long as anything refers to it."""
        self._arena.share(slot)
        places = []
        start = 0
        ciphertext = Ciphertext(slot, envelope.chunk_count(length))
        self._ciphertexts.add(ciphertext)
        for place in envelope.places(slot.view, length):
            lent = (ctypes.c_ubyte * len(place)).from_buffer(place)
            gone = (ciphertext, (start, start + len(place)))
            weakref.finalize(lent, self._in_the_loop, self._gone, gone).atexit = False
            places.append(memoryview(lent).cast("B"))
            start += len(place)
        return places

    def _gone(self, gone: tuple[Ciphertext, tuple[int, int]]) -> None:
        ciphertext, chunk = gone
        ciphertext.left -= 1
        ciphertext.gone.append(chunk)
        if not ciphertext.left:
            self._ciphertexts.discard(ciphertext)
            self._arena.give_back(ciphertext.slot)
        elif len(ciphertext.gone) == 1:
            self._loop.call_soon(self._forget_what_is_gone, ciphertext)  # after those that go with it

    def _forget_what_is_gone(self, ciphertext: Ciphertext) -> None:
        """A slow reader keeps an older update's slot in use, but not all of its memory. Of one that is free all stays, to be
        used again: fresh pages are dear."""
        if ciphertext not in self._ciphertexts:
            return
        for start, end in ciphertext.gone:
            self._arena.forget(ciphertext.slot, start, end)
        ciphertext.gone.clear()

    def _sealed_some(self, under_way: SealingUnderWay, future: "Future[None]") -> None:
        future.result()
        under_way.threads -= 1
        if not under_way.threads:
            chunks = tuple(chunk for chunk in under_way.chunks if chunk is not None)
            under_way.places.clear()  # the threads may hold on to what they did for a while
            under_way.chunks.clear()
            self._answer(Sealed(under_way.effect.ticket, chunks))

    def _opened_some(self, opening: Opening) -> None:
        if opening.is_abandoned:
            self._give_back_abandoned(opening)
            return
        while opening.under_way and opening.under_way[0].done() and not opening.is_abandoned:
            self._opened(opening, opening.under_way.popleft().result())

    def _give_back_abandoned(self, opening: Opening) -> None:
        if opening.under_way and all(future.done() for future in opening.under_way):
            opening.under_way.clear()
            self._arena.give_back(opening.slot)

    def _opened(self, opening: Opening, event: Opened) -> None:
        if event.payload is not None:
            del self._openings[event.ticket]  # the slot is the payload's now
        self._answer(event)

    def _on_thread(self, future: "Future[Any]", done: Callable[["Future[Any]"], None]) -> None:
        def back_to_the_loop(future: "Future[Any]") -> None:
            if not future.cancelled():
                self._in_the_loop(done, future)

        future.add_done_callback(back_to_the_loop)

    def _in_the_loop(self, do: Callable[[Any], None], argument: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits for this any more
            self._loop.call_soon_threadsafe(do, argument)


def _sealed_short(effect: Seal, slot: Slot) -> Sealed:
    sealed = envelope.seal_chunk(effect.key, 0, True, slot.view[: effect.payload.length])
    return Sealed(effect.ticket, (Payload(len(sealed), envelope.digest(sealed), sealed),))


def _seal_some(under_way: SealingUnderWay) -> None:
    """Seals one chunk after the other that no other thread has taken. Nothing here keeps a reference to one."""
    key, count = under_way.effect.key, len(under_way.places)
    for index in under_way.left:
        place, is_last = under_way.places[index], index == count - 1
        if under_way.is_in_place:
            envelope.seal_in_place(key, index, is_last, place)
            sealed: bytes | memoryview = place.toreadonly()
        else:
            sealed = envelope.seal_chunk(key, index, is_last, place[: len(place) - TAG_BYTES])
        under_way.chunks[index] = Payload(len(sealed), envelope.digest(sealed), sealed)


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
