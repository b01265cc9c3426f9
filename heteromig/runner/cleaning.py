"""What runs that were killed left behind: found, told from what belongs to runs that go on, and put right."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from enum import Enum
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import HeteromigError
from heteromig.runner.journal import JOURNAL, Told, read_controller_pid, read_told
from heteromig.runner.residue import is_ours, remove, residue_beside_runs, residue_of_run
from heteromig.runner.rundir import CERTIFICATE, RUN_JSON
from heteromig.runner.survivors import (
    CONTROLLER,
    Life,
    ProcessNote,
    life_of,
    read_notes,
    read_notes_of,
    stop,
    survivors,
)
from heteromig.slices.locks import holder_of, lock_directory, lock_gpus, remove_stale_lock, stale_locks
from heteromig.slices.mig.access import close_journal
from heteromig.slices.mig.journal import JournalFile
from heteromig.slices.mig.left_over import half_written_journals, run_journals
from heteromig.slices.mig.partition import Replacement, partition_summary
from heteromig.slices.mps import journal as shares
from heteromig.slices.mps.keeping import KeptShares
from heteromig.slices.orders import files_of_runs
from heteromig.slices.processes import read_command
from heteromig.slices.source import parse_slices
from heteromig.workers.guardian import PROCESSES_FILE, Process


class Outcome(Enum):
    """What became of something that was found."""

    DONE = "done"
    TO_DO = "to do"
    """It would be done, were this not a dry run."""
    NOT_OURS = "not ours"
    """It belongs to a run that goes on, or that is just being taken back."""
    FAILED = "failed"


class Stopped(Struct, frozen=True):
    """A process; `start_time` is in clock ticks since boot, `command` what it calls itself, whoever it is."""

    pid: int
    start_time: int
    command: str


class Found(Struct, frozen=True):
    """Something that was found in a run directory, and what became of it, in a sentence.

    `what` is its kind: layout, mps, processes, lock or file. `replaced` are slices that were made again, with their
    UUIDs before the run and now. `processes` are those that were, or would be, stopped.
    """

    what: str
    run_dir: str
    outcome: Outcome
    sentence: str
    replaced: tuple[Replacement, ...] = ()
    processes: tuple[Stopped, ...] = ()


class _Run(Struct, frozen=True):
    """A run directory, and what is known of who worked in it."""

    run_dir: Path
    told: Told | None
    life: Life
    notes: tuple[ProcessNote, ...]


_SILENT_S = 600.0
"""A run beats every five seconds. One of another boot may be of another machine, on a shared file system: it counts as
dead when it has been silent for so long."""


def clean_runs(runs_dir: Path, slices: str | None = None, *, dry_run: bool = False) -> tuple[Found, ...]:
    """Put right what runs below `runs_dir` run.

    That is processes, MPS daemons, GPUs cut as it was for a run, locks, and files that were for the time of the run.
    Runs that go on are left alone, and run directories of other users as well.

    Args:
        runs_dir: where the run directories are.
        slices: a value of `--slices`; what is not of runs on these is left alone. None for all.
        dry_run: only say what would be done.

    Raises:
        UsageError: `slices` is no such value.
    """
    source = None if slices is None else str(parse_slices(slices))
    return tuple(one for one in _look(runs_dir, source, dry_run=dry_run) if one is not None)


def _look(runs_dir: Path, source: str | None, *, dry_run: bool) -> Iterator[Found | None]:
    runs: list[_Run] = []
    for run_dir in _noted_runs(runs_dir):
        told = read_told(run_dir)
        if source not in {None, told.slices if told is not None else None}:
            continue
        try:
            notes = read_notes(run_dir)
        except HeteromigError as error:
            yield Found("processes", str(run_dir), Outcome.FAILED, str(error))
        else:
            runs.append(_Run(run_dir, told, life_of(notes), notes))
    yield from (_processes(run, dry_run=dry_run) for run in runs)  # before what they work on is taken back
    yield from _devices(runs_dir, source, dry_run=dry_run)
    for run in runs:
        yield from _files(run, dry_run=dry_run)
    if source is None:
        engines = {Path(run.told.engines_dir).absolute() for run in runs if run.told is not None}
        for directory in (runs_dir, *sorted(engines | {(runs_dir / ".engines").absolute()})):
            yield from (_residue(path, directory, dry_run=dry_run) for path in residue_beside_runs(directory))


def _noted_runs(runs_dir: Path) -> list[Path]:
    """Those that are not sealed: a run is sealed when nothing of it is left."""
    found = [path.parent for path in files_of_runs(runs_dir, PROCESSES_FILE)]
    return [run_dir for run_dir in found if is_ours(run_dir) and not (run_dir / CERTIFICATE).exists()]


def _devices(runs_dir: Path, source: str | None, *, dry_run: bool) -> Iterator[Found | None]:
    for path in files_of_runs(runs_dir, shares.RUN_JOURNAL):
        yield _daemon(path, source, dry_run=dry_run)
    for journal in run_journals(runs_dir):
        yield _layout(journal, source, dry_run=dry_run)
    for half in half_written_journals(runs_dir):
        yield _half_written(half, dry_run=dry_run)


def _processes(run: _Run, *, dry_run: bool) -> Found | None:
    """None where it goes on, or nothing of it lives."""
    if run.life is not Life.DEAD:
        return None
    still: list[Process] = []
    if dry_run:
        there = [(one, read_command(one.pid)) for one in survivors(run.notes)]
        outcome, done = Outcome.TO_DO, "would be killed"
    else:
        there, still = stop(run.notes)
        outcome, done = Outcome.DONE, "were killed" if len(there) > 1 else "was killed"
    if not there:
        return None
    told = tuple(Stopped(one.pid, one.start_time, command) for one, command in there)
    if still:
        pids = ", ".join(str(process.pid) for process in still)
        sentence = f"Processes of the run cannot be killed (pid {pids}): see the kernel's log, or ask their owner."
        return Found("processes", str(run.run_dir), Outcome.FAILED, sentence, processes=told)
    pids = ", ".join(str(one.pid) for one in told)
    them = f"{len(told)} processes" if len(told) > 1 else "A process"
    sentence = f"{them} that outlived the run's controller {done}: pid {pids}."
    return Found("processes", str(run.run_dir), outcome, sentence, processes=told)


def _files(run: _Run, *, dry_run: bool) -> Iterator[Found]:
    """What is no use to anybody once the run is dead."""
    if run.life is Life.DEAD or (run.life is Life.ANOTHER_BOOT and _is_silent(run.run_dir)):
        for path in residue_of_run(run.run_dir, shadows=run.told is not None and run.told.harness == "make"):
            yield _residue(path, run.run_dir, dry_run=dry_run)
        yield from _locks(run, dry_run=dry_run)


def _residue(path: Path, where: Path, *, dry_run: bool) -> Found:
    sentence = f"{path.relative_to(where)} was left half done by a process that was killed: "
    if dry_run:
        return Found("file", str(where), Outcome.TO_DO, f"{sentence}it would be removed.")
    try:
        remove(path)
    except OSError as error:
        return Found("file", str(where), Outcome.FAILED, f"{path} cannot be removed: {error.strerror}.")
    return Found("file", str(where), Outcome.DONE, f"{sentence}removed.")


def _locks(run: _Run, *, dry_run: bool) -> Iterator[Found]:
    """Locks of its controller that nobody holds."""
    pid = next((note.pid for note in run.notes if note.role == CONTROLLER), None)
    if pid is None or run.told is None:
        return
    try:
        directory = lock_directory(parse_slices(run.told.slices), run.run_dir.parent)
    except HeteromigError:  # a source of another version
        return
    for path in stale_locks(directory, pid):
        sentence = f"The lock {path} of the run's controller (pid {pid}), which is gone, "
        if dry_run:
            yield Found("lock", str(run.run_dir), Outcome.TO_DO, f"{sentence}would be removed.")
            continue
        try:
            if remove_stale_lock(path, pid):
                yield Found("lock", str(run.run_dir), Outcome.DONE, f"{sentence}is removed.")
        except OSError as error:  # another user's, who may lock it though nobody but he may remove it: it bars nobody
            yield Found("lock", str(run.run_dir), Outcome.NOT_OURS, f"{sentence}stays: {error.strerror}.")


def _is_silent(run_dir: Path) -> bool:
    try:
        beat_s = max((run_dir / name).stat().st_mtime for name in (RUN_JSON, JOURNAL) if (run_dir / name).exists())
    except (OSError, ValueError):
        return False
    return time.time() - beat_s > _SILENT_S


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
    try:
        pid = _controller_of(path.parent)
    except HeteromigError as error:
        return Found("file", str(path.parent), Outcome.FAILED, str(error))
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
    if holder is None or holder != _controller_of(run_dir):
        return None
    return f"belongs to a run that goes on (pid {holder}), or that is just being taken back."


def _controller_of(run_dir: Path) -> int | None:
    """Who runs it, or ran it; what a campaign keeps from run to run has no journal of events, only a note of that.

    Raises:
        PreflightError: the note cannot be read, or is somebody else's.
    """
    pid = read_controller_pid(run_dir)
    if pid is None:
        pid = next((note.pid for note in read_notes_of(run_dir) if note.role == CONTROLLER), None)
    return pid
