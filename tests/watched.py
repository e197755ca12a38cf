"""The network process of a node on the fault bench: `python -m tests.watched FD HISTORY OPTIONS`.

It is `node.network` itself, with other waits, and with a peer that writes down what it does, before any of it is carried out:
a line is in the file before the message can be on the wire, and SIGKILL takes no line back. What the lines mean: `history.py`.
Options, in JSON: `patience`, the fields of that; `updates`, whether every update goes to a file beside the history, unsealed;
`open`, whether links are not encrypted, which nothing but this can do to a node; `folds`, whether it has no memory for updates
of all neighbors at once, however small.
"""

import functools
import hashlib
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import zmq

from node import gossiping, ground, network
from node.setup import from_fd
from node.transport import link, listener
from node.transport.links import Links
from node.transport.sockets import Patience, TransportKeys
from node.transport.zap import user_id
from p2pfl.protocol import room, wire
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.events import (
    Effect,
    Event,
    Finished,
    Fold,
    Instant,
    Learned,
    LinkDown,
    LinkUp,
    PeerId,
    Persist,
    Rejected,
    Send,
)
from p2pfl.protocol.peer import Peer


class WatchedPeer(Peer):
    """A peer that keeps a history."""

    def __init__(self, history: int, updates: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._history = history
        self._updates = updates
        self._got: Counter[PeerId] = Counter()
        self._told: dict[PeerId, tuple[int, ...]] = {}
        boot = next(value for value in (*args, *kwargs.values()) if isinstance(value, Boot))
        record = self._window.record

        def noted(signer: bytes, epoch: int, seq: int) -> None:
            record(signer, epoch, seq)
            self._got[PeerId(signer)] += 1
            self._note("got", frm=signer.hex()[:16], epoch=epoch, seq=seq)

        self._window.record = noted  # type: ignore[method-assign]
        self._note("life", epoch=boot.epoch, boot=boot.id.hex(), step=self.step)

    def handle(self, event: Event, now: Instant) -> list[Effect]:
        match event:
            case LinkUp(peer):
                self._note("up", peer=peer.hex()[:16])
            case LinkDown(peer):
                self._note("down", peer=peer.hex()[:16])
            case Learned(step=step, metrics=metrics, outgoing=outgoing):
                for one in outgoing if self._updates >= 0 else ():
                    os.write(self._updates, one.payload.buffer.view[: one.payload.length])  # type: ignore[attr-defined]
                self._note("learned", step=step, loss=metrics.get("loss"))
        effects = super().handle(event, now)
        for effect in effects:
            self._note_effect(effect)
        self._note_books()
        return effects

    def _note_effect(self, effect: Effect) -> None:
        match effect:
            case Send(to, (head, *_)) if isinstance(offer := wire.decode(bytes(head)), wire.Offer):
                header = wire.decode_header(offer.header)
                mark = hashlib.blake2b(offer.header, digest_size=8).hexdigest()
                self._note("sent", to=to.hex()[:16], epoch=header.boot_epoch, seq=header.seq, step=header.step, mark=mark)
            case Rejected(reason, blame):
                self._note("rejected", reason=reason.value, blame=blame.hex()[:16])
            case Fold(step=step, sender=sender):
                self._note("fold", frm=sender.hex()[:16], step=step)
            case Persist(step=step):
                self._note("persist", step=step)
            case Finished(step):
                self._note("finished", step=step)

    def _note_books(self) -> None:
        held = Counter(update.sender for update in self.inbox.slots)
        if self._learn is not None:
            held.update(update.sender for update in self._learn.mixes)
        for peer in {*self.ledger.pairs, *self._got}:
            pair = self.ledger.of(peer)
            counts = (pair.sent, self._got[peer], pair.applied, pair.rejected, pair.superseded, pair.lost, held[peer])
            if self._told.get(peer) != counts:
                self._told[peer] = counts
                self._note("pair", peer=peer.hex()[:16], counts=counts)

    def _note(self, what: str, **rest: Any) -> None:
        os.write(self._history, json.dumps({"t": time.monotonic(), "what": what, **rest}).encode() + b"\n")


def open_links() -> None:
    """Links as they would be without CURVE: a member is who it says it is."""

    def listening(context: Any, _keys: Any, _domain: Any, _patience: Any) -> Any:
        socket = context.socket(zmq.ROUTER)
        socket.linger = 0
        return socket

    def dialling(context: Any, keys: TransportKeys, _server_key: Any, _patience: Any) -> Any:
        socket = context.socket(zmq.DEALER)
        socket.identity = user_id(keys.public).encode() + os.urandom(8)
        socket.setsockopt(zmq.RECONNECT_IVL, -1)
        socket.linger = 0
        return socket

    async def knock(_links: Links, _address: Any) -> None:
        """There is no door."""

    listener.listening_socket = listening  # type: ignore[attr-defined]
    link.dialling_socket = dialling  # type: ignore[attr-defined]
    listener.Listener._hop = lambda self, frame: self._members.get(frame.bytes[:64].decode())  # type: ignore[method-assign]
    Links._knock = knock  # type: ignore[method-assign]


def main() -> int:
    fd, history, options = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    written = os.open(history, flags, 0o600)
    updates = os.open(history + ".updates", flags, 0o600) if options["updates"] else -1
    if options["open"]:
        open_links()
    if options["folds"]:
        room.ARRIVING_BYTES = 0
    gossiping.Peer = functools.partial(WatchedPeer, written, updates)  # type: ignore[misc, assignment]
    ground.Links = functools.partial(Links, patience=Patience(**options["patience"]))  # type: ignore[misc, assignment]
    return network.main(from_fd(fd))


if __name__ == "__main__":
    sys.exit(main())
