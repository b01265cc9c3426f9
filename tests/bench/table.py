"""What a budget program hands back: rows of one table, numbers with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from msgspec import Struct

MISSED = "MISSED"


class Row(Struct, frozen=True):
    """One budget. `budget` is empty for a number that is shown for comparison only."""

    what: str
    measured: str
    budget: str
    verdict: str


def spread(values: Sequence[float], unit: str) -> str:
    """Median, least and greatest of repeated measurements, and how many there were."""
    if len(values) == 1:
        return f"{values[0]:.3g} {unit} (once)"
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g}, n={len(values)})"


def judge(value: float, at_most: float) -> str:
    """Whether a budget is kept, and by which part of it."""
    verdict = "kept" if value <= at_most else MISSED
    return f"{verdict}, {value / at_most:.2g} of it" if at_most else verdict


def judge_median(values: Sequence[float], at_most: float) -> str:
    """The same for the median of repeated measurements."""
    return judge(statistics.median(values), at_most)


def ratio(theirs: float, ours: float) -> str:
    """How many times as much the other one took."""
    return f"{theirs / ours:.3g} times as much" if ours else "infinitely more"


def render(rows: Sequence[Row]) -> str:
    """The table as text in columns."""
    lines = [
        ("what", "measured", "budget", "verdict"),
        *((row.what, row.measured, row.budget, row.verdict) for row in rows),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    text = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join([*("-" * width for width in widths), "-" * max(len(line[3]) for line in lines)]))
    return "\n".join(text)
