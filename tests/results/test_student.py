"""Student's t against published tables, and against what must hold of any distribution."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.results.student import critical_t, incomplete_beta, tail
from tests.core.histories import examples

TWO_SIDED_95 = {
    1: 12.706,
    2: 4.303,
    3: 3.182,
    4: 2.776,
    5: 2.571,
    9: 2.262,
    10: 2.228,
    30: 2.042,
    60: 2.000,
    120: 1.980,
}
"""Critical values as in NIST/SEMATECH, e-Handbook of Statistical Methods, 1.3.6.7.2 (upper 0.025)."""
TWO_SIDED_99 = {1: 63.657, 2: 9.925, 5: 4.032, 10: 3.169, 30: 2.750}
"""The same for the upper 0.005."""


@pytest.mark.parametrize(("confidence", "table"), [(0.95, TWO_SIDED_95), (0.99, TWO_SIDED_99)])
def test_published_values(confidence: float, table: dict[int, float]) -> None:
    assert {freedom: round(critical_t(confidence, freedom), 3) for freedom in table} == table


def test_many_degrees_of_freedom_are_the_normal_distribution() -> None:
    assert critical_t(0.95, 1e7) == pytest.approx(1.959964, abs=1e-5)


@given(st.floats(0.01, 0.999), st.floats(0.3, 500))
@examples(200)
def test_a_quantile_is_where_the_tail_is(confidence: float, freedom: float) -> None:
    assert tail(critical_t(confidence, freedom), freedom) == pytest.approx(1 - confidence, rel=1e-9)


@given(st.floats(0, 50))
@examples(100)
def test_one_degree_of_freedom_is_the_cauchy_distribution(t: float) -> None:
    assert tail(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, abs=1e-12)


@given(st.floats(0.1, 300), st.floats(0.1, 300), st.floats(0.01, 0.99))
@examples(200)
def test_incomplete_beta_is_symmetric(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(1 - incomplete_beta(b, a, 1 - x), abs=1e-9)
