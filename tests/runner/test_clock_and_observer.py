from __future__ import annotations

import os
import subprocess
import sys
import time

from heteromig.core.clocks import READING_NS
from heteromig.runner.clock import SystemClock, read_both, rfc3339
from heteromig.runner.observer import Observer, process_cpu_s


def test_clocks_are_those_of_the_host() -> None:
    clock = SystemClock()
    assert clock.monotonic_ns() <= time.monotonic_ns() <= clock.monotonic_ns()
    assert clock.utc_ns() <= time.time_ns() <= clock.utc_ns()


class Interrupted(SystemClock):
    """A clock whose reader is interrupted in the first two of its readings, for a second each."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.interrupted = 0

    def monotonic_ns(self) -> int:
        self.now_ns += 1000
        return self.now_ns

    def utc_ns(self) -> int:
        self.interrupted += 1
        self.now_ns += 1_000_000_000 if self.interrupted <= 2 else 1000
        return 5_000_000_000 + self.now_ns


def test_both_clocks_are_read_again_where_the_reader_was_interrupted() -> None:
    reading = read_both(Interrupted())
    assert reading.offset_ns - 5_000_000_000 <= READING_NS
    assert reading.at_ns > 2_000_000_000


def test_times_for_people() -> None:
    assert rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"


def _work_until(cpu_s: float) -> None:
    while time.process_time() < cpu_s:
        pass


def test_cost_is_told_phase_by_phase() -> None:
    observer = Observer("first")
    observer.woke()
    observer.woke()
    observer.entered("second")
    observer.woke()
    _work_until(time.process_time() + 0.05)
    record = observer.record(1.5)
    assert [(phase.name, phase.wakeups) for phase in record.by_phase] == [("first", 2), ("second", 1)]
    assert record.wakeups == 3
    assert record.sampler_cpu_s == 1.5
    assert record.by_phase[1].cpu_s >= 0.04
    assert abs(record.cpu_s - sum(phase.cpu_s for phase in record.by_phase)) < 0.01
    assert [phase.name for phase in observer.record(None).by_phase] == ["first", "second"]


def test_processor_time_of_other_processes() -> None:
    assert process_cpu_s(None) is None
    own_s = process_cpu_s(os.getpid())
    assert own_s is not None
    assert own_s > 0
    with subprocess.Popen((sys.executable, "-I", "-S", "-c", ""), stdin=subprocess.DEVNULL) as gone:
        gone.wait()
    assert process_cpu_s(gone.pid) is None
