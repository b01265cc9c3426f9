"""A background dies while main runs: how soon the run is aborted, and how soon it is over."""

from __future__ import annotations

import time
from contextlib import closing

from heteromig.core.phases import Phase
from tests.bench.launching import Launched, MeasuringFailedError, entered_utc_ns, new_mark, scratch
from tests.bench.standin import Scenario
from tests.bench.table import Row, judge_median, spread

BUDGET_S = 1.0
RUNS = 5
DYING = 3
WORKER_FAILED = 5


def measure() -> list[Row]:
    """A SIGKILL to one of six backgrounds, so many seconds after its timed section began."""
    runs = [abort_s(dies_after_s=1.2 + number * 0.07) for number in range(RUNS)]
    aborted = [aborted_s for aborted_s, _ in runs]
    over = [over_s for _, over_s in runs]
    return [
        Row(
            what="background dies during main -> draining (everybody told to stop)",
            measured=spread(aborted, "s"),
            budget=f"<= {BUDGET_S:g} s",
            verdict=judge_median(aborted, BUDGET_S),
        ),
        Row(
            what="  -> controller gone, nothing left running, exit 5",
            measured=spread(over, "s"),
            budget="",
            verdict="",
        ),
    ]


def abort_s(dies_after_s: float) -> tuple[float, float]:
    """Seconds from the death to the transition to draining, and to the end of the controller."""
    with scratch() as runs_dir:
        scenario = Scenario(
            runs_dir=runs_dir, mark=new_mark(), main_duration_s=30.0, dying=DYING, dies_after_s=dies_after_s
        )
        with closing(Launched(scenario)) as run:
            run.expect(WORKER_FAILED)
            over_ns = time.time_ns()
            died_ns = int(next(run.run_dir.glob(f"workers/{DYING}-*/died")).read_text())
            journal = run.journal
            draining_ns = entered_utc_ns(journal, Phase.DRAINING)
            if run.alive() or died_ns < entered_utc_ns(journal, Phase.MAIN_RUNNING):
                raise MeasuringFailedError("the background died before main was started, or processes are left")
            return (draining_ns - died_ns) / 1e9, (over_ns - died_ns) / 1e9
