import json
from dataclasses import replace

import numpy as np
import pytest

from p2pfl.report.summary import summary
from tests.records import a_record


def test_means_are_over_the_living_peers_and_the_killed_one_is_listed() -> None:
    found = summary(a_record(peers=4, killed=0))
    living = 0.9 + np.arange(1, 4) / 400
    assert found["accuracy_mean"] == pytest.approx(living.mean())
    assert found["accuracy_min"] == pytest.approx(living.min())
    assert found["alone_mean"] == pytest.approx(living.mean() / 2)
    assert [peer["state"] for peer in found["peers"]] == ["killed", "done", "done", "done"]


def test_it_has_the_keys_that_programs_rely_on() -> None:
    found = summary(a_record())
    assert list(found) == ["accuracy_mean", "accuracy_min", "alone_mean", "consensus_distance", "rounds", "seconds", "peers"]
    assert set(found["peers"][0]) == {
        "name",
        "state",
        "accuracy",
        "bytes_sent",
        "bytes_received",
        "updates_sent",
        "updates_applied",
        "rejected",
    }
    assert found["rounds"] == 10
    assert found["consensus_distance"] == 0.5**10


def test_what_was_not_measured_is_null_and_never_nan() -> None:
    record = a_record(peers=2)
    silent = tuple(replace(peer, accuracy=float("nan")) for peer in record.peers)
    found = summary(replace(record, peers=silent, alone_accuracy=np.empty((0, 2)), consensus_distance=np.full(11, np.nan)))
    assert (found["accuracy_mean"], found["accuracy_min"], found["alone_mean"], found["consensus_distance"]) == (None,) * 4
    json.dumps(found, allow_nan=False)
