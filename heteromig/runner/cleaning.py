"""What runs that were killed left behind: found, told from what belongs to runs that go on, and put right."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import HeteromigError
from heteromig.runner.journal import read_controller_pid
from heteromig.slices.locks import holder_of, lock_directory
from heteromig.slices.mig.access import close_journal
from heteromig.slices.mig.journal import JournalFile, LayoutJournal
from heteromig.slices.mig.left_over import half_written_journals, run_journals
from heteromig.slices.mig.partition import Replacement, partition_summary
from heteromig.slices.source import parse_slices


class Outcome(Enum):
    """What became of something that was found."""

    DONE = "done"
    TO_DO = "to do"
    """It would be done, were this not a dry run."""
    NOT_OURS = "not ours"
    """It belongs to a run that goes on, or that is just being taken back."""
    FAILED = "failed"


class Found(Struct, frozen=True):
    """Something that was found in a run directory, and what became of it, in a sentence.

    `what` is its kind. `replaced` are slices that were made again, with their UUIDs before the run and now.
    """

    what: str
    run_dir: str
    outcome: Outcome
    sentence: str
    replaced: tuple[Replacement, ...] = ()


def clean_runs(runs_dir: Path, slices: str | None = None, *, dry_run: bool = False) -> tuple[Found, ...]:
    """Put right what runs below `runs_dir` left: GPUs that are cut as it was for a run.

    Args:
        runs_dir: where the run directories are.
        slices: a value of `--slices`; what is not on these is left alone. None for all.
        dry_run: only say what would be done.

    Raises:
        UsageError: `slices` is no such value.
    """
    source = None if slices is None else str(parse_slices(slices))
    found = [_layout(journal, source, dry_run=dry_run) for journal in run_journals(runs_dir)]
    halves = [_half_written(path, dry_run=dry_run) for path in half_written_journals(runs_dir)]
    return tuple(one for one in (*found, *halves) if one is not None)


def _layout(journal: JournalFile, source: str | None, *, dry_run: bool) -> Found | None:
    """None where there is nothing to cut back."""
    run_dir = journal.path.parent
    try:
        entry = journal.read()
        if entry is None or not entry.is_open or source not in {None, entry.slices}:
            return None
        before = f"{entry.gpu_name} ({entry.gpu_uuid})"
        holder = _holder(entry)
        if holder is not None and holder == read_controller_pid(run_dir):
            sentence = f"{before} belongs to a run that goes on (pid {holder}), or is just being cut back."
            return Found("layout", str(run_dir), Outcome.NOT_OURS, sentence)
        cut = f"as before the run: {partition_summary(entry.before)}."
        if dry_run:
            return Found("layout", str(run_dir), Outcome.TO_DO, f"{before} would be cut {cut}")
        outcome = close_journal(journal, forget=False, enable_mig_mode=False).outcome
    except HeteromigError as error:
        return Found("layout", str(run_dir), Outcome.FAILED, str(error))
    return Found("layout", str(run_dir), Outcome.DONE, f"{before} is cut {cut}", outcome.replaced if outcome else ())


def _holder(entry: LayoutJournal) -> int | None:
    return holder_of(entry.gpu_uuid, lock_directory(parse_slices(entry.slices), Path(entry.runs_dir)))


def _half_written(path: Path, *, dry_run: bool) -> Found | None:
    """A journal that was being written for the first time: nothing had been done to the GPU."""
    pid = read_controller_pid(path.parent)
    if pid is not None and Path(f"/proc/{pid}").exists():
        return None  # it may be writing at this moment
    sentence = f"{path.name} is the beginning of a journal, from before anything was done to the GPU: "
    if dry_run:
        return Found("file", str(path.parent), Outcome.TO_DO, f"{sentence}it would be removed.")
    try:
        os.unlink(path)  # noqa: PTH108 - it is the file there or nothing, whatever it is
    except OSError as error:
        return Found("file", str(path.parent), Outcome.FAILED, f"{path} cannot be removed: {error.strerror}.")
    return Found("file", str(path.parent), Outcome.DONE, f"{sentence}removed.")
