"""docs/faults.md lists every promise with the tests that show it. `python -m tests.faults` writes it anew."""

from tests import faults


def test_the_page_is_what_the_promises_and_the_marks_say() -> None:
    assert faults.PAGE.read_text() == faults.page(), "run: python -m tests.faults"


def test_every_promise_is_shown_by_a_test_that_make_test_runs() -> None:
    shown = faults.marks()
    bare = [name for name in faults.names() if all(one.is_slow for one in shown.get(name, ()))]
    assert not bare, f"no test shows {bare}"


def test_every_mark_names_a_promise_and_every_promise_has_one_name() -> None:
    assert set(faults.marks()) <= set(faults.names())
    assert len(faults.names()) == len(set(faults.names()))
