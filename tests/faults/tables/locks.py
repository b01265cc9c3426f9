"""Whose a GPU is: two controllers, and locks that the dead left."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.slices.access import enumerate_slices
from tests.e2e.product import BOARD
from tests.faults.cells import KILLED, VALID, Act, Cell, cell, failed
from tests.faults.stage import Stage

TOPIC = "lock"
SOON = ("--start-time-buffer", "3s")


def _lock_file(stage: Stage) -> Path:
    inventory, _ = enumerate_slices(BOARD, stage.runs, None, activity=False)
    directory = stage.runs / ".locks"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{inventory.gpus[0].uuid}.lock"


def _second_is_refused(stage: Stage) -> None:
    second = stage.start()
    finished = second.finish()
    assert finished.exit_code == 7
    assert f"in use by another heteromig run (pid {stage.run.pid})" in finished.stderr + finished.stdout


def _remove_and_start_second(stage: Stage) -> None:
    """Nothing holds the second one back now but that the slices are not idle."""
    shutil.rmtree(stage.runs / ".locks")
    stage.run.wait_for(ev.WorkerSpawned, 1)
    finished = stage.start().finish()
    assert finished.exit_code == 7
    assert "is used by a process that is not part of this run" in finished.stderr + finished.stdout


def _stale(stage: Stage) -> None:
    """The number of its holder belongs to somebody else now: this very process."""
    _lock_file(stage).write_text(f"{os.getpid()}\n")


def _garbage(stage: Stage) -> None:
    _lock_file(stage).write_bytes(b"\xff\0no pid\n" * 1000)


def _link(stage: Stage) -> None:
    (stage.home / "victim").write_text("mine")
    _lock_file(stage).symlink_to(stage.home / "victim")


def _link_is_untouched(stage: Stage) -> None:
    assert (stage.home / "victim").read_text() == "mine"


@contextlib.contextmanager
def _held(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hold(stage: Stage) -> None:
    stage.keep(_held(_lock_file(stage)))


def _release(stage: Stage) -> None:
    stage.let_go()


def _kill(stage: Stage) -> None:
    stage.run.send(signal.SIGKILL)


def _start_another(stage: Stage) -> None:
    finished = stage.start("--start-time-buffer", "0", "--main-benchmark-duration", "500ms").finish()
    assert finished.exit_code == 0, finished.stderr


CELLS: tuple[Cell, ...] = (
    cell(
        TOPIC,
        Act("a second controller wants the GPU", strike=_second_is_refused, flags=SOON),
        Phase.BUFFERING,
        VALID,
        fast=True,
    ),
    cell(
        TOPIC,
        Act("the locks are removed, and a second controller comes", strike=_remove_and_start_second, flags=SOON),
        Phase.BUFFERING,
        VALID,
    ),
    cell(TOPIC, Act("stale, its holder dead, its pid reused", before=_stale), Phase.DISCOVERING, VALID, fast=True),
    cell(TOPIC, Act("its file holds garbage", before=_garbage), Phase.DISCOVERING, VALID),
    cell(
        TOPIC,
        Act("somebody else holds it and does not say who", before=_hold, after=_release),
        Phase.DISCOVERING,
        failed(7, "is in use by another heteromig run (pid unknown)"),
    ),
    cell(
        TOPIC,
        Act("its file is a link to something else", before=_link, after=_link_is_untouched),
        Phase.DISCOVERING,
        failed(7, "cannot be locked"),
    ),
    cell(
        TOPIC,
        Act("the controller is SIGKILLed, and another run comes at once", strike=_kill, after=_start_another),
        Phase.MAIN_RUNNING,
        KILLED,
    ),
)
