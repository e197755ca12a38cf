"""The simulated network and machines of a scenario: what a link does to a message, how fast a peer computes and writes.

A quantity that differs from peer to peer or from link to link is written as its distribution: a number, or
"lognormal:MEDIAN,SIGMA", SIGMA being the standard deviation of its logarithm.
"""

from dataclasses import dataclass
from math import exp
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from p2pfl.protocol.randomness import Choices
from p2pfl.settings import Section

Probability = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal distribution; a constant where `sigma` is 0."""

    median: float
    sigma: float = 0.0

    def drawn(self, choices: Choices) -> float:
        """One value. Uses up one choice, also of a constant."""
        uniform = choices.uniform(2.0**-53, 1.0)
        return self.median * exp(self.sigma * NormalDist().inv_cdf(uniform)) if self.sigma else self.median

    @property
    def mean(self) -> float:
        return self.median * exp(self.sigma**2 / 2)


def spread(given: object, kinds: tuple[str, ...] = ("lognormal",)) -> Spread:
    """Reads a number, or KIND:MEDIAN,SIGMA; ValueError says what is wrong."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        found = Spread(float(min(given, 2 * SECONDS_MAX)))
    else:
        kind, _, numbers = given.partition(":") if isinstance(given, str) else ("", "", "")
        parts = [part.strip() for part in numbers.split(",")]
        if kind not in kinds or len(parts) != 2:
            raise ValueError(f"a number of seconds belongs here, or {' or '.join(WRITTEN[one] for one in kinds)}")
        try:
            found = Spread(*map(float, parts))
        except ValueError:
            raise ValueError(f"{numbers!r} are no two numbers") from None
    if not 0 <= found.median <= SECONDS_MAX or not 0 <= found.sigma <= SIGMA_MAX:
        raise ValueError(f"from 0 to {SECONDS_MAX:g} seconds, with a sigma of at most {SIGMA_MAX:g}")
    return found


WRITTEN = {"lognormal": "lognormal:MEDIAN,SIGMA", "coordinates": "coordinates:SIDE,SIGMA"}
SECONDS_MAX = 1e9
SIGMA_MAX = 10.0  # exp(10 * 6) is 1e26 times the median: more is a slip of the hand

FILES = (".npy", ".csv")
"""Endings of a matrix of latencies."""


def _is_latency(value: object) -> object:
    if not (isinstance(value, str) and value.endswith(FILES)):
        spread(value, ("lognormal", "coordinates"))
    return value


def _is_spread(value: object) -> object:
    if value is not None:
        spread(value)
    return value


class NetworkSection(Section):
    """`[network]` of a scenario. It is about the simulated world, so a live network's settings do not have it.

    `latency` is one number for all links; or drawn once a link, "lognormal:MEDIAN,SIGMA"; or "coordinates:SIDE,SIGMA": peers
    are scattered over a square that SIDE seconds cross, every message takes its distance times a lognormal factor; or a
    matrix of seconds, [from, to], in a .npy or .csv file.
    """

    latency: Annotated[float | str, BeforeValidator(_is_latency)] = 0.0
    jitter: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # seconds, at most, that a message is early or late
    bandwidth: float | None = Field(default=None, gt=0, allow_inf_nan=False)  # bytes per second of every link, each way
    loss: Probability = 0.0  # probability that a message does not arrive
    duplicate: Probability = 0.0  # probability that a message arrives twice
    reorder: Probability = 0.0  # probability that a message is late, so that later ones overtake it
    detection_s: float = Field(default=1.0, ge=0, allow_inf_nan=False)  # until the ends of a broken link know of it
    crypto: Literal["auto", "real", "accounted"] = "auto"  # accounted: the same sizes and refusals, no arithmetic


class ComputeSection(Section):
    """`[compute]` of a scenario: how fast the peers' machines are."""

    step_s: Annotated[float | str | None, BeforeValidator(_is_spread)] = None  # seconds of a local step, drawn once a peer
    stragglers: float = Field(default=0.0, ge=0, le=1)  # share of peers that are slower
    straggler_factor: float = Field(default=10.0, ge=1, allow_inf_nan=False)  # how many times slower
    disk_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)  # until what is persisted is durable
