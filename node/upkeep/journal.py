"""What a node tells people: a line of metrics a round, a line for every incident, and the same to whoever started it.

The files don't grow for ever: each is put aside at `FILE_MAX`, in place of the one put aside before.

Incidents are rate-limited for each (member, reason), so that a liar can't fill the disk. A full disk stops neither gossip nor
training; only the journal falls silent.
"""

import json
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId

SHOWN_S = 1.0  # between two lines of progress on stderr; metrics.jsonl has them all
QUIET_S = 10.0  # between two lines about the same member and reason
FILE_MAX = 32 << 20  # bytes of metrics.jsonl or log.jsonl, which then becomes the one older file that is kept
RECENT = 8  # incidents that a status shows


class Journal:
    """`to_parent` is None for a node on its own, which then shows its progress on stderr."""

    def __init__(
        self, metrics: Path, log: Path, members: Mapping[PeerId, Member], to_parent: Callable[[tuple[Any, ...]], None] | None
    ) -> None:
        self.newest_round: Mapping[str, Any] = {}
        self.newest_round_at: float | None = None
        """Monotonic."""
        self.recent: deque[Mapping[str, Any]] = deque(maxlen=RECENT)
        """The newest lines of the log."""
        self.incidents: Counter[str] = Counter()
        """By kind, with those that got no line."""
        self.failed_writes = 0
        """Lines that the disk did not take."""
        self._metrics = metrics
        self._log = log
        self._members = members
        self._to_parent = to_parent
        self._shown = -SHOWN_S
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def round_ended(self, line: Mapping[str, Any]) -> None:
        """`line` is plain JSON. NaN is not; it becomes null."""
        self.newest_round, self.newest_round_at = line, time.monotonic()
        self._append(self._metrics, {name: None if value != value else value for name, value in line.items()})
        if self._to_parent is not None:
            self._to_parent(("round", dict(line)))
        elif time.monotonic() - self._shown >= SHOWN_S:
            self._shown = time.monotonic()
            print(_progress(line), file=sys.stderr, flush=True)

    def rejected(self, reason: Reason, blame: PeerId) -> None:
        member = self._members.get(blame)
        self._incident("rejected", reason.value, member.name if member else blame.hex()[:16])

    def incident(self, kind: str, text: str) -> None:
        """Something that an operator should know."""
        self._incident(kind, text, "")

    def _incident(self, kind: str, text: str, who: str) -> None:
        self.incidents[kind] += 1
        now = time.monotonic()
        since, hushed = self._said.get((who, text), (-QUIET_S, 0))
        if now - since < QUIET_S:
            self._said[who, text] = (since, hushed + 1)
            return
        # What was told once and is over need not be remembered: texts differ, and a node runs for months.
        self._said = {key: told for key, told in self._said.items() if told[1] or now - told[0] < QUIET_S}
        self._said[who, text] = (now, 0)
        line = {"time": time.time(), "kind": kind, "text": text}
        if who:
            line["member"] = who
        if hushed:
            line["more_like_it"] = hushed
        self.recent.append(line)
        self._append(self._log, line)
        if self._to_parent is not None:
            self._to_parent(("incident", line))
        elif kind != "rejected":
            print(f"{kind}: {text}", file=sys.stderr, flush=True)

    def _append(self, path: Path, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode("ascii") + b"\n"
        try:
            with path.open("ab", buffering=0) as file:
                size = file.tell()
                if file.write(data) < len(data):  # the disk is full; half a line would spoil the next one too
                    file.truncate(size)
                    self.failed_writes += 1
            if size > FILE_MAX:
                path.replace(path.with_suffix(f".1{path.suffix}"))
        except OSError:
            self.failed_writes += 1


def _progress(line: Mapping[str, Any]) -> str:
    measured = "  ".join(f"{name} {line[name]:.3f}" for name in ("accuracy", "loss") if name in line)
    return f"round {line['step']}  {measured}  applied {line['applied']}  missing {len(line['missing'])}"
