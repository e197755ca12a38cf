"""The `p2pfl` command: mounts the verbs of node, sim and topology, and is the one place that turns what went wrong into
one line (or, under --json, one object) and an exit code."""

import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from p2pfl import __version__
from p2pfl.answer import refusal
from p2pfl.failure import ExitCode, Failure

VERBS = {
    "demo": ("node.commands.node_verbs:demo", "Eight real peers on this machine; a report at the end."),
    "node": ("node.commands.node_verbs:node_app", "One real peer: make its keys, start it, look at it, end it."),
    "network": ("node.commands.network_verbs:network_app", "A network of real nodes: found it, invite, see who is in it."),
    "doctor": ("node.commands.operating_verbs:doctor", "Whether this machine can run a node; else the line that mends it."),
    "service": ("node.commands.operating_verbs:service_app", "Run a node as a systemd service."),
    "model": ("node.commands.node_verbs:model_app", "Evaluate a model that peers made."),
    "sim": ("sim.cli:app", "Simulate many peers from a scenario file."),
    "topology": ("topology.cli:app", "Graphs, their mixing weights, and what they imply."),
    "task": ("p2pfl.task_cli:app", "Check a task of your own before peers run it."),
}
"""Where each verb lives, and its line in `p2pfl --help`, which must not import it: torch alone takes a second."""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line; returns the exit code."""
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        code = typer.main.get_command(_root)(args, prog_name="p2pfl", standalone_mode=False)
    except Exception as error:  # noqa: BLE001 (the edge: whatever comes this far is shown to a person, not raised at them)
        failure = _as_failure(error)
        _show(failure, as_json="--json" in args)
        return int(failure.exit_code)
    return code if isinstance(code, int) else int(ExitCode.OK)


class Verbs(TyperGroup):
    """A group whose members are imported when they are used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, (_, line) in VERBS.items():
            self.commands[name] = TyperCommand(name, callback=None, help=line)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        command = _load(VERBS[args[0]][0])
        return name, command, rest or (["--help"] if isinstance(command, TyperGroup) else [])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Failure("interrupted", "Interrupted.", "", ExitCode.INTERRUPTED) from None


_root = typer.Typer(
    cls=Verbs,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: p2pfl demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"p2pfl {__version__}")
        raise typer.Exit


@_root.callback()
def _p2pfl(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")] = False,
) -> None:
    """Federated learning with no server: peers gossip signed, sealed model updates to their neighbors."""


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    verb = getattr(import_module(module), name)
    if isinstance(verb, typer.Typer):
        verb.rich_markup_mode = None  # one style of help for all, and the faster one
        return typer.main.get_group(verb)  # a group even where it has one command only
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command()(verb)
    return typer.main.get_command(alone)


def _as_failure(error: Exception) -> Failure:
    if isinstance(error, Failure):
        return error
    if isinstance(error, typer.Abort):  # a prompt that was answered with Ctrl-C or the end of the input
        return Failure("interrupted", "Interrupted.", "", ExitCode.INTERRUPTED)
    if isinstance(error, _USAGE):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "p2pfl"
        message = error.format_message()
        stop = "" if message.endswith((".", "?", "!")) else "."
        return Failure("usage", message + stop, f"See: {command} --help", ExitCode.USAGE)
    topology = sys.modules.get("topology")  # if it was never imported, it raised nothing
    if topology is not None and isinstance(error, getattr(topology, "TopologyError", ())):
        refused: Any = error
        return Failure(refused.code, refused.message, refused.hint)
    return _bug(error)


_USAGE: Any = typer.BadParameter.__mro__[2]  # ClickException, whether typer brings a click of its own or uses the package


def _bug(error: Exception) -> Failure:
    with tempfile.NamedTemporaryFile("w", prefix="p2pfl-crash-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(f"p2pfl {__version__}, Python {sys.version}\n{_public(' '.join(sys.argv))}\n\n")
        file.write(_public("".join(traceback.format_exception(error))))
    message = _public(f"This is a bug in p2pfl: {type(error).__name__}: {error}.")
    return Failure("bug", message, f"Please report it with {file.name}", ExitCode.BUG)


def _public(text: str) -> str:
    """Without what makes an invite's line worth something: it is to be sent to people who are not invited."""
    return re.sub(r"(p2pfl-invite-)[\w-]+", r"\1...", text)


def _show(failure: Failure, as_json: bool) -> None:
    if as_json:
        print(refusal(failure))
    else:
        print(f"p2pfl: {_one_line(str(failure))}", file=sys.stderr)


def _one_line(text: str) -> str:
    """Without line breaks, and without the control characters that a peer's name might try on a terminal."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)


if __name__ == "__main__":
    sys.exit(main())
