"""Intervals in which a background did nothing, as far as anybody can tell, and the arithmetic of them.

Nanoseconds of one clock; which one is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from heteromig.core.units import NS_PER_S

MIN_GAP_NS = 2 * NS_PER_S
"""Less is never kept as a gap, and `--gap-threshold` is no less: the embedded harness has one heartbeat a second, and a
machine that is busy delays one by some tenths."""

IDLE_PERCENT = 0.1
"""A slice whose multiprocessors had work for less than this share of the time had none: GPM gives 0 then."""


class Interval(Struct, frozen=True):
    """From `begin_ns` to `end_ns`, which is never before it."""

    begin_ns: int
    end_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.end_ns - self.begin_ns


def union(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """The same moments in as few intervals as possible, in order."""
    merged: list[Interval] = []
    for one in sorted(intervals, key=lambda interval: interval.begin_ns):
        if merged and one.begin_ns <= merged[-1].end_ns:
            merged[-1] = Interval(merged[-1].begin_ns, max(merged[-1].end_ns, one.end_ns))
        else:
            merged.append(one)
    return tuple(merged)


def clip(intervals: Iterable[Interval], within: Interval) -> tuple[Interval, ...]:
    """Their parts inside another interval; what only touches it has none."""
    parts = (Interval(max(one.begin_ns, within.begin_ns), min(one.end_ns, within.end_ns)) for one in intervals)
    return tuple(part for part in parts if part.length_ns > 0) if within.length_ns > 0 else ()


def without(one: Interval, holes: Iterable[Interval]) -> tuple[Interval, ...]:
    """What is left of an interval where the holes are taken out of it."""
    left: list[Interval] = []
    begin_ns = one.begin_ns
    for hole in clip(union(holes), one):
        if hole.begin_ns > begin_ns:
            left.append(Interval(begin_ns, hole.begin_ns))
        begin_ns = hole.end_ns
    if begin_ns < one.end_ns:
        left.append(Interval(begin_ns, one.end_ns))
    return tuple(left)


def long_gaps(silences: Iterable[Interval], within: Interval, longer_than_ns: int) -> tuple[Interval, ...]:
    """The silences that lasted longer than that inside an interval, each cut to it."""
    return tuple(part for part in clip(union(silences), within) if part.length_ns > longer_than_ns)


def covered_share(section: Interval, gaps: Iterable[Interval], main: Interval) -> float:
    """The share of `main` that lies inside `section` and in none of the gaps, from 0 to 1."""
    inside = clip([section], main)
    covered_ns = sum(part.length_ns for one in inside for part in without(one, gaps))
    return covered_ns / main.length_ns


class Silences(Struct, frozen=True):
    """What was told of one worker's completions or work, moment by moment: the fold that finds the long silences.

    `since_ns` is the last moment at which there was work, None before the first. Only silences of more than
    `MIN_GAP_NS` are kept.
    """

    since_ns: int | None = None
    found: tuple[Interval, ...] = ()

    def broken(self, at_ns: int, *, uncertainty_ns: int = 0) -> Silences:
        """The same after work was seen at `at_ns`, which may have been done up to `uncertainty_ns` before."""
        if self.since_ns is None or at_ns - uncertainty_ns - self.since_ns <= MIN_GAP_NS:
            return Silences(at_ns, self.found)
        return Silences(at_ns, (*self.found, Interval(self.since_ns, at_ns - uncertainty_ns)))

    def until(self, at_ns: int) -> tuple[Interval, ...]:
        """Those found, and the one that had no end at `at_ns`."""
        return self.broken(at_ns).found


class Idleness(Struct, frozen=True):
    """What the device showed of the work on one slice, reading by reading.

    `worked` says that it showed work at least once: a device that never shows any says nothing by showing none.
    """

    worked: bool = False
    found: tuple[Interval, ...] = ()

    def after(self, begin_ns: int, end_ns: int, sm_percent: float) -> Idleness:
        """The same after a reading of the average between two moments."""
        if not sm_percent < IDLE_PERCENT:
            return self if self.worked else Idleness(worked=True, found=self.found)
        *before, last = (*self.found, Interval(begin_ns, begin_ns))
        if before and before[-1].end_ns >= begin_ns:
            last = before.pop()
        elif before and before[-1].length_ns <= MIN_GAP_NS:
            before.pop()  # too short to matter, and over
        return Idleness(worked=self.worked, found=(*before, Interval(last.begin_ns, max(last.end_ns, end_ns))))
