"""A queue that is longer than the bound has more late queries than may be, whatever else happens."""

from __future__ import annotations

import bisect
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heteromig.campaign.outstanding import most_outstanding, rarely_above


def test_those_that_are_not_late_yet_come_on_top() -> None:
    assert most_outstanding(2000, 400.0, 100.0) == 2000 + 40 + 38 + 10
    assert most_outstanding(0, 400.0, 100.0) > rarely_above(40.0)


@pytest.mark.parametrize("most_late", [-1, 0])
def test_it_is_never_0_which_would_be_no_limit(most_late: int) -> None:
    assert most_outstanding(most_late, 0.001, 0.001) >= 1


@settings(deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    rate_qps=st.floats(10, 2000),
    limit_ms=st.floats(1, 500),
    most_late=st.integers(0, 50),
    answered=st.floats(0, 0.9),
)
def test_above_it_too_many_are_late(
    seed: int, rate_qps: float, limit_ms: float, most_late: int, answered: float
) -> None:
    """A server that falls behind: of the queries that are due, it has answered the first share."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    most = most_outstanding(most_late, rate_qps, limit_ms)
    due_s = list(itertools.accumulate(chance.expovariate(rate_qps) for _ in range(12 * (most + 1))))
    for issued in range(1, len(due_s)):
        first = int(answered * issued)
        if issued - first > most:
            late = bisect.bisect_left(due_s, due_s[issued - 1] - limit_ms / 1000, first, issued) - first
            assert late > most_late
            return
    raise AssertionError("the queue never was too long")
