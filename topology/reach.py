"""How far news travels on a graph."""

from functools import reduce
from operator import or_

from topology.families import Graph
from topology.weights import senders


def diameter(graph: Graph) -> int:
    """The rounds of gossip after which everyone has heard from everyone. For connected graphs.

    Followed as gossip would be: whom a peer has heard from is one integer, a bit a peer, so a round is one `or` an edge.
    """
    neighbors = senders(graph)
    everyone = (1 << len(neighbors)) - 1
    heard = [1 << i for i in range(len(neighbors))]
    rounds = 0
    while any(peers != everyone for peers in heard):
        heard = [reduce(or_, (heard[j] for j in row), heard[i]) for i, row in enumerate(neighbors)]
        rounds += 1
    return rounds
