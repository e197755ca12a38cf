"""How a machine's sleep shows: the clock since boot went on, the monotonic one stood still."""

import time

import pytest

from node.upkeep.sleep import Sleep


class Machine:
    """Two clocks that a test moves."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.awake, self.asleep = 100.0, 7.0
        patch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
        patch.setattr(time, "monotonic", lambda: self.awake)
        patch.setattr(time, "clock_gettime", lambda _clock: self.awake + self.asleep)


@pytest.mark.fault("sleep")
def test_an_hour_of_sleep_is_told_once_and_time_awake_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    sleep = Sleep()
    machine.awake += 500.0
    assert sleep.since_last() == 0.0  # and what it slept before we began is not ours
    machine.asleep += 3600.0
    assert sleep.since_last() == 3600.0
    assert sleep.since_last() == 0.0


def test_a_system_without_such_a_clock_leaves_it_to_membership(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the gap in its own time, or the wall's against it."""
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    assert Sleep().since_last() == 0.0
