"""Silences: unions, cuts, shares, and the folds that find them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.gaps import (
    MIN_GAP_NS,
    Idleness,
    Interval,
    Silences,
    clip,
    covered_share,
    long_gaps,
    union,
    without,
)
from heteromig.core.units import NS_PER_S
from tests.core.histories import examples

S = NS_PER_S


def spans(*pairs: tuple[float, float]) -> tuple[Interval, ...]:
    return tuple(Interval(round(begin_s * S), round(end_s * S)) for begin_s, end_s in pairs)


def test_union_joins_what_overlaps_or_touches() -> None:
    assert union(spans((5, 6), (1, 2), (2, 3), (5.5, 5.7))) == spans((1, 3), (5, 6))


def test_clip_cuts_and_leaves_out_what_only_touches() -> None:
    (main,) = spans((10, 20))
    assert clip(spans((0, 10), (5, 11), (12, 13), (19, 30), (20, 21)), main) == spans((10, 11), (12, 13), (19, 20))
    assert clip(spans((0, 10)), Interval(5, 5)) == ()


def test_without_leaves_what_is_between_holes() -> None:
    (whole,) = spans((0, 10))
    assert without(whole, spans((-1, 1), (4, 5), (4.5, 6), (9, 12))) == spans((1, 4), (6, 9))
    assert without(whole, ()) == (whole,)
    assert without(whole, spans((-1, 11))) == ()


def test_a_long_gap_is_long_inside_the_interval_and_of_all_sources_together() -> None:
    (main,) = spans((10, 20))
    silences = spans((1, 12), (13, 16), (15, 18.5))
    assert long_gaps(silences, main, 5 * S) == spans((13, 18.5))
    assert long_gaps(silences, main, 2 * S - 1) == spans((10, 12), (13, 18.5))


@pytest.mark.parametrize(
    ("section", "gaps", "share"),
    [
        ((0, 30), (), 1.0),
        ((0, 30), ((12, 14), (13, 15)), 0.7),
        ((12, 30), ((11, 13),), 0.7),
        ((0, 5), (), 0.0),
        ((0, 30), ((0, 30),), 0.0),
    ],
)
def test_share(section: tuple[float, float], gaps: tuple[tuple[float, float], ...], share: float) -> None:
    (section_,), (main,) = spans(section), spans((10, 20))
    assert covered_share(section_, spans(*gaps), main) == pytest.approx(share)


def test_only_silences_that_are_long_are_kept() -> None:
    fold = Silences()
    assert fold.until(100 * S) == ()
    for at_s in (1, 2, 4, 9, 10):
        fold = fold.broken(at_s * S)
    assert fold.found == spans((4, 9))
    assert fold.until(12 * S) == spans((4, 9))
    assert fold.until(13 * S) == spans((4, 9), (10, 13))


def test_a_silence_is_shorter_by_what_its_end_is_unsure() -> None:
    assert Silences(0).broken(5 * S, uncertainty_ns=S // 2).found == spans((0, 4.5))
    assert Silences(0).broken(MIN_GAP_NS + S // 2, uncertainty_ns=S // 2).found == ()


def test_idle_readings_in_a_row_are_one_silence() -> None:
    fold = Idleness()
    for at_s, percent in enumerate([50.0, 0.0, 0.05, 0.0, 80.0, 0.0, 80.0, 0.0, 0.0]):
        fold = fold.after(at_s * S, (at_s + 1) * S, percent)
    assert fold.worked
    assert fold.found == spans((1, 4), (7, 9))


def test_a_reading_that_is_no_number_says_nothing_of_idleness() -> None:
    assert Idleness().after(0, S, float("nan")).found == ()


MOMENTS = st.integers(0, 100)
INTERVALS = st.tuples(MOMENTS, MOMENTS).map(lambda pair: Interval(*sorted(pair)))
MAINS = INTERVALS.filter(lambda interval: interval.length_ns > 0)


def _moments(intervals: tuple[Interval, ...]) -> set[int]:
    """The unit steps of time that they cover."""
    return {at for one in intervals for at in range(one.begin_ns, one.end_ns)}


@given(st.lists(INTERVALS, max_size=6), INTERVALS)
@examples(300)
def test_the_arithmetic_is_that_of_sets(intervals: list[Interval], one: Interval) -> None:
    all_of_it, within = _moments(tuple(intervals)), _moments((one,))
    joined = union(intervals)
    assert _moments(joined) == all_of_it
    assert all(before.end_ns < after.begin_ns for before, after in itertools.pairwise(joined))
    assert _moments(clip(intervals, one)) == all_of_it & within
    assert _moments(without(one, intervals)) == within - all_of_it


@given(INTERVALS, st.lists(INTERVALS, max_size=6), INTERVALS, MAINS)
@examples(300)
def test_more_gaps_never_raise_coverage(
    section: Interval, gaps: list[Interval], more: Interval, main: Interval
) -> None:
    before, after = covered_share(section, gaps, main), covered_share(section, [*gaps, more], main)
    assert 0.0 <= after <= before <= 1.0
    inside = _moments((section,)) & _moments((main,))
    assert before == pytest.approx(len(inside - _moments(tuple(gaps))) / main.length_ns)
