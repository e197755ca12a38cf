"""A scenario from a file, keywords and overrides, and what is refused before anything runs."""

import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from p2pfl import Task
from p2pfl.failure import ExitCode, Failure
from sim import Scenario
from sim.scenario import BYTES_MAX
from sim.world import world_of

FILE = """
peers = 6
rounds = 3

[topology]
kind = "random_regular"
degree = 4

[training]
learning-rate = 0.2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(FILE)
    return path


def test_keywords_go_to_the_section_that_has_them() -> None:
    scenario = Scenario(task="digits", topology="torus:2x4", partition="dirichlet:0.5", learning_rate=0.3, latency=0.02)
    assert scenario.task.name == "digits"
    assert scenario.topology.kind == "torus:2x4"
    assert scenario.data.partition == "dirichlet:0.5"
    assert scenario.training.learning_rate == 0.3
    assert scenario.network.latency == 0.02


def test_a_file_may_be_written_with_hyphens(file: Path) -> None:
    assert Scenario.from_toml(file).training.learning_rate == 0.2


def test_a_file_and_keywords_that_say_the_same_are_equal(file: Path) -> None:
    keywords = Scenario(peers=6, rounds=3, topology={"kind": "random_regular", "degree": 4}, learning_rate=0.2)
    assert Scenario.from_toml(file).model_dump() == keywords.model_dump()


def test_shortcuts_hold_in_files_too(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('topology = "torus:2x4"\npartition = "iid"\nlearning_rate = 0.5\n')
    scenario = Scenario.from_toml(path)
    assert (scenario.topology.kind, scenario.data.partition, scenario.training.learning_rate) == ("torus:2x4", "iid", 0.5)


@pytest.mark.parametrize(
    ("override", "place", "value"),
    [
        ("topology.degree=3", "topology.degree", 3),
        ("training.learning-rate=0.05", "training.learning_rate", 0.05),
        ("learning_rate=0.05", "training.learning_rate", 0.05),
        ("topology.kind=ring", "topology.kind", "ring"),
        ('topology.kind="ring"', "topology.kind", "ring"),
        ("rounds = 9", "rounds", 9),
        ("output.alone=false", "output.alone", False),
    ],
)
def test_an_override_is_typed_as_in_the_file(file: Path, override: str, place: str, value: object) -> None:
    found: Any = Scenario.from_toml(file, [override])
    for name in place.split("."):
        found = getattr(found, name)
    assert found == value


def test_an_override_of_a_whole_section_replaces_it(file: Path) -> None:
    topology = Scenario.from_toml(file, ["topology=ring"]).topology
    assert (topology.kind, topology.degree) == ("ring", None)


def test_later_overrides_win(file: Path) -> None:
    assert Scenario.from_toml(file, ["seed=1", "seed=2"]).seed == 2


def test_all_mistakes_are_named_at_once_each_with_its_place(file: Path) -> None:
    file.write_text(FILE.replace("degree", "degre").replace("0.2", "-1").replace("rounds = 3", "ruonds = 3"))
    with pytest.raises(Failure) as refusal:
        Scenario.from_toml(file)
    message = refusal.value.message
    assert str(file) in message
    assert "ruonds: unknown key" in message and "'rounds'" in message
    assert "topology.degre: unknown key" in message and "'degree'" in message
    assert "training.learning_rate" in message
    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_code == ExitCode.CONFIGURATION


@pytest.mark.fault("settings")
@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"peers": 0}, "peers"),
        ({"peers": "8"}, "peers"),
        ({"peers": True}, "peers"),
        ({"rounds": 0}, "rounds"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"engine": "batched"}, "engine"),
        ({"loss": 1.0}, "network.loss"),
        ({"latency": -0.1}, "network.latency"),
        ({"latency": float("inf")}, "network.latency"),
        ({"learning_rate": float("inf")}, "training.learning_rate"),
        ({"learning_rate": 1e300}, "training.learning_rate"),
        ({"weighting_cap": float("inf")}, "training.weighting_cap"),
        ({"local_steps": 10**20}, "training.local_steps"),
        ({"batch_size": 10**20}, "training.batch_size"),
        ({"age_cap": 2**70}, "gossip.age_cap"),
        ({"gather_s": float("nan")}, "gossip.gather_s"),
        ({"latency": 1e300}, "network.latency"),
        ({"latency": 10**400}, "network.latency"),
        ({"latency": [1, 2]}, "network.latency: a number of seconds belongs here, or lognormal:MEDIAN,SIGMA"),
        ({"topology": "a\0b.json"}, "topology.kind: no file's name has a NUL"),
        ({"fault": 3}, "fault: tables headed [[fault]] belong here"),
        ({"topology": {"offsets": 3}}, "topology.offsets: a list belongs here"),
        ({"fault": [{"at": 1, "kind": "crash", "peers": ["0-999999"] * 50}]}, "fault.1.peers: these are more than 1,000,000"),
        ({"learning_rat": 0.1}, "'learning_rate'"),
        ({"tpology": "ring"}, "'topology'"),
        ({"training": 3}, "training"),
        ({"local_steps": 1, "local_epochs": 1}, "local_steps or local_epochs"),
        ({"topology": {"degree": 3}, "degree": 4}, "topology.degree is given twice"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(Failure) as refusal:
        Scenario(**settings)
    assert names in refusal.value.message
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("override", ["degree", "=3", "a.b.c=1", ".degree=3"])
def test_an_override_that_is_none_is_a_usage_error(file: Path, override: str) -> None:
    with pytest.raises(Failure) as refusal:
        Scenario.from_toml(file, [override])
    assert refusal.value.exit_code == ExitCode.USAGE


def test_a_missing_file_names_the_nearest(file: Path) -> None:
    with pytest.raises(Failure, match=r"Did you mean .*scenario\.toml"):
        Scenario.from_toml(file.with_name("scenaro.toml"))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"peers = \n", b"peers 8"])
def test_a_file_that_is_no_toml_says_where(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(Failure, match=r"byte 0|line 1"):
        Scenario.from_toml(file)


@pytest.mark.parametrize("text", ["[" * 3000 + "]" * 3000, "9" * 5000], ids=["deep", "long"])
def test_a_value_that_no_parser_takes_is_one_line(file: Path, text: str) -> None:
    with pytest.raises(Failure, match="peers"):
        Scenario.from_toml(file, [f"peers={text}"])
    file.write_text(f"peers = {text}")
    with pytest.raises(Failure, match=r"deeply|digits"):
        Scenario.from_toml(file)


@pytest.mark.parametrize("text", ["foo = 1", "[foo]\nbar = 1"])
def test_a_key_that_is_like_no_other_is_not_taken_for_one(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(Failure, match=r"scenario\.toml: foo: unknown key"):
        Scenario.from_toml(file)


@pytest.mark.parametrize(
    "settings",
    [
        {"task": {"name": "synthetic", "features": 10**9, "samples": 10**6}},
        {"task": {"name": "synthetic", "classes": 10**9, "features": 10**6}},
        {"samples_per_peer": 10**9, "peers": 10**6},
    ],
)
def test_rows_that_do_not_fit_are_refused_before_they_are_made(settings: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="rows take about"):
        world_of(Scenario(**settings))


def test_an_empty_matrix_of_latencies_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.npy").touch()
    with pytest.raises(Failure, match=r"empty\.npy: .*matrix of seconds, 8 by 8"):
        world_of(Scenario(latency=str(tmp_path / "empty.npy")))


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + FILE.encode())
    assert Scenario.from_toml(file).peers == 6


def test_a_folder_is_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="directory"):
        Scenario.from_toml(tmp_path)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"topology": "rng"}, "Did you mean 'ring'"),
        ({"topology": "random_regular:9"}, "Lower the degree"),
        ({"topology": "random_regular:3", "peers": 5}, "odd"),
        ({"topology": "exponential"}, "uniform"),
        ({"task": "digit"}, "Did you mean 'digits'"),
        ({"partition": "diriclet:0.5"}, "Did you mean 'dirichlet'"),
        ({"peers": 2000}, "data.samples_per_peer"),
        ({"task": "nowhere.py:task"}, "no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(Failure) as refusal:
        world_of(Scenario(**settings))
    assert names in str(refusal.value)


def test_a_graph_of_ones_own_gives_the_number_of_peers() -> None:
    graph = nx.relabel_nodes(nx.path_graph(3), {0: "c", 1: "b", 2: "a"})
    world = world_of(Scenario(topology=graph))
    assert world.peers == 3
    assert [world.send_to(i) for i in range(3)] == [(1,), (0, 2), (1,)]  # in the order of the names


def test_a_graph_of_another_size_than_peers_is_refused() -> None:
    with pytest.raises(Failure, match="3 nodes, not 4"):
        world_of(Scenario(topology=nx.path_graph(3), peers=4))


def test_a_graph_with_parallel_edges_is_refused() -> None:
    with pytest.raises(Failure, match="parallel"):
        world_of(Scenario(topology=nx.MultiGraph([(0, 1), (0, 1)])))


def test_the_weights_that_a_peer_gives_sum_to_one() -> None:
    world = world_of(Scenario(peers=9, topology="scale_free:2"))
    assert [sum(row.values()) for row in world.weights] == pytest.approx([1.0] * 9, abs=1e-12)


def test_weighting_by_samples_knows_the_mean_of_all_peers() -> None:
    world = world_of(Scenario(weighting="samples", partition="quantity:0.5"))
    assert world.training.mean_samples == round(world.samples.mean())


def test_a_partition_deals_every_row_once() -> None:
    world = world_of(Scenario(partition="dirichlet:0.3"))
    assert world.samples.sum() == world.label_counts.sum() == world_of(Scenario(peers=1)).samples.sum()


def test_a_task_of_ones_own_is_found_beside_the_scenario(file: Path) -> None:
    file.with_name("mine.py").write_text(
        "import numpy as np, torch\nfrom p2pfl import Task\n"
        "def data(peer):\n    return (np.ones((4, 2)), np.ones(4)), (np.ones((4, 2)), np.ones(4))\n"
        "task = Task(model=lambda: torch.nn.Linear(2, 1), data=data, name='mine')\n"
    )
    assert world_of(Scenario.from_toml(file, ["task=mine.py:task"])).task.name == "mine"


def test_a_task_object_can_be_given_in_python() -> None:
    rows = np.ones((4, 2)), np.ones((4, 1))
    task = Task(model=lambda: torch.nn.Linear(2, 1), data=lambda peer: (rows, rows), name="constant")
    world = world_of(Scenario(task=task, peers=2))
    assert world.task is task
    assert world.label_counts.shape == (2, 0)


def test_a_peer_whose_data_cannot_be_read_is_named() -> None:
    def data(peer: Any) -> Any:
        raise FileNotFoundError(f"station-{peer.index}.csv")

    with pytest.raises(Failure, match=r"peer 0.*station-0\.csv"):
        world_of(Scenario(task=Task(model=lambda: None, data=data), peers=2))  # type: ignore[arg-type, return-value]


def test_the_documented_keys_and_defaults_are_those_of_the_code() -> None:
    page = Path(__file__).parent.parent / "docs" / "scenarios.md"
    documented = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \| ", page.read_text(), re.MULTILINE))
    plain = Scenario().model_dump()
    known = {
        f"{name}.{key}" if isinstance(value, dict) else name: default
        for name, value in plain.items()
        for key, default in (value.items() if isinstance(value, dict) else [("", value)])
    }
    known = {name: "none" if default is None else json.dumps(default) for name, default in known.items()}
    assert {name: documented.get(name) for name in known} == known


def test_a_scenario_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    endless = tmp_path / "endless.toml"
    endless.write_bytes(b"#" * (BYTES_MAX + 1))
    with pytest.raises(Failure, match="over 4,194,304 bytes"):
        Scenario.from_toml(endless)
