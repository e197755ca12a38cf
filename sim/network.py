"""The simulated network between the peers: what a link does to a message."""

from pydantic import Field

from p2pfl.settings import Section


class NetworkSection(Section):
    """`[network]` of a scenario. It is about the simulated world, so a live network's file does not have it."""

    latency: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # seconds from one peer to another, the same on every link
    loss: float = Field(default=0.0, ge=0, lt=1)  # probability that a message does not arrive
