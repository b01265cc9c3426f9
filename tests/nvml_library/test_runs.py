"""Whole runs on slices that the stand-in library shows: what goes wrong with the devices, and what comes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample, Reading, Unavailable
from heteromig.core.phases import Phase
from heteromig.runner.rundir import TELEMETRY
from heteromig.runner.verification import verify_run
from tests.e2e.product import RunCommand, until
from tests.nvml_library.fixtures import MakeState, environment
from tests.nvml_library.layout import COMPUTE_PROCESS, Process
from tests.nvml_library.state import GPU_UNAVAILABLE, XID, State

ORDINARY = Path(__file__).parents[1] / "e2e" / "ordinary.py"

PROGRAMS = rf"""
[command.measured]
argv = ["{{python}}", "{ORDINARY}", "measuring", "{{duration_s}}"]
start = "^start$"
end = "end$"
result = '^p99_ms=(?P<p99_ms>\S+) status=(?P<status>\w+) rounds=(?P<rounds>\d+)$'

[command.beside]
argv = ["{{python}}", "{ORDINARY}", "steady"]
start = "start"
"""

LONG = ("--main-benchmark-duration", "60s")

Run = Callable[..., RunCommand]


@pytest.fixture
def machine(make_state: MakeState, request: pytest.FixtureRequest) -> State:
    return make_state(getattr(request, "param", "a30/4x1g.6gb"))


@pytest.fixture
def run(tmp_path: Path, library_dir: Path, machine: State) -> Iterator[Run]:
    """Start `heteromig run --slices mig` with two ordinary programs."""
    started: list[RunCommand] = []
    (tmp_path / "programs.toml").write_text(PROGRAMS)

    def start(*flags: str) -> RunCommand:
        argv = (
            *("run", "--config", "programs.toml", "--slices", "mig", "--runs-dir", "runs", "--sample-period", "100ms"),
            *("--start-time-buffer", "0", "--clean-stop", "5s", "--grace", "5s", "--background-benchmarks", "beside"),
            *("--main-benchmark-duration", "700ms", *flags),
        )
        environ = environment(library_dir, machine)
        started.append(RunCommand(tmp_path, argv, environ=environ, module="heteromig", name=f"run{len(started)}"))
        return started[-1]

    yield start
    for command in started:
        command.close()


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


def test_a_run_on_real_slices_is_valid(run: Run, machine: State) -> None:
    command = run()
    record = command.expect(0)
    assert not record.simulated
    assert [one.uuid for one in record.slices] == machine.slice_uuids()
    assert {one.kind for one in record.slices} == {"mig"}
    assert record.overlap.proven
    assert verify_run(command.run_dir).verdict.exit_code == 0


@pytest.mark.parametrize("machine", ["h100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb"], indirect=True)
def test_telemetry_tells_what_each_slice_does_and_what_is_missing(run: Run, machine: State) -> None:
    with machine.edit() as shared:
        for instance in shared.gpus[0].gpu_instances:
            instance.metrics[1].value = 10.5 * instance.id
            instance.metrics[4].id = 0
    command = run()
    command.expect(0)
    first, *rest = [
        msgspec.json.decode(line, type=DeviceSample) for line in (command.run_dir / TELEMETRY).read_bytes().splitlines()
    ]
    assert {one.activity for one in first.slices} == {None}
    assert first.unavailable == ()
    measured = [[one.activity and one.activity.sm_percent for one in sample.slices] for sample in rest]
    expected = [10.5 * (one.gpu_instance_id or 0) for one in command.record().slices]
    assert expected in measured
    for percent, of_slice in zip(expected, zip(*measured, strict=True), strict=True):
        assert {None, percent} >= set(of_slice)  # None after too short a time
    (missing,) = [sample.unavailable for sample in rest if sample.unavailable is not None]
    assert missing == (Unavailable(tuple(machine.slice_uuids()), (Reading.TENSOR,), "this board has no such counter"),)
    assert verify_run(command.run_dir).verdict.exit_code == 0


def xid(machine: State) -> None:
    machine.post(XID, 79)


def unavailable(machine: State) -> None:
    machine.post(GPU_UNAVAILABLE)


def recut(machine: State) -> None:
    machine.remake(machine.slice_uuids()[3])


def silently_recut(machine: State) -> None:
    machine.recut("2g.12gb,2x1g.6gb", announced=False)


def lost(machine: State) -> None:
    machine.lose()


def pending(machine: State) -> None:
    with machine.edit() as shared:
        shared.gpus[0].mig_pending = 0


@pytest.mark.parametrize(
    ("befalls", "says"),
    [
        (xid, "Xid 79"),
        (unavailable, "became unavailable"),
        (recut, "The partitioning of the GPU changed during main-running"),
        (silently_recut, "The partitioning of the GPU changed during main-running"),
        (lost, "GPU is lost"),
        (pending, "The partitioning of the GPU changed during main-running"),
    ],
)
def test_what_befalls_the_gpu_ends_the_run(
    run: Run, machine: State, befalls: Callable[[State], None], says: str
) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    befalls(machine)
    command.expect(7, says)
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_a_stranger_on_a_slice_ends_the_run(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    victim = machine.slice_uuids()[1]
    with stranger(f"MIG-{machine.gpu_uuid()}/4/0") as pid:  # by its older name
        command.wait_for_phase(Phase.DRAINING)
    command.expect(7, f"Slice {victim} is used by a process that is not part of this run: pid {pid} (")
    assert verify_run(command.run_dir).verdict.exit_code == 7


def test_a_process_that_nothing_is_known_of_ends_the_run(run: Run, machine: State) -> None:
    command = run(*LONG)
    command.wait_for_phase(Phase.MAIN_RUNNING)
    with machine.edit() as shared:
        shared.gpus[0].processes[0] = Process(COMPUTE_PROCESS, 1 << 30, 4, 0, 1 << 20)
    command.wait_for_phase(Phase.DRAINING)
    with machine.edit() as shared:
        shared.gpus[0].processes[0].kind = 0
    command.expect(7, f"is used by a process that is not part of this run: pid {1 << 30} (")


def test_a_slow_driver_delays_nobody(run: Run, machine: State) -> None:
    slow = machine.inject("nvmlDeviceGetPowerUsage", sleep_s=0.3)
    command = run()
    command.expect(0)
    assert slow.hits > 0


def test_a_driver_that_hangs_is_given_up_and_asked_anew(run: Run, machine: State) -> None:
    command = run("--main-benchmark-duration", "8s")
    command.wait_for_phase(Phase.MAIN_RUNNING)
    hang = machine.inject("nvmlDeviceGetMigMode", sleep_s=600, times=1)
    until(lambda: hang.hits, "it hangs")
    lost = command.wait_for(ev.SamplerLost)
    assert lost.restarted
    command.expect(0)


def test_who_may_not_cut_may_run(run: Run, machine: State) -> None:
    machine.deny()
    run().expect(0)
