"""Worlds that several tests run: small, non-IID, and with nothing random but the seed."""

from typing import Any

from sim.scenario import Scenario
from sim.world import World, world_of


def world(topology: Any, peers: int, rounds: int = 20, **settings: Any) -> World:
    """Digits, Dirichlet(0.5), Metropolis weights, ten local steps of batch 8; `settings` are the scenario's."""
    defaults: dict[str, Any] = {"task": "digits", "partition": "dirichlet:0.5", "seed": 7, "batch_size": 8}
    steps = {} if "local_epochs" in settings else {"local_steps": 10}
    return world_of(Scenario(**{"topology": topology, "peers": peers, "rounds": rounds, **defaults, **steps, **settings}))
