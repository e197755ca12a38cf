"""Prometheus is answered on loopback, at one path, to whoever asks by loopback's name; its numbers are those of the status."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from node.upkeep import metrics
from node.upkeep.metrics import STATES, MetricsPage
from p2pfl.failure import Failure
from tests.loopback import on_loop
from tests.test_node_status import SEEN, example

parser = pytest.importorskip("prometheus_client.parser")


@asynccontextmanager
async def opened() -> AsyncIterator[int]:
    page = MetricsPage(lambda: example(step=12))
    port = await page.start(0)
    try:
        yield port
    finally:
        page.close()


async def said(port: int, words: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(words)
    answer = await reader.read()
    writer.close()
    return answer


def get(path: str = "/metrics", host: str = "127.0.0.1:9100", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n".encode()


@pytest.mark.net
@on_loop
async def test_what_is_answered_is_what_prometheus_reads() -> None:
    async with opened() as port:
        head, _, body = (await said(port, get())).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in parser.text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert found["p2pfl_round",] == 12 and found["p2pfl_accuracy",] == 0.9
    assert ("p2pfl_loss",) not in found, "it is not measured, and NaN would be shown as a number"
    assert found["p2pfl_rejected_total", "rate_limited"] == 123456
    assert found["p2pfl_neighbor_bytes_total", "out", "ward-b"] == 1_234_567
    assert [found["p2pfl_neighbor_updates_total", *sorted((fate, "ward-b"))] for fate in ("sent", "applied", "superseded")] == [
        *(12, 11, 1)
    ]
    assert found["p2pfl_state", "waiting"] == 1 and sum(found["p2pfl_state", state] for state in STATES) == 1


REFUSED = {
    "another host's name": (get(host="evil.example:9100"), b"403"),
    "a host that begins alike": (get(host="127.0.0.1.evil.example:9100"), b"403"),
    "no host": (b"GET /metrics HTTP/1.1\r\n\r\n", b"403"),
    "two hosts": (b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:1\r\nHost: evil:1\r\n\r\n", b"403"),
    "another path": (get("/"), b"404"),
    "a path behind": (get("/metrics/../../etc/passwd"), b"404"),
    "another method": (get(method="POST"), b"405"),
    "no HTTP": (b"hello\r\nHost: 127.0.0.1:1\r\n\r\n", b"400"),
}


@pytest.mark.fault("junk")
@pytest.mark.net
@pytest.mark.parametrize(("words", "code"), REFUSED.values(), ids=REFUSED)
def test_all_else_is_refused(words: bytes, code: bytes) -> None:
    @on_loop
    async def run() -> None:
        async with opened() as port:
            answer = await said(port, words)
            assert answer.split(b" ", 2)[1] == code and b"ward" not in answer
            assert b"200 OK" in await said(port, get(host="localhost:9100"))

    run()


@pytest.mark.net
@on_loop
async def test_a_request_without_end_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "PATIENCE_S", 0.2)
    async with opened() as port:
        assert await said(port, b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:1\r\n") == b"", "too slow"
        assert await said(port, b"x" * (metrics.REQUEST_MAX + 1)) == b"", "too long"


@pytest.mark.net
@on_loop
async def test_a_port_that_is_taken_is_one_line() -> None:
    async with opened() as port:
        with pytest.raises(Failure, match="Choose another --metrics-port"):
            await MetricsPage(example).start(port)


def test_it_listens_at_loopback_and_can_be_told_no_other_host() -> None:
    assert metrics.HOST == "127.0.0.1"
    assert list(MetricsPage.start.__annotations__) == ["port", "return"]


RELAYED = {"messages": 7, "bytes": 900_000, "dropped": 1, "held": 131_072}


def test_a_relay_tells_what_it_carries_and_nothing_of_learning() -> None:
    told = {family.name: family for family in metrics.families(example(relayed=RELAYED, state="relaying", neighbors=[]))}
    values = {name: family.samples[0].value for name, family in told.items() if name.startswith("p2pfl_relay_")}
    assert values == {f"p2pfl_relay_{name}" + ("_bytes" if name == "held" else ""): count for name, count in RELAYED.items()}
    assert not any(name.startswith(("p2pfl_round", "p2pfl_trainer", "p2pfl_checkpoint", "p2pfl_accuracy")) for name in told)


DOC = Path(__file__).parent.parent / "docs" / "operations.md"


def documented() -> str:
    """The table of all metrics, from the code."""
    rows = ["| metric | labels | what |", "|---|---|---|"]
    relay, learner = example(relayed=RELAYED, neighbors=[]), example(membership=SEEN, loss=0.5)
    known = {family.name: family for seen in (relay, learner) for family in metrics.families(seen)}
    for family in known.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels)
        rows.append(f"| `{name}` | {', '.join(f'`{label}`' for label in labels)} | {family.documentation} |")
    return "\n".join(rows)


def generated(text: str) -> str:
    begin, end = "<!-- generated: metrics -->", "<!-- end -->"
    before, rest = text.split(begin)
    return before + begin + "\n\n" + documented() + "\n\n" + rest[rest.index(end) :]


def test_every_metric_is_in_the_documentation_as_the_code_has_it() -> None:
    text = DOC.read_text(encoding="utf-8")
    assert text == generated(text), f"run `python -m {__name__}`"


if __name__ == "__main__":
    DOC.write_text(generated(DOC.read_text(encoding="utf-8")), encoding="utf-8")
