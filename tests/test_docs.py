"""The README's commands and code run as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "orderings.md")]
"""test_orderings.py runs what docs/orderings.md says, and compares what comes out."""
LONG = "examples/churn.toml"  # a thousand peers take a minute or two
BLOCKS = [
    pytest.param(language, code, id=f"{file.name}-{number}-{language}", marks=[pytest.mark.slow] if LONG in code else [])
    for file in PAGES
    for number, (language, code) in enumerate(BLOCK.findall(file.read_text()))
]


@pytest.mark.parametrize(("language", "code"), BLOCKS)
def test_a_block_runs_as_printed(language: str, code: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
    if "def test_" in code:
        (tmp_path / "test_printed.py").write_text(code)
        command = [sys.executable, "-m", "pytest", "test_printed.py"]
    else:
        command = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    limit_s = 900 if LONG in code else 300  # on a machine that does other things too
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=limit_s)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_make_targets_that_the_readme_names_exist() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"^make ([\w-]+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert named
    assert set(named) <= set(targets)
