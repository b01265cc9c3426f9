"""`run --repeat`: a series of runs and baselines, each an ordinary run, and what comes of them together."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import typer

from heteromig.cli.comparing import show_comparison
from heteromig.cli.executing import Showing, execute_shown, exit_code_of
from heteromig.cli.printing import say
from heteromig.cli.reporting import make_own_report
from heteromig.comparing.comparison import compare
from heteromig.comparing.series import SCHEMA_VERSION, Entry, Series, plan_order, write_series
from heteromig.core.errors import HeteromigError, UsageError
from heteromig.core.record import RunRecord
from heteromig.core.spec import Goal, Mode, RunSpec
from heteromig.core.verdict import INTERRUPTED, ExitCode
from heteromig.runner.recording import TOOL
from heteromig.runner.rundir import create_series_dir
from heteromig.views.series_view import ended_line, stopped_text


def execute_series(run: RunSpec, baseline: RunSpec, repeats: int, showing: Showing, sampler_faults: Path | None) -> int:
    """Baselines and runs by turns, and their comparison; returns the exit code.

    The first run that does not come out well ends it with its code; else it is that of the comparison.

    Raises:
        UsageError: the run measures nothing that can be compared, or no directory can be made.
        PreflightError: the harness is not installed.
    """
    _refuse(run)
    series_dir = create_series_dir(run, time.time_ns())
    series = Series(SCHEMA_VERSION, TOOL, series_dir.name, plan_order(repeats))
    specs = {Goal.RUN: run, Goal.BASELINE: baseline}
    write_series(series_dir, series)
    try:
        while (goal := series.next_goal) is not None:
            number = f"{len(series.entries) + 1} of {len(series.planned)}"
            outcome = execute_shown(specs[goal], showing, sampler_faults, series_dir)
            entry = Entry(goal, outcome.run_dir.name, exit_code_of(outcome.record))
            series = series.after(entry)
            if entry.exit_code != ExitCode.VALID:
                series = series.ended(entry.exit_code, f"The series ended with run {number}: {_why(outcome.record)}")
            write_series(series_dir, series)
            if not showing.quiet:
                typer.echo(ended_line(number, outcome.record), err=True)
        code = _conclude(series_dir, series, showing)
    except KeyboardInterrupt:  # between two runs; within one it is the run that is ended by it
        series = series.ended(INTERRUPTED, "The series was interrupted between two runs.")
        write_series(series_dir, series)
        code = _conclude(series_dir, series, showing)
    except HeteromigError as error:
        write_series(series_dir, series.ended(error.exit_code, str(error)))
        raise
    if showing.report:
        _make_reports(series_dir, series)
    return code


def _make_reports(series_dir: Path, series: Series) -> None:
    """The page of each run: only now are there both of the baselines that tell what its neighbours cost."""
    for entry in series.entries:
        if entry.run_dir is not None and make_own_report(series_dir / entry.run_dir, quiet=True) is None:
            return  # what stood in the way of one page stands in the way of all, or somebody wants to leave


def _refuse(run: RunSpec) -> None:
    if run.main.mode is not Mode.PERFORMANCE:
        raise UsageError(f"--repeat compares speed, and --main-mode is {run.main.mode.value}: leave one of them out.")
    if run.lenient:
        raise UsageError("--repeat needs every background in every run, and --lenient goes on without: leave one out.")
    if not run.background.candidates:
        raise UsageError("--repeat measures what backgrounds cost, and --background-benchmarks is none: name some.")
    if run.harness == "loadgen" and run.main.scenario == "server" and run.main.target_qps is None:
        raise UsageError(
            "--repeat needs --main-target-qps in Server: without it each run calibrates a rate of its own, and "
            "latencies at different rates cannot be compared."
        )


def _why(record: RunRecord) -> str:
    verdict = record.verdict
    return verdict.reasons[0].sentence if verdict is not None and verdict.reasons else "it came to no verdict."


def _conclude(series_dir: Path, series: Series, showing: Showing) -> int:
    found = None
    if series.is_complete and series.exit_code is None:
        found = compare(series_dir, None)
        series = series.ended(found.exit_code, "" if found.exit_code == ExitCode.VALID else found.sentence)
        write_series(series_dir, series)
    if showing.json:
        say(msgspec.json.format(msgspec.json.encode(series), indent=2))
    elif found is not None:
        show_comparison(found, json=False)
    else:
        say(stopped_text(series.sentence, len(series.entries), len(series.planned), str(series_dir)))
    return series.exit_code or 0
