"""A relay on a real machine: what it is told and asks for. It owns nothing that has to be kept."""

import asyncio
from collections.abc import Callable
from typing import Any, assert_never

from node.live_peer import LinkSet, is_membership
from node.turns import Turns
from node.upkeep.journal import Journal
from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Dial,
    Event,
    Finished,
    HangUp,
    IdentityConflict,
    Rejected,
    Send,
    ViewChanged,
)
from p2pfl.protocol.relay.relay import Relay, RelayEffect


class LiveRelay:
    """Drives `relay`; `finished` is set when it is done."""

    has_left_model = False

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        relay: Relay,
        links: LinkSet,
        journal: Journal,
        on_conflict: Callable[[IdentityConflict], None],
    ) -> None:
        """`on_conflict` hears, once the event is over, of two machines that run as one member."""
        self.finished: asyncio.Future[int] = loop.create_future()
        self.membership_bytes = 0
        self._loop = loop
        self._relay = relay
        self._links = links
        self._journal = journal
        self._on_conflict = on_conflict
        self._turns = Turns(loop, relay, self._carry_out)

    @property
    def allowances(self) -> Allowances:
        return self._relay.allowances

    def tell(self, event: Event) -> None:
        self._turns.tell(event)

    def close(self) -> None:
        self._turns.close()

    def last_words(self) -> str:
        return f"ended; {self._relay.account()['messages']} messages were passed on"

    def counters(self) -> dict[str, Any]:
        """Totals since the start."""
        return {
            "bytes_sent": sum(self._links.bytes_sent.values()),
            "bytes_received": sum(self._links.bytes_received.values()),
            "relayed": self._relay.account(),
            "strangers_refused": self._links.refused,
            "messages_dropped": sum(self._links.dropped.values()),
        }

    def _carry_out(self, effect: RelayEffect) -> None:
        match effect:
            case Send(to, frames, bulk):
                if is_membership(frames):
                    self.membership_bytes += sum(map(len, frames))
                self._links.send(to, frames, bulk)
            case Dial(peer):
                self._links.dial(peer)
            case HangUp(peer):
                self._links.hang_up(peer)
            case Rejected(reason, blame):
                self._journal.rejected(reason, blame)
                if reason is Reason.RATE_LIMITED:
                    self._links.mute(blame, self._relay.allowances.banned_until(blame))
            case IdentityConflict():
                self._loop.call_soon(self._on_conflict, effect)
            case ViewChanged():
                pass
            case Finished(step):
                self.finished.set_result(step)
            case _:
                assert_never(effect)
