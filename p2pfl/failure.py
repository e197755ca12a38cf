"""The one exception for what a user can cause and mend: one line that says what, where, and how to mend it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What the `p2pfl` command ends with. UNFIT: this machine can't do it, says the doctor. MISMATCH: this node's model or data
    are not the network's. VERSION: another member speaks another version of the protocol. 130 and 143 are Ctrl-C and SIGTERM,
    with a checkpoint kept."""

    OK = 0
    BUG = 1
    USAGE = 2
    CONFIGURATION = 3
    UNFIT = 4
    NETWORK = 5
    IDENTITY = 6
    MISMATCH = 9
    VERSION = 10
    INTERRUPTED = 130
    TERMINATED = 143


class Failure(Exception):
    """Ends a command with `exit_code`.

    `code` is a stable word for programs, `message` says what and where, `hint` how to mend it.
    """

    def __init__(self, code: str, message: str, hint: str, exit_code: ExitCode = ExitCode.CONFIGURATION) -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
