"""Real peers on fake links and under a clock that only the test moves: the stage for transcripts of the protocol.

The peers, their keys and all cryptography are real. The stand-in for a learner keeps one number per peer: it mixes numbers and
"trains" by adding `gain`, so that a test can foretell every value.
"""

import struct
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from p2pfl.protocol import envelope
from p2pfl.protocol.charter import Charter, GossipRules, Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import (
    DeadlineReached,
    Dial,
    Effect,
    Event,
    Finished,
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
    RoundEnded,
    Seal,
    Sealed,
    Send,
    Started,
    Verdict,
)
from p2pfl.protocol.identity import Identity, Keyring
from p2pfl.protocol.outbox import Boot
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
    is_learner_broken: bool = False
    is_learner_stalled: bool = False
    log: list[Event | Effect] = field(default_factory=list)
    inbox: deque[Event] = field(default_factory=deque)
    learning: Learn | None = None
    _next_value: float = 0.0
    _opening: dict[int, bytes] = field(default_factory=dict)

    def of(self, kind: type) -> list:
        """Everything of one kind in the log, in order."""
        return [entry for entry in self.log if isinstance(entry, kind)]

    @property
    def rejections(self) -> list[Reason]:
        return [entry.reason for entry in self.log if isinstance(entry, Rejected)]


class Ring:
    """Peers 0 .. n-1, each linked with its two neighbors on a ring (with the other one where n is 2)."""

    def __init__(
        self, n: int, rules: GossipRules | None = None, gain: float = 0.0, padding: int = 0, values: list[float] | None = None
    ) -> None:
        self.time = 0.0
        self.cut: set[tuple[PeerId, PeerId]] = set()
        self.tamper: Callable[[PeerId, PeerId, tuple[bytes, ...]], tuple[bytes, ...] | None] = lambda a, b, frames: frames
        identities = [Identity.generate(SeededEntropy(7, b"identity %d" % i)) for i in range(n)]
        self.ids = [identity.peer_id for identity in identities]
        members = {i.peer_id: Member(i.peer_id, f"peer-{k}", "", i.transport_key, i.seal_key) for k, i in enumerate(identities)}
        self.charter = Charter("ring", SCHEMA, 8 + padding, rules or GossipRules(rounds=3), members)
        self.stages = [
            Stage(self._peer(k, identity, boot=1), identity, float((values or range(n))[k]), gain, padding)
            for k, identity in enumerate(identities)
        ]

    def _peer(self, k: int, identity: Identity, boot: int, restored: bytes | None = None) -> Peer:
        n = len(self.ids)
        neighbors = sorted({self.ids[(k - 1) % n], self.ids[(k + 1) % n]} - {self.ids[k]})
        share = 1.0 / (len(neighbors) + 1)
        weights = dict.fromkeys([*neighbors, self.ids[k]], share)
        entropy = SeededEntropy(7, b"entropy %d %d" % (k, boot))
        return Peer(
            own=self.ids[k],
            signer=Keyring(identity, self.charter.members),
            charter=self.charter,
            plan=static_plan(self.ids[k], neighbors, weights),
            local_steps=5,
            samples=10,
            boot=Boot(boot, entropy.draw(16)),
            choices=Choices(7, b"choices %d" % k),
            entropy=entropy,
            restored=restored,
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
        if isinstance(event, Learned):
            stage.value, stage.learning = stage._next_value, None
        effects = stage.peer.handle(event, Instant(self.time, 1e9 + self.time))
        stage.log += [event, *effects]
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
            stage.learning = None
            self.tell(k, LearnFailed(learn.step, "broken by the test"))
            return
        mixed, verdicts = stage.value, []
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

    def pass_time(self, seconds: float) -> None:
        """Move the clock, wake those whose deadline came, and settle."""
        until = self.time + seconds
        while True:
            due = [(s.peer.deadline, k) for k, s in enumerate(self.stages) if s.peer.deadline is not None]
            deadline, k = min(due, default=(None, -1))
            if deadline is None or deadline > until:
                break
            self.time = max(self.time, deadline)
            self.tell(k, DeadlineReached())
            self.settle()
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
        peer = self._peer(k, old.identity, boot=2, restored=restored)
        self.stages[k] = replace(old, peer=peer, log=[], inbox=deque(), learning=None, _opening={})
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
            case Learn():
                stage.learning = effect
            case _:
                pass

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


__all__ = ["Finished", "Ring", "RoundEnded", "Stage", "State", "books_balance"]
