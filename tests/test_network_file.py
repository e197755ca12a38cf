"""A network's file: what is wrong in it is one line that names the place."""

from pathlib import Path
from typing import Any

import pytest

from node import network_file
from node.admission.enrolment import enrol
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity


def block(name: str, port: int, **changes: str) -> str:
    identity = Identity.generate(SystemEntropy())
    keys = {"identity": identity.peer_id.hex(), "transport": identity.transport_key.hex(), "seal": identity.seal_key.hex()}
    fields = {"name": name, "address": f"127.0.0.1:{port}", **keys, **changes}
    return "[[member]]\n" + "".join(f'{key} = "{value}"\n' for key, value in fields.items())


MEMBERS = "".join(block(f"ward-{i}", 7000 + i) for i in range(4))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "wards.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(tmp_path: Path, text: str) -> str:
    path = written(tmp_path, text)
    with pytest.raises(Failure) as refused:
        network_file.neighborhoods(network_file.load(path), str(path))
    assert "\n" not in str(refused.value)
    assert str(path) in refused.value.message
    return str(refused.value)


def test_a_file_gives_every_member_its_neighbors_and_weights(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "wards"\nrounds = 3\n' + MEMBERS)
    network = network_file.load(path)
    ids = [member.id for member in network.members]
    hood = network_file.neighborhoods(network, str(path))[0]
    assert set(hood.send_to) == {ids[1], ids[3]}
    assert hood.weights == pytest.approx({ids[0]: 1 / 3, ids[1]: 1 / 3, ids[3]: 1 / 3})
    assert network.rules.rounds == 3


@pytest.mark.fault("hostile names")
def test_what_init_prints_can_be_pasted_whatever_the_name(tmp_path: Path) -> None:
    names = ['</script><img>"\\', "\x7f\x1b[31m", "病房\u202e🏥", "../../x", "a\0b"]
    blocks = [enrol(name, NodeDirectory(tmp_path / str(i)), f"10.0.0.{i + 1}:7", None) for i, name in enumerate(names)]
    network = network_file.load(written(tmp_path, 'name = "w"\n' + "\n".join(blocks)))
    assert [member.name for member in network.members] == names
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"wards.toml", *(f"{i}/identity" for i in range(len(names)))}  # no name is ever part of a path


@pytest.mark.fault("settings")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "w"\nruonds = 3\n' + MEMBERS, "ruonds: unknown key, did you mean 'rounds'?"),
        ('name = "w"\n[training]\nlerning_rate = 0.1\n' + MEMBERS, "did you mean 'learning_rate'?"),
        ('name = "w"\nrounds = "many"\n' + MEMBERS, "rounds"),
        (MEMBERS, "name: field required"),
        ('name = "w"\n', "member: field required"),
        ('name = "w\n', "wards.toml"),
        ('name = "w"\n' + MEMBERS + block("ward-0", 9000), "members 1 and 5 have the same name, ward-0"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 7000), "members 1 and 5 have the same address"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 9000, seal="xyz"), "member.5.seal: not 64 hex digits"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 9000, identity="ab" * 31), "member.5.identity: not 64 hex digits"),
        ('name = "w"\n' + MEMBERS + block("x" * 10_000, 9), "member.5.name: string should have at most 64 characters"),
        ('name = "w"\n' + MEMBERS + block("", 9), "member.5.name: string should have at least 1 character"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 9, seal="xyz"), "wards.toml: member.5.seal: not 64 hex digits. Mend"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 0), "port 0"),
        ('name = "w"\n' + MEMBERS + block("ward-9", 9, address="nowhere"), "not an address"),
        ('name = "w"\n[topology]\nkind = "random_regular:5"\n' + MEMBERS, "topology"),
        ('name = "w"\n[topology]\nkind = "rign"\n' + MEMBERS, "did you mean 'ring'?"),
        ('name = "w"\n[topology]\noverlay = "ring"\n' + MEMBERS, "found a network: p2pfl network create"),
        ('name = "w"\n[training]\nweighting = "samples"\n' + MEMBERS, "mean_samples"),
        ('name = "w"\n' + block("only", 9), "only one member"),
    ],
)
def test_each_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    assert said.lower() in refusal(tmp_path, text).lower()


@pytest.mark.fault("settings")
def test_a_key_that_two_members_share_is_refused(tmp_path: Path) -> None:
    twin = MEMBERS.split("[[member]]")[1].replace("ward-0", "ward-9").replace(":7000", ":9000")
    assert "have the same identity" in refusal(tmp_path, 'name = "w"\n' + MEMBERS + "[[member]]" + twin)


def test_a_node_that_is_not_in_the_file_is_told_what_to_add(tmp_path: Path) -> None:
    network = network_file.load(written(tmp_path, 'name = "w"\n' + MEMBERS))
    with pytest.raises(Failure, match="not among the 4 members") as refused:
        network_file.index_of(network, PeerId(b"x" * 32), "wards.toml")
    assert refused.value.exit_code is ExitCode.IDENTITY


def test_what_is_no_file_or_far_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not a regular file"):
        network_file.load(tmp_path)
    assert "over 1 MiB" in refusal(tmp_path, "#" * (1 << 20) + "\n")


def test_a_missing_file_names_its_nearest_neighbor(tmp_path: Path) -> None:
    written(tmp_path, "")
    with pytest.raises(Failure, match=r"Did you mean .*wards\.toml"):
        network_file.load(tmp_path / "ward.toml")


def test_settings_of_the_file_are_the_sections_of_a_trainer(tmp_path: Path) -> None:
    network = network_file.load(written(tmp_path, 'name = "w"\n[training]\nbatch-size = 4\n' + MEMBERS))
    sections: dict[str, Any] = network_file.sections_of(network)
    assert sections["training"]["batch_size"] == 4
