"""A record as files: `result.json`, which can be read back, and `metrics.csv`, one line per round and peer."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure
from p2pfl.report.plain import plain
from p2pfl.report.record import Float, Mark, PeerRecord, RunRecord

SCHEMA_VERSION = 1

# What a spreadsheet takes for a formula when a cell begins with it.
_FORMULA = ("=", "+", "-", "@")


def to_json(record: RunRecord) -> str:
    """Strict JSON in ASCII: numbers keep every digit, what is not finite becomes null (JSON has no NaN)."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **_jsonable(record)}, allow_nan=False, separators=(",", ":"))


def from_json(text: str) -> RunRecord:
    """The record that `to_json` wrote; null becomes NaN. Anything else is a Failure."""
    try:
        return _record(json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise Failure(
            "bad_record",
            f"Not the record of a run: {plain(str(error)) or type(error).__name__}.",
            "Give the result.json that `p2pfl demo` or `p2pfl sim run` wrote, with this version of p2pfl.",
        ) from None


def metrics_csv(record: RunRecord) -> str:
    """Columns: round, peer, accuracy, loss, alone_accuracy, bytes_sent, consensus_distance; empty where not measured."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["round", "peer", "accuracy", "loss", "alone_accuracy", "bytes_sent", "consensus_distance"])
    names = [_cell(peer.name) for peer in record.peers]
    alone = record.alone_accuracy if len(record.alone_accuracy) else np.full_like(record.accuracy, np.nan)
    for row in range(len(record.accuracy)):
        columns = (record.accuracy[row], record.loss[row], alone[row], record.bytes_sent[row])
        distance = _text(float(record.consensus_distance[row]))
        for name, *values in zip(names, *(column.tolist() for column in columns), strict=True):
            writer.writerow([row, name, *map(_text, values), distance])
    return out.getvalue()


def _record(found: Mapping[str, Any]) -> RunRecord:
    if found["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version is {found['schema_version']!r}, this version of p2pfl reads {SCHEMA_VERSION}")
    peers = tuple(_peer(peer) for peer in found["peers"])
    n, counts = len(peers), found["label_counts"]
    if len(counts) != n:
        raise ValueError(f"label_counts has {len(counts)} rows for {n} peers")
    rows = len(found["accuracy"])
    return RunRecord(
        title=str(found["title"]),
        engine=str(found["engine"]),
        abstracts=str(found["abstracts"]),
        seed=int(found["seed"]),
        settings=dict(found["settings"]),
        seconds=_float(found["seconds"]),
        peers=peers,
        edges=tuple((_index(i, n), _index(j, n)) for i, j in found["edges"]),
        directed=bool(found["directed"]),
        accuracy=_matrix(found["accuracy"], rows, n),
        loss=_matrix(found["loss"], rows, n),
        alone_accuracy=_matrix(found["alone_accuracy"], rows if found["alone_accuracy"] else 0, n),
        consensus_distance=_matrix([found["consensus_distance"]], 1, rows)[0],
        bytes_sent=_matrix(found["bytes_sent"], rows, n),
        labels=tuple(str(label) for label in found["labels"]),
        label_counts=_matrix(counts, n, len(counts[0]) if counts else len(found["labels"])),
        marks=tuple(Mark(round=_float(mark["round"]), text=str(mark["text"])) for mark in found["marks"]),
        up=_up(found.get("up", []), max(rows - 1, 0), n),
        link_bytes=_link_bytes(found.get("link_bytes", []), len(found["edges"])),
    )


def _peer(found: Mapping[str, Any]) -> PeerRecord:
    state = found["state"]
    if state not in get_args(PeerRecord.__annotations__["state"]):
        raise ValueError(f"a peer cannot be {state!r}")
    return PeerRecord(
        name=str(found["name"]),
        state=state,
        accuracy=_float(found["accuracy"]),
        loss=_float(found["loss"]),
        samples=_count(found["samples"]),
        bytes_sent=_count(found["bytes_sent"]),
        bytes_received=_count(found["bytes_received"]),
        updates_sent=_count(found["updates_sent"]),
        updates_applied=_count(found["updates_applied"]),
        rejected={str(reason): _count(count) for reason, count in found["rejected"].items()},
    )


def _up(rows: Sequence[Iterable[Any]], rounds: int, n: int) -> NDArray[np.bool_]:
    """Written as 0 and 1; records of before there was churn have none."""
    if not len(rows):
        return np.empty((0, 0), dtype=np.bool_)
    return np.asarray(_matrix(rows, rounds, n) != 0, dtype=np.bool_)


def _link_bytes(values: Sequence[float | None], edges: int) -> Float:
    """Records of before links were counted have none."""
    found: Float = _matrix([values], 1, edges if len(values) else 0)[0]
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError("a link's bytes are no number")
    return found


def _matrix(rows: Iterable[Iterable[float | None]], height: int, width: int) -> Float:
    values = np.array([[_float(value) for value in row] for row in rows], dtype=np.float64)
    if values.size == 0 and height * width == 0:
        return np.empty((height, width))
    if values.shape != (height, width):
        raise ValueError(f"an array is {values.shape} where {(height, width)} is due")
    return values


def _float(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _count(value: Any) -> int:
    count = int(value)
    if not 0 <= count < 1 << 63:
        raise ValueError(f"{value!r} counts nothing")
    return count


def _index(value: int, n: int) -> int:
    if not 0 <= value < n:
        raise ValueError(f"an edge names peer {value} of {n}")
    return int(value)


def _jsonable(value: Any) -> Any:
    """Arrays to lists, records and mappings to objects; what the settings may hold besides (paths, enums) to its text."""
    match value:
        case np.ndarray():
            return _jsonable((value.astype(np.uint8) if value.dtype == np.bool_ else value).tolist())
        case np.generic():
            return _jsonable(value.item())
        case float():
            return value if math.isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case RunRecord() | PeerRecord() | Mark():
            return {one.name: _jsonable(getattr(value, one.name)) for one in fields(value)}
        case Mapping():
            return {str(key): _jsonable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_jsonable(inner) for inner in value]
    return str(value)


def _cell(name: str) -> str:
    shown = plain(name)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _text(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
