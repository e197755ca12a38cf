import numpy as np
import pytest

from p2pfl.report.chart import Chart, curves, rounds_drawn, row_means, written
from p2pfl.report.record import Float, Mark

NONE = np.empty(0)


def drawn(values: Float, unit: str = "number", alone: Float = NONE, marks: tuple[Mark, ...] = ()) -> Chart:
    chart = curves("loss", "Loss", unit, np.arange(len(values)), values, alone, marks)  # type: ignore[arg-type]
    assert chart is not None
    return chart


def test_the_band_reaches_from_the_lowest_to_the_highest_peer() -> None:
    chart = drawn(np.array([[0.0, 2.0, 4.0], [1.0, 2.0, 3.0]]))
    assert chart.band == "M0.0 0.0L1000.0 250.0L1000.0 750.0L0.0 1000.0Z"
    assert chart.line == "M0.0 500.0L1000.0 500.0"


@pytest.mark.parametrize(("rounds", "every"), [(60, 10), (64, 10), (15, 10), (10, 3)])
def test_a_curve_that_is_measured_now_and_then_is_one_line(rounds: int, every: int) -> None:
    values = np.full((rounds + 1, 2), np.nan)
    measured = sorted({*range(0, rounds + 1, every), rounds})
    values[measured] = np.arange(len(measured))[:, None]
    found = drawn(values)
    assert (found.line.count("M"), found.line.count("L")) == (1, len(measured) - 1)
    assert found.band.count("M") == 1


def test_a_curve_has_a_gap_where_nobody_was_there() -> None:
    assert drawn(np.array([[0.0], [1.0], [np.nan], [1.0], [0.0]])).line.count("M") == 2


def test_a_peer_that_is_away_does_not_move_the_median_of_the_others() -> None:
    assert drawn(np.array([[1.0, np.nan, 3.0], [1.0, 9.0, 3.0]])).series["median"] == [2.0, 3.0]


def test_what_was_never_measured_is_no_chart() -> None:
    assert curves("loss", "Loss", "number", np.arange(3), np.full((3, 2), np.nan), NONE, ()) is None


def test_infinite_loss_is_left_out_and_the_rest_is_drawn() -> None:
    chart = drawn(np.array([[1.0, np.inf], [2.0, 3.0]]))
    assert chart.series["high"] == [1.0, 3.0]


def test_a_logarithmic_axis_has_a_gap_at_zero_distance_and_even_decades() -> None:
    chart = drawn(np.array([[0.0], [1.0], [0.1], [0.01]]), unit="log")
    assert chart.line == "M333.3 0.0L666.7 500.0L1000.0 1000.0"
    assert [(tick.at, tick.text) for tick in chart.y.ticks] == [(100.0, "0.01"), (50.0, "0.1"), (0.0, "1")]


@pytest.mark.parametrize("unit", ["percent", "number", "log", "bytes"])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0, 1e-12, 1e12])
def test_a_flat_curve_is_drawn_inside_its_axis(unit: str, value: float) -> None:
    chart = drawn(np.full((3, 2), value), unit=unit)
    heights = [float(point.split()[1]) for point in chart.line.removeprefix("M").split("L") if point]
    assert all(-0.1 <= height <= 1000.1 for height in heights)
    assert 2 <= len(chart.y.ticks) <= 12


def test_ticks_are_round_numbers() -> None:
    assert [tick.text for tick in drawn(np.array([[0.1], [0.93]]), unit="percent").y.ticks] == [
        "0 %",
        "25 %",
        "50 %",
        "75 %",
        "100 %",
    ]
    assert [tick.text for tick in drawn(np.array([[0.0], [3000.0]]), unit="bytes").y.ticks] == [
        "0 B",
        "1 KiB",
        "2 KiB",
        "3 KiB",
    ]


def test_marks_stand_at_their_round_and_only_inside_the_run() -> None:
    marks = (Mark(2.5, "killed"), Mark(99, "after the end"), Mark(float("nan"), "nowhere"))
    assert [(mark.at, mark.text) for mark in drawn(np.ones((6, 1)), marks=marks).marks] == [(50.0, "killed")]


def test_a_long_run_is_thinned_and_keeps_its_last_round() -> None:
    rounds = rounds_drawn(100_000)
    assert len(rounds) <= 1002
    assert (rounds[0], rounds[-1]) == (0, 99_999)
    assert rounds_drawn(21).tolist() == list(range(21))


def test_the_mean_of_nobody_is_nan() -> None:
    np.testing.assert_array_equal(row_means(np.array([[1.0, np.nan], [np.nan, np.nan]])), [1.0, np.nan])


def test_numbers_are_written_with_three_digits_and_their_unit() -> None:
    assert written(0.93456, "percent") == "93.5 %"
    assert [written(v, "number") for v in (0.2, 12.3456, 1234.5, 0.00001, 0.0, float("nan"))] == [
        "0.200",
        "12.3",
        "1234",
        "1.0e-5",
        "0",
        "–",
    ]
    assert [written(v, "bytes") for v in (0, 1023, 1536, 5.0 * 1024**3)] == ["0 B", "1023 B", "1.50 KiB", "5.00 GiB"]
