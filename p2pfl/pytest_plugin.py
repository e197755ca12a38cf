"""The pytest plugin: a federation under faults in a test of five lines. Installed with the package.

Like `p2pfl/__main__.py` it composes: sim and node are named here and imported when a test asks for them, so that it costs the
start of pytest nothing.
"""

import re
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DEFAULTS = {"peers": 8, "topology": "ring", "task": "digits", "seed": 7, "output": {"alone": False}}
OF_A_NETWORK = ("seed", "rounds", "task", "data", "training", "topology", "gossip", "codec", "limits")
"""What a scenario and a live network both have."""
FAILURES = Path(".p2pfl/failures")

_RAN = pytest.StashKey[list[Any]]()
"""The scenarios that a test has run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("p2pfl", "p2pfl: federations under faults")
    group.addoption("--p2pfl-real", action="store_true", help="run federations as real processes, where their faults exist")
    group.addoption("--p2pfl-seeds", type=int, default=None, metavar="N", help="run every test of a federation under N seeds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    seeds = metafunc.config.getoption("--p2pfl-seeds")
    if seeds is None or "federation" not in metafunc.fixturenames:
        return
    if seeds < 1:
        raise pytest.UsageError(f"--p2pfl-seeds {seeds}: give 1 or more")
    metafunc.parametrize("federation", range(seeds), indirect=True, ids=[f"seed+{i}" for i in range(seeds)])


@pytest.fixture
def federation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """federation(peers=8, topology="ring", task="digits", seed=7, ...): anything that a scenario file can say, by name.

    Returns what has `.at(seconds).kill([3, 4])` and the other faults, and `.run(until=seconds)` or `.run(rounds=20)`. Seconds
    are virtual, of which a round takes one unless the scenario says otherwise. Under --p2pfl-real they are real.
    """
    later = getattr(request, "param", 0)
    ran: list[Any] = request.node.stash.setdefault(_RAN, [])
    rehearsal = import_module("sim.rehearsal")

    def made(**settings: Any) -> Any:
        chosen = {**DEFAULTS, **settings}
        chosen["seed"] += later
        carry_out = really if request.config.getoption("--p2pfl-real") else import_module("sim.engine").run
        return rehearsal.Rehearsal(carry_out=carry_out, on_run=ran.append, **chosen)

    def really(scenario: Any) -> Any:
        return _really(scenario, tmp_path / f"peers-{len(ran)}")

    yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report: Any = yield
    ran = item.stash.get(_RAN, [])
    if report.when == "call" and report.failed and ran:
        report.sections.append(("p2pfl", "\n".join(_how_to_repeat(item, ran))))
    return report


def _how_to_repeat(item: pytest.Item, ran: list[Any]) -> Iterator[str]:
    config = item.config
    options = [f"--p2pfl-seeds {seeds}"] if (seeds := config.getoption("--p2pfl-seeds")) else []
    options += ["--p2pfl-real"] if config.getoption("--p2pfl-real") else []
    yield " ".join(["repeat with: pytest", *options, f"'{item.nodeid}'"])
    for scenario in ran:
        yield f"seed {scenario.seed}: {scenario.title}"
        if (file := import_module("sim.rehearsal").kept(scenario, FAILURES / _slug(item.nodeid, scenario.seed))) is not None:
            folder, moment = file.with_suffix(""), min((fault.at for fault in scenario.fault), default=scenario.rounds)
            yield f"  look at it with: p2pfl sim run {file} --trace --out {folder}"
            yield f"                   p2pfl sim replay {folder}/trace.jsonl --until {moment:g}"


def _slug(nodeid: str, seed: int) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", nodeid.rpartition("/")[2].partition("[")[0]).strip("-") + f"-{seed}.toml"


def _really(scenario: Any, directory: Path) -> Any:
    """On real processes, a real second for each virtual one; skips what does not exist there."""
    settings = scenario.model_dump(mode="json", exclude_defaults=True)
    if scenario.own_task is not None or scenario.own_graph is not None:
        pytest.skip("--p2pfl-real: real peers load their task by name")
    if missing := sorted(settings.keys() & {"churn", "network", "compute"}):
        pytest.skip(f"--p2pfl-real: there is no [{missing[0]}] on real processes")
    if others := sorted({fault.kind for fault in scenario.fault} - {"crash"}):
        pytest.skip(f"--p2pfl-real: {others[0]} does not exist on real processes; kill does")
    if any(fault.heal is not None for fault in scenario.fault):
        pytest.skip("--p2pfl-real: nobody is started again on real processes")
    kills = {peer: fault.at for fault in scenario.fault for peer in fault.peers}
    pace_s = import_module("sim.rehearsal").ROUND_S if kills else 0.0
    sections = {name: getattr(scenario, name) for name in OF_A_NETWORK}
    rehearse, result = import_module("node.local.rehearsal").rehearse, import_module("sim.result").Result
    return result(*rehearse(scenario.title, scenario.peers, sections, kills, pace_s, directory))
