"""Whole runs on shares of a GPU under a daemon of their own: how they end, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.runner.verification import verify_run
from heteromig.workers.guardian import read_process
from tests.e2e.product import processes_with, until
from tests.mps.conftest import Run, SharedRun, nothing_left
from tests.nvml_library.state import State

LONG = ("--main-benchmark-duration", "60s")


def test_a_run_on_shares_is_valid(run: Run, machine: State) -> None:
    command = run(slices="mps:3x14,8gib", backgrounds="steady,steady")
    record = command.expect(0)
    nothing_left(command)
    gpu = machine.gpu_uuid()
    assert record.isolation == "soft"
    assert [(one.uuid, one.kind, one.profile) for one in record.slices] == [
        (f"MPS-{gpu}/{number}", "mps", "mps-14") for number in range(3)
    ]
    for worker in record.workers:
        assert worker.env["CUDA_VISIBLE_DEVICES"] == gpu
        assert worker.env["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "14"
        assert worker.env["CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"] == "0=8192M"
        said = (command.run_dir / worker.directory / "stdout.log").read_text()
        assert f"under MPS, 14 % of {gpu}\n" in said
    out = command.finish().stdout
    assert "ISOLATION: soft." in out
    verified = verify_run(command.run_dir)
    assert verified.verdict.exit_code == 0
    assert verified.isolation.value == "soft"


def test_a_run_ended_by_a_signal_leaves_nothing(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    command.send(signal.SIGTERM)
    command.expect(143)
    nothing_left(command)


def test_a_controller_that_is_killed_leaves_nothing(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    command.send(signal.SIGKILL)
    command.process.wait()
    until(lambda: not processes_with(str(command.home)), "the keeper has taken everything back")
    nothing_left(command)
    run().expect(0)  # and the lock is free


def test_a_keeper_that_is_killed_has_a_successor(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    os.kill(keeper_of(command), signal.SIGKILL)
    command.expect(7, "The process that kept the GPU prepared ended")
    nothing_left(command)


def test_a_daemon_that_is_killed_ends_the_run(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    os.kill(command.daemon, signal.SIGKILL)
    command.expect(7, f"The MPS control daemon of this run (pid {command.daemon}) ended, having said ")
    nothing_left(command)


def test_a_server_that_is_killed_ends_the_run(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    os.kill(command.server, signal.SIGKILL)
    command.expect(7, f"The MPS server of this run (pid {command.server}) ended")
    nothing_left(command)


def test_a_daemon_does_not_outlive_its_guardian(run: Run) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    os.kill(parent_of(command.daemon), signal.SIGKILL)
    command.expect(7, f"The MPS control daemon of this run (pid {command.daemon}) ended")
    nothing_left(command)


def test_who_does_not_quit_is_killed(run: Run) -> None:
    command = run(HETEROMIG_TEST_MPS="immortal")
    command.expect(0)
    nothing_left(command)


def test_controller_and_keeper_killed_at_once_leave_what_a_later_one_clears(
    run: Run, environ: dict[str, str], tmp_path: Path
) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    journal = command.journal
    for pid in (keeper_of(command), command.pid):
        os.kill(pid, signal.SIGKILL)
    command.process.wait()
    until(lambda: not processes_with(journal.directory), "the daemon died with its keeper")
    assert Path(journal.directory).exists()
    arguments = ("--preparation", "mps", "--slices", "mps:3x14", "--runs-dir", "runs", "--run-dir")
    argv = (sys.executable, "-m", "heteromig.slices.keeper", *arguments, str(command.run_dir), "--only-restore")
    subprocess.run(argv, check=True, env={**os.environ, **environ}, cwd=tmp_path, stdin=subprocess.DEVNULL)
    nothing_left(command)


def test_work_is_taken_off_the_gpu_before_a_kill(run: Run) -> None:
    command = run("--grace", "200ms", backgrounds="stubborn,deaf")
    record = command.expect(0)
    nothing_left(command)
    _, stubborn, deaf = record.workers
    assert (stubborn.exit_code, stubborn.signal) == (3, None)
    assert "terminated by the server" in (command.run_dir / stubborn.directory / "stdout.log").read_text()
    assert (deaf.exit_code, deaf.signal, deaf.stopped_by) == (None, signal.SIGKILL, "KILL")


def test_a_second_signal_kills_at_once(run: Run) -> None:
    command = run(*LONG, "--grace", "60s", backgrounds="stubborn")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    command.send(signal.SIGINT)
    command.wait_for_phase(Phase.DRAINING)
    command.send(signal.SIGINT)
    record = command.expect(130)
    nothing_left(command)
    assert [worker.signal for worker in record.workers if worker.benchmark == "stubborn"] == [signal.SIGKILL]


@pytest.mark.parametrize("how", ["crashing", "shelled"])
@pytest.mark.parametrize(("lenient", "exit_code"), [((), 5), (("--lenient",), 9)])
def test_a_client_that_dies_hard_makes_main_say_nothing(
    run: Run, tmp_path: Path, how: str, lenient: tuple[str, ...], exit_code: int
) -> None:
    command = run("--main-benchmark-duration", "4s", *lenient, backgrounds=f"steady,{how}")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    command.wait_for(ev.StartAnnounced, 0)
    (tmp_path / "now").touch()
    command.expect(exit_code, "where a client that dies so can disturb the work of others")
    nothing_left(command)
    assert verify_run(command.run_dir).verdict.exit_code == exit_code


def test_two_runs_do_not_share_a_gpu(run: Run) -> None:
    first = run(*LONG)
    first.wait_for_phase(Phase.MAIN_RUNNING)
    second = run()
    assert second.finish().exit_code == 7
    first.send(signal.SIGTERM)
    first.expect(143)
    nothing_left(first)


def parent_of(pid: int) -> int:
    process = read_process(pid)
    assert process is not None
    return process.ppid


def keeper_of(command: SharedRun) -> int:
    """The parent of the daemon's guardian, which is two processes."""
    return parent_of(parent_of(parent_of(command.daemon)))
