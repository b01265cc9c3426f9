"""What main does that it should not."""

from __future__ import annotations

import signal

from heteromig.core.phases import Phase
from tests.faults.cells import Act, Cell, cell, does, failed, inconclusive, invalid
from tests.faults.stage import Stage

TOPIC = "main"
RUNNING = Phase.MAIN_RUNNING
NO_RESULT = inconclusive("Main resnet50 has no result")
QUICKLY = ("--clean-stop", "200ms", "--grace", "200ms")


def _kill(stage: Stage) -> None:
    stage.run.kill_worker(0)


def _term(stage: Stage) -> None:
    stage.run.kill_worker(0, signum=signal.SIGTERM)


def _stop(stage: Stage) -> None:
    stage.run.kill_worker(0, signum=signal.SIGSTOP)


CELLS: tuple[Cell, ...] = (
    cell(
        TOPIC,
        does("main", "exit 0 at start", "exit 0 before its marker"),
        RUNNING,
        NO_RESULT,
    ),
    cell(TOPIC, does("main", "exit 0 at cue", "exit 0 in its timed section"), RUNNING, NO_RESULT),
    cell(TOPIC, does("main", "exit 1 at start"), RUNNING, failed(5, "Main 0 (resnet50) exited with status 1")),
    cell(
        TOPIC,
        does("main", "exit 3 at result", "exit 3 after its result"),
        RUNNING,
        failed(5, "Main 0 (resnet50) exited with status 3"),
        fast=True,
    ),
    cell(TOPIC, does("main", "segfault at cue"), RUNNING, failed(5, "Main 0 (resnet50) died of SIGSEGV"), fast=True),
    cell(TOPIC, Act("it is SIGKILLed", strike=_kill), RUNNING, failed(5, "Main 0 (resnet50) died of SIGKILL")),
    cell(
        TOPIC,
        Act("somebody TERMs it, and it ends well", strike=_term),
        RUNNING,
        invalid(3, "Main resnet50 is not VALID"),
        fast=True,
    ),
    cell(
        TOPIC,
        does("main", "hang at result", "it hangs after its result", flags=("--main-exit-timeout", "300ms", *QUICKLY)),
        RUNNING,
        failed(5, "Main was still alive", "--main-exit-timeout"),
        fast=True,
    ),
    cell(
        TOPIC,
        does("main", "hang at start", "it hangs before its marker", flags=("--main-timeout", "1500ms", *QUICKLY)),
        RUNNING,
        failed(5, "Main did not end within 1.5 s: it stalls"),
    ),
    cell(
        TOPIC,
        does("main", "hang at marker", "it hangs for ever", flags=("--main-timeout", "1500ms", *QUICKLY)),
        RUNNING,
        failed(5, "Main did not end within 1.5 s: it stalls"),
    ),
    cell(
        TOPIC,
        Act("it is stopped (SIGSTOP)", strike=_stop, flags=("--main-timeout", "2500ms", *QUICKLY)),
        RUNNING,
        failed(5, "Main did not end within 2.5 s: it stalls"),
    ),
    cell(
        TOPIC,
        does("main", "family at start + exit 1 at cue", "it dies, with children, sessions and daemons left"),
        RUNNING,
        failed(5, "Main 0 (resnet50) exited with status 1"),
    ),
    cell(
        TOPIC,
        does("main", "print a false VALID at start + exit 0 at start", "it says VALID and has run nothing"),
        RUNNING,
        NO_RESULT,
        fast=True,
    ),
)
