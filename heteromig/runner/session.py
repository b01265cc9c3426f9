"""One run from its specification: the directory, the header, the loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from heteromig.core.record import RunRecord
from heteromig.core.spec import RunSpec
from heteromig.harnesses import harness_of
from heteromig.runner.clock import Clock, SystemClock
from heteromig.runner.journal import SCHEMA_VERSION, Follower, Header
from heteromig.runner.loop import Loop
from heteromig.runner.recording import TOOL
from heteromig.runner.rundir import create_run_dir
from heteromig.views.reporter import Reporter


class Outcome(Struct, frozen=True):
    """Where a run is on disk, and what it says."""

    run_dir: Path
    record: RunRecord


def execute(
    spec: RunSpec,
    reporter: Reporter,
    *,
    clock: Clock | None = None,
    sampler_faults: str | None = None,
    followers: Sequence[Follower] = (),
    series_dir: Path | None = None,
) -> Outcome:
    """Run it to the end.

    `sampler_faults` names a file of rehearsed device faults, for simulated slices only. `followers` are told of each
    line of the journal. `series_dir` is where the run directory goes, in place of the runs directory.

    Raises:
        UsageError: no run directory can be made.
        PreflightError: the harness is not installed.
    """
    clock = clock or SystemClock()
    harness = harness_of(spec)
    harness.preflight(spec)
    at_ns, at_utc_ns = clock.monotonic_ns(), clock.utc_ns()
    run_dir = create_run_dir(spec, at_utc_ns, series_dir)
    header = Header(
        schema_version=SCHEMA_VERSION,
        tool=TOOL,
        run_id=run_dir.name,
        at_ns=at_ns,
        at_utc_ns=at_utc_ns,
        spec=spec,
    )
    reporter.begin(str(run_dir))
    loop = Loop(
        header=header,
        run_dir=run_dir,
        harness=harness,
        reporter=reporter,
        clock=clock,
        faults=sampler_faults,
        followers=followers,
    )
    return Outcome(run_dir=run_dir, record=loop.execute())
