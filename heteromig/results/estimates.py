"""How much a figure changed, and how sure that is. Pure.

Relative changes are averaged as logarithms, so that exchanging the sides turns a ratio r into 1/r exactly, and a unit
makes no difference.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence

from heteromig.core.degradation import Estimate
from heteromig.results.student import critical_t

CONFIDENCE = 0.95
_LOGARITHM_MAX = 709.0


def paired(alone: Sequence[float], beside: Sequence[float], *, absolute: bool = False) -> Estimate | None:
    """Each of `beside` against the mean of the two of `alone` between which it was measured; None where there is none.

    `alone` has one more. A drift that grows evenly from run to run cancels exactly: the mean of the neighbours is what
    `alone` would have been at that time. Neighbouring pairs have a run in common, so that they are not independent: see
    `_shared`. Figures are above 0, unless the change is `absolute`, a difference.
    """
    between = [(before + after) / 2 for before, after in itertools.pairwise(alone)]
    changes = [_difference(a, b, absolute=absolute) for a, b in zip(between, beside, strict=True)]
    if not changes:
        return None
    middle, n = statistics.fmean(changes), len(changes)
    if n == 1:
        noise = max((abs(_difference(a, b, absolute=absolute)) for a, b in itertools.pairwise(alone)))
        return _estimate(middle, None, n, absolute=absolute, noise=noise)
    half = critical_t(CONFIDENCE, n - 1) * statistics.stdev(changes) / math.sqrt(n) * _shared(n)
    return _estimate(middle, half, n, absolute=absolute)


def unpaired(first: Sequence[float], second: Sequence[float], *, absolute: bool = False) -> Estimate | None:
    """The mean of one side against that of the other; None where one has no runs. Figures as in `paired`.

    With two runs or more on each side it is Welch's interval, which does not take both for equally noisy; with one on
    one side, the noise of the other has to do for both. With one on each there is none.
    """
    if not first or not second:
        return None
    a, b = (_transformed(side, absolute=absolute) for side in (first, second))
    middle, n = statistics.fmean(b) - statistics.fmean(a), min(len(a), len(b))
    if len(a) == len(b) == 1:
        return _estimate(middle, None, n, absolute=absolute)
    if n == 1:
        freedom = float(len(a) + len(b) - 2)
        variance = sum(statistics.variance(side) for side in (a, b) if len(side) > 1)
        error = math.sqrt(variance * (1 / len(a) + 1 / len(b)))
    else:
        shares = [statistics.variance(side) / len(side) for side in (a, b)]
        error = math.sqrt(sum(shares))
        below = sum(share**2 / (len(side) - 1) for share, side in zip(shares, (a, b), strict=True))
        freedom = sum(shares) ** 2 / below if below > 0 else float(n - 1)
    return _estimate(middle, critical_t(CONFIDENCE, freedom) * error, n, absolute=absolute)


def _shared(n: int) -> float:
    """By how much the usual standard error of `n` pairs is too small, because neighbours share a run of `alone`.

    With runs of equal variance v, pair k is b_k - (a_k + a_k+1) / 2 with variance 3v/2, and covariance v/4 with the
    next. The mean of n then has variance (2n - 1/2) v / n^2, and the sample variance an expectation of
    (3n - 1) v / 2n; the ratio of the former to a n-th of the latter is (4n - 1) / (3n - 1).
    """
    return math.sqrt((4 * n - 1) / (3 * n - 1))


def _difference(first: float, second: float, *, absolute: bool) -> float:
    return second - first if absolute else math.log(second / first)


def _transformed(figures: Sequence[float], *, absolute: bool) -> list[float]:
    return list(figures) if absolute else [math.log(figure) for figure in figures]


def _ratio(logarithm: float) -> float:
    """How much more than 1, at most as much as there is a number for."""
    return math.expm1(min(logarithm, _LOGARITHM_MAX))


def _estimate(middle: float, half: float | None, n: int, *, absolute: bool, noise: float | None = None) -> Estimate:
    """Back from logarithms, where these were averaged; never -0.0."""
    back: Callable[[float], float] = (lambda value: value) if absolute else _ratio
    return Estimate(
        change=back(middle) + 0.0,
        low=None if half is None else back(middle - half) + 0.0,
        high=None if half is None else back(middle + half) + 0.0,
        n=n,
        noise=None if noise is None else back(noise),
    )
