"""Quantiles of Student's t, which the standard library lacks. Pure."""

from __future__ import annotations

import functools
import math

_TINY = 1e-300
_PRECISION = 1e-15
_TERMS_MAX = 10_000
_HALVINGS = 100


@functools.lru_cache(maxsize=64)  # every metric of a comparison asks for the same
def critical_t(confidence: float, freedom: float) -> float:
    """The t within which, either way of 0, the share `confidence` of Student's distribution lies.

    `freedom` are the degrees of freedom, which need not be whole (Welch), above 0; `confidence` is between 0 and 1.
    """
    outside = 1 - confidence
    high = 1.0
    while tail(high, freedom) > outside:
        high *= 2
    low = 0.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if tail(middle, freedom) > outside:
            low = middle
        else:
            high = middle
    return high


def tail(t: float, freedom: float) -> float:
    """The share of Student's distribution further from 0 than `t`, either way (DLMF 8.17 and Abramowitz 26.7.1)."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, and that of the complement does not
        return 1 - incomplete_beta(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(logarithm) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) by Lentz's method, as Thompson and Barnett have it."""
    value, numerator, denominator = 1.0, 1.0, 0.0
    for term in range(1, _TERMS_MAX):
        m, odd = divmod(term, 2)
        if odd:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / _away_from_0(1 + d * denominator)
        numerator = _away_from_0(1 + d / numerator)
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < _PRECISION:
            break
    return value


def _away_from_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
