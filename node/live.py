"""What a network process drives: a peer that learns (`live_peer`), or a relay (`live_relay`)."""

import asyncio
from typing import Any, Protocol

from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.events import Event


class Live(Protocol):
    """`finished` is done when it is, and everything it asked for is durable and sent. `membership_bytes`: of messages between
    memberships, sent so far. `has_left_model`: whether its owner finds a model in its folder."""

    finished: asyncio.Future[int]
    has_left_model: bool
    membership_bytes: int

    @property
    def allowances(self) -> Allowances: ...
    def tell(self, event: Event) -> None:
        """Something happened."""

    def counters(self) -> dict[str, Any]:
        """Totals since the start, for people and records."""

    def last_words(self) -> str:
        """How it ended, for people."""
