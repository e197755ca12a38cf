"""How often Python looks for garbage in cycles while a run goes on.

A run makes a dozen objects an event, which live until they are counted out, and keeps many: models, books, what is in flight.
No cycle is among them. By default Python looks for one after every 700 new objects, and now and then at all there are, torch's
among them: a fifth of a run (benchmarks/event_engine.py).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 50_000, 20, 100  # young ones between two looks at them, and how many looks come before one at older ones


@contextmanager
def rare_collections() -> Iterator[None]:
    """What there is already is not looked at, and what comes more seldom. Afterwards everything is as it was."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*OBJECTS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
