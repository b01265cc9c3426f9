"""One controller with 56 workers: what it takes, what it holds, and how soon it has heard what a worker printed."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from heteromig.core.events import ProgressMade
from heteromig.runner.journal import JOURNAL, Heard, Line
from tests.bench.controller import WRITTEN
from tests.bench.launching import Launched, MeasuringFailedError, cpu_s, new_mark, scratch
from tests.bench.standin import Scenario
from tests.bench.table import Row, judge_median, spread
from tests.bench.wide import SLICES as WORKERS
from tests.bench.wide import WIDE

WINDOWS = 3
WINDOW_S = 5.0
BUDGET_PERCENT = 2.0
TICK_S = 0.25
"""While main runs the logs are looked at so often: what is printed waits for half of it on average."""
_IDLE = f"import time\nwhile True: time.sleep({TICK_S})"


class _Reading(Struct, frozen=True):
    at_s: float
    controller_s: float
    sampler_s: float
    idle_s: float
    wakeups: int


class Held(Struct, frozen=True):
    """What the controller holds while main runs."""

    rss_bytes: int
    descriptors: int
    threads: int


def measure() -> list[Row]:
    """One run, in which every heartbeat carries the time at which it was printed."""
    with scratch() as runs_dir:
        scenario = Scenario(
            runs_dir=runs_dir,
            mark=new_mark(),
            slices=f"sim:{WIDE}",
            main_duration_s=2 + WINDOWS * WINDOW_S,
            stamped=True,
        )
        idle = subprocess.Popen((sys.executable, "-I", "-S", "-c", _IDLE))
        try:
            with contextlib.closing(Launched(scenario)) as run:
                run.wait_for_main()
                controller, sampler = _processes(run)
                time.sleep(1)
                readings = [_read(controller, sampler, idle.pid)]
                for _ in range(WINDOWS):
                    time.sleep(WINDOW_S)
                    readings.append(_read(controller, sampler, idle.pid))
                this = psutil.Process(controller)
                held = Held(this.memory_info().rss, this.num_fds(), this.num_threads())
                run.expect(0)
                heard_ms, written_ms = _latencies(run.run_dir)
        finally:
            idle.kill()
            idle.wait()
    return _rows(readings, held, heard_ms, written_ms)


def _rows(readings: list[_Reading], held: Held, heard_ms: list[float], written_ms: list[float]) -> list[Row]:
    pairs = list(itertools.pairwise(readings))
    both = [
        100
        * (after.controller_s + after.sampler_s - before.controller_s - before.sampler_s)
        / (after.at_s - before.at_s)
        for before, after in pairs
    ]
    controller = [
        100 * (after.controller_s - before.controller_s) / (after.at_s - before.at_s) for before, after in pairs
    ]
    idle = [100 * (after.idle_s - before.idle_s) / (after.at_s - before.at_s) for before, after in pairs]
    wakeups = [(after.wakeups - before.wakeups) / (after.at_s - before.at_s) for before, after in pairs]
    times = statistics.median(both) / statistics.median(idle)
    return [
        Row(
            what=f"controller and sampler during main, {WORKERS} workers, load average {os.getloadavg()[0]:.1f}",
            measured=spread(both, "% of a core"),
            budget=f"<= {BUDGET_PERCENT:g} %",
            verdict=judge_median(both, BUDGET_PERCENT),
        ),
        Row(
            what="  the controller alone; beside it an interpreter that wakes up four times a second",
            measured=f"{spread(controller, '%')}; {spread(idle, '%')}",
            budget="",
            verdict=f"{times:.3g} times as much",
        ),
        Row(what="  the controller wakes up", measured=spread(wakeups, "times a second"), budget="", verdict=""),
        Row(
            what="  the controller holds",
            measured=f"{held.rss_bytes / (1 << 20):.1f} MiB, {held.descriptors} descriptors, {held.threads} thread",
            budget="",
            verdict="",
        ),
        Row(what="  from a line printed to its being heard", measured=_quantiles(heard_ms), budget="", verdict=""),
        Row(
            what="  from a line printed to its event on disk",
            measured=_quantiles(written_ms),
            budget="",
            verdict="",
        ),
    ]


def _quantiles(values_ms: list[float]) -> str:
    ranked = sorted(values_ms)
    return (
        f"median {statistics.median(ranked):.0f} ms, 99 % within {ranked[int(0.99 * (len(ranked) - 1))]:.0f} ms, "
        f"at most {ranked[-1]:.0f} ms (n={len(ranked)})"
    )


def _processes(run: Launched) -> tuple[int, int]:
    children = psutil.Process(run.process.pid).children()
    (sampler,) = (child.pid for child in children if "--period-ms" in child.cmdline())
    if len(children) != 1 + WORKERS:
        raise MeasuringFailedError(f"{len(children) - 1} workers of {WORKERS} run in {run.run_dir}")
    return run.process.pid, sampler


def _read(controller: int, sampler: int, idle: int) -> _Reading:
    return _Reading(
        at_s=time.monotonic(),
        controller_s=cpu_s(controller),
        sampler_s=cpu_s(sampler),
        idle_s=cpu_s(idle),
        wakeups=psutil.Process(controller).num_ctx_switches().voluntary,
    )


def _latencies(run_dir: Path) -> tuple[list[float], list[float]]:
    """Of each heartbeat, ms from its stamp until it was read, and until its line was in the journal."""
    grown = msgspec.json.decode((run_dir.parent / WRITTEN).read_bytes(), type=list[tuple[int, int]])
    heard_ms, written_ms = [], []
    writes = iter(grown)
    size_bytes, at_ns = next(writes)
    end_bytes = 0
    for line in (run_dir / JOURNAL).read_bytes().splitlines(keepends=True):
        end_bytes += len(line)
        while size_bytes < end_bytes:
            size_bytes, at_ns = next(writes)
        if b'"ProgressMade"' not in line:
            continue
        heard = msgspec.json.decode(line, type=Line)
        if isinstance(heard, Heard) and isinstance(heard.event, ProgressMade):
            printed_ns = heard.event.completed_samples
            heard_ms.append((heard.event.at_ns - printed_ns) / 1e6)
            written_ms.append((at_ns - printed_ns) / 1e6)
    if not heard_ms:
        raise MeasuringFailedError(f"no heartbeat was heard in {run_dir}")
    return heard_ms, written_ms
