"""One update of 16 MB from the trained vector of one peer to the decoded vector of its neighbor: two pairs of real processes on
loopback, signed, sealed in chunks, over CURVE.

python benchmarks/one_update.py [--megabytes 16] [--rounds 8]

What is timed begins when the sender's network process has the trained, encoded vector, and ends when the receiver's has heard
from its trainer that the vector was decoded; the receiver's mixing, measuring and encoding anew are in between and count
against us. Beside it: the same bytes over raw CURVE ZeroMQ in chunks of 1 MiB, and copied once in memory.
"""

import argparse
import asyncio
import os
import socket
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Thread
from time import monotonic, perf_counter
from typing import Any

import zmq

from node import processes, setup
from node.channel import LoopChannel
from node.directory import NodeDirectory
from node.entropy import SystemEntropy
from node.local import local_network
from node.network import STOP
from node.network_file import sections_of
from node.setup import Setup

ASKED = 100.0  # MB/s
HIDDEN = 64  # of the bundled mlp: this many parameters a feature
PACE_S = 0.7


async def ours(megabytes: int, rounds: int, directory: Path) -> list[float]:
    """Seconds that each update took."""
    features = megabytes * 1_000_000 // (4 * HIDDEN)
    network, identities = local_network(
        ["sender", "receiver"],
        name="one update",
        rounds=rounds,
        task={"name": "synthetic", "features": features, "samples": 20, "classes": 2},
        training={"local_steps": 0},
        gossip={"ceiling_s": 5.0},
    )
    sender, receiver = (member.id for member in network.members)
    neighborhoods = [((receiver,), {sender: 1.0}), ((), {sender: 0.5, receiver: 0.5})]
    loop = asyncio.get_running_loop()
    rounds_ended: list[dict[int, float]] = [{}, {}]
    over = [loop.create_future(), loop.create_future()]
    channels, running = [], []
    for index, (send_to, weights) in enumerate(neighborhoods):
        folder = NodeDirectory(directory / str(index))
        folder.create()
        mine, theirs = socket.socketpair()
        told = Setup(
            network=network.name,
            index=index,
            members=network.members,
            secrets_fd=setup.hold(identities[index].to_bytes(None, SystemEntropy())),
            listen=network.members[index].address,
            directory=str(folder.path),
            seed=network.seed,
            gossip=network.rules,
            send_to=send_to,
            weights=weights,
            **sections_of(network),
            parent_fd=theirs.fileno(),
        )
        fd = setup.to_fd(replace(told, pace_s=PACE_S) if index == 0 else told)
        running.append(processes.start("node.network", fd, (told.secrets_fd, theirs.fileno()), own_group=True))
        os.close(fd)
        os.close(told.secrets_fd)
        theirs.close()

        def said(message: Any, index: int = index) -> None:
            if message[0] == "round":
                rounds_ended[index][message[1]["step"]] = monotonic()
                if message[1]["step"] == rounds and not over[index].done():
                    over[index].set_result(None)

        channels.append(LoopChannel(loop, mine, said, lambda: None))
    await asyncio.gather(*over)
    for channel in channels:
        channel.send(STOP)
    for process in running:
        await loop.run_in_executor(None, process.wait)
    for channel in channels:
        channel.close()
    sent, arrived = rounds_ended
    return [arrived[step + 1] - sent[step] for step in range(1, rounds) if step + 1 in arrived]


def raw_curve(megabytes: int) -> float:
    """MB/s of raw ZeroMQ under CURVE, in chunks of 1 MiB."""
    chunk, count = bytes(1 << 20), max(1, megabytes * 1_000_000 >> 20) * 4
    context = zmq.Context()
    server_public, server_secret = zmq.curve_keypair()
    client_public, client_secret = zmq.curve_keypair()
    pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    pull.curve_server, pull.curve_secretkey, pull.curve_publickey = True, server_secret, server_public
    push.curve_serverkey, push.curve_publickey, push.curve_secretkey = server_public, client_public, client_secret
    port = pull.bind_to_random_port("tcp://127.0.0.1")
    push.connect(f"tcp://127.0.0.1:{port}")
    push.send(b"warm")
    pull.recv()
    begin = perf_counter()
    thread = Thread(target=lambda: [push.send(chunk, copy=False) for _ in range(count)])
    thread.start()
    for _ in range(count):
        pull.recv(copy=False)
    seconds = perf_counter() - begin
    thread.join()
    context.destroy(linger=0)
    return count * len(chunk) / 1e6 / seconds


def memory_copy(megabytes: int) -> float:
    """MB/s of one copy into memory that is already there."""
    source, target = bytearray(megabytes * 1_000_000), bytearray(megabytes * 1_000_000)
    memoryview(target)[:] = source
    begin = perf_counter()
    memoryview(target)[:] = source
    return len(source) / 1e6 / (perf_counter() - begin)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        seconds = asyncio.run(ours(arguments.megabytes, arguments.rounds, Path(directory)))
    middle = median(seconds)
    rate, curve = arguments.megabytes / middle, raw_curve(arguments.megabytes)
    print(f"one update of {arguments.megabytes} MB, end to end   {rate:8.0f} MB/s   (asked {ASKED:.0f}; median {middle:.3f} s)")
    print(f"raw CURVE ZeroMQ, 1 MiB chunks   {curve:8.0f} MB/s   ours is {rate / curve:.0%} of it")
    print(f"one copy in memory               {memory_copy(arguments.megabytes):8.0f} MB/s")
    return int(rate < ASKED)


if __name__ == "__main__":
    sys.exit(main())
