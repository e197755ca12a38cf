"""The plain networks of the bundled tasks. Torch is imported when a model is made, so that naming a task costs nothing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def mlp(features: int, hidden: int, classes: int) -> "torch.nn.Module":
    """One hidden layer of rectifiers."""
    from torch import nn

    return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def softmax(features: int, classes: int) -> "torch.nn.Module":
    """Multinomial logistic regression; convex."""
    from torch import nn

    return nn.Linear(features, classes)
