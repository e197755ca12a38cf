"""The files of a run, in a folder of their own that appears whole or not at all."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from uuid import uuid4

from p2pfl.failure import Failure
from p2pfl.report.page import render
from p2pfl.report.record import RunRecord
from p2pfl.report.record_json import metrics_csv, to_json
from p2pfl.report.summary import summary
from p2pfl.report.svg import pictures
from sim import tensorboard
from sim.trace import written
from sim.world import OnTrace

RUNS = Path(".p2pfl/runs")
_NUMBERS_MAX = 1000


class RunFolder:
    """Where a run's files are written until they are `published`."""

    def __init__(self, working: Path, final: Path | None, slug: str) -> None:
        self.working = working
        self.published: Path | None = None
        self._final = final
        self._slug = slug
        self._trace: TextIO | None = None

    def trace(self) -> OnTrace:
        """Opens trace.jsonl; call what is returned with every line. Written as it comes, so that memory does not grow."""
        stream = self._trace = (self.working / "trace.jsonl").open("w", encoding="ascii", newline="\n")

        def write(line: dict[str, object]) -> None:
            stream.write(written(line) + "\n")

        return write

    def write(self, record: RunRecord, with_svg: bool = False, with_tensorboard: bool = False) -> Path:
        """Write result.json, metrics.csv, report.html and, if wanted, its pictures and what TensorBoard reads; give the folder
        its name, return that."""
        self.close()
        # The record reads back as it is; its summary stands before it, for people and for other programs.
        result = f'{{"summary":{json.dumps(summary(record), allow_nan=False)},{to_json(record)[1:]}\n'
        files = {"result.json": result, "metrics.csv": metrics_csv(record), "report.html": render(record)}
        for name, text in {**files, **(pictures(record) if with_svg else {})}.items():
            (self.working / name).write_text(text, encoding="utf-8", newline="\n")
        if with_tensorboard:
            tensorboard.write(self.working, record)
        self.published = _published(self.working, self._final, self._slug)
        return self.published

    def close(self) -> None:
        """Nothing more will be traced."""
        if self._trace is not None:
            self._trace.close()


@contextmanager
def run_folder(out: Path | None, title: str, seed: int) -> Iterator[RunFolder]:
    """A folder for one run: `out`, which must not exist or be empty, or the next free number under `.p2pfl/runs`.

    It is made before anything runs, so that a path that can't be written is refused at once; if the run does not end in
    `write`, nothing is left.
    """
    slug = f"{re.sub(r'[^a-z0-9._]+', '-', title.lower()).strip('-.')}-{seed}"
    parent = RUNS if out is None else out.absolute().parent
    if out is not None and os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir())):
        raise Failure("output_exists", f"--out {out}: it is there already.", "Give another folder, or remove this one.")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        working = parent / f".unfinished-{uuid4().hex}"
        working.mkdir()
    except OSError as error:
        raise Failure(
            "output_unwritable", f"{parent}: {error.strerror}.", "Give a folder that can be written: --out."
        ) from None
    folder = RunFolder(working, out, slug)
    try:
        yield folder
    except OSError as error:
        raise Failure("output_unwritable", f"{out or parent}: {error.strerror}.", "Make room, or give another --out.") from None
    finally:
        folder.close()
        if folder.published is None:
            shutil.rmtree(working, ignore_errors=True)


def _published(working: Path, final: Path | None, slug: str) -> Path:
    if final is not None:
        working.rename(final)  # over an empty folder, and over nothing else
        return final
    for number in range(1, _NUMBERS_MAX):
        numbered = working.with_name(f"{slug}-{number:03}")
        if not numbered.exists():
            try:
                working.rename(numbered)
            except OSError:  # another run took the number in this moment
                continue
            return numbered
    raise Failure("output_exists", f"{working.parent}: {slug} has {_NUMBERS_MAX - 1} runs.", "Remove some, or give --out.")
