"""Keeps a link to one neighbor, whatever it takes.

libzmq redials on its own, but not always: one answer from something that is not our peer (a captive portal, a forged error) and
it gives up for ever, sometimes without a word. So every link here is dialled once, by us, and again by us when it is over.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable

import zmq

from node.address import Address
from node.link import Link
from node.sockets import Patience
from p2pfl.protocol.randomness import Choices

_log = logging.getLogger(__name__)


class Supervisor:
    """Dials at once, and again after each failure. Calls `on_change(True)` when the link is up and `on_change(False)` when it
    is not any more, or when the first attempt came to nothing: never the same twice in a row."""

    def __init__(
        self,
        name: str,
        address: Address,
        dial: Callable[[Address], Link],
        patience: Patience,
        choices: Choices,
        on_change: Callable[[bool], None],
    ) -> None:
        self.link: Link | None = None
        """The link, while it is up."""
        self._name = name
        self._address = address
        self._dial = dial
        self._patience = patience
        self._choices = choices
        self._on_change = on_change
        self.trouble = ""
        """Why the link is down, in words; "" while it is up, and before the first attempt has ended."""
        self._reported: bool | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep(), name=f"link to {name}")
        self._task.add_done_callback(lambda task: task.cancelled() or task.result())  # a bug must not end us in silence

    async def close(self, linger_s: float = 0.0) -> None:
        if self.link is not None:
            self.link.close(linger_s)
            self.link = None
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _keep(self) -> None:
        backoff_s = self._patience.backoff_min_s
        for attempt in itertools.count():
            since = self._loop.time()
            trouble = await self._live(attempt)
            self._report(False, trouble)
            # One that comes up and breaks at once is as good as none: only a link that lasted earns a quick redial.
            if self._loop.time() - since > 2 * self._patience.backoff_max_s:
                backoff_s = self._patience.backoff_min_s
            await asyncio.sleep(self._choices.uniform(0, backoff_s))
            backoff_s = min(2 * backoff_s, self._patience.backoff_max_s)

    async def _live(self, attempt: int) -> str:
        """One link from dialling to its end; why it ended."""
        try:
            async with asyncio.timeout(self._patience.handshake_s):
                places = await self._address.resolve()
        except OSError as error:  # TimeoutError is one
            return f"{self._address.host} is not found: {error.strerror or 'no answer'}"
        try:
            link = self._dial(places[attempt % len(places)])
        except zmq.ZMQError as error:  # out of sockets or descriptors; or a numeric address that is none
            return str(error.strerror)
        try:
            await asyncio.wait((link.up, link.over), timeout=self._patience.handshake_s, return_when=asyncio.FIRST_COMPLETED)
            if link.is_up:
                self.link = link
                self._report(True, "")
                await link.over
            return link.over.result() if link.over.done() else "no answer"
        finally:
            self.link = None
            link.close()

    def _report(self, is_up: bool, trouble: str) -> None:
        if is_up != self._reported:
            # Not from within our task: what a listener of ours raises must reach the loop's exception handler, not end us.
            self._loop.call_soon(self._on_change, is_up)
        if is_up:
            _log.info("link to %s is up", self._name)
        elif is_up != self._reported or trouble != self.trouble:  # a reason is told once, however often we try
            _log.info("link to %s (%s) is down: %s", self._name, self._address, trouble)
        self._reported, self.trouble = is_up, trouble
