"""Founded networks of real nodes whose network fails them: who is taken for dead, and how soon all is well again."""

from pathlib import Path

import pytest

from node.admission.terms import Terms
from p2pfl.settings import GossipSection, OverlaySection, TaskSection, TrainingSection
from tests.cluster import benched
from tests.founded_cluster import FoundedCluster, FoundedNode

pytestmark = pytest.mark.net
TERMS = Terms(
    parts=4,
    task=TaskSection(model="softmax"),
    training=TrainingSection(local_steps=2),
    topology=OverlaySection(overlay="complete"),
    gossip=GossipSection(floor_s=0.5, ceiling_s=20.0, checkpoint_s=1.0),
)


def verdicts(cluster: FoundedCluster, state: str) -> list[tuple[int, str]]:
    """Who ever had whom in this state."""
    return [
        (node.index, line["peer"])
        for node in cluster.nodes
        for line in node.lines
        if line["what"] == "state" and line["state"] == state
    ]


async def mixed_by_all(cluster: FoundedCluster, *of: FoundedNode, times: int = 1) -> None:
    """Until everybody has mixed so many updates more of each of these."""
    began = {node.index: len(node.rounds) for node in cluster.nodes}

    def has_mixed(node: FoundedNode, other: FoundedNode) -> bool:
        return sum(other.name in line["applied"] for line in node.rounds[began[node.index] :]) >= times

    await cluster.until(lambda: all(has_mixed(node, other) for node in cluster.nodes for other in of if other is not node))


@pytest.mark.fault("slow links")
@pytest.mark.slow
@benched(180)
async def test_a_member_behind_64_kbit_a_second_and_two_seconds_of_latency_is_never_dead_and_nothing_piles_up(
    tmp_path: Path,
) -> None:
    """FAULTS 51: 2 s there and back, 1 s more or less, pieces of 500 bytes; timers for members far apart."""
    terms = TERMS.model_copy(update={"topology": OverlaySection(overlay="complete", timers="edge")})
    async with FoundedCluster(4, tmp_path, terms, pace_s=0.2, behind_proxies=True) as cluster:
        far, *others = cluster.nodes
        await mixed_by_all(cluster, *cluster.nodes)
        for one, other in ((far, other) for other in others):
            for way in (
                one.proxy.toward(other.name),
                one.proxy.back(other.name),
                other.proxy.toward(one.name),
                other.proxy.back(one.name),
            ):
                way.delay_s, way.jitter_s, way.bytes_per_s, way.slice_bytes = 0.5, 1.0, 8000, 500
        before = {node.index: len(node.rounds) for node in cluster.nodes}
        await mixed_by_all(cluster, *cluster.nodes, times=8)
        # What everybody says arrives before it is old, also after all this time.
        steps = [node.rounds[-1]["step"] for node in cluster.nodes]
        assert max(steps) - min(steps) <= 5, steps
        rounds = [len(node.rounds) - before[node.index] for node in cluster.nodes]
        seconds = far.rounds[-1]["t"] - far.rounds[before[0]]["t"]
        assert max(rounds) <= seconds / 0.5, "the deadline follows the slow ones"
        assert verdicts(cluster, "dead") == []
        cluster.heal()
        await mixed_by_all(cluster, *cluster.nodes, times=2)
        assert cluster.agree() and verdicts(cluster, "dead") == []


@pytest.mark.fault("one-way link")
@pytest.mark.slow
@benched(120)
async def test_of_a_link_that_carries_one_way_only_nobody_dies_and_all_goes_on(tmp_path: Path) -> None:
    """FAULTS 53: the others can reach both, and say so. Far longer than the longest suspicion of four would need a tenth of."""
    async with FoundedCluster(4, tmp_path, TERMS, pace_s=0.2, behind_proxies=True) as cluster:
        one, other, *rest = cluster.nodes
        await mixed_by_all(cluster, *cluster.nodes)
        cluster.cut(one, other)
        await cluster.pass_s(30.0)
        assert verdicts(cluster, "dead") == []
        await mixed_by_all(cluster, *rest)
        cluster.heal()
        await mixed_by_all(cluster, *cluster.nodes, times=2)
        assert cluster.agree() and verdicts(cluster, "dead") == []


@pytest.mark.fault("split")
@pytest.mark.slow
@benched(180)
async def test_two_halves_of_real_nodes_take_each_other_for_dead_and_are_one_again(tmp_path: Path) -> None:
    """FAULTS 54. Within two dials and two comparisons: 2 * 45 s at the most."""
    async with FoundedCluster(4, tmp_path, TERMS, pace_s=0.2, behind_proxies=True) as cluster:
        await mixed_by_all(cluster, *cluster.nodes)
        sides = cluster.nodes[:2], cluster.nodes[2:]
        cluster.split(*sides)
        others = [(one, other) for k in (0, 1) for one in sides[k] for other in sides[1 - k]]
        await cluster.until(lambda: all(one.states[other.name] == "dead" for one, other in others))
        rounds = [len(node.rounds) for node in cluster.nodes]
        await cluster.until(lambda: all(len(node.rounds) > k + 3 for node, k in zip(cluster.nodes, rounds, strict=True)))
        cluster.heal()
        await cluster.until(cluster.agree, limit_s=90.0)
        await mixed_by_all(cluster, *cluster.nodes)


@pytest.mark.fault("sleep")
@pytest.mark.slow
@benched(120)
async def test_a_node_that_slept_until_all_took_it_for_dead_judges_nobody_and_is_a_member_again_at_once(tmp_path: Path) -> None:
    """FAULTS 64, in the same life: no record of another start, and nothing that it says is refused."""
    async with FoundedCluster(4, tmp_path, TERMS, pace_s=0.2) as cluster:
        sleeper, *others = cluster.nodes
        await mixed_by_all(cluster, *cluster.nodes)
        cluster.pause(sleeper)
        await cluster.until(lambda: all(other.states[sleeper.name] == "dead" for other in others))
        cluster.resume(sleeper)
        took = await cluster.until(cluster.agree)
        await mixed_by_all(cluster, *cluster.nodes, times=2)
        assert took <= 10.0 and {peer for _, peer in verdicts(cluster, "dead")} == {sleeper.name}
        assert not [line for line in sleeper.lines if line["what"] == "state" and line["state"] != "alive"]
        assert sum(line["what"] == "life" for line in sleeper.lines) == 1


@pytest.mark.fault("churn")
@pytest.mark.slow
@benched(180)
async def test_all_real_nodes_may_be_killed_and_started_at_once(tmp_path: Path) -> None:
    """FAULTS 60."""
    async with FoundedCluster(6, tmp_path, TERMS.model_copy(update={"parts": 6}), pace_s=0.2) as cluster:
        await mixed_by_all(cluster, *cluster.nodes)
        for node in cluster.nodes:
            cluster.kill(node)
        for node in cluster.nodes:
            cluster.start(node)
        await cluster.until(lambda: all(node.ready_at is not None for node in cluster.nodes) and cluster.agree(), limit_s=60.0)
        await mixed_by_all(cluster, *cluster.nodes)
        assert verdicts(cluster, "dead") == []
