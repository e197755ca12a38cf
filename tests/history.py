"""What the nodes of a run wrote down, read afterwards, and the laws that hold whatever happened to them.

A history is a list of lines, over all lives of one node. `what` says which: "life" (a start: boot epoch, boot id, the step it
goes on from), "sent" (an offer, to one reader), "got" (an offer whose signature was right and whose number was new), "pair"
(the counts with one other, when they changed), "learned", "rejected", "persist", "finished", "up", "down". `t` is the
machine's monotonic clock, the same for all.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
SENT, GOT, APPLIED, REJECTED, SUPERSEDED, LOST, HELD = range(7)
HELD_MAX = 3  # of one sender: this round's, a later one, and one in the Learn under way


@dataclass(frozen=True)
class Missing:
    """An update that was sent and never got to its reader."""

    sent_at: float
    sender: str
    reader: str
    step: int


@dataclass(frozen=True)
class Balance:
    """Of all pairs together: sent = applied + rejected + superseded + lost + held + died + len(missing). `died` were held by
    processes that were killed."""

    sent: int
    applied: int
    rejected: int
    superseded: int
    lost: int
    held: int
    died: int
    missing: tuple[Missing, ...]
    lives: int


class Broken(AssertionError):
    """A law that was broken, and where."""


def read_on(path: Path, begin: int, lines: list[Line]) -> int:
    """Add what was written after the first `begin` bytes; returns how far it was read. A last line that ended with its process
    is none yet, and never will be."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    lines += [json.loads(line) for line in whole.splitlines()]
    return begin + len(whole)


def checked(histories: Mapping[str, Sequence[Line]]) -> Balance:
    """`histories` by the first 16 hex digits of the node's id. Raises `Broken` if any law does not hold."""
    sent = {node: _sent_once(node, lines) for node, lines in histories.items()}
    for node, lines in histories.items():
        _lives_go_on(node, lines)
        _got_was_sent(node, lines, sent)
    return _balanced(histories)


def lives(lines: Sequence[Line]) -> list[list[Line]]:
    """Cut where a process started."""
    found: list[list[Line]] = []
    for line in lines:
        if line["what"] == "life":
            found.append([])
        found[-1].append(line)
    return found


def _sent_once(node: str, lines: Sequence[Line]) -> dict[tuple[int, int], str]:
    """No (boot epoch, sequence number) is ever put on two headers. Returns the mark of the header of each."""
    marks: dict[tuple[int, int], str] = {}
    readers = set()
    for line in lines:
        if line["what"] != "sent":
            continue
        number = line["epoch"], line["seq"]
        if marks.setdefault(number, line["mark"]) != line["mark"]:
            raise Broken(f"{node} used {number} for two different headers")
        if (number, line["to"]) in readers:
            raise Broken(f"{node} sent {number} to {line['to']} twice")
        readers.add((number, line["to"]))
    return marks


def _lives_go_on(node: str, lines: Sequence[Line]) -> None:
    """Epochs grow with every life; steps grow within one; every life uses its own epoch; no loss is infinite."""
    epoch = 0
    for life in lives(lines):
        if life[0]["epoch"] <= epoch:
            raise Broken(f"{node} began a life with epoch {life[0]['epoch']} after {epoch}")
        epoch, step = life[0]["epoch"], -1
        for line in life:
            if line["what"] == "sent" and line["epoch"] != epoch:
                raise Broken(f"{node} sent with epoch {line['epoch']} in a life of {epoch}")
            if line["what"] == "learned":
                if line["step"] <= step or line["step"] < life[0]["step"]:
                    raise Broken(f"{node} learned step {line['step']} after {step}, having begun with {life[0]['step']}")
                step = line["step"]
                if line["loss"] is not None and not math.isfinite(line["loss"]):
                    raise Broken(f"{node} has loss {line['loss']} at step {step}")


def _got_was_sent(node: str, lines: Sequence[Line], sent: Mapping[str, Mapping[tuple[int, int], str]]) -> None:
    """What was taken for new was sent by its signer, and is new only once, over all lives of both."""
    seen = set()
    for line in lines:
        if line["what"] == "got" and line["frm"] in sent:
            update = line["frm"], line["epoch"], line["seq"]
            if update in seen:
                raise Broken(f"{node} took {update} for new twice")
            seen.add(update)
            if update[1:] not in sent[line["frm"]]:
                raise Broken(f"{node} got {update}, which was never sent")


def _balanced(histories: Mapping[str, Sequence[Line]]) -> Balance:
    """At every moment, per pair and life: got = applied + rejected + superseded + lost + held; and over all, everything that
    was sent has exactly one fate."""
    fates, held, died, lived = [0] * 4, 0, 0, 0
    for node, lines in histories.items():
        for life in lives(lines):
            lived += 1
            got = Counter(line["frm"] for line in life if line["what"] == "got")
            last = _books(node, life)
            is_whole = any(line["what"] == "finished" for line in life)
            for peer in histories.keys() & (got.keys() | last.keys()):
                counts = last.get(peer, (0,) * 7)
                left = got[peer] - sum(counts[APPLIED:HELD])
                if (is_whole and left != counts[HELD]) or not 0 <= left <= HELD_MAX + 1:
                    raise Broken(f"{node} got {got[peer]} updates of {peer}, and its books say {counts}")
                fates = [sum(pair) for pair in zip(fates, counts[APPLIED:HELD], strict=True)]
                held, died = (held + left, died) if is_whole else (held, died + left)
    missing = _missing(histories)
    sent = sum(line["what"] == "sent" and line["to"] in histories for lines in histories.values() for line in lines)
    if sent != sum(fates) + held + died + len(missing):
        raise Broken(f"{sent} updates were sent; fates {fates}, held {held}, died {died}, missing {len(missing)}")
    return Balance(sent, *fates, held, died, missing, lived)


def _books(node: str, life: Sequence[Line]) -> dict[str, tuple[int, ...]]:
    """The newest counts with each peer, all of which balanced."""
    last: dict[str, tuple[int, ...]] = {}
    for line in life:
        if line["what"] != "pair":
            continue
        counts = last[line["peer"]] = tuple(line["counts"])
        if counts[GOT] != sum(counts[APPLIED:]):
            raise Broken(f"{node}'s books with {line['peer']} do not balance: {counts}")
        if counts[HELD] > HELD_MAX:
            raise Broken(f"{node} held {counts[HELD]} updates of {line['peer']}")
    return last


def _missing(histories: Mapping[str, Sequence[Line]]) -> tuple[Missing, ...]:
    got: defaultdict[str, set[tuple[str, int, int]]] = defaultdict(set)
    for node, lines in histories.items():
        got[node] = {(line["frm"], line["epoch"], line["seq"]) for line in lines if line["what"] == "got"}
    return tuple(
        Missing(line["t"], node, line["to"], line["step"])
        for node, lines in histories.items()
        for line in lines
        if line["what"] == "sent" and line["to"] in histories and (node, line["epoch"], line["seq"]) not in got[line["to"]]
    )
