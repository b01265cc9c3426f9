"""Signals to the controller, in every phase."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from tests.e2e.product import until
from tests.faults.cells import KILLED, VALID, Act, Cell, aborted, cell
from tests.faults.stage import Stage

TOPIC = "signal"
PHASES = (
    Phase.DISCOVERING,
    Phase.BUILDING,
    Phase.BACKGROUND_STARTING,
    Phase.BUFFERING,
    Phase.MAIN_RUNNING,
    Phase.DRAINING,
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
FAST = {
    (signal.SIGINT, Phase.BUILDING),
    (signal.SIGTERM, Phase.BACKGROUND_STARTING),
    (signal.SIGHUP, Phase.BUFFERING),
    (signal.SIGQUIT, Phase.MAIN_RUNNING),
    (signal.SIGTERM, Phase.DRAINING),
}


def _send(signum: int) -> Act:
    return Act(signal.Signals(signum).name, strike=lambda stage: stage.run.send(signum))


def _twice(stage: Stage) -> None:
    """The second comes while the first is being obeyed: a worker that ignores TERM has an hour of grace."""
    stage.run.send(signal.SIGINT)
    if stage.cell.phase is not Phase.DRAINING:
        stage.run.wait_for_phase(Phase.DRAINING)
    else:
        until(lambda: any(True for _ in stage.run.heard(ev.SignalReceived)), "the first one was heard")
    stage.run.send(signal.SIGINT)


def _while_judged(signum: int) -> Act:
    def strike(stage: Stage) -> None:
        stage.run.send(signum)
        stage.write("judge", "")

    return Act(signal.Signals(signum).name, strike=strike)


def _cells() -> Iterator[Cell]:
    for phase in PHASES:
        for signum in SIGNALS:
            said = f"{signal.Signals(signum).name} was received during {phase.value}"
            yield cell(TOPIC, _send(signum), phase, aborted(signum, said), fast=(signum, phase) in FAST)
    for signum in SIGNALS:  # the verdict is on its way to the disk: nothing changes it any more
        yield cell(TOPIC, _while_judged(signum), Phase.VALIDATING, VALID)
    for phase, who in (
        (Phase.BUILDING, "BUILD"),
        (Phase.BACKGROUND_STARTING, "BACKGROUND"),
        (Phase.BUFFERING, "BACKGROUND"),
        (Phase.MAIN_RUNNING, "BACKGROUND"),
        (Phase.DRAINING, "BACKGROUND"),
    ):
        yield cell(
            TOPIC,
            Act(
                "SIGINT twice, beside a worker that ignores TERM",
                strike=_twice,
                flags=("--clean-stop", "1h", "--grace", "1h"),
                environ={f"QUICK_{who}": "ignore TERM at start"},
            ),
            phase,
            aborted(signal.SIGINT, f"SIGINT was received during {phase.value}"),
            fast=phase is Phase.MAIN_RUNNING,
        )
    for phase in PHASES:
        yield cell(TOPIC, _send(signal.SIGKILL), phase, KILLED, fast=phase in {Phase.BUILDING, Phase.MAIN_RUNNING})
    yield cell(
        TOPIC,
        Act("SIGKILL", strike=lambda stage: stage.run.send(signal.SIGKILL)),
        Phase.VALIDATING,
        KILLED,
    )


CELLS: tuple[Cell, ...] = tuple(_cells())
