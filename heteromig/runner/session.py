"""One run from its specification: the directory, the header, the loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from heteromig.core.record import RunRecord
from heteromig.core.redaction import Redaction
from heteromig.core.spec import RunSpec
from heteromig.harnesses import harness_of
from heteromig.runner.clock import Clock, SystemClock
from heteromig.runner.crew import Crew
from heteromig.runner.journal import SCHEMA_VERSION, Follower, Header
from heteromig.runner.loop import Loop
from heteromig.runner.recording import TOOL
from heteromig.runner.rundir import create_run_dir, no_run_dir
from heteromig.runner.survivors import CONTROLLER
from heteromig.runner.trust import require_unshared
from heteromig.views.reporter import Reporter
from heteromig.workers.guardian import note_process


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
    crew: Crew | None = None,
    series_dir: Path | None = None,
) -> Outcome:
    """Run it to the end.

    `sampler_faults` names a file of rehearsed device faults, for simulated slices only. `followers` are told of each
    line of the journal. `crew` takes and gives what is to go on from run to run. `series_dir`
    is where the run directory goes, in place of the runs directory.

    Raises:
        UsageError: no run directory can be made, or others could change what is in it.
        PreflightError: the harness is not installed.
    """
    assert spec.keeps_backgrounds == (crew is not None), "a crew is for runs that keep their backgrounds"  # noqa: S101
    clock = clock or SystemClock()
    harness = harness_of(spec)
    harness.preflight(spec)
    at_ns, at_utc_ns = clock.monotonic_ns(), clock.utc_ns()
    require_unshared(spec)
    run_dir = create_run_dir(spec, at_utc_ns, series_dir)
    require_unshared(spec)  # once more: in a directory such as /tmp, somebody else may have been quicker to make one
    try:
        note_process(str(run_dir), CONTROLLER, os.getpid())
    except OSError as error:
        raise no_run_dir(run_dir.parent, error) from None
    redaction = Redaction(spec, os.environ)
    header = Header(
        schema_version=SCHEMA_VERSION,
        tool=TOOL,
        run_id=run_dir.name,
        at_ns=at_ns,
        at_utc_ns=at_utc_ns,
        spec=redaction.spec(spec),
    )
    reporter.begin(str(run_dir), at_ns)
    loop = Loop(
        header=header,
        spec=spec,
        redaction=redaction,
        run_dir=run_dir,
        harness=harness,
        reporter=reporter,
        clock=clock,
        faults=sampler_faults,
        followers=followers,
        crew=crew,
    )
    return Outcome(run_dir=run_dir, record=loop.execute())
