"""What a run with a layout refuses, and what it cannot take back: a sentence, exit 7 or 2, and nothing destroyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pynvml
import pytest

from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.runner.verification import verify_run
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.source import parse_slices
from tests.e2e.product import processes_with, until
from tests.nvml_library.fixtures import MakeState
from tests.nvml_library.layout import KILL_AFTER
from tests.nvml_library.layout_runs import (
    CREATE,
    CUT,
    FOUR,
    LONG,
    STEPS,
    LayoutRun,
    Run,
    Say,
    begin_slowly,
    cut_of,
    machine,
    programs,
    run,
    say,
)
from tests.nvml_library.state import State

__all__ = ["machine", "programs", "run", "say"]


@contextmanager
def stranger(slice_uuid: str) -> Iterator[int]:
    """A process of somebody else that has this slice as its device."""
    process = subprocess.Popen(
        (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"),
        env={"CUDA_VISIBLE_DEVICES": slice_uuid},
        stdin=subprocess.PIPE,
    )
    try:
        yield process.pid
    finally:
        process.communicate()


def refused(command: LayoutRun, exit_code: int, *words: str) -> None:
    """It ends so, before anything was looked for."""
    record = command.expect(exit_code, *words)
    assert record.slices == ()
    assert not list(command.heard(ev.SlicesDiscovered))
    assert verify_run(command.run_dir).verdict.exit_code == exit_code
    command.check_that_nothing_is_left()


@pytest.mark.parametrize(
    ("step", "error", "remedy"),
    [
        (STEPS[0], pynvml.NVML_ERROR_NO_PERMISSION, "run it as root"),
        (STEPS[3], pynvml.NVML_ERROR_IN_USE, "stop what runs there"),
        (STEPS[4], pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES, "ask for less"),
    ],
)
def test_a_step_that_is_refused(run: Run, machine: State, step: tuple[str, int], error: int, remedy: str) -> None:
    call, skip = step
    machine.inject(call, error, skip=skip, times=1)
    command = run()
    refused(command, 7, remedy, "The GPU is cut as it was before.")
    command.check_that_it_is_back()


def test_a_user_who_may_not_cut(run: Run, machine: State) -> None:
    before = machine.slice_uuids()
    machine.deny()
    command = run()
    refused(command, 7, "run it as root (sudo)")
    assert machine.slice_uuids() == before
    assert command.journal is None


def test_a_stranger_on_the_gpu(run: Run, machine: State) -> None:
    before = machine.slice_uuids()
    with stranger(before[3]) as pid:
        command = run()
        refused(command, 7, f"is in use by pid {pid} (", "a GPU in use is not cut")
        assert machine.slice_uuids() == before
        assert Path(f"/proc/{pid}").exists()


def test_another_run_on_the_gpu(run: Run, machine: State) -> None:
    first = run(*LONG)
    first.wait_for_phase(Phase.MAIN_RUNNING)
    first_dir = first.run_dir
    during = machine.slice_uuids()
    finished = run().finish()
    assert finished.exit_code == 7
    assert f"in use by another heteromig run (pid {first.pid})" in " ".join(finished.stdout.split())
    assert machine.slice_uuids() == during
    assert first.process.poll() is None
    first.send(15)
    assert first.finish().exit_code == 143
    assert cut_of(machine) == FOUR
    assert verify_run(first_dir).verdict.exit_code == 143


def test_a_run_that_goes_on_is_not_cleaned_up(run: Run, machine: State, say: Say) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    during = machine.slice_uuids()
    for _ in range(2):
        done = say("clean", "--runs-dir", "runs")
        assert (done.exit_code, done.stderr) == (0, "")
        assert f"belongs to a run that goes on (pid {command.pid})" in done.stdout
    finished = say("mig", "restore", str(command.run_dir))
    assert finished.exit_code == 7
    assert f"(pid {command.pid})" in finished.stderr
    assert machine.slice_uuids() == during
    command.send(15)
    command.expect(143)
    command.check_that_it_is_back(143)


def test_the_mig_mode(make_state: MakeState, run: Run, machine: State) -> None:
    del make_state
    with machine.edit() as shared:
        shared.gpus[0].mig_pending = 0
    refused(run(), 7, "is on and will be off after a reset")
    machine.recut("")
    with machine.edit() as shared:
        shared.gpus[0].mig_current = 0
    refused(run(), 7, "--enable-mig-mode")
    refused(run("--enable-mig-mode"), 7, "takes a reset of the GPU, which heteromig never does")
    assert cut_of(machine) == []


class TestAnH100:
    """Whose MIG mode changes without a reset."""

    @pytest.fixture
    def machine(self, make_state: MakeState) -> State:
        return make_state("h100-sxm-80gb")

    def test_the_mig_mode_is_turned_on_and_off_again(self, run: Run, machine: State) -> None:
        command = run("--enable-mig-mode", layout="3g.40gb,2x1g.10gb")
        command.wait_for_phase(Phase.MAIN_RUNNING)
        with machine.edit() as shared:
            assert (shared.gpus[0].mig_current, shared.gpus[0].mig_pending) == (1, 1)
        assert len(command.cut) == 3
        command.expect(0)
        with machine.edit() as shared:
            assert (shared.gpus[0].mig_current, shared.gpus[0].mig_pending) == (0, 0)
        assert command.cut == []


def test_a_layout_that_does_not_fit(run: Run, machine: State) -> None:
    before = machine.slice_uuids()
    refused(run(layout="3x2g.12gb"), 2, "asks for 3 times 2g.12gb", "The nearest layout that fits is 2x2g.12gb.")
    refused(run(layout="1g.6gb,3g.20gb"), 2, "is no profile of", "the nearest profile is")
    assert machine.slice_uuids() == before


def test_a_layout_of_a_file(run: Run, machine: State, tmp_path: Path) -> None:
    entry = {"devices": "all", "mig-enabled": True, "mig-devices": {"2g.12gb": 2}}
    for name, one in (("layouts", entry), ("odd", {**entry, "mig-colour": "blue"})):
        layouts = {"version": "v1", "mig-configs": {"halves": [one]}}
        (tmp_path / f"{name}.json").write_text(json.dumps(layouts))
    command = run(layout="layouts.json:halves")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    assert [profile for profile, _, _ in command.cut] == ["2g.12gb"] * 2
    command.expect(0)
    command.check_that_it_is_back(0)
    assert f'layout = "{tmp_path}/layouts.json:halves"' in (command.run_dir / "plan.toml").read_text()
    refused(run(layout="odd.json:halves"), 2, "mig-colour")
    refused(run(layout="none.json:halves"), 2, "cannot be read")
    assert cut_of(machine) == FOUR


def test_a_gpu_that_is_lost_leaves_the_way_open(run: Run, machine: State, say: Say) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    machine.lose()
    record = command.expect(7, "GPU is lost", f"heteromig mig restore {command.run_dir}")
    assert record.preparation is not None
    assert record.preparation.restored is False
    assert command.journal is not None
    assert command.journal.is_open
    command.check_that_nothing_is_left()
    failed = say("clean", "--runs-dir", "runs")
    assert failed.exit_code == 7
    assert "GPU is lost" in failed.stderr
    assert command.journal.is_open
    machine.lose(lost=False)
    assert say("mig", "restore", str(command.run_dir)).exit_code == 0
    command.check_that_it_is_back(7)


def test_what_somebody_else_has_cut_meanwhile_is_left_to_them(run: Run, machine: State, say: Say) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    machine.recut("4g.24gb")
    record = command.expect(
        7, f"The partitioning of GPU {machine.gpu_uuid()} changed during main-running", "Somebody else has cut"
    )
    assert record.preparation is not None
    assert record.preparation.restored is False
    theirs = machine.slice_uuids()
    command.check_that_nothing_is_left()
    assert verify_run(command.run_dir).verdict.exit_code == 7
    assert "Somebody else has cut" in say("clean", "--runs-dir", "runs").stderr
    assert machine.slice_uuids() == theirs
    assert say("mig", "restore", "--forget", str(command.run_dir)).exit_code == 0
    assert "Nothing to clean" in say("clean", "--runs-dir", "runs").stdout
    assert machine.slice_uuids() == theirs


def test_a_stranger_who_leaves_in_time_is_waited_for(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with stranger(machine.slice_uuids()[1]):
        until(lambda: settled(command), "it is still there")
    command.expect(7, "is used by a process that is not part of this run", "is not empty after draining")
    command.check_that_it_is_back(7)


def settled(command: LayoutRun) -> bool:
    return any(event.timer is ev.Timer.SETTLE for event in command.heard(ev.DeadlinePassed))


def left_cut(run: Run, machine: State) -> LayoutRun:
    """A run of which controller and keeper were killed."""
    begin_slowly(machine)
    fault = machine.inject(CREATE, action=KILL_AFTER, skip=1, times=1)
    command = run()
    command.stop_while_the_keeper_begins()
    until(lambda: fault.hits and command.keeper is None, "the keeper was killed")
    command.kill()
    return command


def test_what_a_killed_run_left_is_said_and_nothing_is_built_on_it(run: Run, machine: State, say: Say) -> None:
    name = left_cut(run, machine).run_dir.name
    between = machine.slice_uuids()
    words = (f"was cut by the run {name}, which was killed", "heteromig clean --runs-dir")
    again = run()
    refused(again, 7, *words, "Nothing was changed.")
    assert machine.slice_uuids() == between
    plain = run("--background-benchmarks", "none", layout=None)
    record = plain.expect(0)
    assert all(word in " ".join(record.notes) for word in words)
    assert record.preparation is None
    dry = say("clean", "--runs-dir", "runs", "--dry-run", "--json")
    assert [one["outcome"] for one in json.loads(dry.stdout)["found"]] == ["to do"]
    assert say("clean", "--runs-dir", "runs", "--slices", "sim:a30").stdout == "Nothing to clean in runs.\n"
    assert machine.slice_uuids() == between
    assert say("clean", "--runs-dir", "runs").exit_code == 0
    assert cut_of(machine) == FOUR
    run().expect(0)
    assert cut_of(machine) == FOUR


def test_whoever_else_has_the_gpu_keeps_it(run: Run, machine: State, say: Say) -> None:
    left_cut(run, machine)
    between = machine.slice_uuids()
    with closing(lock_gpus([machine.gpu_uuid()], lock_directory(parse_slices("mig"), Path("runs")))):
        failed = say("clean", "--runs-dir", "runs")
    assert failed.exit_code == 7
    assert f"in use by another heteromig run (pid {os.getpid()})" in failed.stderr
    assert machine.slice_uuids() == between
    assert say("clean", "--runs-dir", "runs").exit_code == 0
    assert cut_of(machine) == FOUR


Spoil = Callable[[Path], object]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_text("{"), "is not readable"),
        (lambda path: path.write_text('{"schema_version": 99}'), "another version of heteromig"),
    ],
)
def test_a_journal_that_cannot_be_read_hides_no_other(
    run: Run, machine: State, say: Say, spoil: Spoil, says: str
) -> None:
    command = left_cut(run, machine)
    odd = command.runs / "20200101T000000Z-odd" / "layout.json"
    odd.parent.mkdir()
    spoil(odd)
    done = say("clean", "--runs-dir", "runs")
    assert done.exit_code == 7
    assert says in done.stderr
    assert cut_of(machine) == FOUR


def test_the_beginning_of_a_journal_is_removed(run: Run, say: Say) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    assert command.cut == CUT
    command.kill()
    (command.run_dir / "layout.json").unlink()
    half = command.run_dir / ".layout.json.new"
    half.write_text("{")
    assert say("clean", "--runs-dir", "runs", "--dry-run").exit_code == 0
    assert half.exists()
    assert "removed" in say("clean", "--runs-dir", "runs").stdout
    assert not half.exists()
    assert not processes_with(str(command.home))
