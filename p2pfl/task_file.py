"""A user's task, imported from a Python file of theirs. The file is run: give only one that you would run yourself."""

import difflib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from p2pfl.failure import Failure
from p2pfl.learning.task import Task

DEFAULT_NAME = "task"


def load(specification: str) -> Task:
    """The `Task` that "FILE.py:NAME" names; NAME is "task" where it is left out.

    The file may import its neighbors: its folder is put at the end of the module search path.
    """
    file, colon, name = specification.rpartition(":")
    if not colon or name.endswith(".py"):
        file, name = specification, DEFAULT_NAME
    path = Path(file).expanduser().absolute()
    if not path.is_file():
        raise _bad(f"{file}: there is no such file", _nearest_file(path))
    if path.suffix != ".py":
        raise _bad(f"{file}: not a Python file", "Give FILE.py:NAME.")
    module = _imported(path)
    if not hasattr(module, name):
        raise _bad(f"{file}: it has no {name!r}", _nearest_name(module, name))
    task = getattr(module, name)
    if not isinstance(task, Task):
        hint = (
            "Call it in the file and name what it returns." if callable(task) else f"Write {name} = Task(model=..., data=...)."
        )
        raise _bad(f"{file}: {name!r} is of type {type(task).__name__}, not a Task", hint)
    return task


@contextmanager
def blamed(what: str, hint: str = "Mend it there and check again.") -> Iterator[None]:
    """Turns whatever the user's code raises into one line: what was called, where in which file it failed, and why.

    A user's code may raise anything, `sys.exit` included; ours is not run inside.
    """
    try:
        yield
    except Failure:
        raise
    except (Exception, SystemExit) as error:
        place, reason = _place(error), str(error).strip().partition("\n")[0]
        message = f"{what} raised {type(error).__name__}{place}{': ' if reason else ''}{reason}"
        raise Failure("task_raised", f"{message.rstrip('.')}.", hint) from error


def _imported(path: Path) -> ModuleType:
    """The file as a module, under a name that can't be taken for an installed one."""
    name = f"task file {path}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up while it is being imported
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    with blamed(f"importing {path.name}"):
        spec.loader.exec_module(module)
    return module


def _place(error: BaseException) -> str:
    """Where the user's own code was: the innermost frame that is neither an installed package's nor the importer's."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" in {Path(error.filename).name} line {error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        ours = any(path.is_relative_to(folder) for folder in _OURS)
        if path.suffix == ".py" and not ours and not _NOT_THEIRS & set(path.parts):
            return f" in {path.name} line {frame.lineno}"
    return ""


_OURS = [Path(__file__).parents[1] / package for package in ("p2pfl", "node", "sim")]
_NOT_THEIRS = {"site-packages", "dist-packages", f"python{sys.version_info.major}.{sys.version_info.minor}"}


def _nearest_file(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.py")], n=1)
    return f"Did you mean {near[0]!r}?" if near else "Give FILE.py:NAME, from the folder you are in."


def _nearest_name(module: ModuleType, name: str) -> str:
    tasks = [key for key, value in vars(module).items() if isinstance(value, Task)]
    near = difflib.get_close_matches(name, tasks, n=1) or tasks[:1]
    return f"Did you mean {near[0]!r}?" if near else f"Write {name} = Task(model=..., data=...)."


def _bad(message: str, hint: str) -> Failure:
    return Failure("bad_task_file", f"{message}.", hint)
