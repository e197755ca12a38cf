"""A user's file: it is found and imported, or one line says what is wrong and where."""

import sys

import pytest

from p2pfl.failure import Failure
from p2pfl.learning.tasks import resolve
from p2pfl.settings import DataSection, TaskSection
from p2pfl.task_file import blamed, load

GOOD = """
import dataclasses
from p2pfl import Task

@dataclasses.dataclass
class Settings:
    width: int = 3

def make():
    return task

task = Task(model=lambda: None, data=lambda peer: None, name="mine")
width = Settings().width
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def refused(specification):
    with pytest.raises(Failure) as failure:
        load(specification)
    assert "\n" not in str(failure.value)
    return str(failure.value)


def test_a_task_is_loaded_by_file_and_name_and_by_file_alone(write):
    path = write("mine.py", GOOD)
    assert load("mine.py:task").name == load("mine.py").name == load(f"{path}:task").name == "mine"


def test_a_scenario_names_it_the_same_way(write):
    write("mine.py", GOOD)
    assert resolve(TaskSection(name="mine.py:task"), DataSection(), 0, load_file=load).name == "mine"


def test_a_file_may_import_its_neighbor_but_cannot_replace_an_installed_module(write):
    write("layers_of_mine.py", "name = 'from my neighbor'")
    write("json.py", "raise RuntimeError('shadowed')")
    write("mine.py", GOOD + "import json, layers_of_mine\nother = Task(model=None, data=None, name=layers_of_mine.name)")
    assert load("mine.py:other").name == "from my neighbor"


def test_a_missing_file_is_named_with_the_nearest_one(write):
    write("mine.py", GOOD)
    assert refused("mnie.py:task") == "mnie.py: there is no such file. Did you mean 'mine.py'?"
    assert "no folder" in refused("nowhere/mine.py:task")


def test_a_missing_name_is_named_with_the_nearest_one(write):
    write("mine.py", GOOD)
    assert refused("mine.py:tsak") == "mine.py: it has no 'tsak'. Did you mean 'task'?"
    write("none.py", "x = 1")
    assert refused("none.py") == "none.py: it has no 'task'. Write task = Task(model=..., data=...)."


def test_what_is_no_task_is_refused(write):
    write("mine.py", GOOD)
    assert refused("mine.py:width").startswith("mine.py: 'width' is of type int, not a Task.")
    assert refused("mine.py:make").endswith("Call it in the file and name what it returns.")
    write("mine.txt", GOOD)
    assert refused("mine.txt:task").startswith("mine.txt: not a Python file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = 1\nraise ValueError('two\\nlines')", "ValueError in bad.py line 2: two."),
        ("import nothing_of_this_name", "ModuleNotFoundError in bad.py line 1: No module named"),
        ("x = (1,\n", "SyntaxError in bad.py line 1: '(' was never closed"),
        ("import sys\nsys.exit(3)", "SystemExit in bad.py line 2: 3."),
        ("from p2pfl import Task\n\ntask = Task(modle=1)", "TypeError in bad.py line 3:"),
        ("import json\n\njson.loads('{')", "JSONDecodeError in bad.py line 3:"),
    ],
)
def test_an_error_in_the_file_is_one_line_with_its_place(write, text, says):
    write("bad.py", text)
    assert refused("bad.py:task").startswith(f"importing bad.py raised {says}")


def test_a_failure_of_the_readers_passes_as_it_is():
    with pytest.raises(Failure, match="column 'age'"), blamed("data(peer)"):
        raise Failure("bad_data_file", "a.csv line 3 column 'age': the cell is empty.", "Fill it.")
