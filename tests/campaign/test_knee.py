"""The line through the logarithms of the shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.campaign.knee import FAR, Reading, fit


def reading(rate_qps: float, share: float, spells: int | None = None, queries: int = 1_000_000) -> Reading:
    return Reading(rate_qps=rate_qps, queries=queries, misses=round(share * queries), spells=spells)


def test_two_runs_on_either_side_give_the_crossing_between_them() -> None:
    knee = fit([reading(390, 0.005), reading(410, 0.02)], 0.01, 0.001)
    assert knee is not None
    assert knee.rate_qps == pytest.approx(400, rel=0.001)
    assert knee.noise is None
    assert knee.share_at(knee.rate_qps) == pytest.approx(knee.share) == pytest.approx(0.01)
    assert knee.share_at(390) == pytest.approx(0.005, rel=0.01)
    assert knee.share_at(410) == pytest.approx(0.02, rel=0.01)


@given(slope=st.floats(15, 100), low=st.floats(0.975, 0.99), high=st.floats(1.01, 1.015))
def test_runs_on_a_line_give_that_line(slope: float, low: float, high: float) -> None:
    rates = [400 * low, 400, 400 * high]
    knee = fit([reading(rate, 0.01 * (rate / 400) ** slope) for rate in rates], 0.01, 0.001)
    assert knee is not None
    assert knee.rate_qps == pytest.approx(400, rel=0.003)
    assert knee.noise is not None
    assert knee.noise < 0.005


def test_one_run_is_enough_to_say_where_to_look() -> None:
    knee = fit([reading(380, 0.004)], 0.01, 0.001)
    assert knee is not None
    assert 380 < knee.rate_qps < 400
    assert knee.error > 0.005


def test_runs_without_late_queries_and_runs_far_away_say_nothing() -> None:
    far = [reading(100, 0.0), reading(300, 0.01 / FAR / 2), reading(500, 0.01 * FAR)]
    assert fit(far, 0.01, 0.001) is None


def test_more_late_spells_are_more_certain_and_uncounted_ones_are_guessed_from_the_misses() -> None:
    errors = []
    for spells in (3, 30, 300, None):
        knee = fit([reading(390, 0.005, spells, 20_000), reading(410, 0.02, spells, 20_000)], 0.01, 0.001)
        assert knee is not None
        errors.append(knee.error)
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] > errors[3] > errors[2]


def test_a_run_that_contradicts_the_line_makes_it_less_certain() -> None:
    agreeing = [reading(390, 0.005, 200), reading(400, 0.01, 200), reading(410, 0.02, 200)]
    sure, unsure = fit(agreeing, 0.01, 0.001), fit([*agreeing, reading(401, 0.05, 200)], 0.01, 0.001)
    assert sure is not None
    assert unsure is not None
    assert unsure.error > 2 * sure.error
    assert unsure.noise is not None
    assert sure.noise is not None
    assert unsure.noise > 5 * sure.noise


def test_a_longer_run_scatters_less() -> None:
    knee = fit([reading(400, 0.01, 10, 24_000)], 0.01, 0.001)
    assert knee is not None
    assert knee.spell_queries == pytest.approx(2400, rel=0.01)
    assert knee.scatter(240_000) == pytest.approx(knee.scatter(24_000) / math.sqrt(10))
