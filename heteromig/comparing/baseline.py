"""What a run's neighbours cost, where a baseline of it is known: for the first page of its report."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.comparing.comparison import compare_measured
from heteromig.comparing.measured import Measured, main_of, measure, measured
from heteromig.comparing.series import is_series, read_series
from heteromig.core.decoding import decode
from heteromig.core.degradation import Degradation
from heteromig.core.errors import EvidenceError, HeteromigError
from heteromig.core.phases import Phase
from heteromig.core.record import RunRecord, VerdictRecord
from heteromig.core.spec import Goal
from heteromig.logs.files import read_regular
from heteromig.results.wording import sentence
from heteromig.runner.recording import read_record
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.verification import Retold

_READ_AT_MOST = 3
"""How many baselines that look right are read as a whole, the newest first, before none is taken to be known."""


class _Glance(Struct, frozen=True):
    """What of a run.json tells a baseline from others."""

    goal: str
    verdict: VerdictRecord | None


def find_baseline(run_dir: Path, told: Retold) -> Degradation | None:
    """What the neighbours of this run cost by its main metric, None where no baseline is known that it compares with.

    Of a series it is the two baselines beside the run, as far as they are there already; else the newest valid one
    among the runs in the same directory whose settings are the same. `told` is the run itself, verified, as its
    baselines are here.
    """
    if told.journal.header.spec.goal is not Goal.RUN or told.run.phase is not Phase.FINISHED:
        return None
    try:
        record = read_record(run_dir)
        beside = _beside(run_dir)
        if beside:
            return _against(measured(run_dir, told), beside, paired_up=len(beside) > 1)
        for path in itertools.islice(_candidates(run_dir, record), _READ_AT_MOST):
            known = _against(measured(run_dir, told), [path], paired_up=False)
            if known is not None:
                return known
    except HeteromigError:
        pass
    return None


def _against(run: Measured, paths: list[Path], *, paired_up: bool) -> Degradation | None:
    """None where they cannot be compared."""
    try:
        found = compare_measured([measure(path) for path in paths], [run], paired_up=paired_up)
    except HeteromigError:
        return None
    change = next((one for one in found.changes if one.metric.name == found.primary), None)
    if change is None or change.estimate is None:
        return None
    words = sentence(change.metric, change.estimate, change.judgement)
    return Degradation(
        change=change,
        baselines=tuple(map(str, paths)),
        sentence=f"Against main alone, {words}.",
        remarks=found.remarks,
    )


def _beside(run_dir: Path) -> list[Path]:
    """The baselines of the same series before and after the run."""
    series_dir = run_dir.absolute().parent
    if not is_series(series_dir):
        return []
    try:
        entries = read_series(series_dir).entries
    except EvidenceError:
        return []
    names = [entry.run_dir for entry in entries]
    at = names.index(run_dir.name) if run_dir.name in names else len(names)  # it may be ending at this moment
    around = [entry for place in (at - 1, at + 1) if 0 <= place < len(entries) for entry in (entries[place],)]
    return [
        series_dir / entry.run_dir
        for entry in around
        if entry.goal is Goal.BASELINE and entry.exit_code == 0 and entry.run_dir is not None
    ]


def _candidates(run_dir: Path, record: RunRecord) -> Iterator[Path]:
    """Valid baselines of the same main in the same directory, the newest first, by what they wrote of themselves."""
    runs_dir = run_dir.absolute().parent
    wanted = _essentials(record)
    written = {*runs_dir.glob(f"*/{RUN_JSON}"), *runs_dir.glob(f"*/*/{RUN_JSON}")}
    for path in sorted(written, key=lambda path: path.parent.name, reverse=True):  # which begins with its time
        if path.parent.is_symlink() or path.parent.parent.is_symlink() or not _is_baseline(path):
            continue
        try:
            if _essentials(read_record(path.parent)) == wanted:
                yield path.parent
        except HeteromigError:
            continue


def _is_baseline(path: Path) -> bool:
    """At a glance: there may be hundreds of runs."""
    try:
        seen = decode(read_regular(path, "The record of the run"), _Glance)
    except (OSError, HeteromigError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return seen.goal == Goal.BASELINE.value and seen.verdict is not None and seen.verdict.status == "valid"


def _essentials(record: RunRecord) -> tuple[object, ...]:
    main = main_of(record)
    if main is None:
        return ()
    profile = next((place.profile for place in record.slices if place.uuid == main.slice_uuid), None)
    same = (record.harness, record.simulated, record.isolation)
    return (*same, main.benchmark, main.scenario, main.mode, main.accuracy, profile)
