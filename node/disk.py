"""Files that are whole or not there, whatever ends the process or the machine."""

import errno
import os
import stat
from pathlib import Path


def write_durably(path: Path, data: bytes | memoryview, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step: a file beside it, fsync, rename, fsync of the folder. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb", buffering=0) as file:
            _write_all(file.fileno(), data)
            os.fsync(fd)
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def create_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file that must not exist yet; raises FileExistsError if it does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb", buffering=0):
            _write_all(fd, data)
            os.fsync(fd)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_whole(path: Path, limit: int) -> bytes:
    """The bytes of a file. Raises OSError, also for a pipe, which would be waited for, and for more than `limit` bytes."""
    # Without O_NONBLOCK the opening itself would wait.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file")
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"over {limit >> 10} KiB, which is too much for it")
    return data


def sync_directory(path: Path) -> None:
    """Make renames in this folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
