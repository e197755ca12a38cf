"""How many rounds, and how many updates sent, until peers agree."""

from math import ceil, log

import numpy as np

from topology.errors import TopologyError
from topology.schedules import Schedule
from topology.spectrum import contraction
from topology.weights import Rows, Weights

SAMPLED_ROUNDS = 32  # of a schedule that never repeats, to know what its rounds are like
ROUNDS_MAX = 10_000  # of a schedule that changes, before it counts as one on which peers don't agree


def rounds_to_consensus(schedule: Schedule, epsilon: float = 1e-3) -> int | None:
    """The rounds, from round 0 on, after which at most `epsilon` of any disagreement is left; None if it stays.

    In the spectral norm of (I − J) W_t ... W_0, so whatever the peers began with. Where columns don't sum to 1 they may
    agree on something else than their mean. Costs n³, or n² for every link of every round of a schedule that changes.
    """
    if not 0 < epsilon < 1:
        raise TopologyError(f"epsilon is {epsilon}.", "It is the share of disagreement that may be left, between 0 and 1.")
    if schedule.period == 1:
        return _rounds_of_one(schedule(0), epsilon)
    left = np.eye(schedule.n) - 1 / schedule.n
    for round in range(ROUNDS_MAX):
        left = _mixed(schedule.rows(round), left)
        left -= left.mean(axis=0)
        # the spectral norm costs n³, and is at least the Frobenius norm over √n
        if np.linalg.norm(left) <= epsilon * schedule.n**0.5 and np.linalg.norm(left, 2) <= epsilon:
            return round + 1
    return None


def updates_sent(schedule: Schedule) -> tuple[float, int]:
    """The updates that a peer sends in a round: of all peers the mean, and the most that one has to.

    Over a period; where there is none, over the first `SAMPLED_ROUNDS`.
    """
    rounds = SAMPLED_ROUNDS if schedule.period is None else schedule.period
    senders = ([j for i, row in enumerate(schedule.rows(round)) for j in row if j != i] for round in range(rounds))
    sent = [np.bincount(those, minlength=schedule.n) for those in senders]
    return float(np.mean(sent)), int(np.max(sent))


def _rounds_of_one(weights: Weights, epsilon: float) -> int | None:
    left = weights - weights.mean(axis=0)
    if np.allclose(left @ left.T, left.T @ left, rtol=0, atol=1e-12):  # normal: then powers of the norm are norms of powers
        rate = contraction(left + 1 / len(left))  # the norm of what is left
        if rate <= epsilon:
            return 1
        return None if rate >= 1 - 1e-12 else ceil(log(epsilon) / log(rate) - 1e-9)
    powers = [left]  # squared again and again
    while np.linalg.norm(powers[-1], 2) > epsilon:
        if len(powers) > 40:
            return None
        powers.append(powers[-1] @ powers[-1])
    rounds, reached = 0, np.eye(len(weights))
    for bit in reversed(range(len(powers) - 1)):  # the most rounds that are not yet enough
        further = powers[bit] @ reached
        if np.linalg.norm(further, 2) > epsilon:
            rounds, reached = rounds + (1 << bit), further
    return rounds + 1


def _mixed(rows: Rows, x: Weights) -> Weights:
    """W x, in time of the links."""
    longest = max(map(len, rows))
    sender = np.array([[*row, *[0] * (longest - len(row))] for row in rows])
    weight = np.array([[*row.values(), *[0.0] * (longest - len(row))] for row in rows])
    mixed = np.zeros_like(x)
    for place in range(longest):
        mixed += weight[:, place, None] * x[sender[:, place]]
    return mixed
