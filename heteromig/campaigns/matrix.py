"""The loop of a matrix: ask the planner, run what it says, write down what came of it; and what all of it comes to.

Backgrounds are started anew for each run: between two runs beside the same set lies one of main alone, which has to
find every other slice idle, so that nothing could stay warm.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path

from msgspec.structs import replace

from heteromig.campaign.matrix import CellRun, Ending, RunCell, next_run
from heteromig.campaigns.directory import write_campaign
from heteromig.campaigns.matrix_asking import Specs
from heteromig.campaigns.matrix_index import MatrixEntry, MatrixIndex, read_matrix
from heteromig.campaigns.matrix_wording import begun_line, ended_lines
from heteromig.campaigns.probing import why_of
from heteromig.comparing.interference import Interference, Origin, Stop, interference
from heteromig.comparing.measured import Measured, main_of, measure
from heteromig.core.errors import HeteromigError
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord
from heteromig.core.spec import RunSpec
from heteromig.core.verdict import INTERRUPTED, SIGNAL_BASE, ExitCode
from heteromig.runner.session import Outcome

Execute = Callable[[RunSpec, MatrixIndex, RunCell], Outcome]
"""Does one run to its end, into the directory of the campaign, and may show how far the matrix is."""
Tell = Callable[[str], None]
"""Takes a line for people."""


_STOPPING = frozenset({ExitCode.USAGE, ExitCode.INTERNAL})
"""What no other run of the matrix would escape; nor a device, or a host in use, that refuses before main began."""


def now_utc() -> str:
    """As it is written down."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def measure_matrix(
    campaign_dir: Path, index: MatrixIndex, specs: Specs, execute: Execute, tell: Tell
) -> tuple[MatrixIndex, Interference]:
    """Run until every cell is measured or failed, or a run says that there is no use in going on.

    The index is written after each run, so that whatever ends this, nothing but the run in hand is lost.

    Raises:
        UsageError: no run directory can be made.
        PreflightError: the harness is not installed.
    """
    settings = index.asked.matrix
    known: dict[str, Measured] = {}
    try:
        index = _read_again(campaign_dir, index, known)
        while isinstance(step := next_run(settings, index.runs), RunCell):
            tell(begun_line(index, step))
            began_s = time.monotonic()
            outcome = execute(specs[step.cell, step.side], index, step)
            run = _judged(outcome, step, known, round(time.monotonic() - began_s, 3))
            index = index.after(run)
            if run.run is None:
                why = why_of(outcome.record.verdict)
                said = f"The matrix stopped with run {len(index.entries)}: {why}."
                index = index.ended(now_utc(), run.exit_code, said)
            write_campaign(campaign_dir, index)
            found = matrix_of(index, known)
            for line in ended_lines(index, found):
                tell(line)
            if run.run is None:
                return index, found
        found = matrix_of(index, known)
        assert found.exit_code is not None, "nothing is left to run"  # noqa: S101
        index = index.ended(now_utc(), found.exit_code, "")
    except KeyboardInterrupt:  # between two runs; within one it is the run that is ended by it
        index = index.ended(now_utc(), INTERRUPTED, "The matrix was interrupted between two runs.")
    except HeteromigError as error:
        write_campaign(campaign_dir, index.ended(now_utc(), error.exit_code, str(error)))
        raise
    write_campaign(campaign_dir, index)
    return index, matrix_of(index, known)


def matrix_of(index: MatrixIndex, known: Mapping[str, Measured]) -> Interference:
    """What the matrix comes to, as far as it is known."""
    spec = index.asked.run
    origin = Origin(
        campaign_id=index.campaign_id,
        tool=index.tool,
        harness=spec.harness,
        slices=spec.slices,
        simulated=spec.simulated,
        isolation=spec.isolation,
        began_at=index.began_at,
        ended_at=index.ended_at,
    )
    stop = None
    if index.exit_code is not None and index.sentence:
        stop = Stop(index.exit_code, index.sentence)
    elif index.exit_code is not None and isinstance(next_run(index.asked.matrix, index.runs), RunCell):
        stop = Stop(ExitCode.INCONCLUSIVE, "Runs that it had measured cannot be used any more.")
    return interference(index.asked.matrix, index.runs, known, origin, stop)


def matrix_in(campaign_dir: Path) -> Interference:
    """What the matrix in that directory comes to, from its runs as they are now.

    Raises:
        UsageError: it is the directory of something else.
        EvidenceError: its index cannot be read, was altered, or is of another version.
    """
    known: dict[str, Measured] = {}
    return matrix_of(_read_again(campaign_dir, read_matrix(campaign_dir), known), known)


def _judged(outcome: Outcome, step: RunCell, known: dict[str, Measured], took_s: float) -> MatrixEntry:
    """A run that has ended. What it measured becomes known, unless verifying it says something else."""
    run_dir, verdict, main = outcome.run_dir, outcome.record.verdict, main_of(outcome.record)
    code = ExitCode.INTERNAL if verdict is None else verdict.exit_code
    entry = MatrixEntry(step, run_dir.name, code, took_s, None)
    refused = code == ExitCode.DEVICE and (main is None or main.pid is None)
    if code in _STOPPING or code > SIGNAL_BASE or refused:
        return entry
    ending = {ExitCode.VALID: Ending.MEASURED, ExitCode.INVALID: Ending.INVALID}.get(ExitCode(code), Ending.FAILED)
    run = CellRun(
        cell=step.cell,
        position=step.position,
        ending=ending,
        run_id=run_dir.name,
        took_s=round(took_s - _building_s(outcome.record), 3),
        reason="" if ending is Ending.MEASURED else why_of(verdict),
    )
    return _verified(run_dir, replace(entry, run=run), known)


def _building_s(record: RunRecord) -> float:
    """How long it built engines, which all others find there: the time left is learned from the rest."""
    stays = [
        [datetime.fromisoformat(at.replace("Z", "+00:00")) for at in (phase.entered_at, phase.left_at)]
        for phase in record.phases
        if phase.name == Phase.BUILDING.value and phase.left_at is not None
    ]
    return sum((left - entered).total_seconds() for entered, left in stays)


def _read_again(campaign_dir: Path, index: MatrixIndex, known: dict[str, Measured]) -> MatrixIndex:
    """The same where every measured run is read; one that cannot be believed any more has failed, and is repeated."""
    entries = tuple(_verified(campaign_dir / entry.run_dir, entry, known) for entry in index.entries)
    return replace(index, entries=entries)


def _verified(run_dir: Path, entry: MatrixEntry, known: dict[str, Measured]) -> MatrixEntry:
    if entry.run is None or entry.run.ending is not Ending.MEASURED:
        return entry
    try:
        known[entry.run.run_id] = measure(run_dir)
    except HeteromigError as error:
        reason = f"what it measured cannot be used: {str(error).rstrip('.')}"
        return replace(entry, run=replace(entry.run, ending=Ending.FAILED, reason=reason))
    return entry
