"""Updates on their way out: sealed once, offered to each reader, and sent chunk by chunk as readers grant credit."""

from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from typing import cast

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.agreement import Agreement
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.envelope import Signer
from p2pfl.protocol.events import Effect, Outgoing, Payload, PeerId, Release, Seal, Sealed, Send
from p2pfl.protocol.ledger import Ledger
from p2pfl.protocol.randomness import Entropy


@dataclass(slots=True)
class OwnUpdate:
    """One of the peer's own updates: its key, its ciphertext once it is sealed, and how far each reader got."""

    ticket: int
    step: int
    part: int
    age: int
    key: bytes = field(repr=False)
    length: int
    readers: tuple[PeerId, ...] | None
    chunks: tuple[Payload, ...] = ()
    digests: tuple[bytes, ...] = ()
    chunks_digest: bytes = b""
    next_chunk: dict[PeerId, int] = field(default_factory=dict)

    @property
    def is_delivered(self) -> bool:
        """Whether every chunk was handed to the link of everyone it was offered to."""
        return bool(self.chunks) and all(sent == len(self.chunks) for sent in self.next_chunk.values())


class Outbox:
    """This step's own updates, and the step before's for readers who are still fetching them; older ones are let go, so that
    a slow reader costs one more ciphertext and never two."""

    def __init__(self, own: PeerId, samples: int, signer: Signer, agreement: Agreement, boot: Boot, entropy: Entropy) -> None:
        self._own = own
        self._samples = samples
        self._signer = signer
        self._agreement = agreement
        self._boot = boot
        self._entropy = entropy
        self._seq = 0
        self._updates: list[OwnUpdate] = []
        self._sealing: dict[int, Payload] = {}

    @property
    def is_sealing(self) -> bool:
        """Whether a `Seal` is not answered yet."""
        return bool(self._sealing)

    def begin(self, outgoing: Outgoing, ticket: int, step: int, part: int, age: int) -> list[Effect]:
        """Take an encoded vector and ask for it to be sealed under a fresh key."""
        key = self._entropy.draw(envelope.KEY_BYTES)
        self._updates = [u for u in self._updates if u.step == step or (u.step == self._latest and not u.is_delivered)]
        self._updates.append(OwnUpdate(ticket, step, part, age, key, outgoing.payload.length, outgoing.readers))
        self._sealing[ticket] = outgoing.payload
        return [Seal(ticket, outgoing.payload, key)]

    def sealed(self, event: Sealed) -> tuple[OwnUpdate | None, list[Effect]]:
        """The ciphertext is there; the plain payload can go. None if the update was let go meanwhile."""
        released: list[Effect] = [Release(self._sealing.pop(event.ticket))]
        update = next((u for u in self._updates if u.ticket == event.ticket), None)
        if update is None:
            return None, released
        update.chunks = event.chunks
        update.digests = tuple(chunk.digest for chunk in event.chunks)
        update.chunks_digest = envelope.chunks_digest(update.length, update.digests)
        return update, released

    def newest(self) -> list[OwnUpdate]:
        """This step's sealed updates."""
        return [u for u in self._updates if u.step == self._latest and u.chunks]

    def offer(self, update: OwnUpdate, readers: Iterable[PeerId], ledger: Ledger) -> list[Effect]:
        """Offer to these readers, under one signature for every `READERS_MAX`; a short update rides along with its offer."""
        everyone = sorted(readers)
        groups = [tuple(everyone[i : i + wire.READERS_MAX]) for i in range(0, len(everyone), wire.READERS_MAX)]
        return [send for group in groups for send in self._offer(update, group, ledger)]

    def _offer(self, update: OwnUpdate, addressed: tuple[PeerId, ...], ledger: Ledger) -> list[Effect]:
        charter = self._agreement.charter
        header = wire.Header(
            network=charter.network_id,
            charter=charter.digest,
            schema=charter.schema,
            signer=self._own,
            boot_id=self._boot.id,
            boot_epoch=self._boot.epoch,
            seq=self._seq,
            step=update.step,
            phase=0,
            part=update.part,
            age=update.age,
            samples=self._samples,
            chunks_digest=update.chunks_digest,
            readers_digest=envelope.readers_digest(addressed),
            key_commitment=envelope.commitment(update.key),
        )
        self._seq += 1
        nonces = [self._entropy.draw(envelope.NONCE_BYTES) for _ in addressed]
        offer = envelope.offer(header, self._signer, addressed, update.key, nonces, update.length, update.digests)
        rides_along = len(update.chunks) == 1 and update.chunks[0].length <= wire.INLINE_MAX
        head = wire.encode(offer)
        frames: tuple[Sized, ...] = (head, cast(Sized, update.chunks[0].buffer)) if rides_along else (head,)
        for reader in addressed:
            update.next_chunk[reader] = len(update.chunks) if rides_along else 0
            ledger.of(reader).sent += 1
        return [Send(reader, frames, bulk=True) for reader in addressed]

    def credited(self, reader: PeerId, credit: wire.Credit) -> list[Effect]:
        """Send what this reader has granted and not had yet. Credit for an update that was let go comes to nothing: a newer
        one was offered."""
        for update in self._updates:
            if update.chunks_digest == credit.chunks_digest and reader in update.next_chunk:
                first = min(max(update.next_chunk[reader], credit.first), len(update.chunks))
                until = max(first, min(credit.upto, len(update.chunks)))
                update.next_chunk[reader] = until
                heads = [wire.encode(wire.Chunk(update.chunks_digest, i)) for i in range(first, until)]
                bodies = [cast(Sized, chunk.buffer) for chunk in update.chunks[first:until]]
                return [Send(reader, frames, bulk=True) for frames in zip(heads, bodies, strict=True)]
        return []

    @property
    def _latest(self) -> int:
        return max((u.step for u in self._updates), default=-1)
