"""The soak, for a minute; `make soak` has ten."""

from pathlib import Path

import pytest

from tests.cluster import benched
from tests.soak import Soak


@pytest.mark.fault("everything")
@pytest.mark.net
@pytest.mark.slow
@benched(180)
async def test_a_minute_of_random_faults_leaves_flat_memory_and_exact_books(tmp_path: Path) -> None:
    balance = await Soak(tmp_path, 60, seed=11).run()
    assert balance.applied > balance.sent / 2
    assert balance.lives > 6
