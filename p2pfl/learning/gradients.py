"""The gradients of many peers at once, each of its own loss: a vmap that is recorded once it is familiar, and then replayed.

torch.func decides anew in every call which kernels to run, and for small models that takes longer than the kernels. What it
decides depends on shapes: after so many calls with the same ones the kernels are recorded, and from then on only they run. The
numbers are the same. What a task decides by anything else, a counter of its own for example, a recording would not know;
therefore one is used only after it gave, on another batch, what vmap gave.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.func import grad_and_value, vmap
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

Tensors = dict[str, torch.Tensor]
Loss = Callable[[Tensors, Tensors, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Tensors]]
"""Of one peer: (weights, other tensors, inputs, targets) -> (loss, the other tensors that changed)."""

Found = tuple[Tensors, tuple[torch.Tensor, Tensors]]
"""(gradients, (losses, other tensors that changed)) of all peers."""

FAMILIAR = 24  # calls with the same shapes before they are recorded, which takes as long as about 100 calls of a small model
KEPT = 32  # shapes that are remembered; under churn every round may bring new ones


class Gradients:
    """Called with [peers, ...] tensors, by one thread at a time."""

    def __init__(self, loss: Loss) -> None:
        self._vmapped: Callable[..., Found] = vmap(grad_and_value(loss, has_aux=True))
        self._calls: dict[object, int] = {}
        self._familiar: dict[object, tuple[Any, ...]] = {}
        self._recordings: dict[object, Callable[..., Found]] = {}
        self._proven: dict[object, Callable[..., Found]] = {}

    def __call__(self, weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Found:
        shapes = tuple((t.shape, t.stride(), t.dtype) for t in (*weights.values(), *others.values(), inputs, targets))
        proven = self._proven.get(shapes)
        if proven is not None:
            return proven(weights, others, inputs, targets)
        if len(self._calls) > KEPT:
            self._forget()
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        found = self._vmapped(weights, others, inputs, targets)
        recording = self._recordings.pop(shapes, None)
        if recording is not None:
            agrees = _agree(found, recording(weights, others, inputs, targets))
            self._proven[shapes] = recording if agrees else self._vmapped
        elif calls == FAMILIAR:
            self._familiar[shapes] = weights, others, inputs, targets
        return found

    def record(self) -> None:
        """Record what is familiar. Not while another thread calls any module: torch records by putting itself in place of
        Module.__call__, for all threads."""
        while self._familiar:
            shapes, arguments = self._familiar.popitem()
            self._recordings[shapes] = self._recorded(*arguments)

    def _forget(self) -> None:
        """All but the newest recordings, and how often their shapes came."""
        self._proven = dict(list(self._proven.items())[-KEPT // 2 :])
        self._recordings.clear()
        self._calls.clear()

    def _recorded(self, weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Callable[..., Found]:
        moving, fixed = list(weights), list(others)
        changing: list[str] = []

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            given = dict(zip(moving, tensors, strict=False)), dict(zip(fixed, tensors[len(moving) :], strict=False))
            gradients, (losses, changed) = self._vmapped(*given, *tensors[-2:])
            changing[:] = changed
            return [*(gradients[name] for name in moving), losses, *changed.values()]

        try:
            run = _lean(make_fx(flat)(*weights.values(), *others.values(), inputs, targets)).forward
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # vmap can run it, and that is enough
            return self._vmapped

        def replay(weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Found:
            gradients = run(*weights.values(), *others.values(), inputs, targets)
            rest = gradients[len(moving) :]
            return dict(zip(moving, gradients, strict=False)), (rest[0], dict(zip(changing, rest[1:], strict=True)))

        return replay


def _lean(recording: GraphModule) -> GraphModule:
    """The same without what is computed twice, and without looking at a tensor as what it is already: of a small model's step
    they are a sixth. A recording that writes to its tensors, or draws, stays as it is."""
    nodes = [node for node in recording.graph.nodes if node.op == "call_function"]
    if not all(isinstance(node.target, OpOverload) and _is_pure(node.target) for node in nodes):
        return recording
    first: dict[object, Node] = {}
    for node in nodes:
        given = node.args[0] if node.args else None
        if node.target in _LOOKS and isinstance(given, Node) and _seen(given) == _seen(node):
            node.replace_all_uses_with(given)
            recording.graph.erase_node(node)
            continue
        same = first.setdefault((node.target, repr((node.args, node.kwargs))), node)
        if same is not node:
            node.replace_all_uses_with(same)
            recording.graph.erase_node(node)
    recording.recompile()
    return recording


_LOOKS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default, torch.ops.aten.expand.default)


def _is_pure(operator: OpOverload) -> bool:
    return not operator._schema.is_mutable and torch.Tag.nondeterministic_seeded not in operator.tags


def _seen(node: Node) -> tuple[object, ...]:
    """Of a tensor that was recorded: shape, strides and type."""
    tensor = node.meta["tensor_meta"]
    return tensor.shape, tensor.stride, tensor.dtype


def _agree(one: Found, other: Found) -> bool:
    (gradients, (losses, changed)), (gradients_too, (losses_too, changed_too)) = one, other
    return (
        torch.allclose(losses, losses_too, equal_nan=True)
        and _all_close(gradients, gradients_too)
        and changed.keys() == changed_too.keys()
        and _all_close(changed, changed_too)
    )


def _all_close(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.allclose(tensor, other[name], equal_nan=True) for name, tensor in one.items())
