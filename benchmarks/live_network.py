"""Founded networks of real nodes on loopback: what they cost, and what deaths, restarts and splits cost them.

    python benchmarks/live_network.py [--minutes 10] [--seconds 30] [--nodes 16] [--kills 5] [--split 60]

4, 8 and 16 nodes with a tiny model: rounds per second as fast as they go, then control traffic (all that is no update) at one
round a second. Then all of them (`random_regular:4`, LAN timers, two cores) train as fast as they can: nobody who lives may be
taken for dead; some are killed; each of those is started again. Last, a network behind proxies is cut in two halves and healed.
Every node is two processes with its own keys, sockets and folder, and writes down what it makes of the others; trainers are
forked from one zygote, and one is started without it besides. Exits with 1 where an asked number is missed.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import fmean, median
from time import monotonic

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

from node.admission.terms import Terms
from p2pfl.settings import GossipSection, OverlaySection, TaskSection, TrainingSection
from tests.founded_cluster import FoundedCluster, FoundedNode
from topology.overlay import watched

SIZES = (4, 8, 16)
CORES = 2
SETTLE_S = 10.0
RATIO_MAX = 1.25  # of control bytes per link and minute, 16 nodes to 4
FALSE_DEATHS_MAX = 0
DEATH_MAX_S = 15.0
RESTART_MAX_S = 5.0
HEALED_MAX_S = 90.0
TINY = Terms(
    task=TaskSection(model="softmax"), training=TrainingSection(local_steps=1), topology=OverlaySection(overlay="ring")
)
FULL = Terms(training=TrainingSection(local_epochs=1, batch_size=8), gossip=GossipSection(checkpoint_s=5.0))


@dataclass(frozen=True)
class Cost:
    """Of one node, on average. Bytes are before encryption."""

    rounds_per_s: float
    membership_per_min: float
    rest_per_min: float
    watched: float
    near: float

    @property
    def per_link(self) -> float:
        return self.membership_per_min / self.watched + self.rest_per_min / self.near


class Findings:
    """Ours beside the asked."""

    def __init__(self) -> None:
        self.missed = False

    def judge(self, what: str, found: float, asked: float, unit: str) -> None:
        is_met = found <= asked
        self.missed |= not is_met
        print(f"{what:58} {found:9.2f} {unit:3} asked {asked:g}{'' if is_met else '   MISSED'}", flush=True)

    def tell(self, what: str, found: float, unit: str) -> None:
        print(f"{what:58} {found:9.2f} {unit}", flush=True)


# ---- what it costs ----------------------------------------------------------------------------------------------------------


async def costs(seconds: float, sizes: Sequence[int], findings: Findings) -> None:
    print("bytes of control traffic a node and minute, at one round a second; the rest: greetings and credits")
    print(f"{'nodes':>6} {'rounds/s':>9} {'node-rounds/s':>14} {'membership':>11} {'the rest':>9} {'per link':>9}")
    found: list[Cost] = []
    for count in sizes:
        cost = await _cost(count, seconds)
        found.append(cost)
        print(
            f"{count:>6} {cost.rounds_per_s:>9.1f} {cost.rounds_per_s * count:>14.0f} {cost.membership_per_min:>11,.0f} "
            f"{cost.rest_per_min:>9,.0f} {cost.per_link:>9,.0f}   {cost.watched:.1f} watched, {cost.near:.1f} near",
            flush=True,
        )
    ratio = found[-1].per_link / found[0].per_link
    findings.judge(f"control bytes per link, {sizes[-1]} nodes to {sizes[0]}", ratio, RATIO_MAX, "")


async def _cost(count: int, seconds: float) -> Cost:
    terms = TINY.model_copy(update={"parts": count})
    with tempfile.TemporaryDirectory() as folder:
        async with FoundedCluster(count, Path(folder), terms) as cluster:
            await learning(cluster)
            before = [len(node.rounds) for node in cluster.nodes]
            began = monotonic()
            await cluster.pass_s(seconds)
            rate = fmean(len(node.rounds) - k for node, k in zip(cluster.nodes, before, strict=True)) / (monotonic() - began)
    with tempfile.TemporaryDirectory() as folder:
        async with FoundedCluster(count, Path(folder), terms, pace_s=1.0) as cluster:
            await learning(cluster)
            await cluster.pass_s(SETTLE_S)  # the rumors of the start
            before = [node.rounds[-1] for node in cluster.nodes]
            await cluster.pass_s(seconds)
            spans = [(first, node.rounds[-1]) for first, node in zip(before, cluster.nodes, strict=True)]
            live = [node.identity.peer_id for node in cluster.nodes]
            network = cluster.network_id
            return Cost(
                rate,
                fmean(60 * (b["membership"] - a["membership"]) / (b["t"] - a["t"]) for a, b in spans),
                fmean(60 * (_rest(b) - _rest(a)) / (b["t"] - a["t"]) for a, b in spans),
                fmean(len(watched(live, own, int.from_bytes(network[:8], "big"))) for own in live),
                fmean(len(cluster.near(node)) for node in cluster.nodes),
            )


def _rest(line: dict[str, int]) -> int:
    return line["all"] - line["bulk"] - line["membership"]


# ---- what goes wrong --------------------------------------------------------------------------------------------------------


async def lives(count: int, minutes: float, kills: int, findings: Findings) -> None:
    """Full load; deaths; restarts, under the same load."""
    with tempfile.TemporaryDirectory() as folder:
        async with FoundedCluster(count, Path(folder), FULL.model_copy(update={"parts": count})) as cluster:
            await learning(cluster)
            psutil.cpu_percent()
            began = monotonic()
            before = sum(len(node.rounds) for node in cluster.nodes)
            await cluster.pass_s(60 * minutes)
            took = monotonic() - began
            rate = (sum(len(node.rounds) for node in cluster.nodes) - before) / took
            print(f"{count} nodes train for {took / 60:.1f} minutes at full load, machine {psutil.cpu_percent():.0f} % busy")
            findings.tell("node-rounds per second", rate, "")
            judge_calm(cluster, began, findings)
            victims = cluster.nodes[:: max(1, count // kills)][:kills]
            await _deaths(cluster, victims, findings)
            await _restarts(cluster, victims, findings)


def judge_calm(cluster: FoundedCluster, since: float, findings: Findings) -> None:
    """Everybody lives, so that every suspicion is a mistake; one that ends in a death is a wrong one."""
    verdicts = [
        line["state"] for node in cluster.nodes for line in node.lines if line["what"] == "state" and line["t"] >= since
    ]
    suspicions, deaths = verdicts.count("suspected"), verdicts.count("dead")
    findings.tell("suspicions of nodes that live", suspicions, "")
    findings.tell("of them taken back", suspicions - deaths, "")
    findings.judge("false deaths", deaths, FALSE_DEATHS_MAX, "")


async def _deaths(cluster: FoundedCluster, victims: Sequence[FoundedNode], findings: Findings) -> None:
    killed_at = monotonic()
    for node in victims:
        cluster.kill(node)
    with suppress(AssertionError):  # then what was seen until now is not within what is asked
        await cluster.until(cluster.agree, limit_s=4 * DEATH_MAX_S)
    survivors = cluster.running
    took = sorted(_seen(node, victim, "dead", killed_at) for node in survivors for victim in victims)
    findings.tell(f"{len(victims)} of {len(cluster.nodes)} killed: known, median", median(took), "s")
    findings.judge("known to every survivor, p99", took[ceil(0.99 * len(took)) - 1], DEATH_MAX_S, "s")
    dead = {victim.name for victim in victims}
    wrong = sum(
        line["what"] == "state" and line["state"] == "dead" and line["t"] >= killed_at and line["peer"] not in dead
        for node in survivors
        for line in node.lines
    )
    findings.judge("false deaths meanwhile", wrong, FALSE_DEATHS_MAX, "")


async def _restarts(cluster: FoundedCluster, victims: Sequence[FoundedNode], findings: Findings) -> None:
    """One after the other; the last with a trainer that imports torch for itself, which only it waits for."""
    took = []
    for victim in victims[:-1]:
        cluster.start(victim)
        took.append(await _back(cluster, victim))
    findings.tell("restarted: trainer there, median", median(ready for ready, _ in took), "s")
    findings.judge("restarted: full member again, longest", max(whole for _, whole in took), RESTART_MAX_S, "s")
    findings.tell("of that, after its trainer was there, longest", max(whole - ready for ready, whole in took), "s")
    cluster.start(victims[-1], with_own_trainer=True)
    ready, whole = await _back(cluster, victims[-1])
    findings.tell("restarted without the zygote: torch imported, trainer there", ready, "s")
    findings.tell("full member again after that", whole - ready, "s")


async def _back(cluster: FoundedCluster, node: FoundedNode) -> tuple[float, float]:
    """Seconds from the start of its process until its trainer was there; and until it saw everybody, everybody saw it, and
    every neighbor had mixed an update of it."""
    others = [other for other in cluster.running if other is not node]
    near = [other for other in others if other.name in cluster.near(node)]

    def applied_by(other: FoundedNode) -> float:
        return min(
            (line["t"] for line in other.rounds if line["t"] > node.started_at and node.name in line["applied"]), default=0
        )

    await cluster.until(lambda: cluster.agree() and all(applied_by(other) for other in near))
    assert node.ready_at is not None
    moments = [applied_by(other) - node.started_at for other in near]
    moments += [_seen(other, node, "alive", node.started_at) for other in others]
    moments += [_seen(node, other, "alive", node.started_at) for other in others]
    return node.ready_at - node.started_at, max(moments)


async def split(count: int, seconds: float, findings: Findings) -> None:
    terms = TINY.model_copy(update={"parts": count, "topology": FULL.topology})
    with tempfile.TemporaryDirectory() as folder:
        async with FoundedCluster(count, Path(folder), terms, pace_s=1.0, behind_proxies=True) as cluster:
            await learning(cluster)
            sides = cluster.nodes[: count // 2], cluster.nodes[count // 2 :]
            cluster.split(*sides)
            began = monotonic()
            await cluster.until(
                lambda: all(
                    node.states[other.name] == "dead"
                    for side in sides
                    for node in side
                    for other in cluster.nodes
                    if other not in side
                ),
                limit_s=60.0,
            )
            findings.tell(
                f"{count // 2}|{count - count // 2} split: all of the other side dead in every view", monotonic() - began, "s"
            )
            await cluster.pass_s(max(0.0, began + seconds - monotonic()))
            cluster.heal()
            took = await cluster.until(cluster.agree, limit_s=3 * HEALED_MAX_S)
            findings.judge(f"healed after {seconds:.0f} s: full views everywhere", took, HEALED_MAX_S, "s")
            findings.tell("and an update of every neighbor mixed by everybody after", await learning(cluster), "s")


async def learning(cluster: FoundedCluster) -> float:
    """Wait until everybody has mixed an update of every neighbor from now on; how long it took."""
    since = monotonic()

    def has_mixed(node: FoundedNode) -> bool:
        recent = {peer for line in node.rounds if line["t"] > since for peer in line["applied"]}
        return cluster.near(node) <= recent

    return await cluster.until(lambda: all(has_mixed(node) for node in cluster.running))


def _seen(node: FoundedNode, other: FoundedNode, state: str, since: float) -> float:
    """How long after that moment this node's view first had the other in this state; infinite where it never did."""
    for line in node.lines:
        if line["what"] == "state" and line["t"] >= since and (line["peer"], line["state"]) == (other.name, state):
            return float(line["t"]) - since
    return float("inf")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training at full load")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each measurement of cost")
    parser.add_argument("--nodes", type=int, default=16)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--split", type=float, default=60.0, help="seconds")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    findings = Findings()
    sizes = [size for size in SIZES if size <= arguments.nodes]
    asyncio.run(costs(arguments.seconds, sizes, findings))
    asyncio.run(lives(arguments.nodes, arguments.minutes, arguments.kills, findings))
    asyncio.run(split(arguments.nodes, arguments.split, findings))
    return int(findings.missed)


if __name__ == "__main__":
    sys.exit(main())
