"""What every network process stands on, whatever it does there: its folder and identity, who the others are, its journal, its
upkeep and its links."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, assert_never

from node.directory import NodeDirectory
from node.founded import Founded
from node.listed import Listed
from node.others import Others
from node.setup import FoundedOthers, ListedOthers, Setup, take
from node.transport.links import Links
from node.transport.ways import Ways
from node.upkeep.journal import Journal
from node.upkeep.observation import Observation
from node.upkeep.upkeep import Upkeep
from node.upkeep.work import Learning, Relaying
from p2pfl.protocol.events import Event
from p2pfl.protocol.identity import Identity, Keyring

Say = Callable[[tuple[Any, ...]], None]
"""Tells whoever started the process."""


class Ground:
    """Laid before anything is sent, so that it fails for its owner's reasons; `stack` takes it apart."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        setup: Setup,
        stack: AsyncExitStack,
        say: Say | None,
        leave: Callable[[], None],
    ) -> None:
        """`say` is None where nobody listens; `leave` ends the node in peace. Raises `Failure`."""
        self.loop, self.setup = loop, setup
        self.directory = NodeDirectory(Path(setup.directory))
        stack.callback(os.close, self.directory.lock())
        self._identity = Identity.from_bytes(take(setup.secrets_fd), None)
        self.others: Others = self._others()
        self.signer = Keyring(self._identity, self.others.members)
        self.journal = Journal(self.directory.metrics, self.directory.log, self.others.members, say)
        self.work = Relaying() if setup.is_relay else Learning(self.journal)
        self.observation = Observation(setup.network, setup.own, self.others, self.journal, self.work)
        self.upkeep = Upkeep(loop, self.observation, self.journal, leave)
        stack.callback(self.upkeep.close)

    def _others(self) -> Others:
        match self.setup.others:
            case FoundedOthers() as founded:
                return Founded(self.loop, self.setup, founded, self.directory, self._identity)
            case ListedOthers() as listed:
                return Listed(self.setup, listed)
            case _ as never:
                assert_never(never)

    async def open(self, stack: AsyncExitStack, tell: Callable[[Event], None]) -> Links | Ways:
        """To its owner, and then to the others: what they do that is the peer's business it is told. Raises `Failure`."""
        setup, others = self.setup, self.others
        await self.upkeep.open(self.directory.control, setup.metrics_port, others.answers)

        def on_event(event: Event) -> None:
            if not others.heard(event):
                tell(event)

        tunnels = others.tunnels(self.signer)
        ways = Ways(self.loop, tunnels, on_event) if tunnels is not None else None
        links = Links(
            others.network_id,
            others.members,
            self._identity,
            setup.listen,
            ways.heard if ways is not None else on_event,
            on_stranger=lambda text: self.journal.incident("stranger", text),
            keys_of=others.keys_of,
            addresses_of=others.addresses_of,
            on_dial_refused=others.refused,
            on_called=others.called,
            dials_loopback=others.dials_loopback,
        )
        self.observation.listens_at = str(await links.start())
        stack.push_async_callback(links.close)
        if ways is not None:
            ways.over(links)
            stack.callback(ways.close)
        self.observation.links = ways or links
        return ways or links
