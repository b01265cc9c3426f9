"""Changes and their intervals: what must not matter does not, and the interval holds what it promises."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.degradation import Estimate
from heteromig.results.estimates import paired, unpaired
from heteromig.results.student import critical_t
from tests.core.histories import examples

FIGURES = st.floats(0.01, 1e6)
SIDES = st.lists(FIGURES, min_size=1, max_size=6)


def bounds(estimate: Estimate | None) -> tuple[float, float, float]:
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low, estimate.change, estimate.high


def same(one: Estimate | None, other: Estimate | None) -> bool:
    assert one is not None
    assert other is not None
    figures = [(found.change, found.low, found.high, found.noise) for found in (one, other)]
    return one.n == other.n and all(
        a is b is None or a == pytest.approx(b, rel=1e-6, abs=1e-9) for a, b in zip(*figures, strict=True)
    )


@st.composite
def series(draw: st.DrawFn) -> tuple[list[float], list[float]]:
    runs = draw(st.integers(1, 5))
    count = st.lists(FIGURES, min_size=runs + 1, max_size=runs + 1)
    return draw(count), draw(st.lists(FIGURES, min_size=runs, max_size=runs))


@given(SIDES, SIDES)
@examples(200)
def test_exchanging_the_sides_inverts_the_ratio(first: list[float], second: list[float]) -> None:
    there, back = unpaired(first, second), unpaired(second, first)
    assert there is not None
    assert back is not None
    assert (1 + there.change) * (1 + back.change) == pytest.approx(1)
    if there.low is not None and back.high is not None and there.low > -0.999:
        assert (1 + there.low) * (1 + back.high) == pytest.approx(1)


@given(SIDES, SIDES, st.floats(0.001, 1000))
@examples(200)
def test_a_unit_makes_no_difference(first: list[float], second: list[float], scale: float) -> None:
    scaled = unpaired([scale * one for one in first], [scale * one for one in second])
    assert same(unpaired(first, second), scaled)


@given(series(), st.floats(0.001, 1000))
@examples(200)
def test_a_unit_makes_no_difference_to_a_series(runs: tuple[list[float], list[float]], scale: float) -> None:
    scaled = [[scale * one for one in side] for side in runs]
    assert same(paired(*runs), paired(*scaled))


@given(st.floats(100, 1000), st.floats(-5, 5), st.floats(0.2, 2), st.integers(1, 7))
@examples(200)
def test_an_even_drift_cancels_exactly(start: float, step: float, ratio: float, runs: int) -> None:
    alone = [start + 2 * step * number for number in range(runs + 1)]
    beside = [ratio * (start + step * (2 * number + 1)) for number in range(runs)]
    estimate = paired(alone, beside)
    assert estimate is not None
    assert estimate.change == pytest.approx(ratio - 1, abs=1e-12)
    if estimate.low is not None:
        assert bounds(estimate) == pytest.approx((ratio - 1,) * 3, abs=1e-9)


@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.lists(st.floats(-50, 50), min_size=2, max_size=2))
@examples(100)
def test_an_absolute_change_is_a_difference(alone: list[float], beside: list[float]) -> None:
    low, change, high = bounds(paired(alone, beside, absolute=True))
    between = [(alone[0] + alone[1]) / 2, (alone[1] + alone[2]) / 2]
    assert change == pytest.approx((beside[0] - between[0] + beside[1] - between[1]) / 2, abs=1e-9)
    assert low <= change <= high


def test_welch_against_a_published_example() -> None:
    """The first example of Wikipedia's article on Welch's test: t = -2.46 with 25.0 degrees of freedom."""
    first = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    second = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 20.5, 24.4]
    low, change, high = bounds(unpaired(first, second, absolute=True))
    assert change == pytest.approx(2.1667, abs=1e-4)
    half = critical_t(0.95, 25.0) * change / 2.46
    assert (low, high) == pytest.approx((change - half, change + half), abs=0.01)


def test_one_run_on_each_side_has_no_interval() -> None:
    estimate = unpaired([100], [96])
    assert estimate is not None
    assert estimate.change == pytest.approx(-0.04)
    assert estimate.low is estimate.high is None


def test_one_run_against_several_takes_their_noise_for_both() -> None:
    low, change, high = bounds(unpaired([100, 101, 99], [90]))
    assert low < change < high
    assert change == pytest.approx(-0.1, abs=1e-3)
    assert bounds(unpaired([90], [100, 101, 99]))[1] == pytest.approx(1 / 0.9 - 1, abs=2e-3)


def test_one_run_between_two_baselines_knows_their_noise_and_no_interval() -> None:
    estimate = paired([100, 102], [91])
    assert estimate is not None
    assert (estimate.low, estimate.high, estimate.n) == (None, None, 1)
    assert estimate.change == pytest.approx(91 / 101 - 1)
    assert estimate.noise == pytest.approx(0.02)


def test_nothing_has_no_estimate() -> None:
    assert unpaired([], [1]) is None
    assert unpaired([1], []) is None
    assert paired([1], []) is None


def test_equal_runs_have_an_interval_of_no_width() -> None:
    assert bounds(unpaired([5, 5], [5, 5])) == (0, 0, 0)
    assert bounds(paired([5, 5, 5], [5, 5])) == (0, 0, 0)


@pytest.mark.parametrize("runs", [2, 3, 5, 9])
def test_the_interval_of_a_series_holds_the_truth_as_often_as_it_says(runs: int) -> None:
    """Without the allowance for the runs that neighbouring pairs share, it is 91 % with nine pairs."""
    chance = random.Random(runs)  # noqa: S311 - repeatable noise is wanted, not a secret
    trials, held = 4000, 0
    for _ in range(trials):
        alone = [chance.gauss(1000, 10) for _ in range(runs + 1)]
        low, _, high = bounds(paired(alone, [chance.gauss(960, 10) for _ in range(runs)]))
        held += low <= -0.04 <= high
    assert held / trials == pytest.approx(0.95, abs=0.012)


def test_figures_that_have_nothing_to_do_with_each_other_are_no_overflow() -> None:
    low, _, high = bounds(unpaired([1e-300, 1e300], [1e-300, 1e300]))
    assert low == pytest.approx(-1)
    assert high > 1e300
