"""What carries messages to each member that is dialled: our link, or theirs where ours can't be made."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from node.transport.listener import Listener
from p2pfl.protocol.events import LinkDown, LinkUp, PeerId

_SETTLE_S = 1.0
"""Until theirs is tried where ours can't be made. Whoever has just dialled us can be dialled as a rule, and what is said over
two links one after the other may come in another order; and when a process has ended, so have both."""


class _Carrier(Enum):
    NONE = auto()
    OWN_LINK = auto()
    ITS_LINK = auto()


class Carriers:
    """Tells `LinkUp` whenever another connection than before carries to a member, and `LinkDown` when one does not any more, or
    when first it turns out that none does. libzmq does not say that a caller's connection has ended, so that theirs are tried
    every `look_every_s`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: Listener,
        tell: Callable[[LinkUp | LinkDown], None],
        look_every_s: float,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._tell = tell
        self._look_every_s = look_every_s
        self._carriers: dict[PeerId, _Carrier] = {}
        self._looking = loop.call_later(look_every_s, self._look)

    def is_theirs(self, peer: PeerId) -> bool:
        """Whether it is their link that carries."""
        return self._carriers.get(peer) is _Carrier.ITS_LINK

    @property
    def are_any_theirs(self) -> bool:
        return _Carrier.ITS_LINK in self._carriers.values()

    def own_changed(self, peer: PeerId, is_up: bool) -> None:
        """Our link came up, or ended, or the first attempt failed."""
        self._carry(peer, _Carrier.OWN_LINK if is_up else _Carrier.NONE)
        if not is_up:
            self._loop.call_later(_SETTLE_S, self._try, peer)

    def dialled_us(self, peer: PeerId) -> None:
        """There is a new link of theirs."""
        carrier = self._carriers.get(peer)
        if carrier is _Carrier.ITS_LINK:
            self._carry(peer, _Carrier.NONE)
            self._carry(peer, _Carrier.ITS_LINK)
        elif carrier is _Carrier.NONE:
            self._loop.call_later(_SETTLE_S, self._try, peer)

    def theirs_lost(self) -> None:
        """Some links of theirs are no more: tell so, from the loop."""
        self._loop.call_soon(self._notice)

    def forget(self, peer: PeerId) -> None:
        """Nobody dials this member any more."""
        if self._carriers.pop(peer, _Carrier.NONE) is not _Carrier.NONE:
            self._loop.call_soon(self._tell, LinkDown(peer))

    def close(self) -> None:
        self._looking.cancel()
        self._carriers.clear()

    def _notice(self) -> None:
        for peer in [peer for peer in self._carriers if self.is_theirs(peer) and not self._listener.has_route(peer)]:
            self._carry(peer, _Carrier.NONE)

    def _look(self) -> None:
        self._looking = self._loop.call_later(self._look_every_s, self._look)
        for peer in tuple(self._carriers):
            self._try(peer)

    def _try(self, peer: PeerId) -> None:
        carrier = self._carriers.get(peer)
        if carrier is not None and carrier is not _Carrier.OWN_LINK and self._listener.has_route(peer):
            self._carry(peer, _Carrier.ITS_LINK if self._listener.is_reached(peer) else _Carrier.NONE)

    def _carry(self, peer: PeerId, carrier: _Carrier) -> None:
        before = self._carriers.get(peer)
        self._carriers[peer] = carrier
        if carrier is before:
            return
        if before in (_Carrier.OWN_LINK, _Carrier.ITS_LINK) or carrier is _Carrier.NONE:
            self._tell(LinkDown(peer))
        if carrier is not _Carrier.NONE:
            self._tell(LinkUp(peer))
