"""Algorithms of decentralised learning, one paper a file: pure functions on flat vectors, and the table of them.

Every function is elementwise, so that it runs on one vector [D], on all peers [peers, D] and on one layer of all peers alike.
"""

from p2pfl.learning.algorithms.algorithm import Algorithm
from p2pfl.learning.algorithms.dsgd import DSGD

ALGORITHMS: dict[str, Algorithm] = {"dsgd": DSGD}

__all__ = ["ALGORITHMS", "Algorithm"]
