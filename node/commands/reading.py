"""Lines that people hand over: from a file, from stdin, or pasted."""

import sys
from pathlib import Path

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.armor import LINE_MAX

STDIN = "-"


def line_in(text: str) -> str:
    """What is in the file of that name, in stdin for "-", or else the text itself. Raises `Failure`."""
    if text == STDIN:
        return sys.stdin.read(2 * LINE_MAX)
    path = Path(text)
    if text.startswith("p2pfl-") or not looks_like_file(text):
        return text
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(2 * LINE_MAX)
    except OSError as error:
        raise Failure(
            "unreadable_line", f"{path}: {error.strerror}.", "Give the file that has it.", ExitCode.IDENTITY
        ) from None


def written(path: Path, line: str) -> None:
    """A line in a file, to be handed over. Raises `Failure`."""
    try:
        path.write_text(line + "\n", encoding="ascii")
    except OSError as error:
        raise Failure("unwritable", f"{path}: {error.strerror}.", "Give another --request FILE, and run it again.") from None


def looks_like_file(text: str) -> bool:
    """Whether a file or stdin is meant rather than a line or a name."""
    if text == STDIN:
        return True
    try:
        return Path(text).is_file() or "/" in text
    except (OSError, ValueError):  # a line is too long for a file's name
        return False
