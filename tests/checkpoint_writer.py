"""A node's disk work, that ends by SIGKILL at its K-th step: `python -m tests.checkpoint_writer FOLDER COUNT K`.

Starts a life (boot epoch), loads the newest checkpoint, and writes COUNT further ones, each with the number after the last. A
step is a call that changes the disk or makes a change durable: a write, fsync, rename, unlink or folder of `os`. A write is
cut in two, so that half of it may be there. Prints one line for each thing that is durable, or refused; with K = 0 it lives
on, and says at the end how many steps it took.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from node.checkpoint import Checkpoints
from node.directory import NodeDirectory
from node.disk import write_durably
from p2pfl.protocol.charter import Member
from p2pfl.protocol.envelope import digest
from p2pfl.protocol.identity import Identity, Keyring

SCHEMA = b"s" * 32
IDENTITY = Identity(b"i" * 32, b"t" * 32, b"s" * 32)


class Steps:
    """Counts, and ends the process just before its `last` one."""

    def __init__(self, last: int) -> None:
        self.taken = 0
        self._last = last

    def step(self) -> None:
        self.taken += 1
        if self.taken == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            self.step()
            return call(*args, **kwargs)

        return counting

    def cut(self, write: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def writing(fd: int, data: Any) -> int:
            self.step()
            half = len(data) // 2
            return write(fd, data[:half]) if half else write(fd, data)

        return writing

    def install(self) -> None:
        os.write = self.cut(os.write)
        for name in ("fsync", "rename", "unlink", "mkdir"):
            setattr(os, name, self.counted(getattr(os, name)))


def arrays_of(number: int) -> bytes:
    return b"arrays %d " % number * 50


def main() -> None:
    folder, count, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    say = sys.stdout.write
    member = Member(IDENTITY.peer_id, "a", "127.0.0.1:1", IDENTITY.transport_key, IDENTITY.seal_key)
    store = Checkpoints(folder / "checkpoints", IDENTITY.peer_id, Keyring(IDENTITY, {member.id: member}), SCHEMA)
    steps = Steps(last)
    steps.install()
    epoch = NodeDirectory(folder).next_boot_epoch(0.0)
    say(f"epoch {epoch}\n")
    newest = store.newest(lambda text: print("passed over", text))
    number = newest.step if newest else 0
    if newest is not None:
        assert newest.arrays.read_bytes() == arrays_of(number) and newest.state == b"state %d" % number
    say(f"loaded {number}\n")
    for step in range(number + 1, number + count + 1):
        arrays = store.next_arrays()
        write_durably(arrays, arrays_of(step))
        store.complete(arrays, digest(arrays_of(step)), step, b"state %d" % step)
        say(f"saved {step}\n")
    say(f"steps {steps.taken}\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    main()
