"""Many peers on one machine: scenarios, the engines that run them, and what comes out.

from sim import Scenario, run
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.engine import run
    from sim.result import Result
    from sim.scenario import Scenario

__all__ = ["Result", "Scenario", "run"]

_HOME = {"Result": "sim.result", "Scenario": "sim.scenario", "run": "sim.engine"}


def __getattr__(name: str) -> Any:
    """Engines import torch, which takes a second; `p2pfl sim --help` must not wait for it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
