"""How much memory processes hold."""

import ctypes
import os
from pathlib import Path


def resident_bytes(pid: int) -> int:
    """What this process holds in memory now; 0 if it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0 if Path("/proc/self").exists() else _asked(pid)
    except (ProcessLookupError, IndexError):  # it ended while it was looked at
        return 0


def give_back_freed() -> None:
    """Let the system have what was freed: our malloc keeps a great deal for the next large buffer, which after a flood is too
    much. Nothing where the C library has no such call."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _asked(pid: int) -> int:
    """Where there is no /proc."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
