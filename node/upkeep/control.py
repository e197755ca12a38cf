"""A running node's control socket: a unix socket in its folder, at which its own user asks and is answered.

One request is one line of JSON, `{"ask": NAME, ...}`; one answer is one line, `{"ok": ...}` or `{"error": {...}}`. The folder
is readable by its owner only, and so is the socket; whoever is another user all the same is hung up on without a word.
"""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from p2pfl.failure import ExitCode, Failure

REQUEST_MAX = 64 * 1024  # bytes of a line; the longest request is a revocation by file
ANSWER_MAX = 16 << 20  # bytes; a status has some 500 for each neighbor and at most 1024 of them
CALLERS_MAX = 8  # at once; they are people and their scripts
ROOT = 0  # could look into our memory as well
PATIENCE_S = 5.0  # for a request to come and an answer to be taken

Request = Mapping[str, Any]
Answers = Mapping[str, Callable[[Request], Any]]
"""What can be asked, and who answers: at once, with plain values, or with a `Failure`."""

_CREDENTIALS = struct.Struct("3i")


class Control:
    """`answers` may grow while it is open."""

    def __init__(self, path: Path, answers: Answers) -> None:
        self._path = path
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Open it; a socket that an earlier life left is replaced. The folder's lock must be held. Raises OSError."""
        with suppress(FileNotFoundError):
            self._path.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            _at(self._path, listening.bind)
        except OSError:
            listening.close()
            raise
        finally:
            os.umask(mask)
        self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=REQUEST_MAX, backlog=CALLERS_MAX)

    def close(self) -> None:
        """Whoever still listens reads the end."""
        if self._server is not None:
            self._server.close()
            self._server = None
            for writer in tuple(self._open):
                writer.transport.abort()
            with suppress(OSError):
                self._path.unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if _user_of(writer.get_extra_info("socket")) not in (os.geteuid(), ROOT) or len(self._open) > CALLERS_MAX:
                return
            async with asyncio.timeout(PATIENCE_S):
                line = await reader.readuntil(b"\n")
                writer.write(self._answered(line))
                await writer.drain()
            # Who wants to see the node end keeps the line: it reads the end when we are gone.
            await reader.read(1)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            self._open.discard(writer)
            writer.close()

    def _answered(self, line: bytes) -> bytes:
        try:
            answer = {"ok": self._answer(line)}
        except Failure as failure:
            answer = {"error": _plain(failure)}
        return json.dumps(answer, allow_nan=False).encode() + b"\n"

    def _answer(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):  # a UnicodeDecodeError is a ValueError
            request = None
        ask = request.get("ask") if isinstance(request, dict) else None
        answer = self._answers.get(ask) if isinstance(ask, str) else None
        if answer is None:
            known = ", ".join(sorted(self._answers))
            raise Failure("unknown_request", "The node does not know this request.", f"It knows: {known}.", ExitCode.USAGE)
        return answer(request)


class Caller:
    """The other end: one question to the node whose folder this is. Blocks; use it as a context."""

    def __init__(self, path: Path, patience_s: float = 2 * PATIENCE_S) -> None:
        """Raises `Failure` where no node answers."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(patience_s)
        try:
            _at(path, self._socket.connect)
        except OSError as error:
            self._socket.close()
            raise _nobody(path, error) from None

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, name: str, **arguments: Any) -> Any:
        """The answer, as plain values. Raises the `Failure` that the node answered, or that it did not."""
        try:
            self._socket.sendall(json.dumps({"ask": name, **arguments}).encode() + b"\n")
            answer = json.loads(self._line())
        except (OSError, ValueError):
            message = f"{self._path.parent}: the node did not answer."
            raise Failure("no_answer", message, "It may be ending; look at its log.", ExitCode.NETWORK) from None
        if "error" in answer:
            error = answer["error"]
            raise Failure(error["code"], error["message"], error["hint"], ExitCode(error["exit_code"]))
        return answer["ok"]

    def wait_for_end(self, patience_s: float) -> bool:
        """Whether the node ended within this time."""
        self._socket.settimeout(patience_s)
        try:
            return self._socket.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def _line(self) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) > ANSWER_MAX or not (data := self._socket.recv(1 << 16)):
                raise ValueError
            line += data
        return bytes(line)


def _at(path: Path, call: Callable[[str], None]) -> None:
    """Bind or connect there. The address of a unix socket has room for some 100 bytes, and folders are deeper; through the
    descriptor of its folder every path is short."""
    if not Path("/proc/self/fd").is_dir():
        call(str(path))
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _user_of(caller: socket.socket) -> int:
    """Told by the kernel. Where it tells nothing, the modes of folder and socket must do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return os.geteuid()
    _, user, _ = _CREDENTIALS.unpack(caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(user)


def _plain(failure: Failure) -> dict[str, Any]:
    return {
        "code": failure.code,
        "message": failure.message,
        "hint": failure.hint,
        "exit_code": int(failure.exit_code),
    }


def _nobody(path: Path, error: OSError) -> Failure:
    folder = path.parent
    if isinstance(error, PermissionError):
        message = f"{folder}: this node belongs to another user."
        return Failure("foreign_node", message, "Ask as that user: sudo -u USER p2pfl ...", ExitCode.IDENTITY)
    if not folder.is_dir():
        message = f"{folder}: there is no such folder."
        return Failure("no_directory", message, "Give the node's own folder with --dir.")
    message = f"{folder}: no node is running here."
    return Failure("not_running", message, f"Start it: p2pfl node start --dir {folder}", ExitCode.NETWORK)
