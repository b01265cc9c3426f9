"""What is left running when the controller gets a signal while main runs."""

from __future__ import annotations

import signal
import time
from contextlib import closing

from heteromig.core.phases import Phase
from tests.bench.launching import Launched, MeasuringFailedError, new_mark, scratch
from tests.bench.standin import Scenario
from tests.bench.table import MISSED, Row, spread

RUNS = 2
PATIENCE_S = 5.0
"""A process that is alive so long after the controller's end is a leftover."""


def measure() -> list[Row]:
    """Every background has a grandchild in a session of its own that ignores TERM; the grace is 1 s."""
    return [_row(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)]


def _row(signum: signal.Signals) -> Row:
    runs = [leftovers(signum) for _ in range(RUNS)]
    left = max(left for left, _ in runs)
    return Row(
        what=f"processes left after {signum.name} to the controller in {Phase.MAIN_RUNNING.value}",
        measured=f"{left}; all gone after {spread([gone_s for _, gone_s in runs], 's')}",
        budget="0",
        verdict=MISSED if left else "kept",
    )


def leftovers(signum: signal.Signals) -> tuple[int, float]:
    """How many are left, and seconds from the signal until nobody was."""
    with scratch() as runs_dir:
        scenario = Scenario(runs_dir=runs_dir, mark=new_mark(), main_duration_s=60.0, grandchildren=True)
        with closing(Launched(scenario)) as run:
            run.wait_for_main()
            before = len(run.alive())
            if before < 1 + 1 + 7 + 7 + 6:  # controller, sampler, guardians, harnesses, grandchildren
                raise MeasuringFailedError(f"only {before} processes of the run in {run.run_dir} were found")
            sent_s = time.monotonic()
            run.process.send_signal(signum)
            run.wait()
            ended_s = time.monotonic()
            while (left := run.alive()) and time.monotonic() < ended_s + PATIENCE_S:
                time.sleep(0.01)
            return len(left), time.monotonic() - sent_s
