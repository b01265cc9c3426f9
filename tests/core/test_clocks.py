"""Stamps of a wall clock that is slewed and set, put right."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.core.clocks import READING_NS, SLEW_PPM, STEP_NS, ClockMap, ClockReading, Moment
from heteromig.core.units import NS_PER_MS, NS_PER_S
from tests.core.histories import examples

EPOCH_NS = 1_700_000_000 * NS_PER_S
SURE_NS = 2 * READING_NS + 3
"""The uncertainty of a stamp that was made at a reading."""


def reading(at_s: float, set_by_s: float = 0.0) -> ClockReading:
    at_ns = round(at_s * NS_PER_S)
    return ClockReading(at_ns, EPOCH_NS + at_ns + round(set_by_s * NS_PER_S))


def stamp(at_s: float) -> int:
    return EPOCH_NS + round(at_s * NS_PER_S)


STEADY = ClockMap(reading(0), reading(10), reading(20))


@pytest.mark.parametrize("at_s", [0, 10, 20])
def test_a_stamp_at_a_reading_is_exact(at_s: float) -> None:
    found = STEADY.moment(stamp(at_s))
    assert found is not None
    assert abs(found.at_ns - at_s * NS_PER_S) <= 1
    assert found.uncertainty_ns <= SURE_NS


def test_between_readings_a_clock_may_have_been_slewed_and_back() -> None:
    found = STEADY.moment(stamp(15))
    assert found is not None
    assert found.at_ns == pytest.approx(15 * NS_PER_S, abs=2)
    assert found.uncertainty_ns == pytest.approx(5 * NS_PER_S * SLEW_PPM // 1_000_000 + 2 * READING_NS, abs=4)


@pytest.mark.parametrize("at_s", [-5, 25])
def test_outside_the_readings_the_nearest_one_counts(at_s: float) -> None:
    found = STEADY.moment(stamp(at_s))
    assert found is not None
    assert found.at_ns == pytest.approx(at_s * NS_PER_S, abs=2)
    assert found.uncertainty_ns == pytest.approx(5 * NS_PER_S * SLEW_PPM // 1_000_000 + 2 * READING_NS, abs=4)


def test_one_reading_is_a_map_too() -> None:
    assert ClockMap(reading(0)).moment(stamp(0)) == Moment(0, SURE_NS - 2)


def test_a_slewed_clock_is_interpolated() -> None:
    slewed = ClockMap(reading(0), reading(10, set_by_s=0.004))
    assert slewed.steps == ()
    assert slewed.drift_ns == 4 * NS_PER_MS
    found = slewed.moment(stamp(5.002))
    assert found is not None
    assert found.at_ns == pytest.approx(5 * NS_PER_S, abs=2)


FORWARD = ClockMap(reading(0), reading(10), reading(10.25, 3600), reading(20, 3600))
BACKWARD = ClockMap(reading(0), reading(10), reading(10.25, -4), reading(20, -4))


def test_a_step_is_told_with_when() -> None:
    assert [(step.by_ns, step.after_ns, step.before_ns) for step in FORWARD.steps] == [
        (3600 * NS_PER_S, 10 * NS_PER_S, 10_250 * NS_PER_MS)
    ]
    assert [step.by_ns for step in BACKWARD.steps] == [-4 * NS_PER_S]


@pytest.mark.parametrize(
    ("clocks", "shown_s", "at_s"),
    [(FORWARD, 5, 5), (FORWARD, 3612, 12), (BACKWARD, 5, 5), (BACKWARD, 12, 16), (BACKWARD, 16, 20)],
)
def test_a_stamp_clearly_before_or_after_a_step_is_put_right(clocks: ClockMap, shown_s: float, at_s: float) -> None:
    found = clocks.moment(stamp(shown_s))
    assert found is not None
    assert abs(found.at_ns - at_s * NS_PER_S) <= found.uncertainty_ns <= 10 * NS_PER_MS


def test_what_the_clock_showed_twice_means_nothing() -> None:
    assert BACKWARD.moment(stamp(8)) is None  # at 8 s, and at 12 s


def test_what_the_clock_never_showed_means_nothing() -> None:
    assert FORWARD.moment(stamp(1000)) is None


@pytest.mark.parametrize("set_by_s", [0.1, -0.1])
def test_a_small_step_costs_certainty_alone(set_by_s: float) -> None:
    clocks = ClockMap(reading(0), reading(10), reading(10.25, set_by_s), reading(20, set_by_s))
    assert len(clocks.steps) == 1
    found = clocks.moment(stamp(10.1 + set_by_s))
    assert found is not None
    assert abs(found.at_ns - 10.1 * NS_PER_S) <= found.uncertainty_ns
    assert 40 * NS_PER_MS < found.uncertainty_ns < 120 * NS_PER_MS


def test_readings_that_contradict_each_other_by_a_hair_are_no_step() -> None:
    """Two in a row, and this process was interrupted within the first."""
    clocks = ClockMap(reading(0), reading(10, 0.0004), reading(10.00001), reading(20))
    assert clocks.steps == ()
    found = clocks.moment(stamp(10))
    assert found is not None
    assert abs(found.at_ns - 10 * NS_PER_S) <= found.uncertainty_ns <= 2 * NS_PER_MS


@st.composite
def slewed_clocks(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(monotonic, wall clock) at the corners of a clock that is slewed all the time."""
    corners = [(0, EPOCH_NS)]
    for length_ns in draw(st.lists(st.integers(NS_PER_MS, 12 * NS_PER_S), min_size=2, max_size=8)):
        rate = draw(st.integers(-SLEW_PPM, SLEW_PPM))
        at_ns, utc_ns = corners[-1]
        corners.append((at_ns + length_ns, utc_ns + length_ns + length_ns * rate // 1_000_000))
    return corners


def shown(corners: list[tuple[int, int]], at_ns: int) -> int:
    """What the wall clock shows then."""
    for (begin_ns, begin_utc_ns), (end_ns, end_utc_ns) in itertools.pairwise(corners):
        if begin_ns <= at_ns <= end_ns:
            return begin_utc_ns + (at_ns - begin_ns) * (end_utc_ns - begin_utc_ns) // (end_ns - begin_ns)
    raise AssertionError(at_ns)


@given(slewed_clocks(), st.data())
@examples(300)
def test_without_a_step_every_stamp_is_right_to_the_slewing(
    corners: list[tuple[int, int]], data: st.DataObject
) -> None:
    last_ns = corners[-1][0]
    moments = st.integers(0, last_ns)
    looks = [0, *data.draw(st.lists(moments, max_size=6)), last_ns]
    noise = st.integers(-READING_NS, READING_NS)
    clocks = ClockMap(*(ClockReading(at, shown(corners, at) + data.draw(noise)) for at in looks))
    assert clocks.steps == ()
    at_ns = data.draw(moments)
    found = clocks.moment(shown(corners, at_ns))
    assert found is not None
    assert abs(found.at_ns - at_ns) <= found.uncertainty_ns
    longest_ns = max(after - before for before, after in itertools.pairwise(sorted(looks)))
    assert found.uncertainty_ns <= longest_ns * SLEW_PPM // 1_000_000 + 6 * READING_NS


@given(slewed_clocks(), st.integers(-20 * NS_PER_S, 20 * NS_PER_S), st.data())
@examples(300)
def test_with_a_step_a_stamp_is_right_or_means_nothing(
    corners: list[tuple[int, int]], step_ns: int, data: st.DataObject
) -> None:
    last_ns = corners[-1][0]
    moments = st.integers(0, last_ns)
    stepped_ns = data.draw(moments)
    looks = [0, *data.draw(st.lists(moments, max_size=8)), last_ns]

    def stepped(at_ns: int) -> int:
        return shown(corners, at_ns) + (step_ns if at_ns >= stepped_ns else 0)

    clocks = ClockMap(*(ClockReading(at, stepped(at)) for at in looks))
    if abs(step_ns) > STEP_NS + 2 * last_ns * SLEW_PPM // 1_000_000 + 2 and stepped_ns > 0:
        assert len(clocks.steps) == 1
        assert clocks.steps[0].after_ns <= stepped_ns <= clocks.steps[0].before_ns
    at_ns = data.draw(moments)
    found = clocks.moment(stepped(at_ns))
    if found is not None:
        assert abs(found.at_ns - at_ns) <= found.uncertainty_ns
