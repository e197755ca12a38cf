import csv
import io
import json
from dataclasses import fields, replace
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pfl.failure import Failure
from p2pfl.report.record import RunRecord
from p2pfl.report.record_json import from_json, metrics_csv, to_json
from tests.records import HOSTILE, a_record


def assert_same(one: RunRecord, other: RunRecord) -> None:
    for field in fields(RunRecord):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.shape == right.shape
        else:
            assert left == right, field.name


@pytest.mark.parametrize(
    "record",
    [
        a_record(killed=2),
        a_record(names=HOSTILE, killed=0),
        a_record(peers=1, rounds=0),
        replace(a_record(peers=3), alone_accuracy=np.empty((0, 3)), labels=(), label_counts=np.empty((3, 0))),
    ],
    ids=["killed", "hostile names", "one peer", "neither alone nor classes"],
)
def test_a_record_comes_back_from_json_with_every_digit(record: RunRecord) -> None:
    assert_same(from_json(to_json(record)), record)


def test_nan_and_infinity_are_null_and_the_json_is_strict() -> None:
    record = a_record(killed=2)
    record.loss[-1, 0] = np.inf

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(to_json(record), parse_constant=refuse)
    assert found["accuracy"][-1][2] is None
    assert found["loss"][-1][0] is None


def test_settings_of_any_kind_of_mapping_are_written() -> None:
    record = replace(a_record(), settings=MappingProxyType({"out": MappingProxyType({"step": np.float32(0.5)})}))
    assert json.loads(to_json(record))["settings"] == {"out": {"step": 0.5}}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema_version": 2}',
        "[" * 100_000,
        to_json(a_record()).replace('"killed"', '"x"').replace('"done"', '"<b>"'),
        to_json(a_record()).replace('"edges":[[0,1]', '"edges":[[0,99]'),
        to_json(a_record()).replace('"accuracy":[[', '"accuracy":[[1,'),
        to_json(a_record()).replace('"link_bytes":[10000.0', '"link_bytes":[null'),
        to_json(a_record()).replace('"link_bytes":[', '"link_bytes":[1,'),
        to_json(a_record()).replace('"bytes_received":', '"bytes_received":' + "9" * 400),
        to_json(a_record()).replace('"samples":', '"samples":-1'),
    ],
    ids=[
        "empty",
        "a list",
        "no keys",
        "version",
        "deep",
        "state",
        "edge",
        "shape",
        "no bytes",
        "too many bytes",
        "huge",
        "negative",
    ],
)
def test_what_is_no_record_is_one_line_that_says_so(text: str) -> None:
    with pytest.raises(Failure) as caught:
        from_json(text)
    assert caught.value.code == "bad_record"
    assert "\n" not in str(caught.value)


@given(st.text(alphabet='[]{}",:0123456789.eE-nulltrue \\'))
def test_no_text_makes_reading_fail_otherwise(text: str) -> None:
    with pytest.raises(Failure):
        from_json(text)


def test_the_csv_has_one_line_for_each_round_and_peer() -> None:
    record = a_record(peers=3, rounds=6, killed=1)
    rows = list(csv.DictReader(io.StringIO(metrics_csv(record))))
    assert len(rows) == 7 * 3
    assert (rows[4]["round"], rows[4]["peer"]) == ("1", "peer-1")
    assert float(rows[4]["accuracy"]) == record.accuracy[1, 1]
    assert float(rows[4]["alone_accuracy"]) == record.alone_accuracy[1, 1]
    assert float(rows[4]["bytes_sent"]) == 1000
    assert float(rows[4]["consensus_distance"]) == 0.5
    assert rows[-2]["accuracy"] == ""


@pytest.mark.fault("hostile names")
def test_a_hostile_name_is_one_cell_of_the_csv_and_no_formula() -> None:
    rows = list(csv.DictReader(io.StringIO(metrics_csv(a_record(names=HOSTILE, rounds=0)))))
    assert len(rows) == len(HOSTILE)
    assert not any(row["peer"].startswith(("=", "+", "-", "@")) for row in rows)
    assert "\x1b" not in metrics_csv(a_record(names=HOSTILE))
