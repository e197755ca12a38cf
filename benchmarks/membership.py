"""Membership at 100, 300 and 1,000 members: how late a death is known, and what it costs each node, as the network grows.

    python benchmarks/membership.py [--members 100 300 1000] [--deaths 3]

Simulated with the real `Membership` objects under virtual time (LAN timers, 1 to 5 ms a frame, fake signatures, real bytes), at
the same number of membership events per second whatever the size: every 20 s one member is killed, without a reset of its
links, and a new one joins. Beside what was measured stands what the formula says. The limit for both is growth no faster than
that of the logarithm of the members. Exits with 1 where it is missed.
"""

import argparse
import sys
from math import log
from pathlib import Path
from statistics import median
from time import process_time

sys.path.insert(0, str(Path(__file__).parent.parent))

from p2pfl.protocol.membership.rules import LAN
from tests.village import Village

EVERY_S = 20.0
SETTLE_S = 15.0
STEP_S = 0.25


def measured(members: int, deaths: int) -> tuple[float, float, float]:
    """(median seconds until everybody knows a death, control bytes per node and second, CPU seconds of it all).

    Everybody knows one another at first and is in the view; the first records of this start are still to be told, and the
    measurement begins when they are.
    """
    began = process_time()
    village = Village(members, seed=members)
    while any(village.life(peer)._census.rumors for peer in village.living):
        village.run(1.0)
    village.run(SETTLE_S)
    sent, since, took = _sent(village), village.now, []
    for k in range(deaths):
        event = village.now
        village.kill(village.living[len(village.living) * (k + 1) // (deaths + 1)], silently=True)
        newcomer = village.join(members + k, via=village.living[0])
        known = village.until(
            lambda newcomer=newcomer: newcomer in village.living and village.agree(), within=60.0, step=STEP_S
        )
        took.append(known)
        village.run(max(0.0, event + EVERY_S - village.now))
    rate = (_sent(village) - sent) / (village.now - since) / members
    return median(took), rate, process_time() - began


def formula(members: int) -> float:
    """Half an interval until a watcher's probe begins, one until it ends, the shortest suspicion, and half an interval a hop
    for a rumor over the log n / log 7 hops of eight links each."""
    shortest, _ = LAN.suspicion_s(members)
    return 1.5 * LAN.probe_interval_s + shortest + 0.5 * LAN.probe_interval_s * log(members) / log(7)


def _sent(village: Village) -> int:
    return sum(house.bytes_sent for house in village.houses.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--deaths", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'members':>8} {'death known s':>14} {'formula s':>10} {'bytes/node/s':>13} {'limit':>8} {'CPU s':>7}")
    first: tuple[int, float, float] | None = None
    missed = False
    for members in arguments.members:
        took, rate, cpu = measured(members, arguments.deaths)
        first = first or (members, took, rate)
        growth = log(members) / log(first[0])
        limit = first[2] * growth
        missed |= rate > limit or took > first[1] * growth + STEP_S
        print(f"{members:>8} {took:>14.2f} {formula(members):>10.2f} {rate:>13.0f} {limit:>8.0f} {cpu:>7.1f}", flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
