"""What a command says under --json: one object of strict JSON, whatever became of it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from p2pfl.failure import Failure

SCHEMA_VERSION = 1


def answer(data: Any) -> str:
    """The object of a command that did what it was asked. JSON has no NaN and no infinity: they become null."""
    return _object(status="ok", data=_strict(data))


def refusal(failure: Failure) -> str:
    """The object of a command that did not."""
    return _object(status="error", error={"code": failure.code, "message": failure.message, "hint": failure.hint})


def _object(**fields: Any) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **fields}, allow_nan=False)


def _strict(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _strict(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_strict(inner) for inner in value]
        case _:
            return value
