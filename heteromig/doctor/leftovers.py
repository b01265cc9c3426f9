"""Findings about what interrupted runs and layouts left behind."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from heteromig.core.devices import SliceKind
from heteromig.core.errors import HeteromigError
from heteromig.doctor.findings import Finding, ok, unknown, warning
from heteromig.doctor.refusals import refused_locks
from heteromig.slices.mig.access import Machine, open_journals
from heteromig.slices.mig.journal import LayoutJournal
from heteromig.slices.mig.left_over import run_journals
from heteromig.slices.source import SliceSource


def about_layouts(source: SliceSource, runs_dir: Path) -> Iterator[Finding]:
    """GPUs that heteromig cut and did not cut back, unless somebody is at it right now."""
    # On whole GPUs and shares as well: a GPU that is still cut is missing among them.
    machine = Machine(source if source.simulated else SliceSource(SliceKind.MIG), runs_dir)
    try:
        journals = (*open_journals(machine, None), *run_journals(runs_dir))
    except (OSError, RuntimeError) as error:  # the latter where this user has no home
        yield unknown("leftovers", f"n/a: journals of layouts cannot be listed ({error})")
        return
    found = False
    for journal in journals:
        try:
            entry = journal.read()
        except HeteromigError as error:
            found = True
            yield warning("leftovers", str(error), "See heteromig mig show.")
            continue
        if entry is None or not entry.is_open or _is_at_work(entry, source, runs_dir):
            continue
        found = True
        yield warning(
            "leftovers",
            f"{entry.gpu_name} ({entry.gpu_uuid}) was cut by heteromig on {entry.written_at} ({entry.progress.value}), "
            "and not cut back",
            f"heteromig mig restore {shlex.quote(str(journal.path))}",
            gpu=entry.gpu_uuid,
        )
    if not found:
        yield ok("leftovers", "no layout waits to be taken back")


def _is_at_work(entry: LayoutJournal, source: SliceSource, runs_dir: Path) -> bool:
    return bool(list(refused_locks(source, runs_dir, (entry.gpu_uuid,))))
