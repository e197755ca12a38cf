"""D-SGD in the order adapt-then-combine: x_i <- sum_j W_ij (x_j - eta g_j(x_j)), with K local steps for one.

Lian et al., "Can decentralized algorithms outperform centralized algorithms?", NeurIPS 2017, in the diffusion order of
Sayed, "Adaptation, Learning, and Optimization over Networks", 2014, section 7. Combining first, x_i <- sum_j W_ij x_j -
eta g_i(x_i), has another fixed point: with a constant step size and differing data the order matters. Under a doubly
stochastic W every peer's objective counts the same, however much data it holds.
"""

from p2pfl.learning.algorithms.algorithm import Algorithm

DSGD = Algorithm(
    init=lambda first: first,
    local=lambda x, descend: descend(x),
    outgoing=lambda y: y,
    combine=lambda y, mixed: mixed,
)
