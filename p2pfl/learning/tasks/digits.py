"""Handwritten digits: 64 pixels, 10 classes."""

from typing import TYPE_CHECKING

from p2pfl.learning.data import bundled
from p2pfl.learning.task import Task
from p2pfl.learning.tasks.divided import divided
from p2pfl.learning.tasks.layers import mlp, softmax
from p2pfl.settings import DataSection, TaskSection

if TYPE_CHECKING:
    import torch


def digits(section: TaskSection, data: DataSection, seed: int) -> Task:
    models = {"mlp": lambda: mlp(64, 64, 10), "softmax": lambda: softmax(64, 10), "cnn": cnn}
    return divided(bundled.digits(), models, section, data, seed)


def cnn() -> "torch.nn.Module":
    """Two convolutions on the 8 by 8 image, 1,898 parameters."""
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
