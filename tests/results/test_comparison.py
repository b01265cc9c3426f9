from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.results.comparison import P99, Place, Reading, change_percent, compare, ratio

PLACE = Place("results", "a_HeteroMultiUse", "a", "same name", "resnet50", "x")


def reading(scenario: str, *, valid: bool = True, size: int | None = None, **metrics: float) -> Reading:
    p99_ns = metrics.pop("p99", None)
    told = metrics if p99_ns is None else {**metrics, P99: p99_ns}
    return Reading(scenario=scenario, metrics=told, valid=valid, samples_per_query=size)


def test_published_offline_result() -> None:
    found = compare(
        PLACE,
        reading("offline", result_samples_per_second=5200.54, p99=640820506837),
        reading("offline", result_samples_per_second=5231.07, p99=637078186849),
    )
    assert (found.value, found.baseline_value, found.unit) == (5200.54, 5231.07, "samples/s")
    assert (found.ratio, found.change_percent, found.p99_change_percent) == (0.9942, -0.58, 0.59)
    assert (found.p99_ms, found.remark) == (640820.506837, "")


def test_server_compares_the_figure_that_both_have() -> None:
    old = reading("server", result_scheduled_samples_per_sec=100.0, result_completed_samples_per_sec=99.0)
    new = reading("server", result_completed_samples_per_sec=98.0)
    assert compare(PLACE, new, old).metric == "result_completed_samples_per_sec"
    assert compare(PLACE, new, old).ratio == 0.9899
    assert compare(PLACE, old, old).metric == "result_scheduled_samples_per_sec"
    nothing_shared = compare(PLACE, reading("server", result_scheduled_samples_per_sec=1.0), new)
    assert nothing_shared.ratio is None
    assert nothing_shared.remark == "the two logs have no figure in common"


def test_streams_are_compared_by_latency_in_ms() -> None:
    alone = {"result_90.00_percentile_latency_ns": 681620.0}
    found = compare(
        PLACE,
        Reading("singlestream", {"result_90.00_percentile_latency_ns": 750000.0}, valid=True, samples_per_query=1),
        Reading("singlestream", {**alone, "early_stopping_latency_ss": 681640.0}, valid=False, samples_per_query=1),
    )
    assert (found.unit, found.value, found.baseline_value) == ("ms", 0.75, 0.68162)
    assert (found.change_percent, found.p99_change_percent) == (10.03, None)
    assert (found.valid, found.baseline_valid) == (True, False)


def test_sizes_that_differ_are_told() -> None:
    big, bigger = (
        reading("offline", size=size, result_samples_per_second=10.0, p99=2.0) for size in (3019500, 3234000)
    )
    found = compare(PLACE, big, bigger)
    assert (found.ratio, found.remark) == (1.0, "p99 is of 3019500 samples against 3234000")
    eight, sixteen = (reading("multistream", size=size, p99=2.0) for size in (8, 16))
    found = compare(PLACE, eight, sixteen)
    assert (found.ratio, found.remark) == (None, "8 samples per query against 16")
    assert compare(PLACE, eight, eight).ratio == 1.0


def test_a_result_without_another_is_shown_all_the_same() -> None:
    found = compare(PLACE, reading("offline", result_samples_per_second=10.0, p99=2.0), None, "none there")
    assert (found.value, found.baseline_value, found.ratio, found.change_percent) == (10.0, None, None, None)
    assert (found.valid, found.baseline_valid, found.remark) == (True, None, "none there")


_POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False)


@given(_POSITIVE, _POSITIVE)
def test_figures_are_finite_or_unknown_and_agree(value: float, baseline: float) -> None:
    quotient, percent = ratio(value, baseline), change_percent(value, baseline)
    for figure in (quotient, percent):
        assert figure is None or math.isfinite(figure)
    if quotient is not None and percent is not None and quotient < 1e6:
        assert percent == pytest.approx((quotient - 1) * 100, abs=0.0101)
        assert math.copysign(1, percent) == 1 or percent < 0


def test_nothing_is_divided_by_nothing() -> None:
    assert [ratio(1.0, None), ratio(None, 1.0), ratio(1.0, 0.0), change_percent(1.0, 0.0)] == [None] * 4
    assert str(change_percent(0.99999999, 1.0)) == "0.0"
