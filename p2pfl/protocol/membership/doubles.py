"""Two machines under one identity: a copied disk, or a stolen key.

Every start draws a boot id, so two machines show as two boot ids. One that follows the other is a restart. Two in one boot
epoch, or an earlier one that goes on speaking after the later one came, are two machines.
"""

from dataclasses import dataclass

from p2pfl.protocol.admission.record import Record
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.membership.standing import version_of

RETURNS = 2  # one new record of an earlier life may have been on its way; two were made after it should have been over


@dataclass(slots=True)
class _Lives:
    last: Record
    before: Record | None = None
    returns: int = 0


class Doubles:
    """The last two lives of every live member."""

    def __init__(self) -> None:
        self._lives: dict[PeerId, _Lives] = {}

    def __len__(self) -> int:
        return len(self._lives)

    def concerns(self, record: Record) -> bool:
        """Whether a record that is no news says something here, so that its signature is worth checking."""
        lives = self._lives.get(record.identity)
        if lives is None or record.boot_id == lives.last.boot_id:
            return False
        if record.boot_epoch == lives.last.boot_epoch:
            return True
        before = lives.before
        return before is not None and before.boot_id == record.boot_id and version_of(record) > version_of(before)

    def seen(self, record: Record) -> tuple[str, ...] | None:
        """A genuine record came. If it shows two machines, the addresses they state, the first time."""
        lives = self._lives.setdefault(record.identity, _Lives(record))
        last = lives.last
        if record.boot_id == last.boot_id:
            lives.last = max(last, record, key=version_of)
            return None
        if record.boot_epoch > last.boot_epoch:
            self._lives[record.identity] = _Lives(record, last)
            return None
        if record.boot_epoch < last.boot_epoch:
            lives.returns += 1
            if lives.before is None or version_of(record) > version_of(lives.before):
                lives.before = record
            if lives.returns != RETURNS:
                return None
        elif lives.returns >= RETURNS:
            return None
        lives.returns = max(RETURNS, lives.returns)
        return tuple(sorted({*last.addresses, *record.addresses}))

    def forget(self, peer: PeerId) -> None:
        """It is gone."""
        self._lives.pop(peer, None)
