import numpy as np
import pytest
import torch
from torch import nn

from p2pfl import Task
from p2pfl.learning.local import descend, descend_together, no_momentum, why_not_together
from p2pfl.learning.parameters import Model
from p2pfl.settings import TrainingSection
from tests.quadratics import quadratic, random_quadratic

torch.set_num_threads(1)

MODULES = {
    "softmax": lambda: nn.Linear(6, 3),
    "mlp": lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)),
    "frozen layer": lambda: nn.Sequential(nn.Linear(6, 8).requires_grad_(False), nn.Tanh(), nn.Linear(8, 3)),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    ),
    "recurrent": lambda: Recurrent(),
}


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(2, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(inputs.view(-1, 3, 2))[0][:, -1])


def classes(module: object) -> Model:
    return Model(Task(model=module, data=lambda peer: (None, None)), seed=7)  # type: ignore[arg-type]


def batches(count: int, peer: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    chance = torch.Generator().manual_seed(peer)
    return [(torch.randn(4, 6, generator=chance), torch.randint(3, (4,), generator=chance)) for _ in range(count)]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_sgd_with_momentum_and_weight_decay(momentum: float, weight_decay: float) -> None:
    training = TrainingSection(learning_rate=0.05, momentum=momentum, weight_decay=weight_decay)
    (a,), (c,) = (values[None] for values in random_quadratic(5, 3))
    model = Model(quadratic(a[None], c[None]), seed=7)
    data = [(torch.tensor(a[rows]).float(), torch.tensor(c[rows]).float()) for rows in ([0, 1], [2, 3], [4, 0], [1, 2])]
    vector, velocity = torch.ones(3), no_momentum(model, training)
    x, m = np.ones(3), np.zeros(3)
    for _ in range(2):  # momentum goes on from round to round
        end = descend(model, vector, velocity, {}, data, training, torch_seed=0)
        vector, velocity = end.vector, end.momentum
        for inputs, targets in data:
            gradient = (inputs.numpy() * (x - targets.numpy())).mean(axis=0) + weight_decay * x
            m = momentum * m + gradient
            x = x - 0.05 * m
    np.testing.assert_allclose(vector.numpy(), x, atol=1e-6)


def test_nothing_that_is_passed_in_is_changed() -> None:
    model, training = classes(MODULES["batch norm"]), TrainingSection(momentum=0.5)
    vector, momentum, local = model.first.clone(), no_momentum(model, training), {n: t.clone() for n, t in model.local.items()}
    end = descend(model, vector, momentum, local, batches(3), training, torch_seed=0)
    assert torch.equal(vector, model.first) and not torch.equal(end.vector, vector)
    assert not momentum.any() and bool(end.momentum.any())
    assert (int(local["1.num_batches_tracked"]), int(end.local["1.num_batches_tracked"])) == (0, 3)


def test_batch_statistics_move_and_frozen_parameters_do_not() -> None:
    norm, frozen = classes(MODULES["batch norm"]), classes(MODULES["frozen layer"])
    training = TrainingSection(weight_decay=0.1)
    for model, name, moves in ((norm, "1.running_mean", True), (frozen, "0.weight", False), (frozen, "2.weight", True)):
        end = descend(model, model.first, no_momentum(model, training), model.local, batches(2), training, torch_seed=0)
        before, after = model.layout.unflatten(model.first)[name], model.layout.unflatten(end.vector)[name]
        assert torch.equal(before, after) != moves, name


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", MODULES)
def test_together_gives_what_each_gives_by_itself(name: str, momentum: float) -> None:
    model, training = classes(MODULES[name]), TrainingSection(learning_rate=0.1, momentum=momentum, weight_decay=0.01)
    steps = [5, 3, 3, 0]
    data = [batches(5, peer) for peer in range(4)]
    stacks = {k: v.expand(4, *v.shape).contiguous() for k, v in model.layout.unflatten(model.first).items()}
    momenta = {k: torch.zeros_like(v) for k, v in stacks.items()} if momentum else {}
    local = {k: v.expand(4, *v.shape).contiguous() for k, v in model.local.items()}

    def batch(peers: int, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = [data[peer][step] for peer in range(peers)]
        return torch.stack([x for x, _ in chosen]), torch.stack([y for _, y in chosen])

    descend_together(model, stacks, momenta, local, batch, steps, training)
    for peer, count in enumerate(steps):
        end = descend(model, model.first, no_momentum(model, training), model.local, data[peer][:count], training, torch_seed=0)
        assert torch.allclose(model.layout.flatten(stacks)[peer], end.vector, rtol=0, atol=1e-5)
        for key, tensor in end.local.items():
            assert torch.equal(local[key][peer], tensor)


def test_dropout_depends_on_the_seed_it_is_given_only() -> None:
    model, training = classes(lambda: nn.Sequential(nn.Linear(6, 8), nn.Dropout(), nn.Linear(8, 3))), TrainingSection()

    def trained(seed: int) -> torch.Tensor:
        torch.rand(1)
        return descend(model, model.first, no_momentum(model, training), {}, batches(2), training, seed).vector

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


@pytest.mark.parametrize("name", MODULES)
def test_ordinary_modules_can_be_computed_together(name: str) -> None:
    assert why_not_together(classes(MODULES[name]), batches(1)[0], TrainingSection()) is None


def test_a_module_that_draws_or_looks_at_values_says_why_it_cannot() -> None:
    class Peeks(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            outputs = super().forward(inputs)
            return outputs * 2 if outputs.sum().item() > 0 else outputs

    draws = classes(lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout()))
    assert "random" in (why_not_together(draws, batches(1)[0], TrainingSection()) or "")
    assert "item" in (why_not_together(classes(lambda: Peeks(6, 3)), batches(1)[0], TrainingSection()) or "")


def test_a_module_that_gives_other_numbers_together_is_found_out() -> None:
    class Counts(nn.Linear):
        calls = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(inputs) * self.calls

    why = why_not_together(classes(lambda: Counts(6, 3)), batches(1)[0], TrainingSection())
    assert why == "one step under vmap gives other numbers than the same step by itself"
