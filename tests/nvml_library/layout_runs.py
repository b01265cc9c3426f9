"""Whole runs with `--layout` over the stand-in library, and what has to be so after every one of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heteromig.core import events as ev
from heteromig.core.record import PreparationRecord
from heteromig.runner.verification import verify_run
from heteromig.slices.locks import holder_of, lock_directory
from heteromig.slices.mig.journal import RUN_JOURNAL, JournalFile, LayoutJournal
from heteromig.slices.source import parse_slices
from tests.e2e.product import Command, Finished, RunCommand, processes_with, until
from tests.nvml_library.fixtures import MakeState, environment
from tests.nvml_library.state import Injected, State

ORDINARY = Path(__file__).parents[1] / "e2e" / "ordinary.py"

PROGRAMS = rf"""
[command.measured]
argv = ["{{python}}", "{ORDINARY}", "measuring", "{{duration_s}}"]
start = "^start$"
end = "end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$'

[command.demanding]
argv = ["{{python}}", "{ORDINARY}", "measuring", "{{duration_s}}"]
start = "^start$"
end = "end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$'
valid-when = "rounds > 1000"

[command.beside]
argv = ["{{python}}", "{ORDINARY}", "steady"]
start = "start"

[command.silent]
argv = ["{{python}}", "{ORDINARY}", "silent"]
start = "start"
"""

LONG = ("--main-benchmark-duration", "60s")
LAYOUT = "2g.12gb@2,2x1g.6gb"
FOUR = [("1g.6gb", start, 1) for start in range(4)]
CUT = [("1g.6gb", 0, 1), ("1g.6gb", 1, 1), ("2g.12gb", 2, 1)]

CREATE = "nvmlDeviceCreateGpuInstanceWithPlacement"
FIRST_CALL = "nvmlInitWithFlags"
STEPS = [
    ("nvmlComputeInstanceDestroy", 0),
    ("nvmlComputeInstanceDestroy", 1),
    ("nvmlGpuInstanceDestroy", 0),
    ("nvmlGpuInstanceDestroy", 1),
    (CREATE, 1),
    ("nvmlGpuInstanceCreateComputeInstance", 0),
]
"""Every call that takes four slices to LAYOUT, and how many of its uses come before: the first creation only asks."""
STEPS_BACK = [
    ("nvmlComputeInstanceDestroy", 2),
    ("nvmlGpuInstanceDestroy", 2),
    (CREATE, 2),
    (CREATE, 3),
    ("nvmlGpuInstanceCreateComputeInstance", 1),
    ("nvmlGpuInstanceCreateComputeInstance", 2),
]
"""The same for the way back, after all of these."""

Run = Callable[..., "LayoutRun"]
Say = Callable[..., Finished]


class LayoutRun(RunCommand):
    """One `heteromig run --layout` child on a machine of one GPU."""

    machine: State

    @property
    def cut(self) -> list[tuple[str, int, int]]:
        """Profile, start and number of compute instances of each GPU instance, by its start."""
        return cut_of(self.machine)

    @property
    def journal(self) -> LayoutJournal | None:
        """The way back."""
        return JournalFile(self.run_dir / RUN_JOURNAL).read()

    @property
    def keeper(self) -> int | None:
        """The pid of the process that keeps the GPU cut."""
        found = processes_with(str(self.home))
        return next((pid for pid, command in found.items() if "heteromig.slices.keeper" in command), None)

    def kill_keeper(self) -> None:
        pid = self.keeper
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def stop_while_the_keeper_begins(self) -> None:
        """Have the controller see nothing any more; wants a slow FIRST_CALL."""
        until(lambda: self.keeper is not None, "there is a keeper")
        self.send(signal.SIGSTOP)

    def kill(self) -> None:
        """KILL the controller, and wait until nothing is left of the run."""
        self.send(signal.SIGKILL)
        self.process.wait()
        until(lambda: not processes_with(str(self.home)), "everything is gone")

    def preparation(self) -> PreparationRecord:
        found = self.record().preparation
        assert found is not None
        return found

    def check_that_it_is_back(self, exit_code: int | None = None) -> None:
        """The GPU is cut as before, nothing is open or left, and `verify` says the same as the run."""
        assert self.cut == FOUR
        self.check_that_nothing_is_left()
        journal = self.journal
        assert journal is None or not journal.is_open
        if exit_code is not None:
            assert verify_run(self.run_dir).verdict.exit_code == exit_code

    def check_that_nothing_is_left(self) -> None:
        """No process, no lock, no half-written file."""
        assert processes_with(str(self.home)) == {}
        assert holder_of(self.machine.gpu_uuid(), lock_directory(parse_slices("mig"), self.runs)) is None
        assert not list(self.runs.glob("*/.*.new"))


def cut_of(machine: State) -> list[tuple[str, int, int]]:
    return sorted(
        ((profile, start, computes) for profile, _, start, computes in machine.geometry()), key=lambda one: one[1]
    )


@pytest.fixture
def machine(make_state: MakeState) -> State:
    return make_state("a30/4x1g.6gb")


@pytest.fixture
def programs(tmp_path: Path) -> None:
    """What workers run."""
    (tmp_path / "programs.toml").write_text(PROGRAMS)


@pytest.fixture
def run(tmp_path: Path, library_dir: Path, machine: State, programs: None) -> Iterator[Run]:
    """Start `heteromig run --slices mig --layout LAYOUT` with two ordinary programs."""
    started: list[LayoutRun] = []
    del programs

    def start(*flags: str, layout: str | None = LAYOUT, command: str = "run") -> LayoutRun:
        argv = (
            *(
                command,
                "--config",
                "programs.toml",
                "--slices",
                "mig",
                "--runs-dir",
                "runs",
                "--sample-period",
                "100ms",
            ),
            *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s", "--background-benchmarks", "beside"),
            *("--main-benchmark-duration", "500ms", *(("--layout", layout) if layout else ()), *flags),
        )
        environ = environment(library_dir, machine)
        made = LayoutRun(tmp_path, argv, environ=environ, module="heteromig", name=f"run{len(started)}")
        made.machine = machine
        started.append(made)
        return made

    yield start
    for one in started:
        one.close()


@pytest.fixture
def say(tmp_path: Path, library_dir: Path, machine: State) -> Iterator[Say]:
    """Any command, to its end."""
    started: list[Command] = []

    def start(*argv: str) -> Finished:
        environ = environment(library_dir, machine)
        started.append(Command(tmp_path, argv, environ=environ, module="heteromig", name=f"say{len(started)}"))
        return started[-1].finish()

    yield start
    for one in started:
        one.close()


def begin_slowly(machine: State) -> Injected:
    """The keeper takes long to begin, so that the controller can be stopped in the meantime."""
    return machine.inject(FIRST_CALL, sleep_s=0.7, times=1)


def cut_slowly(machine: State) -> Injected:
    """The keeper takes long in the middle of cutting: what was in the way is destroyed by then."""
    return machine.inject(CREATE, sleep_s=1.0, skip=1, times=1)


def cut_back_slowly(machine: State) -> Injected:
    """The keeper takes long in the middle of cutting back."""
    return machine.inject(CREATE, sleep_s=1.0, skip=2, times=1)


def answered(command: RunCommand) -> list[str]:
    """What was heard of keepers, in order."""
    about = (ev.DevicesPrepared, ev.PreparationFailed, ev.KeeperLost, ev.DevicesRestored, ev.RestorationFailed)
    return [type(event).__name__ for event in command.heard(ev.Event) if isinstance(event, about)]
