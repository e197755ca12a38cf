"""The verbs of a real machine: `p2pfl demo`, `p2pfl node ...`, `p2pfl model ...`. Imports what they need when they run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from p2pfl.failure import ExitCode, Failure

node_app = typer.Typer(help="One real peer: make its keys, start it.", rich_markup_mode=None, no_args_is_help=True)
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
