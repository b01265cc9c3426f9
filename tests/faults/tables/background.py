"""What a background does that it should not."""

from __future__ import annotations

import signal

from heteromig.core.phases import Phase
from tests.faults.cells import Act, Cell, cell, does, failed, invalid, valid
from tests.faults.stage import Stage

TOPIC = "background"
STARTING, BUFFERING, RUNNING, DRAINING = (
    Phase.BACKGROUND_STARTING,
    Phase.BUFFERING,
    Phase.MAIN_RUNNING,
    Phase.DRAINING,
)
SOON = ("--background-start-timeout", "1500ms")
QUICKLY = ("--clean-stop", "200ms", "--grace", "200ms")
EARLY = invalid(4, "Background 1 (dlrm) ended before main did")


def _kill(stage: Stage) -> None:
    stage.run.kill_worker(1)


def _stop(stage: Stage) -> None:
    stage.run.kill_worker(1, signum=signal.SIGSTOP)


def _stop_and_end(stage: Stage) -> None:
    stage.run.kill_worker(1, signum=signal.SIGSTOP)
    stage.run.kill_worker(0)


KILLED = Act("it is SIGKILLed", strike=_kill)

CELLS: tuple[Cell, ...] = (
    cell(TOPIC, does("background", "exit 0 at start"), STARTING, EARLY),
    cell(TOPIC, does("background", "exit 0 at marker"), STARTING, EARLY),
    cell(TOPIC, does("background", "exit 0 at cue"), BUFFERING, EARLY),
    cell(TOPIC, does("background", "exit 0 at cue"), RUNNING, EARLY, fast=True),
    cell(
        TOPIC,
        does("background", "exit 1 at start"),
        STARTING,
        failed(5, "Background 1 (dlrm) exited with status 1 during background-starting", "no such luck"),
    ),
    cell(TOPIC, does("background", "exit 1 at cue"), BUFFERING, failed(5, "exited with status 1 during buffering")),
    cell(TOPIC, does("background", "exit 1 at cue"), RUNNING, failed(5, "exited with status 1 during main-running")),
    cell(
        TOPIC,
        does("background", "segfault at start"),
        STARTING,
        failed(5, "died of SIGSEGV during background-starting"),
    ),
    cell(TOPIC, does("background", "segfault at cue"), RUNNING, failed(5, "died of SIGSEGV during main-running")),
    cell(TOPIC, KILLED, STARTING, failed(5, "died of SIGKILL during background-starting")),
    cell(TOPIC, KILLED, BUFFERING, failed(5, "died of SIGKILL during buffering")),
    cell(TOPIC, KILLED, RUNNING, failed(5, "died of SIGKILL during main-running"), fast=True),
    cell(
        TOPIC,
        does("background", "hang at start", "it hangs before its marker", flags=(*SOON, *QUICKLY)),
        STARTING,
        failed(6, "still missing background 1 (dlrm)", "--background-start-timeout"),
    ),
    cell(
        TOPIC,
        does("background", "hang at marker", "it prints the marker and never issues a query", flags=(*SOON, *QUICKLY)),
        STARTING,
        failed(6, "still missing background 1 (dlrm)"),
        fast=True,
    ),
    cell(
        TOPIC,
        Act("it stalls (SIGSTOP)", strike=_stop, flags=QUICKLY),
        RUNNING,
        failed(5, "stalls: it has completed nothing for more than 10 s of main-running"),
    ),
    cell(
        TOPIC,
        Act("it stalls (SIGSTOP) before it has begun", strike=_stop, flags=(*SOON, *QUICKLY)),
        STARTING,
        failed(6, "still missing background 1 (dlrm)"),
    ),
    cell(
        TOPIC,
        Act("it is stopped (SIGSTOP) when main dies", strike=_stop_and_end, flags=QUICKLY),
        RUNNING,
        failed(5, "Main 0 (resnet50) died of SIGKILL"),
    ),
    cell(
        TOPIC,
        Act(
            "it finishes before main",
            flags=("--background-benchmark-duration", "1s", "--main-benchmark-duration", "60s"),
        ),
        RUNNING,
        invalid(4, "left its timed section before main did", "--background-benchmark-duration"),
        fast=True,
    ),
    cell(
        TOPIC,
        Act(
            "it finishes while main is to start yet",
            flags=("--background-benchmark-duration", "500ms", "--start-time-buffer", "60s"),
        ),
        BUFFERING,
        invalid(4, "left its timed section before main did"),
    ),
    cell(
        TOPIC,
        does("background", "ignore TERM at start", "it ignores TERM", flags=QUICKLY),
        DRAINING,
        valid(),
    ),
    cell(
        TOPIC,
        does("background", "hang at result", "it lives on when it is done", flags=QUICKLY),
        DRAINING,
        valid(),
    ),
    cell(TOPIC, does("background", "fork at start", "it leaves a child"), DRAINING, valid()),
    cell(TOPIC, does("background", "setsid at start", "it leaves a child in a session of its own"), DRAINING, valid()),
    cell(TOPIC, does("background", "daemonise at start", "it leaves a daemon without environment"), DRAINING, valid()),
    cell(
        TOPIC,
        does("background", "family at start + exit 1 at cue", "it dies, with children, sessions and daemons left"),
        RUNNING,
        failed(5, "exited with status 1 during main-running"),
    ),
    cell(
        TOPIC,
        Act("its program is not there", environ={"QUICK_PROGRAM": "/no/such/program"}),
        STARTING,
        failed(5, "The harness of background 1 (dlrm) could not be started", "/no/such/program"),
    ),
    cell(
        TOPIC,
        Act("its directory cannot be made", environ={"QUICK_OBSTACLE": "1"}),
        STARTING,
        failed(5, "The harness of background 1 (dlrm) could not be started", "File exists"),
    ),
)
