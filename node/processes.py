"""How processes of ours are started: fresh interpreters, nothing inherited that was not meant."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

_HOME = str(Path(__file__).resolve().parent.parent)

# One thread a process: peers share the machine. Raised thresholds let malloc reuse large buffers instead of mapping fresh
# pages for each, which costs five times the copy itself; two arenas, because threads here hold few small objects.
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def command(module: str, *arguments: str) -> list[str]:
    """`-P`: a file in the current folder must not be taken for one of our modules."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (_HOME, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **_SETTINGS, "PYTHONPATH": path}


def start(module: str, fd: int, keep: Sequence[int] = (), own_group: bool = False) -> "subprocess.Popen[bytes]":
    """A process that is told `fd` and inherits it and `keep`, no other. `own_group` keeps the terminal's Ctrl-C from it."""
    return subprocess.Popen(
        command(module, str(fd)),
        pass_fds=(fd, *keep),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno() if _has_fd(sys.stderr) else subprocess.DEVNULL,
        process_group=0 if own_group else None,
    )


def _has_fd(stream: TextIO) -> bool:
    """A closed one is None, and what a test put in its place may have no descriptor."""
    try:
        stream.fileno()
    except (AttributeError, OSError, ValueError):
        return False
    return True
