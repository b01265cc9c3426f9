"""A stand-in for a benchmark under LoadGen: it prints and logs like one, and computes nothing.

`python -I -S child.py JSON`, with the fields of `standin.Behaviour` in the JSON. It prints banner lines at once, is
busy loading for a while, announces its start, logs that its timed section has begun, prints so many lines a second,
one of them a heartbeat, until its time is over or it gets a TERM, and logs the end as LoadGen does.

It imports nothing but the standard library, so that 56 of them start soon. In its working directory it leaves what
only it can know: `begun` and `died`, times in nanoseconds since 1970, and `writes.json`, how long it was kept waiting
while it wrote to its output.
"""
# ruff: noqa: PTH123 - importing pathlib would make the start slower

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from typing import Any

STDOUT = 1
MARKER = b"Starting running actual test.\n"
_STOP = {signal.SIGTERM}


class Output:
    """Standard output, with an account of the time that writing to it took.

    A write counts as blocked when the kernel put this thread to sleep within it (voluntary context switches, see
    getrusage(2)); being preempted by a neighbour does not count.
    """

    def __init__(self) -> None:
        self.writes = 0
        self.blocked = 0
        self.blocked_s = 0.0
        self.longest_s = 0.0
        self.closed = False

    def write(self, line: bytes) -> None:
        switches = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        before_s = time.perf_counter()
        try:
            while line:
                line = line[os.write(STDOUT, line) :]
        except BrokenPipeError:
            self.closed = True
        took_s = time.perf_counter() - before_s
        self.writes += 1
        self.longest_s = max(self.longest_s, took_s)
        if resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw > switches:
            self.blocked += 1
            self.blocked_s += took_s


def stopped_within(wait_s: float) -> bool:
    """Sleep, and say whether a TERM came; it is blocked otherwise, so nothing else ends this process."""
    return signal.sigtimedwait(_STOP, max(0.0, wait_s)) is not None


class DetailLog:
    """`mlperf_log_detail.txt`, with the keys that matter."""

    def __init__(self, directory: str) -> None:
        self._start_ns = time.perf_counter_ns()
        self._directory = directory
        self._fd = os.open(
            f"{directory}/mlperf_log_detail.txt", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644
        )

    def log(self, **values: Any) -> None:
        time_ms = (time.perf_counter_ns() - self._start_ns) / 1e6
        lines = ""
        for key, value in values.items():
            entry = {
                "key": key,
                "value": value,
                "time_ms": time_ms,
                "namespace": "mlperf::logging",
                "event_type": "POINT_IN_TIME",
                "metadata": {"is_error": False, "is_warning": False, "file": "x.cc", "line_no": 1, "pid": 1, "tid": 1},
            }
            lines += f":::MLLOG {json.dumps(entry)}\n"
        os.write(self._fd, lines.encode())

    def end(self, begin_ns: int, samples: int) -> None:
        end_ns = time.time_ns()
        self.log(
            logger_swap_request_slots_retry_count=0,
            power_begin=power_time(begin_ns),
            power_end=power_time(end_ns),
            result_validity="VALID",
            result_samples_per_second=samples / max(1e-9, (end_ns - begin_ns) / 1e9),
            num_errors=0,
        )
        with open(f"{self._directory}/mlperf_log_summary.txt", "w", encoding="ascii") as summary:
            summary.write("Result is : VALID\n")


def power_time(utc_ns: int) -> str:
    """As LoadGen writes it: UTC, cut to milliseconds."""
    day = time.strftime("%m-%d-%Y %H:%M:%S", time.gmtime(utc_ns // 1_000_000_000))
    return f"{day}.{utc_ns // 1_000_000 % 1000:03d}"


def leave_behind() -> None:
    """A grandchild in a session of its own that ignores TERM, as daemons do."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        os._exit(0)
    os.wait()


def note(name: str, text: str) -> None:
    with open(name, "w", encoding="ascii") as file:
        file.write(text)


def main(how: dict[str, Any]) -> None:
    if how["grandchild"]:
        leave_behind()
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    output = Output()
    for number in range(how["banner_lines"]):
        output.write(b"%-32s : %d\n" % (b"configuration field %d" % number, number))
    if stopped_within(how["load_s"]):
        return
    output.write(MARKER)
    detail = DetailLog(how["log_dir"])
    detail.log(test_datetime=time.strftime("%Y-%m-%dT%H:%M:%SZ"), effective_scenario="Offline")
    detail.log(generated_query_count=1)
    begin_ns = time.time_ns()
    note("begun", str(begin_ns))
    start_s = time.monotonic()
    samples = run(how, output, start_s)
    if how["dies_after_s"] is not None:
        note("died", str(time.time_ns()))
        os.kill(os.getpid(), signal.SIGKILL)
    detail.end(begin_ns, samples)
    account = {
        "wall_s": time.monotonic() - start_s,
        "writes": output.writes,
        "blocked": output.blocked,
        "blocked_s": output.blocked_s,
        "longest_s": output.longest_s,
    }
    note("writes.json", json.dumps(account))
    if not output.closed:
        output.write(b"Result is : VALID\n")


def run(how: dict[str, Any], output: Output, start_s: float) -> int:
    """The timed section; returns how many lines it printed."""
    filler = b"x" * (how["line_bytes"] - 1) + b"\n"
    lines_per_s = how["lines_per_s"]
    duration_s = how["duration_s"] if how["dies_after_s"] is None else how["dies_after_s"]
    end_s = start_s + duration_s
    number = 0
    while not output.closed:
        number += 1
        due_s = start_s + number / lines_per_s
        if due_s > end_s:
            stopped_within(end_s - time.monotonic())
            break
        wait_s = due_s - time.monotonic()
        if wait_s > 0 and stopped_within(wait_s):
            break
        if number % lines_per_s == 0:
            completed = time.monotonic_ns() if how["stamped"] else number
            output.write(b"heartbeat: completed=%d samples_per_second=%d\n" % (completed, lines_per_s))
        else:
            output.write(filler)
    return number


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
