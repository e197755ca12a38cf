"""Federated learning with no server: every peer trains on its own data and gossips signed, sealed updates to its neighbors."""

from p2pfl.learning.task import Task, TaskPeer

__all__ = ["Task", "TaskPeer"]
__version__ = "0.1.0"
