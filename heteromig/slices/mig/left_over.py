"""GPUs that runs cut and did not cut back, because they were killed, and the processes that kept the GPUs as well.

Whoever runs still, or is cutting back, holds the lock on the GPU: who holds it himself knows that the others are dead.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from heteromig.core.errors import PreflightError
from heteromig.slices.mig.journal import RUN_JOURNAL, JournalFile
from heteromig.slices.orders import files_of_runs
from heteromig.slices.source import SliceSource


def run_journals(runs_dir: Path) -> Iterator[JournalFile]:
    """The journal of every run that ever cut a GPU, open or not."""
    for path in files_of_runs(runs_dir, RUN_JOURNAL):
        yield JournalFile(path, found=True)


def half_written_journals(runs_dir: Path) -> Iterator[Path]:
    """What is there of journals that were never there, because whoever wrote the first time was killed."""
    for path in files_of_runs(runs_dir, f".{RUN_JOURNAL}.new"):
        if not path.with_name(RUN_JOURNAL).exists():
            yield path


def left_cut(runs_dir: Path, source: SliceSource, gpu_uuids: Iterable[str], besides: Path | None = None) -> list[str]:
    """A sentence for each run that left one of these GPUs cut; whoever asks holds the locks on them.

    `besides` is a run directory that is not looked into.
    """
    wanted = frozenset(gpu_uuids)
    found = []
    for journal in run_journals(runs_dir):
        try:
            entry = journal.read()
        except PreflightError:
            continue  # nobody knows which GPU it is of; `heteromig clean` tells of it
        if entry is None or not entry.is_open or journal.path.parent == besides:
            continue
        if entry.gpu_uuid in wanted and entry.slices == str(source):
            found.append(
                f"{entry.gpu_name} ({entry.gpu_uuid}) was cut by the run {journal.path.parent.name}, which was killed "
                f"and did not cut it back: heteromig clean --runs-dir {shlex.quote(str(runs_dir))} does that."
            )
    return found
