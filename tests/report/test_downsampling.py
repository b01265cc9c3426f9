from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from heteromig.report.downsampling import thinned

WINDOW = (0.0, 1800.0)


def test_a_spike_of_one_sample_survives() -> None:
    times_s = [number * 0.1 for number in range(18_000)]
    values = [50.0] * 18_000
    values[12_345], values[6_789] = 99.0, 1.0
    drawn_s, drawn = thinned(times_s, values, WINDOW, 400)
    assert len(drawn) <= 2 * 400 + 2
    assert max(drawn) == 99.0
    assert min(drawn) == 1.0
    assert times_s[12_345] in drawn_s


def test_no_line_is_drawn_where_nobody_looked() -> None:
    times_s = [*map(float, range(100)), *map(float, range(400, 500))]
    drawn_s, drawn = thinned(times_s, [1.0] * 200, WINDOW, 400)
    gaps = [number for number, value in enumerate(drawn) if math.isnan(value)]
    assert len(gaps) == 1
    assert 99.0 < drawn_s[gaps[0]] < 400.0


@given(
    st.lists(st.floats(0, 1800, allow_nan=False), max_size=300, unique=True).map(sorted),
    st.integers(1, 50),
)
def test_extremes_are_kept_and_order_too(times_s: list[float], columns: int) -> None:
    values = [math.sin(at_s * 7) for at_s in times_s]
    drawn_s, drawn = thinned(times_s, values, WINDOW, columns)
    known = [value for value in drawn if not math.isnan(value)]
    assert drawn_s == sorted(drawn_s)
    assert set(known) <= set(values)
    if values:
        assert (min(known), max(known)) == (min(values), max(values))
