"""What a service tells systemd, in the words of sd_notify(3); without systemd, nothing."""

import os
import socket
from pathlib import Path

import pytest

from node.upkeep.notify import Notifier
from tests.systemd import Systemd


def test_states_are_lines_of_one_datagram(monkeypatch: pytest.MonkeyPatch) -> None:
    with Systemd() as systemd:
        monkeypatch.setenv("NOTIFY_SOCKET", str(systemd.path))
        notifier = Notifier()
        notifier.tell(READY=1, WATCHDOG=1, STATUS="waiting\nREADY=0")
        assert systemd.next() == ["READY=1", "WATCHDOG=1", "STATUS=waiting READY=0"], "no status can smuggle in a line"
        notifier.close()


def test_an_abstract_address_begins_with_a_nul(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0p2pfl-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@p2pfl-test-{os.getpid()}")
        notifier = Notifier()
        notifier.tell(READY=1)
        assert heard.recv(100) == b"READY=1"
        notifier.close()


def test_where_nobody_listens_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    Notifier().tell(READY=1)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    notifier = Notifier()
    notifier.tell(READY=1)
    notifier.close()
