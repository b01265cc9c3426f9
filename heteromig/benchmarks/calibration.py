"""How fast the engine is, measured while it warms up.

LoadGen must be told the rate beforehand. An Offline query holds 1.1 x min_duration x expected rate samples and its run
is VALID when it lasted min_duration: told too little, a run ends early and is INVALID; told too much, it drags on.
While one program warms up, others start on the same cores; so an engine on the CPU counts its rate per second of the
thread's CPU time, which waiting for a core does not lengthen. One on a GPU, which works while the thread waits, counts
by the wall clock. The best of several short windows counts, because disturbances (cold caches, frequency changes, a
host that takes the core away) only ever slow a window down.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    from heteromig.benchmarks.inference import Answer

OFFLINE_MARGIN = 1.11
"""Expected rate over measured rate. LoadGen adds 1.1: a run at the measured rate lasts 1.22 x min_duration, is still
VALID when the true rate is 1.22 x the measured one, and stays below 1.35 x while it is at least 0.9 x."""

SERVER_UTILISATION = 0.35
"""Share of a core that the Server schedule asks for. Arrivals are Poisson: a queue at 0.35 keeps its 99th percentile
near four service times, which leaves most of the latency limit to the pauses of a machine that others use as well."""

STREAM_MARGIN = 1.25
"""Queries generated for a stream over those that it gets through in min_duration at the measured rate. A stream that
runs out of queries is INVALID. Each takes LoadGen about half a KiB, and a clean stop has to complete all that are left,
3 to 5 us each: 1 s for a quarter of a million, which is two minutes of 2000 samples a second."""

WINDOWS = 10
MIN_WINDOWS = 4
WINDOW_S = 0.02
"""At least: clocks and scheduling ticks are noise below."""
WALL_FACTOR = 4
"""When neighbours hold the core, warm-up may take this many times its budget before it makes do with fewer windows."""


class Calibration(Struct, frozen=True):
    """Rates of one engine on one slice, samples per second of the clock that they were counted by."""

    batch_qps: float
    """In full batches."""
    single_qps: float
    """One sample at a time."""
    windows: int


def calibrate(
    answer: Answer,
    *,
    sample_count: int,
    batch: int,
    budget_s: float,
    clock_s: Callable[[], float] = time.thread_time,
) -> Calibration:
    """Run the engine for about `budget_s` seconds, two thirds of it in full batches."""
    answer(_indices(0, 1, sample_count))
    batch_qps, batch_windows = _best_rate(answer, sample_count, batch, budget_s * 2 / 3, clock_s)
    single_qps, single_windows = _best_rate(answer, sample_count, 1, budget_s / 3, clock_s)
    return Calibration(batch_qps=batch_qps, single_qps=single_qps, windows=batch_windows + single_windows)


def _best_rate(
    answer: Answer, sample_count: int, batch: int, budget_s: float, clock_s: Callable[[], float]
) -> tuple[float, int]:
    window_s = max(WINDOW_S, budget_s / WINDOWS)
    wall_end = time.monotonic() + budget_s
    wall_limit = time.monotonic() + budget_s * WALL_FACTOR
    best_qps = 0.0
    done = windows = 0
    while windows == 0 or time.monotonic() < (wall_end if windows >= MIN_WINDOWS else wall_limit):
        begin_s = clock_s()
        first = done
        while (spent_s := clock_s() - begin_s) < window_s:
            answer(_indices(done, batch, sample_count))
            done += batch
        best_qps = max(best_qps, (done - first) / spent_s)
        windows += 1
    return best_qps, windows


def _indices(first: int, count: int, sample_count: int) -> list[int]:
    return [(first + offset) % sample_count for offset in range(count)]
