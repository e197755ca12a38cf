"""The order that papers on decentralized learning agree on, on digits of which each peer has about two (docs/orderings.md)."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from p2pfl.__main__ import main
from sim import Result, Scenario, run

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/orderings.md"
GRAPHS = ("ring", "epidemic_oracle:2", "complete")
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def results() -> dict[str, list[Result]]:
    """Of every graph, one a seed. Without gossip all graphs are the same, so only the ring's runs know of it."""
    return {graph: [result_of(graph, seed) for seed in SEEDS] for graph in GRAPHS}


def result_of(graph: str, seed: int) -> Result:
    overrides = [f"topology.kind={graph}", f"seed={seed}", "evaluate_every=40", f"alone={str(graph == 'ring').lower()}"]
    return run(Scenario.from_toml(ROOT / "examples/orderings.toml", overrides))


def test_local_is_below_ring_is_below_a_random_graph_every_round_is_below_complete(results: dict[str, list[Result]]) -> None:
    """By more than 8 points each, under every single seed. Lian et al. 2017; de Vos et al. 2023."""
    alone = [float(result.alone_accuracy[-1].mean()) for result in results["ring"]]
    rungs = [alone, *([float(result.accuracy[-1].mean()) for result in results[graph]] for graph in GRAPHS)]
    assert np.diff(np.array(rungs), axis=0).min() > 0.08


def test_ring_and_random_graph_send_the_same_updates_and_but_for_greetings_the_same_bytes(
    results: dict[str, list[Result]],
) -> None:
    for ring, drawn in zip(results["ring"], results["epidemic_oracle:2"], strict=True):
        sent = [[(peer.updates_sent, peer.updates_applied) for peer in result.record.peers] for result in (ring, drawn)]
        assert sent[0] == sent[1] == [(2 * 40, 2 * 40)] * 32
        greeted = drawn.bytes_sent - ring.bytes_sent
        assert (greeted > 0).all() and (greeted < 0.005 * ring.bytes_sent).all()


@pytest.mark.slow
def test_the_table_of_the_page_is_what_its_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To a point of accuracy: another processor sums in another order."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    command = re.search(r"^```sh\np2pfl (.*?)\n```", PAGE.read_text(), re.MULTILINE)
    assert command is not None
    assert main([*shlex.split(command[1]), "--json"]) == 0
    points = json.loads(capsys.readouterr().out)["data"]["points"]
    printed = re.findall(
        r"^(\w\S*) +(0\.\d+) ±(0\.\d+) +(0\.\d+) +(0\.\d+) +(\d\.\d+) +(\d+\.\d+)$", PAGE.read_text(), re.MULTILINE
    )
    assert [row[0] for row in printed] == [point["values"]["topology.kind"] for point in points]
    for point, (_, accuracy, half, _, alone, distance, megabytes) in zip(points, printed, strict=True):
        assert point["accuracy_mean"]["mean"] == pytest.approx(float(accuracy), abs=0.01)
        assert point["accuracy_mean"]["half"] == pytest.approx(float(half), abs=0.01)
        assert point["alone_mean"]["mean"] == pytest.approx(float(alone), abs=0.01)
        assert point["consensus_distance"]["mean"] == pytest.approx(float(distance), abs=0.02)
        assert point["bytes_per_peer"]["mean"] == pytest.approx(1e6 * float(megabytes), rel=1e-3)
    assert Path("orderings/accuracy.svg").read_text().startswith("<svg")
