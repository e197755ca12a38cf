"""A recorded vmap gives what vmap gives, and is not used where it would not."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.func import grad_and_value, vmap

from p2pfl import Task
from p2pfl.learning import gradients
from p2pfl.learning.gradients import FAMILIAR, KEPT, Gradients, Tensors
from p2pfl.learning.local import descend_together, no_momentum
from p2pfl.learning.parameters import Model
from p2pfl.settings import CodecSection, LimitsSection, TrainingSection
from sim.batch import run_batch
from tests.quadratics import quadratic, random_quadratic

CALLS = FAMILIAR + 6


def loss(weights: Tensors, others: Tensors, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, Tensors]:
    """Logistic regression that also keeps a running mean, as BatchNorm does."""
    scores = inputs @ weights["w"].T + weights["b"]
    seen = others["seen"].clone()
    seen.add_(inputs.mean(dim=0))
    return torch.nn.functional.cross_entropy(scores, targets), {"seen": seen}


def batch(peers: int, seed: int) -> tuple[Tensors, Tensors, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {"w": torch.randn(peers, 3, 5, generator=generator), "b": torch.randn(peers, 3, generator=generator)}
    others = {"seen": torch.randn(peers, 5, generator=generator)}
    targets = torch.randint(3, (peers, 4), generator=generator)
    return weights, others, torch.randn(peers, 4, 5, generator=generator), targets


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often something is recorded."""
    made: list[int] = []
    original = gradients.make_fx

    def make_fx(flat: Any) -> Any:
        made.append(1)
        return original(flat)

    monkeypatch.setattr(gradients, "make_fx", make_fx)
    return made


def same(one: Any, other: Any) -> bool:
    (gradients, (losses, changed)), (gradients_too, (losses_too, changed_too)) = one, other
    assert changed.keys() == changed_too.keys()
    pairs = [*((gradients[k], gradients_too[k]) for k in gradients_too), *((changed[k], changed_too[k]) for k in changed_too)]
    return torch.equal(losses, losses_too) and all(torch.equal(a, b) for a, b in pairs)


def test_a_recording_gives_bit_for_bit_what_vmap_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded(monkeypatch)
    together, expected = Gradients(loss), vmap(grad_and_value(loss, has_aux=True))
    for call in range(CALLS):
        for peers in (1, 7):
            arguments = batch(peers, call)
            before = [tensor.clone() for tensor in (*arguments[0].values(), *arguments[1].values())]
            assert same(together(*arguments), expected(*arguments))
            together.record()
            assert all(map(torch.equal, before, (*arguments[0].values(), *arguments[1].values())))
    assert len(made) == 2


def test_a_task_that_counts_for_itself_is_never_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    made, calls = recorded(monkeypatch), 0

    def counting(*arguments: Any) -> tuple[torch.Tensor, Tensors]:
        nonlocal calls
        calls += 1
        value, changed = loss(*arguments)
        return value * calls, changed

    together = Gradients(counting)
    for _ in range(CALLS):
        before = calls
        _, (losses, _) = together(*batch(2, 1))
        together.record()
        reference = loss(*({k: v[0] for k, v in part.items()} for part in batch(2, 1)[:2]), *(x[0] for x in batch(2, 1)[2:]))[0]
        assert calls > before
        assert float(losses[0]) / float(reference) in (pytest.approx(before + 1), pytest.approx(calls))
    assert len(made) == 1


def test_shapes_that_come_once_are_not_recorded_and_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded(monkeypatch)
    together = Gradients(loss)
    for peers in range(1, 2 * KEPT):
        together(*batch(peers, 0))
        together.record()
    assert not made
    assert len(together._calls) <= KEPT + 1


def test_blocks_on_threads_are_recorded_when_all_are_done_and_give_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorded(monkeypatch)
    a, c = random_quadratic(256, 4)
    task = quadratic(a[:, None], c[:, None])

    def models(threads: int) -> Any:
        monkeypatch.setattr("os.cpu_count", lambda: threads)
        training = TrainingSection(local_steps=3, learning_rate=0.05)
        return run_batch(task, 256, training, CodecSection(), LimitsSection(), None, 12, 7, evaluate_every=12).parameters

    once = models(1)
    assert len(made) == 1
    assert np.abs(models(4) - once).max() < 1e-6
    assert len(made) > 1


def test_a_step_on_another_device_makes_nothing_on_the_cpu() -> None:
    """Tensors of the device "meta" have shapes and no numbers, and can't be computed with those of another device."""
    row = torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)
    layers = torch.nn.Linear(5, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)
    model = Model(Task(lambda: torch.nn.Sequential(*layers), lambda peer: (row, row)), 7)
    training = TrainingSection(momentum=0.9, weight_decay=0.1)
    model.module.to("meta")
    model.first = model.first.to("meta")
    stacks = {k: torch.stack([v] * 2) for k, v in model.layout.unflatten(model.first).items()}
    momenta = {k: torch.zeros_like(v) for k, v in stacks.items()}
    local = {k: torch.stack([v] * 2).to("meta") for k, v in model.local.items()}
    inputs, targets = torch.empty(2, 4, 5, device="meta"), torch.empty(2, 4, dtype=torch.int64, device="meta")
    losses = descend_together(model, stacks, momenta, local, lambda *_: (inputs, targets), [3, 3], training)
    assert losses.device.type == "meta"
    assert no_momentum(model, training).device.type == "meta"
