"""Real peers on fake links and under a clock that only the test moves: the stage for transcripts of the protocol.

The peers, their keys and all cryptography are real. The stand-in for a learner keeps one number per peer: it mixes numbers and
"trains" by adding `gain`, so that a test can foretell every value.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from p2pfl.protocol import envelope, wire
from p2pfl.protocol.boot import Boot
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    Abandon,
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
    Fold,
    Folded,
    FoldsLost,
    FrameReceived,
    Instant,
    Learn,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    Open,
    Opened,
    Outgoing,
    Payload,
    PeerId,
    Rejected,
    Release,
    RoundEnded,
    Seal,
    Sealed,
    Send,
    Started,
    Verdict,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.peer import Peer, State
from p2pfl.protocol.randomness import Choices
from p2pfl.protocol.round import static_plan
from sim.entropy import SeededEntropy

SCHEMA = b"s" * 32


@dataclass
class Stage:
    """One peer with what an engine would hold for it, and everything it was told and asked for."""

    peer: Peer
    identity: Identity
    value: float
    gain: float = 0.0
    padding: int = 0
    boot: int = 1
    is_learner_broken: bool = False
    is_learner_stalled: bool = False
    log: list[Event | Effect] = field(default_factory=list)
    inbox: deque[Event] = field(default_factory=deque)
    learning: Learn | None = None
    sum: float | None = None
    summed: list[PeerId] = field(default_factory=list)
    _next_value: float = 0.0
    _opening: dict[int, bytes] = field(default_factory=dict)
    _lent: dict[int, Payload] = field(default_factory=dict)
    _sealing: dict[int, Payload] = field(default_factory=dict)

    def of(self, kind: type) -> list:
        """Everything of one kind in the log, in order."""
        return [entry for entry in self.log if isinstance(entry, kind)]

    @property
    def rejections(self) -> list[Reason]:
        return [entry.reason for entry in self.log if isinstance(entry, Rejected)]

    def follow_payloads(self, event: Event, effects: list[Effect]) -> None:
        """Every payload that the peer was handed is in exactly one place until it is released, and is released once."""
        match event:
            case Learned(outgoing=outgoing):
                self._lent |= {id(one.payload): one.payload for one in outgoing}
            case Opened(payload=Payload() as payload):
                self._lent[id(payload)] = payload
            case Sealed(ticket):
                del self._sealing[ticket]
            case _:
                pass
        for effect in effects:
            if isinstance(effect, Release):
                assert self._lent.pop(id(effect.payload), None) is not None, "released twice, or never handed over"
            elif isinstance(effect, Seal):
                self._sealing[effect.ticket] = effect.payload
            elif isinstance(effect, Learn):
                self.learning = effect
        in_slots = [update.payload for update in self.peer.inbox.slots if update.payload is not None]
        in_learn = [arrived.payload for arrived in self.learning.arrived] if self.learning else []
        places = [id(payload) for payload in (*in_slots, *in_learn, *self._sealing.values())]
        assert sorted(places) == sorted(self._lent), "a payload leaked, or is in two places"


class Ring:
    """Peers 0 .. n-1, each linked with its two neighbors on a ring (with the other one where n is 2), or as `edges` say:
    (i, j) is i sending to j."""

    def __init__(
        self,
        n: int,
        rules: GossipRules | None = None,
        gain: float = 0.0,
        padding: int = 0,
        values: list[float] | None = None,
        edges: Iterable[tuple[int, int]] | None = None,
        seed: int = 7,
        room: int | None = None,
        folds: bool = False,
    ) -> None:
        self.time = 0.0
        self.room = room
        self.folds = folds
        self.seed = seed
        self.edges = set(edges) if edges is not None else {(k, (k + d) % n) for k in range(n) for d in (1, -1) if n > 1}
        self.cut: set[tuple[PeerId, PeerId]] = set()
        self.tamper: Callable[[PeerId, PeerId, tuple[bytes, ...]], tuple[bytes, ...] | None] = lambda a, b, frames: frames
        identities = [Identity.generate(SeededEntropy(seed, b"identity %d" % i)) for i in range(n)]
        self.ids = [identity.peer_id for identity in identities]
        self.members = {
            i.peer_id: Member(i.peer_id, f"peer-{k}", "", i.transport_key, i.seal_key) for k, i in enumerate(identities)
        }
        self.charter = Charter("ring", bytes(32), SCHEMA, 8 + padding, rules or GossipRules(rounds=3))
        self.stages = [
            Stage(self._peer(k, identity, boot=1), identity, float((values or range(n))[k]), gain, padding)
            for k, identity in enumerate(identities)
        ]

    def _peer(self, k: int, identity: Identity, boot: int, restored: bytes | None = None) -> Peer:
        send_to = [self.ids[j] for i, j in sorted(self.edges) if i == k]
        senders = [self.ids[i] for i, j in sorted(self.edges) if j == k]
        weights = dict.fromkeys([*senders, self.ids[k]], 1.0 / (len(senders) + 1))
        entropy = SeededEntropy(self.seed, b"entropy %d %d" % (k, boot))
        return Peer(
            own=self.ids[k],
            signer=Keyring(identity, self.members),
            charter=self.charter,
            members=self.members,
            plan=static_plan(self.ids[k], send_to, weights),
            local_steps=5,
            samples=10,
            boot=Boot(boot, entropy.draw(16)),
            choices=Choices(self.seed, b"choices %d" % k),
            entropy=entropy,
            restored=restored,
            room=self.room,
            folds=self.folds,
        )

    def __getitem__(self, k: int) -> Stage:
        return self.stages[k]

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    @property
    def values(self) -> list[float]:
        return [stage.value for stage in self.stages]

    def start(self, *ks: int) -> None:
        """Tell these peers (all where none is named) that they have started."""
        for k in ks or range(len(self.stages)):
            self.tell(k, Started())

    def tell(self, k: int, event: Event) -> list[Effect]:
        """One event for one peer, at the present time; its effects are carried out, messages stay under way until `settle`."""
        stage = self.stages[k]
        if isinstance(event, Learned | LearnFailed):
            stage.learning = None
        if isinstance(event, LearnFailed | FoldsLost):
            stage.sum, stage.summed = None, []
        if isinstance(event, Learned):
            stage.value = stage._next_value
        effects = stage.peer.handle(event, Instant(self.time, 1e9 + self.time))
        stage.log += [event, *effects]
        stage.follow_payloads(event, effects)
        for effect in effects:
            self._carry_out(k, effect)
        return effects

    def settle(self, learn: bool = True) -> None:
        """Deliver everything under way, and let learners answer last, until nothing moves."""
        for _ in range(100_000):
            k = next((k for k, stage in enumerate(self.stages) if stage.inbox), None)
            if k is not None:
                self.tell(k, self.stages[k].inbox.popleft())
                continue
            ready = (k for k, stage in enumerate(self.stages) if stage.learning is not None and not stage.is_learner_stalled)
            k = next(ready, None) if learn else None
            if k is None:
                return
            self.learn(k)
        raise AssertionError("the peers never settle")

    def learn(self, k: int) -> None:
        """The learner of one peer answers now."""
        stage = self.stages[k]
        learn = stage.learning
        assert learn is not None
        if stage.is_learner_broken:
            self.tell(k, LearnFailed(learn.step, "broken by the test"))
            return
        assert [update.sender for update in learn.folded] == stage.summed
        mixed, verdicts = stage.value if stage.sum is None else stage.sum, []
        stage.sum, stage.summed = None, []
        verdicts += [Verdict(update.sender, update.epoch, update.seq) for update in learn.folded]
        for arrived in learn.arrived:
            (value,) = struct.unpack("<d", arrived.payload.buffer[:8])
            is_finite = value == value and abs(value) != float("inf")
            if is_finite:
                mixed += learn.weights[arrived.sender] * (value - stage.value)
            reason = None if is_finite else Reason.NON_FINITE
            verdicts.append(Verdict(arrived.sender, arrived.epoch, arrived.seq, reason))
        stage._next_value = mixed + stage.gain * (learn.local_steps > 0)
        payload = struct.pack("<d", stage._next_value) + bytes(stage.padding)
        outgoing = Outgoing(Payload(len(payload), envelope.digest(payload), payload))
        self.tell(k, Learned(learn.step, (outgoing,), tuple(verdicts), {"value": mixed}))

    def pass_time(self, seconds: float, learn: bool = True) -> None:
        """Move the clock, wake those whose deadline came, and settle."""
        until = self.time + seconds
        while True:
            due = [(s.peer.deadline, k) for k, s in enumerate(self.stages) if s.peer.deadline is not None]
            deadline, k = min(due, default=(None, -1))
            if deadline is None or deadline > until:
                break
            self.time = max(self.time, deadline)
            self.tell(k, DeadlineReached())
            self.settle(learn)
        self.time = until

    def kill(self, k: int) -> None:
        """The process is gone: its links break, what it held is lost."""
        dead = self.stages[k]
        dead.inbox.clear()
        dead.learning = None
        for j, stage in enumerate(self.stages):
            if j != k:
                self.cut |= {(self.ids[k], self.ids[j]), (self.ids[j], self.ids[k])}
                if any(isinstance(e, Dial) and e.peer == self.ids[k] for e in stage.log):
                    stage.inbox.append(LinkDown(self.ids[k]))

    def restart(self, k: int, restored: bytes | None) -> None:
        """A new life of a killed peer: another boot, the same identity; its neighbors' links come up again."""
        self.cut -= {pair for pair in self.cut if self.ids[k] in pair}
        old = self.stages[k]
        peer = self._peer(k, old.identity, boot=old.boot + 1, restored=restored)
        self.stages[k] = replace(
            old,
            peer=peer,
            boot=old.boot + 1,
            log=[],
            inbox=deque(),
            learning=None,
            sum=None,
            summed=[],
            _opening={},
            _lent={},
            _sealing={},
        )
        for j, stage in enumerate(self.stages):
            if j != k and any(isinstance(e, Dial) and e.peer == self.ids[k] for e in stage.log):
                stage.inbox.append(LinkUp(self.ids[k]))
        self.start(k)

    def _carry_out(self, k: int, effect: Effect) -> None:
        stage = self.stages[k]
        match effect:
            case Dial(peer):
                if (self.ids[k], peer) not in self.cut:
                    stage.inbox.append(LinkUp(peer))
            case Send(to, frames):
                sent = self.tamper(self.ids[k], to, tuple(bytes(frame) for frame in frames))
                if sent is not None and (self.ids[k], to) not in self.cut:
                    self.stages[self.ids.index(to)].inbox.append(FrameReceived(self.ids[k], sent))
            case Seal(ticket, payload, key):
                plain = payload.buffer
                count = envelope.chunk_count(len(plain))
                size = envelope.CHUNK_BYTES
                sealed = [envelope.seal_chunk(key, i, i == count - 1, plain[i * size : (i + 1) * size]) for i in range(count)]
                stage.inbox.append(Sealed(ticket, tuple(Payload(len(c), envelope.digest(c), c) for c in sealed)))
            case Open():
                stage.inbox.append(self._opened(stage, effect))
            case Abandon(ticket):
                stage._opening.pop(ticket, None)
            case Fold():
                stage.inbox.append(self.folded(stage, effect))
            case _:
                pass

    def folded(self, stage: Stage, fold: Fold) -> Folded:
        (value,) = struct.unpack("<d", fold.payload.buffer[:8])
        if value != value or abs(value) == float("inf"):
            return Folded(fold.ticket, Reason.NON_FINITE)
        stage.sum = (stage.value if stage.sum is None else stage.sum) + fold.weight * (value - stage.value)
        stage.summed.append(fold.sender)
        return Folded(fold.ticket)

    def _opened(self, stage: Stage, effect: Open) -> Opened:
        is_last = effect.index == effect.count - 1
        plain = None
        if envelope.digest(effect.chunk) == effect.digest:
            plain = envelope.open_chunk(effect.key, effect.index, is_last, effect.chunk)
        if plain is None:
            return Opened(effect.ticket, effect.index, Reason.BAD_CHUNK)
        whole = stage._opening.pop(effect.ticket, b"") + plain
        if not is_last:
            stage._opening[effect.ticket] = whole
            return Opened(effect.ticket, effect.index)
        return Opened(effect.ticket, effect.index, None, Payload(len(whole), envelope.digest(whole), whole))


def books_balance(ring: Ring) -> bool:
    """Conservation per pair, when nothing is under way: sent = applied + rejected + superseded + lost + held."""
    for i, sender in enumerate(ring):
        for j, receiver in enumerate(ring):
            if i == j:
                continue
            counts = receiver.peer.ledger.of(ring.ids[i])
            held = sum(1 for update in receiver.peer.inbox.slots if update.sender == ring.ids[i])
            total = counts.applied + counts.rejected + counts.superseded + counts.lost + held
            if sender.peer.ledger.of(ring.ids[j]).sent != total:
                return False
    return True


@dataclass
class Liar:
    """Member `k` of a ring in the hands of an attacker: it signs and seals whatever it likes with its real keys."""

    ring: Ring
    k: int
    epoch: int = 1
    seq: int = 1_000
    boot_id: bytes = b"l" * 16

    def offer(
        self, *readers: int, value: float = 0.0, wrapped_for: int | None = None, inline: bool = True, **changes: Any
    ) -> tuple[bytes, ...]:
        """The frames of an offer of `value` to these peers, with these header fields; what is not said is honest."""
        identity, charter = self.ring[self.k].identity, self.ring.charter
        keyring = Keyring(identity, self.ring.members)
        place = changes.get("step", 0), changes.get("part", 0), value
        entropy = SeededEntropy(self.seq, b"nonces")
        key, plain = SeededEntropy(7, b"key %r" % (place,)).draw(32), struct.pack("<d", value) + bytes(charter.update_bytes - 8)
        count, size = envelope.chunk_count(len(plain)), envelope.CHUNK_BYTES
        self.chunks = [envelope.seal_chunk(key, i, i == count - 1, plain[i * size : (i + 1) * size]) for i in range(count)]
        digests = tuple(map(envelope.digest, self.chunks))
        ids = [self.ring.ids[reader] for reader in readers]
        self.seq += 1
        honest: dict[str, Any] = {
            "network": charter.network_id,
            "charter": charter.digest,
            "schema": charter.schema,
            "signer": identity.peer_id,
            "boot_id": self.boot_id,
            "boot_epoch": self.epoch,
            "seq": self.seq,
            "step": 0,
            "phase": 0,
            "part": 0,
            "age": 5,
            "samples": 10,
            "chunks_digest": envelope.chunks_digest(len(plain), digests),
            "readers_digest": envelope.readers_digest(ids),
            "key_commitment": envelope.commitment(key),
        }
        header = wire.Header(**(honest | changes))
        nonces = [entropy.draw(24) for _ in ids]
        offer = envelope.offer(header, keyring, ids, key, nonces, len(plain), digests)
        if wrapped_for is not None:
            elsewhere = keyring.wrap(self.ring.ids[wrapped_for], key, entropy.draw(24))
            offer = replace(offer, readers=tuple((reader, elsewhere) for reader, _ in offer.readers))
        rides_along = inline and count == 1 and len(self.chunks[0]) <= wire.INLINE_MAX
        return (wire.encode(offer), self.chunks[0]) if rides_along else (wire.encode(offer),)

    def chunk(self, index: int, digest: bytes | None = None) -> tuple[bytes, ...]:
        """A chunk of the update that was offered last."""
        own = envelope.chunks_digest(self.ring.charter.update_bytes, map(envelope.digest, self.chunks))
        return wire.encode(wire.Chunk(digest or own, index)), self.chunks[index]

    def hello(self, boot_id: bytes | None = None, step: int = 0, reply: bool = False) -> tuple[bytes, ...]:
        charter = self.ring.charter
        return (wire.encode(wire.Hello(charter.network_id, charter.digest, boot_id or self.boot_id, self.epoch, step, reply)),)

    def say(self, to: int, frames: tuple[bytes, ...]) -> list[Effect]:
        """Deliver to one peer, at once."""
        return self.ring.tell(to, FrameReceived(self.ring.ids[self.k], frames))


__all__ = ["Finished", "Liar", "Ring", "RoundEnded", "Stage", "State", "books_balance"]
