"""What a task calls data, as two tensors: inputs and targets, row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from p2pfl.failure import Failure

Pair = tuple[torch.Tensor, torch.Tensor]


def as_tensors(data: Any, what: str = "data") -> Pair:
    """(inputs [n, ...], targets [n, ...]), contiguous, n >= 1, finite.

    data: a pair of arrays, tensors or sequences, or a map-style torch Dataset of (input, target). `what` names it in a failure.
    Floats become float32. Integers and booleans become int64, except that inputs of 8 bits or fewer (pixels) become float32.
    """
    inputs, targets = _pair(data, what)
    inputs = _tensor(inputs, f"the inputs of {what}", floats_up_to_bits=8)
    targets = _tensor(targets, f"the targets of {what}", floats_up_to_bits=0)
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets):
        raise _bad(
            f"{what} has inputs {list(inputs.shape)} and targets {list(targets.shape)}", "Give one target for every input row."
        )
    if not len(inputs):
        raise _bad(f"{what} has no rows", "Give this peer at least one sample.")
    return inputs, targets


def _pair(data: Any, what: str) -> tuple[Any, Any]:
    if isinstance(data, torch.utils.data.TensorDataset):
        data = data.tensors
    if isinstance(data, tuple | list):
        if len(data) != 2:
            raise _bad(f"{what} is a {type(data).__name__} of {len(data)}", "Give the pair (inputs, targets).")
        return data[0], data[1]
    if isinstance(data, torch.utils.data.DataLoader):
        raise _bad(f"{what} is a DataLoader", "Give its .dataset: p2pfl draws the minibatches itself.")
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")) or isinstance(
        data, np.ndarray | torch.Tensor | dict | str
    ):
        raise _bad(f"{what} is a {type(data).__name__}", "Give the pair (inputs, targets) or a map-style torch Dataset.")
    return _columns(data, what)


def _columns(dataset: Any, what: str) -> tuple[Sequence[Any], Sequence[Any]]:
    items = [dataset[index] for index in range(len(dataset))]
    for index, item in enumerate(items):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise _bad(f"item {index} of {what} is a {type(item).__name__}", "Every item must be the pair (input, target).")
    return [item[0] for item in items], [item[1] for item in items]


def _tensor(values: Any, what: str, floats_up_to_bits: int) -> torch.Tensor:
    tensor = _gathered(values, what)
    if tensor.is_complex():
        raise _bad(f"{what} are complex numbers", "Give real ones, such as their real and imaginary parts side by side.")
    whole = not tensor.is_floating_point() and tensor.element_size() * 8 > floats_up_to_bits
    tensor = tensor.to(torch.int64 if whole else torch.float32).contiguous()
    if not whole and not bool(torch.isfinite(tensor).all()):
        row = int((~torch.isfinite(tensor)).nonzero()[0, 0]) if tensor.ndim else 0
        raise _bad(f"{what} are not finite in row {row}", "Fill or drop the missing and infinite values.")
    return tensor


def _gathered(values: Any, what: str) -> torch.Tensor:
    """`values` as one detached tensor on the CPU."""
    try:
        if isinstance(values, torch.Tensor):
            return values.detach().cpu()
        if isinstance(values, Sequence) and len(values) and isinstance(values[0], torch.Tensor):
            return torch.stack([value.detach().cpu() for value in values])
        array = np.asarray(values)
    except (ValueError, RuntimeError, TypeError) as error:
        raise _bad(f"{what} do not fit in one array: {_first_line(error)}", "Give every row the same shape.") from error
    if array.dtype.kind not in "biufc":
        raise _bad(f"{what} are of type {array.dtype}", "Give numbers; number the classes 0, 1, 2, ...")
    # Torch lacks some of numpy's types (unsigned, long double, foreign byte order), so the widening is numpy's.
    if array.dtype.kind in "iu" and array.itemsize > 1:
        array = array.astype(np.int64, copy=False)
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows float32 is refused with the other infinities
            array = array.astype(np.float32, copy=False)
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _bad(message: str, hint: str) -> Failure:
    return Failure("bad_data", f"{message}.", hint)
