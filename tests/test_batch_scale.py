"""What the batched engine does with many peers: memory, tiles, blocks and threads."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from p2pfl import Task
from p2pfl.failure import Failure
from p2pfl.learning.parameters import Model
from p2pfl.learning.tasks import resolve
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim import Scenario, crowd, memory, run
from sim.batch import BatchOutcome, run_batch
from sim.masks import Masks
from sim.memory import Need, at_a_time
from sim.mixing import TILE_BYTES, Mixing, Product, tiles
from sim.workers import Workers
from tests.quadratics import quadratic, random_quadratic
from topology import metropolis_weights, neighbor_weights, random_regular


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def digits() -> Task:
    return resolve(TaskSection(name="digits", model="softmax"), DataSection(partition="quantity:0.5"), seed=3)


def batched(task: Task, peers: int, rounds: int = 3, **more: Any) -> BatchOutcome:
    weights = neighbor_weights(random_regular(4, peers, seed=1))
    training = TrainingSection(batch_size=8, learning_rate=0.05)
    return run_batch(task, peers, training, CodecSection(), LimitsSection(), weights, rounds, seed=7, **more)


def test_a_mix_by_tiles_and_threads_is_the_product_with_the_matrix() -> None:
    peers, graph = 500, random_regular(4, 500, seed=1)
    stacks = {"wide": torch.randn(peers, 30, 40), "narrow": torch.randn(peers, 3)}
    expected = {name: metropolis_weights(graph) @ stack.view(peers, -1).double().numpy() for name, stack in stacks.items()}
    mixing = Mixing(neighbor_weights(graph), Product(range(peers), CodecSection(), torch.device("cpu")), Masks(), 7)
    models = [Model(digits(), 7) for _ in range(3)]
    with Workers(models) as workers:
        mixing.mix(stacks, 0, workers)
    for name, stack in stacks.items():
        np.testing.assert_allclose(stack.view(peers, -1).numpy(), expected[name], atol=1e-5)
    assert all(tile.numel() * 4 <= TILE_BYTES for tile in tiles(stacks))
    assert torch.get_num_threads() == 1


def test_small_blocks_give_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batched(digits(), 12)
    monkeypatch.setattr(crowd, "BLOCK", 5)
    assert np.abs(batched(digits(), 12).parameters - whole.parameters).max() < 1e-6


def test_peers_are_taken_a_few_at_a_time_where_memory_is_short_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task = digits()
    notes: list[str] = []
    enough = batched(task, 12, on_note=notes.append)
    assert notes == []
    need = Need(held=1_000, passing=10_000)
    monkeypatch.setattr(crowd, "need", lambda *_: need)
    monkeypatch.setattr(crowd, "free_bytes", lambda device: 12 * need.held + 2 * 5 * need.passing)
    scarce = batched(task, 12, on_note=notes.append)
    assert len(notes) == 1
    assert notes[0].startswith("5 peers at a time, because 0.0 GB are free")
    assert np.abs(scarce.parameters - enough.parameters).max() < 1e-6


def test_more_peers_than_memory_holds_are_refused_with_the_numbers_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "free_bytes", lambda device: 100_000)
    rows: list[int] = []
    with pytest.raises(Failure, match=r"^12 peers need 0\.0 GB, [\d,]+ bytes each; 0\.0 GB are free") as refused:
        batched(digits(), 12, on_round=lambda row, *_: rows.append(row))
    assert rows == []
    assert "peers fit" in refused.value.hint or "smaller model" in refused.value.hint


def test_blocks_take_half_of_what_is_free_shared_by_the_threads() -> None:
    need = Need(held=100, passing=1_000)
    assert at_a_time(peers=10, need=need, most=512, workers=1, free=10**9) == 512
    assert at_a_time(peers=10, need=need, most=512, workers=2, free=1_000 + 40_000) == 10
    assert at_a_time(peers=10, need=need, most=512, workers=2, free=1_000 + 2_000) == 1
    with pytest.raises(Failure, match=r"need 0\.0 GB, 100 bytes each"):
        at_a_time(peers=10, need=need, most=512, workers=2, free=2_999)


def test_what_is_free_is_what_the_system_says() -> None:
    assert memory.free_bytes(torch.device("cpu")) == pytest.approx(psutil.virtual_memory().available, rel=0.5)


def test_three_hundred_peers_on_threads_reach_what_one_thread_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    a, c = random_quadratic(300, 4)
    task = quadratic(a[:, None], c[:, None])
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    threads = batched(task, 300, evaluate_every=3)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert np.abs(threads.parameters - batched(task, 300, evaluate_every=3).parameters).max() < 1e-6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_one_line() -> None:
    with pytest.raises(Failure, match=r"^device: torch finds 0 CUDA devices here, so no cuda"):
        batched(digits(), 6, device="cuda")
    for name in ("gpu", "meta"):
        with pytest.raises(Failure, match=f"^device: .*{name}"):
            batched(digits(), 6, device=name)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
def test_a_gpu_computes_what_the_cpu_computes() -> None:
    there, here = batched(digits(), 12, device="cuda"), batched(digits(), 12)
    assert np.abs(there.parameters - here.parameters).max() < 1e-4


def test_a_million_peers_whose_models_do_not_fit_are_refused_before_their_graph_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sim.engine.free_bytes", lambda device: 10**9)
    monkeypatch.setattr("sim.engine.world_of", lambda scenario: pytest.fail("a world was made"))
    scenario = Scenario(peers=1_000_000, rounds=9, topology="random_regular:4", model="softmax")
    each = 2 * 650 * 4 + 10 * 24
    with pytest.raises(Failure, match=rf"^1,000,000 peers need at least 5\.4 GB, {each:,} bytes each for models; 1\.0 GB are"):
        run(scenario)
