"""The state of a long batched run on disk, so that it can go on where it was interrupted, to the same result."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from p2pfl.failure import Failure

Arrays = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One file, replaced whole every so many rounds and at the end. run: what the run depends on, as text; another run's file
    is refused."""

    path: Path
    every: int
    run: str

    def is_due(self, row: int, rounds: int) -> bool:
        """Whether the state after so many rounds is kept."""
        return row % self.every == 0 or row == rounds

    def save(self, row: int, state: Mapping[str, torch.Tensor], measured: Arrays) -> None:
        """The state after `row` rounds; of `measured`, [rounds + 1, ...] each, the rows up to this one."""
        rows = {f"measured.{name}": torch.from_numpy(array[: row + 1]) for name, array in measured.items()}
        working = self.path.with_suffix(".unfinished")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {name: tensor.cpu() for name, tensor in {**state, **rows}.items()}
            save_file(tensors, working, {"row": str(row), "run": self.run})
            _durable(working)
            working.replace(self.path)
            _durable(self.path.parent)
        except (OSError, SafetensorError) as error:
            raise Failure(
                "output_unwritable", f"--resume {self.path}: {error}.", "Make room, or give another folder."
            ) from None

    def restore(self, state: Mapping[str, torch.Tensor], measured: Arrays) -> int | None:
        """Write into `state` and `measured` what was saved; the number of rounds that it had, None where nothing was saved."""
        self._check_place()
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                self._check_run(metadata.get("run", "{}"))
                row = int(metadata["row"])
                rounds = min(map(len, measured.values())) - 1
                if not 0 < row <= rounds:
                    raise self._bad(f"it is of round {row}, and the run has {rounds}")
                if set(file.keys()) != {*state, *(f"measured.{name}" for name in measured)}:
                    raise self._bad("it holds other tensors than this model has")
                for name, tensor in state.items():
                    saved = file.get_tensor(name)
                    if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                        raise self._bad(f"{name} is {saved.dtype} {list(saved.shape)}, not {tensor.dtype} {list(tensor.shape)}")
                    tensor.copy_(saved)
                for name, array in measured.items():
                    found = file.get_tensor(f"measured.{name}")
                    if found.shape != array[: row + 1].shape or found.dtype != torch.float64:
                        raise self._bad(f"what was measured of {name} is {found.dtype} {list(found.shape)} after round {row}")
                    array[: row + 1] = found.numpy()
        except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise self._bad(f"it can't be read: {error}") from None
        return row

    def _check_place(self) -> None:
        """Before anything is computed that could not be kept."""
        folder = self.path.parent
        if folder.exists() and not folder.is_dir():
            raise self._bad(f"{folder} is no folder")
        if self.path.exists() and not self.path.is_file():
            raise self._bad("it is no file")

    def _check_run(self, saved: str) -> None:
        ours, theirs = json.loads(self.run), json.loads(saved)
        if not isinstance(theirs, dict):
            raise self._bad("it does not say what run it is of")
        different = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
        if different:
            raise self._bad(f"it is of another scenario: {', '.join(different)} differ")

    def _bad(self, why: str) -> Failure:
        return Failure(
            "bad_checkpoint", f"--resume {self.path}: {why}.", "Resume with what began the run, or give an empty folder."
        )


def _durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
