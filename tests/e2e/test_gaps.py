"""Backgrounds that stall while main is timed, and controllers that do not look meanwhile."""

from __future__ import annotations

import os
import signal
import time

import pytest

from heteromig.core import events as ev
from heteromig.core.overlap import Watch
from heteromig.runner.rundir import CERTIFICATE
from heteromig.runner.verification import verify_run
from tests.e2e.conftest import Start
from tests.e2e.product import RunCommand

PAUSE_S = 3.0
FLAGS = ("--gap-threshold", "2s", "--main-benchmark-duration", "6s")
WATCHES = {"beating": Watch.HEARTBEAT, "humming": Watch.HEARD_HEARTBEAT}


def _pause(command: RunCommand, pid: int) -> None:
    """Stop a process for a while once main is timed and beats have been heard."""
    command.wait_for(ev.TimedSectionBegan, 0)
    time.sleep(0.6)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("habit", WATCHES)
def test_background_that_stalls_for_a_while_did_not_cover_main(quick: Start, habit: str) -> None:
    command = quick(*FLAGS, environ={"QUICK_BACKGROUND": habit})
    _pause(command, command.wait_for(ev.WorkerSpawned, 1).pid)
    record = command.expect(4, "Background 1 (dlrm) stalled within the timed section of main: for ")
    (background,) = record.overlap.backgrounds
    assert background.gaps is not None
    (gap,) = background.gaps
    assert gap.watch is WATCHES[habit]
    assert background.coverage is not None
    assert background.coverage < 1
    assert not record.overlap.proven
    assert verify_run(command.run_dir).verdict.exit_code == 4
    (command.run_dir / CERTIFICATE).unlink()
    assert verify_run(command.run_dir).verdict.exit_code == 4


@pytest.mark.parametrize("habit", WATCHES)
def test_controller_that_does_not_look_for_a_while_makes_no_gap(quick: Start, habit: str) -> None:
    command = quick(*FLAGS, environ={"QUICK_BACKGROUND": habit})
    _pause(command, command.pid)
    record = command.expect(0)
    assert list(command.heard(ev.LookedAway))
    (background,) = record.overlap.backgrounds
    assert (background.gaps, background.gaps_seen_by) == ((), (WATCHES[habit],))
    assert verify_run(command.run_dir).verdict.exit_code == 0


def test_embedded_benchmarks_say_when_their_heartbeats_were_given(run: Start) -> None:
    record = run("--main-benchmark-duration", "3s").expect(0)
    (background,) = record.overlap.backgrounds
    assert background.gaps_seen_by == (Watch.HEARTBEAT,)
    assert background.gaps == ()
