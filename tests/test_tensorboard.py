"""Curves for TensorBoard: what its own reader finds in the file."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from p2pfl.__main__ import main
from sim import tensorboard
from tests.records import a_record


def test_scalars_are_of_the_peers_that_were_measured() -> None:
    record = a_record(peers=4, rounds=6, killed=2)
    record.accuracy[3] = np.nan
    found = dict(tensorboard.scalars(record))
    assert found["accuracy/mean"][1] == pytest.approx(record.accuracy[1].mean())
    assert np.isnan(found["accuracy/mean"][3])
    assert found["accuracy/min"][6] == np.nanmin(record.accuracy[6])
    assert found["peers_up"].tolist() == [1, 1, 1, 1, 1, 0.75]
    assert found["bytes_sent"][6] == 24_000
    assert "alone/mean" not in dict(tensorboard.scalars(replace(record, alone_accuracy=np.empty((0, 4)))))


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="the extra track is installed")
def test_without_the_package_a_line_says_how_to_install_it_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    ring = str(Path(__file__).parent.parent / "examples/ring.toml")
    assert main(["sim", "run", ring, "--tensorboard"]) == 3
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "p2pfl: --tensorboard: the package tensorboard is not installed. Install it: pip install 'p2pfl-gossip[track]'"
    ]


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="the extra track is not installed")
@pytest.mark.filterwarnings("default")  # of packages that are not ours
def test_what_tensorboard_reads_is_the_record(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    record = a_record(peers=4, rounds=6)
    tensorboard.write(tmp_path, record)
    events = EventAccumulator(str(tmp_path / tensorboard.FOLDER))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for name, _ in tensorboard.scalars(record)}
    read = [(event.step, event.value) for event in events.Scalars("accuracy/mean")]
    assert read == [(row, pytest.approx(mean)) for row, mean in enumerate(record.accuracy.mean(axis=1))]
