"""Keeps a link to one neighbor, whatever it takes.

libzmq redials on its own, but not always: one answer from something that is not our peer (a captive portal, a forged error) and
it gives up for ever, sometimes without a word. So every link here is dialled once, by us, and again by us when it is over.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from contextlib import suppress

import zmq

from node.transport.address import Address
from node.transport.dialling import Contact, Dialling
from node.transport.link import UNANSWERED, Link
from node.transport.sockets import Patience
from p2pfl.failure import Failure
from p2pfl.protocol.randomness import Choices

_log = logging.getLogger(__name__)


class Supervisor:
    """Dials at once, and again after each failure, the member's addresses in turn. Calls `on_change(True)` when the link is up
    and `on_change(False)` when it is not any more, or when the first attempt came to nothing: never the same twice in a row."""

    def __init__(
        self,
        contact: Callable[[], Contact],
        dial: Callable[[Address, bytes], Link],
        dialling: Dialling,
        patience: Patience,
        choices: Choices,
        on_change: Callable[[bool], None],
        on_refused: Callable[[], None] | None,
    ) -> None:
        """`contact` is asked before every attempt; `dial` gets a numeric address and the key to expect there. `on_refused`
        hears of every dial at which the member's machine said that nobody listens there."""
        self.link: Link | None = None
        """The link, while it is up."""
        self.trouble = ""
        """Why the link is down, in words; "" while it is up, and before the first attempt has ended."""
        self._contact = contact
        self._tried = contact()
        self._dial = dial
        self._dialling = dialling
        self._patience = patience
        self._choices = choices
        self._on_change = on_change
        self._on_refused = on_refused
        self._attempt: tuple[Link, str, bytes] | None = None
        self._reported: bool | None = None
        self._moved = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._keep(), name=f"link to {self._tried.name}")
        self.task.add_done_callback(lambda task: task.cancelled() or task.result())  # a bug must not end us in silence

    def look_again(self) -> None:
        """The member's addresses or keys may have changed. A link to where it is not any more, or to a key that it has no more,
        is over; and while there is none, a change is worth an attempt at once."""
        contact = self._contact()
        if self._attempt is not None:
            link, address, key = self._attempt
            if address not in contact.addresses or key not in contact.keys:
                link.end("it has moved")
        if contact != self._tried:
            self._moved.set()

    def dial_now(self) -> None:
        """The member is there, since it has just dialled us: where there is no link, waiting any longer makes no sense."""
        if self._attempt is None:
            self._moved.set()

    def stop(self, linger_s: float = 0.0) -> None:
        """Hang up and dial no more. `task` ends soon after."""
        if self.link is not None:
            self.link.close(linger_s)
            self.link = None
        self.task.cancel()

    async def _keep(self) -> None:
        backoff_s = self._patience.backoff_min_s
        for attempt in itertools.count():
            since = self._loop.time()
            self._moved.clear()
            self._tried = self._contact()
            trouble = await self._live(self._tried, attempt)
            self._report(False, trouble)
            # One that comes up and breaks at once is as good as none: only a link that lasted earns a quick redial.
            if self._loop.time() - since > 2 * self._patience.backoff_max_s:
                backoff_s = self._patience.backoff_min_s
            with suppress(TimeoutError):
                async with asyncio.timeout(self._choices.uniform(0, backoff_s) if self._tried.addresses else None):
                    await self._moved.wait()
            backoff_s = min(2 * backoff_s, self._patience.backoff_max_s)

    async def _live(self, contact: Contact, attempt: int) -> str:
        """One link from dialling to its end; why it ended."""
        if not contact.addresses:
            return "it states no address, so that it has to dial us"
        stated = contact.addresses[attempt % len(contact.addresses)]
        try:
            address = Address.parse(stated)
            async with asyncio.timeout(self._patience.handshake_s):
                places = await address.resolve()
        except Failure as failure:
            return failure.message
        except OSError as error:  # TimeoutError is one
            return f"{address.host} is not found: {error.strerror or 'no answer'}"
        place = places[attempt // len(contact.addresses) % len(places)]
        refusal = self._dialling.refusal(place, self._loop.time())
        if refusal:
            return refusal
        try:
            link = self._dial(place, contact.keys[0])
        except zmq.ZMQError as error:  # out of sockets or descriptors; or a numeric address that is none
            return str(error.strerror)
        self._attempt = (link, stated, contact.keys[0])
        try:
            await asyncio.wait((link.up, link.over), timeout=self._patience.handshake_s, return_when=asyncio.FIRST_COMPLETED)
            if link.is_up:
                self.link = link
                link.announce()
                self._report(True, "")
                await link.over
            trouble = link.over.result() if link.over.done() else "no answer"
        finally:
            self.link = self._attempt = None
            link.close()
        if trouble == UNANSWERED and self._on_refused is not None and await place.is_reset(self._patience.handshake_s):
            self._loop.call_soon(self._on_refused)
        return trouble

    def _report(self, is_up: bool, trouble: str) -> None:
        if is_up != self._reported:
            # Not from within our task: what a listener of ours raises must reach the loop's exception handler, not end us.
            self._loop.call_soon(self._on_change, is_up)
        name = self._tried.name
        if is_up:
            _log.info("link to %s is up", name)
        elif is_up != self._reported or trouble != self.trouble:  # a reason is told once, however often we try
            _log.info("link to %s (%s) is down: %s", name, ", ".join(self._tried.addresses), trouble)
        self._reported, self.trouble = is_up, trouble
