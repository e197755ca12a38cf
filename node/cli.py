"""The verbs of a real machine: `p2pfl demo`, `p2pfl node ...`, `p2pfl model ...`. Imports what they need when they run."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from p2pfl.answer import answer
from p2pfl.failure import ExitCode, Failure
from p2pfl.report.plain import plain

node_app = typer.Typer(
    help="One real peer: make its keys, start it, look at it, end it.", rich_markup_mode=None, no_args_is_help=True
)
model_app = typer.Typer(help="Evaluate a model that peers made.", rich_markup_mode=None, no_args_is_help=True)


class Mode(StrEnum):
    ROUNDS = "rounds"
    ASYNC = "async"


def demo(
    peers: Annotated[int, typer.Option(min=2, max=64, help="How many.")] = 8,
    topology: Annotated[str, typer.Option(help="Who gossips with whom: ring, random_regular:4, torus:2x4, ...")] = "ring",
    task: Annotated[str, typer.Option(help="A bundled task, or your own: FILE.py:NAME.")] = "digits",
    partition: Annotated[
        str, typer.Option(help="How the data are divided: iid, dirichlet:0.5, shards:2, ...")
    ] = "dirichlet:0.5",
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="How many.")] = 20,
    mode: Annotated[Mode, typer.Option(help="Gossip in rounds, or each peer in its own time.")] = Mode.ROUNDS,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the data's division, the graph and the first model.")] = 7,
    kill: Annotated[list[str] | None, typer.Option(metavar="I@SECONDS", help="SIGKILL peer I so long after the start.")] = None,
    pace: Annotated[float, typer.Option(min=0, max=60, help="Seconds a round takes at least, to watch it; 0: flat out.")] = 0.5,
    out: Annotated[Path | None, typer.Option(help="Folder for the report and the model; it must be new or empty.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the report in a browser.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Eight real peers on this machine learn together; a report at the end.

    For example: p2pfl demo --peers 10 --topology random_regular:4 --kill 2@5
    """
    from node.demo import Options, demonstrate, envelope, kill_from, lines

    kills = tuple(kill_from(text, peers) for text in kill or ())
    done = demonstrate(Options(peers, topology, task, partition, rounds, mode.value, seed, kills, pace, out))
    typer.echo(envelope(done.data) if json_ else "\n".join(lines(done)))
    if open_:
        typer.launch(done.report.absolute().as_uri())


Directory = Annotated[Path, typer.Option("--dir", help="The node's own folder.")]
PassphraseFd = Annotated[int | None, typer.Option(metavar="N", help="Read the passphrase from this file descriptor.")]


@node_app.command("init")
def node_init(
    name: Annotated[str, typer.Option(help="What the others call this node.")],
    directory: Directory = Path("p2pfl-node"),
    address: Annotated[str, typer.Option(help="HOST:PORT at which the others reach it.")] = "127.0.0.1:7780",
    no_passphrase: Annotated[bool, typer.Option("--no-passphrase", help="Leave the keys unsealed on the disk.")] = False,
    passphrase_fd: PassphraseFd = None,
) -> None:
    """Make a node's folder and keys; prints the [[member]] block for the network's file.

    For example: p2pfl node init --name ward-a --address 10.0.0.5:7780
    """
    from node.enrolment import asked_passphrase, directory_of, enrol, passphrase_from

    if no_passphrase and passphrase_fd is not None:
        raise Failure("usage", "--no-passphrase and --passphrase-fd exclude each other.", "Choose one.", ExitCode.USAGE)
    if no_passphrase:
        passphrase = None
    else:
        passphrase = passphrase_from(passphrase_fd) if passphrase_fd is not None else asked_passphrase(is_new=True)
    typer.echo(enrol(name, directory_of(directory), address, passphrase))
    typer.echo(f"The keys are in {directory}. Add the block above to the network's file, at every member.", err=True)


@node_app.command("start")
def node_start(
    network: Annotated[Path, typer.Option(metavar="FILE.toml", help="The network's file, the same at every member.")],
    directory: Directory = Path("p2pfl-node"),
    data: Annotated[Path | None, typer.Option(help="The folder of this node's own data, for a task of your own.")] = None,
    task: Annotated[str | None, typer.Option(help="Your own task: FILE.py:NAME. Its code is run.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen at, where it is not the member's address.")] = None,
    passphrase_fd: PassphraseFd = None,
    passphrase_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Read the passphrase from this file.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Answer Prometheus at this port of 127.0.0.1 (extra: metrics).")
    ] = None,
) -> None:
    """Start a node, or start it again: it goes on from its newest checkpoint. Ctrl-C ends it and keeps one.

    For example: p2pfl node start --dir ward-a --network wards.toml
    """
    from node.enrolment import directory_of, identity_in
    from node.starting import become, prepared

    place = directory_of(directory)
    told = prepared(place, network, identity_in(place, passphrase_fd, passphrase_file), listen, data, task)
    become(replace(told, metrics_port=metrics_port or 0))


@node_app.command("status")
def node_status(
    directory: Directory = Path("p2pfl-node"),
    watch: Annotated[bool, typer.Option("--watch", help="Show it every second, until Ctrl-C.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object; with --watch, one a line.")] = False,
) -> None:
    """What a running node is doing: its neighbors, what it sent, applied and refused, and what went wrong.

    For example: p2pfl node status --dir ward-a --watch
    """
    from node.enrolment import directory_of
    from node.status import lines, screen, status_of
    from node.status import watch as show_each

    place = directory_of(directory)
    if not watch:
        status = status_of(place)
        typer.echo(answer(status) if json_ else "\n".join(lines(status)))
    elif json_:
        show_each(place, lambda status: typer.echo(answer(status)))
    else:
        with screen() as show:
            show_each(place, show)


@node_app.command("leave")
def node_leave(
    directory: Directory = Path("p2pfl-node"),
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """End a running node in peace: it keeps a checkpoint, says good-bye and leaves its model. Waits until it has ended.

    For example: p2pfl node leave --dir ward-a
    """
    from node.enrolment import directory_of
    from node.status import leave

    left = leave(directory_of(directory))
    typer.echo(answer(left) if json_ else f"{plain(left['name'])} has left after round {left['step']}")


@model_app.command("evaluate")
def model_evaluate(
    file: Annotated[Path, typer.Argument(help="model.safetensors")],
    task: Annotated[str, typer.Option(help="The task it was made with: a bundled one, or FILE.py:NAME.")],
    model: Annotated[str | None, typer.Option(help="The model of a bundled task, where it is not the first.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of data, for a task that has no common test set.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure a model on the task's common test set.

    For example: p2pfl model evaluate model.safetensors --task digits
    """
    from node.evaluation import evaluated

    metrics = evaluated(file, task, model, data)
    if json_:
        typer.echo(answer(metrics))
    else:
        typer.echo("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
