"""What mixing weights imply: how fast peers agree.

J is the matrix with 1/n everywhere, a perfect mean. W - J is what a round leaves of the disagreement.
"""

import numpy as np

from topology.errors import TopologyError
from topology.families import Graph, at_least
from topology.fastest import laplacian
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


def relabelled_contraction(weights: Weights) -> float:
    """(tr(WᵀW) − 1) / (n − 1): of the peers' variance, what a round leaves in expectation if they change places at random.

    Of the variance, so to be compared with the square of `contraction`, which it never exceeds. Rows must sum to 1, and
    columns too.
    """
    _residual(weights)
    n = len(weights)
    return (float((weights**2).sum()) - 1) / (n - 1) if n > 1 else 0.0


def noise_floor(weights: Weights) -> float:
    """What gossip leaves of noise for ever: n times the variance of the peers if everyone adds noise of variance 1 a round.

    The limit of E‖x − x̄‖² under x ← W(x + noise): Σ ‖(W − J)ᵗ‖²_F over t ≥ 1, which is the sum of λ² / (1 − λ²) over all
    eigenvalues but one 1 where W is symmetric. For doubly stochastic weights. Costs n³.
    """
    residual = _residual(weights)
    if np.array_equal(residual, residual.T):
        squared = np.linalg.eigvalsh(residual) ** 2
        _refuse_if_noise_stays(float(squared.max()))
        return float((squared / (1 - squared)).sum())
    _refuse_if_noise_stays(1 - spectral_gap(weights))
    power, total = residual, residual @ residual.T  # of the first t powers, doubling t
    while np.linalg.norm(power) > 1e-12:
        total = total + power @ total @ power.T
        power = power @ power
    return float(total.trace())


def algebraic_connectivity(graph: Graph) -> float:
    """μ₂, the second smallest eigenvalue of the Laplacian (Fiedler 1973): 0 where the graph is in parts. Costs n³.

    For undirected graphs.
    """
    if graph.is_directed():
        raise TopologyError("A directed graph has no algebraic connectivity.", "Give an undirected one.")
    at_least(2, peers=len(graph))
    place = {node: i for i, node in enumerate(sorted(graph))}
    neighbors = [[place[j] for j in graph.adj[node] if j != node] for node in place]
    return max(0.0, float(np.linalg.eigvalsh(laplacian(neighbors))[1]))


def _refuse_if_noise_stays(modulus: float) -> None:
    if modulus >= 1 - 1e-12:
        raise TopologyError("The noise would grow for ever: the peers never agree.", "Give weights of contraction below 1.")


def _residual(weights: Weights) -> Weights:
    if weights.ndim != 2 or weights.shape[0] != weights.shape[1] or not weights.size:
        raise TopologyError(f"Weights of shape {weights.shape} are not of n peers.", "Give a square matrix, [n, n].")
    return weights - 1 / len(weights)
