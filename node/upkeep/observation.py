"""What a running node says of itself: one snapshot in plain values, for its owner's status and for metrics.

It looks at the parts of a network process and changes none of them. A snapshot costs some microseconds for each neighbor.
"""

import os
import time
from collections.abc import Mapping
from typing import Any, Protocol

from node.transport.links import Links
from node.transport.ways import Ways
from node.upkeep.journal import Journal
from node.upkeep.memory import resident_bytes
from node.upkeep.work import UNTOUCHED, Work
from p2pfl import __version__
from p2pfl.protocol.charter import Member
from p2pfl.protocol.events import PeerId

ALONE_S = 5.0  # without a neighbor before a node calls itself alone
FINGERPRINT = 16  # hex digits: enough to compare by eye, far too many to find a second key for


class Company(Protocol):
    """What is used of `others.Others`."""

    @property
    def members(self) -> Mapping[PeerId, Member]: ...
    def account(self) -> dict[str, Any] | None: ...


class Observation:
    """Of one node, whatever its work is."""

    def __init__(self, network: str, own: Member, others: Company, journal: Journal, work: Work) -> None:
        self.work = work
        self.links: Links | Ways | None = None
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
        if self.work.state == "starting" or self.links is None:
            return
        has_company = any(map(self.work.is_ready, self.links.dialled))
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
        return self.work.step

    @property
    def state(self) -> str:
        """In one word. Degraded comes before alone, and both before what the peer is doing."""
        if self.is_leaving:
            return "leaving"
        if self.work.state in UNTOUCHED or self.alone_since is None:
            return self.work.state
        return "alone"

    def snapshot(self) -> dict[str, Any]:
        """Totals are since this start of the process."""
        links = self.links
        return {
            "name": self._own.name,
            "network": self._network,
            "role": self.work.role,
            "state": self.state,
            "step": self.step,
            "alone_since": self.alone_since,
            "listens_at": self.listens_at,
            "keys": _fingerprints(self._own),
            "members": len(self._others.members),
            "membership": self._others.account(),
            "neighbors": self._neighbors(links) if links and self.work.state != "starting" else [],
            "tunnels": links.account() if isinstance(links, Ways) else None,
            "bytes_sent": links.bytes_in_all[0] if links else 0,
            "bytes_received": links.bytes_in_all[1] if links else 0,
            "strangers_refused": links.refused if links else 0,
            "messages_unknown": links.unknown if links else 0,
            "messages_dropped": sum(links.dropped.values()) if links else 0,
            "messages_muted": links.muted if links else 0,
            "listener_cycles": links.cycles if links else 0,
            **self.work.account(),
            "journal_failures": self._journal.failed_writes,
            "incidents": dict(self._journal.incidents),
            "recent": list(self._journal.recent),
            "began": self._began_wall,
            "uptime_s": round(time.monotonic() - self._began, 3),
            "memory_bytes": resident_bytes(os.getpid()),
            "pid": os.getpid(),
            "version": __version__,
        }

    def _neighbors(self, links: Links | Ways) -> list[dict[str, Any]]:
        through = links.through if isinstance(links, Ways) else {}
        return [self._neighbor(links, peer, trouble, through.get(peer)) for peer, trouble in links.dialled.items()]

    def _name(self, peer: PeerId) -> str:
        member = self._others.members.get(peer)
        return member.name if member else peer.hex()[:FINGERPRINT]

    def _neighbor(self, links: Links | Ways, peer: PeerId, trouble: str, relay: PeerId | None) -> dict[str, Any]:
        member = self._others.members.get(peer)
        return {
            "name": self._name(peer),
            "address": member.address if member else "",
            "keys": _fingerprints(member) if member else {"identity": peer.hex()[:FINGERPRINT]},
            "through": self._name(relay) if relay is not None else "",
            "trouble": trouble,
            "bytes_sent": links.bytes_sent[peer],
            "bytes_received": links.bytes_received[peer],
            "messages_dropped": links.dropped[peer],
            **self.work.account_of(peer),
        }


def _fingerprints(member: Member) -> dict[str, str]:
    keys = {"identity": member.id, "transport": member.transport_key, "seal": member.seal_key}
    return {name: key.hex()[:FINGERPRINT] for name, key in keys.items()}
