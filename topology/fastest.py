"""The edge weights on which gossip contracts most: minimize ‖I - Σ w_e b_e b_eᵀ - J‖₂ over the weights w (FDLA).

Xiao and Boyd, Fast linear iterations for distributed averaging, Systems and Control Letters 53 (2004). It is a semidefinite
program; as b_e has two entries only, +1 and -1 at the ends of edge e, the Newton steps of a barrier method need no more than
the inverses of two [n, n] matrices, and a convex solver would be a dependency for this one function.

J is the matrix with 1/n everywhere, L the Laplacian, μ₂ and μₙ its least eigenvalue but one and its largest.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topology.errors import TopologyError

Matrix = NDArray[np.float64]

TOLERANCE = 1e-8  # of the contraction, above the optimum: the duality gap at which the optimization ends
EDGES_MAX = 2000  # a Newton step solves for so many unknowns, and there are about 40: minutes
_STEPS_MAX = 100  # of one centering; each takes fewer than ten


def fastest(laplacian: Matrix, edges: Sequence[tuple[int, int]]) -> list[float]:
    """The weight of every edge, of a connected graph on 0..n-1."""
    constant = best_constant(laplacian)
    if _constant_is_optimal(laplacian, edges):
        return [constant] * len(edges)
    if len(edges) > EDGES_MAX:
        message = f"The fastest weights of {len(edges)} edges would take minutes; {EDGES_MAX} is the limit."
        raise TopologyError(message, 'Use the weights "best_constant".')
    return _optimized(len(laplacian), np.array(edges), constant)


def best_constant(laplacian: Matrix) -> float:
    """2 / (μ₂ + μₙ)."""
    if len(laplacian) == 1:
        return 0.0
    spectrum = np.linalg.eigvalsh(laplacian)
    return float(2 / (spectrum[1] + spectrum[-1]))


def laplacian(neighbors: Sequence[Sequence[int]]) -> Matrix:
    """Degrees on the diagonal, -1 for every edge: [n, n]."""
    matrix = np.zeros((len(neighbors), len(neighbors)))
    for i, row in enumerate(neighbors):
        matrix[i, list(row)] = -1
        matrix[i, i] = len(row)
    return matrix


def _constant_is_optimal(laplacian: Matrix, edges: Sequence[tuple[int, int]]) -> bool:
    """Whether the dual problem certifies the best constant weights.

    The dual point is Y = θ E₂/d₂ - (1-θ) Eₙ/dₙ with θ = μₙ / (μ₂ + μₙ), where E project on the eigenspaces of μ₂ and μₙ, and
    d are their dimensions. It is as good as the best constant; and feasible if bᵀYb = 0 on every edge, which is so on
    edge-transitive graphs, and on paths.
    """
    if len(laplacian) <= 2:
        return True
    spectrum, vectors = np.linalg.eigh(laplacian)
    slow, fast = spectrum[1], spectrum[-1]
    near = 1e-9 * fast

    def density(at: float) -> Matrix:
        space = vectors[:, 1:][:, np.abs(spectrum[1:] - at) <= near]
        i, j = np.array(edges).T
        return np.asarray(((space[i] - space[j]) ** 2).sum(axis=1) / space.shape[1])

    return bool(np.allclose(fast * density(slow), slow * density(fast), rtol=0, atol=1e-9 * fast))


def _optimized(n: int, edges: NDArray[np.int64], start: float) -> list[float]:
    """Minimize s where -s I < A(w) < s I, by a barrier; at its center for the parameter t the duality gap is 2n / t."""
    weights = np.full(len(edges), start)
    s = 1.1 * float(np.abs(np.linalg.eigvalsh(_residual(n, edges, weights))).max()) + 1e-3
    t = 2 * n / s
    while True:
        s, weights = _centered(n, edges, s, weights, t)
        if 2 * n / t <= TOLERANCE:
            return weights.tolist()
        t *= 20


def _centered(n: int, edges: NDArray[np.int64], s: float, weights: Matrix, t: float) -> tuple[float, Matrix]:
    """Newton's method on t s - log det(s I - A) - log det(s I + A), A = I - J - Σ w_e b_e b_eᵀ."""
    i, j = edges.T
    value = _barrier(n, edges, s, weights, t)
    for _ in range(_STEPS_MAX):
        A = _residual(n, edges, weights)
        gradient = np.array([t, *np.zeros(len(edges))])
        hessian = np.zeros((len(edges) + 1, len(edges) + 1))
        for sign in (1, -1):  # of A, and of d(sI ∓ A)/dw_e = ± b_e b_eᵀ
            inverse = np.linalg.inv(s * np.eye(n) - sign * A)
            B = inverse[:, i] - inverse[:, j]  # the inverse times b_e, a column an edge
            inner = B[i] - B[j]
            gradient[0] -= inverse.trace()
            gradient[1:] -= sign * inner.diagonal()
            hessian[0, 0] += (inverse**2).sum()
            hessian[0, 1:] += sign * (B**2).sum(axis=0)
            hessian[1:, 1:] += inner**2
        hessian[1:, 0] = hessian[0, 1:]
        step = np.linalg.solve(hessian, -gradient)
        decrement = float(-gradient @ step)
        if decrement < 1e-8:
            break
        length = 1.0
        while not (lower := _barrier(n, edges, s + length * step[0], weights + length * step[1:], t)) < value:
            length /= 2
            if length < 1e-9:  # what is left to gain is below rounding
                return s, weights
        s, weights, value = s + length * step[0], weights + length * step[1:], lower
    return float(s), weights


def _barrier(n: int, edges: NDArray[np.int64], s: float, weights: Matrix, t: float) -> float:
    A = _residual(n, edges, weights)
    try:
        factors = [np.linalg.cholesky(s * np.eye(n) - sign * A) for sign in (1, -1)]
    except np.linalg.LinAlgError:  # outside: an eigenvalue is as large as s
        return np.inf
    return float(t * s - 2 * sum(np.log(factor.diagonal()).sum() for factor in factors))


def _residual(n: int, edges: NDArray[np.int64], weights: Matrix) -> Matrix:
    A = np.eye(n) - 1 / n
    i, j = edges.T
    A[i, j] += weights
    A[j, i] += weights
    np.subtract.at(A, (i, i), weights)
    np.subtract.at(A, (j, j), weights)
    return A
