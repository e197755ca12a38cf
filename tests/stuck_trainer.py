"""A trainer without torch that gets stuck: `python -m tests.stuck_trainer FD`. It carries out its first Learn; at the second it
hangs, or ends as the file `end` in its data folder says: the number of a signal, or a code behind a "c"."""

import os
import signal
import socket
import sys
from pathlib import Path

from node.training.channel import Channel, ChannelClosed
from node.training.orders import LearnAnswer, LearnOrder, Prepare, Ready, UseArena, order_from, to_message


def serve(end: socket.socket) -> None:
    channel, learned, folder = Channel(end), 0, Path()
    while True:
        match order_from(channel.receive()):
            case Prepare(data_directory=directory):
                folder = Path(directory)
                ready = Ready(b"s" * 32, 8, 1, 1, 2, (), (), (), os.getpid(), True)
                channel.send(to_message(ready))
            case UseArena():
                channel.received_fd()
            case LearnOrder(step) if learned == 0:
                learned += 1
                channel.send(to_message(LearnAnswer(step, 8, (), {})))
            case _:
                get_stuck(folder)


def get_stuck(folder: Path) -> None:
    how = folder / "end"
    if not how.exists():
        signal.pause()
    elif how.read_text().startswith("c"):
        os._exit(int(how.read_text()[1:]))
    else:
        os.kill(os.getpid(), int(how.read_text()))


if __name__ == "__main__":
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except ChannelClosed:
        sys.exit()
