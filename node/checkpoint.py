"""What a node has learned, on disk: the learner's arrays beside a signed manifest that holds the peer's own state.

A checkpoint is two files, `<number>.safetensors` by the trainer and then `<number>.manifest` by the network process; without
its manifest it does not exist. Two are kept. The newest valid one counts; a damaged one is named and passed over, and if only
damaged ones are left the node refuses to start, because to begin again silently would throw away what they may still hold.
"""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgpack

from node.disk import write_durably
from p2pfl.failure import Failure
from p2pfl.protocol.envelope import Signer, digest
from p2pfl.protocol.events import PeerId

CONTEXT = b"p2pfl/checkpoint/v1\0"
KEPT = 2
FORMAT = 1
MANIFEST_MAX = 16 << 20  # bytes; a peer's state is a few kilobytes for each neighbor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A valid one: `arrays` is the learner's file, `state` what the peer persisted."""

    step: int
    arrays: Path
    state: bytes = field(repr=False)


class Damaged(Exception):
    """Why a checkpoint can't be used, for people."""


class Checkpoints:
    """The checkpoints of one node, of one schema."""

    def __init__(self, directory: Path, own: PeerId, signer: Signer, schema: bytes) -> None:
        self._directory = directory
        self._own = own
        self._signer = signer
        self._schema = schema
        self._given = 0
        self.newest_completed: tuple[int, float] | None = None
        """Step and monotonic moment of the last one that this process completed."""

    def next_arrays(self) -> Path:
        """Where the trainer shall write; never the same place twice. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._given = max(self._given, *self._numbers(), 0) + 1
        return self._directory / f"{self._given:08d}.safetensors"

    def complete(self, arrays: Path, arrays_digest: bytes, step: int, state: bytes) -> None:
        """The arrays are durable: write the manifest that makes them a checkpoint, and let older ones go. Raises OSError where
        the manifest can't be written."""
        body = msgpack.packb((FORMAT, step, arrays_digest, self._schema, state))
        signature = self._signer.sign(CONTEXT, digest(body))
        try:
            write_durably(arrays.with_suffix(".manifest"), msgpack.packb((body, signature)))
        except OSError:
            with suppress(OSError):  # without its manifest it is nothing, and the disk may be full
                arrays.unlink()
            raise
        self.newest_completed = (step, time.monotonic())
        self._let_go_before(self._numbers()[-KEPT:][0])

    def newest(self, on_damaged: Callable[[str], None]) -> Checkpoint | None:
        """The newest valid one; None where there is none at all. `on_damaged` hears of each that was passed over. Raises
        `Failure` where there may be some and none can be used."""
        try:
            numbers = self._numbers()
        except OSError as error:
            message = f"{self._directory}: {error.strerror}."
            raise Failure(
                "no_valid_checkpoint", message, "It is a folder of this node's own user; make it one again."
            ) from None
        for number in reversed(numbers):
            try:
                return self._read(self._directory / f"{number:08d}.manifest")
            except Damaged as damage:
                on_damaged(f"checkpoint {number:08d} is passed over: {damage}")
        if numbers:
            message = f"{self._directory}: none of {len(numbers)} checkpoints can be used."
            raise Failure("no_valid_checkpoint", message, "Restore one, or move the folder away to begin again.")
        return None

    def _read(self, manifest: Path) -> Checkpoint:
        try:
            body, signature = msgpack.unpackb(_regular_bytes(manifest, MANIFEST_MAX), use_list=False)
            form, step, arrays_digest, schema, state = msgpack.unpackb(body, use_list=False)
        except (ValueError, TypeError, msgpack.exceptions.UnpackException):
            raise Damaged("its manifest is not one of ours") from None
        if form != FORMAT:
            raise Damaged(f"it has format {form}, this is {FORMAT}")
        if not isinstance(signature, bytes) or not self._signer.verify(self._own, CONTEXT, digest(body), signature):
            raise Damaged("its manifest is not signed by this node")
        if schema != self._schema:
            raise Damaged("it is of another model or codec")
        arrays = manifest.with_suffix(".safetensors")
        if _regular_digest(arrays) != arrays_digest:
            raise Damaged("its arrays are not what was written")
        return Checkpoint(step, arrays, state)

    def _let_go_before(self, oldest: int) -> None:
        """Of older ones everything, also what a process that was killed, or a disk that was full, left half written."""
        for path in self._directory.iterdir():
            number = path.name.removeprefix(".").partition(".")[0]
            if len(number) == 8 and number.isdecimal() and int(number) < oldest:
                with suppress(OSError):  # the new one is whole; that this one stays is no reason to call it lost
                    path.unlink()

    def _numbers(self) -> list[int]:
        """Of everything that looks like a checkpoint, oldest first; nothing where there is no folder yet. Raises OSError."""
        try:
            paths = list(self._directory.iterdir())
        except FileNotFoundError:
            if self._directory.is_symlink():  # to a disk that is not there now
                raise
            return []
        names = (path.stem for path in paths if path.suffix == ".manifest")
        return sorted(int(name) for name in names if name.isdecimal() and len(name) == 8)


def _regular_bytes(path: Path, limit: int) -> bytes:
    with os.fdopen(_open_regular(path), "rb") as file, _readable(path):
        return file.read(limit)


def _regular_digest(path: Path) -> bytes:
    with os.fdopen(_open_regular(path), "rb") as file, _readable(path):
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=32)).digest()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """A disk that fails while it is read makes this one damaged, and not the node."""
    try:
        yield
    except OSError as error:
        raise Damaged(f"{path.name}: {error.strerror}") from None


def _open_regular(path: Path) -> int:
    """Follows no link and opens no folder or pipe: only a file that was written here counts."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Damaged(f"{path.name}: {'it is a symbolic link' if path.is_symlink() else error.strerror}") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise Damaged(f"{path.name} is not a regular file")
    return fd
