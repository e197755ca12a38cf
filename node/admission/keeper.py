"""Keeps a founded network's papers on the disk as they change: whole, durable, and seldom enough for a memory card."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from node.admission.papers import Papers
from node.directory import NodeDirectory
from node.disk import write_durably

QUIET_S = 2.0  # between two writes: a join moves the records of several members one after the other
RECORDS_S = 60.0
"""Between two writes where only records changed: a member may speak of itself anew every second, for years, and would wear out
everybody's memory card. What a crash takes of them neighbors say again."""


class Keeper:
    """One write at a time, on a thread, because a disk may take its time. `on_trouble` hears, in words, of what failed; it is
    tried again."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, directory: NodeDirectory, papers: Papers, on_trouble: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._directory = directory
        self._roster, self._charters = papers.roster, papers.charters
        self._on_trouble = on_trouble
        self._disk = ThreadPoolExecutor(1, "papers")
        self._kept = -1, self._charters.current.data
        self._kept_papers = b""
        self._written_at = -RECORDS_S
        self._under_way: Future[None] | None = None

    def look(self) -> None:
        """Called now and then: writes what changed, if the last time is long enough ago."""
        if self._state == self._kept:
            return
        since = self._loop.time() - self._written_at
        if since >= RECORDS_S or (since >= QUIET_S and self._roster_papers != self._kept_papers):
            self._begin().add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._ended, done))

    def keep(self) -> bool:
        """Whether everything is durable when this returns. For what must be before anybody hears of it."""
        if self._state != self._kept:
            self._ended(self._begin())
            return self._state == self._kept
        return self._under_way is None or self._under_way.exception() is None

    def close(self) -> None:
        """What changed last is written too."""
        self.keep()
        self._disk.shutdown()

    @property
    def _state(self) -> tuple[int, bytes]:
        return self._roster.version, self._charters.current.data

    @property
    def _roster_papers(self) -> bytes:
        """Names credentials, revocations and charter."""
        return self._roster.digest + self._charters.current.data

    def _begin(self) -> "Future[None]":
        state, self._kept = self._kept, self._state
        self._kept_papers, self._written_at = self._roster_papers, self._loop.time()
        roster = self._roster.to_bytes()
        charter = self._charters.to_bytes() if state[1] != self._kept[1] else None
        self._under_way = self._disk.submit(self._write, roster, charter)
        return self._under_way

    def _write(self, roster: bytes, charter: bytes | None) -> None:
        if charter is not None:
            write_durably(self._directory.charter, charter)
        write_durably(self._directory.roster, roster)

    def _ended(self, done: "Future[None]") -> None:
        try:
            done.result()
        except OSError as error:
            self._kept, self._kept_papers = (-1, b""), b""
            self._on_trouble(f"{self._directory.roster}: {error.strerror or error}")
