"""A GPU that was prepared for the run, cut or shared: it is as before, whoever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

from heteromig.core.phases import Phase
from heteromig.workers.guardian import read_process
from tests.e2e.product import Command, processes_with, until
from tests.faults.cells import KILLED, VALID, Act, Cell, Kind, aborted, cell, failed
from tests.faults.stage import Stage
from tests.mps.conftest import SharedRun

TOPIC = "prepared GPU"
HALVES = ("--layout", "2x2g.12gb")
RUNNING = Phase.MAIN_RUNNING


def _keeper(stage: Stage) -> int:
    here = processes_with(str(stage.home)).items()
    return next(pid for pid, command in here if "heteromig.slices.keeper" in command)


def _kill_keeper(stage: Stage) -> None:
    os.kill(_keeper(stage), signal.SIGKILL)


def _kill_keeper_and_controller(stage: Stage) -> None:
    """The controller is stopped first, so that it starts no successor."""
    stage.run.send(signal.SIGSTOP)
    os.kill(_keeper(stage), signal.SIGKILL)
    stage.run.send(signal.SIGKILL)


def _clean(stage: Stage) -> None:
    until(lambda: not processes_with(str(stage.home)), "everything is gone")
    environ = {name: value for name, value in stage.environ.items() if name != "QUICK_CUE"}
    cleaned = Command(stage.home, ("clean", "--runs-dir", "runs"), environ=environ, module="heteromig", name="clean")
    finished = cleaned.finish()
    assert finished.exit_code == 0, finished.stderr
    assert "Nothing to clean" not in finished.stdout


def _send(signum: int) -> Callable[[Stage], None]:
    return lambda stage: stage.run.send(signum)


def _shared(stage: Stage) -> SharedRun:
    assert isinstance(stage.run, SharedRun)
    return stage.run


def _kill_daemon(stage: Stage) -> None:
    os.kill(_shared(stage).daemon, signal.SIGKILL)


def _kill_server(stage: Stage) -> None:
    os.kill(_shared(stage).server, signal.SIGKILL)


def _kill_daemons_guardian(stage: Stage) -> None:
    process = read_process(_shared(stage).daemon)
    assert process is not None
    os.kill(process.ppid, signal.SIGKILL)


def _cells() -> Iterator[Cell]:
    for kind, what, flags in ((Kind.QUICK, "cut", HALVES), (Kind.MPS, "shared", ())):
        yield cell(
            TOPIC,
            Act(f"{what}: SIGTERM", strike=_send(signal.SIGTERM), flags=flags),
            RUNNING,
            aborted(signal.SIGTERM),
            kind=kind,
        )
        yield cell(
            TOPIC,
            Act(f"{what}: SIGKILL of the controller", strike=_send(signal.SIGKILL), flags=flags),
            RUNNING,
            KILLED,
            kind=kind,
            fast=kind is Kind.QUICK,
        )
        yield cell(
            TOPIC,
            Act(f"{what}: SIGKILL of the keeper", strike=_kill_keeper, flags=flags),
            RUNNING,
            failed(7, "The process that kept the GPU prepared ended"),
            kind=kind,
        )
        yield cell(
            TOPIC,
            Act(
                f"{what}: SIGKILL of keeper and controller, then heteromig clean",
                strike=_kill_keeper_and_controller,
                after=_clean,
                flags=flags,
            ),
            RUNNING,
            KILLED,
            kind=kind,
        )
    for phase in (Phase.BUILDING, Phase.BACKGROUND_STARTING, Phase.BUFFERING, Phase.DRAINING):
        yield cell(
            TOPIC,
            Act("cut: SIGKILL of the controller", strike=_send(signal.SIGKILL), flags=HALVES),
            phase,
            KILLED,
        )
    for who in ("main", "background"):
        yield cell(
            TOPIC,
            Act(f"cut: {who} crashes", flags=HALVES, environ={f"QUICK_{who.upper()}": "crashing"}),
            RUNNING,
            failed(5, "exited with status 3"),
        )
    yield cell(
        TOPIC,
        Act("shared: SIGKILL of the MPS daemon", strike=_kill_daemon),
        RUNNING,
        failed(7, "The MPS control daemon of this run", "ended"),
        kind=Kind.MPS,
        fast=True,
    )
    yield cell(
        TOPIC,
        Act("shared: SIGKILL of the MPS server", strike=_kill_server),
        RUNNING,
        failed(7, "The MPS server of this run", "ended"),
        kind=Kind.MPS,
    )
    yield cell(
        TOPIC,
        Act("shared: SIGKILL of the daemon's guardian", strike=_kill_daemons_guardian),
        RUNNING,
        failed(7, "The MPS control daemon of this run", "ended"),
        kind=Kind.MPS,
    )
    yield cell(
        TOPIC,
        Act("shared: a daemon that does not quit", environ={"HETEROMIG_TEST_MPS": "immortal"}),
        Phase.DRAINING,
        VALID,
        kind=Kind.MPS,
    )


CELLS: tuple[Cell, ...] = tuple(_cells())
