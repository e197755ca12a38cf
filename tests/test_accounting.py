"""Accounted crypto is the real one without the arithmetic: the same messages, the same sizes, the same refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from p2pfl.protocol import envelope
from p2pfl.protocol.charter import Member
from p2pfl.protocol.errors import Reason
from p2pfl.protocol.events import Open, Payload, PeerId, Seal
from p2pfl.protocol.identity import Identity
from sim.accounting import AccountedCrypto, crypto_of
from sim.entropy import SeededEntropy
from sim.events import run_events
from sim.sealing import Crypto, Opener, RealCrypto
from tests.worlds import world

torch.set_num_threads(1)

BOTH: list[Crypto] = [RealCrypto(), AccountedCrypto(7)]
KEY, OTHER_KEY = b"k" * 32, b"o" * 32
ALICE, BOB, EVE = (Identity.generate(SeededEntropy(7, name)) for name in (b"alice", b"bob", b"eve"))
MEMBERS = {one.peer_id: Member(one.peer_id, "", "", one.transport_key, one.seal_key) for one in (ALICE, BOB)}


def opened(crypto: Crypto, length: int, **changes: Any) -> list[Reason | None]:
    """Seal so many bytes and open every chunk, after these changes to what is opened last."""
    payload = bytes(i % 251 for i in range(length))
    chunks = crypto.sealed(Seal(1, Payload(length, b"", payload), KEY)).chunks
    assert [chunk.length for chunk in chunks] == [envelope.sealed_length(length, i) for i in range(len(chunks))]
    opener = Opener(crypto)
    effects = [Open(1, i, len(chunks), length, chunk.digest, KEY, chunk.buffer) for i, chunk in enumerate(chunks)]
    effects[-1] = replace(effects[-1], **changes)
    events = [opener.opened(effect) for effect in effects]
    if events[-1].reason is None:
        assert events[-1].payload is not None and events[-1].payload.buffer == payload
    return [event.reason for event in events]


@pytest.mark.parametrize("crypto", BOTH)
@pytest.mark.parametrize("length", [1, 1000, envelope.CHUNK_BYTES, 2 * envelope.CHUNK_BYTES + 1])
def test_what_was_sealed_opens_to_what_it_was(crypto: Crypto, length: int) -> None:
    assert set(opened(crypto, length)) == {None}


@pytest.mark.parametrize("crypto", BOTH)
def test_what_was_changed_on_the_way_does_not_open(crypto: Crypto) -> None:
    sealed = crypto.sealed(Seal(1, Payload(100, b"", bytes(100)), KEY)).chunks[0].buffer
    assert isinstance(sealed, bytes)
    for changed in (b"x" + sealed[1:], sealed[:-1] + b"x", sealed[:50] + bytes([sealed[50] ^ 1]) + sealed[51:], bytes(116)):
        assert opened(crypto, 100, chunk=changed) == [Reason.BAD_CHUNK]
    assert opened(crypto, 100, key=OTHER_KEY) == [Reason.BAD_CHUNK]
    assert opened(crypto, 100, digest=bytes(32)) == [Reason.BAD_CHUNK]


@pytest.mark.parametrize("crypto", BOTH)
def test_only_the_signer_signs_and_only_what_it_signed(crypto: Crypto) -> None:
    alice, bob, eve = (crypto.signer(one, MEMBERS) for one in (ALICE, BOB, EVE))
    signature = alice.sign(b"context", b"d" * 32)
    assert len(signature) == 64
    assert bob.verify(ALICE.peer_id, b"context", b"d" * 32, signature)
    assert not bob.verify(BOB.peer_id, b"context", b"d" * 32, signature)
    assert not bob.verify(ALICE.peer_id, b"another", b"d" * 32, signature)
    assert not bob.verify(ALICE.peer_id, b"context", b"e" * 32, signature)
    assert not bob.verify(ALICE.peer_id, b"context", b"d" * 32, bytes(64))
    assert not bob.verify(EVE.peer_id, b"context", b"d" * 32, eve.sign(b"context", b"d" * 32)), "a stranger's"


@pytest.mark.parametrize("crypto", BOTH)
def test_a_key_is_unwrapped_by_whom_it_was_wrapped_for(crypto: Crypto) -> None:
    alice, bob = crypto.signer(ALICE, MEMBERS), crypto.signer(BOB, MEMBERS)
    wrapped = alice.wrap(BOB.peer_id, KEY, b"n" * 24)
    assert len(wrapped) == 72
    assert bob.unwrap(ALICE.peer_id, wrapped) == KEY
    assert bob.unwrap(BOB.peer_id, wrapped) is None, "Bob did not wrap it"
    assert bob.unwrap(PeerId(b"s" * 32), wrapped) is None, "a stranger"
    for place in (0, 30, 71):
        changed = wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :]
        assert bob.unwrap(ALICE.peer_id, changed) is None


def test_few_peers_are_real_and_many_accounted() -> None:
    assert isinstance(crypto_of("auto", 200, 7), RealCrypto)
    assert isinstance(crypto_of("auto", 201, 7), AccountedCrypto)


def traced(crypto: str) -> tuple[list[Any], Any]:
    faults = [
        {"kind": "hostile", "attack": "equivocation", "at": 0.3, "heal": 0.8, "peers": [1]},
        {"kind": "hostile", "attack": "replay", "at": 0.3, "peers": [2]},
        {"kind": "corrupt", "share": 0.5, "at": 0.2, "peers": [3]},
        {"kind": "restart", "at": 0.5, "peers": [4]},
    ]
    run = world("ring", 6, rounds=6, crypto=crypto, latency=0.02, jitter=0.01, duplicate=0.1, fault=faults, step_s=0.02)
    lines: list[Any] = []
    outcome = run_events(run, on_trace=lambda line: lines.append(without_digests(line)))
    return lines, outcome


def without_digests(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_digests(inner) for name, inner in value.items() if name not in ("digest", "head")}
    return [without_digests(inner) for inner in value] if isinstance(value, list) else value


def test_one_scenario_has_one_trace_but_for_digests() -> None:
    """Also with forged, replayed, doubled and damaged messages, which both refuse for the same reasons."""
    (real, first), (accounted, second) = traced("real"), traced("accounted")
    assert real == accounted
    assert {"replayed", "bad_chunk", "equivocation"} <= {r for one in first.rejected for r in one}
    assert first.rejected == second.rejected
    assert (first.bytes_sent == second.bytes_sent).all() and (first.parameters == second.parameters).all()
