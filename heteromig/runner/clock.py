"""The two clocks: monotonic inside, the wall clock for people and for LoadGen's stamps."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Protocol

from heteromig.core.clocks import READING_NS, ClockReading
from heteromig.core.units import NS_PER_S, MonotonicNs, UtcNs


class Clock(Protocol):
    """What time it is."""

    def monotonic_ns(self) -> MonotonicNs:
        """Nanoseconds of the monotonic clock."""

    def utc_ns(self) -> UtcNs:
        """Nanoseconds since the Unix epoch."""


class SystemClock:
    """The clocks of this host."""

    def monotonic_ns(self) -> MonotonicNs:
        """Nanoseconds of the monotonic clock."""
        return time.monotonic_ns()

    def utc_ns(self) -> UtcNs:
        """Nanoseconds since the Unix epoch."""
        return time.time_ns()


_TRIES = 4
"""A busy machine interrupts this process now and then, and not several times in a row within a microsecond each."""


def read_both(clock: Clock) -> ClockReading:
    """The same moment on both clocks, to within `READING_NS` unless the machine is very busy."""
    tries = []
    for _ in range(_TRIES):
        before_ns, utc_ns, after_ns = clock.monotonic_ns(), clock.utc_ns(), clock.monotonic_ns()
        tries.append((after_ns - before_ns, ClockReading((before_ns + after_ns) // 2, utc_ns)))
        if after_ns - before_ns <= READING_NS // 2:
            break
    return min(tries, key=lambda one: one[0])[1]


def rfc3339(utc_ns: UtcNs) -> str:
    """`2026-01-31T12:00:00.123Z`."""
    moment = datetime.fromtimestamp(utc_ns / NS_PER_S, tz=timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
