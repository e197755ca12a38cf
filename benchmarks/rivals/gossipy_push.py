"""Gossip learning by the public package gossipy-dfl, in an environment of its own; `benchmarks/gossip_learning.py` runs it.

python gossipy_push.py DATA.npz ROUNDS mean|age LEARNING_RATE BATCH ANSWER.json

Everything is the package's own: "mean" is its plain node, which takes the mean of its model and one that comes; "age" its
partitioned node with a single part, which weighs them by age and divides the gradient by the age.
"""

import json
import logging
import sys
from pathlib import Path
from time import process_time

import numpy as np
import torch
from gossipy import LOG, set_seed
from gossipy.core import AntiEntropyProtocol, ConstantDelay, CreateModelMode, StaticP2PNetwork
from gossipy.data import DataDispatcher
from gossipy.data.handler import ClassificationDataHandler
from gossipy.model.handler import PartitionedTMH, TorchModelHandler
from gossipy.model.nn import LogisticRegression
from gossipy.model.sampling import TorchModelPartition
from gossipy.node import GossipNode, PartitioningBasedNode
from gossipy.simul import GossipSimulator

TICKS = 100  # of a round, as in its own examples

data, rounds, kind, rate, batch, answer = sys.argv[1:]
torch.set_num_threads(1)
LOG.setLevel(logging.ERROR)
set_seed(7)
given = np.load(data)
peers, rows = given["inputs"].shape[:2]
net = LogisticRegression(given["inputs"].shape[2], int(given["targets"].max()) + 1)
with torch.no_grad():
    net.model.weight.copy_(torch.from_numpy(given["weight"]))
    net.model.bias.copy_(torch.from_numpy(given["bias"]))
inputs, targets = (torch.from_numpy(given[name]).flatten(0, 1) for name in ("inputs", "targets"))
dispatcher = DataDispatcher(
    ClassificationDataHandler(inputs, targets, None, None, 0), n=peers, eval_on_user=False, auto_assign=False
)
dispatcher.set_assignments([list(range(i * rows, (i + 1) * rows)) for i in range(peers)], None)
training = {
    "optimizer": torch.optim.SGD,
    "optimizer_params": {"lr": float(rate)},
    "criterion": torch.nn.CrossEntropyLoss(),
    "local_epochs": 1,
    "batch_size": int(batch),
    "create_model_mode": CreateModelMode.MERGE_UPDATE,
}
if kind == "age":
    made = PartitioningBasedNode, PartitionedTMH(net, TorchModelPartition(net, 1), **training)
else:
    made = GossipNode, TorchModelHandler(net, **training)
nodes = made[0].generate(dispatcher, StaticP2PNetwork(peers, given["adjacency"]), made[1], round_len=TICKS, sync=True)
simulator = GossipSimulator(nodes, dispatcher, TICKS, AntiEntropyProtocol.PUSH, delay=ConstantDelay(0))
simulator.init_nodes()
began = process_time()
simulator.start(int(rounds))
seconds = process_time() - began

test, labels = torch.from_numpy(given["test_inputs"]), torch.from_numpy(given["test_targets"])
with torch.no_grad():
    right = [float((node.model_handler.model(test).argmax(dim=1) == labels).float().mean()) for node in nodes.values()]
Path(answer).write_text(json.dumps({"seconds": seconds, "accuracy": float(np.mean(right))}))
