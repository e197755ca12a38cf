"""A line of the trace: what a peer was told at which virtual moment, and what it asked for.

Buffers and keys are left out: a payload is its length and digest, a message the lengths of its frames and a digest of the
first. Two runs with the same seed give the same lines, byte for byte. Before them stands the scenario, for `sim.replay`.
"""

import hashlib
import json
from dataclasses import fields
from enum import Enum
from typing import Any, cast

from p2pfl.protocol.events import Effect, Event, FrameReceived, Payload, Send
from sim.scenario import Scenario

VERSION = 1

_SECRET_OR_HEAVY = {"key", "chunk", "state", "buffer"}


def header(scenario: Scenario) -> dict[str, object]:
    """The first line. A scenario with a task or graph that is an object in Python can't be written down."""
    is_complete = scenario.own_task is None and scenario.own_graph is None
    settings = scenario.model_dump(mode="json", exclude_none=True) if is_complete else None
    return {"trace": VERSION, "scenario": settings, "folder": str(scenario.folder.absolute())}


def written(line: dict[str, object]) -> str:
    """A line as it stands in a file."""
    return json.dumps(line, separators=(",", ":"), allow_nan=False)


def line(time: float, name: str, event: Event, effects: list[Effect]) -> dict[str, object]:
    """One JSON-able line."""
    return {"t": time, "peer": name, "event": _described(event), "effects": [_described(effect) for effect in effects]}


def _described(thing: Event | Effect) -> dict[str, object]:
    shown = {f.name: _plain(getattr(thing, f.name)) for f in fields(thing) if f.name not in _SECRET_OR_HEAVY | {"frames"}}
    if isinstance(thing, Send | FrameReceived):
        head = cast(bytes, thing.frames[0]) if thing.frames else b""
        shown["lengths"] = [len(frame) for frame in thing.frames]
        shown["head"] = hashlib.blake2b(head, digest_size=8).hexdigest()
    return {"kind": type(thing).__name__, **shown}


def _plain(value: Any) -> object:
    match value:
        case Payload(length, digest):
            return {"length": length, "digest": digest.hex()}
        case Enum():
            return value.value
        case bytes():
            return value.hex()
        case dict():
            return {_plain(key): _plain(value[key]) for key in sorted(value)}
        case tuple() | list():
            return [_plain(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return {f.name: _plain(getattr(value, f.name)) for f in fields(value) if f.name not in _SECRET_OR_HEAVY}
