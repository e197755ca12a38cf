"""Sealing and opening on threads: slots come back, whatever is abandoned."""

import asyncio
from collections.abc import Callable
from threading import Event as Gate

import pytest

from node import sealing
from node.arena import Arena
from node.sealing import Sealing
from p2pfl.protocol import envelope
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Abandon, Event, Open, Opened, Payload, Seal, Sealed

KEY = bytes(32)
LENGTH = 3 * envelope.CHUNK_BYTES + 5


def on_a_loop(scenario: Callable[[Sealing, Arena, "asyncio.Queue[Event]"], "asyncio.Future[None]"], slots: int = 4) -> None:
    """Run a coroutine with a `Sealing` whose answers it gets in a queue."""

    async def run() -> None:
        answers: asyncio.Queue[Event] = asyncio.Queue()
        arena = Arena.create(LENGTH, slots)
        seals = Sealing(asyncio.get_running_loop(), arena, answers.put_nowait)
        try:
            await asyncio.wait_for(scenario(seals, arena, answers), 30)
        finally:
            seals.close()

    asyncio.run(run())


async def sealed(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> Sealed:
    slot = arena.take()
    slot.view[:LENGTH] = bytes(i % 251 for i in range(LENGTH))
    seals.seal(Seal(1, Payload(LENGTH, b"", slot), KEY))
    answer = await answers.get()
    assert isinstance(answer, Sealed)
    arena.give_back(slot)
    return answer


def opens(chunks: tuple[Payload, ...], ticket: int = 1) -> list[Open]:
    return [Open(ticket, i, len(chunks), LENGTH, c.digest, KEY, c.buffer) for i, c in enumerate(chunks)]


def test_what_was_sealed_opens_to_the_same_bytes_in_its_slot() -> None:
    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        for effect in opens((await sealed(seals, arena, answers)).chunks):
            seals.open(effect)
        events = [await answers.get() for _ in range(4)]
        last = events[-1]
        assert isinstance(last, Opened) and last.payload is not None
        assert [getattr(event, "index", None) for event in events] == [0, 1, 2, 3]
        assert bytes(last.payload.buffer.view[:LENGTH]) == bytes(i % 251 for i in range(LENGTH))  # type: ignore[attr-defined]

    on_a_loop(scenario)


def test_a_chunk_that_is_not_what_was_offered_is_refused() -> None:
    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        first, *_ = opens((await sealed(seals, arena, answers)).chunks)
        forged = bytearray(first.chunk)  # type: ignore[call-overload]
        forged[100] ^= 1
        seals.open(Open(2, 0, first.count, LENGTH, first.digest, KEY, bytes(forged)))
        answer = await answers.get()
        assert isinstance(answer, Opened) and answer.reason is Reason.BAD_CHUNK

    on_a_loop(scenario)


def test_a_member_that_abandons_updates_faster_than_they_open_holds_one_slot_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """The opener is held up while a hundred updates are begun and displaced; three slots are enough for it."""
    gate = Gate()
    work = sealing._opened

    def slow(*arguments: object) -> Opened:
        gate.wait(20)
        return work(*arguments)  # type: ignore[arg-type]

    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        chunks = (await sealed(seals, arena, answers)).chunks
        monkeypatch.setattr(sealing, "_opened", slow)
        for ticket in range(2, 102):
            seals.open(opens(chunks, ticket)[0])
            seals.abandon(Abandon(ticket).ticket)
        gate.set()
        for effect in opens(chunks, ticket=200):
            seals.open(effect)
        events = [await answers.get() for _ in range(4)]
        assert {getattr(event, "ticket", None) for event in events} == {200}

    on_a_loop(scenario, slots=3)
