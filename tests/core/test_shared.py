"""Shares of one GPU: work is taken off it before a KILL, and one that dies hard makes main's result worthless."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.machine import Run
from heteromig.core.phases import Keeping, Phase
from heteromig.core.spec import Isolation, Preparation, RunSpec
from heteromig.core.verdict import decide
from heteromig.core.view import View
from tests.core import histories

SHARED = replace(
    histories.SPEC, slices="mps:3x14", simulated=False, uses_gpu=True, preparation=Preparation.MPS, pin=False
)
SIGINT, SIGSEGV = 2, 11


def running(spec: RunSpec = SHARED, keeping: Keeping = Keeping.KEPT) -> Run:
    """A run whose main and backgrounds are all at work."""
    run = Run(spec)
    view = View(spec=spec, controller_pid=histories.CONTROLLER_PID, keeping=keeping, locked=True)
    inventory = replace(histories.inventory(), simulated=spec.simulated)
    view = view.after(ev.SlicesDiscovered(at_ns=0, inventory=inventory, cpus=(0, 1)))
    assert view.plan is not None
    for worker in view.plan.workers:
        view = view.spawning(worker)
        for event in (
            ev.WorkerSpawned(at_ns=1, worker=worker.index, guardian_pid=100 + worker.index, pid=200 + worker.index),
            ev.TimedSectionBegan(at_ns=2, worker=worker.index),
        ):
            view = view.after(event)
    run.view = view
    run.phase = Phase.MAIN_RUNNING
    return run


def timers(effects: Sequence[ef.AnyEffect]) -> list[ev.Timer]:
    return [effect.timer for effect in effects if isinstance(effect, ef.ArmTimer)]


def doomed(effects: Sequence[ef.AnyEffect], kind: type[ef.TerminateClients | ef.Kill]) -> list[tuple[int, ...]]:
    return [effect.workers for effect in effects if isinstance(effect, kind)]


def passed(run: Run, timer: ev.Timer) -> list[ef.AnyEffect]:
    return run.handle(ev.DeadlinePassed(at_ns=10, timer=timer, entry=run.entry))


def test_work_is_taken_off_the_gpu_before_a_kill() -> None:
    run = running()
    run.handle(ev.SignalReceived(at_ns=5, signum=SIGINT))
    run.handle(ev.WorkerExited(at_ns=6, worker=1, exit_code=1, signal=None, stopped_by="TERM"))
    effects = passed(run, ev.Timer.GRACE)
    assert doomed(effects, ef.TerminateClients) == [(0, 2)]
    assert doomed(effects, ef.Kill) == []
    assert timers(effects) == [ev.Timer.CLIENTS]
    run.handle(ev.WorkerExited(at_ns=7, worker=2, exit_code=3, signal=None, stopped_by="TERM"))
    effects = passed(run, ev.Timer.CLIENTS)
    assert doomed(effects, ef.Kill) == [(0,)]
    assert timers(effects) == [ev.Timer.KILLED]


def test_a_second_signal_does_not_wait_for_that() -> None:
    run = running()
    run.handle(ev.SignalReceived(at_ns=5, signum=SIGINT))
    passed(run, ev.Timer.GRACE)
    effects = run.handle(ev.SignalReceived(at_ns=6, signum=SIGINT))
    assert doomed(effects, ef.Kill) == [(0, 1, 2)]
    assert doomed(passed(run, ev.Timer.CLIENTS), ef.Kill) == []


@pytest.mark.parametrize("keeping", [Keeping.ASKED, Keeping.RESTORING, Keeping.ENDED])
def test_without_a_daemon_there_is_nothing_to_take_it_off(keeping: Keeping) -> None:
    run = running(keeping=keeping)
    run.handle(ev.SignalReceived(at_ns=5, signum=SIGINT))
    assert doomed(passed(run, ev.Timer.GRACE), ef.Kill) == [(0, 1, 2)]


def test_slices_of_their_own_are_killed_without_ado() -> None:
    spec = replace(SHARED, slices="mig", preparation=Preparation.LAYOUT)
    assert spec.isolation is Isolation.HARDWARE
    run = running(spec)
    run.handle(ev.SignalReceived(at_ns=5, signum=SIGINT))
    assert doomed(passed(run, ev.Timer.GRACE), ef.Kill) == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("exit_code", "signum", "hard"),
    [(None, SIGSEGV, True), (None, None, True), (139, None, True), (1, None, False), (255, None, False)],
)
@pytest.mark.parametrize("preparation", [Preparation.MPS, None])
@pytest.mark.parametrize("lenient", [True, False])
def test_a_background_that_dies_hard_makes_the_run_at_best_inconclusive(
    exit_code: int | None, signum: int | None, *, hard: bool, preparation: Preparation | None, lenient: bool
) -> None:
    run = running(replace(SHARED, preparation=preparation, lenient=lenient))
    run.handle(ev.WorkerExited(at_ns=5, worker=1, exit_code=exit_code, signal=signum))
    assert (run.phase is Phase.MAIN_RUNNING) == lenient
    soft = preparation is Preparation.MPS
    verdict = decide(run.view.reasons, lenient=lenient)
    assert any("can disturb the work of others" in reason.sentence for reason in verdict.reasons) == (soft and hard)
    assert verdict.exit_code == (5 if not lenient else 9 if soft and hard else 0)


def test_one_that_dies_before_main_begins_disturbs_nobody() -> None:
    run = running(replace(SHARED, lenient=True))
    run.phase = Phase.BUFFERING
    run.handle(ev.WorkerExited(at_ns=5, worker=1, exit_code=None, signal=SIGSEGV))
    assert decide(run.view.reasons, lenient=True).exit_code == 0


def test_isolation_is_that_of_the_slices() -> None:
    assert histories.SPEC.isolation is Isolation.SIMULATED
    assert SHARED.isolation is Isolation.SOFT
    assert replace(SHARED, preparation=None, slices="gpu").isolation is Isolation.HARDWARE
