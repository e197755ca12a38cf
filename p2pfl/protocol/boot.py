"""One life of a peer's process."""

from dataclasses import dataclass

BOOT_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Boot:
    """`epoch` grows with every start and is durable before anything is sent; `id` is 16 random bytes, so that a disk restored
    from a backup is not taken for a liar."""

    epoch: int
    id: bytes
