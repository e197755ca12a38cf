"""What a network process is there for, as its status tells it: to learn, or to relay."""

import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from node.checkpoint import Checkpoints
from node.upkeep.journal import Journal
from node.upkeep.memory import resident_bytes
from p2pfl.protocol.allowance import Allowances
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.ledger import PairCounts
from p2pfl.protocol.peer import Peer, State
from p2pfl.protocol.relay.relay import Relay

UNTOUCHED = ("starting", "degraded", "parting", "finished")
"""States that are told whether there is a neighbor or not."""


class TrainerLike(Protocol):
    """What is used of `trainer_process.TrainerProcess`."""

    trouble: str
    is_up: bool
    restarts: int

    @property
    def pid(self) -> int | None: ...
    def check(self, stalled_s: float) -> None: ...


class Work(Protocol):
    """Made before its parts are there; until then it is starting. `role`: member or relay."""

    role: str

    @property
    def state(self) -> str:
        """In one word."""

    @property
    def step(self) -> int:
        """Of the Learn under way or last delivered."""

    def is_ready(self, peer: PeerId) -> bool:
        """Whether both ways to this neighbor are open."""

    def check(self, stalled_s: float) -> None:
        """Called now and then; nothing could be done here for so long since."""

    def account(self) -> dict[str, Any]:
        """Its part of a snapshot."""

    def account_of(self, peer: PeerId) -> dict[str, Any]:
        """The same of one neighbor."""


class Learning:
    """Of a node that learns."""

    role = "member"

    def __init__(self, journal: Journal) -> None:
        self.peer: Peer | None = None
        self.trainer: TrainerLike | None = None
        self.checkpoints: Checkpoints | None = None
        self._journal = journal

    @property
    def state(self) -> str:
        if self.peer is None or self.trainer is None:
            return "starting"
        if self.peer.state in (State.PARTING, State.FINISHED) or self.trainer.is_up:
            return self.peer.state.name.lower()
        return "degraded"

    @property
    def step(self) -> int:
        return self.peer.step if self.peer is not None else 0

    def is_ready(self, peer: PeerId) -> bool:
        return self.peer is not None and self.peer.neighbors.of(peer).is_ready

    def check(self, stalled_s: float) -> None:
        if self.trainer is not None:
            self.trainer.check(stalled_s)

    def account(self) -> dict[str, Any]:
        newest, ledger = self._journal.newest_round, self.peer.ledger if self.peer is not None else None
        return {
            "accuracy": _measured(newest, "accuracy"),
            "loss": _measured(newest, "loss"),
            "round_age_s": _age(self._journal.newest_round_at),
            "updates_sent": ledger.sent if ledger is not None else 0,
            "updates_applied": ledger.applied if ledger is not None else 0,
            "rejected": ledger.rejected if ledger is not None else {},
            "trainer": self._trainer(),
            "checkpoint": self._checkpoint(),
        }

    def account_of(self, peer: PeerId) -> dict[str, Any]:
        assert self.peer is not None
        seen, ledger = self.peer.neighbors.of(peer), self.peer.ledger
        pair = ledger.pairs.get(peer, PairCounts())
        banned_s = _banned_s(self.peer.allowances, peer)
        if seen.is_parted:
            state = "parted"
        elif banned_s > 0:
            state = "ignored"
        elif seen.is_ready:
            state = "ready"
        else:
            state = "linked" if seen.has_link else "down"
        return {
            "state": state,
            "step": seen.signed_step,
            "behind": self.peer.step - seen.signed_step,
            "sent": pair.sent,
            "applied": pair.applied,
            "rejected": pair.rejected,
            "superseded": pair.superseded,
            "lost": pair.lost,
            "held": sum(update.sender == peer for update in self.peer.inbox.slots),
            "refusals": {reason.value: count for (blamed, reason), count in sorted(ledger.reasons.items()) if blamed == peer},
            "ignored_s": round(banned_s, 3),
        }

    def _trainer(self) -> dict[str, Any]:
        trainer = self.trainer
        pid = trainer.pid if trainer is not None else None
        return {
            "pid": pid,
            "is_up": trainer is not None and trainer.is_up,
            "restarts": trainer.restarts if trainer is not None else 0,
            "trouble": trainer.trouble if trainer is not None else "",
            "memory_bytes": resident_bytes(pid) if pid is not None else 0,
        }

    def _checkpoint(self) -> dict[str, Any]:
        """`age_s` and `step` are None while this life of the process has written none."""
        newest = self.checkpoints.newest_completed if self.checkpoints is not None else None
        return {
            "step": newest[0] if newest else None,
            "age_s": _age(newest[1]) if newest else None,
            "failures": self._journal.incidents["checkpoint_failed"],
        }


class Relaying:
    """Of a node that relays."""

    role = "relay"
    step = 0

    def __init__(self) -> None:
        self.relay: Relay | None = None

    @property
    def state(self) -> str:
        return "relaying" if self.relay is not None else "starting"

    def is_ready(self, peer: PeerId) -> bool:
        return self.relay is not None and peer in self.relay.linked

    def check(self, stalled_s: float) -> None:
        pass

    def account(self) -> dict[str, Any]:
        rejected = Counter[str]()
        for (_, reason), count in (self.relay.rejected if self.relay is not None else {}).items():
            rejected[reason.value] += count
        return {
            "rejected": dict(sorted(rejected.items())),
            "relayed": self.relay.account() if self.relay is not None else {},
        }

    def account_of(self, peer: PeerId) -> dict[str, Any]:
        assert self.relay is not None
        banned_s = _banned_s(self.relay.allowances, peer)
        linked = "ready" if peer in self.relay.linked else "down"
        refusals = sorted(self.relay.rejected.items())
        return {
            "state": "ignored" if banned_s > 0 else linked,
            "refusals": {reason.value: count for (blamed, reason), count in refusals if blamed == peer},
            "ignored_s": round(banned_s, 3),
        }


def _banned_s(allowances: Allowances, peer: PeerId) -> float:
    return max(allowances.banned_until(peer) - time.monotonic(), 0.0)


def _age(moment: float | None) -> float | None:
    return round(time.monotonic() - moment, 3) if moment is not None else None


def _measured(line: Mapping[str, Any], name: str) -> float | None:
    """JSON knows no NaN."""
    value = line.get(name)
    return value if value is not None and math.isfinite(value) else None
