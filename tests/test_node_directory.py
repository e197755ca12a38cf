"""A node's folder: keys that nobody else can read, and an epoch that never comes twice."""

import os
import resource
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from node.admission.enrolment import enrol, identity_in, passphrase_in
from node.directory import NodeDirectory
from p2pfl.failure import ExitCode, Failure


@pytest.fixture
def directory(tmp_path: Path) -> NodeDirectory:
    place = NodeDirectory(tmp_path / "ward-a")
    enrol("ward-a", place, tmp_path / "request", None)
    return place


def refusal(directory: NodeDirectory) -> Failure:
    with pytest.raises(Failure) as refused:
        identity_in(directory, None)
    assert refused.value.exit_code is ExitCode.IDENTITY
    assert "\n" not in str(refused.value)
    return refused.value


def test_only_the_owner_can_look_into_it(directory: NodeDirectory) -> None:
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.identity.stat().st_mode) == 0o600


@pytest.mark.fault("keys at rest")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_keys_that_others_could_use_are_refused_with_the_cure(directory: NodeDirectory, mode: int) -> None:
    directory.identity.chmod(mode)
    failure = refusal(directory)
    assert failure.hint == f"chmod 600 {directory.identity}"
    directory.identity.chmod(0o600)
    identity_in(directory, None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_keys_of_another_user_are_refused(directory: NodeDirectory) -> None:
    os.chown(directory.identity, 12345, -1)
    assert "another user" in refusal(directory).message


def test_an_identity_is_never_replaced(directory: NodeDirectory) -> None:
    before = directory.identity.read_bytes()
    with pytest.raises(Failure, match="there is an identity already") as refused:
        enrol("ward-b", directory, directory.path / "request", None)
    assert refused.value.exit_code is ExitCode.IDENTITY
    assert directory.identity.read_bytes() == before


@pytest.mark.fault("keys at rest")
def test_a_missing_a_cut_and_a_linked_identity_are_refused(directory: NodeDirectory) -> None:
    whole = directory.identity.read_bytes()
    directory.identity.write_bytes(whole[:-1])
    assert "cut off" in refusal(directory).message
    copy = directory.identity.rename(directory.path / "copy")
    assert refusal(directory).hint == "Make one: p2pfl node init --name NAME, or p2pfl node join INVITE"
    directory.identity.symlink_to(copy)
    assert "symbolic link" in refusal(directory).message


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused_at_once(directory: NodeDirectory, make: Callable[[Path], None]) -> None:
    directory.identity.unlink()
    make(directory.identity)
    assert "not a regular file" in refusal(directory).message


def test_a_passphrase_comes_through_a_descriptor(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path / "sealed")
    enrol("ward-a", directory, tmp_path / "request", "open sesame")
    assert identity_in(directory, piped("open sesame\n")).peer_id
    with pytest.raises(Failure, match="passphrase is wrong"):
        identity_in(directory, piped("open barley\n"))


def test_a_passphrase_comes_out_of_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    path.write_text("open sesame\nand nothing behind the first line\n")
    path.chmod(0o400)
    assert passphrase_in(path) == "open sesame"
    path.chmod(0o440)
    with pytest.raises(Failure, match=f"chmod 600 {path}"):
        passphrase_in(path)
    with pytest.raises(Failure, match="No such file"):
        passphrase_in(tmp_path / "no")


def test_a_last_boot_epoch_is_a_line_that_says_what_to_do(tmp_path: Path) -> None:
    """Whoever has the key can sign a record of the highest epoch; the next start must not end in a traceback."""
    directory = NodeDirectory(tmp_path)
    with pytest.raises(Failure, match="No boot epoch is left") as refusal:
        directory.next_boot_epoch(2**63 - 1)
    assert "Revoke this node" in (refusal.value.hint or "")
    assert directory.next_boot_epoch(7.0) == 7  # nothing of it was kept


@pytest.mark.fault("clocks")
def test_the_boot_epoch_never_comes_twice_whatever_the_clock_says(directory: NodeDirectory) -> None:
    epochs = [directory.next_boot_epoch(wall) for wall in (1000.0, 1000.0, 5.0, 2000.0, 0.0)]
    assert epochs == [1000, 1001, 1002, 2000, 2001]


def test_an_epoch_that_can_not_be_read_stops_the_start(directory: NodeDirectory) -> None:
    (directory.path / "boot").write_text("soon")
    with pytest.raises(Failure, match="not a boot epoch"):
        directory.next_boot_epoch(1.0)


@pytest.mark.fault("full disk")
def test_an_epoch_that_can_not_be_kept_stops_the_start_and_the_one_before_stands(directory: NodeDirectory) -> None:
    assert directory.next_boot_epoch(1000.0) == 1000
    limits, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, limits[1]))
    try:
        with pytest.raises(Failure, match="Free space"):
            directory.next_boot_epoch(2000.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert directory.next_boot_epoch(0.0) == 1001


@pytest.mark.fault("doubles")
def test_one_process_at_a_time_is_this_node(directory: NodeDirectory) -> None:
    held = directory.lock()
    with pytest.raises(Failure, match="running already") as refused:
        directory.lock()
    assert refused.value.exit_code is ExitCode.NETWORK
    os.close(held)
    os.close(directory.lock())


def piped(text: str) -> int:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe:
        pipe.write(text)
    return read_end
