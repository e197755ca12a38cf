"""The README's network of two machines, typed as it is printed, on two hosts with a cable between them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import namespaces
from tests.namespaces import Host
from tests.nodes import environment

pytestmark = [
    pytest.mark.net,
    pytest.mark.skipif(not namespaces.can_make(), reason="two hosts take root and network namespaces"),
]
README = Path(__file__).parent.parent / "README.md"
PRINTED = re.findall(r"^```bash\n# on machine ([AB])\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
LIMIT_S = 90.0


class Terminal:
    """A shell on one machine, whose home is a folder of its own."""

    def __init__(self, host: Host, home: Path) -> None:
        home.mkdir()
        self.home = home
        scripts = str(Path(sys.executable).parent)
        self._errors = (home / "stderr").open("w")
        path = f"{scripts}{os.pathsep}{os.environ['PATH']}"
        self._shell = subprocess.Popen(
            host.command("bash", "--norc"),
            cwd=home,
            env={**environment(), "HOME": str(home), "PATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def types(self, line: str) -> tuple[int, str]:
        """The exit code and what the line printed. What runs in the background prints to a file."""
        assert self._shell.stdin is not None and self._shell.stdout is not None
        if line.endswith("&"):
            line = f"{line.removesuffix('&')} >>{self.home}/node.log 2>&1 &"
        self._shell.stdin.write(f"{line}\ncode=$?; echo; echo end-of-line $code\n")
        self._shell.stdin.flush()
        shown: list[str] = []
        for text in self._shell.stdout:
            if text.startswith("end-of-line "):
                return int(text.split()[1]), "".join(shown)[:-1]
            shown.append(text)
        raise AssertionError(f"the shell ended: {self.log()}")

    def shows(self, line: str, is_so: Callable[[str], bool]) -> str:
        """Type it until it shows what it should."""
        until = time.monotonic() + LIMIT_S
        while True:
            _, shown = self.types(line)
            if is_so(shown):
                return shown
            assert time.monotonic() < until, f"{line}:\n{shown}\n{self.log()}"
            time.sleep(0.2)

    def log(self) -> str:
        found = [self.home / "stderr", self.home / "node.log"]
        return "\n".join(file.read_text()[-3000:] for file in found if file.exists())

    def close(self) -> None:
        with self._errors, self._shell:
            self._shell.communicate("kill $(jobs -p); wait\n", timeout=60)


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[dict[str, Terminal]]:
    with namespaces.two_hosts() as hosts:
        made = {name: Terminal(host, tmp_path / name) for name, host in zip("AB", hosts, strict=True)}
        try:
            yield made
        finally:
            for terminal in made.values():
                terminal.close()


def test_create_invite_join_status_revoke_and_leave_work_as_printed(terminals: dict[str, Terminal]) -> None:
    a, b = terminals["A"], terminals["B"]
    assert [machine for machine, _ in PRINTED] == ["A", "B", "A"]
    (create, start_a, invite), (join, start_b, status), (members, revoke, leave) = (
        block.strip().splitlines() for _, block in PRINTED
    )

    for line in (create, start_a):
        assert a.types(line)[0] == 0, a.log()
    code, printed = a.types(invite)
    assert (code, printed.count("\n")) == (0, 1)
    a.shows("p2pfl node status", lambda shown: "ward-a in wards" in shown and "starting" not in shown)

    code, joined = b.types(join.replace("p2pfl-invite-1-...", printed.strip()))
    assert (code, "ward-b is a member of wards, with 1 other" in joined) == (0, True), b.log()
    assert b.types(start_b)[0] == 0
    b.shows(status, lambda shown: re.search(r"^ward-a +ready .* [1-9]\d* +0$", shown, re.MULTILINE) is not None)

    alive = a.shows(members, lambda shown: len(re.findall(r" alive ", shown)) == 2)
    assert re.search(r"^ward-b .* 10\.77\.0\.2:7780$", alive, re.MULTILINE)
    assert a.types(revoke)[0] == 0
    a.shows(members, lambda shown: re.search(r"^ward-b .* revoked ", shown, re.MULTILINE) is not None)
    a.shows("p2pfl node status", lambda shown: re.search(r"^ward-b +ready", shown, re.MULTILINE) is None)
    b.shows("jobs", lambda shown: "Running" not in shown)
    assert "revoked" in b.log()
    again = (
        join.replace("p2pfl-invite-1-...", printed.strip()).replace("ward-b", "ward-c") + " --dir again --listen 0.0.0.0:7790"
    )
    assert b.types(again)[0] == 6, b.log()  # the invite was used

    code, left = a.types(leave)
    assert (code, "ward-a has left" in left) == (0, True), a.log()
    assert (a.home / ".p2pfl" / "wards" / "model.safetensors").exists()
