"""A scenario: what is learned by how many peers on which graph, over which network. A TOML file or a few keywords.

    Scenario(task="digits", peers=8, rounds=20, topology="ring", partition="dirichlet:0.5", seed=7)
    Scenario.from_toml("examples/ring.toml")

`peers`, `rounds`, `seed` and `engine` stand at the top, everything else in sections. Those that are not about the simulated
world are a live network's, unchanged. Two shortcuts hold in files, keywords and overrides alike:

- a section may be one string, which is its main key: topology = "random_regular:4" is [topology] kind = "random_regular:4";
- a key that belongs to exactly one section, but [churn], may stand at the top: learning_rate = 0.05 is [training]
  learning_rate = 0.05.
"""

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import networkx as nx
from pydantic import BaseModel, Field, PrivateAttr

from p2pfl.failure import ExitCode, Failure
from p2pfl.learning.task import Task
from p2pfl.settings import Agreement, Section, TopologySection, parse
from sim.churn import ChurnSection
from sim.fault import FaultSection
from sim.network import ComputeSection, NetworkSection

PEERS_MAX = 1_000_000  # ten times the largest run that was ever measured; a larger number is a slip of the hand
ROUNDS_MAX = 1_000_000
BYTES_MAX = 1 << 22  # of a scenario's file: a hundred thousand faults


class OutputSection(Section):
    """What a run measures. `alone` runs every peer without gossip too, the line that says why one gossips."""

    evaluate_every: int = Field(default=1, ge=1)  # rounds; the first and the last row are always measured
    evaluate_peers: int | None = Field(default=None, ge=1)  # so many peers, the same in every row; all where None
    alone: bool = True


class _Settings(Agreement):
    peers: int = Field(default=8, ge=1, le=PEERS_MAX, strict=True)
    rounds: int = Field(default=20, ge=1, le=ROUNDS_MAX, strict=True)
    engine: Literal["auto", "events", "batch"] = "auto"
    topology: TopologySection = TopologySection()
    network: NetworkSection = NetworkSection()
    compute: ComputeSection = ComputeSection()
    churn: ChurnSection = ChurnSection()
    fault: tuple[FaultSection, ...] = ()
    output: OutputSection = OutputSection()


class Scenario(_Settings):
    """Everything that a run depends on; the same scenario gives the same run.

    In Python, `task` may also be a `Task`, and `topology` a networkx graph, whose size is then the number of peers.
    Whatever is wrong is one `Failure` that names every wrong key.
    """

    _task: Task | None = PrivateAttr(default=None)
    _graph: "nx.Graph[Any] | None" = PrivateAttr(default=None)
    _folder: Path = PrivateAttr(default=Path())

    def __init__(self, **settings: Any) -> None:
        task, graph = settings.get("task"), settings.get("topology")
        if isinstance(task, Task):
            settings["task"] = {"name": task.name}
        if isinstance(graph, nx.Graph):
            settings = {"peers": len(graph), **settings, "topology": {"kind": "own"}}
        super().__init__(**dict(parse(_Settings, _sorted_out(settings), "scenario")))
        self._task = task if isinstance(task, Task) else None
        self._graph = graph if isinstance(graph, nx.Graph) else None

    @classmethod
    def from_toml(cls, path: str | Path, overrides: Iterable[str] = ()) -> "Scenario":
        """The scenario in a file, with "section.key=value" overrides; values are written as in the file, strings may be bare.

        An override of a whole section, topology=torus:2x4, replaces what the file says in it.
        """
        settings = _sorted_out(_read(Path(path)))
        for override in overrides:
            settings = _overridden(settings, override)
        scenario = cls(**dict(parse(_Settings, settings, str(path))))
        scenario._folder = Path(path).parent
        return scenario

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], folder: Path) -> "Scenario":
        """The scenario with these keys, as if it had been read from a file in `folder`."""
        scenario = cls(**settings)
        scenario._folder = folder
        return scenario

    @property
    def folder(self) -> Path:
        """Where its file lies; the working directory if it has none."""
        return self._folder

    @property
    def own_task(self) -> Task | None:
        """The task, where it was given as an object."""
        return self._task

    @property
    def own_graph(self) -> "nx.Graph[Any] | None":
        """The graph, where it was given as an object."""
        return self._graph

    @property
    def title(self) -> str:
        """What a person calls it: task, peers, graph, partition."""
        parts = [self.task.name, f"{self.peers} peers", self.topology.overlay or self.topology.kind, self.data.partition]
        divides_itself = self.own_task is not None or ".py" in self.task.name
        return ", ".join(parts[: 3 if divides_itself else 4])

    def beside(self, file: str) -> str:
        """A path that the scenario names: beside the scenario's own file if there is one, else from the working directory."""
        beside = self._folder / file.partition(":")[0]
        return str(self._folder / file) if beside.is_file() else file


def scenario_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file. It knows no shortcuts."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_Settings.model_json_schema(), "title": "Scenario"}


TOP = tuple(_Settings.model_fields)
SECTIONS: dict[str, type[BaseModel]] = {
    name: field.annotation
    for name, field in _Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
}
MAIN_KEY = {"task": "name", "data": "partition", "topology": "kind", "gossip": "mode", "codec": "kind"}
_UNAMBIGUOUS = {name: section for name, section in SECTIONS.items() if name != "churn"}  # a `rate` at the top says nothing
_ALL_KEYS = [key for section in _UNAMBIGUOUS.values() for key in section.model_fields]
SECTION_OF = {
    key: name
    for name, section in _UNAMBIGUOUS.items()
    for key in section.model_fields
    if key not in TOP and _ALL_KEYS.count(key) == 1
}
"""The keys that may stand at the top, because only one section has them. Those of [churn] may not."""


def _sorted_out(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Every key in its section; what is in no section stays where it is, to be refused with the rest."""
    result: dict[str, Any] = {}
    for given, value in settings.items():
        key = given.replace("-", "_")
        if key in TOP:
            value = {MAIN_KEY[key]: value} if key in MAIN_KEY and isinstance(value, str) else value
        elif section := SECTION_OF.get(key) or _section_meant(key):
            key, value = section, {key: value}
        result = _merged(result, {key: value})
    return result


MISSPELT = 0.75  # so like a key must be to one that there is: foo is no slip for floor_s


def _section_meant(key: str) -> str | None:
    """Where a misspelt key of a section belongs, so that the refusal can name its neighbors."""
    near = difflib.get_close_matches(key, [*TOP, *SECTION_OF], n=1, cutoff=MISSPELT)
    return SECTION_OF.get(near[0]) if near else None


def _merged(settings: Mapping[str, Any], more: Mapping[str, Any], replace: bool = False) -> dict[str, Any]:
    result = dict(settings)
    for name, value in more.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if not replace and (twice := {k.replace("-", "_") for k in old} & {k.replace("-", "_") for k in value}):
                key = sorted(twice)[0]
                raise Failure("bad_configuration", f"scenario: {name}.{key} is given twice.", "Leave one of them out.")
            value = {**old, **value}
        result[name] = value
    return result


def _overridden(settings: Mapping[str, Any], override: str) -> dict[str, Any]:
    place, equals, text = override.partition("=")
    keys = [key.strip().replace("-", "_") for key in place.split(".")]
    if not equals or len(keys) > 2 or not all(keys):
        raise Failure(
            "usage", f"--set {override}: this is no section.key=value.", "For example: --set topology.degree=6", ExitCode.USAGE
        )
    value = _typed(text.strip())
    if len(keys) == 2:
        value = {keys[1]: value}
    elif keys[0] in SECTIONS:
        settings = {name: section for name, section in settings.items() if name != keys[0]}
    return _merged(settings, _sorted_out({keys[0]: value}), replace=True)


def _typed(text: str) -> Any:
    """A value as TOML reads it; what is none, is a bare string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise Failure("bad_scenario", f"{path}: it is over {BYTES_MAX:,} bytes.", "Give the path of a scenario.")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise Failure("unreadable_scenario", f"{path}: {error.strerror}.", _nearest_file(path)) from None
    except UnicodeDecodeError as error:
        raise Failure("bad_scenario", f"{path}: byte {error.start} is not UTF-8.", "Save the file as UTF-8 text.") from None
    except ValueError as error:  # TOMLDecodeError is one, and so is what a number of thousands of digits raises
        raise Failure("bad_scenario", f"{path}: {error}.", "Strings are quoted, and every line is key = value.") from None
    except RecursionError:
        raise Failure("bad_scenario", f"{path}: it is nested too deeply.", "No key takes more than lists of lists.") from None


def _nearest_file(path: Path) -> str:
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else "Give the path of a scenario, such as examples/ring.toml."
