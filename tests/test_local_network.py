"""A network made in memory: every peer has its neighbors, weights and keys, and what can't be is one line."""

from pathlib import Path
from typing import Any

import pytest

from node.local.network import local_network
from node.setup import ListedOthers, from_fd, take, to_fd
from p2pfl.failure import Failure
from p2pfl.protocol.identity import Identity

NAMES = [f"ward-{i}" for i in range(4)]


def refusal(**sections: Any) -> str:
    with pytest.raises(Failure) as refused:
        local_network(NAMES, "wards", **sections)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_every_peer_has_its_neighbors_and_weights() -> None:
    network = local_network(NAMES, "wards", rounds=3)
    ids = [member.id for member in network.members]
    near = network.neighborhoods[0]
    assert set(near.send_to) == {ids[1], ids[3]}
    assert near.weights == pytest.approx({ids[0]: 1 / 3, ids[1]: 1 / 3, ids[3]: 1 / 3})
    assert network.terms.rules.rounds == 3
    assert len({member.address for member in network.members}) == 4


def test_a_network_process_is_told_all_of_it_and_its_own_keys(tmp_path: Path) -> None:
    network = local_network(NAMES, "wards", training={"batch-size": 4})
    told = from_fd(to_fd(network.setup(2, tmp_path / "2", pace_s=0.5)))
    assert (told.own, told.index, told.parts, told.pace_s) == (network.members[2], 2, 4, 0.5)
    near = network.neighborhoods[2]
    assert told.others == ListedOthers(network.members, near.send_to, near.weights)
    assert told.learning["training"]["batch_size"] == 4
    assert Identity.from_bytes(take(told.secrets_fd), None).peer_id == told.own.id
    assert (tmp_path / "2").stat().st_mode & 0o077 == 0


@pytest.mark.fault("hostile names")
def test_no_name_is_ever_part_of_a_path(tmp_path: Path) -> None:
    names = ['</script><img>"\\', "\x7f\x1b[31m", "病房\u202e🏥", "../../x", "a\0b"]
    network = local_network(names, "../../w")
    told = [from_fd(to_fd(network.setup(i, tmp_path / str(i)))) for i in range(len(names))]
    for one in told:
        take(one.secrets_fd)
    assert [one.own.name for one in told] == names
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["0", "1", "2", "3", "4"]


@pytest.mark.fault("settings")
@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"ruonds": 3}, "ruonds: unknown key, did you mean 'rounds'?"),
        ({"training": {"lerning_rate": 0.1}}, "did you mean 'learning_rate'?"),
        ({"rounds": "many"}, "rounds"),
        ({"topology": {"kind": "random_regular:5"}}, "topology"),
        ({"topology": {"kind": "rign"}}, "Did you mean 'ring'?"),
        ({"topology": {"overlay": "ring"}}, "members who come and go"),
    ],
)
def test_each_mistake_is_one_line_that_names_it(sections: dict[str, Any], said: str) -> None:
    assert said in refusal(**sections)
