"""The verbs of who keeps a node running: `p2pfl doctor` and `p2pfl service ...`. Imports what they need when they run."""

from pathlib import Path
from typing import Annotated

import typer

from node.commands.options import Json, PassphraseFd
from p2pfl.answer import answer
from p2pfl.failure import ExitCode

service_app = typer.Typer(help="Run a node as a systemd service.", rich_markup_mode=None, no_args_is_help=True)

Name = Annotated[str, typer.Option(help="Of the service: p2pfl-NAME.")]
Named = Annotated[str | None, typer.Option(help="Of the service: p2pfl-NAME; node where neither this nor --dir is given.")]
Runs = Annotated[Path | None, typer.Option("--dir", help="The folder of the node that the service runs.")]


def doctor(
    directory: Annotated[Path | None, typer.Option("--dir", help="The node's own folder.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT where the node is to listen, if not where it does.")] = None,
    passphrase_fd: PassphraseFd = None,
    json_: Json = False,
) -> None:
    """Whether this machine and this folder can run a node: ok, or the line that mends it. Exit code 4: something is to be done.

    For example: p2pfl doctor --dir ward-a --listen 10.0.0.5:7780
    """
    from node import place
    from node.admission.enrolment import passphrase_from
    from node.commands.doctor import Patient, as_data, examined, lines

    passphrase = passphrase_from(passphrase_fd) if passphrase_fd is not None else None
    here = place.found_or_none(directory)
    findings = examined(Patient(here, listen, passphrase))
    typer.echo(answer(as_data(findings)) if json_ else "\n".join(lines(findings)))
    if any(finding.mend for finding in findings):
        raise typer.Exit(int(ExitCode.UNFIT))


@service_app.command("install")
def service_install(
    directory: Annotated[Path, typer.Option("--dir", help="The node's own folder.")] = Path("/var/lib/p2pfl-node"),
    name: Name = "node",
    user: Annotated[str, typer.Option(help="Run as this user; else as one of its own, with its folder in /var/lib.")] = "",
    passphrase_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Readable by root only; systemd hands it to the node.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder of this node's own data, for a task of your own.")] = None,
    task: Annotated[str | None, typer.Option(help="Your own task: FILE.py:NAME. Its code is run.")] = None,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to listen at, where it is not the member's address.")] = None,
    memory_max: Annotated[str, typer.Option(help="What the node and its trainer may take together, at most.")] = "4G",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the unit and change nothing.")] = False,
    json_: Json = False,
) -> None:
    """Write a hardened unit, enable it and start it.

    For example: sudo p2pfl service install --dir /var/lib/ward-a --dry-run
    """
    from node import node_settings
    from node.commands.options import absolute_task
    from node.commands.service import Service, checked, install, unit_of
    from node.directory import NodeDirectory

    here = NodeDirectory(directory.absolute())
    if here.is_founded:
        settings = node_settings.load(here)
        task, data = task or settings.task, data or (Path(settings.data) if settings.data else None)
    service = checked(
        Service(
            name=name,
            directory=directory.absolute(),
            user=user,
            passphrase=passphrase_file.absolute() if passphrase_file else None,
            data=data.absolute() if data else None,
            task=absolute_task(task) if task else "",
            listen=listen or "",
            memory_max=memory_max,
        )
    )
    if dry_run:
        typer.echo(answer({"unit": service.unit, "text": unit_of(service)}) if json_ else unit_of(service), nl=json_)
        return
    told = install(service)
    typer.echo(answer({"unit": service.unit}) if json_ else "\n".join(told))


@service_app.command("remove")
def service_remove(name: Named = None, directory: Runs = None, json_: Json = False) -> None:
    """Stop the service and take its unit away; the node's folder stays.

    For example: sudo p2pfl service remove --name ward-a
    """
    from node.commands.service import name_of, remove

    which = name_of(name, directory)
    told = remove(which)
    typer.echo(answer({"name": which}) if json_ else "\n".join(told))


@service_app.command("status")
def service_status(name: Named = None, directory: Runs = None, json_: Json = False) -> None:
    """What systemd says of the service.

    For example: p2pfl service status --name ward-a
    """
    from node.commands.service import name_of, status

    found = status(name_of(name, directory))
    typer.echo(answer(found) if json_ else "\n".join(f"{key:<21} {value}" for key, value in found.items()))
