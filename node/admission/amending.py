"""`p2pfl network amend`: other settings for a network that runs, and which of them may be others.

At once counts what only times and bounds the gossip, and the graph where it needs no more room than there is. What a trainer or
membership was made with counts from the node's next start. What decides the model never changes: that is another network.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.admission import terms as terms_of
from node.admission.founding import signed
from node.admission.papers import Papers
from node.admission.terms import Terms
from node.moment import believed_time
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.authority import Authority
from p2pfl.protocol.admission.signed_charter import SignedCharter
from p2pfl.protocol.charter import Charter
from p2pfl.report.plain import plain
from p2pfl.settings import parse

NEVER = ("task", "data", "codec", "seed", "parts")
AT_RESTART = ("training", "limits", "gossip.mode", "gossip.staleness", "topology.timers")
NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Changes:
    """The settings that differ, by their names."""

    at_once: tuple[str, ...]
    at_restart: tuple[str, ...]
    never: tuple[str, ...]

    def as_data(self) -> dict[str, list[str]]:
        return {"at_once": list(self.at_once), "at_restart": list(self.at_restart)}

    def __str__(self) -> str:
        at_once = f"at once: {', '.join(self.at_once)}" if self.at_once else ""
        at_restart = f"from each node's next start: {', '.join(self.at_restart)}" if self.at_restart else ""
        return "; ".join(filter(None, (at_once, at_restart))) or "nothing that counts here"


def changes(before: Terms, after: Terms) -> Changes:
    """What another charter changes for a node that started under the one before."""
    old, new = _flat(before.model_dump()), _flat(after.model_dump())
    names = [name for name in new.keys() | old.keys() if old.get(name) != new.get(name)]
    found: dict[str, list[str]] = {"never": [], "at_restart": [], "at_once": []}
    for name in sorted(names):
        found["never" if _is_in(name, NEVER) else "at_restart" if _is_in(name, AT_RESTART) else "at_once"].append(name)
    return Changes(**{sort: tuple(some) for sort, some in found.items()})


def amended(root: Authority, known: Papers, file: Path | None, sets: Iterable[str]) -> tuple[SignedCharter, Changes]:
    """The next charter: the present one with what a file and then `sets`, each KEY=VALUE, say otherwise. Raises `Failure`, with
    exit code MISMATCH for what would be another network."""
    current = known.charters.current
    before = terms_of.of_charter(current)
    values = before.model_dump(exclude_none=True)
    if file is not None:
        _merge(values, _with_underscores(terms_of.read(file)))
    for text in sets:
        _set(values, text)
    after = parse(Terms, values, str(file) if file is not None else "--set")
    found = changes(before, after)
    if found.never:
        message = f"{', '.join(found.never)}: a network of other members' models would come of it."
        raise Failure("other_model", message, "Make a new network: p2pfl network create", ExitCode.MISMATCH)
    if not (found.at_once or found.at_restart):
        message = f"Nothing in it is another than in the charter of {plain(current.name)}."
        raise Failure("no_change", message, "Give --set KEY=VALUE, or a file.", ExitCode.USAGE)
    agreed = Charter(current.name, root.key, current.schema, current.update_bytes, after.rules)
    now = max(believed_time(), float(current.signed_at))
    return signed(root, agreed, current.serial + 1, now, after), found


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {before + key: value}
    return found


def _is_in(name: str, sections: Iterable[str]) -> bool:
    return any(name == section or name.startswith(section + ".") for section in sections)


def _with_underscores(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key.replace("-", "_"): _with_underscores(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def _merge(values: dict[str, Any], others: Mapping[str, Any]) -> None:
    for key, value in others.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _set(values: dict[str, Any], text: str) -> None:
    """KEY=VALUE, where the value is TOML, or a word without quotes; `none` takes the key away. Raises `Failure`."""
    name, equals, value = text.partition("=")
    *path, key = name.strip().replace("-", "_").split(".")
    if not equals or not key or not value.strip():
        message = f"--set {text!r}: that is no KEY=VALUE."
        raise Failure("usage", message, "For example: --set gossip.floor_s=2.0", ExitCode.USAGE)
    for part in path:
        inner = values.setdefault(part, {})
        if not isinstance(inner, dict):
            raise Failure("usage", f"--set {text!r}: {part} has no keys.", "See docs/networks.md.", ExitCode.USAGE)
        values = inner
    if value.strip() == NOTHING:
        values.pop(key, None)
        return
    try:
        values[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        values[key] = value.strip()
