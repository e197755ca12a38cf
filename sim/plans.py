"""Whom the peers of a world gossip with: its graph or its schedule, as the plans that real peers take."""

from collections.abc import Sequence
from functools import lru_cache, partial

from p2pfl.protocol.events import PeerId
from p2pfl.protocol.round import Plan, RoundPlan, round_plan, static_plan
from sim.world import World
from topology import Schedule

KEPT = 64  # rounds of a schedule that are kept for all peers: they are seldom further apart, and any can be made again


def plans_of(world: World, ids: Sequence[PeerId]) -> list[Plan]:
    """One for each peer; `ids` names them."""
    if world.schedule is not None:
        return _scheduled(world.schedule, world.rounds, ids)
    return [
        static_plan(own, [ids[j] for j in world.send_to(i)], {ids[j]: weight for j, weight in world.weights[i].items()})
        for i, own in enumerate(ids)
    ]


def _scheduled(schedule: Schedule, rounds: int, ids: Sequence[PeerId]) -> list[Plan]:
    """A peer sends to those whose weights name it, and keeps links to whoever is named in any of so many rounds."""

    @lru_cache(KEPT)
    def plans(round: int) -> list[RoundPlan]:
        rows = schedule.rows(round)
        readers: list[list[PeerId]] = [[] for _ in ids]
        for i, row in enumerate(rows):
            for j in row:
                if j != i:
                    readers[j].append(ids[i])
        return [
            round_plan(own, send_to, {ids[j]: weight for j, weight in row.items()})
            for own, send_to, row in zip(ids, readers, rows, strict=True)
        ]

    def plan(i: int, round: int) -> RoundPlan:
        return plans(round if schedule.period is None else round % schedule.period)[i]

    readers: list[set[PeerId]] = [set() for _ in ids]
    senders: list[set[PeerId]] = [set() for _ in ids]
    for round in range(rounds if schedule.period is None else min(rounds, schedule.period)):
        for i, own in enumerate(ids):
            of_round = plan(i, round)
            readers[i].update(of_round.send_to)
            senders[i].update(of_round.weights.keys() - {own})
    return [Plan(partial(plan, i), tuple(sorted(readers[i])), tuple(sorted(senders[i]))) for i in range(len(ids))]
