"""What mixing weights imply: how fast peers agree.

J is the matrix with 1/n everywhere, a perfect mean. W - J is what a round leaves of the disagreement, and both functions
measure it.
"""

import numpy as np

from topology.errors import TopologyError
from topology.weights import Weights


def contraction(weights: Weights) -> float:
    """‖W − J‖₂: the largest share of the peers' distance to their mean that a round of gossip can leave.

    Below 1 for connected graphs and doubly stochastic weights. Costs n³.
    """
    residual = _residual(weights)
    if np.array_equal(residual, residual.T):
        return float(np.abs(np.linalg.eigvalsh(residual)).max())  # the same norm, several times faster
    return float(np.linalg.norm(residual, 2))


def spectral_gap(weights: Weights) -> float:
    """1 − |λ₂|, the second largest modulus of W's eigenvalues: the rate over many rounds. Costs n³.

    It is 1 − contraction where W is normal (symmetric or circulant, say). All rows of W must sum to 1: then W − J has W's
    eigenvalues, with 0 in place of one 1 (Brauer 1952).
    """
    residual = _residual(weights)
    if np.array_equal(residual, residual.T):
        return 1 - contraction(weights)
    return 1 - float(np.abs(np.linalg.eigvals(residual)).max())


def _residual(weights: Weights) -> Weights:
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise TopologyError(f"Weights of shape {weights.shape} are not of n peers.", "Give a square matrix, [n, n].")
    return weights - 1 / len(weights)
