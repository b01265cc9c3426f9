"""A GPU that a run cut is cut back in every ending: good, bad, interrupted, and killed at any moment."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Callable

import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.runner.verification import verify_run
from tests.e2e.product import processes_with, until
from tests.nvml_library.layout import KILL_AFTER, KILL_BEFORE
from tests.nvml_library.layout_runs import (
    CREATE,
    CUT,
    FOUR,
    LONG,
    STEPS,
    STEPS_BACK,
    LayoutRun,
    Run,
    Say,
    answered,
    begin_slowly,
    cut_back_slowly,
    cut_of,
    cut_slowly,
    machine,
    programs,
    run,
    say,
)
from tests.nvml_library.state import State

__all__ = ["machine", "programs", "run", "say"]

SILENT = ("--background-benchmarks", "silent")

Reach = Callable[[Run, State], LayoutRun]


def cutting(run: Run, machine: State) -> LayoutRun:
    slow = cut_slowly(machine)
    command = run(*LONG)
    until(lambda: slow.hits, "the keeper is in the middle of cutting")
    assert cut_of(machine) not in (FOUR, CUT)
    return command


def starting(run: Run, machine: State) -> LayoutRun:
    command = run(*LONG, *SILENT)
    command.wait_for(ev.WorkerSpawned, 1)
    assert cut_of(machine) == CUT
    return command


def buffering(run: Run, machine: State) -> LayoutRun:
    command = run(*LONG, "--start-time-buffer", "60s")
    command.wait_for_phase(Phase.BUFFERING)
    assert cut_of(machine) == CUT
    return command


def measuring(run: Run, machine: State) -> LayoutRun:
    command = run(*LONG)
    command.wait_for(ev.StartAnnounced, 0)
    assert cut_of(machine) == CUT
    return command


def draining(run: Run, machine: State) -> LayoutRun:
    command = run("--drain", "wait")
    command.wait_for_phase(Phase.DRAINING)
    assert cut_of(machine) == CUT
    return command


def restoring(run: Run, machine: State) -> LayoutRun:
    slow = cut_back_slowly(machine)
    command = run()
    until(lambda: slow.hits, "the keeper is in the middle of cutting back")
    assert cut_of(machine) not in (FOUR, CUT)
    return command


EVERYWHERE = (cutting, starting, buffering, measuring, draining, restoring)
PHASES = {cutting: Phase.DISCOVERING, starting: Phase.BACKGROUND_STARTING, measuring: Phase.MAIN_RUNNING}


def alternating(steps: list[tuple[str, int]]) -> list[tuple[str, int, int]]:
    """Each step with one of its moments; `heteromig mig` is killed at both of each."""
    return [(call, skip, (KILL_BEFORE, KILL_AFTER)[number % 2]) for number, (call, skip) in enumerate(steps)]


def test_a_good_run_is_on_the_slices_of_its_layout(run: Run, machine: State) -> None:
    before = machine.slice_uuids()
    command = run(*("--main-slice", "2g.12gb"))
    command.wait_for_phase(Phase.MAIN_RUNNING)
    during = machine.slice_uuids()
    assert command.cut == CUT
    record = command.expect(0)
    command.check_that_it_is_back(0)
    after = machine.slice_uuids()
    assert sorted(one.uuid for one in record.slices) == sorted(during)
    assert (record.slices[0].profile, record.slices[0].uuid) == ("2g.12gb", record.workers[0].slice_uuid)
    done = command.preparation()
    assert (done.kind, done.gpu_uuid, done.restored) == ("layout", machine.gpu_uuid(), True)
    assert {one.after for one in done.replaced if one.after} == set(during)
    assert {one.before for one in done.replaced if one.before} == set(before)
    assert {one.before: one.after for one in done.returned}.keys() == set(before)
    assert {one.after for one in done.returned} == set(after)
    assert len(set(before) & set(after)) == 2, "what stayed where it was kept its UUID"
    summary = " ".join(command.finish().stdout.split())
    assert "was cut for this run: 2x1g.6gb,2g.12gb. The GPU is cut as before the run: 4x1g.6gb. 2 slices" in summary
    assert "discovering: cutting the GPU into 2g.12gb@2,2x1g.6gb\n" in command.said
    assert "draining: cutting the GPU back\n" in command.said


def test_a_build_is_on_the_slices_of_its_layout_as_well(run: Run) -> None:
    command = run(command="build")
    record = command.expect(0)
    assert {one.profile for one in record.slices} == {"1g.6gb", "2g.12gb"}
    command.check_that_it_is_back(0)


@pytest.mark.usefixtures("programs")
def test_a_plan_shows_the_slices_there_would_be(say: Say, machine: State) -> None:
    before = machine.slice_uuids()
    flags = ("--config", "programs.toml", "--slices", "mig", "--layout", "2g.12gb@2,2x1g.6gb")
    told = say("plan", *flags).stdout
    assert "would be cut into 1g.6gb@0,1g.6gb@1,2g.12gb@2" in told
    assert re.search(r"^0 +main +measured .* 2g.12gb +any +<2g.12gb@2>$", told, re.MULTILINE), told
    assert before[0] in told
    assert say("run", "--dry-run", *flags).stdout == told
    assert machine.slice_uuids() == before


def test_a_layout_that_is_there_already_changes_nothing(run: Run, machine: State) -> None:
    before = machine.slice_uuids()
    command = run(layout="4x1g.6gb")
    command.expect(0)
    command.check_that_it_is_back(0)
    assert command.journal is None
    assert machine.slice_uuids() == before
    assert "was cut as this run wants it: 4x1g.6gb." in (command.preparation().what or "")


def test_main_that_is_not_valid(run: Run) -> None:
    command = run("--main-benchmark", "demanding")
    command.expect(3)
    command.check_that_it_is_back(3)


@pytest.mark.parametrize("worker", [0, 1])
def test_a_worker_that_dies(run: Run, worker: int) -> None:
    command = run(*LONG)
    command.wait_for(ev.StartAnnounced, 0)
    command.kill_worker(worker)
    command.expect(5, "died of SIGKILL during main-running")
    command.check_that_it_is_back(5)


@pytest.mark.parametrize(
    ("reach", "signum"),
    [
        (cutting, signal.SIGINT),
        (cutting, signal.SIGTERM),
        (cutting, signal.SIGHUP),
        (starting, signal.SIGINT),
        (buffering, signal.SIGTERM),
        (measuring, signal.SIGINT),
        (measuring, signal.SIGTERM),
        (measuring, signal.SIGHUP),
        (draining, signal.SIGINT),
        (restoring, signal.SIGTERM),
    ],
)
def test_a_signal(run: Run, machine: State, reach: Reach, signum: signal.Signals) -> None:
    command = reach(run, machine)
    command.send(signum)
    command.expect(128 + signum, f"{signum.name} was received during")
    command.check_that_it_is_back(128 + signum)
    assert command.preparation().restored


@pytest.mark.parametrize("reach", [cutting, measuring, restoring])
def test_two_signals(run: Run, machine: State, reach: Reach) -> None:
    command = reach(run, machine)
    command.send(signal.SIGINT)
    command.wait_for(ev.SignalReceived)
    command.send(signal.SIGINT)
    command.expect(130)
    command.check_that_it_is_back(130)


def test_signals_to_all_processes_of_the_run(run: Run, machine: State) -> None:
    """As a service manager does it."""
    command = cutting(run, machine)
    for _ in range(3):
        for pid in processes_with(str(command.home)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    command.expect(143)
    command.check_that_it_is_back(143)


@pytest.mark.parametrize("reach", EVERYWHERE)
def test_a_killed_controller(run: Run, machine: State, reach: Reach) -> None:
    command = reach(run, machine)
    command.kill()
    command.check_that_it_is_back(9)
    assert '"Restored"' in (command.run_dir / "keeper.log").read_text()


@pytest.mark.parametrize("reach", [cutting, starting, buffering, measuring, draining])
def test_a_killed_keeper(run: Run, machine: State, reach: Reach) -> None:
    command = reach(run, machine)
    command.kill_keeper()
    command.expect(7, "The process that kept the GPU prepared ended; see keeper.log.")
    command.check_that_it_is_back(7)
    assert answered(command)[-2:] == ["KeeperLost", "DevicesRestored"]


@pytest.mark.parametrize(("call", "skip", "action"), alternating(STEPS))
def test_a_keeper_killed_at_any_step_of_cutting(run: Run, machine: State, call: str, skip: int, action: int) -> None:
    machine.inject(call, action=action, skip=skip, times=1)
    command = run()
    command.expect(7)
    command.check_that_it_is_back(7)
    assert answered(command) == ["KeeperLost", "DevicesRestored"]


@pytest.mark.parametrize(("call", "skip", "action"), alternating(STEPS_BACK))
def test_a_keeper_killed_at_any_step_of_cutting_back(
    run: Run, machine: State, call: str, skip: int, action: int
) -> None:
    machine.inject(call, action=action, skip=skip, times=1)
    command = run()
    record = command.expect(0)
    command.check_that_it_is_back(0)
    assert answered(command) == ["DevicesPrepared", "KeeperLost", "DevicesRestored"]
    assert record.notes == ("The process that kept the GPU prepared ended; see keeper.log.",)


def test_two_keepers_killed_while_cutting_back_leave_the_way_open(run: Run, machine: State, say: Say) -> None:
    machine.inject(CREATE, action=KILL_BEFORE, skip=2, times=2)
    command = run()
    command.expect(7, "heteromig clean does that")
    assert command.journal is not None
    assert command.journal.is_open
    assert command.preparation().restored is None
    command.check_that_nothing_is_left()
    assert f"heteromig mig restore {command.run_dir}" in command.finish().stdout
    assert verify_run(command.run_dir).verdict.exit_code == 7
    assert say("clean", "--runs-dir", "runs").exit_code == 0
    command.check_that_it_is_back(7)


@pytest.mark.parametrize("action", [KILL_BEFORE, KILL_AFTER])
@pytest.mark.parametrize(("call", "skip"), STEPS)
def test_both_killed_at_any_step_of_cutting(  # noqa: PLR0917 - pytest passes them by name
    run: Run, machine: State, say: Say, call: str, skip: int, action: int
) -> None:
    begin_slowly(machine)
    fault = machine.inject(call, action=action, skip=skip, times=1)
    command = run()
    command.stop_while_the_keeper_begins()
    until(lambda: fault.hits and command.keeper is None, "the keeper was killed")
    command.kill()
    journal = command.journal
    assert journal is not None
    assert journal.is_open
    way = ("clean", "--runs-dir", "runs") if action == KILL_BEFORE else ("mig", "restore", str(command.run_dir))
    finished = say(*way)
    assert finished.exit_code == 0, finished.stderr
    assert "4x1g.6gb" in finished.stdout or "1g.6gb@0,1g.6gb@1,1g.6gb@2,1g.6gb@3" in finished.stdout
    command.check_that_it_is_back(9)
    assert "Nothing to clean" in say("clean", "--runs-dir", "runs").stdout


@pytest.mark.parametrize("reach", [measuring, restoring])
def test_both_killed_later(run: Run, machine: State, say: Say, reach: Reach) -> None:
    command = reach(run, machine)
    command.send(signal.SIGSTOP)
    command.kill_keeper()
    command.kill()
    assert command.cut != FOUR
    done = say("clean", "--runs-dir", "runs", "--json")
    assert done.exit_code == 0
    assert '"outcome": "done"' in done.stdout
    command.check_that_it_is_back(9)
