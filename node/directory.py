"""A node's own folder: who it is, how often it was started, and what it has learned.

identity        its secret keys, readable by nobody else
charter         what the network agreed on, as its root signed it, and the one before
credential      why this node is a member
roster          everybody else's credentials and records, and revocations
node.json       where it listens, and its own task and data
root.key        the key of the whole network, only where that was made; better kept elsewhere
issuer.key      the key of an issuer, and
issuer          the root's certificate for it; only where somebody may let in and put out
boot            the boot epoch of its newest start
checkpoints/    the newest two states of model and peer
metrics.jsonl   one line a round          log.jsonl   one line an incident; an older file of each with .1 in its name
control.sock    the control socket, while it runs
model.safetensors   its model when it ended, as named tensors
"""

import fcntl
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from node.disk import create_durably, read_whole, write_durably
from p2pfl.failure import ExitCode, Failure

IDENTITY_MAX = 1 << 16  # bytes; ours are a few hundred
BOOT_MAX = 1024  # bytes; an epoch has up to 19
BOOT_EPOCHS = (1 << 63) - 1  # fewer than that go over the wire


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """Its files. Making one of these touches no disk."""

    path: Path

    @property
    def identity(self) -> Path:
        return self.path / "identity"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def charter(self) -> Path:
        return self.path / "charter"

    @property
    def credential(self) -> Path:
        return self.path / "credential"

    @property
    def roster(self) -> Path:
        return self.path / "roster"

    @property
    def settings(self) -> Path:
        return self.path / "node.json"

    @property
    def root_key(self) -> Path:
        return self.path / "root.key"

    @property
    def issuer_key(self) -> Path:
        return self.path / "issuer.key"

    @property
    def issuer(self) -> Path:
        return self.path / "issuer"

    @property
    def is_founded(self) -> bool:
        """Whether it holds a member of a network that `p2pfl network create` made. This file is written last."""
        return self.settings.exists()

    @property
    def control(self) -> Path:
        return self.path / "control.sock"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    def create(self) -> None:
        """The folder, readable by its owner only; fine if it is there already."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from None

    def write_identity(self, sealed: bytes) -> None:
        """Never replaces one: another identity would be another member."""
        self.write_secret(self.identity, sealed, "an identity")

    def write_secret(self, path: Path, sealed: bytes, noun: str) -> None:
        """A file of this folder that only its owner can read, and that must not be there yet. Raises `Failure`."""
        try:
            create_durably(path, sealed)
        except FileExistsError:
            message = f"{path}: there is {noun} already."
            raise _refused("identity_exists", message, "Choose another --dir; it was left as it is.") from None
        except OSError as error:
            raise _unwritable(path, error) from None

    def write(self, path: Path, data: bytes) -> None:
        """A file of this folder, in one step. Raises `Failure`."""
        try:
            write_durably(path, data)
        except OSError as error:
            raise _unwritable(path, error) from None

    def read_identity(self) -> bytes:
        """The file's bytes; refuses keys that others could have read, as ssh does."""
        return read_secret(self.identity, "no identity", "Make one: p2pfl node init --name NAME, or p2pfl node join INVITE")

    def lock(self) -> int:
        """Held until the returned descriptor is closed, by whatever end: one process at a time is this node."""
        fd = -1
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            message = f"{self.path}: this node is running already."
            raise Failure("already_running", message, "Stop the other process first.", ExitCode.NETWORK) from None
        except OSError as error:
            message = f"{self.path}: {error.strerror}."
            raise Failure("no_directory", message, "Make it with: p2pfl node init --name NAME --dir DIR") from None
        return fd

    def next_boot_epoch(self, wall: float) -> int:
        """max(stored + 1, wall seconds), durable before this returns: no sequence number is ever used twice, even after the
        disk was restored from a backup or the clock was set back."""
        path = self.path / "boot"
        try:
            stored = int(read_whole(path, BOOT_MAX))
        except FileNotFoundError:
            stored = 0
        except (OSError, ValueError):
            message = f"{path}: not a boot epoch."
            raise Failure("bad_boot_epoch", message, "Remove it if the clock is right; the time stands in for it.") from None
        epoch = max(stored + 1, int(wall), 1)
        if epoch >= BOOT_EPOCHS:
            message = (
                f"No boot epoch is left for this node: one of its own records, or {path}, states the last one there can be."
            )
            hint = "Somebody else has its key, or the file was changed. Revoke this node, and join as another one."
            raise Failure("bad_boot_epoch", message, hint, ExitCode.IDENTITY)
        try:
            write_durably(path, f"{epoch}\n".encode())
        except OSError as error:
            raise _unwritable(path, error) from None
        return epoch


def read_secret(path: Path, missing: str, mend: str) -> bytes:
    """The bytes of a file of keys. Raises `Failure` with exit code IDENTITY for one that is not there, or that others could
    have read or put there."""
    try:
        # Without O_NONBLOCK a named pipe would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise _refused(missing.replace(" ", "_"), f"{path}: there is {missing} here.", mend) from None
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else (error.strerror or str(error))
        raise _refused("unreadable_identity", f"{path}: {reason}.", "Put the file itself there, owned by you.") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise _refused("unreadable_identity", f"{path}: not a regular file.", "Put the file itself there, owned by you.")
        if status.st_uid != os.geteuid():
            raise _refused(
                "foreign_identity", f"{path}: it belongs to another user.", f"chown it to yourself: chown $USER {path}"
            )
        if stat.S_IMODE(status.st_mode) & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise _refused("open_identity", f"{path}: others can read it (mode {mode:04o}).", f"chmod 600 {path}")
        return os.read(fd, IDENTITY_MAX)
    finally:
        os.close(fd)


def _refused(code: str, message: str, hint: str) -> Failure:
    return Failure(code, message, hint, ExitCode.IDENTITY)


def _unwritable(path: Path, error: OSError) -> Failure:
    return Failure("unwritable", f"{path}: {error.strerror or error}.", "Free space, or choose a folder you can write to.")
