"""Updates on their way in: every offer is checked before it costs anything, every chunk as it comes.

The order is the order of the checks in docs/protocol.md, cheapest first. Refused before its signature was checked, an offer
moves nothing but a counter of the hop; after, it moves the replay window too, and the signer is to blame.
"""

from collections.abc import Callable, Collection, Sized
from contextlib import suppress
from itertools import count

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.envelope import Signer
from p2pfl.protocol.errors import Reason, RejectedFrame
from p2pfl.protocol.events import Abandon, Effect, Open, Opened, PeerId, Rejected, Release, Send
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.neighbors import Neighbors
from p2pfl.protocol.room import Room
from p2pfl.protocol.slots import Arriving, Slots
from p2pfl.protocol.window import ReplayWindow

CREDIT_CHUNKS = 16  # chunks a sender may be ahead of what was opened: 16 MiB hide a link's latency and bound what is in flight


class Inbox:
    """Receives offers and chunks into the slots."""

    def __init__(
        self,
        own: PeerId,
        signer: Signer,
        agreement: Agreement,
        window: ReplayWindow,
        ledger: Ledger,
        neighbors: Neighbors,
        room: Room,
        reader: wire.Reader,
    ) -> None:
        rules = agreement.charter.gossip
        self._own = own
        self._signer = signer
        self._agreement = agreement
        self._window = window
        self._ledger = ledger
        self._neighbors = neighbors
        self._room = room
        self._reader = reader
        self._ahead = CREDIT_CHUNKS // 2 if room.takes_turns else CREDIT_CHUNKS  # less where memory is short
        self._tickets = count(1)
        self._opening: dict[int, Arriving] = {}
        self._contents: dict[PeerId, tuple[tuple[bytes, int, int, int], bytes]] = {}
        self.is_new = False  # a newcomer has mixed nothing yet, and takes an update of whatever step its neighbors are in
        self._mixing: list[int] = []  # tickets of what was taken, until its Learn is over
        self.slots = Slots(rules.staleness if rules.mode == "rounds" else None)
        self.now = 0.0  # monotonic, of the event under way

    def offered(
        self, hop: PeerId, offer: wire.Offer, body: Sized | None, is_expected: Callable[[PeerId, int], bool], wall: float
    ) -> list[Effect]:
        """An offer, with the only chunk of a short update beside it. `is_expected(sender, step)` asks the plan."""
        header = self._check_header(hop, offer, is_expected, wall)
        envelope.verify_signature(offer, header, self._signer)
        self._window.record(header.signer, header.boot_epoch, header.seq)
        self._neighbors.of(hop).signed(header.step)
        try:
            self._check_content(header)
            key = envelope.open_offer(offer, header, self._own, self._signer)
            if body is not None and not self._is_inline(offer, body):
                raise RejectedFrame(Reason.BAD_CHUNK, header.signer)
        except RejectedFrame:
            self._ledger.of(hop).rejected += 1
            raise
        if not self.slots.has_room_for(header):
            self._ledger.of(hop).superseded += 1
            return []
        if (partial := self._resumable(hop, header)) is not None:
            return self._resume(partial, header)
        update = Arriving(next(self._tickets), header, offer.length, offer.digests, key)
        displaced = self.slots.place(update)
        effects = self.let_go(displaced) if displaced is not None else []
        self._opening[update.ticket] = update
        if body is None:
            return [*effects, *self.grant()]
        update.credited = 1
        return [*effects, *self._open(update, 0, body)]

    def chunk(self, hop: PeerId, chunk: wire.Chunk, body: Sized | None) -> list[Effect]:
        """The next chunk of an update that was offered by this hop and credited."""
        update = self.slots.find(hop, chunk.chunks_digest)
        if update is not None and update.is_resumed and chunk.index < update.received:
            return []  # the link that broke had delivered it after all
        if update is None or body is None or chunk.index != update.received or chunk.index >= update.credited:
            raise RejectedFrame(Reason.UNEXPECTED_CHUNK, hop)
        if len(body) != envelope.sealed_length(update.length, chunk.index):
            return self._refuse(update, Reason.BAD_CHUNK)
        return self._open(update, chunk.index, body)

    def opened(self, event: Opened, now: float) -> tuple[PeerId | None, list[Effect]]:
        """A chunk was opened, or was not what was offered. Returns whose it is; None if its update was let go meanwhile."""
        update = self._opening.get(event.ticket)
        if update is None:
            return None, [Release(event.payload)] if event.payload is not None else []
        if event.reason is not None:
            return update.sender, self._refuse(update, event.reason)
        if event.payload is None:
            is_half_used = update.credited - (event.index + 1) <= self._ahead // 2
            is_due = is_half_used and not self._is_granted(update)
            return update.sender, [self._credit(update, event.index + 1)] if is_due else []
        del self._opening[event.ticket]
        update.payload, update.whole_at = event.payload, now
        return update.sender, []

    def credit_again(self, peer: PeerId) -> list[Effect]:
        """The link to this peer is new; credit on the old one may be lost, and to say it twice is harmless."""
        return [self._say_credit(u) for u in self.slots if u.sender == peer and not u.is_whole and u.credited]

    def take(self) -> tuple[list[Arriving], list[Effect]]:
        """All that is whole and may be mixed this round. What of the rest brought nothing since the last mix, while others wait
        for a place, loses its own: a neighbor that is gone, or plays dead, holds it for two rounds at most."""
        taken = self.slots.take()
        self._mixing = [update.ticket for update in taken]
        effects: list[Effect] = []
        is_short = self._is_anybody_waiting()
        for update in [u for u in self._opening.values() if self._room.has(u)]:
            if is_short and update.received == update.received_before:
                self._ledger.of(update.sender).lost += 1
                effects += [*self.drop(update), Abandon(update.ticket)]
            update.received_before = update.received
        return taken, [*effects, *self.grant()]

    def mixed(self) -> list[Effect]:
        """The Learn that got what was taken is over, and its memory free."""
        for ticket in self._mixing:
            self._room.leave(ticket)
        self._mixing = []
        return self.grant()

    def make_room(self, update: Arriving) -> list[Effect]:
        """Its memory is free already."""
        self._room.leave(update.ticket)
        return self.grant()

    def drop(self, update: Arriving) -> list[Effect]:
        """Forget it; whoever says so has booked what became of it."""
        self._opening.pop(update.ticket, None)
        self.slots.remove(update)
        return self.make_room(update)

    def take_turns(self, may_begin: bool) -> list[Effect]:
        """From now on turns may begin, or none does; no matter where updates take no turns."""
        if not self._room.takes_turns:
            return []
        self._room.is_open = may_begin
        return self.grant()

    @property
    def deadline(self) -> float | None:
        """When `grant` is worth another call, whatever happens until then."""
        return self._room.next_turn_at(self.now) if self._is_anybody_waiting() else None

    def let_go(self, update: Arriving) -> list[Effect]:
        """A newer update took its place, or its round is over."""
        self._ledger.of(update.sender).superseded += 1
        self._opening.pop(update.ticket, None)
        self._room.leave(update.ticket)
        gone = Release(update.payload) if update.payload is not None else Abandon(update.ticket)
        return [gone, *self.grant()]

    def forget(self, gone: Collection[PeerId]) -> None:
        """They are no members any more, and nothing of theirs is held."""
        for sender in gone:
            self._contents.pop(sender, None)
        self._window.forget(gone)
        self._room.forget(gone)
        self.slots.forget(gone)

    def _check_header(
        self, hop: PeerId, offer: wire.Offer, is_expected: Callable[[PeerId, int], bool], wall: float
    ) -> wire.Header:
        header, charter = self._reader.decode_header(offer.header), self._agreement.charter
        if header.network != charter.network_id:
            raise RejectedFrame(Reason.WRONG_NETWORK, hop)
        if not self._agreement.accepts(header.charter, wall):
            raise RejectedFrame(Reason.WRONG_CHARTER, hop)
        if header.schema != charter.schema or offer.length != charter.update_bytes:
            raise RejectedFrame(Reason.BAD_SCHEMA, hop)
        if header.signer != hop:
            raise RejectedFrame(Reason.HOP_MISMATCH, hop)
        self._check_step(hop, offer, header)
        if not is_expected(hop, header.step):
            raise RejectedFrame(Reason.NOT_NEIGHBOR, hop)
        if not self._window.check(header.signer, header.boot_epoch, header.seq):
            raise RejectedFrame(Reason.REPLAYED, hop)
        return header

    def _check_step(self, hop: PeerId, offer: wire.Offer, header: wire.Header) -> None:
        """Refuses a step that no peer reaches, or one beyond the window. What is really signed still says where its signer is:
        else a peer that was away for longer would never find back."""
        rules = self._agreement.charter.gossip
        if 0 < rules.rounds <= header.step:
            raise RejectedFrame(Reason.FUTURE_STEP, hop)
        if not self.is_new and self.slots.is_ahead(header.step, rules.step_window):
            with suppress(RejectedFrame):
                envelope.verify_signature(offer, header, self._signer)
                self._neighbors.of(hop).signed(header.step)
            raise RejectedFrame(Reason.FUTURE_STEP, hop)

    def _check_content(self, header: wire.Header) -> None:
        """Two different contents for one (boot id, step, phase, part) of one signer are proof that it lies to somebody."""
        signer = PeerId(header.signer)
        place = (header.boot_id, header.step, header.phase, header.part)
        known_place, known_digest = self._contents.get(signer, (place, header.chunks_digest))
        if known_place == place and known_digest != header.chunks_digest:
            raise RejectedFrame(Reason.EQUIVOCATION, signer)
        self._contents[signer] = (place, header.chunks_digest)

    def _is_inline(self, offer: wire.Offer, body: Sized) -> bool:
        return len(offer.digests) == 1 and len(body) == envelope.sealed_length(offer.length, 0) and len(body) <= wire.INLINE_MAX

    def _resumable(self, hop: PeerId, header: wire.Header) -> Arriving | None:
        """What is here already of this very update, offered again because a link broke."""
        partial = self.slots.find(hop, header.chunks_digest)
        if partial is None or not partial.received:
            return None
        held = partial.header
        is_same = (held.step, held.part, held.key_commitment) == (header.step, header.part, header.key_commitment)
        return partial if is_same else None

    def _resume(self, partial: Arriving, header: wire.Header) -> list[Effect]:
        """Go on at the missing chunk; the offer before this one counts no more."""
        self._ledger.of(partial.sender).superseded += 1
        partial.header, partial.is_resumed = header, True
        return [self._say_credit(partial)]

    def grant(self) -> list[Effect]:
        """Credit the first chunks of whoever gets a place."""
        effects: list[Effect] = []
        while self._is_anybody_waiting() and (update := self._room.next(self.slots, self.now)) is not None:
            effects.append(self._credit(update, 0))
        return effects

    def _is_anybody_waiting(self) -> bool:
        return not all(update.credited for update in self._opening.values())

    def _credit(self, update: Arriving, opened: int) -> Send:
        update.credited = min(opened + self._ahead, len(update.digests))
        return self._say_credit(update)

    def _say_credit(self, update: Arriving) -> Send:
        first = update.received if update.is_resumed else 0
        return Send(update.sender, (wire.encode(wire.Credit(update.header.chunks_digest, update.credited, first)),))

    def _is_granted(self, update: Arriving) -> bool:
        return update.credited == len(update.digests)

    def _open(self, update: Arriving, index: int, body: Sized) -> list[Effect]:
        update.received = index + 1
        total = len(update.digests)
        return [Open(update.ticket, index, total, update.length, update.digests[index], update.key, body)]

    def _refuse(self, update: Arriving, reason: Reason) -> list[Effect]:
        self._ledger.of(update.sender).rejected += 1
        self._ledger.reasons[update.sender, reason] += 1
        granted = self.drop(update)
        return [Abandon(update.ticket), Rejected(reason, update.sender), *granted]
