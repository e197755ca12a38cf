"""The network process of a founded node, with what it makes of the others written down: `python -m tests.watched_view FD FILE`.

It is `node.network` itself; a line of JSON goes to FILE before anything else happens. `t` is the machine's monotonic clock, the
same for all. `what` says which: "life" (a start); "state" (of `peer`: alive, suspected, dead or none, in this node's view
from now on); "round" (the updates of whom were `applied` in the round that ended, and the bytes sent so far: all, those of
updates, those of membership).
"""

import json
import os
import sys
import time
from typing import Any

from node import network
from node.live_peer import LivePeer
from node.setup import from_fd
from node.transport.links import Links
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.membership import Membership


class Notes:
    """What is written down, and what of it was said before."""

    def __init__(self, file: int) -> None:
        self.bulk_bytes = 0
        self._file = file
        self._version = -1
        self._suspects: set[PeerId] = set()
        self._states: dict[PeerId, str] = {}
        self._applied: dict[PeerId, int] = {}

    def look(self, membership: Membership) -> None:
        """After each of its turns, most of which change nothing."""
        view = membership.view
        if view.version == self._version and view.suspects == self._suspects:
            return
        self._version, self._suspects = view.version, set(view.suspects)
        snapshot = membership.snapshot()
        states = dict.fromkeys(snapshot.dead, "dead") | dict.fromkeys(snapshot.live, "alive")
        states |= dict.fromkeys(snapshot.suspects, "suspected")
        states |= dict.fromkeys(self._states.keys() - states.keys(), "none")
        for peer, state in states.items():
            if self._states.get(peer) != state:
                self.write("state", peer=peer.hex()[:16], state=state)
        self._states = states

    def round_ended(self, live: LivePeer) -> None:
        pairs = live._peer.ledger.pairs
        applied = [peer for peer, pair in pairs.items() if pair.applied != self._applied.get(peer, 0)]
        self._applied = {peer: pair.applied for peer, pair in pairs.items()}
        sent = {"all": live.counters()["bytes_sent"], "bulk": self.bulk_bytes, "membership": live.membership_bytes}
        self.write("round", step=live._peer.step, applied=[peer.hex()[:16] for peer in applied], **sent)

    def write(self, what: str, **rest: Any) -> None:
        os.write(self._file, json.dumps({"t": time.monotonic(), "what": what, **rest}).encode() + b"\n")


def keep(notes: Notes) -> None:
    """Have every peer of this process kept notes of."""
    settle, send, round_ended = Membership._settle, Links.send, LivePeer._round_ended

    def settled(membership: Membership, *args: Any) -> Any:
        effects = settle(membership, *args)
        notes.look(membership)
        return effects

    def sending(links: Links, to: PeerId, frames: tuple[Any, ...], bulk: bool = False) -> None:
        before = links.bytes_sent[to]
        send(links, to, frames, bulk)
        notes.bulk_bytes += links.bytes_sent[to] - before if bulk else 0

    def rounded(live: LivePeer, ended: Any) -> None:
        round_ended(live, ended)
        notes.round_ended(live)

    Membership._settle = settled  # type: ignore[method-assign]
    Links.send = sending  # type: ignore[method-assign]
    LivePeer._round_ended = rounded  # type: ignore[method-assign]


def main() -> int:
    fd, file = int(sys.argv[1]), sys.argv[2]
    notes = Notes(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    notes.write("life")
    keep(notes)
    return network.main(from_fd(fd))


if __name__ == "__main__":
    sys.exit(main())
