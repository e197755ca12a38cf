"""`p2pfl topology` as a user types it."""

import json
import resource
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import networkx as nx
import pytest
from typer.testing import CliRunner

from p2pfl.__main__ import main
from p2pfl.failure import ExitCode
from topology import FAMILIES, SCHEDULES, TopologyError, decode_graph, torus
from topology.cli import EXACT_PEERS_MAX, app
from topology.specification import usage


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def data(*arguments: str) -> Any:
    answer = json.loads(run(*arguments, "--json"))
    assert (answer["schema_version"], answer["status"]) == (1, "ok")
    return answer["data"]


def refusal(*arguments: str) -> str:
    with pytest.raises(TopologyError) as refused:
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    return str(refused.value)


# list


def test_list_names_every_kind_and_how_it_is_written() -> None:
    lines = run("list").splitlines()
    between = len(FAMILIES)
    assert [line.split()[0] for line in lines[:between]] == [usage(kind) for kind in FAMILIES]
    assert lines[between : between + 2] == ["", "Schedules: other links every round"]
    assert [line.split()[0] for line in lines[between + 2 :]] == [usage(kind) for kind in SCHEDULES]
    assert [entry["kind"] for entry in data("list")] == [*FAMILIES, *SCHEDULES]


# show


def test_show_says_what_a_graph_implies() -> None:
    facts = data("show", "torus:2x4", "--peers", "8", "--update-bytes", "1000", "--epsilon", "0.01")
    for name, expected in {"contraction": 1 / 2, "spectral_gap": 1 / 2, "algebraic_connectivity": 2}.items():
        assert facts.pop(name) == pytest.approx(expected)
    assert facts.pop("noise_floor") == pytest.approx(4 / 3)  # the cube: 1/2 three times, 0 three times, -1/2
    assert facts == {
        "topology": "torus:2x4",
        "seed": 0,
        "peers": 8,
        "edges": 12,
        "directed": False,
        "degree_min": 3,
        "degree_max": 3,
        "diameter": 3,
        "r_robustness": 1,
        "weights": "metropolis",
        "rounds_to_consensus": 7,  # 1/2**7 < 0.01 < 1/2**6
        "bytes_per_round": 3000,
    }


def test_show_reads_well_without_json() -> None:
    assert run("show", "exponential", "--peers", "16").splitlines() == [
        "peers                   16",
        "edges                   64",
        "directed                True",
        "degree min              4",
        "degree max              4",
        "diameter                4",
        "algebraic connectivity  undefined",
        "r robustness            1",
        "weights                 uniform",
        "contraction             0.6",
        "spectral gap            0.4",
        "noise floor             2.901682",
        "rounds to consensus     14",
        "bytes per round         76960",
    ]


def test_show_takes_other_weights_and_says_what_the_peers_of_a_star_with_uniform_ones_lack() -> None:
    assert data("show", "star", "--peers", "9", "--weights", "best_constant")["contraction"] == pytest.approx(8 / 10)
    uniform = data("show", "star", "--peers", "9", "--weights", "uniform")
    assert uniform["noise_floor"] == "undefined"  # the mean of the peers moves
    assert uniform["rounds_to_consensus"] == 10  # yet all agree: half of the disagreement is left each round
    assert "Did you mean 'fastest'?" in refusal("show", "ring", "--weights", "fast")


def test_show_of_a_schedule_says_its_period_and_what_is_sent() -> None:
    assert data("show", "base_k:1", "--peers", "6", "--update-bytes", "10") == {
        "topology": "base_k:1",
        "seed": 0,
        "peers": 6,
        "period": 4,
        "updates_sent_mean": pytest.approx(3 / 4),
        "updates_sent_max": 1,
        "rounds_to_consensus": 4,
        "bytes_per_round": 10,
    }
    assert data("show", "equitopo", "--peers", "16")["period"] == "never the same"


def test_show_gives_bounds_of_robustness_where_there_are_too_many_peers_for_the_exact_one() -> None:
    assert data("show", "ring", "--peers", "30")["r_robustness"] == 1
    least, most = data("show", "random_regular:8", "--peers", "40")["r_robustness"]
    assert 1 <= least < most <= 8


def test_show_leaves_out_what_would_take_minutes_and_says_so() -> None:
    peers = str(EXACT_PEERS_MAX + 1)
    assert f"contraction             not computed above {EXACT_PEERS_MAX} peers" in run("show", "ring", "--peers", peers)
    assert data("show", "ring", "--peers", peers)["contraction"] is None
    assert data("show", "base_k:2", "--peers", peers)["rounds_to_consensus"] is None


# compare


def test_compare_answers_which_graph_for_so_many_peers_and_bytes() -> None:
    answer = data("compare", "--peers", "16", "--bytes", "2500", "--update-bytes", "1000")
    found = {one["kind"]: one for one in answer["candidates"]}
    assert all(one["bytes_per_round_max"] <= 2000 for one in found.values())
    assert {"ring", "one_peer_exponential", "base_k:2", "epidemic:2"} <= set(found)
    assert not {"torus", "complete", "star", "base_k:3"} & set(found)
    assert found["one_peer_exponential"]["rounds"] == found["one_peer_hypercube"]["rounds"] == 4
    assert found["ring"]["bytes_to_consensus"] == found["ring"]["rounds"] * 2000
    assert answer["best"] == answer["candidates"][0]["kind"]
    assert found[answer["best"]]["rounds"] == min(one["rounds"] for one in found.values() if one["rounds"])
    assert found[answer["cheapest"]]["bytes_to_consensus"] == 4 * 1000


def test_with_bytes_for_everyone_the_complete_graph_is_best() -> None:
    assert data("compare", "--peers", "7")["candidates"][0]["rounds"] == 1


def test_compare_reads_well_without_json() -> None:
    lines = run("compare", "--peers", "12", "--bytes", "1000", "--update-bytes", "1000").splitlines()
    assert lines[0] == "12 peers, at most 1.0 kB a round, updates of 1.0 kB, until 0.001 of disagreement is left"
    assert lines[2].split() == ["kind", "rounds", "sent", "a", "round", "by", "the", "busiest", "sent", "in", "all"]
    assert lines[3].split()[:2] == ["base_k:1", "5"]
    assert lines[-1] == "Fewest rounds: base_k:1. Fewest bytes: base_k:1."


def test_compare_refuses_bytes_that_carry_nothing_and_too_many_peers() -> None:
    assert refusal("compare", "--bytes", "999", "--update-bytes", "1000") == (
        "999 bytes a round don't carry one update of 1000. Give at least 1000 bytes."
    )
    assert refusal("compare", "--peers", "5000") == f"5000 peers can't be compared. Give at most {EXACT_PEERS_MAX}."
    assert "epsilon is 2.0" in refusal("compare", "--epsilon", "2")


# draw


def test_draw_makes_a_picture_with_a_dot_a_peer_and_a_line_an_edge(tmp_path: Path) -> None:
    picture = tmp_path / "ring.svg"
    assert run("draw", "ring", "--peers", "9", "--out", str(picture)) == f"Drawn: {picture}\n"
    drawn = list(ElementTree.parse(picture).iter())
    assert sum(part.tag.endswith("circle") for part in drawn) == 9
    assert sum(part.tag.endswith("line") for part in drawn) == 9
    assert not any("marker-end" in part.attrib for part in drawn)
    assert refusal("draw", "ring", "--out", str(picture)).startswith(f"{picture} can't be written: File exists.")


def test_draw_of_a_schedule_has_a_panel_a_round_and_arrows_where_there_is_only_one_way() -> None:
    drawn = list(ElementTree.fromstring(run("draw", "one_peer_exponential", "--peers", "8")).iter())
    assert sum(part.tag.endswith("}g") for part in drawn) == 3
    lines = [part for part in drawn if part.tag.endswith("line")]
    assert len(lines) == 8 + 8 + 4  # four places on is four places back
    assert sum("marker-end" in line.attrib for line in lines) == 16
    assert data("draw", "equitopo", "--rounds", "2")["svg"].count("<g ") == 2
    assert "at most 500" in refusal("draw", "ring", "--peers", "501")
    assert "rounds is -1" in refusal("draw", "equitopo", "--rounds", "-1")


# convert


@pytest.mark.parametrize("suffix", [".graphml", ".edges", ".npy", ".json"])
def test_convert_writes_a_graph_that_show_and_convert_read_again(tmp_path: Path, suffix: str) -> None:
    first, second = tmp_path / f"torus{suffix}", tmp_path / "again.json"
    assert run("convert", "torus:3x4", str(first), "--peers", "12") == f"Written: {first}, 12 peers, 24 edges\n"
    assert data("show", str(first))["edges"] == 24
    assert data("convert", str(first), str(second)) == {"file": str(second), "peers": 12, "edges": 24, "directed": False}
    assert nx.utils.graphs_equal(decode_graph(second.read_bytes(), ".json"), torus(3, 4))


def test_convert_refuses_what_it_can_neither_read_nor_write(tmp_path: Path) -> None:
    assert "No such file or directory" in refusal("convert", str(tmp_path / "none.json"), str(tmp_path / "a.npy"))
    assert refusal("convert", "ring", str(tmp_path / "a.png")).startswith(".png is no format of graphs. There are: .graphml")
    assert "other links every round" in refusal("convert", "base_k:2", str(tmp_path / "a.npy"))
    assert not list(tmp_path.iterdir())


def test_a_graph_in_parts_is_refused_where_gossip_is_asked_about(tmp_path: Path) -> None:
    parts = tmp_path / "parts.edges"
    parts.write_text("0 1\n2 3\n")
    assert "not connected" in refusal("show", str(parts))
    assert run("convert", str(parts), str(tmp_path / "parts.npy")).startswith("Written")


def test_a_directed_graphml_is_refused_where_undirected_weights_are_asked_for(tmp_path: Path) -> None:
    directed = tmp_path / "directed.graphml"
    run("convert", "exponential", str(directed))
    assert 'Use the weights "uniform" on a directed one.' in refusal("show", str(directed), "--weights", "metropolis")
    assert data("show", str(directed))["weights"] == "uniform"


def test_a_mistake_is_one_line_and_exit_code_of_the_main_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["topology", "show", "rnig"]) != 0
    assert capsys.readouterr().err == "p2pfl: Unknown topology 'rnig'. Did you mean 'ring'?\n"


def test_a_file_that_does_not_fit_on_the_disk_is_not_left_half_written(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        code = main(["topology", "convert", "complete", str(tmp_path / "graph.graphml"), "--peers", "50"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == ExitCode.CONFIGURATION and not list(tmp_path.iterdir())
