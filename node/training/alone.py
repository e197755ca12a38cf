"""What every peer would reach by itself: the same first model, data, minibatches and steps, and nothing mixed in.

The number that says why one gossips. It runs beside the peers at the lowest priority, as a job of the zygote.
"""

import os
import signal
import socket
from math import nan

from node.training.channel import Channel, ChannelClosed
from node.training.orders import Prepare, order_from
from node.training.trainer import learner_of
from p2pfl.failure import Failure
from p2pfl.protocol.events import Learn

NICENESS = 19


def serve(end: socket.socket) -> None:
    """Gets (rounds, preparations); says (index, accuracies of rows 0..rounds) for every peer, then ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICENESS)
    channel = Channel(end)
    try:
        rounds, preparations = channel.receive()
        for message in preparations:
            order = order_from(message)
            assert isinstance(order, Prepare)
            channel.send((order.index, accuracies(order, rounds)))
    except (ChannelClosed, Failure):  # the peers themselves say what is wrong with the task
        return


def accuracies(order: Prepare, rounds: int) -> list[float]:
    """Accuracy before training and after each round, NaN where the task measures none or learning failed."""
    from p2pfl.learning.learner import LearningFailed

    _, _, learner = learner_of(order)
    state = learner.first()
    found: list[float] = []
    for step in range(rounds + 1):
        steps = learner.local_steps if step < rounds else 0
        try:
            state, computed = learner.learn(state, Learn(step, 0, (), {}, steps, evaluate=True))
        except LearningFailed:
            return found + [nan] * (rounds + 1 - len(found))
        found.append(float(computed.metrics.get("accuracy", nan)))
    return found
