"""The house of docs/architecture.md: who may import whom, what the core may not touch, and that nothing ever unpickles."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("p2pfl", "node", "topology", "sim")

MAY_IMPORT = {"p2pfl": (), "topology": (), "node": ("p2pfl", "topology"), "sim": ("p2pfl", "topology")}
"""Of ours, beside itself. `p2pfl/__main__.py` mounts the others by name, when they are used."""

OUTSIDE_THE_CORE = {"time", "random", "secrets", "socket", "asyncio", "threading", "multiprocessing", "subprocess", "zmq"}
"""What decides gets time, chance and bytes as arguments."""

RUNS_WHAT_IT_READS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "msgpack_numpy"}

OPENS_FILES = {
    "p2pfl/__main__.py": "writes the crash file",
    "p2pfl/learning/data/bundled.py": "reads the bundled data sets",
    "p2pfl/learning/data/own.py": "reads the file that a user's own task names",
    "topology/cli.py": "reads and writes the graphs that a user names",
    "p2pfl/report/page.py": "reads the page's own template, style and script",
}
"""The only files of the core that open any, and why."""

FILES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_it_stands_on(package: str) -> None:
    foreign = set(PACKAGES) - {package, *MAY_IMPORT[package]}
    assert not [
        f"{path} imports {name}"
        for path in FILES
        if path.parts[0] == package
        for name in imports(path)
        if root(name) in foreign
    ]


def test_no_room_of_the_node_stands_on_one_that_stands_on_it() -> None:
    """A room is a folder of `node`, or a file that lies in none."""
    below: dict[str, set[str]] = {}
    for path in FILES:
        if path.parts[0] == "node" and path != Path("node/__init__.py"):
            own = path.with_suffix("").parts[1]
            below.setdefault(own, set()).update({room for room in rooms(path) if room != own})
    try:
        list(TopologicalSorter(below).static_order())
    except CycleError as circle:
        raise AssertionError(f"a circle: {' -> '.join(circle.args[1])}") from None


def test_what_a_peer_decides_and_what_it_computes_know_nothing_of_each_other() -> None:
    forbidden = {
        "p2pfl/protocol": ("p2pfl.learning", "torch", "numpy", "networkx", "safetensors"),
        "p2pfl/learning": ("p2pfl.protocol", "zmq", "nacl", "networkx"),
    }
    assert not [
        f"{path} imports {name}"
        for half, others in forbidden.items()
        for path in FILES
        if path.is_relative_to(half)
        for name in imports(path)
        if any(name == other or name.startswith(f"{other}.") for other in others)
    ]


def test_the_core_reads_no_clock_draws_no_chance_and_opens_no_socket() -> None:
    assert not [f"{path} imports {name}" for path in core() for name in imports(path) if root(name) in OUTSIDE_THE_CORE]


def test_the_core_opens_no_file_but_the_bundled_ones() -> None:
    opening = {str(path) for path in core() if any(is_opening(call) for call in calls(path))}
    assert opening <= OPENS_FILES.keys(), opening - OPENS_FILES.keys()


def test_nothing_that_is_read_can_run() -> None:
    importers = [f"{path} imports {name}" for path in FILES for name in imports(path) if root(name) in RUNS_WHAT_IT_READS]
    callers = [f"{path}:{call.lineno} calls {called(call)}" for path in FILES for call in calls(path) if can_run(call)]
    assert not importers + callers


def test_imports_are_absolute() -> None:
    assert not [
        str(path) for path in FILES for node in ast.walk(tree(path)) if isinstance(node, ast.ImportFrom) and node.level > 0
    ]


def test_every_rule_would_notice() -> None:
    """The scan itself, on lines that must not pass."""
    bad = ast.parse("torch.load(f)\nnp.load(f)\nnp.load(f, allow_pickle=True)\neval(s)\nPath(f).read_bytes()\nopen(f)")
    found = [call for call in ast.walk(bad) if isinstance(call, ast.Call)]
    assert sorted(called(call) for call in found if can_run(call)) == ["eval", "np.load", "np.load", "torch.load"]
    assert {called(call) for call in found if is_opening(call)} == {"open", ".read_bytes", "np.load", "torch.load"}


def core() -> list[Path]:
    return [path for path in FILES if path.parts[0] in ("p2pfl", "topology") and path != Path("p2pfl/__main__.py")]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it: those inside functions and under TYPE_CHECKING too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def rooms(path: Path) -> Iterator[str]:
    """Of the node, that a file imports: `from node import setup` names one as `import node.setup` does."""
    for node in ast.walk(tree(path)):
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module="node", names=names):
                found = [f"node.{alias.name}" for alias in names]
            case ast.ImportFrom(module=str(module)):
                found = [module]
            case _:
                continue
        yield from (name.split(".")[1] for name in found if name.startswith("node."))


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call))


def called(call: ast.Call) -> str:
    """The name of what is called: "open", "np.load", or ".read_text" of something that has no name."""
    match call.func:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id=owner), attr=attribute):
            return f"{owner}.{attribute}"
        case ast.Attribute(attr=attribute):
            return f".{attribute}"
        case _:
            return "?"


def can_run(call: ast.Call) -> bool:
    name = called(call)
    if name in ("np.load", "numpy.load"):
        safe = (
            k for k in call.keywords if k.arg == "allow_pickle" and isinstance(k.value, ast.Constant) and k.value.value is False
        )
        return next(safe, None) is None
    return name in ("torch.load", "eval", "exec", "yaml.load", "__import__")


def is_opening(call: ast.Call) -> bool:
    owner, _, name = called(call).rpartition(".")
    if called(call).startswith(".") or owner:
        return name in ("open", "read_text", "read_bytes", "write_text", "write_bytes", "NamedTemporaryFile", "load", "memmap")
    return name == "open"


def root(name: str) -> str:
    return name.partition(".")[0]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))
