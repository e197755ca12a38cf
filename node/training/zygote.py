"""Forks the trainers of several peers on one machine: torch is imported once, its memory is shared, and a trainer is there in
milliseconds. `python -m node.training.zygote FD` gets one byte and one socket for each: what to fork, and its channel.

It must never have a second thread, nor have run anything of torch's, because neither survives a fork. It ends when everyone
who could ask is gone. Network processes are never forked from it.
"""

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

TRAINER = b"t"
ALONE = b"a"


def serve(requests: socket.socket) -> None:
    """Fork until the last sender is gone."""
    import safetensors.numpy  # noqa: F401 (every fork needs it)
    import torch

    import p2pfl.learning.learner
    import p2pfl.learning.tasks
    import p2pfl.task_file  # noqa: F401
    from node.training import alone, trainer

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is there by now is shared; a collection must not write to it
    works = {TRAINER: trainer.serve, ALONE: alone.serve}
    children: set[int] = set()
    while True:
        kind, fds, _, _ = socket.recv_fds(requests, 1, 1)
        if not kind:
            return _end(children)
        work = works[kind]
        child = os.fork()
        if child == 0:
            requests.close()
            _run(work, socket.socket(fileno=fds[0]))
        children.add(child)
        os.close(fds[0])


def _run(work: Callable[[socket.socket], None], end: socket.socket) -> NoReturn:
    """In the fork: whatever happens, never return into the zygote's loop."""
    code = 1
    try:
        work(end)
        code = 0
    except BaseException:  # noqa: BLE001 (the edge of a process: shown, and its exit code)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end(children: set[int]) -> None:
    """Whoever is still computing computes for nobody. Until they are waited for, their numbers are nobody else's."""
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
