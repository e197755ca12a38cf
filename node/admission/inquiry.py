"""A node that nobody talks to asks members at their join doors why: it learns what it missed, or that it is a member no more.

Whoever was revoked while it was away is refused in handshakes, which say nothing. The door answers with the revocations, and
those decide, not what the door says. Who is only cut off, or whose members have moved, hears from any door that it reaches
where they are now.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from node.admission.asking import asked
from node.admission.papers import Papers
from node.entropy import SystemEntropy, instant
from node.transport.address import Address
from node.transport.sockets import TransportKeys
from node.upkeep.journal import Journal
from p2pfl.failure import Failure
from p2pfl.protocol.admission.join import question
from p2pfl.protocol.admission.joiner import news
from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.errors import RejectedFrame
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.randomness import Choices

ALONE_S = 5.0  # without any link, before a door is asked
AGAIN_S = 15.0  # until the next one is; twice as long each time, +- 50 %
AGAIN_MAX_S = 600.0
ASKED_MAX = 3  # before a start
PATIENCE_S = 2.0  # for a door to be reached, and as long again to answer


def ask_at_once(papers: Papers, own: PeerId, keys: TransportKeys, dials_loopback: bool) -> bool:
    """Whether one of a few members answered. It gave what is new, so that a node that is no member any more, as far as it
    knows, may be one again; and it took our own record. The papers change in place; whoever calls keeps them."""
    credential, record = papers.roster.credential(own), papers.roster.records.get(own)
    doors = _doors(papers, own)
    if credential is None or record is None or not doors:
        return False
    choices = Choices(int.from_bytes(SystemEntropy().draw(8), "big"), b"inquiry")
    first = choices.below(len(doors))
    for address, key in (doors[first:] + doors[:first])[:ASKED_MAX]:
        answer, _ = asked(address, key, keys, question(credential, record), PATIENCE_S, dials_loopback)
        if answer is not None:
            with suppress(RejectedFrame):  # the next one may know better
                news(answer, papers.roster, papers.charters, instant().wall)
                return True
    return False


class Inquiry:
    """One question at a time, on a thread, to a random member. `on_new` is called when papers may be others than before."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        papers: Papers,
        own: PeerId,
        keys: TransportKeys,
        dials_loopback: bool,
        journal: Journal,
        on_new: Callable[[], None],
    ) -> None:
        self._loop, self._papers, self._own, self._keys = loop, papers, own, keys
        self._dials_loopback = dials_loopback
        self._journal, self._on_new = journal, on_new
        self._choices = Choices(int.from_bytes(SystemEntropy().draw(8), "big"), b"inquiry")
        self._pause = AGAIN_S
        self._due: float | None = None
        self._under_way: asyncio.Task[None] | None = None

    def turn(self, now: float, is_alone: bool) -> None:
        """Called now and then, with the monotonic time."""
        if not is_alone:
            self._due, self._pause = None, AGAIN_S
        elif self._due is None:
            self._due = now + ALONE_S
        elif now >= self._due and self._under_way is None:
            self._due = now + self._pause * self._choices.uniform(0.5, 1.5)
            self._pause = min(2 * self._pause, AGAIN_MAX_S)
            self._begin()

    async def close(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    def _begin(self) -> None:
        doors = _doors(self._papers, self._own)
        credential, record = self._papers.roster.credential(self._own), self._papers.roster.records.get(self._own)
        if doors and credential is not None and record is not None:
            address, key = doors[self._choices.below(len(doors))]
            self._under_way = self._loop.create_task(self._ask(address, key, question(credential, record)))

    async def _ask(self, address: Address, key: bytes, asking: bytes) -> None:
        try:
            answer, trouble = await asyncio.to_thread(asked, address, key, self._keys, asking, PATIENCE_S, self._dials_loopback)
            if answer is None:
                self._journal.incident("join_door", f"alone; nobody answers at {address}: {trouble}")
            else:
                self._understand(address, answer)
        finally:
            self._under_way = None

    def _understand(self, address: Address, answer: bytes) -> None:
        try:
            reason = news(answer, self._papers.roster, self._papers.charters, instant().wall)
        except RejectedFrame as refused:
            self._journal.incident("join_door", f"alone; what {address} answers is not understood: {refused.reason}")
            return
        self._journal.incident("join_door", f"alone; {address} {f'refuses: {reason}' if reason else 'told what is new'}")
        self._on_new()


def _doors(papers: Papers, own: PeerId) -> list[tuple[Address, bytes]]:
    """Of whoever is a member as far as is known here, and can be dialled."""
    roster = papers.roster
    records = [roster.records[peer] for peer in sorted(roster.members) if peer != own]
    return [(door, record.transport_key) for record in records if not record.has_left for door in _doors_of(record)]


def _doors_of(record: Record) -> list[Address]:
    found = []
    for text in record.doors:
        with suppress(Failure):  # it is only shaped like an address
            found.append(Address.parse(text))
    return found
