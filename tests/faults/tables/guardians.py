"""Whoever watches over a worker dies or stands still, alone or with the controller. All of a worker dies with it.

The workers here have children that ignore TERM: one in the same session, one in a session of its own, and a daemon
without an environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.workers.guardian import read_processes
from tests.e2e.product import until
from tests.faults.cells import KILLED, Act, Cell, aborted, cell, failed
from tests.faults.stage import Stage

TOPIC = "guardian"
FAMILY = {"QUICK_BACKGROUND": "family at start", "QUICK_MAIN": "family at start"}
QUICKLY = ("--clean-stop", "200ms", "--grace", "200ms")
RUNNING, BUFFERING, STARTING = Phase.MAIN_RUNNING, Phase.BUFFERING, Phase.BACKGROUND_STARTING

Step = Callable[[Stage], None]


def watchers(stage: Stage, worker: int) -> tuple[int, int]:
    """The guardian of a worker, and its child, which is the parent of the harness."""
    spawned = stage.run.wait_for(ev.WorkerSpawned, worker)
    inner = next(one.pid for one in read_processes() if one.ppid == spawned.guardian_pid)
    assert inner != spawned.pid
    return spawned.guardian_pid, inner


def _outer(signum: int, worker: int = 1) -> Step:
    return lambda stage: os.kill(watchers(stage, worker)[0], signum)


def _inner(signum: int, worker: int = 1) -> Step:
    return lambda stage: os.kill(watchers(stage, worker)[1], signum)


def _both(signum: int, worker: int = 1) -> Step:
    def strike(stage: Stage) -> None:
        for pid in watchers(stage, worker):
            os.kill(pid, signum)

    return strike


def _then_kill(before: Step) -> Step:
    """The controller is stopped first, so that it can do nothing about the rest."""

    def strike(stage: Stage) -> None:
        family_is_there(stage)
        stage.run.send(signal.SIGSTOP)
        before(stage)
        stage.run.send(signal.SIGKILL)

    return strike


def _then_term(before: Step) -> Step:
    def strike(stage: Stage) -> None:
        before(stage)
        stage.run.send(signal.SIGTERM)

    return strike


def family_is_there(stage: Stage) -> None:
    """Every worker has said that its children are there."""
    run_dir = stage.run.run_dir
    until(
        lambda: all("family" in log.read_text(errors="replace") for log in run_dir.glob("workers/*/stdout.log")),
        "all children are there",
    )


def _cells() -> Iterator[Cell]:
    for phase in (STARTING, BUFFERING, RUNNING):
        yield cell(
            TOPIC,
            Act("SIGKILL of a background's", strike=_outer(signal.SIGKILL), environ=FAMILY),
            phase,
            failed(5, "Background 1 (dlrm)"),
            fast=phase is RUNNING,
        )
        yield cell(
            TOPIC,
            Act("SIGKILL of a background's child that watches", strike=_inner(signal.SIGKILL), environ=FAMILY),
            phase,
            failed(5, "Background 1 (dlrm) lost its guardian"),
        )
    yield cell(
        TOPIC,
        Act("SIGKILL of a background's, and of its child that watches", strike=_both(signal.SIGKILL), environ=FAMILY),
        RUNNING,
        failed(5, "Background 1 (dlrm) lost its guardian"),
    )
    yield cell(
        TOPIC,
        Act("SIGKILL of main's", strike=_outer(signal.SIGKILL, 0), environ=FAMILY),
        RUNNING,
        failed(5, "Main 0 (resnet50)"),
    )
    for worker, who in ((0, "Main 0 (resnet50)"), (1, "Background 1 (dlrm)")):
        yield cell(
            TOPIC,
            Act(f"somebody TERMs {'main' if worker == 0 else 'a background'}'s", strike=_outer(signal.SIGTERM, worker)),
            RUNNING,
            failed(5, f"{who} died of SIGKILL during main-running"),
        )
    for words, strike in (
        ("a background's is stopped (SIGSTOP)", _outer(signal.SIGSTOP)),
        ("a background's child that watches is stopped (SIGSTOP)", _inner(signal.SIGSTOP)),
        ("a background's and its child are stopped (SIGSTOP)", _both(signal.SIGSTOP)),
    ):
        yield cell(
            TOPIC,
            Act(f"{words}, then SIGTERM", strike=_then_term(strike), flags=QUICKLY, environ=FAMILY),
            RUNNING,
            aborted(signal.SIGTERM),
        )
    nothing: Step = lambda _: None  # noqa: E731 - beside the others
    for words, before in (
        ("SIGKILL of the controller", nothing),
        ("SIGKILL of it, then of the controller", _outer(signal.SIGKILL)),
        ("SIGKILL of its child that watches, then of the controller", _inner(signal.SIGKILL)),
        ("SIGSTOP of it, then SIGKILL of the controller", _outer(signal.SIGSTOP)),
        ("SIGSTOP of its child that watches, then SIGKILL of the controller", _inner(signal.SIGSTOP)),
    ):
        for phase in (STARTING, RUNNING):
            yield cell(
                TOPIC,
                Act(words, strike=_then_kill(before), environ=FAMILY),
                phase,
                KILLED,
                fast=phase is RUNNING and before is not nothing,
            )


CELLS: tuple[Cell, ...] = tuple(_cells())
