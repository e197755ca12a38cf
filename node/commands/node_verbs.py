"""The verbs of a real machine: `p2pfl demo`, `p2pfl node ...`, `p2pfl model ...`. Imports what they need when they run."""

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from node.commands.options import (
    Addresses,
    Data,
    Directory,
    Door,
    Json,
    Listen,
    NoPassphrase,
    OutboundOnly,
    OwnTask,
    PassphraseFd,
)
from p2pfl.answer import answer
from p2pfl.report.plain import plain

if TYPE_CHECKING:
    from node.directory import NodeDirectory
    from node.node_settings import NodeSettings
    from p2pfl.protocol.identity import Identity

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
    json_: Json = False,
) -> None:
    """Eight real peers on this machine learn together; a report at the end.

    For example: p2pfl demo --peers 10 --topology random_regular:4 --kill 2@5
    """
    from node.local.demo import Options, demonstrate, envelope, kill_from, lines

    kills = tuple(kill_from(text, peers) for text in kill or ())
    done = demonstrate(Options(peers, topology, task, partition, rounds, mode.value, seed, kills, pace, out))
    typer.echo(envelope(done.data) if json_ else "\n".join(lines(done)))
    if open_:
        typer.launch(done.report.absolute().as_uri())


@node_app.command("init")
def node_init(
    name: Annotated[str, typer.Option(help="What the others call this node.")],
    request: Annotated[
        Path, typer.Option(metavar="FILE", help="Write the request to be certified here; see p2pfl network sign.")
    ],
    directory: Directory = None,
    relay: Annotated[bool, typer.Option("--relay", help="To carry for others, and learn nothing.")] = False,
    no_passphrase: NoPassphrase = False,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Make a node's folder and keys, and a request to be certified: for who has no invite.

    For example: p2pfl node init --name ward-c --request ward-c.request
    """
    from node import place
    from node.admission.enrolment import enrol
    from node.commands.options import new_passphrase

    here = place.named(directory, name)
    asked = enrol(name, here, request, new_passphrase(no_passphrase, passphrase_fd), relay)
    told = {"id": asked.identity.hex(), "directory": str(here.path), "request": str(request)}
    typer.echo(answer(told) if json_ else f"request  {request}")
    next_ = f"p2pfl node join CREDENTIAL --dir {here.path}"
    typer.echo(f"Hand it to the holder of the root key, who runs p2pfl network sign; then: {next_}", err=True)


@node_app.command("join")
def node_join(
    line: Annotated[str, typer.Argument(help="The invite or the credential as it was printed, its file, or - for stdin.")],
    name: Annotated[
        str | None, typer.Option(help="What the others call this node; the machine's name where not given.")
    ] = None,
    listen: Listen = "0.0.0.0:7780",
    address: Addresses = None,
    door: Door = None,
    outbound_only: OutboundOnly = False,
    data: Data = None,
    task: OwnTask = None,
    directory: Directory = None,
    start: Annotated[bool, typer.Option("--start", help="Start the node as well.")] = False,
    no_passphrase: NoPassphrase = False,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Become a member by an invite: makes the keys, asks one of the members, and checks that the task fits.

    For example: p2pfl node join p2pfl-invite-1-... --name ward-b --data /srv/ward-b
    """
    from node.admission.enrolment import identity_in
    from node.admission.joining import join, line_of, new_identity
    from node.commands.options import new_passphrase, own_name, settings_from
    from node.commands.reading import line_in
    from node.node_settings import settings_of

    @cache  # a passphrase is asked for once
    def opened(here: "NodeDirectory") -> "Identity":
        if here.identity.exists():
            return identity_in(here, passphrase_fd)
        return new_identity(here, lambda: new_passphrase(no_passphrase, passphrase_fd))

    asked = settings_from(listen, address, task, data, door)
    settings = settings_of("p2pfl node join", **asked, outbound_only=outbound_only)
    done = join(line_of(line_in(line)), name or own_name(), directory, settings, opened)
    if start:
        typer.echo(f"{plain(done.member)} is a {done.role} of {plain(done.network)}", err=True)
        _start(done.directory, opened(done.directory), settings, 0, json_)
    if json_:
        typer.echo(answer(done.as_data()))
        return
    others = "1 other" if done.others == 1 else f"{done.others} others"
    typer.echo(f"{plain(done.member)} is a {done.role} of {plain(done.network)}, with {others}")
    typer.echo(f"next     p2pfl node start --dir {done.directory.path}")


@node_app.command("start")
def node_start(
    directory: Directory = None,
    data: Data = None,
    task: OwnTask = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen at, from now on.")] = None,
    door: Door = None,
    outbound_only: Annotated[
        bool | None, typer.Option("--outbound-only/--reachable", help="From now on: whether nobody can reach this machine.")
    ] = None,
    passphrase_fd: PassphraseFd = None,
    passphrase_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Read the passphrase from this file.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Answer Prometheus at this port of 127.0.0.1 (extra: metrics).")
    ] = None,
    json_: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line: where it can be met, and how it ended.")
    ] = False,
) -> None:
    """Start a node, or start it again: it goes on from its newest checkpoint. Ctrl-C ends it and keeps one.

    For example: p2pfl node start
    """
    from node import node_settings, place
    from node.admission.enrolment import identity_in
    from node.commands.options import settings_from

    here = place.found(directory)
    settings = node_settings.load(here)
    given = settings_from(listen or settings.listen, list(settings.addresses), task, data, door)
    if outbound_only is not None:
        settings = settings.model_copy(update={"outbound_only": outbound_only})
    changed = node_settings.settings_of("p2pfl node start", **{**settings.model_dump(), **_non_empty(given)})
    identity = identity_in(here, passphrase_fd, passphrase_file)
    _start(here, identity, changed, metrics_port or 0, json_)


def _start(
    here: "NodeDirectory", identity: "Identity", settings: "NodeSettings", metrics_port: int, says_json: bool
) -> NoReturn:
    from node import node_settings
    from node.commands.starting import become, prepared

    told = prepared(here, identity, settings)
    node_settings.save(here, settings)
    become(replace(told, metrics_port=metrics_port, says_json=says_json))


def _non_empty(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value}


@node_app.command("rotate")
def node_rotate(directory: Directory = None, passphrase_fd: PassphraseFd = None, json_: Json = False) -> None:
    """Make new keys for links and for updates, say once a month; the old ones are gone. The node must not run.

    For example: p2pfl node rotate --dir ward-a
    """
    import os

    from node import place
    from node.admission.rotating import rotated
    from node.commands.options import known_passphrase
    from p2pfl.protocol.identity import Identity, is_sealed

    here = place.found(directory)
    lock = here.lock()
    try:
        kept, source = here.read_identity(), str(here.identity)
        passphrase = known_passphrase(passphrase_fd)() if is_sealed(kept, source) else None
        done = rotated(here, Identity.from_bytes(kept, passphrase, source), passphrase)
    finally:
        os.close(lock)
    typer.echo(answer(done.as_data()) if json_ else f"new keys  {done.record.transport_key.hex()[:16]} for links")
    if not done.is_announced:
        typer.echo(f"No member could be told; the node does so when it starts: p2pfl node start --dir {here.path}", err=True)


@node_app.command("status")
def node_status(
    directory: Directory = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it every second, until Ctrl-C.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object; with --watch, one a line.")] = False,
) -> None:
    """What a running node is doing: its neighbors, what it sent, applied and refused, and what went wrong.

    For example: p2pfl node status --dir ward-a --watch
    """
    from node import place
    from node.commands.status import lines, screen, status_of
    from node.commands.status import watch as show_each

    here = place.found(directory)
    if not watch:
        status = status_of(here)
        typer.echo(answer(status) if json_ else "\n".join(lines(status)))
    elif json_:
        show_each(here, lambda status: typer.echo(answer(status)))
    else:
        with screen() as show:
            show_each(here, show)


@node_app.command("leave")
def node_leave(
    directory: Directory = None,
    json_: Json = False,
) -> None:
    """End a running node in peace: it keeps a checkpoint, says good-bye and leaves its model. Waits until it has ended.

    For example: p2pfl node leave --dir ward-a
    """
    from node import place
    from node.commands.status import leave

    left = leave(place.found(directory))
    rounds = "" if left["role"] == "relay" else f" after round {left['step']}"
    typer.echo(answer(left) if json_ else f"{plain(left['name'])} has left{rounds}")


@model_app.command("evaluate")
def model_evaluate(
    file: Annotated[Path, typer.Argument(help="model.safetensors")],
    task: Annotated[str, typer.Option(help="The task it was made with: a bundled one, or FILE.py:NAME.")],
    model: Annotated[str | None, typer.Option(help="The model of a bundled task, where it is not the first.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of data, for a task that has no common test set.")] = None,
    json_: Json = False,
) -> None:
    """Measure a model on the task's common test set.

    For example: p2pfl model evaluate model.safetensors --task digits
    """
    from node.commands.evaluation import evaluated

    metrics = evaluated(file, task, model, data)
    if json_:
        typer.echo(answer(metrics))
    else:
        typer.echo("  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
