"""`python -m tests.soak.resident RUNS`: so many runs in one process, which says after each what it holds.

A line of JSON a run: resident memory, descriptors, threads, children, and the exit code. The working directory is the
home of the runs; every third run has a background that dies.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from heteromig.runner.config import BackgroundConfig, Config, MainConfig, TimingConfig, resolve
from heteromig.runner.session import execute
from heteromig.views.silent import Silent
from tests.e2e.product import BOARD
from tests.soak import product as _product  # noqa: F401 - so that the harness is known
from tests.soak.planning import Behaviour, FaultPlan

FAILED = 5


class Held(Struct, frozen=True):
    """What the process holds after a run."""

    rss_bytes: int
    descriptors: int
    threads: int
    children: int
    exit_code: int
    expected: int


def main(runs: int) -> None:
    """One run after the other."""
    spec = resolve(
        Config(
            slices=BOARD,
            harness="soak",
            runs_dir="runs",
            sample_period="100ms",
            main=MainConfig(duration="500ms"),
            background=BackgroundConfig(benchmarks=["dlrm", "rnnt"]),
            timing=TimingConfig(start_time_buffer=0, clean_stop="2s", grace="500ms"),
        )
    )
    for number in range(runs):
        dies = number % 3 == 2
        truth = Path(f"truth{number}").absolute()
        truth.mkdir()
        plan = FaultPlan("it", {1: Behaviour("dies", 0.0)} if dies else {})
        os.environ |= {"SOAK_PLAN": msgspec.json.encode(plan).decode(), "SOAK_TRUTH": str(truth)}
        record = execute(spec, Silent()).record
        assert record.verdict is not None
        code, expected = record.verdict.exit_code, FAILED if dies else 0
        del record
        gc.collect()
        this = psutil.Process()
        held = Held(
            rss_bytes=this.memory_info().rss,
            descriptors=this.num_fds(),
            threads=threading.active_count(),
            children=len(this.children()),
            exit_code=code,
            expected=expected,
        )
        sys.stdout.write(f"{msgspec.json.encode(held).decode()}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
