"""`p2pfl doctor`: whether this machine and this folder can run a node, each doubt with the line that mends it.

Nothing here imports torch or changes anything: it takes a fraction of a second.
"""

import contextlib
import os
import platform
import resource
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from node import node_settings
from node.admission import issuing, papers
from node.admission.attested import MEND, attested, in_words, is_trouble
from node.directory import BOOT_MAX, NodeDirectory
from node.disk import read_whole
from node.moment import RELEASED
from node.node_settings import LISTEN, settings_of
from node.upkeep.control import Caller
from node.upkeep.limits import DESCRIPTORS
from p2pfl.failure import Failure
from p2pfl.protocol.admission.certificate import Role
from p2pfl.protocol.events import PeerId
from p2pfl.protocol.identity import Identity, is_sealed
from p2pfl.report.plain import plain

PACKAGES = ("pyzmq", "pynacl", "msgpack", "pydantic")
LEARNING = ("torch", "numpy", "safetensors")  # what a relay does without
DISK_MIN = 1 << 30  # bytes; two checkpoints, a model and the journal of a model of 100 MB
MEMORY_MIN = 400 << 20  # bytes; a node takes some 300 before its model
RELAY_MEMORY_MIN = 64 << 20
RENEW_DAYS = 14  # before a certificate ends, somebody has to be found who renews it
CLOCK_BACK_S = 3600.0  # behind the newest start that the folder remembers


@dataclass(frozen=True, slots=True)
class Finding:
    """`mend` is what to do; "" where nothing is to be done."""

    name: str
    text: str
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at. Without `listen` it is where the folder's node listens."""

    directory: NodeDirectory | None
    listen: str | None
    passphrase: str | None

    @property
    def places(self) -> tuple[str, ...]:
        """Where the node is to listen."""
        if self.directory is None or not self.directory.is_founded:
            return (self.listen or LISTEN,)
        settings = node_settings.load(self.directory)
        if self.listen is not None:
            settings = settings_of("--listen", **{**settings.model_dump(), "listen": self.listen})
        return settings.places

    @property
    def is_relay(self) -> bool:
        """Whether the folder's node learns nothing."""
        if self.directory is None or not self.directory.is_founded:
            return False
        return papers.credential(self.directory).certificate.role is Role.RELAY


def examined(patient: Patient) -> list[Finding]:
    """Every check in its order; a `Failure` within one is its finding."""
    checks: tuple[tuple[str, Callable[[Patient], Finding]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("curve", _curve),
        ("port", _port),
        ("clock", _clock),
        ("disk", _disk),
        ("open files", _descriptors),
        ("memory", _memory),
        ("identity", _identity),
        ("network", _network),
    )
    if patient.directory is not None and patient.directory.issuer.exists():
        checks = (*checks, ("issuer", _issuer))
    findings = []
    for name, check in checks:
        try:
            findings.append(check(patient))
        except Failure as failure:
            findings.append(Finding(name, failure.message, failure.hint or "See above."))
    return findings


def as_data(findings: list[Finding]) -> dict[str, Any]:
    return {"is_fit": not any(finding.mend for finding in findings), "findings": [asdict(finding) for finding in findings]}


def lines(findings: list[Finding]) -> Iterator[str]:
    for finding in findings:
        yield f"{'MEND' if finding.mend else 'ok':<5} {finding.name:<11} {finding.text}"
        if finding.mend:
            yield f"{'':<17} {finding.mend}"


def _python(_patient: Patient) -> Finding:
    version, bits = platform.python_version(), 8 * struct.calcsize("P")
    if bits < 64:
        return Finding("python", f"{version} for {bits} bits; torch and libzmq are built for 64.", "Install a 64-bit system.")
    return Finding("python", f"{version}, {bits} bits, {platform.machine()}, {os.cpu_count()} cores")


def _packages(patient: Patient) -> Finding:
    found, missing = [], []
    for name in (*PACKAGES, *(() if patient.is_relay else LEARNING)):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("packages", f"Missing: {', '.join(missing)}.", f"pip install {' '.join(missing)}")
    return Finding("packages", ", ".join(found))


def _curve(_patient: Patient) -> Finding:
    import zmq

    if not zmq.has("curve"):
        mend = "Install the wheel, not a build of your system: pip install --force-reinstall --only-binary pyzmq pyzmq"
        return Finding("curve", f"libzmq {zmq.zmq_version()} was built without encryption.", mend)
    return Finding("curve", f"libzmq {zmq.zmq_version()} encrypts")


def _port(patient: Patient) -> Finding:
    if (place := _running(patient)) is not None:
        return Finding("port", f"this folder's node listens at {place}")
    node_settings.refuse_busy(*patient.places)
    return Finding("port", f"{' and '.join(patient.places)} free" if patient.places else "none is opened to others")


def _running(patient: Patient) -> str | None:
    """Where this folder's node listens, if one runs."""
    if patient.directory is None:
        return None
    with contextlib.suppress(Failure), Caller(patient.directory.control, 1.0) as caller:
        return str(caller.ask("status")["listens_at"])
    return None


def _clock(patient: Patient) -> Finding:
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    set_it = "Set it: timedatectl set-ntp true, or by hand: date -s '...'"
    if now < RELEASED:
        return Finding("clock", f"{shown} is before this version was made.", set_it)
    try:
        newest_start = float(read_whole(patient.directory.path / "boot", BOOT_MAX)) if patient.directory else 0.0
    except (OSError, ValueError):
        newest_start = 0.0
    if now + CLOCK_BACK_S < newest_start < 1e11:
        last = time.strftime("%Y-%m-%d %H:%M", time.gmtime(newest_start))
        return Finding("clock", f"{shown}, but this node was started on {last}.", set_it)
    return Finding("clock", shown)


def _disk(patient: Patient) -> Finding:
    wanted = patient.directory.path if patient.directory else Path.cwd()
    place = next((p for p in (wanted, *wanted.parents) if p.is_dir()), Path("/"))
    free = shutil.disk_usage(place).free
    if free < DISK_MIN:
        return Finding("disk", f"{place}: {free >> 20} MiB are free.", f"Free {DISK_MIN >> 20} MiB, or choose another --dir.")
    if not os.access(place, os.W_OK):
        return Finding("disk", f"{place} can't be written to.", "Choose a --dir that is yours.")
    return Finding("disk", f"{place}: {free / (1 << 30):.1f} GiB free")


def _descriptors(_patient: Patient) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS:
        return Finding(
            "open files", f"At most {hard} can be open.", f"ulimit -Hn {DESCRIPTORS}, or LimitNOFILE= of the service"
        )
    return Finding("open files", "no limit" if hard == resource.RLIM_INFINITY else f"up to {hard}")


def _memory(patient: Patient) -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # of the group of processes that we are in; "max" is no number
        free = min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    if patient.is_relay:
        least, takes = RELAY_MEMORY_MIN, f"A relay takes up to {RELAY_MEMORY_MIN >> 20} MiB"
    else:
        least, takes = MEMORY_MIN, f"A node takes some {MEMORY_MIN >> 20} MiB and four times its model"
    if free < least:
        mend = f"{takes}; end other programs, or add swap."
        return Finding("memory", f"{free >> 20} MiB are available.", mend)
    return Finding("memory", f"{free / (1 << 30):.1f} GiB available")


def _identity(patient: Patient) -> Finding:
    if patient.directory is None:
        return Finding("identity", "none yet; p2pfl network create or p2pfl node join makes one")
    path = patient.directory.identity
    own = _opened(patient, patient.directory)
    if own is None:
        return Finding("identity", f"{path}, sealed with a passphrase")
    how = "without a passphrase" if patient.passphrase is None else "sealed; the passphrase opens it"
    return Finding("identity", f"{own.hex()[:16]}, {how}")


def _opened(patient: Patient, directory: NodeDirectory) -> PeerId | None:
    """Who the node is, if that can be known without asking for a passphrase."""
    sealed, source = directory.read_identity(), str(directory.identity)
    if is_sealed(sealed, source):
        return Identity.from_bytes(sealed, patient.passphrase, source).peer_id if patient.passphrase is not None else None
    return Identity.from_bytes(sealed, None, source).peer_id


def _network(patient: Patient) -> Finding:
    directory = patient.directory
    if directory is None or not directory.is_founded:
        return Finding("network", "none yet")
    known = papers.read(directory)
    own = papers.credential(directory).identity
    papers.check_standing(known, own)
    credential = known.roster.credential(own)
    assert credential is not None
    left = (credential.certificate.not_after - time.time()) / 86_400
    told = f"{plain(known.name)}: {len(known.roster.members)} members, this node is {plain(credential.certificate.name)}"
    if node_settings.load(directory).outbound_only:
        relays = sum(known.roster.is_relay(peer) for peer in known.roster.members)
        told += f", which nobody can reach; {relays} relays" if relays else ", which nobody can reach; there is no relay"
    if left < RENEW_DAYS:
        return Finding("network", f"{told}; certified for {left:.0f} more days", "Have it renewed: p2pfl network sign NAME")
    found = attested(known.roster, time.time())
    if found is not None and is_trouble(found):
        return Finding("network", f"{told}; revocations: {in_words(found)}", MEND)
    return Finding("network", told)


def _issuer(patient: Patient) -> Finding:
    assert patient.directory is not None
    found = issuing.standing(patient.directory)
    left = (found.certificate.not_after - time.time()) / 86_400
    told = f"{plain(found.certificate.name)}, has vouched for {found.vouched_for}"
    if found.trouble:
        return Finding("issuer", f"{told}; it {found.trouble}", "Ask the holder of the root key.")
    if left < RENEW_DAYS:
        return Finding("issuer", f"{told}; certified for {left:.0f} more days", f"Have it renewed: {issuing.MEND}")
    return Finding("issuer", told)
