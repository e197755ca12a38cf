"""The cells of a sweep: one scenario file, some keys with several values each, and several seeds."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from p2pfl import __version__
from p2pfl.failure import ExitCode, Failure
from sim.scenario import Scenario
from topology.specification import FAMILIES, SCHEDULES

CELLS_MAX = 10_000  # a larger grid is a slip of the hand, or a job for more than one machine
_VALUE = re.compile(r'(?:\[[^]]*\]|\{[^}]*\}|"[^"]*"|[^,\[{"])+')


@dataclass(frozen=True, slots=True)
class Axis:
    """A key and the values that it takes, written as in `--set`."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep. `values` has one for each axis; `settings` is the resolved scenario, as JSON has it."""

    values: tuple[str, ...]
    seed: int
    scenario: Scenario
    settings: Mapping[str, Any]
    name: str
    """Of its folder: a digest of everything that the run depends on, so that a finished cell is known again."""


def axis_from(text: str) -> Axis:
    """SECTION.KEY=VALUE,VALUE,...; commas inside brackets and quotes separate nothing."""
    key, equals, listed = text.partition("=")
    found = _VALUE.findall(listed)
    values = tuple(value.strip() for value in found)
    if not (key.strip() and equals and values and all(values)) or ",".join(found) != listed:
        raise _usage(f"--over {text}: this is no key with values.", "For example: --over churn.rate=0,0.1,0.3")
    if len(set(values)) < len(values):
        raise _usage(f"--over {text}: a value is given twice.", "Leave one of them out.")
    return Axis(key.strip(), values)


def cells(path: Path, overrides: Sequence[str], axes: Sequence[Axis], seeds: int) -> list[Cell]:
    """All of them, the whole grid with the first seed before the next seed: so what is there early compares.

    Seeds count up from the scenario's own. A `Failure` where any cell is no scenario.
    """
    keys = [axis.key.replace("-", "_") for axis in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise _usage(f"--over {key}: it is given twice.", "Put its values into one.")
        if key == "seed":
            raise _usage("--over seed: seeds are no axis.", "Give their number: --seeds 5")
    first = Scenario.from_toml(path, overrides).seed
    grid = list(product(*(axis.values for axis in axes)))
    if len(grid) * seeds > CELLS_MAX:
        raise _usage(f"{len(grid)} combinations with {seeds} seeds are more than {CELLS_MAX} runs.", "Sweep over less.")
    return [_cell(path, overrides, axes, values, seed) for seed in range(first, first + seeds) for values in grid]


def _cell(path: Path, overrides: Sequence[str], axes: Sequence[Axis], values: tuple[str, ...], seed: int) -> Cell:
    chosen = [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]
    scenario = Scenario.from_toml(path, [*overrides, *chosen, f"seed={seed}"])
    if any(axis.key.partition(".")[0] == "topology" for axis in axes):
        scenario = _without_surplus(scenario)
    settings = json.loads(json.dumps(scenario.model_dump(mode="json"), sort_keys=True))
    return Cell(values, seed, scenario, settings, _digest(scenario, settings))


def _without_surplus(scenario: Scenario) -> Scenario:
    """Where graphs are compared, each takes what it knows of the file's arguments: a ring leaves the degree to the others."""
    section = scenario.topology
    name, inline, _ = section.kind.replace("-", "_").partition(":")
    family = {**FAMILIES, **SCHEDULES}.get(name)
    if family is None:  # refused later, with the nearest name
        return scenario
    every = {argument for one in (*FAMILIES.values(), *SCHEDULES.values()) for argument in one.arguments}
    surplus = every & section.model_fields_set if inline else every & section.model_fields_set - set(family.arguments)
    return scenario.model_copy(update={"topology": section.model_copy(update=dict.fromkeys(surplus))})


def _digest(scenario: Scenario, settings: Mapping[str, Any]) -> str:
    """Of the settings, the contents of the files that they name, and the version that computes with them."""
    files = {text: _contents(scenario, text) for text in sorted(set(_texts(settings)))}
    whole = json.dumps([__version__, settings, {text: digest for text, digest in files.items() if digest}], sort_keys=True)
    return hashlib.blake2b(whole.encode(), digest_size=8).hexdigest()


def _contents(scenario: Scenario, text: str) -> str:
    """Digest of a file, such as that of one's own task; empty where the text names none."""
    named = text.partition(":")[0]
    if "." not in named and "/" not in named:
        return ""
    try:
        return hashlib.blake2b(Path(scenario.beside(text).partition(":")[0]).read_bytes(), digest_size=16).hexdigest()
    except (OSError, ValueError):
        return ""


def _texts(settings: Any) -> Iterator[str]:
    match settings:
        case str():
            yield settings
        case Mapping():
            for value in settings.values():
                yield from _texts(value)
        case list():
            for value in settings:
                yield from _texts(value)


def _usage(message: str, hint: str) -> Failure:
    return Failure("usage", message, hint, ExitCode.USAGE)
