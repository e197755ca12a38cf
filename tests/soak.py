"""Six real nodes under random faults, for as long as one likes: `python -m tests.soak [--minutes M] [--seed S]`.

Two of them are never killed: their memory and descriptors must not grow. In the end everything is mended, every model is
finite, what is sent in the calm arrives, and every update of the whole run is accounted for.
"""

import argparse
import asyncio
import random
import secrets
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from safetensors.numpy import load_file

from tests import history
from tests.cluster import Cluster, Node
from tests.history import Balance

NODES = 6
OLD = 2  # nodes that are never killed
CALM_S = 5.0
MEMORY_MAX = 12 << 20  # bytes that a process may be larger in the last third of its life than in the first
DESCRIPTORS_MAX = 4.0  # and descriptors


@dataclass
class Sample:
    """Of one process, over time."""

    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def growth(self) -> tuple[float, float]:
        """Between the medians of the first and the last third, without the very beginning."""
        return _growth(self.memory), _growth(self.descriptors)


class Soak:
    """`run` plays faults for `seconds` and returns the balance, or raises."""

    def __init__(self, directory: Path, seconds: float, seed: int, say: Callable[[str], object] = print) -> None:
        self.cluster = Cluster(NODES, directory, topology="random_regular:4", pace_s=0.2)
        self.samples = {node.index: Sample() for node in self.cluster.nodes[:OLD]}
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._say = say
        self._broken: set[int] = set()  # nodes that a fault has now

    async def run(self) -> Balance:
        loop = asyncio.get_running_loop()
        async with self.cluster as cluster:
            await cluster.hear_each_other()
            over = loop.time() + self._seconds
            watching = asyncio.create_task(self._watch())
            faults: set[asyncio.Task[None]] = set()
            while loop.time() < over:
                fault = asyncio.create_task(self._fault())
                faults.add(fault)
                await asyncio.sleep(self._chance.uniform(0.5, 3.0))
                for done in [task for task in faults if task.done()]:
                    faults.remove(done)
                    done.result()
            await asyncio.gather(*faults)
            watching.cancel()
            return await self._end()

    # ---- faults -------------------------------------------------------------------------------------------------------------

    async def _fault(self) -> None:
        """One, at a node that has none, for a while."""
        whole = [node for node in self.cluster.nodes if node.index not in self._broken]
        if len(whole) < 3:
            return
        node = self._chance.choice(whole)
        self._broken.add(node.index)
        try:
            faults = [self._sleep, self._cut, self._deaf, self._reset, self._slow, self._corrupt, self._lose_trainer]
            fault = self._chance.choice(faults if node.index < OLD else [*faults, self._die, self._die, self._stop])
            self._say(f"{fault.__name__[1:]:13} node {node.index} at step {node.step}")
            await fault(node)
        finally:
            self._broken.discard(node.index)

    async def _while(self, low: float, high: float) -> None:
        await asyncio.sleep(self._chance.uniform(low, high))

    async def _die(self, node: Node) -> None:
        self.cluster.kill(node)
        await self._while(0, 4)
        await self.cluster.restart(node)

    async def _stop(self, node: Node) -> None:
        await self.cluster.stop(node)
        await self._while(0, 4)
        await self.cluster.restart(node)

    async def _sleep(self, node: Node) -> None:
        self.cluster.pause(node)
        await self._while(0.2, 5)
        self.cluster.resume(node)

    async def _cut(self, node: Node) -> None:
        others = [other for other in self.cluster.nodes if other is not node]
        self.cluster.split([node], others)
        await self._while(0.2, 5)
        self._mend(node)

    async def _deaf(self, node: Node) -> None:
        other = self._chance.choice([other for other in self.cluster.nodes if other is not node])
        self.cluster.cut(other, node)
        await self._while(0.5, 5)
        self._mend(node)

    async def _reset(self, node: Node) -> None:
        node.proxy.reset()

    async def _slow(self, node: Node) -> None:
        for other in self.cluster.nodes:
            way = node.proxy.toward(other.name)
            way.delay_s, way.jitter_s, way.slice_bytes = 0.1, 0.2, self._chance.choice([100, 1000, 1 << 16])
        await self._while(1, 5)
        self._mend(node)

    async def _corrupt(self, node: Node) -> None:
        for other in self.cluster.nodes:
            node.proxy.toward(other.name).flips = 1
        await self._while(0.5, 2)
        self._mend(node)

    async def _lose_trainer(self, node: Node) -> None:
        with suppress(ProcessLookupError):
            psutil.Process(int(node.ready["pid"])).send_signal(signal.SIGKILL)
        await self._while(1, 3)

    def _mend(self, node: Node) -> None:
        """What was done to it, at its own proxy and at those of the others."""
        node.proxy.heal()
        for other in self.cluster.nodes:
            other.proxy.heal(node.name)

    # ---- what must hold ------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Memory and descriptors of the network processes that are never killed."""
        while True:
            for index, sample in self.samples.items():
                process = self.cluster.nodes[index].process
                assert process is not None
                looked = psutil.Process(process.pid)
                sample.memory.append(looked.memory_info().rss)
                sample.descriptors.append(looked.num_fds())
            await asyncio.sleep(0.5)

    async def _end(self) -> Balance:
        """All is well again, and stays so for a while; then all stop."""
        cluster = self.cluster
        cluster.heal()
        await cluster.hear_each_other()
        begin = asyncio.get_running_loop().time()  # the clock of the histories
        await asyncio.sleep(CALM_S)
        end = asyncio.get_running_loop().time()
        await cluster.stop(*cluster.nodes)
        balance = history.checked(cluster.histories())
        late = [m for m in balance.missing if begin + 1 < m.sent_at < end - 1]
        assert not late, f"sent in the calm, and never got there: {late}"
        for node in cluster.nodes:
            for name, array in load_file(node.folder / "model.safetensors").items():
                assert np.isfinite(array).all(), f"{name} of node {node.index} is not finite"
        for index, sample in self.samples.items():
            memory, descriptors = sample.growth()
            assert memory <= MEMORY_MAX, f"node {index} grew by {memory / 1e6:.1f} MB: {sample.memory}"
            assert descriptors <= DESCRIPTORS_MAX, f"node {index} has {descriptors} descriptors more: {sample.descriptors}"
        return balance


def _growth(values: list[int]) -> float:
    settled = values[len(values) // 10 :]
    third = max(1, len(settled) // 3)
    return statistics.median(settled[-third:]) - statistics.median(settled[:third])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}: the faults again with --seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        soak = Soak(Path(directory), 60 * arguments.minutes, arguments.seed, lambda text: print(text, flush=True))
        balance = asyncio.run(soak.run())
    for index, sample in soak.samples.items():
        memory, descriptors = sample.growth()
        print(f"node {index}: {memory / 1e6:+.1f} MB, {descriptors:+.1f} descriptors, of {sample.memory[-1] / 1e6:.0f} MB")
    print(f"{balance.lives} lives of {NODES} nodes; every update is accounted for:")
    print(
        f"sent {balance.sent} = applied {balance.applied} + rejected {balance.rejected} + superseded {balance.superseded} + "
        f"lost {balance.lost} + held {balance.held} + died with a process {balance.died} + lost on links {len(balance.missing)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
