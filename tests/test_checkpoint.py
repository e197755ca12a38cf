"""Checkpoints are whole or not there; a damaged one is named and passed over, never silently begun again from."""

import errno
import hashlib
import os
import pickle
import re
import resource
import signal
from pathlib import Path

import msgpack
import pytest

from node.checkpoint import CONTEXT, Checkpoint, Checkpoints
from node.disk import write_durably
from node.entropy import SystemEntropy
from p2pfl.failure import Failure
from p2pfl.protocol.charter import Member
from p2pfl.protocol.envelope import digest
from p2pfl.protocol.identity import Identity, Keyring

SCHEMA = b"s" * 32


def keyring() -> tuple[Identity, Keyring]:
    identity = Identity.generate(SystemEntropy())
    member = Member(identity.peer_id, "a", "127.0.0.1:1", identity.transport_key, identity.seal_key)
    return identity, Keyring(identity, {member.id: member})


OWN, SIGNER = keyring()


def checkpoints(directory: Path, schema: bytes = SCHEMA) -> Checkpoints:
    return Checkpoints(directory / "checkpoints", OWN.peer_id, SIGNER, schema)


def save(store: Checkpoints, step: int) -> Path:
    arrays = store.next_arrays()
    data = b"arrays of step %d" % step
    write_durably(arrays, data)
    store.complete(arrays, digest(data), step, b"state %d" % step)
    return arrays


def newest(store: Checkpoints) -> tuple[Checkpoint | None, list[str]]:
    said: list[str] = []
    return store.newest(said.append), said


def test_the_newest_is_found_with_what_the_peer_persisted(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    arrays = save(store, 2)
    assert newest(checkpoints(tmp_path)) == (Checkpoint(2, arrays, b"state 2"), [])


def test_none_at_all_is_a_beginning(tmp_path: Path) -> None:
    assert newest(checkpoints(tmp_path)) == (None, [])


def test_two_are_kept(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    for step in range(5):
        save(store, step)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2 * 2


def test_arrays_without_their_manifest_are_no_checkpoint(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    write_durably(store.next_arrays(), b"the process was killed here")
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 1 and said == []


def test_what_killed_processes_left_half_written_goes_with_its_time(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    for left in (store.next_arrays(), store.next_arrays().with_name(".00000003.safetensors.1234")):
        left.write_bytes(b"half")
    (tmp_path / "checkpoints" / "notes.txt").write_text("the operator's own")
    for step in (2, 3):
        save(store, step)
    assert {path.name.partition(".")[0] for path in (tmp_path / "checkpoints").iterdir()} == {"00000004", "00000005", "notes"}


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"vector": [1.0]}))


def a_link(path: Path) -> None:
    copy = path.rename(path.with_name("elsewhere"))
    path.symlink_to(copy)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.fault("bad checkpoint")
@pytest.mark.parametrize("damage", [truncated, emptied, flipped, a_pickle, a_link, a_folder, a_pipe])
@pytest.mark.parametrize("suffix", [".manifest", ".safetensors"])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, damage, suffix: str) -> None:  # type: ignore[no-untyped-def]
    store = checkpoints(tmp_path)
    save(store, 1)
    damage(save(store, 2).with_suffix(suffix))
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 1
    assert len(said) == 1 and "00000002" in said[0]


def test_one_whose_arrays_are_gone_is_passed_over(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    gone(save(store, 2))
    found, _ = newest(store)
    assert found is not None and found.step == 1


@pytest.mark.fault("bad checkpoint")
def test_with_only_damaged_ones_the_node_refuses_to_begin_again(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    flipped(save(store, 1))
    flipped(save(store, 2).with_suffix(".manifest"))
    with pytest.raises(Failure, match="none of 2 checkpoints"):
        newest(store)


@pytest.mark.fault("bad checkpoint")
def test_one_of_another_model_is_passed_over(tmp_path: Path) -> None:
    save(checkpoints(tmp_path, b"o" * 32), 1)
    save(checkpoints(tmp_path), 2)
    save(checkpoints(tmp_path, b"o" * 32), 3)
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 2 and "another model" in said[0]


@pytest.mark.fault("bad checkpoint")
def test_one_that_somebody_else_signed_is_passed_over(tmp_path: Path) -> None:
    save(checkpoints(tmp_path), 1)
    other, other_signer = keyring()
    save(Checkpoints(tmp_path / "checkpoints", other.peer_id, other_signer, SCHEMA), 2)
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 1 and "not signed by this node" in said[0]


@pytest.mark.fault("bad checkpoint")
@pytest.mark.parametrize("body", [(2, 3, b"d" * 32, SCHEMA, b"state"), (2, 3, b"d" * 32, SCHEMA, b"state", b"more")])
def test_one_of_a_later_version_is_passed_over(tmp_path: Path, body: tuple[object, ...]) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    later = msgpack.packb(body)
    write_durably(store.next_arrays().with_suffix(".manifest"), msgpack.packb((later, SIGNER.sign(CONTEXT, digest(later)))))
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 1 and len(said) == 1


@pytest.mark.fault("bad checkpoint")
@pytest.mark.parametrize("instead", ["a file", "a link to nowhere", "a loop of links"])
def test_a_folder_that_can_not_be_looked_into_is_no_reason_to_begin_anew(tmp_path: Path, instead: str) -> None:
    folder = tmp_path / "checkpoints"
    if instead == "a file":
        folder.touch()
    else:
        folder.symlink_to(folder if instead == "a loop of links" else tmp_path / "nowhere")
    with pytest.raises(Failure, match=re.escape(str(folder))):
        newest(checkpoints(tmp_path))


@pytest.mark.fault("full disk")
def test_a_disk_that_fails_while_it_is_read_costs_that_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = checkpoints(tmp_path)
    for step in (1, 2):
        save(store, step)
    whole = hashlib.file_digest

    def fails_at_first(*arguments: object) -> object:
        monkeypatch.setattr(hashlib, "file_digest", whole)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(hashlib, "file_digest", fails_at_first)
    found, said = newest(store)
    assert found is not None and found.step == 1
    assert said == ["checkpoint 00000002 is passed over: 00000002.safetensors: Input/output error"]


@pytest.mark.fault("full disk")
def test_a_disk_too_full_for_the_manifest_keeps_the_one_before_and_takes_no_more_room(tmp_path: Path) -> None:
    store = checkpoints(tmp_path)
    save(store, 1)
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    limits, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))  # room for the arrays
    try:
        for step in (2, 3):
            with pytest.raises(OSError):
                save(store, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before
    found, said = newest(checkpoints(tmp_path))
    assert found is not None and found.step == 1 and said == []
    save(store, 4)
    assert store.newest_completed is not None and store.newest_completed[0] == 4


@pytest.mark.fault("full disk")
def test_a_full_disk_leaves_the_file_before_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, hard))
    try:
        with pytest.raises(OSError):
            write_durably(path, b"longer than four bytes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
