"""Tasks whose answer is known: peer i minimises 1/2 sum_k a_ik (x_k - c_ik)^2."""

import numpy as np
import torch
from numpy.typing import NDArray

from p2pfl import Task
from p2pfl.learning.task import TaskPeer


class Point(torch.nn.Module):
    """A vector that is learned."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.x = torch.nn.Parameter(torch.zeros(dimension))


def _loss(module: torch.nn.Module, curvature: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    assert isinstance(module, Point)
    return (0.5 * curvature * (module.x - centre).square()).sum(dim=1).mean()


def quadratic(curvatures: NDArray[np.float64], centres: NDArray[np.float64]) -> Task:
    """curvatures, centres: [peers, rows, dimension]; a batch's loss is the mean over its rows."""

    def data(peer: TaskPeer) -> tuple[object, object]:
        rows = curvatures[peer.index], centres[peer.index]
        return rows, rows

    return Task(
        model=lambda: Point(centres.shape[-1]),
        data=data,
        train_step=_loss,
        evaluate=lambda module, inputs, targets: {"loss": float(_loss(module, inputs, targets))},
    )


def random_quadratic(peers: int, dimension: int, seed: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Curvatures in [0.5, 2) and centres in [-1, 1), [peers, dimension]: no two peers want the same."""
    chance = np.random.default_rng(seed)
    return chance.uniform(0.5, 2, (peers, dimension)), chance.uniform(-1, 1, (peers, dimension))
