"""A batched run that was interrupted ends as one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from p2pfl.failure import Failure
from p2pfl.learning.tasks import resolve
from p2pfl.settings import CodecSection, DataSection, LimitsSection, TaskSection, TrainingSection
from sim.batch import BatchOutcome, run_batch
from sim.checkpoint import Checkpoint
from sim.masks import Masks
from topology import neighbor_weights, ring

torch.set_num_threads(1)


class Interruption(Exception):
    """What Ctrl-C is to a run."""


def run(checkpoint: Checkpoint | None, stop_at: int | None = None, heard: list[int] | None = None, **more: Any) -> BatchOutcome:
    def on_round(row: int, *_: object) -> None:
        if heard is not None:
            heard.append(row)
        if row == stop_at:
            raise Interruption

    task = resolve(
        TaskSection(name="digits", model=more.get("model", "softmax")), DataSection(partition="quantity:0.5"), seed=3
    )
    training = TrainingSection(batch_size=16, momentum=0.9, learning_rate=0.05)
    away = np.random.default_rng(1).random((10, 6)) < 0.3
    return run_batch(
        task, 6, training, CodecSection(), LimitsSection(), neighbor_weights(ring(6)), 10, seed=7,
        on_round=on_round, masks=Masks(away, loss=0.2), checkpoint=checkpoint,
    )  # fmt: skip


def test_a_resumed_run_ends_with_the_same_bits_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, checkpoint = run(None), Checkpoint(tmp_path / "state" / "together.safetensors", 3, '{"seed": 7}')
    for stop_at in (5, 8):  # resumes from round 3, then from 6
        with pytest.raises(Interruption):
            run(checkpoint, stop_at)
    heard: list[int] = []
    resumed = run(checkpoint, heard=heard)
    assert heard == list(range(11))
    assert resumed.parameters.tobytes() == whole.parameters.tobytes()
    for name in ("accuracy", "loss", "consensus_distance"):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))


def test_a_finished_run_is_not_computed_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "together.safetensors", 100, "{}")
    finished = run(checkpoint)
    before = checkpoint.path.read_bytes()
    assert run(checkpoint).parameters.tobytes() == finished.parameters.tobytes()
    assert checkpoint.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["together.safetensors"]


def test_the_state_of_another_scenario_is_refused_by_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "together.safetensors"
    run(Checkpoint(path, 5, '{"seed": 7, "topology": {"kind": "ring"}}'))
    with pytest.raises(Failure, match=r"together.safetensors: it is of another scenario: topology differ"):
        run(Checkpoint(path, 5, '{"seed": 7, "topology": {"kind": "star"}}'))


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "together.safetensors"
    run(Checkpoint(path, 5, "{}"))
    with pytest.raises(Failure, match=r"other tensors than this model has"):
        run(Checkpoint(path, 5, "{}"), model="mlp")


@pytest.mark.parametrize("content", [b"", b"nonsense" * 10, b"\xff" * 8], ids=["empty", "nonsense", "a huge header"])
def test_a_file_that_is_no_state_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "together.safetensors"
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"--resume .*: it can't be read"):
        run(Checkpoint(path, 5, "{}"))
