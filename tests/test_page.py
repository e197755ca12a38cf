"""The page: text of others stays text, nothing is fetched, and a real browser draws it without a complaint."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from p2pfl.report.page import render
from p2pfl.report.plain import plain
from p2pfl.report.record import Mark, RunRecord
from p2pfl.report.record_json import from_json
from tests.records import HOSTILE, a_record


class Parsed(HTMLParser):
    """Tags with their attributes, the text outside of scripts, and what each script holds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data + " "


def hostile_everywhere(record: RunRecord) -> RunRecord:
    worst = HOSTILE[0]
    return replace(
        record,
        title=worst,
        abstracts=worst,
        settings={worst: {worst: worst}},
        labels=tuple(HOSTILE[: len(record.labels)]),
        marks=tuple(Mark(3, text) for text in HOSTILE),
        peers=tuple(replace(peer, rejected={worst: 1}) for peer in record.peers),
    )


@pytest.mark.fault("hostile names")
@pytest.mark.parametrize("peers", [8, 40])
def test_hostile_text_is_text_wherever_the_page_shows_it(peers: int) -> None:
    names = tuple(HOSTILE[i % len(HOSTILE)] + str(i) for i in range(peers))
    page = render(hostile_everywhere(a_record(peers=peers, names=names, killed=1)))
    parsed = Parsed(page)
    assert not [tag for tag, _ in parsed.tags if tag in {"img", "iframe", "object", "embed", "base", "form"}]
    assert not [key for _, attributes in parsed.tags for key in attributes if key.startswith("on") or key == "style"]
    assert len(parsed.scripts) == 3
    for name in names:
        assert plain(name) in parsed.text
    page.encode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200e\u200f\u2028\u202a-\u202e\u2066-\u2069]", page)


@pytest.mark.fault("hostile names")
def test_the_json_in_the_page_cannot_end_its_script() -> None:
    *blocks, _code = Parsed(render(hostile_everywhere(a_record(names=HOSTILE)))).scripts
    assert len(blocks) == 2
    assert not any(set(block) & set("<>&") for block in blocks)


def test_the_embedded_record_is_the_record_to_five_decimals() -> None:
    record = a_record(names=HOSTILE, killed=2)
    found = from_json(Parsed(render(record)).scripts[1])
    assert found.peers == record.peers
    np.testing.assert_allclose(found.accuracy, record.accuracy, atol=5e-6)


def test_nothing_is_fetched_and_the_policy_would_not_let_it() -> None:
    page = render(a_record())
    parsed = Parsed(page)
    links = [
        value
        for _, attributes in parsed.tags
        for key, value in attributes.items()
        if key in {"src", "href", "srcset", "action"}
    ]
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", page)
    policy = next(
        attributes["content"] for _, attributes in parsed.tags if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert sha256(parsed.scripts[2]) in policy


def test_the_headline_says_what_gossip_is_worth() -> None:
    text = " ".join(Parsed(render(a_record(peers=1))).text.split())
    assert "Together the peers are 45.0 points more accurate than alone." in text
    assert "Alone 45.0 %" in text
    assert "Together 90.0 %" in text


def test_the_headline_is_honest_when_gossip_did_not_help() -> None:
    record = a_record(peers=2)
    worse = replace(record, alone_accuracy=np.ones_like(record.accuracy))
    assert "less accurate than alone" in Parsed(render(worse)).text


@pytest.mark.parametrize(
    "record",
    [
        replace(a_record(), alone_accuracy=np.empty((0, 8))),
        replace(a_record(), labels=(), label_counts=np.empty((8, 0))),
        replace(
            a_record(),
            accuracy=np.full((11, 8), np.nan),
            loss=np.full((11, 8), np.inf),
            alone_accuracy=np.full((11, 8), np.nan),
        ),
        replace(a_record(), peers=tuple(replace(peer, state="killed", accuracy=float("nan")) for peer in a_record().peers)),
        replace(a_record(), consensus_distance=np.zeros(11), bytes_sent=np.zeros((11, 8)), edges=(), link_bytes=np.empty(0)),
        a_record(peers=1, rounds=0),
        a_record(peers=0, rounds=0, classes=0),
        a_record(peers=1300, rounds=6, killed=4),
        replace(a_record(), directed=True, edges=((0, 1), (1, 0), (2, 2)), link_bytes=np.array([5.0, 0.0, 1.0])),
    ],
    ids=["no alone", "no classes", "nothing measured", "all killed", "zeros", "one peer", "no peer", "many", "directed"],
)
def test_every_record_has_a_page(record: RunRecord) -> None:
    page = render(record)
    assert page.endswith("</html>")
    assert not re.search(r"\bnan\b|\binf\b|None", re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL))


def test_who_was_not_measured_does_not_look_like_who_is_gone() -> None:
    record = a_record(killed=2)
    accuracy = record.accuracy.copy()
    accuracy[:, 5] = np.nan
    peers = tuple(replace(peer, accuracy=np.nan) if i == 5 else peer for i, peer in enumerate(record.peers))
    page = render(replace(record, accuracy=accuracy, peers=peers))
    assert re.findall(r'class="(gone|unknown)"><title>', page) == ["gone", "unknown"]
    assert "not measured</span>" in page and "not measured</span>" not in render(record)


def test_the_timeline_has_a_bar_for_every_absence_and_is_left_out_without_any() -> None:
    record = a_record(peers=8, rounds=10, killed=5)
    page = render(record)
    assert 'd="M5 5h5v1h-5z"' in page  # peer 5, from round 5 to the end
    assert "On average 93.8 % of the peers were up, in the worst round 87.5 %." in page
    assert "Who was away" not in render(replace(record, up=np.ones_like(record.up)))
    assert "Peers up" not in render(replace(record, up=np.empty((0, 0), dtype=np.bool_)))


def test_an_edge_is_as_wide_as_what_it_carried_and_the_busiest_links_are_listed() -> None:
    record = a_record(peers=8, rounds=10)  # links carry 10, 20, 30, 40, 50, 10, 20, 30 kB
    page = render(record)
    assert re.findall(r'class="edges (w\d)"', page) == ["w0", "w1", "w2", "w3", "w4"]
    assert "8, with 205 KiB in all and 24.4 KiB on the middle one" in page
    listed = re.findall(r"<bdi>(peer-\d)</bdi> – <bdi>(peer-\d)</bdi></th>.*?<td>([\d.]+) KiB", page)
    assert listed[:2] == [("peer-4", "peer-5", "48.8"), ("peer-3", "peer-4", "39.1")]
    even = render(replace(record, link_bytes=np.full(8, 7.0)))
    assert re.findall(r'class="edges (w\d)"', even) == ["w2"]
    assert "on the middle one" not in render(replace(record, link_bytes=np.empty(0)))


def test_of_many_links_the_busiest_and_the_idlest_are_listed() -> None:
    page = render(a_record(peers=100, rounds=10))
    assert [len(re.findall("<tr>", table)) for table in re.findall(r"<caption>.*?</table>", page, re.DOTALL)] == [5, 5]


def test_a_timeline_of_many_peers_stays_bounded() -> None:
    up = np.random.default_rng(7).random((200, 1300)) < 0.7
    page = render(replace(a_record(peers=1300, rounds=200), up=up))
    assert "160 of 1300 peers, one a row" in page


def test_a_page_of_many_peers_stays_bounded() -> None:
    many = a_record(peers=20_000, rounds=20)
    page = render(many)
    assert len(page) < 8_000_000
    assert "in result.json" in page


PROBE = """
const area = (element) => { const box = element.getBoundingClientRect(); return box.width * box.height; };
const size = (selector) => [...document.querySelectorAll(selector)].map(area);
document.querySelectorAll(".table thead button")[2].click();
document.querySelectorAll(".table thead button")[2].click();
const order = [...document.querySelectorAll(".table tbody tr")].map((row) => Number(row.dataset.peer));
document.querySelector('tr[data-peer="3"]').click();
const slider = document.querySelector(".moment input");
const shades = () => [...document.querySelectorAll(".net circle")].map((dot) => dot.classList[0]);
const final = shades();
slider.value = 0;
slider.dispatchEvent(new Event("input"));
const first = shades();
slider.value = 7;
slider.dispatchEvent(new Event("input"));
const seventh = [shades(), document.querySelector(".moment output").textContent];
slider.value = slider.max;
slider.dispatchEvent(new Event("input"));
const report = document.createElement("pre");
report.id = "probe";
report.textContent = JSON.stringify({
  dots: size(".net circle"), edges: size(".net .edges"), bands: size(".shapes .band"), medians: size(".shapes .median"),
  alone: size(".shapes .alone"), line: size('[data-chart="accuracy"] .shapes .peer'),
  accuracy: size('[data-chart="accuracy"] .shapes .median, [data-chart="loss"] .shapes .median'),
  heat: size(".heat td, .heat .cells path"), marks: document.querySelectorAll("line.mark").length,
  colours: [...new Set([...document.querySelectorAll(".net circle")].map((e) => getComputedStyle(e).fill))].length,
  background: getComputedStyle(document.body).backgroundColor, order,
  away: size(".lives path"), first: [...new Set(first)], seventh, restored: shades().join() === final.join(),
  chosen: document.querySelector(".graph .shown").textContent,
  wide: document.documentElement.scrollWidth <= innerWidth,
});
document.body.append(report);
"""


def measured_every(rounds: int, record: RunRecord) -> RunRecord:
    """As with `output.evaluate_every`."""
    is_measured = np.arange(len(record.accuracy))[:, None] % rounds == 0
    accuracy, loss, alone = (np.where(is_measured, a, np.nan) for a in (record.accuracy, record.loss, record.alone_accuracy))
    return replace(record, accuracy=accuracy, loss=loss, alone_accuracy=alone)


@pytest.fixture
def chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no chromium on this machine")


@pytest.mark.parametrize("peers", [8, 100, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("every", [1, 5])
def test_a_browser_draws_graph_curves_and_heat_map_and_reports_no_error(
    peers: int, every: int, chromium: str, tmp_path: Path
) -> None:
    names = HOSTILE if peers == 8 else ()
    killed = 5 if peers <= 100 else 0  # the timeline of many peers shows some of them, the first among them
    page = render(measured_every(every, a_record(peers=peers, killed=killed, names=names)))
    (tmp_path / "report.html").write_text(
        page.replace("script-src ", f"script-src '{sha256(PROBE)}' ", 1).replace("</body>", f"<script>{PROBE}</script></body>"),
        encoding="utf-8",
    )
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        "--window-size=1280,1000",
    ]
    ran = subprocess.run(
        [chromium, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", (tmp_path / "report.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    probed = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert probed is not None
    seen = json.loads(probed.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(seen["dots"]) == peers
    assert min(seen["dots"]) > 0
    assert seen["colours"] > 2
    for drawn in ("edges", "bands", "medians", "alone", "heat", "line", "away", "accuracy"):
        assert seen[drawn], drawn
        assert max(seen[drawn]) > 50, drawn
    assert min(seen["accuracy"]) > 50
    assert "unknown" not in seen["seventh"][0]
    assert seen["seventh"][1] == ("7" if every == 1 else "7 (accuracy of 5)")
    assert seen["marks"] == 6  # one kill, in five curves and in the timeline of who was away
    assert seen["first"] == ["s0", "s1"] or seen["first"] == ["s0"]
    assert seen["restored"]
    assert seen["background"] == "rgb(245, 246, 250)"  # the style sheet was let in
    assert seen["order"][:2] == [peers - 1, peers - 2]
    assert plain(names[3] if names else "peer-3") in seen["chosen"]
    assert re.search(r", \d links with [\d.]+ KiB$", seen["chosen"])
    assert seen["wide"]


def sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
