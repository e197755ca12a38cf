"""Peers that are broken on purpose: each is caught while the run goes on, by the invariant that it breaks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from p2pfl.failure import ExitCode
from p2pfl.protocol import peer as protocol
from p2pfl.protocol.inbox import Inbox
from p2pfl.protocol.outbox import Outbox
from p2pfl.protocol.slots import Arriving, Slots
from sim.events import run_events
from sim.invariants import Violation
from sim.together import Together
from tests.worlds import world

torch.set_num_threads(1)


def ran(**settings: Any) -> None:
    run_events(world("ring", 5, rounds=6, latency=0.02, step_s="lognormal:0.01,1.0", **settings))


def violation(**settings: Any) -> str:
    with pytest.raises(Violation) as caught:
        ran(**settings)
    assert caught.value.exit_code is ExitCode.BUG
    assert "seed 7" in str(caught.value)
    return caught.value.message


def test_sound_peers_break_nothing() -> None:
    ran()
    ran(mode="async", period_s=0.05)


def test_one_that_reuses_a_sequence_number_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Outbox.offer

    def again(self: Outbox, *arguments: Any) -> Any:
        effects = offer(self, *arguments)
        self._seq = min(self._seq, 3)
        return effects

    monkeypatch.setattr(Outbox, "offer", again)
    assert "uses sequence number 3 again" in violation()


def test_one_that_applies_an_update_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing new came of a neighbor, it mixes once more what it mixed the last time."""
    take, mixed = Slots.take, dict[tuple[Slots, bytes], Arriving]()

    def again(self: Slots) -> list[Arriving]:
        taken = take(self)
        new = {update.sender for update in taken}
        old = [update for (slots, sender), update in mixed.items() if slots is self and sender not in new]
        mixed.update({(self, update.sender): update for update in taken})
        return sorted([*taken, *old], key=lambda update: update.sender)

    monkeypatch.setattr(Slots, "take", again)
    assert "applies update" in violation(gossip={"mode": "async", "period_s": 0.05})


def test_one_that_trusts_an_age_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile neighbor claims an age of 2^62, and this peer believes it without a cap."""

    def trusting(own: Any, own_age: int, arrived: Any, cap: int) -> Any:
        weights = {own: 1.0} | dict.fromkeys(arrived, 0.0)
        return weights, max([own_age, *arrived.values()])

    monkeypatch.setattr(protocol, "age_weights", trusting)
    lie = {"kind": "hostile", "attack": "wrong_age", "at": 0.0, "peers": [0]}
    assert "grows by" in violation(gossip={"mode": "async", "period_s": 0.05}, fault=[lie])


def test_one_that_forgets_to_count_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that a newer one displaced is let go, and nobody counts it."""
    let_go = Inbox.let_go

    def forgetful(self: Inbox, update: Arriving) -> Any:
        effects = let_go(self, update)
        self._ledger.of(update.sender).superseded -= 1
        return effects

    monkeypatch.setattr(Inbox, "let_go", forgetful)
    assert "accounts for" in violation(gossip={"mode": "async", "period_s": 0.05})


def test_one_that_counts_what_it_never_sent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    offer = Outbox._offer

    def boastful(self: Outbox, update: Any, addressed: Any, ledger: Any) -> Any:
        effects = offer(self, update, addressed, ledger)
        ledger.of(addressed[0]).sent += 1
        return effects

    monkeypatch.setattr(Outbox, "_offer", boastful)
    assert "counted" in violation()


def test_a_model_that_is_not_finite_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Together.answer

    def broken(self: Together, peer: int) -> Any:
        state, computed = answer(self, peer)
        return replace(state, vector=state.vector * float("nan")), computed

    monkeypatch.setattr(Together, "answer", broken)
    assert "not finite" in violation()


def test_one_that_holds_whatever_is_sent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    hoard: dict[Slots, list[Arriving]] = {}

    def place(self: Slots, update: Arriving) -> None:
        hoard.setdefault(self, []).append(update)

    def everything(self: Slots) -> Iterator[Arriving]:
        return iter(hoard.get(self, []))

    monkeypatch.setattr(Slots, "place", place)
    monkeypatch.setattr(Slots, "__iter__", everything)
    assert "holds 3 updates" in violation()
