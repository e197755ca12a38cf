"""The simulator from Python: which graph brings eight unlike peers together fastest?

python examples/python_api.py
"""

import networkx as nx

from sim import Scenario, run
from topology import contraction, metropolis_weights

graphs = {"ring": nx.cycle_graph(8), "cube": nx.hypercube_graph(3), "complete": nx.complete_graph(8)}

if __name__ == "__main__":
    print("graph      contraction  accuracy   alone  consensus    kB sent")
    for name, graph in graphs.items():
        scenario = Scenario(task="digits", topology=graph, partition="shards:2", rounds=10, local_steps=5, seed=7)
        result = run(scenario, engine="batch")
        rate, together, alone = (
            contraction(metropolis_weights(graph)),
            result.accuracy[-1].mean(),
            result.alone_accuracy[-1].mean(),
        )
        sent = result.bytes_sent.sum() / 1000
        print(f"{name:<10} {rate:>11.3f} {together:>9.3f} {alone:>7.3f} {result.consensus_distance[-1]:>10.3f} {sent:>10.0f}")
