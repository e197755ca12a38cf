"""Token buckets: never more than burst + rate * time, whatever is asked for and when."""

from hypothesis import given
from hypothesis import strategies as st

from p2pfl.protocol.bucket import Bucket, Buckets

ASKED = st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20)), max_size=50)


@given(ASKED)
def test_no_more_is_granted_than_the_burst_and_what_came_since(asked: list[tuple[float, float]]) -> None:
    bucket, now, granted = Bucket(2.0, 10.0, 0.0), 0.0, 0.0
    for wait, amount in asked:
        now += wait
        granted += amount if bucket.take(amount, now) else 0.0
        assert granted <= 10.0 + 2.0 * now + 1e-9


def test_what_is_refused_costs_nothing() -> None:
    bucket = Bucket(1.0, 4.0, 0.0)
    assert not any(bucket.take(5.0, 0.0) for _ in range(100))
    assert bucket.take(4.0, 0.0) and not bucket.take(0.5, 0.0)
    assert bucket.take(0.5, 0.5)


def test_a_clock_that_goes_back_grants_nothing_twice() -> None:
    bucket = Bucket(1.0, 4.0, 100.0)
    assert bucket.take(4.0, 100.0)
    assert not bucket.take(1.0, 0.0)
    assert bucket.take(1.0, 101.0) and not bucket.take(1.0, 101.0)


def test_each_source_has_its_own() -> None:
    buckets = Buckets(1.0, 3.0, most=8)
    assert [buckets.take("a", 1.0, 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert buckets.take("b", 3.0, 0.0)


def test_a_hundred_thousand_sources_leave_no_more_than_were_to_be_kept() -> None:
    buckets = Buckets(1.0, 1.0, most=64)
    assert buckets.take("busy", 1.0, 0.0)
    for k in range(100_000):
        buckets.take(k, 1.0, 0.0)
        assert not buckets.take("busy", 1.0, 0.0)  # asked for often, hence never forgotten
    assert len(buckets) == 64
