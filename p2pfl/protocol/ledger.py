"""What became of every update, per neighbor. The books must balance:

    sent by i to j  =  applied + rejected + superseded + lost + held at j  +  in flight

`lost` counts what a broken link or a failed learner took; `held` is what waits in the inbox. Of those who are no members any
more the rows are added up in one, so that the books balance in all, however many come and go.
"""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId, Rejected, Verdict


@dataclass(slots=True)
class PairCounts:
    """Updates between this peer and one other: `sent` outward, all else inward."""

    sent: int = 0
    applied: int = 0
    rejected: int = 0
    superseded: int = 0
    lost: int = 0

    def add(self, other: "PairCounts") -> None:
        """Take over what another row counts."""
        self.sent += other.sent
        self.applied += other.applied
        self.rejected += other.rejected
        self.superseded += other.superseded
        self.lost += other.lost


@dataclass(slots=True)
class Ledger:
    """The counters of one peer. `reasons` counts every refusal, of updates and of any other frame, by whom it is blamed on.
    `departed` and `departed_reasons` are the sums of those whose rows were folded."""

    pairs: dict[PeerId, PairCounts] = field(default_factory=dict)
    reasons: Counter[tuple[PeerId, Reason]] = field(default_factory=Counter)
    departed: PairCounts = field(default_factory=PairCounts)
    departed_reasons: Counter[Reason] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.pairs) + len(self.reasons)

    @property
    def peers(self) -> set[PeerId]:
        """Who has a row of any kind."""
        return self.pairs.keys() | {peer for peer, _ in self.reasons}

    def fold(self, gone: Collection[PeerId]) -> None:
        """Add the rows of these to the sums. Whoever of them comes back begins a new row."""
        for peer in gone:
            if (pair := self.pairs.pop(peer, None)) is not None:
                self.departed.add(pair)
        for peer, reason in [key for key in self.reasons if key[0] in gone]:
            self.departed_reasons[reason] += self.reasons.pop((peer, reason))

    def of(self, peer: PeerId) -> PairCounts:
        """The counts with this peer; made at first use."""
        pair = self.pairs.get(peer)
        if pair is None:
            pair = self.pairs[peer] = PairCounts()
        return pair

    def judged(self, verdicts: Iterable[Verdict]) -> tuple[int, list[Rejected]]:
        """Book what a learner made of what arrived: how many updates it applied, and which it refused."""
        applied, refused = 0, list[Rejected]()
        for verdict in verdicts:
            if verdict.reason is None:
                applied += 1
                self.of(verdict.sender).applied += 1
            else:
                self.of(verdict.sender).rejected += 1
                self.reasons[verdict.sender, verdict.reason] += 1
                refused.append(Rejected(verdict.reason, verdict.sender))
        return applied, refused

    @property
    def sent(self) -> int:
        return self.departed.sent + sum(pair.sent for pair in self.pairs.values())

    @property
    def applied(self) -> int:
        return self.departed.applied + sum(pair.applied for pair in self.pairs.values())

    @property
    def rejected(self) -> dict[str, int]:
        """Refusals by reason, over all peers."""
        total = Counter({reason.value: count for reason, count in self.departed_reasons.items()})
        for (_, reason), count in sorted(self.reasons.items()):
            total[reason.value] += count
        return dict(total)
