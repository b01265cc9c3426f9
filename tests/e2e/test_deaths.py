"""Deaths: of the controller by any signal, of harnesses, of guardians. Nothing may outlive a run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.runner.rundir import RUN_JSON
from heteromig.runner.verification import verify_run
from heteromig.workers.guardian import read_process
from tests.e2e.conftest import Start
from tests.e2e.product import RunCommand, processes_with, until

LONG = ("--main-benchmark-duration", "60s")


def _aborts(command: RunCommand, signum: int, phase: Phase) -> None:
    """The run that got `signum` in `phase` ends as it should, and its files say the same."""
    record = command.expect(128 + signum, f"{signal.Signals(signum).name} was received during {phase.value}")
    assert record.verdict is not None
    assert record.verdict.status == "aborted"
    assert verify_run(command.run_dir).verdict.exit_code == 128 + signum


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_building(run: Start, tmp_path: Path, signum: signal.Signals) -> None:
    command = run("--engines-dir", str(tmp_path / "none"))
    command.wait_for(ev.WorkerSpawned)
    command.send(signum)
    _aborts(command, signum, Phase.BUILDING)


def test_term_while_the_embedded_main_runs(run: Start) -> None:
    command = run(*LONG)
    command.wait_for(ev.TimedSectionBegan, 0)
    command.send(signal.SIGTERM)
    _aborts(command, signal.SIGTERM, Phase.MAIN_RUNNING)


def test_second_interrupt_kills_at_once(quick: Start) -> None:
    command = quick(*LONG, "--grace", "1h", environ={"QUICK_BACKGROUND": "stubborn"})
    command.wait_for(ev.TimedSectionBegan, 0)
    command.send(signal.SIGINT)
    command.wait_for(ev.WorkerExited, 0)
    command.send(signal.SIGINT)
    record = command.expect(130)
    assert record.workers[1].signal == signal.SIGKILL
    assert record.workers[1].stopped_by == "KILL"
    assert verify_run(command.run_dir).verdict.exit_code == 130


def test_killed_controller_leaves_nothing_and_proves_nothing(run: Start) -> None:
    command = run(*LONG)
    command.wait_for(ev.TimedSectionBegan, 0)
    assert len(processes_with(str(command.home))) >= 6  # controller, sampler, two guardians, two harnesses
    command.send(signal.SIGKILL)
    command.process.wait()
    died_s = time.monotonic()
    until(lambda: not processes_with(str(command.home)), "everything is gone")
    assert time.monotonic() - died_s < 5
    record = command.record()
    assert record.phase == Phase.MAIN_RUNNING.value
    assert record.verdict is None
    verified = verify_run(command.run_dir)
    assert verified.verdict.exit_code == 9
    assert "ends in main-running" in verified.verdict.reasons[0].sentence


def test_killed_background_ends_the_run_within_a_second(run: Start) -> None:
    command = run(*LONG)
    command.wait_for(ev.TimedSectionBegan, 0)
    killed_ns = time.monotonic_ns()
    command.kill_worker(1)
    command.expect(5, "Background 1 (dlrm) died of SIGKILL during main-running")
    (exited,) = (event for event in command.heard(ev.WorkerExited) if event.worker == 1)
    assert exited.at_ns - killed_ns < 1_000_000_000
    assert verify_run(command.run_dir).verdict.exit_code == 5


def test_background_that_stands_still_when_main_ends_was_no_neighbour(quick: Start) -> None:
    command = quick("--main-benchmark-duration", "2s")
    command.wait_for(ev.TimedSectionBegan, 0)
    command.kill_worker(1, signum=signal.SIGSTOP)
    command.expect(4, "Background 1 (dlrm) was found stopped when main had ended")
    assert verify_run(command.run_dir).verdict.exit_code == 4


def test_background_that_is_frozen_fails_the_run(run: Start) -> None:
    command = run(*LONG)
    command.wait_for(ev.ProgressMade, 1)
    command.wait_for(ev.TimedSectionBegan, 0)
    command.kill_worker(1, signum=signal.SIGSTOP)
    command.expect(5, "stalls: it has completed nothing for more than 10 s of main-running")
    assert verify_run(command.run_dir).verdict.exit_code == 5


def test_stubborn_background_is_killed_after_its_grace(quick: Start) -> None:
    command = quick("--clean-stop", "200ms", "--grace", "200ms", environ={"QUICK_BACKGROUND": "stubborn"})
    record = command.expect(0)
    assert record.workers[1].stopped_by == "KILL"
    assert record.overlap.backgrounds[0].end_source == "alive and still timed"
    assert verify_run(command.run_dir).verdict.exit_code == 0


def test_run_json_beats_while_nothing_happens(quick: Start) -> None:
    command = quick("--start-time-buffer", "60s")
    command.wait_for_phase(Phase.BUFFERING)
    first = command.record().heartbeat_at
    until(lambda: command.record().heartbeat_at != first, "another heartbeat")
    assert (command.run_dir / RUN_JSON).exists()
    command.send(signal.SIGTERM)
    command.expect(143)


def test_stopped_guardian_is_killed_with_all_it_guards(quick: Start) -> None:
    command = quick(*LONG, "--clean-stop", "100ms", "--grace", "100ms")
    command.wait_for(ev.TimedSectionBegan, 0)
    harness = read_process(command.wait_for(ev.WorkerSpawned, 1).pid)
    assert harness is not None
    os.kill(harness.ppid, signal.SIGSTOP)  # the inner one, which takes orders
    command.send(signal.SIGTERM)
    record = command.expect(143)
    assert record.workers[1].stopped_by == "KILL"
    assert verify_run(command.run_dir).verdict.exit_code == 143
