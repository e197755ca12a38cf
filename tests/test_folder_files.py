"""The files of a node's folder that say who is in the network: whatever lies in their place, the node says so and ends."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from node import node_settings
from node.admission import papers
from node.admission.founding import found
from node.admission.issuing import certificate_in
from node.admission.office import Office
from node.admission.terms import Terms
from node.directory import NodeDirectory
from node.node_settings import settings_of
from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.certificate import Role
from p2pfl.settings import TaskSection

READERS: dict[str, Callable[[NodeDirectory], object]] = {
    "charter": papers.read,
    "roster": papers.read,
    "credential": papers.credential,
    "issuer": certificate_in,
    "node.json": node_settings.load,
    "boot": lambda directory: directory.next_boot_epoch(0.0),
}


def founded(folder: Path) -> NodeDirectory:
    place = NodeDirectory(folder)
    terms = Terms(task=TaskSection(name="digits", model="softmax"))
    found("wards", "ann", place, terms, settings_of("test", listen="127.0.0.1:7780"), None)
    return place


@pytest.fixture
def directory(tmp_path: Path) -> NodeDirectory:
    return founded(tmp_path / "ann")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def terabyte(path: Path) -> None:
    """Of which the disk holds nothing."""
    with path.open("wb") as file:
        file.truncate(1 << 40)


def brackets(path: Path) -> None:
    path.write_bytes(b"[" * 60_000)


@pytest.mark.parametrize("put", [pipe, folder, terabyte, brackets])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_such_file_is_refused_at_once_and_not_waited_for(
    directory: NodeDirectory, name: str, put: Callable[[Path], None]
) -> None:
    place = directory.path / name
    place.unlink(missing_ok=True)
    put(place)
    with pytest.raises(Failure) as refused:
        READERS[name](directory)
    assert str(place) in refused.value.message
    assert refused.value.hint


def test_a_credential_out_of_another_folder_is_named_and_invites_nobody(directory: NodeDirectory, tmp_path: Path) -> None:
    directory.credential.write_bytes(founded(tmp_path / "another").credential.read_bytes())
    office = Office.open(directory, None, lambda: "")
    with pytest.raises(Failure) as refused:
        office.invite(3600.0, 1, Role.MEMBER)
    assert (refused.value.code, refused.value.exit_code) == ("other_identity", ExitCode.IDENTITY)
    assert str(directory.credential) in refused.value.message
