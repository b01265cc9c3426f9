"""Machines that no run can be had on, or that fail under one: a clear sentence, the right exit code, nothing left.

Each table is a row of cells: what is wrong, and what is said of it by every command that meets it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pynvml
import pytest

from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample, Reading
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.runner.rundir import TELEMETRY
from heteromig.slices.locks import holder_of, lock_directory, lock_gpus
from heteromig.slices.source import parse_slices
from tests.e2e.product import Command, RunCommand, processes_with, until
from tests.nvml_library.fixtures import Build, environment
from tests.nvml_library.runs import LONG, Run, machine, run
from tests.nvml_library.state import EXPORTED, State

__all__ = ["machine", "run"]

NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION

REQUIRED = {
    "nvmlInitWithFlags": "nvmlInit",
    "nvmlDeviceGetCount_v2": "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex_v2": "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetName": "nvmlDeviceGetName",
    "nvmlDeviceGetUUID": "nvmlDeviceGetUUID",
    "nvmlDeviceGetMigMode": "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount": "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex": "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId": "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId": "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetHandleByUUID": "nvmlDeviceGetHandleByUUID",
    "nvmlDeviceGetComputeRunningProcesses_v3": "nvmlDeviceGetComputeRunningProcesses",
}
"""Symbols without which there is no run, and the calls of pynvml that want them."""

MEASURING = (
    *("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetPowerUsage", "nvmlEventSetCreate"),
    *("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetTemperature", "nvmlDeviceGetClockInfo"),
    *("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetFieldValues", "nvmlGpmQueryDeviceSupport"),
)
"""What a run reads and can do without."""

TOO_OLD = "library too old: a newer driver has it"

Befalls = Callable[[State], object]


class Machine:
    """Every command on one machine, and what has to be so after each."""

    def __init__(self, home: Path, state: State | None, environ: dict[str, str]) -> None:
        self._home, self._environ, self._state = home, environ, state
        self._started: list[Command] = []
        self._before = self._cut()
        (home / "runs").mkdir()

    def _cut(self) -> object:
        if self._state is None:
            return None
        with self._state.edit() as shared:
            modes = [(gpu.mig_current, gpu.mig_pending) for gpu in shared.gpus[: shared.gpu_count]]
        return modes, [(self._state.geometry(gpu), self._state.slice_uuids(gpu)) for gpu in range(len(modes))]

    def refuses(self, *argv: str, exit_code: int = 7, words: tuple[str, ...]) -> None:
        """The command ends so, with these words and no others that only a programmer understands."""
        made = Command(self._home, argv, environ=self._environ, module="heteromig", name=f"c{len(self._started)}")
        self._started.append(made)
        done = made.finish()
        said = " ".join((done.stdout + done.stderr).split()).replace("> ", ">")
        assert done.exit_code == exit_code, said
        assert "Traceback" not in said
        assert all(word in said for word in words), said
        self.is_as_before()

    def is_as_before(self) -> None:
        """Cut as before, no process, no lock, no half-written file."""
        assert self._cut() == self._before
        assert processes_with(str(self._home)) == {}
        assert not list((self._home / "runs").glob("**/.*.new"))
        for gpu in range(0 if self._state is None else 2):
            assert self._state is not None
            holder = holder_of(self._state.gpu_uuid(gpu), lock_directory(parse_slices("mig"), self._home / "runs"))
            assert holder in {None, os.getpid()}

    def close(self) -> None:
        for one in self._started:
            one.close()


On = Callable[..., Machine]

RUN = ("run", "--config", "programs.toml", "--slices", "mig", "--runs-dir", "runs", "--background-benchmarks", "beside")
SLICES = ("slices", "--slices", "mig")
DOCTOR = ("doctor", "--config", "programs.toml", "--runs-dir", "runs", "--slices", "mig", "--json")


@pytest.fixture
def on(tmp_path: Path, library_dir: Path, run: Run) -> Iterator[On]:
    """A machine with that state and library; `run` has written the configuration."""
    made: list[Machine] = []
    del run

    def make(state: State | None, *, library: Path = library_dir, environ: dict[str, str] | None = None) -> Machine:
        variables = environment(library, state) if environ is None else environ
        made.append(Machine(tmp_path, state, variables))
        return made[-1]

    yield make
    for one in made:
        one.close()


# Refused before anything begins


def missing(symbol: str) -> Befalls:
    return lambda state: state.inject(symbol, NOT_FOUND)


def forbidden(symbol: str) -> Befalls:
    return lambda state: state.inject(symbol, NO_PERMISSION)


def pending(state: State) -> None:
    with state.edit() as shared:
        for gpu in shared.gpus[: shared.gpu_count]:
            gpu.mig_pending = 0


def lost(state: State) -> None:
    state.lose(0)
    state.lose(1)


@pytest.mark.parametrize("symbol", REQUIRED)
def test_a_library_without_a_required_call_is_refused_with_its_name(on: On, machine: State, symbol: str) -> None:
    missing(symbol)(machine)
    words = (f"NVIDIA's driver is too old, its NVML library has no {REQUIRED[symbol]}: install a newer driver",)
    there = on(machine)
    commands = (RUN, SLICES, DOCTOR) if symbol in {"nvmlInitWithFlags", "nvmlDeviceGetMigMode"} else (RUN,)
    for command in commands:
        there.refuses(*command, words=words)


def test_a_process_list_that_is_really_not_there(on: On, machine: State, build_library: Build) -> None:
    symbol = "nvmlDeviceGetComputeRunningProcesses_v3"
    there = on(machine, library=build_library(symbol))
    for command in (RUN, SLICES, DOCTOR):
        there.refuses(*command, words=(f"has no {REQUIRED[symbol]}: install a newer driver",))


@pytest.mark.parametrize(
    ("befalls", "words"),
    [
        (pending, ("is on and will be off after a reset", "reset the GPU")),
        (lost, ("NVML cannot read GPU 0: it says 'GPU is lost'", "reset the GPU")),
        (forbidden("nvmlDeviceGetHandleByIndex_v2"), ("This user may use none of the 2 GPUs", "made accessible")),
        (forbidden("nvmlDeviceGetMigMode"), ("This user may use none of the 2 GPUs", "made accessible")),
        (forbidden("nvmlDeviceGetUUID"), ("This user may use none of the 2 GPUs", "made accessible")),
        (forbidden("nvmlInitWithFlags"), ("NVIDIA's driver does not answer", "Insufficient Permissions")),
        (forbidden("nvmlDeviceGetCount_v2"), ("Insufficient Permissions", "nvidia-smi")),
    ],
    ids=["pending", "lost", "handles", "mode", "uuids", "session", "count"],
)
def test_a_machine_that_is_not_ready(on: On, machine: State, befalls: Befalls, words: tuple[str, ...]) -> None:
    befalls(machine)
    there = on(machine)
    for command in (RUN, SLICES, DOCTOR) if befalls in {pending, lost} else (RUN,):
        there.refuses(*command, words=words)


def test_without_a_driver(on: On) -> None:
    there = on(None)
    for command in (RUN, SLICES, DOCTOR):
        there.refuses(*command, words=("driver does not answer (NVML says: Driver Not Loaded)", "is loaded"))


def test_without_a_library(on: On) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    there = on(None, environ={})
    for command in (RUN, SLICES):  # `tests/doctor` has the third
        there.refuses(*command, words=("(libnvidia-ml.so.1) is not on this machine", "install NVIDIA's driver"))


def test_another_heteromig_on_the_gpu(on: On, machine: State, tmp_path: Path) -> None:
    there = on(machine)
    directory = lock_directory(parse_slices("mig"), tmp_path / "runs")
    with closing(lock_gpus([machine.gpu_uuid()], directory)):
        for command in (RUN, DOCTOR):
            there.refuses(*command, words=(f"in use by another heteromig run (pid {os.getpid()})",))
    assert holder_of(machine.gpu_uuid(), directory) is None


# Not refused: what cannot be read is n/a


def unread(command: RunCommand) -> dict[Reading, set[str]]:
    """Why readings are missing from the first sample that has any to miss."""
    found: dict[Reading, set[str]] = {}
    for line in (command.run_dir / TELEMETRY).read_bytes().splitlines():
        for missing_one in msgspec.json.decode(line, type=DeviceSample).unavailable or ():
            for what in missing_one.readings:
                found.setdefault(what, set()).add(missing_one.reason)
    return found


@pytest.mark.parametrize("machine", ["h100-sxm-80gb/7x1g.10gb"], indirect=True)
def test_a_library_with_nothing_but_the_required_calls_is_enough(run: Run, build_library: Build) -> None:
    command = run(library=build_library(*(EXPORTED - REQUIRED.keys() - {"nvmlShutdown"})))
    record = command.expect(0)
    reasons = unread(command)
    assert {Reading.MEMORY, Reading.ACTIVITY, Reading.POWER, Reading.TEMPERATURE, Reading.SM_CLOCK} <= reasons.keys()
    assert set().union(*reasons.values()) == {TOO_OLD}
    assert record.gpus[0].driver == f"n/a: {TOO_OLD}"
    blind = {one.guard for one in record.device_guards if one.status is Status.NOT_OBSERVABLE}
    assert blind == {"no_fault_reported", "not_slowed_down", "memory_returned"}
    assert {one.status for one in record.device_guards} == {Status.OK, Status.NOT_OBSERVABLE}


@pytest.mark.parametrize("machine", ["h100-sxm-80gb/7x1g.10gb"], indirect=True)
def test_a_user_who_may_read_nothing_may_run(run: Run, machine: State) -> None:
    for call in (*MEASURING, "nvmlDeviceGetComputeRunningProcesses_v3"):
        machine.inject(call, NO_PERMISSION)
    command = run()
    record = command.expect(0)
    reasons = unread(command)
    assert {Reading.OCCUPANTS, Reading.MEMORY, Reading.ACTIVITY, Reading.POWER, Reading.ENERGY} <= reasons.keys()
    assert all(reason.startswith("this user may not read it") for found in reasons.values() for reason in found)
    blind = {one.guard for one in record.device_guards if one.status is Status.NOT_OBSERVABLE}
    assert {"only_own_processes", "process_on_its_slice", "memory_returned", "no_fault_reported"} <= blind
    assert {one.status for one in record.device_guards} == {Status.OK, Status.NOT_OBSERVABLE}


# In the middle of a run


def check_that_nothing_is_left(command: RunCommand, machine: State) -> None:
    assert processes_with(str(command.home)) == {}
    assert holder_of(machine.gpu_uuid(), lock_directory(parse_slices("mig"), command.runs)) is None
    assert not list(command.runs.glob("**/.*.new"))


def test_a_gpu_that_is_lost_in_the_middle_of_main(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    machine.lose()
    command.wait_for_phase(Phase.DRAINING)
    command.expect(7, "GPU is lost")
    check_that_nothing_is_left(command, machine)
    machine.lose(lost=False)
    assert len(machine.slice_uuids()) == 4


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_driver_hangs_before_there_is_an_inventory(
    run: Run, machine: State, signum: signal.Signals
) -> None:
    hang = machine.inject("nvmlDeviceGetMigMode", sleep_s=600)
    command = run()
    until(lambda: hang.hits, "the driver hangs")
    command.send(signum)
    command.expect(128 + signum)
    assert hang.hits == 1
    assert not list(command.heard(ev.SamplerLost))
    check_that_nothing_is_left(command, machine)


def test_a_signal_while_the_driver_hangs_in_main(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    hang = machine.inject("nvmlDeviceGetPowerUsage", sleep_s=600)
    until(lambda: hang.hits, "the driver hangs")
    command.send(signal.SIGINT)
    record = command.expect(130)
    # Draining would like to see that the slices are empty, and does not wait until the sampler is given up for it.
    assert not list(command.heard(ev.SamplerLost))
    assert hang.hits == 1
    assert {one.status for one in record.device_guards} <= {Status.OK, Status.NOT_OBSERVABLE}
    check_that_nothing_is_left(command, machine)


def test_a_slow_driver_does_not_delay_the_end(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    slow = [machine.inject(symbol, sleep_s=2.0) for symbol in (*REQUIRED, *MEASURING)]
    until(lambda: sum(one.hits for one in slow), "a call takes 2 s")
    command.send(signal.SIGTERM)
    record = command.expect(143)
    # Reading everything once takes more than half a minute then: nobody has waited for that.
    assert sum(one.hits for one in slow) < len(slow)
    assert all(one.status is not Status.VIOLATED for one in record.device_guards)
    check_that_nothing_is_left(command, machine)
