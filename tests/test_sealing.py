"""Sealing and opening on threads: slots come back, whatever is abandoned."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from threading import Event as Gate

import pytest
import zmq

from node import sealing
from node.sealing import Sealing
from node.training.arena import PAGE_BYTES, Arena, Slot
from node.training.trainer import place_for_sealing
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
    place_for_sealing(memoryview(bytes(i % 251 for i in range(LENGTH))), slot)
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


def test_a_long_update_is_sealed_where_it_lies_and_its_slot_is_in_use_until_the_last_chunk_is_let_go() -> None:
    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        answer = await sealed(seals, arena, answers)
        room = arena.slot(0).view
        assert b"".join(bytes(c.buffer) for c in answer.chunks) == bytes(room)  # type: ignore[call-overload]
        assert [c.digest for c in answer.chunks] == [envelope.digest(place) for place in envelope.places(room, LENGTH)]
        last = answer.chunks[-1]
        del answer
        await asyncio.sleep(0)
        assert arena.take().index == 1
        del last
        await asyncio.sleep(0)
        assert (seals.in_place, arena.take().index) == (0, 0)

    on_a_loop(scenario)


def test_libzmq_holds_on_to_a_slot_until_it_has_sent_it() -> None:
    """The reader reads nothing: what was lent stays lent, and comes back when the link ends."""

    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        answer = await sealed(seals, arena, answers)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        push, pull = context.socket(zmq.PUSH), context.socket(zmq.PULL)
        push.linger, pull.rcvhwm = 0, 1
        push.connect(f"tcp://127.0.0.1:{pull.bind_to_random_port('tcp://127.0.0.1')}")
        for chunk in answer.chunks[:1] * 20:
            push.send(chunk.buffer, copy=False)  # type: ignore[arg-type]
        del answer, chunk
        await asyncio.sleep(0)
        assert arena.take().index == 1
        push.close(), pull.close()
        await asyncio.get_running_loop().run_in_executor(None, context.term)
        while seals.in_place:
            await asyncio.sleep(0.001)
        assert arena.take().index == 0

    on_a_loop(scenario)


def test_of_an_older_update_only_the_chunks_that_are_still_held_take_memory() -> None:
    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        older = await sealed(seals, arena, answers)
        held = older.chunks[1]
        content, before = bytes(held.buffer), os.fstat(arena.fd).st_blocks  # type: ignore[call-overload]
        del older
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        freed = (before - os.fstat(arena.fd).st_blocks) * 512
        assert 2 * envelope.CHUNK_BYTES - 4 * PAGE_BYTES < freed <= 2 * envelope.CHUNK_BYTES
        assert bytes(held.buffer) == content  # type: ignore[call-overload]
        assert (await sealed(seals, arena, answers)).chunks[1].digest == held.digest

    on_a_loop(scenario)


@pytest.mark.fault("slow reader")
def test_a_reader_that_holds_on_to_everything_can_not_use_up_the_slots() -> None:
    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        held = [await sealed(seals, arena, answers) for _ in range(10)]
        assert seals.in_place == sealing.IN_PLACE_MAX
        for answer in held:
            assert [c.digest for c in answer.chunks] == [c.digest for c in held[0].chunks]
            assert [envelope.digest(c.buffer) for c in answer.chunks] == [c.digest for c in held[0].chunks]  # type: ignore[arg-type]
        assert arena.take().index == sealing.IN_PLACE_MAX

    on_a_loop(scenario, slots=sealing.IN_PLACE_MAX + 1)


def test_a_chunk_that_fails_while_later_ones_are_done_gives_its_slot_back_when_it_is_abandoned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    work = sealing._opened

    def first_last(effect: Open, slot: Slot) -> Opened:
        if effect.index == 0:
            gate.wait(20)
        return work(effect, slot)

    async def scenario(seals: Sealing, arena: Arena, answers: "asyncio.Queue[Event]") -> None:
        chunks = opens((await sealed(seals, arena, answers)).chunks)
        monkeypatch.setattr(sealing, "_opened", first_last)
        monkeypatch.setattr(seals, "_answer", lambda event: [answers.put_nowait(event), seals.abandon(event.ticket)])
        seals.open(replace(chunks[0], digest=bytes(32)))
        for effect in chunks[1:]:
            seals.open(effect)
        while not all(future.done() for future in list(seals._openings[1].under_way)[1:]):
            await asyncio.sleep(0.001)
        assert answers.empty()
        gate.set()
        refused = await answers.get()
        assert isinstance(refused, Opened) and (refused.index, refused.reason) == (0, Reason.BAD_CHUNK)
        assert answers.empty()
        assert arena.take().index == 1

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


def test_a_member_that_abandons_updates_faster_than_they_open_holds_a_slot_for_each_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The openers are held up while a hundred updates are begun and displaced: theirs, the ciphertext's and one are enough."""
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

    on_a_loop(scenario, slots=sealing.THREADS + 2)
