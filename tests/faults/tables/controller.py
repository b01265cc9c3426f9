"""The controller is suspended for a while."""

from __future__ import annotations

import os
import signal
import time

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.workers.guardian import read_process
from tests.e2e.product import until
from tests.faults.cells import VALID, Act, Cell, aborted, cell, failed, invalid
from tests.faults.stage import Stage

TOPIC = "suspended controller"


def _stop(stage: Stage) -> None:
    stage.run.send(signal.SIGSTOP)
    until(lambda: _state(stage.run.pid) == "T", "the controller is stopped")


def _state(pid: int) -> str:
    process = read_process(pid)
    return "" if process is None else process.state


def _continue(stage: Stage) -> None:
    stage.run.send(signal.SIGCONT)


def _briefly(stage: Stage) -> None:
    _stop(stage)
    time.sleep(1.0)
    _continue(stage)


def _until_main_is_over(stage: Stage) -> None:
    main = stage.run.wait_for(ev.WorkerSpawned, 0).pid
    _stop(stage)
    until(lambda: _state(main) in {"", "Z", "X"}, "main has ended by itself")
    _continue(stage)


def _until_background_is_dead(stage: Stage) -> None:
    background = stage.run.wait_for(ev.WorkerSpawned, 1).pid
    _stop(stage)
    os.kill(background, signal.SIGKILL)
    until(lambda: _state(background) in {"", "Z", "X"}, "the background is dead")
    _continue(stage)


def _with_term(stage: Stage) -> None:
    _stop(stage)
    stage.run.send(signal.SIGTERM)
    _continue(stage)


SECONDS = ("--main-benchmark-duration", "3s")

CELLS: tuple[Cell, ...] = (
    cell(
        TOPIC,
        Act("SIGSTOP, SIGCONT a second later", strike=_briefly, flags=("--start-time-buffer", "2s")),
        Phase.BUFFERING,
        VALID,
    ),
    cell(
        TOPIC,
        Act("SIGSTOP, SIGCONT a second later", strike=_briefly, flags=SECONDS),
        Phase.MAIN_RUNNING,
        VALID,
        fast=True,
    ),
    cell(
        TOPIC,
        Act("SIGSTOP until main is over", strike=_until_main_is_over, flags=("--main-benchmark-duration", "1s")),
        Phase.MAIN_RUNNING,
        VALID,
    ),
    cell(
        TOPIC,
        Act("SIGSTOP, and a background dies meanwhile", strike=_until_background_is_dead),
        Phase.MAIN_RUNNING,
        failed(5, "Background 1 (dlrm) died of SIGKILL"),
    ),
    cell(
        TOPIC,
        Act(
            "SIGSTOP until main is over, and the background was over before",
            strike=_until_main_is_over,
            flags=("--main-benchmark-duration", "4s", "--background-benchmark-duration", "2s"),
        ),
        Phase.MAIN_RUNNING,
        invalid(4, "Background 1 (dlrm)"),
        fast=True,
    ),
    cell(
        TOPIC,
        Act("SIGSTOP, SIGTERM, SIGCONT", strike=_with_term),
        Phase.MAIN_RUNNING,
        aborted(signal.SIGTERM, "SIGTERM was received during main-running"),
    ),
)
