"""Named tensors as one flat float32 vector, and back.

The vector is the module's parameters in order, then its float32 buffers that are part of the state_dict, such as the running
mean and variance of BatchNorm: these are averaged like parameters, which makes them statistics of the neighborhood's data.
All other buffers (counters such as num_batches_tracked, and constants that are not saved) stay with the peer and are never
sent. Frozen parameters are in the vector too, but no step moves them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch

from p2pfl.failure import Failure
from p2pfl.learning.data.tensors import Pair, as_tensors
from p2pfl.learning.streams import torch_seed
from p2pfl.learning.task import Task


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one tensor lies in the vector."""

    name: str
    shape: tuple[int, ...]
    offset: int
    trainable: bool

    @property
    def size(self) -> int:
        """Number of values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """Names, shapes and offsets of what a vector holds. `dimension` is D, its number of values."""

    slots: tuple[Slot, ...]
    dimension: int

    def digest(self, **rest: Any) -> bytes:
        """32 bytes that two peers share exactly when their vectors, and `rest`, mean the same."""
        described = {"slots": [[s.name, s.shape] for s in self.slots], "dtype": "float32", **rest}
        return hashlib.blake2b(json.dumps(described, sort_keys=True).encode(), digest_size=32).digest()

    def unflatten(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views into vector [..., D], each [..., *shape]."""
        lead = vector.shape[:-1]
        return {s.name: vector[..., s.offset : s.offset + s.size].view(*lead, *s.shape) for s in self.slots}

    def flatten(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The vector [..., D] of tensors [..., *shape]."""
        parts = (tensors[s.name] for s in self.slots)
        return torch.cat(
            [t.reshape(*t.shape[: t.ndim - len(s.shape)], s.size) for t, s in zip(parts, self.slots, strict=True)], -1
        )


class Model:
    """A task's module, made once for any number of peers: `bind` makes it one peer's by pointing its parameters into a vector.

    first: [D], the shared first vector of a seed. local: the buffers that stay with the peer, as the module makes them.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.module = _drawn(task, seed, 0)
        self.task = task
        self._seed = seed
        saved = self.module.state_dict(keep_vars=True)
        parameters = dict(self.module.named_parameters())
        buffers = {n: b for n, b in self.module.named_buffers() if n in saved and b.dtype == torch.float32}
        self.layout = _layout([*parameters.items(), *buffers.items()])
        self.first = self.layout.flatten({**parameters, **buffers}).detach().clone()
        self.local = {n: b.detach().clone() for n, b in self.module.named_buffers() if n not in buffers}
        self.trainable: list[torch.Tensor] = [parameters[s.name] for s in self.layout.slots if s.trainable]
        self._parameters = parameters
        for name, view in self.layout.unflatten(self.first).items():
            if name in parameters:
                parameters[name].data = view  # what the module came with takes no memory from here on
        self._buffers = {name: _owner(self.module, name) for name, _ in self.module.named_buffers()}
        self._common_test: Pair | None = None

    def first_of(self, peer: int, initial: Literal["shared", "own"]) -> torch.Tensor:
        """[D]: what a peer starts from. "shared" is `first`; "own" is drawn for this peer, as the module initialises itself."""
        if initial == "shared":
            return self.first
        tensors = _drawn(self.task, self._seed, peer + 1).state_dict()
        return self.layout.flatten({slot.name: tensors[slot.name] for slot in self.layout.slots})

    def forget_first(self) -> None:
        """Everybody of this process has started from it: nobody needs it twice, and it takes as much memory as a model."""
        self.first = self.first.new_empty(0)

    def bind(self, vector: torch.Tensor, local: Mapping[str, torch.Tensor]) -> None:
        """Let the module's parameters and shared buffers be views into `vector` [D] and its other buffers be those of `local`.

        From here on, whatever changes the module in place changes these tensors."""
        for name, view in self.layout.unflatten(vector).items():
            if name in self._parameters:
                self._parameters[name].data = view
            else:
                self._put(name, view)
        for name, tensor in local.items():
            self._put(name, tensor)

    def common_test(self) -> Pair | None:
        """The task's common test set, read once."""
        if self._common_test is None and self.task.common_test is not None:
            self._common_test = as_tensors(self.task.common_test(), "the common test set")
        return self._common_test

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        owner, leaf = self._buffers[name]
        owner._buffers[leaf] = tensor


def _drawn(task: Task, seed: int, stream: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, stream, "first"))
        return task.model()


def _layout(tensors: Iterable[tuple[str, torch.Tensor]]) -> Layout:
    slots: list[Slot] = []
    offset = 0
    for name, tensor in tensors:
        if tensor.dtype != torch.float32:
            raise _bad_model(f"the parameter {name} is {tensor.dtype}", "Make the module float32, with .float().")
        if not bool(torch.isfinite(tensor).all()):
            raise _bad_model(f"the first value of {name} is not finite", "Mend how the module is initialised.")
        slots.append(Slot(name, tuple(tensor.shape), offset, tensor.requires_grad))
        offset += tensor.numel()
    if not any(slot.trainable for slot in slots):
        raise _bad_model("it has no parameters to learn", "Return a torch.nn.Module that has some.")
    return Layout(tuple(slots), offset)


def _bad_model(message: str, hint: str) -> Failure:
    return Failure("bad_model", f"The task's model can't be used: {message}.", hint)


def _owner(module: torch.nn.Module, name: str) -> tuple[torch.nn.Module, str]:
    path, _, leaf = name.rpartition(".")
    return module.get_submodule(path), leaf
