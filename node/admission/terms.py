"""What the members of a founded network agree on beside the model itself: the settings that its root signs.

They come from the founder's TOML file, and rest in the charter. A task of somebody's own is named there by a word and never by
a file: each member brings the file itself.
"""

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field

from p2pfl.failure import ExitCode, Failure
from p2pfl.protocol.admission.signed_charter import SignedCharter
from p2pfl.protocol.charter import GossipRules
from p2pfl.protocol.events import PeerId
from p2pfl.settings import Agreement, OverlaySection, TaskSection, parse

FILE_MAX = 1 << 16  # bytes; a file with every setting has 1,500
ROUNDS = 1_000_000  # who is to end earlier is told to leave


class Terms(Agreement):
    """Strict; `parts` is among how many members a bundled data set is divided, since nobody knows how many will come."""

    rounds: int = Field(default=ROUNDS, ge=1, le=ROUNDS, strict=True)
    parts: int = Field(default=8, ge=1, le=1024, strict=True)
    topology: OverlaySection = OverlaySection()

    @property
    def is_own_task(self) -> bool:
        """Whether each member brings a file of its own."""
        return is_file(self.task.name)

    @property
    def rules(self) -> GossipRules:
        return GossipRules(rounds=self.rounds, **self.gossip.model_dump())

    def sections(self) -> dict[str, dict[str, Any]]:
        """As they rest in a charter, which adds the gossip rules itself."""
        names = ("task", "data", "training", "topology", "codec", "limits")
        found = {name: getattr(self, name).model_dump(exclude_none=True) for name in names}
        found["network"] = {"seed": self.seed, "parts": self.parts}
        if self.is_own_task:
            found["task"] = {"name": word_of(self.task.name), "own": True}
        return found

    def part_of(self, peer: PeerId) -> int:
        """Which part of a bundled data set a member has. Two may have the same one."""
        return int.from_bytes(hashlib.blake2b(peer, digest_size=8, person=b"p2pfl/part").digest(), "big") % self.parts


def from_file(path: Path | None, task: str | None) -> Terms:
    """What the founder wants: a file, or the defaults; `task` counts more than the file. Raises `Failure`."""
    values, source = (read(path), str(path)) if path is not None else ({}, "--task")
    terms = parse(Terms, values, source)
    if is_file(terms.task.name):
        message = f"{source}: task.name is a file, and settings that others get never name code."
        raise Failure("task_in_network", message, f"Say it here instead: --task {terms.task.name}")
    if terms.training.weighting == "samples" and terms.training.mean_samples is None:
        message = f'{source}: training.weighting = "samples" has nothing to compare with.'
        raise Failure("bad_configuration", message, "Agree on training.mean_samples, the mean over the members, and add it.")
    if task is None:
        return terms
    kept = {} if is_file(task) or task != terms.task.name else terms.task.model_dump(exclude_none=True)
    section = parse(TaskSection, {**kept, "name": task}, "--task")
    return terms.model_copy(update={"task": section})


def of_charter(charter: SignedCharter) -> Terms:
    """What the root signed. Raises `Failure` with exit code VERSION for settings that this program does not know."""
    sections = {name: dict(section) for name, section in charter.sections.items()}
    network, gossip = sections.pop("network", {}), sections.pop("gossip")
    if sections.get("task", {}).pop("own", False):
        sections["task"]["name"] += ".py"
    values = {**sections, **network, "rounds": gossip.pop("rounds", ROUNDS), "gossip": gossip}
    try:
        return parse(Terms, values, "the charter")
    except Failure as failure:
        message = f"The network's charter is not understood: {failure.message}"
        raise Failure("charter_version", message, "Update this program.", ExitCode.VERSION) from None


def is_file(task: str) -> bool:
    """Whether a task's name means somebody's own file."""
    return ":" in task or task.endswith(".py")


def word_of(task: str) -> str:
    """What a task of one's own is called in the charter: wards of code/wards.py:task."""
    stem = Path(task.partition(":")[0]).stem
    return re.sub(r"[^A-Za-z0-9_-]", "_", stem)[:64] or "task"


def read(path: Path) -> dict[str, Any]:
    """A file of settings, not looked at yet. Raises `Failure`."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX + 1)
        if len(text) > FILE_MAX:
            raise Failure("bad_settings", f"{path}: over {FILE_MAX >> 10} KiB.", "All settings together have 2 KiB.")
        return tomllib.loads(text.decode("utf-8-sig"))
    except OSError as error:
        raise Failure("unreadable_settings", f"{path}: {error.strerror}.", "Give the path of a TOML file.") from None
    except UnicodeDecodeError as error:
        raise Failure("bad_settings", f"{path}: byte {error.start} is not UTF-8.", "Save the file as UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise Failure("bad_settings", f"{path}: {error}.", "Strings are quoted, and every line is key = value.") from None
