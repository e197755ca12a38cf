"""What is promised when something goes wrong: tests/faults.toml says it, and `@pytest.mark.fault(name)` is on every test that
shows it. `python -m tests.faults` writes docs/faults.md from both; tests/test_faults_doc.py compares the page with them, and
refuses a promise that no test shows and a mark that no promise has.
"""

import ast
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
TABLE = HERE / "faults.toml"
PAGE = HERE.parent / "docs" / "faults.md"


@dataclass(frozen=True)
class Fault:
    name: str
    what: str
    promise: str


@dataclass(frozen=True)
class Shown:
    """One test that shows a promise. `test` is its name, without the prefix; `is_slow`: `make test-slow` runs it."""

    file: str
    test: str
    is_slow: bool


BEGINNING = """\
# What can go wrong, what is promised then, and which test shows it

Written by `python -m tests.faults`; a test compares this page with the tests, so that neither can drift from the other.

For everything that comes in from outside, one contract holds: nothing is raised out of the event loop; exactly one counter of
one closed list ([the reasons](protocol.md)) moves; the log says it once in ten seconds; model, replay window, members and
files are what they were; and the next honest update is mixed. Whoever runs a node is told in one line what is wrong, with which
file or peer, and how to mend it. *(slow)* tests are run by `make test-slow`, all others by `make test`.
"""


def promises() -> dict[str, tuple[Fault, ...]]:
    """By heading, in the order of the page."""
    tables = tomllib.loads(TABLE.read_text())
    return {title: tuple(Fault(name, **said) for name, said in group.items()) for title, group in tables.items()}


def names() -> list[str]:
    return [fault.name for group in promises().values() for fault in group]


def marks() -> dict[str, list[Shown]]:
    """Every `@pytest.mark.fault(...)` of the tests, by the name of its fault; in the order of the files."""
    found: dict[str, list[Shown]] = defaultdict(list)
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                called = dict(_pytest_marks(node))
                for name in called.get("fault", []):
                    found[name].append(Shown(path.name, node.name.removeprefix("test_"), "slow" in called))
    return dict(found)


def page() -> str:
    shown = marks()
    parts = [BEGINNING]
    for title, group in promises().items():
        rows = [f"## {title}", "", "| what | promise | shown by |", "|---|---|---|"]
        for fault in group:
            tests = "<br>".join(_cell(one) for one in shown.get(fault.name, ()))
            rows.append(f"| **{fault.name}**: {fault.what} | {fault.promise} | {tests} |")
        parts.append("\n".join(rows) + "\n")
    return "\n".join(parts)


def _pytest_marks(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, list[str]]]:
    for decorator in node.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        named = ast.unparse(call.func if call else decorator)
        if named.startswith("pytest.mark."):
            words = (
                [one.value for one in call.args if isinstance(one, ast.Constant) and isinstance(one.value, str)] if call else []
            )
            yield named.removeprefix("pytest.mark."), words


def _cell(one: Shown) -> str:
    sentence = one.test.replace("_", " ")
    return f"[{sentence}](../tests/{one.file})" + (" *(slow)*" if one.is_slow else "")


if __name__ == "__main__":
    PAGE.write_text(page())
