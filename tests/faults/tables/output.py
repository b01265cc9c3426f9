"""What workers print, and where a run's own words go."""

from __future__ import annotations

import os
import signal

from heteromig.core.phases import Phase
from tests.e2e.deeds import PRINTED
from tests.faults.cells import VALID, Act, Cell, aborted, cell, does, failed
from tests.faults.stage import Stage
from tests.faults.terminals import Terminal

TOPIC = "output"
STARTING, BUFFERING, RUNNING = Phase.BACKGROUND_STARTING, Phase.BUFFERING, Phase.MAIN_RUNNING


def _open_terminal(stage: Stage) -> None:
    stage.terminal = Terminal()
    stage.launcher = ("--terminal", stage.terminal.path)


def _open_terminal_with_nohup(stage: Stage) -> None:
    _open_terminal(stage)
    stage.launcher = (*stage.launcher, "--nohup")


def _close_terminal(stage: Stage) -> None:
    assert stage.terminal is not None
    stage.terminal.close()


def _full(stage: Stage) -> None:
    stage.stdout = os.open("/dev/full", os.O_WRONLY | os.O_CLOEXEC)


def _gone(stage: Stage) -> None:
    gone, stage.stdout = os.pipe()
    os.close(gone)


CLOSED = Act(
    "the terminal is closed", before=_open_terminal, strike=_close_terminal, after=_close_terminal, flags=("--no-live",)
)
CLOSED_LIVE = Act(
    "the terminal with the live table is closed",
    before=_open_terminal,
    strike=_close_terminal,
    after=_close_terminal,
    flags=("--live",),
)
CLOSED_NOHUP = Act(
    "the terminal is closed, under nohup",
    before=_open_terminal_with_nohup,
    strike=_close_terminal,
    after=_close_terminal,
    flags=("--live", "--main-benchmark-duration", "2s"),
)

CELLS: tuple[Cell, ...] = (
    cell(TOPIC, does("background", "flood at marker", "background: 100 MB/s to stdout"), RUNNING, VALID),
    cell(TOPIC, does("main", "flood at marker", "main: 100 MB/s to stdout"), RUNNING, VALID),
    cell(TOPIC, does("background", "long line at marker", "background: a line of 100 MB"), STARTING, VALID),
    cell(TOPIC, does("main", "long line at result", "main: a line of 100 MB"), RUNNING, VALID),
    *(
        cell(
            TOPIC,
            does(
                "background",
                f"print {what} at start + print {what} at marker + print {what} at cue",
                f"background: {what}",
                flags=("--main-benchmark-duration", "1s"),
            ),
            RUNNING,
            VALID,
            fast=what == "escapes",
        )
        for what in ("NULs", "invalid UTF-8", "escapes", "markup")
        if what in PRINTED
    ),
    cell(
        TOPIC,
        does("main", "print escapes at start + print markup at start + exit 1 at start", "main: dies with escapes"),
        RUNNING,
        failed(5, "Main 0 (resnet50) exited with status 1"),
    ),
    cell(
        TOPIC,
        does("background", "print a false end at cue", "background: says it is finished and is not"),
        RUNNING,
        VALID,
    ),
    cell(TOPIC, CLOSED, STARTING, aborted(signal.SIGHUP)),
    cell(TOPIC, CLOSED, BUFFERING, aborted(signal.SIGHUP)),
    cell(TOPIC, CLOSED, RUNNING, aborted(signal.SIGHUP)),
    cell(TOPIC, CLOSED_LIVE, RUNNING, aborted(signal.SIGHUP), fast=True),
    cell(TOPIC, CLOSED_NOHUP, RUNNING, VALID),
    cell(TOPIC, Act("standard output is full", before=_full), Phase.FINISHED, VALID.exits(1), fast=True),
    cell(TOPIC, Act("standard output is gone", before=_gone), Phase.FINISHED, VALID),
)
