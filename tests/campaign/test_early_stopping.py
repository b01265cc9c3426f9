"""LoadGen's arithmetic: how many late queries a run may have."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.campaign.early_stopping import cannot_pass, fewest_queries, most_misses

SHARES = st.sampled_from((0.001, 0.01, 0.03, 0.1))


@pytest.mark.parametrize(("misses", "queries"), [(0, 459), (1, 662), (10, 2010), (100, 12571)])
def test_the_fewest_queries_at_the_99th_percentile_are_those_that_loadgen_asks_for(misses: int, queries: int) -> None:
    assert fewest_queries(misses, 1 - 0.99) == queries
    assert most_misses(queries, 1 - 0.99) == misses
    assert most_misses(queries - 1, 1 - 0.99) == misses - 1


@given(misses=st.integers(0, 3000), share=SHARES)
def test_both_directions_agree(misses: int, share: float) -> None:
    queries = fewest_queries(misses, share)
    assert most_misses(queries, share) >= misses > most_misses(queries - 1, share)


@given(queries=st.integers(0, 400), misses=st.integers(0, 20), share=SHARES)
def test_it_is_the_binomial_tail_that_decides(queries: int, misses: int, share: float) -> None:
    tail = sum(math.comb(queries, k) * share**k * (1 - share) ** (queries - k) for k in range(misses + 1))
    if abs(tail - 0.01) > 1e-9:
        assert cannot_pass(misses, share, queries) == (tail >= 0.01)


def test_a_long_run_may_have_nearly_the_allowed_share() -> None:
    allowed = most_misses(2_400_000, 0.01)
    assert 23_600 < allowed < 24_000
    assert not cannot_pass(allowed, 0.01, 2_400_000)
    assert cannot_pass(allowed + 1, 0.01, 2_400_000)


def test_a_run_with_too_few_queries_cannot_pass_at_all() -> None:
    assert most_misses(458, 0.01) == -1
    assert cannot_pass(0, 0.01, 458)
