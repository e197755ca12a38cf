"""One update is followed through every row of the table in docs/architecture.md."""

import importlib
import re
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from sim.events import run_events
from tests.worlds import world

TABLE = re.compile(r"^\| [a-z ]+ \| `(p2pfl\.[\w.]+)` \|", re.MULTILINE)
DOC = Path(__file__).parent.parent / "docs" / "architecture.md"


def code_of(dotted: str) -> CodeType:
    """The code object of `package.module.Class.function`."""
    parts = dotted.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            thing: Any = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            thing = getattr(thing, part)
        return thing.__code__
    raise AssertionError(f"{dotted} does not exist")


def test_an_update_passes_every_row_of_the_table_in_order() -> None:
    rows = TABLE.findall(DOC.read_text())
    assert len(rows) == 15
    watched = {code_of(row): row for row in rows}
    first_calls: list[str] = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        name = watched.get(frame.f_code) if event == "call" else None
        # A step that only tries whether peers can be computed together trains no update.
        is_trial = frame.f_back is not None and frame.f_back.f_code.co_name == "why_not_together"
        has_begun = bool(first_calls) or (name == rows[0] and not is_trial)
        if name is not None and has_begun and name not in first_calls:
            first_calls.append(name)

    two = world("path", 2, rounds=1, local_steps=1)
    sys.setprofile(watch)
    try:
        run_events(two)
    finally:
        sys.setprofile(None)
    assert first_calls == rows
