"""Peers away in the same rounds leave the same models in both engines: real peers that end and come back, and masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import Scenario, run
from sim.churn import away
from sim.world import world_of

# In the middle of round 3 two peers leave that are no neighbors, and come back when round 6 begins.
TRACE = "1,3.5,down\n5,3.5,down\n1,6,up\n5,6,up\n"


def scenario(tmp_path: Path, **settings: Any) -> Scenario:
    """Eight peers on a ring; a round lasts 1 s, and whoever comes back is awaited for longer than that."""
    (tmp_path / "trace.csv").write_text(TRACE)
    defaults: dict[str, Any] = {
        "peers": 8,
        "rounds": 10,
        "topology": "ring",
        "partition": "dirichlet:0.5",
        "local_steps": 4,
        "batch_size": 8,
        "floor_s": 5.0,
        "detection_s": 0.0,
        "alone": False,
        "churn": {"trace": str(tmp_path / "trace.csv")},
    }
    return Scenario(**{**defaults, **settings})


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "learning_rate": 0.02}], ids=["plain", "momentum"])
def test_peers_that_leave_and_come_back_agree_with_masks_to_1e4(tmp_path: Path, settings: dict[str, Any]) -> None:
    events, batch = (run(scenario(tmp_path, **settings), engine=engine) for engine in ("events", "batch"))
    assert np.abs(events.parameters - batch.parameters).max() <= 1e-4
    assert np.array_equal(np.isfinite(events.accuracy), np.isfinite(batch.accuracy))
    assert np.nanmax(np.abs(events.accuracy - batch.accuracy)) <= 0.01


def test_who_is_away_in_which_round_is_the_same_to_both(tmp_path: Path) -> None:
    expected = np.zeros((10, 8), dtype=bool)
    expected[3:6, [1, 5]] = True
    assert np.array_equal(away(world_of(scenario(tmp_path))), expected)
    events = run(scenario(tmp_path), engine="events")
    assert np.array_equal(~np.isfinite(events.accuracy[:10]), expected)
    assert np.array_equal(~events.up[:5], expected[:5])  # as round 5 ends they are there again
