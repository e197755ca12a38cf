"""How much a member may say: so many messages and bytes a second, and a ban for who says more.

What is over is dropped before it is looked at. Who overdraws is not heard for a while, and each time twice as long as the last
if it goes on, so that a flood costs next to nothing; an honest member that was too quick once loses a second. Refused messages
cost more than others, because to refuse one may take a signature. Time is an argument.
"""

from dataclasses import dataclass

from p2pfl.protocol.events import PeerId


@dataclass(frozen=True, slots=True)
class Allowance:
    """What no honest member comes near: a neighbor with tiny models on the same machine says some 1,000 messages a second, and
    libzmq's encryption on one thread ends at about 1 GiB/s. The bursts are for what a stalled loop finds waiting."""

    messages_per_s: float = 2_000.0
    messages_burst: float = 20_000.0
    bytes_per_s: float = float(1 << 30)
    bytes_burst: float = float(1 << 30)
    refusal_cost: float = 10.0  # messages, beside the one that it was
    ban_min_s: float = 1.0
    ban_max_s: float = 300.0
    memory: float = 10.0  # a ban goes on with the one before if it comes within this many times that one's length


ACCOUNTS_KEPT = 2048  # beyond that, those that are as good as new are forgotten


@dataclass(slots=True)
class _Account:
    """Two token buckets in one, refilled by one subtraction: this is asked for every message."""

    messages: float
    bytes: float
    at: float
    banned_until: float = float("-inf")
    ban_s: float = 0.0


class Allowances:
    """The accounts of all members, made at the first message."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._accounts: dict[PeerId, _Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def admits(self, peer: PeerId, size: int, now: float) -> bool:
        """Whether a message of `size` bytes may be looked at; it is paid for then."""
        account = self._accounts.get(peer)
        if account is None:
            account = self._open(peer, now)
        if now < account.banned_until:
            return False
        allowance, elapsed = self._allowance, now - account.at
        account.at = now
        messages = min(account.messages + elapsed * allowance.messages_per_s, allowance.messages_burst) - 1.0
        volume = min(account.bytes + elapsed * allowance.bytes_per_s, allowance.bytes_burst) - size
        account.messages, account.bytes = messages, volume
        if messages >= 0.0 and volume >= 0.0:
            return True
        self._ban(account, now)
        return False

    def refused(self, peer: PeerId) -> None:
        """A message that was admitted turned out to be none that should have been sent."""
        if (account := self._accounts.get(peer)) is not None:
            account.messages -= self._allowance.refusal_cost

    def banned_until(self, peer: PeerId) -> float:
        """The moment from which it is heard again; long past for who was never banned."""
        account = self._accounts.get(peer)
        return account.banned_until if account is not None else float("-inf")

    def _ban(self, account: _Account, now: float) -> None:
        allowance = self._allowance
        goes_on = now - account.banned_until <= allowance.memory * account.ban_s
        account.ban_s = min(2 * account.ban_s, allowance.ban_max_s) if goes_on else allowance.ban_min_s
        account.banned_until = now + account.ban_s
        account.messages = account.bytes = 0.0  # the ban stands for the debt

    def _open(self, peer: PeerId, now: float) -> _Account:
        if len(self._accounts) >= ACCOUNTS_KEPT:
            self._accounts = {other: account for other, account in self._accounts.items() if not self._is_as_new(account, now)}
        account = self._accounts[peer] = _Account(self._allowance.messages_burst, self._allowance.bytes_burst, now)
        return account

    def _is_as_new(self, account: _Account, now: float) -> bool:
        allowance, elapsed = self._allowance, now - account.at
        return (
            now - account.banned_until > allowance.memory * account.ban_s
            and account.messages + elapsed * allowance.messages_per_s >= allowance.messages_burst
            and account.bytes + elapsed * allowance.bytes_per_s >= allowance.bytes_burst
        )
