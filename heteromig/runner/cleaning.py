"""What runs that were killed left behind: found, told from what belongs to runs that go on, and put right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from enum import Enum
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import HeteromigError
from heteromig.runner.journal import read_controller_pid
from heteromig.slices.locks import holder_of, lock_directory, lock_gpus
from heteromig.slices.mig.access import close_journal
from heteromig.slices.mig.journal import JournalFile
from heteromig.slices.mig.left_over import half_written_journals, run_journals
from heteromig.slices.mig.partition import Replacement, partition_summary
from heteromig.slices.mps import journal as shares
from heteromig.slices.mps.keeping import KeptShares
from heteromig.slices.orders import files_of_runs
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
    """Put right what runs below `runs_dir` left: GPUs cut as it was for a run, and MPS daemons.

    Args:
        runs_dir: where the run directories are.
        slices: a value of `--slices`; what is not on these is left alone. None for all.
        dry_run: only say what would be done.

    Raises:
        UsageError: `slices` is no such value.
    """
    source = None if slices is None else str(parse_slices(slices))
    return tuple(one for one in _look(runs_dir, source, dry_run=dry_run) if one is not None)


def _look(runs_dir: Path, source: str | None, *, dry_run: bool) -> Iterator[Found | None]:
    for path in files_of_runs(runs_dir, shares.RUN_JOURNAL):
        yield _daemon(path, source, dry_run=dry_run)
    for journal in run_journals(runs_dir):
        yield _layout(journal, source, dry_run=dry_run)
    for half in half_written_journals(runs_dir):
        yield _half_written(half, dry_run=dry_run)


def _layout(journal: JournalFile, source: str | None, *, dry_run: bool) -> Found | None:
    """None where there is nothing to cut back."""
    run_dir = journal.path.parent
    try:
        entry = journal.read()
        if entry is None or not entry.is_open or source not in {None, entry.slices}:
            return None
        gpu = f"{entry.gpu_name} ({entry.gpu_uuid})"
        goes_on = _going_on(run_dir, entry.gpu_uuid, lock_directory(parse_slices(entry.slices), Path(entry.runs_dir)))
        if goes_on is not None:
            return Found("layout", str(run_dir), Outcome.NOT_OURS, f"{gpu} {goes_on}")
        if dry_run:
            sentence = f"{gpu} would be cut as before the run: {partition_summary(entry.before)}."
            return Found("layout", str(run_dir), Outcome.TO_DO, sentence)
        outcome = close_journal(journal, forget=False, enable_mig_mode=False).outcome
    except HeteromigError as error:
        return Found("layout", str(run_dir), Outcome.FAILED, str(error))
    if outcome is None:  # somebody else was quicker
        return None
    done = f"{gpu} is cut as before the run: {partition_summary(outcome.cut)}."
    return Found("layout", str(run_dir), Outcome.DONE, done, outcome.replaced)


def _daemon(path: Path, source: str | None, *, dry_run: bool) -> Found | None:
    """None where there is no MPS daemon to end."""
    run_dir = path.parent
    try:
        entry = shares.read_journal(path, found=True)
        if entry is None or entry.ended or source not in {None, entry.slices}:
            return None
        locks = lock_directory(parse_slices(entry.slices), run_dir.parent)
        goes_on = _going_on(run_dir, entry.gpu_uuid, locks)
        if goes_on is not None:
            return Found("mps", str(run_dir), Outcome.NOT_OURS, f"The MPS daemon on GPU {entry.gpu_uuid} {goes_on}")
        if dry_run:
            sentence = f"The MPS daemon on GPU {entry.gpu_uuid}, or what is left of it, would be ended."
            return Found("mps", str(run_dir), Outcome.TO_DO, sentence)
        with closing(lock_gpus([entry.gpu_uuid], locks)):
            kept = KeptShares(slices=entry.slices, runs_dir=run_dir.parent, run_dir=run_dir, gpu=None, found=True)
            return Found("mps", str(run_dir), Outcome.DONE, kept.restore().what)
    except HeteromigError as error:
        return Found("mps", str(run_dir), Outcome.FAILED, str(error))


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


def _going_on(run_dir: Path, gpu_uuid: str, locks: Path) -> str | None:
    """The end of a sentence where the GPU is locked for that very run; None where its processes are dead."""
    holder = holder_of(gpu_uuid, locks)
    if holder is None or holder != read_controller_pid(run_dir):
        return None
    return f"belongs to a run that goes on (pid {holder}), or that is just being taken back."
