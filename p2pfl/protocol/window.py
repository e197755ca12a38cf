"""Which updates of a signer were seen: a sliding window of 64 sequence numbers, as in IPsec (RFC 4303, 3.4.3).

An update counts as new once per (boot epoch, sequence number). A later epoch begins anew; an earlier one is over. Checking
and recording are two steps, because only a verified signature may move the window: otherwise anyone could burn the numbers
of somebody else.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from p2pfl.protocol.events import PeerId

WINDOW = 64


class _Seen(NamedTuple):
    """Bit k of `mask` is set when sequence number `highest` - k was seen."""

    epoch: int
    highest: int
    mask: int


class ReplayWindow:
    """The windows of all signers."""

    def __init__(self) -> None:
        self._seen: dict[bytes, _Seen] = {}

    def check(self, signer: bytes, epoch: int, seq: int) -> bool:
        """Whether this is new. Changes nothing."""
        seen = self._seen.get(signer)
        if seen is None or epoch > seen.epoch:
            return True
        if epoch < seen.epoch or seq <= seen.highest - WINDOW:
            return False
        return seq > seen.highest or not seen.mask >> (seen.highest - seq) & 1

    def record(self, signer: bytes, epoch: int, seq: int) -> None:
        """Remember it, now that the signature is known to be the signer's. It must be new."""
        assert self.check(signer, epoch, seq), "only what is new can be recorded"
        seen = self._seen.get(signer)
        if seen is None or epoch > seen.epoch:
            self._seen[signer] = _Seen(epoch, seq, 1)
        elif seq > seen.highest:
            # A gap of WINDOW or more leaves nothing of the old mask; the shift itself must not be as large as the gap.
            kept = seen.mask << (seq - seen.highest) if seq - seen.highest < WINDOW else 0
            self._seen[signer] = _Seen(epoch, seq, (kept | 1) & ((1 << WINDOW) - 1))
        else:
            self._seen[signer] = _Seen(epoch, seen.highest, seen.mask | 1 << (seen.highest - seq))

    @property
    def signers(self) -> set[PeerId]:
        return set(map(PeerId, self._seen))

    def forget(self, gone: Iterable[PeerId]) -> None:
        """They are no members any more. Whoever becomes one again could only send once more what it had signed itself."""
        for signer in gone:
            self._seen.pop(signer, None)

    def to_plain(self) -> dict[bytes, tuple[int, int, int]]:
        """For a checkpoint: (epoch, highest, mask) by signer, each below 2**64, so that nothing can be replayed across a
        restart."""
        return {signer: (seen.epoch, seen.highest, seen.mask) for signer, seen in sorted(self._seen.items())}

    @classmethod
    def from_plain(cls, plain: Mapping[bytes, Sequence[int]]) -> "ReplayWindow":
        """What `to_plain` gave, also after a trip through msgpack."""
        window = cls()
        window._seen = {signer: _Seen(*seen) for signer, seen in plain.items()}
        return window
