"""The time, where something is to be signed or believed by it."""

import time

from p2pfl.failure import ExitCode, Failure

RELEASED = 1_735_689_600.0  # 2025-01-01: no clock that is right shows an earlier moment


def believed_time() -> float:
    """The time, if a clock that is right can show it. What a wrong one signs is wrong for ever. Raises `Failure`."""
    now = time.time()
    if now < RELEASED:
        shown = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        message = f"This machine's clock shows {shown}, which is before this program was made."
        raise Failure("bad_clock", message, "Set it first: timedatectl set-ntp true, or by hand: date -s '...'", ExitCode.UNFIT)
    return now
