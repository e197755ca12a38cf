"""Where a node's folder is where nobody says so: ~/.p2pfl/NAME, and without a name the only one there."""

import re
from pathlib import Path

from node.directory import NodeDirectory
from p2pfl.failure import ExitCode, Failure

HOME = Path(".p2pfl")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def named(directory: Path | None, name: str) -> NodeDirectory:
    """The folder of a node in this network, or the one that was asked for. Raises `Failure` for a name that can't be a
    folder's: it may come from a stranger."""
    if directory is not None:
        return NodeDirectory(directory.absolute())
    if not _PLAIN.fullmatch(name):
        raise Failure("no_directory", f"No folder can be called {name!r}.", "Give one with --dir.", ExitCode.USAGE)
    return NodeDirectory(_home() / name)


def found(directory: Path | None) -> NodeDirectory:
    """The folder that was asked for, or the only one at home. Raises `Failure` where there is none, or several."""
    if directory is not None:
        return NodeDirectory(directory.absolute())
    home = _home()
    folders = sorted(path for path in home.iterdir() if (path / "identity").exists()) if home.is_dir() else []
    if len(folders) == 1:
        return NodeDirectory(folders[0])
    if not folders:
        hint = "Make one with p2pfl network create or p2pfl node join, or give its folder with --dir."
        raise Failure("no_directory", f"{home}: there is no node here.", hint)
    names = ", ".join(path.name for path in folders)
    raise Failure("several_nodes", f"{home} has several nodes: {names}.", f"Say which: --dir {folders[0]}", ExitCode.USAGE)


def found_or_none(directory: Path | None) -> NodeDirectory | None:
    """The same; None where nobody asked for one and there is none."""
    try:
        return found(directory)
    except Failure as failure:
        if failure.code != "no_directory":
            raise
        return None


def _home() -> Path:
    try:
        return Path.home() / HOME
    except RuntimeError:
        raise Failure("no_home", "This user has no home folder.", "Give a folder with --dir.", ExitCode.USAGE) from None
