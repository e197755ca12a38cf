"""Names and words of others, wherever a node shows or keeps them: escaped, one line, and no part of a path."""

import json
from pathlib import Path

import pytest

from node.commands import status
from node.place import named
from node.upkeep.journal import Journal
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import PeerId
from tests.test_node_status import example

NAMES = {
    "colours and a cleared screen": "\x1b[2J\x1b[31mevil",
    "text from right to left": "safe\u202egnp.exe\u2066",
    "nothing to see": "\u200b\u2028\ufeff",
    "an end of line": "a\r\nready",
    "NUL": "a\0b",
    "half a pair": "\udcff",
    "markup": "</script><img src=x onerror=alert(1)>",
    "a path": "../../root.key",
    "a formula": "=cmd|' /C calc'!A0",
    "a smile": "🙂" * 30,
    "ten thousand": "x" * 10_000,
}
PATHS = ["../evil", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "a\u202eb", "-rf", "x" * 65, "a\n"]


@pytest.mark.fault("hostile names")
@pytest.mark.parametrize("name", NAMES)
def test_a_status_shows_it_on_printable_lines_of_80_columns(name: str) -> None:
    evil = NAMES[name]
    neighbor = {**example()["neighbors"][0], "name": evil, "address": evil, "trouble": evil}
    recent = [{"time": 0.0, "kind": "rejected", "member": evil, "text": evil}]
    shown = status.lines(example(name=evil, network=evil, neighbors=[neighbor], recent=recent))
    assert all(len(line) <= 80 and line.isprintable() for line in shown)


@pytest.mark.fault("hostile names")
@pytest.mark.parametrize("name", NAMES)
def test_a_log_has_it_in_one_line_of_json_that_any_terminal_can_show(tmp_path: Path, name: str) -> None:
    peer = PeerId(b"l" * 32)
    members = {peer: Member(peer, NAMES[name], "127.0.0.1:1", b"", b"")}
    journal = Journal(tmp_path / "metrics.jsonl", tmp_path / "log.jsonl", members, lambda _said: None)
    journal.rejected(Reason.BAD_SIGNATURE, peer)
    (line,) = (tmp_path / "log.jsonl").read_bytes().splitlines()
    assert json.loads(line)["member"] == NAMES[name]
    assert line.decode("ascii").isprintable()


@pytest.mark.fault("hostile names")
@pytest.mark.parametrize("name", PATHS)
def test_no_name_of_a_network_leads_out_of_our_folder(name: str) -> None:
    with pytest.raises(Failure) as refused:
        named(None, name)
    assert refused.value.exit_code is ExitCode.USAGE
    assert str(refused.value).isprintable()
