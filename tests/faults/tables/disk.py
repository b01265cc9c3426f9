"""There is no room, or the run directory goes away: no verdict, a sentence that says why, and nothing is left."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from heteromig.core.phases import Phase
from tests.faults.cells import VALID, Act, Cell, Need, cell, gave_up
from tests.faults.stage import Stage

TOPIC = "disk"
SIZE_BYTES = 2 << 20
FULL = gave_up("No space left on device", "Make room, then try again")
UNBUILT = gave_up("No space left on device", "Make room, then try again", verify=5)
"""The build, which writes there as well, was the first to fail, and the journal still says so."""
TOO_LARGE = gave_up("File too large", "Allow larger files, then try again")
GONE = gave_up("Leave the run directory", verify=2)


@contextlib.contextmanager
def _disk(stage: Stage, size_bytes: int) -> Iterator[None]:
    """Run directories on a disk of their own, in a namespace that ends with its keeper."""
    (stage.home / "runs").mkdir()
    argv = (sys.executable, "-m", "tests.faults.launcher", "--disk", str(stage.home / "runs"), str(size_bytes))
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"mounted\n"
        stage.helpers.add(keeper.pid)
        stage.launcher = ("--mounts-of", str(keeper.pid))
        stage.runs = stage.runs.__class__(f"/proc/{keeper.pid}/root{stage.home / 'runs'}")
        try:
            yield
        finally:
            keeper.stdin.close()


def _small(stage: Stage) -> None:
    stage.keep(_disk(stage, SIZE_BYTES))


def _tiny(stage: Stage) -> None:
    stage.keep(_disk(stage, 4096))


def _fill(stage: Stage) -> None:
    filler = stage.runs / ".locks" / "filler"
    with pytest.raises(OSError, match="No space left on device"):
        filler.write_bytes(b"\0" * 2 * SIZE_BYTES)


def _limit(stage: Stage) -> None:
    resource.prlimit(stage.run.pid, resource.RLIMIT_FSIZE, (4096, 4096))


def _delete(stage: Stage) -> None:
    """By its name first, so that nothing is left half way."""
    run_dir = stage.run.run_dir
    gone = run_dir.rename(stage.home / "gone")
    while gone.exists():
        shutil.rmtree(gone, ignore_errors=True)


def _move(stage: Stage) -> None:
    stage.run.run_dir.rename(stage.home / "elsewhere")


def _delete_all(stage: Stage) -> None:
    gone = stage.runs.rename(stage.home / "gone")
    while gone.exists():
        shutil.rmtree(gone, ignore_errors=True)


def _delete_run_json(stage: Stage) -> None:
    (stage.run.run_dir / "run.json").unlink()


def _delete_journal(stage: Stage) -> None:
    (stage.run.run_dir / "events.jsonl").unlink()


FILLED = Act("the disk fills up", before=_small, strike=_fill)
LIMITED = Act("files may not grow any more (RLIMIT_FSIZE)", strike=_limit)
DELETED = Act("the run directory is deleted", strike=_delete)
SHORT = ("--main-benchmark-duration", "2s")

CELLS: tuple[Cell, ...] = (
    cell(TOPIC, Act("the disk is full from the start", before=_tiny), Phase.DISCOVERING, FULL, needs=(Need.ROOT,)),
    *(
        cell(
            TOPIC,
            FILLED,
            phase,
            *((FULL, UNBUILT) if phase is Phase.BUILDING else (FULL,)),
            needs=(Need.ROOT,),
            fast=phase is Phase.MAIN_RUNNING,
        )
        for phase in (Phase.BUILDING, Phase.BACKGROUND_STARTING, Phase.BUFFERING, Phase.MAIN_RUNNING, Phase.DRAINING)
    ),
    *(
        cell(TOPIC, LIMITED, phase, TOO_LARGE, fast=phase is Phase.BUFFERING)
        for phase in (Phase.BUFFERING, Phase.MAIN_RUNNING)
    ),
    *(
        cell(TOPIC, DELETED, phase, GONE, fast=phase is Phase.MAIN_RUNNING)
        for phase in (Phase.BUILDING, Phase.BUFFERING, Phase.MAIN_RUNNING, Phase.DRAINING)
    ),
    cell(TOPIC, Act("the run directory is moved away", strike=_move), Phase.MAIN_RUNNING, GONE),
    cell(TOPIC, Act("all run directories are deleted", strike=_delete_all), Phase.MAIN_RUNNING, GONE),
    cell(TOPIC, Act("run.json is deleted", strike=_delete_run_json, flags=SHORT), Phase.MAIN_RUNNING, VALID),
    cell(
        TOPIC,
        Act("the journal is deleted", strike=_delete_journal, flags=SHORT),
        Phase.MAIN_RUNNING,
        gave_up("Leave the run directory"),
    ),
)
