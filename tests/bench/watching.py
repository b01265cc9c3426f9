"""What watching costs while main runs: processor time of the controller and the sampler."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import statistics
import struct
import subprocess
import termios
import threading
import time

import psutil
from msgspec import Struct

from tests.bench.launching import Launched, MeasuringFailedError, cpu_s, new_mark, scratch
from tests.bench.standin import Scenario
from tests.bench.table import Row, judge_median, spread
from tests.bench.wide import SLICES, WIDE

WINDOWS = 3
WINDOW_S = 5.0
"""Each holds five samples, one heartbeat of the run, and 20 ticks."""
BUDGET_PERCENT = 0.5
WIDE_BUDGET_PERCENT = 2.0
LIVE_BUDGET_PERCENT = 2.5
ROWS, COLUMNS = 40, 120
"""Of the terminal; a table of seven workers takes some 20 rows."""


class Cost(Struct, frozen=True):
    """Percent of a core in each window."""

    controller: list[float]
    sampler: list[float]
    guardians: list[float]

    @property
    def both(self) -> list[float]:
        """Controller and sampler together."""
        return [sum(pair) for pair in zip(self.controller, self.sampler, strict=True)]


def measure() -> list[Row]:
    """Seven workers without and with the live table, then 56; each prints 20 lines/s, one of them a heartbeat."""
    plain = cost("sim:a100-sxm-80gb", workers=7, live=False)
    live = cost("sim:a100-sxm-80gb", workers=7, live=True)
    wide = cost(f"sim:{WIDE}", workers=SLICES, live=False)
    table = [live_percent - statistics.median(plain.controller) for live_percent in live.controller]
    return [
        _row("controller and sampler during main, 7 workers at 20 lines/s", plain, BUDGET_PERCENT),
        _parts(plain),
        _row(f"the same with {SLICES} workers", wide, WIDE_BUDGET_PERCENT),
        _parts(wide),
        Row(
            what=f"live table on top, 7 workers, {COLUMNS} x {ROWS} (controller, less the median without)",
            measured=spread(table, "% of a core"),
            budget=f"<= {LIVE_BUDGET_PERCENT:g} %",
            verdict=judge_median(table, LIVE_BUDGET_PERCENT),
        ),
    ]


def _row(what: str, found: Cost, budget_percent: float) -> Row:
    return Row(
        what=what,
        measured=spread(found.both, "% of a core"),
        budget=f"<= {budget_percent:g} %",
        verdict=judge_median(found.both, budget_percent),
    )


def _parts(found: Cost) -> Row:
    parts = (found.controller, found.sampler, found.guardians)
    controller, sampler, guardians = (statistics.median(part) for part in parts)
    return Row(
        what="  of which",
        measured=f"controller {controller:.2g} %, sampler {sampler:.2g} %; besides, all guardians {guardians:.2g} %",
        budget="",
        verdict="",
    )


def cost(slices: str, *, workers: int, live: bool) -> Cost:
    """Start a run, wait until main is timed, and read processor times at the ends of some windows."""
    with scratch() as runs_dir, contextlib.closing(_Terminal()) as terminal:
        scenario = Scenario(
            runs_dir=runs_dir, mark=new_mark(), slices=slices, main_duration_s=1 + WINDOWS * WINDOW_S + 2
        )
        stderr = terminal.fd if live else subprocess.DEVNULL
        with contextlib.closing(Launched(scenario, stderr=stderr, term="xterm-256color" if live else "dumb")) as run:
            run.wait_for_main()
            controller = run.process.pid
            children = psutil.Process(controller).children()
            (sampler,) = (child.pid for child in children if "--period-ms" in child.cmdline())
            guardians = [child.pid for child in children if child.pid != sampler]
            if len(guardians) != workers:
                raise MeasuringFailedError(f"{len(guardians)} workers of {workers} run in {run.run_dir}")
            time.sleep(1)
            readings = [_read(controller, sampler, guardians)]
            for _ in range(WINDOWS):
                time.sleep(WINDOW_S)
                readings.append(_read(controller, sampler, guardians))
            run.expect(0)
        if live and terminal.shown_bytes < WINDOWS * WINDOW_S * ROWS:
            raise MeasuringFailedError(f"the live table was not drawn: {terminal.shown_bytes} bytes were shown")
    return Cost(
        *(_percent([reading[0] for reading in readings], [reading[part] for reading in readings]) for part in (1, 2, 3))
    )


def _read(controller: int, sampler: int, guardians: list[int]) -> tuple[float, float, float, float]:
    return time.monotonic(), cpu_s(controller), cpu_s(sampler), sum(cpu_s(pid) for pid in guardians)


def _percent(at_s: list[float], used_s: list[float]) -> list[float]:
    return [
        100 * (used_s[number + 1] - used_s[number]) / (at_s[number + 1] - at_s[number])
        for number in range(len(at_s) - 1)
    ]


class _Terminal:
    """A terminal that somebody reads; `fd` is the programs' side of it. To be closed."""

    def __init__(self) -> None:
        self._ours, self.fd = pty.openpty()
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.shown_bytes = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def close(self) -> None:
        """Nobody writes any more."""
        os.close(self.fd)  # the last one: the reader gets an error, and ends
        self._reader.join()
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 1 << 16):
                self.shown_bytes += len(data)
