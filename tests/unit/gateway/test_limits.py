"""The limiter's laws."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits import RequestLimiter


@given(st.integers(1, 50), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_never_more_than_twice_the_limit_in_any_minute_and_never_more_than_it_at_once(limit: int, gaps: list[float]) -> None:
    now = 0.0
    limiter = RequestLimiter(lambda: now)
    taken: list[float] = []
    for gap in gaps:
        now += gap
        if limiter.take("k", limit).allowed:
            taken.append(now)
    for start in taken:
        assert sum(1 for at in taken if start <= at < start + 60) <= 2 * limit
        assert taken.count(start) <= limit


def test_what_remains_can_really_be_taken() -> None:
    limiter = RequestLimiter(lambda: 0.0)
    remaining = limiter.take("k", 7).remaining
    assert sum(limiter.take("k", 7).allowed for _ in range(20)) == remaining == 6


def test_after_retry_after_a_call_passes() -> None:
    now = 0.0
    limiter = RequestLimiter(lambda: now)
    while (verdict := limiter.take("k", 3)).allowed:
        pass
    now = float(verdict.retry_after)
    assert limiter.take("k", 3).allowed


def test_a_limit_of_zero_refuses() -> None:
    assert not RequestLimiter().take("k", 0).allowed
