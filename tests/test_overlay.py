"""The page of several runs: text stays text, and a real browser draws every line and band."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from p2pfl.report.overlay import Line, Overlay, Panel, Row, Table, render_overlay
from tests.records import HOSTILE

ROUNDS = np.arange(11.0)
PROBE = """
const size = (selector) => [...document.querySelectorAll(selector)].map((element) => {
  const box = element.getBoundingClientRect(); return box.width * box.height; });
const report = document.createElement("pre");
report.id = "probe";
report.textContent = JSON.stringify({
  lines: size(".plot .line"), bands: size(".plot .band"), wide: document.documentElement.scrollWidth <= innerWidth,
  colours: [...document.querySelectorAll(".plot .line")].map((element) => getComputedStyle(element).stroke),
});
document.body.append(report);
"""


def a_line(name: str, slope: float) -> Line:
    middle = 0.1 + slope * ROUNDS
    return Line(name, ROUNDS, middle, middle - 0.05, middle + 0.05)


def a_page(names: tuple[str, ...] = ("ring", "star"), text: str = "plain") -> str:
    panels = tuple(Panel(text + str(i), tuple(a_line(name, 0.02 * (k + 1)) for k, name in enumerate(names))) for i in range(3))
    table = Table(("name", "number"), tuple(((name, "1"), ((text, "cells/x/report.html"),)) for name in names))
    rows = (Row("Accuracy", "Means.", "percent", panels), Row("Distance", "Means.", "log", panels))
    return render_overlay(Overlay("sweep", text, (text,), names, rows, (("At the end", text, table),)))


def test_hostile_text_is_text_wherever_the_page_shows_it() -> None:
    page = a_page(tuple(f"{name}{i}" for i, name in enumerate(HOSTILE)), HOSTILE[0])
    assert not re.search(r"<(img|script|iframe|object|embed|base|form)\b", page)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200e\u200f\u2028\u202a-\u202e\u2066-\u2069]", page)
    page.encode("utf-8")


def test_nothing_is_fetched_and_the_policy_would_not_let_it() -> None:
    page = html.unescape(a_page())
    assert "default-src 'none'; style-src 'sha256-" in page and "unsafe" not in page
    assert not re.search(r"https?://|@import|url\(", page)


def test_more_lines_than_colours_are_told_apart_by_dashes() -> None:
    page = a_page(tuple(f"line {i}" for i in range(10)))
    assert page.count('class="line c1"') == page.count('class="line c1 dashed"') == 6  # three panels, two quantities


def test_a_row_without_a_number_is_left_out() -> None:
    nothing = Line("ring", ROUNDS, np.full(11, np.nan), np.full(11, np.nan), np.full(11, np.nan))
    rows = (Row("Accuracy", "", "percent", (Panel("", (nothing,)),)),)
    assert "<figure>" not in render_overlay(Overlay("sweep", "empty", (), ("ring",), rows, ()))


@pytest.mark.parametrize("width", [1280, 500])
def test_a_browser_draws_every_line_and_band(width: int, tmp_path: Path) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium on this machine")
    allowed = "sha256-" + base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    page = a_page().replace("style-src ", f"script-src '{allowed}'; style-src ", 1)
    (tmp_path / "page.html").write_text(page.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},1000"]
    ran = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    probed = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert probed is not None
    seen = json.loads(probed.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(seen["lines"]) == len(seen["bands"]) == 12
    assert min(seen["lines"] + seen["bands"]) > 500
    assert len(set(seen["colours"])) == 2
    assert seen["wide"]
