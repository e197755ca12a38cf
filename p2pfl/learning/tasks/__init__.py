"""The tasks that come with the package, by name, and the door for a user's own."""

import difflib
from collections.abc import Callable

from p2pfl.failure import Failure
from p2pfl.learning.task import Task
from p2pfl.learning.tasks.breast_cancer import breast_cancer
from p2pfl.learning.tasks.digits import digits
from p2pfl.learning.tasks.synthetic import synthetic
from p2pfl.settings import DataSection, TaskSection

BUNDLED: dict[str, Callable[[TaskSection, DataSection, int], Task]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "synthetic": synthetic,
}
_SYNTHETIC_ONLY = ("features", "samples", "classes")


def resolve(section: TaskSection, data: DataSection, seed: int, load_file: Callable[[str], Task] | None = None) -> Task:
    """The task that `section` names; bundled data are divided as `data` says, by `seed`.

    `load_file` turns "FILE.py:NAME" into the user's task (`p2pfl.task_file.load`), which divides its data itself.
    """
    if ":" in section.name or section.name.endswith(".py"):
        if load_file is None:
            raise _bad(f"the task {section.name!r} is a file, and only bundled ones are known here", f"There are {_names()}.")
        _refuse_arguments(section, ("model", *_SYNTHETIC_ONLY))
        return load_file(section.name)
    name = section.name.replace("-", "_")
    if name not in BUNDLED:
        near = difflib.get_close_matches(name, BUNDLED, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Bundled are {_names()}; your own is FILE.py:NAME."
        raise _bad(f"no task is called {section.name!r}", hint)
    if name != "synthetic":
        _refuse_arguments(section, _SYNTHETIC_ONLY)
    return BUNDLED[name](section, data, seed)


def _refuse_arguments(section: TaskSection, keys: tuple[str, ...]) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if given:
        raise _bad(f"the task {section.name!r} has no {' and no '.join(given)} to set", f"Leave out task.{given[0]}.")


def _names() -> str:
    return ", ".join(BUNDLED)


def _bad(message: str, hint: str) -> Failure:
    return Failure("unknown_task", f"{message}.", hint)
