"""What a running node says of itself: one snapshot in plain values, for its owner's status and for metrics.

It looks at the parts of a network process and changes none of them. A snapshot costs some microseconds for each neighbor.
"""

import math
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

from node.checkpoint import Checkpoints
from node.training.trainer_process import TrainerProcess
from node.transport.links import Links
from node.upkeep.journal import Journal
from node.upkeep.memory import resident_bytes
from p2pfl import __version__
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.ledger import PairCounts
from p2pfl.protocol.peer import Peer, State

ALONE_S = 5.0  # without a neighbor before a node calls itself alone
FINGERPRINT = 16  # hex digits: enough to compare by eye, far too many to find a second key for


class Company(Protocol):
    """What is used of `others.Others`."""

    @property
    def members(self) -> Mapping[PeerId, Member]: ...
    def account(self) -> dict[str, Any] | None: ...


class Observation:
    """Of one node. Until `peer` is there, the node is starting."""

    def __init__(self, network: str, own: Member, others: Company, journal: Journal) -> None:
        self.peer: Peer | None = None
        self.links: Links | None = None
        self.trainer: TrainerProcess | None = None
        self.checkpoints: Checkpoints | None = None
        self.listens_at = ""
        self.is_leaving = False
        self._network = network
        self._own = own
        self._others = others
        self._journal = journal
        self._without_company: tuple[float, float] | None = None  # monotonic and wall moment
        self._began = time.monotonic()
        self._began_wall = time.time()

    def look_for_company(self) -> None:
        """Called now and then: notes since when this node has been alone."""
        if self.peer is None or self.links is None:
            return
        has_company = any(self.peer.neighbors.of(peer).is_ready for peer in self.links.dialled)
        if has_company:
            self._without_company = None
        elif self._without_company is None:
            self._without_company = time.monotonic(), time.time()

    @property
    def alone_since(self) -> float | None:
        """Wall time since when there has been no neighbor to gossip with; links that are only being made anew don't count."""
        if self._without_company is None or time.monotonic() - self._without_company[0] < ALONE_S:
            return None
        return self._without_company[1]

    @property
    def name(self) -> str:
        return self._own.name

    @property
    def step(self) -> int:
        """Of the Learn under way or last delivered."""
        return self.peer.step if self.peer is not None else 0

    @property
    def state(self) -> str:
        """In one word. Degraded comes before alone, and both before what the peer is doing."""
        if self.is_leaving:
            return "leaving"
        if self.peer is None or self.trainer is None:
            return "starting"
        if self.peer.state in (State.PARTING, State.FINISHED):
            return self.peer.state.name.lower()
        if not self.trainer.is_up:
            return "degraded"
        if self.alone_since is not None:
            return "alone"
        return self.peer.state.name.lower()

    def snapshot(self) -> dict[str, Any]:
        """Totals are since this start of the process."""
        newest = self._journal.newest_round
        peer, links = self.peer, self.links
        return {
            "name": self._own.name,
            "network": self._network,
            "state": self.state,
            "step": self.step,
            "accuracy": _measured(newest, "accuracy"),
            "loss": _measured(newest, "loss"),
            "round_age_s": _age(self._journal.newest_round_at),
            "alone_since": self.alone_since,
            "listens_at": self.listens_at,
            "keys": _fingerprints(self._own),
            "members": len(self._others.members),
            "membership": self._others.account(),
            "neighbors": [self._neighbor(peer, links, other) for other in links.dialled] if peer and links else [],
            "bytes_sent": sum(links.bytes_sent.values()) if links else 0,
            "bytes_received": sum(links.bytes_received.values()) if links else 0,
            "updates_sent": peer.ledger.sent if peer else 0,
            "updates_applied": peer.ledger.applied if peer else 0,
            "rejected": peer.ledger.rejected if peer else {},
            "strangers_refused": links.refused if links else 0,
            "messages_unknown": links.unknown if links else 0,
            "messages_dropped": sum(links.dropped.values()) if links else 0,
            "messages_muted": links.muted if links else 0,
            "listener_cycles": links.cycles if links else 0,
            "trainer": self._trainer(),
            "checkpoint": self._checkpoint(),
            "journal_failures": self._journal.failed_writes,
            "incidents": dict(self._journal.incidents),
            "recent": list(self._journal.recent),
            "began": self._began_wall,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "memory_bytes": resident_bytes(os.getpid()),
            "pid": os.getpid(),
            "version": __version__,
        }

    def _neighbor(self, peer: Peer, links: Links, other: PeerId) -> dict[str, Any]:
        member, seen = self._others.members.get(other), peer.neighbors.of(other)
        pair = peer.ledger.pairs.get(other, PairCounts())
        banned_s = peer.allowances.banned_until(other) - time.monotonic()
        if seen.is_parted:
            state = "parted"
        elif banned_s > 0:
            state = "ignored"
        elif seen.is_ready:
            state = "ready"
        else:
            state = "linked" if seen.has_link else "down"
        return {
            "name": member.name if member else other.hex()[:FINGERPRINT],
            "address": member.address if member else "",
            "keys": _fingerprints(member) if member else {"identity": other.hex()[:FINGERPRINT]},
            "state": state,
            "trouble": links.dialled[other],
            "step": seen.signed_step,
            "behind": peer.step - seen.signed_step,
            "bytes_sent": links.bytes_sent[other],
            "bytes_received": links.bytes_received[other],
            "messages_dropped": links.dropped[other],
            "sent": pair.sent,
            "applied": pair.applied,
            "rejected": pair.rejected,
            "superseded": pair.superseded,
            "lost": pair.lost,
            "held": sum(update.sender == other for update in peer.inbox.slots),
            "refusals": {
                reason.value: count for (blamed, reason), count in sorted(peer.ledger.reasons.items()) if blamed == other
            },
            "ignored_s": round(max(banned_s, 0.0), 3),
        }

    def _trainer(self) -> dict[str, Any]:
        trainer = self.trainer
        pid = trainer.ready.pid if trainer is not None and trainer.ready is not None else None
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


def _age(moment: float | None) -> float | None:
    return round(time.monotonic() - moment, 3) if moment is not None else None


def _measured(line: Mapping[str, Any], name: str) -> float | None:
    """JSON knows no NaN."""
    value = line.get(name)
    return value if value is not None and math.isfinite(value) else None


def _fingerprints(member: Member) -> dict[str, str]:
    keys = {"identity": member.id, "transport": member.transport_key, "seal": member.seal_key}
    return {name: key.hex()[:FINGERPRINT] for name, key in keys.items()}
