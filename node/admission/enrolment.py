"""`p2pfl node init`: a new node's folder and keys, and its request to be certified; and how its keys are opened."""

import os
import sys
from pathlib import Path

import typer

from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.moment import believed_time
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.authority import Request, ask, request_line
from p2pfl.protocol.admission.statement import signer
from p2pfl.protocol.identity import Identity, is_sealed

PASSPHRASE_MAX = 4096  # bytes read from a descriptor


def enrol(name: str, directory: NodeDirectory, file: Path, passphrase: str | None, is_relay: bool = False) -> Request:
    """Make the folder and the identity, and a request to be certified in a file. Raises `Failure`."""
    identity = Identity.generate(SystemEntropy())
    request = ask(signer(identity.sign_seed), identity.peer_id, name, believed_time(), is_relay)
    sealed = identity.to_bytes(passphrase, SystemEntropy())
    directory.create()
    directory.write_identity(sealed)
    try:
        file.write_text(request_line(request) + "\n", encoding="ascii")
    except OSError as error:
        message = f"{file}: {error.strerror}."
        raise Failure(
            "unwritable", message, "Give another --request FILE; the identity was kept, so also another --dir."
        ) from None
    return request


def identity_in(directory: NodeDirectory, passphrase_fd: int | None, passphrase_file: Path | None = None) -> Identity:
    """The identity of a folder, with its passphrase asked for if it has one."""
    sealed, source = directory.read_identity(), str(directory.identity)
    passphrase = None
    if is_sealed(sealed, source):
        if passphrase_file is not None:
            passphrase = passphrase_in(passphrase_file)
        else:
            passphrase = passphrase_from(passphrase_fd) if passphrase_fd is not None else asked_passphrase(is_new=False)
    return Identity.from_bytes(sealed, passphrase, source)


def passphrase_from(fd: int) -> str:
    """One line from a descriptor that was opened for this process; never from the command line, which everybody can read."""
    try:
        with os.fdopen(fd, "rb") as file:
            return file.readline(PASSPHRASE_MAX).decode().removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"--passphrase-fd {fd}: {reason}."
        raise Failure("no_passphrase", message, "For example: --passphrase-fd 3 3<FILE", ExitCode.IDENTITY) from None


def passphrase_in(path: Path) -> str:
    """The first line of a file that nobody else can read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        message = f"--passphrase-file {path}: {error.strerror}."
        raise Failure("no_passphrase", message, "Give a file with one line, owned by you.", ExitCode.IDENTITY) from None
    if os.fstat(fd).st_mode & 0o077:
        os.close(fd)
        message = f"--passphrase-file {path}: others can read it."
        raise Failure("open_passphrase", message, f"chmod 600 {path}", ExitCode.IDENTITY)
    return passphrase_from(fd)


def asked_passphrase(is_new: bool) -> str:
    """From the terminal; twice where it is a new one."""
    if not sys.stdin.isatty():
        hint = "Give it with --passphrase-fd" + (", or say --no-passphrase." if is_new else ".")
        raise Failure("no_passphrase", "There is no terminal to ask for a passphrase.", hint, ExitCode.IDENTITY)
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True))
