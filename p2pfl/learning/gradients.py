"""The gradients of many peers at once, each of its own loss: a vmap that is recorded once it is familiar, and then replayed.

torch.func decides anew in every call which kernels to run, and for small models that takes longer than the kernels. What it
decides depends on shapes: after so many calls with the same ones the kernels are recorded, and from then on only they run. The
numbers are the same. What a task decides by anything else, a counter of its own for example, a recording would not know;
therefore one is used only after it gave, on another batch, what vmap gave.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Condition
from typing import Any

import torch
from torch.func import grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx

Tensors = dict[str, torch.Tensor]
Loss = Callable[[Tensors, Tensors, torch.Tensor, torch.Tensor], tuple[torch.Tensor, Tensors]]
"""Of one peer: (weights, other tensors, inputs, targets) -> (loss, the other tensors that changed)."""

Found = tuple[Tensors, tuple[torch.Tensor, Tensors]]
"""(gradients, (losses, other tensors that changed)) of all peers."""

FAMILIAR = 24  # calls with the same shapes before they are recorded, which takes as long as about 100 calls of a small model
KEPT = 32  # shapes that are remembered; under churn every round may bring new ones


class Gradients:
    """Called with [peers, ...] tensors. One thread at a time may call it, others may call others."""

    def __init__(self, loss: Loss) -> None:
        self._vmapped: Callable[..., Found] = vmap(grad_and_value(loss, has_aux=True))
        self._calls: dict[object, int] = {}
        self._recordings: dict[object, Callable[..., Found]] = {}

    def __call__(self, weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Found:
        shapes = tuple((t.shape, t.stride(), t.dtype) for t in (*weights.values(), *others.values(), inputs, targets))
        calls = self._calls[shapes] = self._calls.get(shapes, 0) + 1
        recording = self._recordings.get(shapes)
        if recording is not None and calls > FAMILIAR + 1:
            return recording(weights, others, inputs, targets)
        if len(self._calls) > KEPT:
            self._forget()
        with _recorder.kept_out():
            found = self._vmapped(weights, others, inputs, targets)
        if calls == FAMILIAR:
            self._recordings[shapes] = self._recorded(weights, others, inputs, targets)
        elif recording is not None and not _agree(found, recording(weights, others, inputs, targets)):
            self._recordings[shapes] = self._vmapped_alone
        return found

    def _vmapped_alone(self, *arguments: Any) -> Found:
        with _recorder.kept_out():
            return self._vmapped(*arguments)

    def _forget(self) -> None:
        """All but the newest recordings, and how often their shapes came."""
        kept = list(self._recordings)[-KEPT // 2 :]
        self._recordings = {shapes: self._recordings[shapes] for shapes in kept}
        self._calls = {shapes: self._calls[shapes] for shapes in kept}

    def _recorded(self, weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Callable[..., Found]:
        moving, fixed = list(weights), list(others)
        changing: list[str] = []

        def flat(*tensors: torch.Tensor) -> list[torch.Tensor]:
            given = dict(zip(moving, tensors, strict=False)), dict(zip(fixed, tensors[len(moving) :], strict=False))
            gradients, (losses, changed) = self._vmapped(*given, *tensors[-2:])
            changing[:] = changed
            return [*(gradients[name] for name in moving), losses, *changed.values()]

        try:
            with _recorder.alone():
                run = make_fx(flat)(*weights.values(), *others.values(), inputs, targets).forward
        except (RuntimeError, TypeError, ValueError, NotImplementedError):  # vmap can run it, and that is enough
            return self._vmapped_alone

        def replay(weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> Found:
            gradients = run(*weights.values(), *others.values(), inputs, targets)
            rest = gradients[len(moving) :]
            return dict(zip(moving, gradients, strict=False)), (rest[0], dict(zip(changing, rest[1:], strict=True)))

        return replay


class _Recorder:
    """torch records by putting itself in place of Module.__call__, for all threads: nobody may call a module meanwhile."""

    def __init__(self) -> None:
        self._turn = Condition()
        self._calling, self._is_recording = 0, False

    @contextmanager
    def kept_out(self) -> Iterator[None]:
        """Nobody records meanwhile."""
        with self._turn:
            self._turn.wait_for(lambda: not self._is_recording)
            self._calling += 1
        try:
            yield
        finally:
            with self._turn:
                self._calling -= 1
                self._turn.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else calls a module or records meanwhile."""
        with self._turn:
            self._turn.wait_for(lambda: not self._is_recording and not self._calling)
            self._is_recording = True
        try:
            yield
        finally:
            with self._turn:
                self._is_recording = False
                self._turn.notify_all()


_recorder = _Recorder()


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
