"""Out of descriptors, out of processes."""

from __future__ import annotations

import os
import resource
import subprocess
from pathlib import Path

from heteromig.core.phases import Phase
from tests.faults.cells import VALID, Act, Cell, Need, cell, failed, gave_up, invalid
from tests.faults.stage import Stage

TOPIC = "limit"
NOBODY_ELSE = 54_321
"""A user without any other process."""


def _no_more_files(stage: Stage) -> None:
    """Exactly as many as it has open."""
    highest = max(int(path.name) for path in Path(f"/proc/{stage.run.pid}/fd").iterdir())
    resource.prlimit(stage.run.pid, resource.RLIMIT_NOFILE, (highest + 1, highest + 1))


def _no_more_processes(stage: Stage) -> None:
    # By a process of that user: to limit others takes a capability that root in a container may not have.
    argv: tuple[str, ...] = ("prlimit", "--pid", str(stage.run.pid), "--nproc=1:1")
    if os.geteuid() == 0:
        argv = ("setpriv", "--reuid", str(NOBODY_ELSE), "--regid", str(NOBODY_ELSE), "--clear-groups", *argv)
    subprocess.run(argv, check=True)


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


NO_FILES = (
    gave_up("Too many open files"),
    failed(7, "Too many open files"),
    failed(5, "could not be started", "Too many open files"),
)
"""How far it gets is for the interpreter to say, which has some open itself."""
NO_PROCESSES = (
    failed(7, "Resource temporarily unavailable"),
    failed(5, "ackground 1 (dlrm)"),
    invalid(4, "Background 1 (dlrm)"),
)
"""How far it gets is for the threads to say that everything in it has."""

CELLS: tuple[Cell, ...] = (
    cell(
        TOPIC,
        Act("no more descriptors", strike=_no_more_files, flags=("--start-time-buffer", "2s")),
        Phase.BUFFERING,
        *NO_FILES,
        gave_up("Too many open files", verify=5),
        fast=True,
    ),
    cell(
        TOPIC,
        Act("no more descriptors", strike=_no_more_files, flags=("--main-benchmark-duration", "7s")),
        Phase.MAIN_RUNNING,
        VALID,
        *NO_FILES,
    ),
    *(cell(TOPIC, _files(number), Phase.DISCOVERING, *NO_FILES) for number in (8, 12, 16, 20, 24)),
    cell(
        TOPIC,
        Act("no more processes", before=_as_somebody, strike=_no_more_processes, flags=("--start-time-buffer", "2s")),
        Phase.BUFFERING,
        failed(5, "could not be started", "Resource temporarily unavailable"),
        needs=(Need.ROOT,),
        fast=True,
    ),
    *(
        cell(TOPIC, _processes(number), Phase.DISCOVERING, *NO_PROCESSES, needs=(Need.ROOT,))
        for number in (1, 2, 3, 4, 6)
    ),
)
