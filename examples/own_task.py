"""A task of your own in one file: a model, data, and nothing to register.

    p2pfl task check examples/own_task.py:task
    p2pfl sim run examples/ring.toml --set task.name=examples/own_task.py:task

Six stations each measure a noisy sine over their own part of the day, and together learn the whole curve. In a live network
`data` would read from `peer.directory`, where the peer's own files are.
"""

import numpy as np
import torch

from p2pfl import Task, TaskPeer


def curve(hours: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * hours / 24)


def data(peer: TaskPeer) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """(train, test) of one peer. Its hours are its own; the test set is everybody's."""
    rng = np.random.default_rng(peer.index)
    hours = rng.uniform(24 * peer.index / peer.count, 24 * (peer.index + 1) / peer.count, size=(64, 1))
    return (features(hours), curve(hours) + rng.normal(0, 0.1, size=hours.shape)), common_test()


def common_test() -> tuple[np.ndarray, np.ndarray]:
    hours = np.linspace(0, 24, 97)[:, None]
    return features(hours), curve(hours)


def features(hours: np.ndarray) -> np.ndarray:
    return (hours - 12) / 12


def model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))


task = Task(model=model, data=data, loss=torch.nn.functional.mse_loss, common_test=common_test, name="own_task")
