"""Out of descriptors, out of processes."""

from __future__ import annotations

import os
import resource

from heteromig.core.phases import Phase
from tests.faults.cells import Act, Cell, Need, cell, failed, gave_up
from tests.faults.stage import Stage

TOPIC = "limit"
NOBODY_ELSE = 54_321
"""A user without any other process."""


def _no_more_files(stage: Stage) -> None:
    """Exactly as many as it has open."""
    highest = max(map(int, os.listdir(f"/proc/{stage.run.pid}/fd")))
    resource.prlimit(stage.run.pid, resource.RLIMIT_NOFILE, (highest + 1, highest + 1))


def _no_more_processes(stage: Stage) -> None:
    resource.prlimit(stage.run.pid, resource.RLIMIT_NPROC, (1, 1))


def _as_somebody(stage: Stage) -> None:
    if os.geteuid() == 0:
        os.chown(stage.home, NOBODY_ELSE, NOBODY_ELSE)
        stage.launcher = ("--user", str(NOBODY_ELSE))


def _files(number: int) -> Act:
    def before(stage: Stage) -> None:
        stage.launcher = ("--limit", f"NOFILE={number}")

    return Act(f"{number} descriptors from the start", before=before)


def _processes(number: int) -> Act:
    def before(stage: Stage) -> None:
        _as_somebody(stage)
        stage.launcher = (*stage.launcher, "--limit", f"NPROC={number}")

    return Act(f"{number} processes of the user from the start", before=before)


CELLS: tuple[Cell, ...] = (
    cell(
        TOPIC,
        Act("no more descriptors", strike=_no_more_files),
        Phase.BUFFERING,
        failed(5),
        gave_up("Too many open files"),
        fast=True,
    ),
    cell(TOPIC, Act("no more descriptors", strike=_no_more_files), Phase.MAIN_RUNNING, gave_up("Too many open files")),
    *(cell(TOPIC, _files(number), Phase.DISCOVERING, gave_up("Too many open files")) for number in (8, 12, 16, 20, 24)),
    cell(
        TOPIC,
        Act("no more processes", before=_as_somebody, strike=_no_more_processes, flags=("--start-time-buffer", "2s")),
        Phase.BUFFERING,
        failed(5, "could not be started", "Resource temporarily unavailable"),
        needs=(Need.ROOT,),
        fast=True,
    ),
    *(
        cell(TOPIC, _processes(number), Phase.DISCOVERING, failed(7), failed(5), needs=(Need.ROOT,))
        for number in (1, 2, 3, 4, 6)
    ),
)
