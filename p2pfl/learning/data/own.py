"""Readers for a user's own data, to be called in a task:

    from p2pfl.learning.data import from_csv

    def data(peer):
        rows = from_csv(peer.directory / "ward.csv", target="diagnosis", labels=("benign", "malignant"))
        return rows, from_csv(peer.directory / "ward-test.csv", target="diagnosis", labels=("benign", "malignant"))

Nothing else in p2pfl reads a file, bundled data apart. These two read one when the user's task tells them to, by the path it
gives; no path from the network ever gets here, and nothing that is read can run (no pickles).
"""

import csv
import difflib
import io
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from p2pfl.failure import Failure

Inputs = NDArray[np.float32]
Targets = NDArray[np.int64] | NDArray[np.float32]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def from_npz(
    path: str | Path, inputs: str = "inputs", targets: str = "targets"
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    """The two arrays of these names in an .npz file, as they were saved."""
    try:
        loaded = np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise _bad(f"{path} holds one unnamed array", "Save both with numpy.savez(path, inputs=..., targets=...).")
        with loaded as arrays:
            return _array(arrays, inputs, path), _array(arrays, targets, path)
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror or error}", "Check the path and its permissions.") from error
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        hint = "Save plain numbers with numpy.savez; arrays of objects are pickles, which are never loaded."
        raise _bad(f"{path} is no .npz file of numbers: {str(error).partition(chr(10))[0].rstrip('.')}", hint) from error


def from_csv(path: str | Path, target: str, labels: Sequence[str] = (), delimiter: str = ",") -> tuple[Inputs, Targets]:
    """Inputs float32 [rows, other columns, in their order] and the `target` column of a CSV file with a header.

    With `labels`, the target's text becomes its position in them, int64. They are given and not gathered from the file,
    because another peer's file may lack one and would number the rest otherwise. Without, the target is numeric: int64 when
    all of them are whole, else float32.
    """
    header, lines = _table(path, delimiter)
    if target not in header:
        near = difflib.get_close_matches(target, header, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(header)}."
        raise _bad(f"{path} has no column {target!r}", hint)
    at = header.index(target)
    inputs = np.array(
        [
            [_number(cell, path, line, name) for name, cell in zip(header, cells, strict=True) if name != target]
            for line, cells in lines
        ],
        dtype=np.float32,
    )
    column = [(line, cells[at].strip()) for line, cells in lines]
    return inputs, _numbered(column, path, target, labels) if labels else _numeric(column, path, target)


def _array(arrays: np.lib.npyio.NpzFile, name: str, path: str | Path) -> NDArray[np.generic]:
    if name not in arrays.files:
        near = difflib.get_close_matches(name, arrays.files, n=1)
        raise _bad(
            f"{path} has no array {name!r}", f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(arrays.files)}."
        )
    array: NDArray[np.generic] = arrays[name]
    return array


def _table(path: str | Path, delimiter: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and every row with the number of its line."""
    try:
        reader = csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8-sig")), delimiter=delimiter, strict=True)
        rows = [(reader.line_num, cells) for cells in reader if cells]
    except OSError as error:
        raise _bad(f"{path} cannot be read: {error.strerror}", "Check the path and its permissions.") from error
    except UnicodeDecodeError as error:
        raise _bad(f"{path} is not text in UTF-8", "Save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise _bad(f"{path} line {reader.line_num}: {error}", "Mend the quotes there.") from error
    if len(rows) < 2:
        raise _bad(f"{path} has no rows below a header", "Give a header line and one line for every sample.")
    header = [name.strip() for name in rows[0][1]]
    if repeated := [name for name in header if header.count(name) > 1]:
        raise _bad(f"{path} line 1: two columns are called {repeated[0]!r}", "Rename one.")
    if len(header) < 2:
        raise _bad(f"{path} line 1: there is only one column", f"Is {delimiter!r} what separates them? Else give delimiter=.")
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            raise _bad(f"{path} line {line}: {len(cells)} cells for {len(header)} columns", "Give every row all columns.")
    return header, rows[1:]


def _number(cell: str, path: str | Path, line: int, column: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        what = f"{cell!r} is no number" if cell.strip() else "the cell is empty"
        raise _bad(f"{path} line {line} column {column!r}: {what}", "Fill it, drop the row, or encode it as numbers.") from None
    if not abs(number) <= _FLOAT32_MAX:  # nor is NaN
        raise _bad(f"{path} line {line} column {column!r}: {cell} is not a finite float32", "Fill it or drop the row.")
    return number


def _numbered(column: Iterable[tuple[int, str]], path: str | Path, target: str, labels: Sequence[str]) -> NDArray[np.int64]:
    numbers = {label: number for number, label in enumerate(labels)}
    for line, text in column:
        if text not in numbers:
            near = difflib.get_close_matches(text, labels, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The labels are {', '.join(labels)}."
            raise _bad(f"{path} line {line} column {target!r}: {text!r} is not among the labels", hint)
    return np.array([numbers[text] for _, text in column], dtype=np.int64)


def _numeric(column: list[tuple[int, str]], path: str | Path, target: str) -> Targets:
    texts = sorted({text for _, text in column})
    if not any(_is_number(text) for text in texts):
        shown = ", ".join(repr(text) for text in texts[:20])
        raise _bad(f"{path} column {target!r} holds text", f"Name its classes, the same for every peer: labels=({shown}).")
    numbers = np.array([_number(text, path, line, target) for line, text in column])
    whole = bool((numbers == np.rint(numbers)).all())
    return numbers.astype(np.int64) if whole else numbers.astype(np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bad(message: str, hint: str) -> Failure:
    return Failure("bad_data_file", f"{message}.", hint)
