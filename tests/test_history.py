"""The laws that `history.checked` holds a run to: each is seen when it is broken, and only then."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.history import Broken, checked

Histories = dict[str, list[dict[str, Any]]]


def life(epoch: int, step: int = 0) -> dict[str, Any]:
    return {"t": 0.0, "what": "life", "epoch": epoch, "boot": "b", "step": step}


def sent(to: str, epoch: int, seq: int, mark: str = "") -> dict[str, Any]:
    return {"t": 1.0, "what": "sent", "to": to, "epoch": epoch, "seq": seq, "step": seq, "mark": mark or f"{epoch}/{seq}"}


def got(frm: str, epoch: int, seq: int) -> dict[str, Any]:
    return {"t": 2.0, "what": "got", "frm": frm, "epoch": epoch, "seq": seq}


def pair(peer: str, *counts: int) -> dict[str, Any]:
    return {"t": 2.0, "what": "pair", "peer": peer, "counts": list(counts)}


def learned(step: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"t": 3.0, "what": "learned", "step": step, "loss": loss}


def good() -> Histories:
    """a sends six to b: one each is applied, rejected, superseded, lost, held, and never arrives. In its second life it sends
    one more, which b, that is killed later, holds no longer."""
    a = [life(5), learned(0), *(sent("b", 5, n) for n in range(6)), learned(1), life(9, 1), learned(1), sent("b", 9, 0)]
    b = [
        life(3),
        *(got("a", 5, n) for n in range(5)),
        pair("a", 0, 5, 1, 1, 1, 1, 1),
        {"t": 4.0, "what": "finished", "step": 3},
    ]
    return {"a": a, "b": [*b, life(4), got("a", 9, 0)]}


def test_what_is_in_order_is_accounted_for() -> None:
    found = checked(good())
    assert (found.sent, found.applied, found.rejected, found.superseded, found.lost) == (7, 1, 1, 1, 1)
    assert (found.held, found.died, found.lives) == (1, 1, 4)
    assert [(m.sender, m.reader, m.step) for m in found.missing] == [("a", "b", 5)]


def add(node: str, *lines: dict[str, Any]) -> Callable[[Histories], None]:
    return lambda histories: histories[node].extend(lines)


def forget_a_fate(histories: Histories) -> None:
    histories["b"][6]["counts"] = [0, 5, 1, 1, 1, 0, 1]


def hold_too_much(histories: Histories) -> None:
    histories["b"][6]["counts"] = [0, 5, 0, 0, 1, 0, 4]


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (add("a", sent("c", 9, 0, "another header")), "two different headers"),
        (add("a", sent("b", 9, 0)), "twice"),
        (add("a", sent("b", 5, 7)), "in a life of 9"),
        (add("a", life(9)), "after 9"),
        (add("a", life(2)), "after 9"),
        (add("a", learned(1)), "learned step 1 after 1"),
        (add("a", life(10, 7), learned(6)), "having begun with 7"),
        (add("a", learned(2, float("nan"))), "loss nan"),
        (add("a", learned(2, float("inf"))), "loss inf"),
        (add("b", got("a", 5, 2)), "new twice"),
        (add("b", got("a", 5, 99)), "never sent"),
        (add("b", pair("a", 0, 9, 0, 0, 0, 0, 1)), "do not balance"),
        (add("b", life(5), pair("a", 0, 1, 1, 0, 0, 0, 0)), "its books say"),
        (forget_a_fate, "do not balance"),
        (hold_too_much, "held 4"),
    ],
)
def test_every_law_that_is_broken_is_named(harm: Callable[[Histories], None], said: str) -> None:
    histories = good()
    harm(histories)
    with pytest.raises(Broken, match=said):
        checked(histories)
