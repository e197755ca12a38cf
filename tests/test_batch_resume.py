"""A batched run that was interrupted ends as one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

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


@pytest.mark.parametrize("row", ["-1", "0", "5", "11", "9" * 30, "9" * 5000, "x"])
def test_a_state_of_a_round_that_it_is_not_of_is_refused(tmp_path: Path, row: str) -> None:
    path = tmp_path / "together.safetensors"
    run(Checkpoint(path, 10, "{}"))
    tensors = load_file(path)
    save_file(tensors, path, {"row": row, "run": "{}"})
    with pytest.raises(Failure, match="--resume"):
        run(Checkpoint(path, 10, "{}"))


@pytest.mark.parametrize("said", ["[1]", "[" * 100_000, "{"], ids=["a list", "deep", "half"])
def test_a_state_of_no_run_is_refused(tmp_path: Path, said: str) -> None:
    path = tmp_path / "together.safetensors"
    run(Checkpoint(path, 10, "{}"))
    save_file(load_file(path), path, {"row": "10", "run": said})
    with pytest.raises(Failure, match="--resume"):
        run(Checkpoint(path, 10, "{}"))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.int32], ids=str)
def test_measurements_of_another_type_are_refused(tmp_path: Path, kind: torch.dtype) -> None:
    path = tmp_path / "together.safetensors"
    run(Checkpoint(path, 10, "{}"))
    tensors = load_file(path)
    tensors["measured.accuracy"] = tensors["measured.accuracy"].to(kind)
    save_file(tensors, path, {"row": "10", "run": "{}"})
    with pytest.raises(Failure, match="what was measured of accuracy"):
        run(Checkpoint(path, 10, "{}"))


def test_where_no_state_can_be_kept_nothing_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "together.safetensors").mkdir()
    heard: list[int] = []
    for path in (tmp_path / "file" / "together.safetensors", tmp_path / "together.safetensors"):
        with pytest.raises(Failure, match=r"is no fol|is no file"):
            run(Checkpoint(path, 10, "{}"), heard=heard)
    assert not heard
