"""Series thinned to what can be seen: the least and the greatest of each pixel column, so that spikes survive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median

_GAP_PERIODS = 3.5
"""A pause of more than three samples is one that nobody looked in: no line is drawn across it."""


def thinned(
    times_s: Sequence[float], values: Sequence[float], window: tuple[float, float], columns: int
) -> tuple[list[float], list[float]]:
    """At most two points for each of `columns` equal parts of the window, in order, with NaN where nobody looked."""
    if len(times_s) <= 2 * columns:
        points = list(zip(times_s, values, strict=True))
    else:
        points = list(_extremes(times_s, values, window, columns))
    apart_s = _GAP_PERIODS * _period_s(times_s)
    apart_s = max(apart_s, 2 * (window[1] - window[0]) / columns)
    drawn_s: list[float] = []
    drawn: list[float] = []
    for number, (at_s, value) in enumerate(points):
        if number and at_s - points[number - 1][0] > apart_s:
            drawn_s.append((at_s + points[number - 1][0]) / 2)
            drawn.append(float("nan"))
        drawn_s.append(at_s)
        drawn.append(value)
    return drawn_s, drawn


def _period_s(times_s: Sequence[float]) -> float:
    steps = [after - before for before, after in pairwise(times_s)]
    return median(steps) if steps else 0.0


def _extremes(
    times_s: Sequence[float], values: Sequence[float], window: tuple[float, float], columns: int
) -> Iterator[tuple[float, float]]:
    per_s = columns / (window[1] - window[0])
    start = 0
    while start < len(times_s):
        column = int((times_s[start] - window[0]) * per_s)
        end = start + 1
        while end < len(times_s) and int((times_s[end] - window[0]) * per_s) == column:
            end += 1
        part = range(start, end)
        lowest, highest = min(part, key=values.__getitem__), max(part, key=values.__getitem__)
        for index in sorted({lowest, highest}):
            yield times_s[index], values[index]
        start = end
