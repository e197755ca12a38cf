import pytest
import torch
from torch import nn

from p2pfl import Task
from p2pfl.failure import Failure
from p2pfl.learning.parameters import Model

torch.set_num_threads(1)


def model(module: object, seed: int = 7) -> Model:
    return Model(Task(model=module, data=lambda peer: (None, None)), seed)  # type: ignore[arg-type]


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.mark.fault("buffers")
def test_a_vector_is_the_parameters_in_order_and_then_the_float_buffers() -> None:
    slots = model(batch_norm).layout.slots
    assert [slot.name for slot in slots] == [
        *["0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"],
        *["1.running_mean", "1.running_var"],
    ]
    assert [slot.offset for slot in slots] == [0, 12, 16, 20, 24, 32, 34, 38]
    assert [slot.trainable for slot in slots] == [True] * 6 + [False] * 2


@pytest.mark.fault("buffers")
def test_integer_buffers_and_buffers_that_are_not_saved_stay_with_the_peer() -> None:
    def module() -> nn.Module:
        made = batch_norm()
        made.register_buffer("scale", torch.ones(5), persistent=False)
        return made

    made = model(module)
    assert set(made.local) == {"1.num_batches_tracked", "scale"}
    assert made.layout.dimension == 42


def test_unflatten_gives_views_and_flatten_gives_the_vector_back() -> None:
    layout = model(batch_norm).layout
    vector = torch.arange(2.0 * layout.dimension).view(2, -1)
    tensors = layout.unflatten(vector)
    assert tensors["0.weight"].shape == (2, 4, 3)
    assert torch.equal(layout.flatten(tensors), vector)
    tensors["2.bias"][1] = -1.0
    assert vector[1, 32:34].tolist() == [-1.0, -1.0]


def test_the_first_vector_comes_from_the_seed_and_nothing_else() -> None:
    first = model(batch_norm).first
    torch.rand(3)
    assert torch.equal(model(batch_norm).first, first)
    assert not torch.equal(model(batch_norm, seed=8).first, first)


def test_making_a_model_does_not_disturb_the_global_generator() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    model(batch_norm)
    assert torch.equal(torch.rand(1), expected)


def test_a_bound_module_computes_with_the_vector() -> None:
    made = model(lambda: nn.Linear(2, 1))
    made.bind(torch.tensor([1.0, 2.0, 3.0]), {})
    assert made.module(torch.tensor([[10.0, 100.0]])).item() == 213.0


def test_tied_parameters_are_one_part_of_the_vector() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.there, self.back = nn.Linear(3, 3), nn.Linear(3, 3)
            self.back.weight = self.there.weight

    assert model(Tied).layout.dimension == 9 + 3 + 3


@pytest.mark.fault("another layout")
def test_the_digest_names_layout_codec_and_labels() -> None:
    layout = model(batch_norm).layout
    known = layout.digest(codec="dense", labels=["a", "b"])
    assert len(known) == 32
    assert model(batch_norm, seed=9).layout.digest(codec="dense", labels=["a", "b"]) == known
    assert layout.digest(codec="float16", labels=["a", "b"]) != known
    assert layout.digest(codec="dense", labels=["b", "a"]) != known
    assert model(lambda: nn.Linear(3, 4)).layout.digest(codec="dense", labels=["a", "b"]) != known


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (lambda: nn.Linear(2, 2).double(), "float64"),
        (nn.ReLU, "no parameters"),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "no parameters to learn"),
    ],
)
def test_a_model_that_cannot_be_exchanged_is_one_line(module: object, says: str) -> None:
    with pytest.raises(Failure, match=says):
        model(module)
