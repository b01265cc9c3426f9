"""The wall clock against the monotonic one over a run: when a stamp of the wall clock really was.

LoadGen stamps its timed section with the wall clock, which somebody may set meanwhile. The controller reads both clocks
together again and again; between two readings the offset of one to the other is interpolated.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from msgspec import Struct

from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs, UtcNs

SLEW_PPM = 500
"""How fast a clock is corrected without a step, at most: the kernel's bound (MAXFREQ in linux/timex.h). Linux lets
both clocks run at the same rate, so that their offset usually moves by steps alone."""

READING_NS = NS_PER_MS // 2
"""How much one reading of both clocks may be off: this process may be interrupted between the two."""

MOVED_NS = 5 * NS_PER_MS
"""An offset that moved by more than this since the last reading is worth another one."""

STEP_NS = 50 * NS_PER_MS
"""A move of more than this between two readings, beyond what slewing explains, is told as a step. Daemons slew what is
smaller: ntpd up to 128 ms, systemd-timesyncd up to 400 ms, chrony (with makestep) usually up to a second."""

AMBIGUOUS_NS = NS_PER_S
"""A stamp that may mean moments further apart than this is no evidence of either."""


class ClockReading(Struct, frozen=True):
    """The same moment on both clocks."""

    at_ns: MonotonicNs
    at_utc_ns: UtcNs

    @property
    def offset_ns(self) -> int:
        """How far the wall clock was ahead."""
        return self.at_utc_ns - self.at_ns


class Moment(Struct, frozen=True):
    """When a stamp was made, on the monotonic clock, to within `uncertainty_ns` either way."""

    at_ns: MonotonicNs
    uncertainty_ns: int


class Step(Struct, frozen=True):
    """The wall clock was set by `by_ns` between two readings, which were at these monotonic times."""

    by_ns: int
    after_ns: MonotonicNs
    before_ns: MonotonicNs


class ClockCheck(Struct, frozen=True):
    """What a certificate says of the clocks.

    `readings` of both were taken over the run. `largest_step_s` is by how much the wall clock was set, None where it
    never was; `stepped_at_utc_ns` is when, by the clock as it was when the run began. `corrected` is whether all stamps
    could be put right all the same, None where there was nothing to correct.
    """

    readings: int
    drift_s: float
    largest_step_s: float | None = None
    stepped_at_utc_ns: UtcNs | None = None
    corrected: bool | None = None
    remark: str = ""


class ClockMap:
    """From the wall clock to the monotonic one."""

    def __init__(self, *readings: ClockReading) -> None:
        """At least one reading, all of one run, in any order."""
        self.readings = tuple(sorted(readings, key=lambda reading: reading.at_ns))
        self.steps = tuple(self._steps())

    @property
    def drift_ns(self) -> int:
        """By how much the offset moved in all, steps included."""
        return self.readings[-1].offset_ns - self.readings[0].offset_ns

    def moment(self, utc_ns: UtcNs) -> Moment | None:
        """When the wall clock showed that; None where it never did, or at moments too far apart.

        What lies outside the readings is taken for a moment before or after them only if there is none between them.
        """
        spans = sorted(span for pair in itertools.pairwise(self.readings) for span in _between(utc_ns, *pair))
        spans = spans or list(self._outside(utc_ns))
        if not spans:
            return None
        begin_ns, end_ns = spans[0]
        for span in spans[1:]:
            if span[0] - end_ns > AMBIGUOUS_NS:
                return None
            end_ns = max(end_ns, span[1])
        half_ns = (end_ns - begin_ns + 1) // 2
        return Moment(begin_ns + half_ns, half_ns + 2 * READING_NS)

    def _outside(self, utc_ns: UtcNs) -> Iterator[tuple[int, int]]:
        first, last = self.readings[0], self.readings[-1]
        for edge, outside in ((first, utc_ns <= first.at_utc_ns), (last, utc_ns >= last.at_utc_ns)):
            if outside:
                at_ns = utc_ns - edge.offset_ns
                slew_ns = _slew_ns(abs(edge.at_ns - at_ns))
                yield at_ns - slew_ns, at_ns + slew_ns

    def _steps(self) -> Iterator[Step]:
        for before, after in itertools.pairwise(self.readings):
            by_ns = after.offset_ns - before.offset_ns
            if abs(by_ns) > STEP_NS + _slew_ns(after.at_ns - before.at_ns):
                yield Step(by_ns, before.at_ns, after.at_ns)


def _between(utc_ns: UtcNs, before: ClockReading, after: ClockReading) -> Iterator[tuple[int, int]]:
    """When the wall clock may have shown that between two readings: (earliest, latest), of either side of a step."""
    length_ns = after.at_ns - before.at_ns
    by_ns = after.offset_ns - before.offset_ns
    slew_ns = _slew_ns(length_ns)
    if abs(by_ns) <= slew_ns + 2 * READING_NS:
        shown_ns = after.at_utc_ns - before.at_utc_ns
        if before.at_utc_ns <= utc_ns <= after.at_utc_ns and shown_ns > 0:
            into_ns = (utc_ns - before.at_utc_ns) * length_ns // shown_ns
            nearer_ns = min(into_ns, length_ns - into_ns)
            unsure_ns = _slew_ns(nearer_ns) + abs(by_ns) * nearer_ns // max(1, length_ns) + 1
            yield before.at_ns + into_ns - unsure_ns, before.at_ns + into_ns + unsure_ns
        return
    # The clock was set somewhere in between: each side has the offset of its reading.
    for offset_ns in (before.offset_ns, after.offset_ns):
        at_ns = utc_ns - offset_ns
        begin_ns = max(at_ns - slew_ns, before.at_ns - READING_NS)
        end_ns = min(at_ns + slew_ns, after.at_ns + READING_NS)
        if begin_ns <= end_ns:
            yield begin_ns, end_ns


def _slew_ns(length_ns: int) -> int:
    return length_ns * SLEW_PPM // 1_000_000 + 1
