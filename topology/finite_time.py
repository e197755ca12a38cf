"""Base-(k+1): the exact mean of any number of peers in few rounds, none with more than k neighbors.

Takezawa, Sato, Bao, Niwa and Yamada, NeurIPS 2023. Three constructions, each made of the one before:

- hyper-hypercube: if n is a product of numbers up to k + 1, peers are the digits of a number in that mixed base. A round
  averages those who differ in one digit only; after all digits, everyone holds the mean.
- simple base: otherwise n is written in base k + 1, and peers are divided accordingly: block l has a_l parts of (k+1)**p_l.
  Blocks average among themselves. Then one block after the other meets all those that come after it, each of whom takes from
  it just so much that, on either side, the average is that of all. The block needs p_l more rounds to spread what it got,
  while the others go on.
- base: the factors of n up to k + 1 are left to a hyper-hypercube over the groups that a simple base has averaged, where this
  is no slower.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import combinations

from topology.families import at_least
from topology.schedules import Schedule, repeating
from topology.weights import Rows

Edges = dict[tuple[int, int], float]
"""The weights of a round, symmetric: of every pair that meets. What is missing to 1, a peer gives to itself."""


def base_k(n: int, k: int) -> Schedule:
    """The Base-(k+1) graphs: a period, of at most 2·log_{k+1}(n) + 2 rounds, is the exact mean (theorem 1 of the paper)."""
    at_least(1, n=n, k=k)
    k = min(k, max(1, n - 1))  # nobody has more neighbors than there are others
    rounds = _base(range(n), k) or [{}]
    return repeating(n, (_rows(n, edges) for edges in rounds))


def _base(peers: Sequence[int], k: int) -> list[Edges]:
    size = _without_factors_up_to(k + 1, len(peers))
    groups = [peers[start : start + size] for start in range(0, len(peers), size)]
    within = _side_by_side([_simple_base(group, k) for group in groups])
    across = _side_by_side([_hyper_hypercube([group[place] for group in groups], k) for place in range(size)])
    simple = _simple_base(peers, k)
    return simple if len(simple) < len(within) + len(across) else within + across


def _simple_base(peers: Sequence[int], k: int) -> list[Edges]:
    if _without_factors_up_to(k + 1, len(peers)) == 1:
        return _hyper_hypercube(peers, k)
    blocks = _blocks(peers, k)
    alone = [_hyper_hypercube(_joined(parts), k) for parts in blocks]
    again = [_side_by_side([_hyper_hypercube(part, k) for part in parts]) for parts in blocks]
    rounds = [_merged(_cycled(block, m) for block in alone) for m in range(len(alone[0]))]
    for stage in range(len(again[0]) + 1):
        spreading = [_cycled(again[l], stage - l - 1) for l in range(min(stage, len(blocks)))]
        meeting = [_meeting(blocks[stage], _joined(map(_joined, blocks[stage + 1 :])), k)] if stage < len(blocks) - 1 else []
        rounds.append(_merged([*spreading, *meeting]))
    return rounds


def _meeting(parts: Sequence[Sequence[int]], later: Sequence[int], k: int) -> Edges:
    """Every later peer meets one of each part. All of a block hold the same before, so the rest of it may meet as it likes."""
    size = sum(map(len, parts))
    share = size / (size + len(later)) / len(parts)
    edges = {(peer, other): share for part in parts for peer, other in zip(part, later, strict=False)}
    unmet = [peer for part in parts for peer in part[len(later) :]]
    for start in range(0, len(unmet), k + 1):
        edges |= _mean(unmet[start : start + k + 1])
    return edges


def _hyper_hypercube(peers: Sequence[int], k: int) -> list[Edges]:
    rounds = []
    stride = 1
    for factor in _fewest_factors(len(peers), k + 1):
        firsts = [i for i in range(len(peers)) if i // stride % factor == 0]
        rounds.append(_merged(_mean([peers[i + digit * stride] for digit in range(factor)]) for i in firsts))
        stride *= factor
    return rounds


def _blocks(peers: Sequence[int], k: int) -> list[list[Sequence[int]]]:
    """By the digits of n in base k + 1, the highest first: of digit a and power p, a parts of (k+1)**p."""
    power = 1
    while power * (k + 1) <= len(peers):
        power *= k + 1
    blocks, start = [], 0
    while power:
        parts = (len(peers) - start) // power
        if parts:
            blocks.append([peers[start + part * power : start + (part + 1) * power] for part in range(parts)])
        start += parts * power
        power //= k + 1
    return blocks


@cache
def _fewest_factors(n: int, most: int) -> tuple[int, ...]:
    if n == 1:
        return ()
    ways = [(factor, *_fewest_factors(n // factor, most)) for factor in range(2, most + 1) if n % factor == 0]
    return min(ways, key=len)


def _without_factors_up_to(most: int, n: int) -> int:
    for factor in range(2, most + 1):
        while n % factor == 0:
            n //= factor
    return n


def _mean(peers: Sequence[int]) -> Edges:
    return dict.fromkeys(combinations(peers, 2), 1 / len(peers))


def _cycled(rounds: Sequence[Edges], m: int) -> Edges:
    """Those who are done early begin again: a mean of equals changes nothing, and helps where peers learn in between."""
    return rounds[m % len(rounds)] if rounds else {}


def _side_by_side(schedules: Sequence[list[Edges]]) -> list[Edges]:
    return [_merged(rounds) for rounds in zip(*schedules, strict=True)]


def _merged(rounds: Iterable[Edges]) -> Edges:
    return {pair: weight for edges in rounds for pair, weight in edges.items()}


def _joined(parts: Iterable[Sequence[int]]) -> list[int]:
    return [peer for part in parts for peer in part]


def _rows(n: int, edges: Edges) -> Rows:
    rows: Rows = [{} for _ in range(n)]
    for (i, j), weight in edges.items():
        rows[i][j] = rows[j][i] = weight
    return [dict(sorted({**row, i: 1 - sum(row.values())}.items())) for i, row in enumerate(rows)]
