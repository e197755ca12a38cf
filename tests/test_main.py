"""The `p2pfl` command: how it answers, and how it fails."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from p2pfl import __version__
from p2pfl.__main__ import VERBS, main
from p2pfl.failure import ExitCode, Failure

HEAVY = {"torch", "networkx", "numpy", "zmq", "rich"}


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Mounts a body of Python as `p2pfl demo`."""

    def mount(body: str) -> None:
        name = f"verb_of_{tmp_path.name.replace('-', '_')}"
        (tmp_path / f"{name}.py").write_text(f"import typer\nfrom typing import Annotated\n\n{body}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.setitem(VERBS, "demo", (f"{name}:demo", "A verb of this test."))

    return mount


@pytest.mark.parametrize("argv", [["--help"], ["-h"], []])
def test_help_names_every_verb(argv, capsys) -> None:
    assert main(argv) == ExitCode.OK
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in VERBS)


def test_version_is_the_packages(capsys) -> None:
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"p2pfl {__version__}\n"


@pytest.mark.parametrize("argv", [["--help"], ["sim", "--help"], ["sim", "run", "--help"]])
def test_help_imports_nothing_heavy(argv) -> None:
    program = f"import sys; from p2pfl.__main__ import main; main({argv}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not HEAVY & set(loaded.splitlines()[-1].split())


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_is_where_the_table_says(name, capsys) -> None:
    assert main([name, "--help"]) == ExitCode.OK
    assert f"Usage: p2pfl {name}" in capsys.readouterr().out


def test_an_unknown_verb_is_a_usage_error_that_names_the_nearest(capsys) -> None:
    assert main(["sm"]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "p2pfl: No such command 'sm'. Did you mean 'sim'? See: p2pfl --help\n"


def test_an_unknown_option_names_the_help_of_its_own_command(capsys) -> None:
    assert main(["sim", "run", "--sead", "3"]) == ExitCode.USAGE
    assert capsys.readouterr().err.endswith("See: p2pfl sim run --help\n")


def test_a_failure_is_one_line_on_stderr_and_its_exit_code(verb, capsys) -> None:
    verb(
        "from p2pfl.failure import ExitCode, Failure\n"
        "def demo():\n    raise Failure('port_busy', 'Port 7780 is taken.', 'Give another.', ExitCode.NETWORK)"
    )
    assert main(["demo"]) == ExitCode.NETWORK
    assert capsys.readouterr() == ("", "p2pfl: Port 7780 is taken. Give another.\n")


def test_a_failure_under_json_is_one_object_on_stdout(verb, capsys) -> None:
    verb(
        "from p2pfl.failure import Failure\n"
        "def demo(as_json: Annotated[bool, typer.Option('--json')] = False):\n    raise Failure('bad_key', 'What.', 'How.')"
    )
    assert main(["demo", "--json"]) == ExitCode.CONFIGURATION
    shown = capsys.readouterr()
    error = {"code": "bad_key", "message": "What.", "hint": "How."}
    assert json.loads(shown.out) == {"schema_version": 1, "status": "error", "error": error}
    assert shown.err == ""


def test_a_usage_error_under_json_is_one_object_too(capsys) -> None:
    assert main(["sim", "rnu", "--json"]) == ExitCode.USAGE
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_a_graph_that_cannot_be_is_the_users_to_mend(verb, capsys) -> None:
    verb("def demo():\n    from topology import ring\n    ring(0)")
    assert main(["demo"]) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err == "p2pfl: n is 0. It must be at least 1.\n"


def test_ctrl_c_is_one_line_and_130(verb, capsys) -> None:
    verb("def demo():\n    raise KeyboardInterrupt")
    assert main(["demo"]) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err == "p2pfl: Interrupted.\n"


def test_ctrl_c_at_a_prompt_is_130_too(verb, capsys) -> None:
    verb("def demo():\n    raise typer.Abort")
    assert main(["demo"]) == ExitCode.INTERRUPTED


def test_a_verb_can_end_with_a_code_of_its_own(verb) -> None:
    verb("def demo():\n    raise typer.Exit(143)")
    assert main(["demo"]) == ExitCode.TERMINATED


def test_a_bug_is_one_line_and_leaves_its_traceback_in_a_file(verb, capsys, tmp_path, monkeypatch) -> None:
    verb("def demo():\n    1 / 0")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["demo"]) == ExitCode.BUG
    line = capsys.readouterr().err
    assert line.startswith("p2pfl: This is a bug in p2pfl: ZeroDivisionError") and line.count("\n") == 1
    crash = Path(line.split()[-1])
    assert "1 / 0" in crash.read_text()
    assert crash.stat().st_mode & 0o077 == 0


def test_what_is_to_be_reported_holds_no_invite(verb, capsys, tmp_path, monkeypatch) -> None:
    invite = "p2pfl-invite-1-mAHEBXdhcmRzxCAs07S8"
    verb(f"def demo():\n    raise KeyError('{invite}')")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["p2pfl", "node", "join", invite])
    assert main(["demo"]) == ExitCode.BUG
    said = capsys.readouterr().err
    reported = "".join(path.read_text() for path in tmp_path.glob("p2pfl-crash-*"))
    assert "mAHEBXdhcmRz" not in said
    assert "p2pfl node join p2pfl-invite-...\n" in reported and "KeyError: 'p2pfl-invite-...'" in reported


@pytest.mark.fault("hostile names")
def test_a_name_cannot_move_the_cursor(verb, capsys) -> None:
    verb("from p2pfl.failure import Failure\ndef demo():\n    raise Failure('x', 'No peer \\x1b[2J\\nroot:', 'Look\\rthere.')")
    main(["demo"])
    assert capsys.readouterr().err == "p2pfl: No peer \N{REPLACEMENT CHARACTER}[2J root: Look there.\n"


def test_a_failure_reads_as_what_and_how_to_mend_it() -> None:
    assert str(Failure("x", "The key is gone.", "Make another.")) == "The key is gone. Make another."
