"""The virtual network alone: hosts that only note what arrives, and closed forms of when it does."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
import pytest

from p2pfl.failure import Failure
from p2pfl.protocol import wire
from p2pfl.protocol.events import Event, LinkDown, LinkUp
from sim import Scenario
from sim.agenda import Agenda
from sim.links import Links, latency_of
from sim.network import NetworkSection

SMALL = (wire.encode(wire.Bye(0)),)


@dataclass
class Listener:
    """A host that notes what it hears and when; `forward_to` makes it pass on the first message."""

    network: "Network"
    index: int
    is_on: bool = True
    epoch: int = 1
    forward_to: tuple[int, ...] = ()
    heard: list[tuple[float, Any]] = field(default_factory=list)
    told: list[tuple[float, Event]] = field(default_factory=list)

    @property
    def id(self) -> bytes:
        return bytes([self.index])

    def receive(self, hop: bytes, frames: tuple[bytes, ...]) -> None:
        self.heard.append((self.network.agenda.now, frames))
        if len(self.heard) == 1:
            for to in self.forward_to:
                self.network.send(self.index, to, frames)

    def tell(self, event: Event) -> None:
        self.told.append((self.network.agenda.now, event))


class Network:
    """So many listeners, and the links that `[network]` describes."""

    def __init__(self, peers: int = 2, seed: int = 7, **settings: Any) -> None:
        section = NetworkSection(**settings)
        latency = latency_of(section, peers, seed, lambda file: file)
        self.agenda = Agenda()
        self.world = SimpleNamespace(network=section, latency=latency, seed=seed)
        self.hosts = [Listener(self, index) for index in range(peers)]
        self.links = Links(self)  # type: ignore[arg-type]

    def send(self, i: int, j: int, frames: tuple[bytes, ...] = SMALL, bulk: bool = True) -> None:
        self.links.send(self.hosts[i], self.hosts[j], frames, bulk)  # type: ignore[arg-type]

    def dial(self, i: int, j: int) -> None:
        self.links.dial(self.hosts[i], self.hosts[j])  # type: ignore[arg-type]

    def run(self) -> "Network":
        while self.agenda.step():
            pass
        return self

    def arrivals(self, j: int) -> list[float]:
        return [time for time, _ in self.hosts[j].heard]


def sized(number: int, size: int) -> tuple[bytes, ...]:
    """A message of so many bytes in all that can be told from others."""
    return (*SMALL, number.to_bytes(2, "big") + bytes(size - len(SMALL[0]) - 2))


@pytest.mark.parametrize(
    "graph",
    [nx.cycle_graph(9), nx.path_graph(6), nx.grid_2d_graph(3, 5), nx.petersen_graph(), nx.random_regular_graph(3, 30, seed=1)],
    ids=["ring", "path", "grid", "petersen", "random regular"],
)
def test_flooding_takes_the_eccentricity_of_its_source_times_the_latency(graph: "nx.Graph[Any]") -> None:
    graph = nx.convert_node_labels_to_integers(graph)
    for source in (0, len(graph) // 2):
        network = Network(len(graph), latency=0.25)
        for host in network.hosts:
            host.forward_to = tuple(graph.neighbors(host.index))
        network.hosts[source].receive(b"", SMALL)
        network.run()
        assert max(host.heard[0][0] for host in network.hosts) == 0.25 * nx.eccentricity(graph, source)


@pytest.mark.parametrize("loss", [0.05, 0.3])
def test_as_many_messages_are_lost_as_the_scenario_says(loss: float) -> None:
    network, count = Network(loss=loss), 20_000
    for _ in range(count):
        network.send(0, 1)
    arrived = len(network.run().arrivals(1))
    assert abs(count - arrived - count * loss) < 4 * (count * loss * (1 - loss)) ** 0.5


def test_as_many_messages_come_twice_as_the_scenario_says() -> None:
    network, count = Network(duplicate=0.1), 20_000
    for _ in range(count):
        network.send(0, 1)
    assert abs(len(network.run().arrivals(1)) - count * 1.1) < 4 * (count * 0.1 * 0.9) ** 0.5


def test_messages_queue_for_the_bandwidth_first_come_first_served() -> None:
    """The k-th of a burst is there after k transmissions and one latency."""
    network = Network(latency=0.5, bandwidth=1000.0)
    for number in range(4):
        network.send(0, 1, sized(number, 250))
    network.run()
    assert network.arrivals(1) == [0.75, 1.0, 1.25, 1.5]
    assert [frames for _, frames in network.hosts[1].heard] == [sized(number, 250) for number in range(4)]


def test_an_idle_link_has_no_queue() -> None:
    network = Network(latency=0.5, bandwidth=1000.0)
    network.send(0, 1, sized(0, 500))
    network.agenda.at(10.0, lambda: network.send(0, 1, sized(1, 500)))
    assert network.run().arrivals(1) == [1.0, 11.0]


def test_either_way_and_every_lane_has_its_own_bandwidth() -> None:
    """A heartbeat is never behind a model."""
    network = Network(bandwidth=100.0)
    network.send(0, 1, sized(0, 1000), bulk=True)
    network.send(0, 1, sized(1, 100), bulk=False)
    network.send(1, 0, sized(2, 100), bulk=True)
    network.run()
    assert network.arrivals(1) == [1.0, 10.0] and network.arrivals(0) == [1.0]


def test_jitter_keeps_the_order_of_a_lane_and_stays_in_its_bounds() -> None:
    network = Network(latency=2.0, jitter=1.0)
    for number in range(200):
        network.agenda.at(number * 0.1, lambda number=number: network.send(0, 1, sized(number, 50)))
    network.run()
    assert [frames for _, frames in network.hosts[1].heard] == [sized(number, 50) for number in range(200)]
    travels = [time - number * 0.1 for number, time in enumerate(network.arrivals(1))]
    assert min(travels) >= 1.0 and max(travels) <= 3.0 and max(travels) - min(travels) > 0.5


def test_only_reordered_messages_are_overtaken() -> None:
    network = Network(latency=0.1, reorder=0.2)
    for number in range(500):
        network.agenda.at(number * 0.01, lambda number=number: network.send(0, 1, sized(number, 50)))
    network.run()
    order = [int.from_bytes(frames[1][:2], "big") for _, frames in network.hosts[1].heard]
    assert sorted(order) == list(range(500)) != order
    assert max(time - number * 0.01 for (time, _), number in zip(network.hosts[1].heard, order, strict=True)) <= 0.2


def test_a_lognormal_latency_is_drawn_once_a_link_with_the_median_it_names() -> None:
    """The median of 4,950 draws is within 4 standard errors: sigma * sqrt(pi / 2 / n) in the logarithm."""
    latency = latency_of(NetworkSection(latency="lognormal:0.08,0.5"), 100, 1, str).of
    links = [(i, j) for j in range(100) for i in range(j)]
    drawn = [latency(i, j) for i, j in links]
    assert [latency(j, i) for i, j in links] == drawn
    assert abs(np.log(median(drawn) / 0.08)) < 4 * 0.5 * np.sqrt(np.pi / 2 / len(links))
    assert np.std(np.log(drawn)) == pytest.approx(0.5, rel=0.05)


def test_coordinates_are_distances_on_a_square() -> None:
    """The mean distance of two random points of a unit square is (2 + sqrt 2 + 5 asinh 1) / 15 = 0.5214."""
    latency = latency_of(NetworkSection(latency="coordinates:0.2,0"), 200, 1, str).of
    matrix = np.array([[latency(i, j) for j in range(200)] for i in range(200)])
    assert (matrix == matrix.T).all() and (np.diag(matrix) == 0).all() and matrix.max() <= 0.2 * 2**0.5
    assert (matrix[:20, :20, None] <= matrix[:20, None, :20] + matrix[None, :20, :20].transpose(0, 2, 1) + 1e-12).all()
    assert matrix[np.triu_indices(200, 1)].mean() == pytest.approx(0.2 * (2 + 2**0.5 + 5 * np.arcsinh(1)) / 15, rel=0.08)


def test_every_message_has_its_own_lognormal_factor_where_peers_have_coordinates() -> None:
    network = Network(latency="coordinates:1,0.3")
    for number in range(2000):
        network.agenda.at(number * 10.0, lambda: network.send(0, 1))
    network.run()
    travels = [time - number * 10.0 for number, time in enumerate(network.arrivals(1))]
    assert median(travels) == pytest.approx(network.world.latency.of(0, 1), rel=4 * 0.3 * (np.pi / 2 / 2000) ** 0.5)


@pytest.mark.parametrize("ending", ["npy", "csv"])
def test_a_matrix_of_latencies_is_read_from_a_file(tmp_path: Path, ending: str) -> None:
    matrix, file = np.array([[0.0, 0.1], [0.3, 0.0]]), tmp_path / f"king.{ending}"
    np.save(file, matrix) if ending == "npy" else np.savetxt(file, matrix, delimiter=",")
    network = Network(latency=str(file))
    network.send(0, 1)
    network.send(1, 0)
    network.run()
    assert (network.arrivals(1), network.arrivals(0)) == ([0.1], [0.3])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("0,1\n1,0\n", "it is 2 by 2"),
        ("0,1,1\n1,0,1\n1,-1,0\n", "negative"),
        ("a,b\n", "matrix of seconds"),
        (None, "no such file"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "king.csv"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Failure, match=says):
        Network(3, latency=str(file))


def test_a_cut_one_way_loses_what_goes_that_way_and_is_known_to_both_ends() -> None:
    network = Network(latency=0.1, detection_s=2.0)
    network.dial(0, 1)
    network.dial(1, 0)
    network.agenda.at(1.0, lambda: network.links.cut(lambda sender, receiver: (sender, receiver) == (0, 1)))
    network.agenda.at(1.0, lambda: network.send(0, 1))
    network.agenda.at(1.0, lambda: network.send(1, 0))
    network.run()
    assert (network.arrivals(1), network.arrivals(0)) == ([], [1.1])
    assert [host.told[1] for host in network.hosts] == [(3.0, LinkDown(b"\1")), (3.0, LinkDown(b"\0"))]


def test_a_link_is_dialled_again_when_its_cut_heals() -> None:
    network = Network(latency=0.1, detection_s=2.0)
    network.dial(0, 1)

    def block(sender: int, receiver: int) -> bool:
        return True

    network.agenda.at(1.0, lambda: network.links.cut(block))
    network.agenda.at(5.0, lambda: network.links.heal(block))
    network.run()
    (up, _), (down, _), (again, event) = network.hosts[0].told
    assert (up, event) == (0.1, LinkUp(b"\1"))
    assert down == 3.0 and 5.1 <= again <= 7.1


def test_a_cut_that_heals_before_anybody_notices_is_not_noticed() -> None:
    network = Network(latency=0.1, detection_s=2.0)
    network.dial(0, 1)

    def block(sender: int, receiver: int) -> bool:
        return True

    network.agenda.at(1.0, lambda: network.links.cut(block))
    network.agenda.at(2.0, lambda: network.links.heal(block))
    network.run()
    assert [event for _, event in network.hosts[0].told] == [LinkUp(b"\1")]


def test_what_is_under_way_to_a_process_that_ends_is_lost_even_if_another_begins() -> None:
    network = Network(latency=1.0)
    network.send(0, 1)
    network.agenda.at(0.5, lambda: setattr(network.hosts[1], "epoch", 2))
    assert network.run().arrivals(1) == []


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"latency": "lognormal:0.1"}, "network.latency"),
        ({"latency": "normal:0.1,2"}, "lognormal:MEDIAN,SIGMA"),
        ({"latency": "lognormal:0.1,-1"}, "network.latency"),
        ({"latency": "lognormal:nan,1"}, "network.latency"),
        ({"jitter": -1}, "network.jitter"),
        ({"bandwidth": 0}, "network.bandwidth"),
        ({"duplicate": 1.5}, "network.duplicate"),
        ({"reorder": -0.1}, "network.reorder"),
        ({"step_s": "coordinates:1,1"}, "compute.step_s"),
        ({"stragglers": 2}, "compute.stragglers"),
        ({"straggler_facto": 2}, "'straggler_factor'"),
    ],
)
def test_a_network_that_cannot_be_is_one_line_with_its_key(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(Failure) as refusal:
        Scenario(**settings)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)
