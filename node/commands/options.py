"""Options that several verbs share, and what they mean."""

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from p2pfl.failure import ExitCode, Failure

Directory = Annotated[
    Path | None, typer.Option("--dir", help="The node's own folder; ~/.p2pfl/NAME, or the only one there, where not given.")
]
PassphraseFd = Annotated[int | None, typer.Option(metavar="N", help="Read the passphrase from this file descriptor.")]
NoPassphrase = Annotated[bool, typer.Option("--no-passphrase", help="Leave the keys unsealed on the disk.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Data = Annotated[Path | None, typer.Option(help="The folder of this node's own data, for a task of your own.")]
OwnTask = Annotated[str | None, typer.Option(help="Your own task: FILE.py:NAME. Its code is run.")]
Listen = Annotated[
    str, typer.Option(help="HOST:PORT to listen at; the port after it is the join door's. 0.0.0.0 is every address.")
]
Door = Annotated[
    int | None, typer.Option(min=1, max=65535, metavar="PORT", help="The join door's port, where it is not the next one.")
]
Addresses = Annotated[
    list[str] | None,
    typer.Option("--address", help="HOST:PORT at which the others reach it, where that is another; up to three."),
]
OutboundOnly = Annotated[
    bool,
    typer.Option(
        "--outbound-only", help="Nobody can reach this machine, as behind NAT: open no port, and work over what it dials."
    ),
]
_DURATION = re.compile(r"(\d{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def new_passphrase(no_passphrase: bool, passphrase_fd: int | None) -> str | None:
    """For keys that are made now; None leaves them unsealed. Raises `Failure`."""
    from node.admission.enrolment import asked_passphrase, passphrase_from

    if no_passphrase and passphrase_fd is not None:
        raise Failure("usage", "--no-passphrase and --passphrase-fd exclude each other.", "Choose one.", ExitCode.USAGE)
    if no_passphrase:
        return None
    return passphrase_from(passphrase_fd) if passphrase_fd is not None else asked_passphrase(is_new=True)


def known_passphrase(passphrase_fd: int | None) -> Callable[[], str]:
    """For keys that are there, asked for when it is needed."""
    from node.admission.enrolment import asked_passphrase, passphrase_from

    return lambda: passphrase_from(passphrase_fd) if passphrase_fd is not None else asked_passphrase(is_new=False)


def seconds(text: str) -> float:
    """Of 90s, 30m, 1h or 7d. Raises `Failure`."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise Failure("usage", f"{text!r} is no length of time.", "Write 30m, 1h or 7d.", ExitCode.USAGE)
    return float(int(found[1]) * _SECONDS[found[2]])


def own_name() -> str:
    """What this machine is called, for a node that nobody named."""
    return socket.gethostname().partition(".")[0] or "node"


def settings_from(
    listen: str, addresses: list[str] | None, task: str | None, data: Path | None, door: int | None = None
) -> dict[str, object]:
    """What `NodeSettings` is made of, with absolute paths. Raises `Failure` for a folder of data that is not there."""
    if data is not None and not data.is_dir():
        raise Failure("no_data", f"--data {data}: there is no such folder.", "Give the folder that holds this node's data.")
    return {
        "listen": listen,
        "door": door or 0,
        "addresses": tuple(addresses or ()),
        "task": absolute_task(task) if task else "",
        "data": str(data.absolute()) if data is not None else "",
    }


def absolute_task(task: str) -> str:
    """FILE.py:NAME with the whole path of the file, since the node may be started from elsewhere."""
    file, colon, name = task.partition(":") if ".py:" in task else (task, "", "")
    if not file.endswith(".py"):
        return task
    return f"{Path(file).absolute()}{colon}{name}"
