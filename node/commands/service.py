"""`p2pfl service`: a node as a systemd service that is shut in, watched, and started again.

The unit is hardened as far as a node allows: it needs the network, its own folder, and to read its Python. What it must not
do: die with its trainer when memory runs out (OOMPolicy), have the trainer stopped under it before the last checkpoint
(KillMode), or be started again and again when what is wrong is its configuration (RestartPreventExitStatus).
"""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from node.directory import NodeDirectory
from node.disk import write_durably
from p2pfl.failure import ExitCode, Failure

UNITS = Path("/etc/systemd/system")
STATES = Path("/var/lib")  # where systemd keeps the folders of services with a user of their own
HOMES = tuple(map(Path, ("/home", "/root", "/run/user")))
MEMORY = re.compile(r"\d+[KMGT]?|infinity")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
WATCHDOG_S = 60
NEVER_AGAIN = (ExitCode.USAGE, ExitCode.CONFIGURATION, ExitCode.UNFIT, ExitCode.IDENTITY, ExitCode.MISMATCH, ExitCode.VERSION)


@dataclass(frozen=True, slots=True)
class Service:
    """What the unit is made of; all paths absolute. `user` "" gives it a user of its own, made when it starts, and then its
    folder lies in /var/lib."""

    name: str
    directory: Path
    user: str = ""
    passphrase: Path | None = None
    data: Path | None = None
    task: str = ""
    listen: str = ""
    memory_max: str = "4G"

    @property
    def unit(self) -> str:
        return f"p2pfl-{self.name}.service"


def checked(service: Service) -> Service:
    """The same, or the `Failure` that systemd would only tell a log."""
    if not NAME.fullmatch(service.name):
        raise _usage(f"--name {service.name!r}: letters, digits, - and _ only.", "For example: --name ward-a")
    if not MEMORY.fullmatch(service.memory_max):
        raise _usage(f"--memory-max {service.memory_max!r} is no amount of memory.", "For example: --memory-max 2G")
    if any(not text.isprintable() for text in _texts(service)):
        raise _usage("A path or name has a control character in it.", "Rename it.")
    directory = NodeDirectory(service.directory)
    if not directory.identity.exists() or not directory.is_founded:
        hint = f"Make one: p2pfl network create NAME, or p2pfl node join INVITE, with --dir {service.directory}"
        raise Failure("no_identity", f"{service.directory}: no member of a network is here.", hint, ExitCode.IDENTITY)
    if service.user:
        _check_user(service)
    elif service.directory.parent != STATES:
        message = f"{service.directory}: a service with a user of its own keeps its folder in {STATES}."
        raise Failure("misplaced_folder", message, f"Move it to {STATES / service.directory.name}, or give --user NAME.")
    if service.user != "root" and any(path.is_relative_to("/root") for path in _read(service)):
        message = f"{sys.prefix} and what the node reads must not lie in /root, where no other user can look."
        raise Failure("unreachable_python", message, "Install p2pfl in /opt, for example, or give --user root.")
    return service


def unit_of(service: Service) -> str:
    """The text of its unit file."""
    return "\n".join(
        [
            "[Unit]",
            f"Description=p2pfl node {service.name}: federated learning without a server",
            "After=network-online.target",
            "Wants=network-online.target",
            "StartLimitIntervalSec=0",
            "",
            "[Service]",
            *_life(service),
            "",
            *_place(service),
            "",
            *_walls(service),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
            "",
        ]
    )


def install(service: Service) -> list[str]:
    """Write the unit, enable it and start it; returns what to do next, for people. Raises `Failure`."""
    path = UNITS / service.unit
    try:
        write_durably(path, unit_of(service).encode(), 0o644)
    except OSError as error:
        raise _unwritable(path, error) from None
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", service.unit)
    return [f"installed   {path}", f"its log     journalctl -fu {service.unit}", *_look(service.directory)]


def name_of(name: str | None, directory: Path | None) -> str:
    """Which service is meant: by its name, by the folder that it runs in, or "node". Raises `Failure`."""
    if name is not None or directory is None:
        return name or "node"
    place = f"WorkingDirectory={_escaped(str(directory.absolute()))}"
    for path in sorted(UNITS.glob("p2pfl-*.service")):
        if place in path.read_text(encoding="utf-8", errors="replace").splitlines():
            return path.stem.removeprefix("p2pfl-")
    raise Failure("no_service", f"{directory}: no service runs the node there.", "See: ls /etc/systemd/system/p2pfl-*")


def remove(name: str) -> list[str]:
    """Stop it and forget the unit. The node's folder stays."""
    unit = _unit_named(name)
    _systemctl("disable", "--now", unit)
    try:
        (UNITS / unit).unlink()
    except OSError as error:
        raise _unwritable(UNITS / unit, error) from None
    _systemctl("daemon-reload")
    return [f"removed     {UNITS / unit}; the node's folder was left as it is"]


def status(name: str) -> dict[str, Any]:
    """What systemd says of it."""
    wanted = (
        "ActiveState",
        "SubState",
        "StatusText",
        "NRestarts",
        "MemoryCurrent",
        "MainPID",
        "Result",
        "ActiveEnterTimestamp",
    )
    said = _systemctl("show", _unit_named(name), f"--property={','.join(wanted)}")
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    return {name: found.get(name, "") for name in wanted}


def _life(service: Service) -> Iterator[str]:
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={' '.join(map(_quoted, _command(service)))}"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield f"RestartPreventExitStatus={' '.join(str(int(code)) for code in NEVER_AGAIN)}"
    yield f"SuccessExitStatus={int(ExitCode.INTERRUPTED)} {int(ExitCode.TERMINATED)}"
    yield f"WatchdogSec={WATCHDOG_S}"
    yield "TimeoutStopSec=90"
    yield "KillMode=mixed"
    yield "OOMPolicy=continue"
    yield f"MemoryMax={service.memory_max}"
    yield "TasksMax=256"
    yield "LimitNOFILE=4096:524288"
    yield "LimitCORE=0"


def _place(service: Service) -> Iterator[str]:
    if service.user:
        yield f"User={service.user}"
        yield f"ReadWritePaths={_quoted(str(service.directory))}"
    else:
        yield "DynamicUser=yes"
        yield f"StateDirectory={service.directory.name}"
        yield "StateDirectoryMode=0700"
    yield f"WorkingDirectory={_escaped(str(service.directory))}"
    yield "UMask=0077"
    if service.passphrase is not None:
        yield f"LoadCredential=passphrase:{_escaped(str(service.passphrase))}"


def _walls(service: Service) -> Iterator[str]:
    is_at_home = any(path.is_relative_to(home) for path in (*_read(service), service.directory) for home in HOMES)
    yield "NoNewPrivileges=yes"
    yield "ProtectSystem=strict"
    yield f"ProtectHome={'read-only' if is_at_home else 'yes'}"
    for name in ("PrivateTmp", "PrivateDevices", "ProtectClock", "ProtectControlGroups", "ProtectHostname"):
        yield f"{name}=yes"
    for name in ("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces"):
        yield f"{name}=yes"
    for name in ("RestrictRealtime", "RestrictSUIDSGID", "LockPersonality", "RemoveIPC"):
        yield f"{name}=yes"
    yield "ProtectProc=invisible"
    yield "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "CapabilityBoundingSet="


def _command(service: Service) -> Iterator[str]:
    yield from (sys.executable, "-P", "-m", "p2pfl", "node", "start", "--dir", str(service.directory))
    for option, value in (("--data", service.data), ("--task", service.task), ("--listen", service.listen)):
        if value:
            yield from (option, str(value))
    if service.passphrase is not None:
        yield from ("--passphrase-file", "%d/passphrase")


def _read(service: Service) -> tuple[Path, ...]:
    """What the node's own user must be able to read; systemd itself reads the passphrase."""
    task = service.task.rpartition(":")[0] if ".py" in service.task else ""
    given = [service.data, Path(task) if task else None]
    return (Path(sys.prefix), Path(__file__).parent, *(path for path in given if path is not None))


def _texts(service: Service) -> Sequence[str]:
    paths = (service.directory, service.passphrase, service.data, Path(sys.executable))
    return [*map(str, paths), service.task, service.listen, service.user]


def _check_user(service: Service) -> None:
    try:
        user = pwd.getpwnam(service.user).pw_uid
    except KeyError:
        hint = f"Make it: useradd --system --shell /usr/sbin/nologin {service.user}"
        raise _usage(f"--user {service.user}: there is no such user.", hint) from None
    if (service.directory / "identity").stat().st_uid != user:
        message = f"{service.directory}: it does not belong to {service.user}."
        hint = f"chown -R {service.user} {service.directory}"
        raise Failure("foreign_identity", message, hint, ExitCode.IDENTITY)


def _escaped(text: str) -> str:
    """`%` begins a specifier in a unit."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """As one word of a command; the specifier of ours stays what it is."""
    if text == "%d/passphrase":
        return text
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return escaped if re.fullmatch(r"[\w./:=@+,$%-]+", escaped) else f'"{escaped}"'


def _unit_named(name: str) -> str:
    unit = f"p2pfl-{name}.service"
    if not NAME.fullmatch(name) or not (UNITS / unit).exists():
        there = ", ".join(sorted(path.stem.removeprefix("p2pfl-") for path in UNITS.glob("p2pfl-*.service"))) or "none"
        raise Failure("no_service", f"There is no service {name!r}.", f"Installed are: {there}.")
    return unit


def _systemctl(*arguments: str) -> str:
    command = shutil.which("systemctl")
    if command is None:
        hint = "Print the unit with --dry-run, or run the node under another supervisor."
        raise Failure("no_systemd", "This machine has no systemctl.", hint, ExitCode.UNFIT)
    done = subprocess.run([command, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise Failure("systemctl_failed", f"systemctl {' '.join(arguments)}: {said}.", "Mend it and try again.", ExitCode.UNFIT)
    return done.stdout


def _look(directory: Path) -> list[str]:
    return [f"look        sudo p2pfl node status --dir {directory}"]


def _usage(message: str, hint: str) -> Failure:
    return Failure("usage", message, hint, ExitCode.USAGE)


def _unwritable(path: Path, error: OSError) -> Failure:
    hint = "Run it with sudo, or print the unit with --dry-run." if os.geteuid() else "Free space, or look at the folder."
    return Failure("unwritable", f"{path}: {error.strerror}.", hint)
