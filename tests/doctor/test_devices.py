"""`heteromig doctor` over the stand-in library: what is wrong with a machine, and what `run` says of the same."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from heteromig.doctor.devices import about_answers
from heteromig.doctor.findings import Status
from heteromig.doctor.probing import probe
from heteromig.slices.locks import lock_directory, lock_gpus
from heteromig.slices.source import parse_slices
from tests.doctor.asking import PROGRAMS, Answered, ask, heteromig
from tests.nvml_library.fixtures import Build, MakeState, environment
from tests.nvml_library.layout import COMPUTE_PROCESS, KILL_BEFORE, Process
from tests.nvml_library.state import State
from tests.slices.conftest import Spawn

Examine = Callable[..., Answered]

H100 = "h100-sxm-80gb/7x1g.10gb"
A30 = "a30/4x1g.6gb"

UNSETTLED = {"slice-access", "clients", "mps", "pid-namespace", "xid-history", "runs-dir", "clock", "processors"}
"""Checks that depend on the machine that the tests run on."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    found = tmp_path / "home"
    found.mkdir()
    (found / "programs.toml").write_text(PROGRAMS)
    return found


@pytest.fixture
def examine(home: Path, library_dir: Path) -> Examine:
    def look(state: State | None, *argv: str, library: Path = library_dir) -> Answered:
        return ask(home, "--config", "programs.toml", *argv, environ=environment(library, state))

    return look


@pytest.fixture
def refusal_of_run(home: Path, library_dir: Path) -> Callable[..., str]:
    """What `run` says on its last legs, in one line."""

    def look(state: State, *argv: str) -> str:
        run = ("run", "--config", "programs.toml", *argv, "--no-live")
        done = heteromig(home, *run, environ=environment(library_dir, state))
        assert done.returncode == 7, done.stderr
        return " ".join(done.stdout.split()).replace("> ", ">")

    return look


def test_a_healthy_gpu(make_state: MakeState, examine: Examine) -> None:
    state = make_state(H100)
    found = examine(state)
    assert found.exit_code == 0
    assert [check for check in found.wrong if check not in UNSETTLED] == []
    release = found.one("driver").what.rpartition(" ")[2]
    assert found.says("driver") == (
        Status.OK,
        f"580.159.04, CUDA 13.0, NVML 13.580.159.04, nvidia-ml-py {release}",
    )
    assert found.one("slices").what == "7 slices: 7x1g.10gb"
    assert found.one("plan").what == "measured on 1g.10gb beside 6 backgrounds"
    assert found.one("processes").what == "nobody is on the 7 slices"
    assert found.one("lock").what == "no other heteromig uses the GPU"
    (gpu,) = found.report.gpus
    assert (gpu.index, gpu.uuid, gpu.name) == (0, state.gpu_uuid(), "NVIDIA H100 80GB HBM3")
    said = {one.check: one.what for one in found.report.findings if one.gpu_uuid == gpu.uuid}
    assert said == {
        "mig-mode": "MIG is on, cut into " + ",".join(f"1g.10gb@{start}" for start in range(7)),
        "ecc": "on; 0 uncorrectable errors since the driver was loaded, 0 uncorrectable errors ever",
        "memory-repair": "rows remapped for 0 correctable and 0 uncorrectable errors; nothing is pending",
        "temperature": "39 °C, 50 below where it slows down",
        "power": "72 W of 700 W, the default limit",
        "throttling": "none now (idle)",
        "persistence": "on",
        "compute-mode": "default",
        "activity": "GPM tells how busy multiprocessors, tensor cores and memory are",
        "xid-events": "the driver reports Xids while a run is going on",
    }


def test_calls_are_timed(make_state: MakeState, examine: Examine) -> None:
    state = make_state(A30)
    slow = state.inject("nvmlDeviceGetPowerUsage", sleep_s=0.3)
    found = examine(state)
    timed = {one.call: one for one in found.report.latencies}
    assert list(timed)[:2] == ["sample", "nvmlDeviceGetPowerUsage"]
    assert timed["nvmlDeviceGetPowerUsage"].p50_ms >= 300
    assert timed["sample"].p99_ms >= timed["sample"].p50_ms >= 300
    # One to introduce the GPU, one for the first sample, and as many as fit into a second.
    assert timed["sample"].count == timed["nvmlDeviceGetPowerUsage"].count == slow.hits - 2
    assert {"nvmlInit", "nvmlEventSetWait", "nvmlDeviceGetComputeRunningProcesses"} <= timed.keys()
    speed = found.one("nvml")
    assert (speed.status, "(p99)" in speed.what, "--sample-period" in (speed.fix or "")) == (Status.WARNING, True, True)
    assert found.exit_code == 0


def worn(state: State) -> None:
    with state.edit() as machine:
        gpu = machine.gpus[0]
        gpu.ecc_errors[1][0][0], gpu.ecc_errors[1][1][0] = 2, 5
        gpu.remapped_rows = (1, 3, 1, 0)
        gpu.temperature_c = 86
        gpu.power_limit_mw = 500_000
        gpu.clocks_event_reasons = 0x44
        gpu.persistence_mode = 0
        gpu.compute_mode = 3


def test_what_is_wrong_with_a_gpu_has_a_fix_each(make_state: MakeState, examine: Examine) -> None:
    state = make_state(H100)
    worn(state)
    found = examine(state)
    assert found.exit_code == 0
    wrong = {
        one.check: (one.what, one.fix)
        for one in found.report.findings
        if one.status is Status.WARNING and one.gpu_uuid == state.gpu_uuid()
    }
    says = {
        "ecc": ("2 uncorrectable errors since the driver was loaded, 5", "nvidia-smi -q -d ECC"),
        "memory-repair": ("a row is to be remapped", "Reset the GPU"),
        "temperature": ("86 °C, and it slows down from 89 °C on", "airflow"),
        "power": ("limited to 500 W, where 700 W is the default", "-pl 700"),
        "throttling": ("too hot (hardware slowdown)", "cooling"),
        "persistence": ("off", "nvidia-persistenced"),
        "compute-mode": ("only one process at a time", "-c 0"),
    }
    assert wrong.keys() == says.keys()
    for check, (what, fix) in says.items():
        assert what in wrong[check][0]
        assert fix in (wrong[check][1] or "")


@pytest.mark.parametrize(
    ("rows", "ecc", "says"),
    [
        ((0, 9, 1, 1), (1, 1), ("memory-repair", "could not be remapped", "replaced")),
        ((0, 0, 0, 0), (1, 0), ("ecc", "on now, and off after a reset", "Reset")),
        ((0, 0, 0, 0), (0, 0), ("ecc", "off: errors of memory go unnoticed", "nvidia-smi -e 1")),
    ],
)
def test_memory(
    make_state: MakeState,
    examine: Examine,
    rows: tuple[int, int, int, int],
    ecc: tuple[int, int],
    says: tuple[str, str, str],
) -> None:
    state = make_state(A30)
    with state.edit() as machine:
        machine.gpus[0].remapped_rows = rows
        machine.gpus[0].ecc_current, machine.gpus[0].ecc_pending = ecc
    check, what, fix = says
    found = examine(state).one(check)
    assert found.status is Status.WARNING
    assert what in found.what
    assert fix in (found.fix or "")


def pending(state: State) -> None:
    with state.edit() as machine:
        machine.gpus[0].mig_pending = 0


def lost(state: State) -> None:
    state.lose()


def uncut(state: State) -> None:
    state.recut("")


def forbidden(state: State) -> None:
    state.inject("nvmlDeviceGetHandleByIndex_v2", pynvml.NVML_ERROR_NO_PERMISSION)


def broken(state: State) -> None:
    state.inject("nvmlInitWithFlags", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)


@pytest.mark.parametrize(
    ("befalls", "says"),
    [
        (pending, "is on and will be off after a reset"),
        (lost, "it says 'GPU is lost'"),
        (uncut, "it is not cut into slices"),
        (forbidden, "may use none of the 1 GPUs"),
        (broken, "NVML says: RM has detected an NVML/RM version mismatch."),
    ],
)
def test_run_refuses_with_the_same_sentence(
    make_state: MakeState,
    examine: Examine,
    refusal_of_run: Callable[..., str],
    befalls: Callable[[State], None],
    says: str,
) -> None:
    state = make_state(A30)
    befalls(state)
    found = examine(state)
    assert found.exit_code == 7
    (sentence,) = found.problems
    assert says in sentence
    assert sentence in refusal_of_run(state)
    # Everything else is looked at all the same.
    assert {"harness", "runs-dir", "processors", "clock", "leftovers"} <= {one.check for one in found.report.findings}
    assert all(one.fix for one in found.report.findings if one.status in {Status.PROBLEM, Status.WARNING})


def test_a_pending_mode_is_told_of_its_gpu(make_state: MakeState, examine: Examine) -> None:
    state = make_state(A30, "a30/2x2g.12gb")
    with state.edit() as machine:
        machine.gpus[1].mig_pending = 0
    modes = examine(state).all("mig-mode")
    assert [(one.gpu_uuid, one.status) for one in modes] == [
        (state.gpu_uuid(0), Status.OK),
        (state.gpu_uuid(1), Status.WARNING),
    ]
    assert "MIG is on now, and will be off after a reset" in modes[1].what


def test_a_lost_gpu_hides_no_other(make_state: MakeState, examine: Examine) -> None:
    state = make_state(A30, H100)
    state.lose(0)
    found = examine(state)
    assert found.one("gpu").what == "GPU 0 cannot be read: NVML says 'GPU is lost'"
    assert [gpu.uuid for gpu in found.report.gpus] == [state.gpu_uuid(1)]
    assert found.one("ecc").gpu_uuid == state.gpu_uuid(1)


def test_without_permissions(make_state: MakeState, examine: Examine) -> None:
    state = make_state(H100)
    state.deny()
    found = examine(state)
    assert found.exit_code == 0
    cutting, monitoring = found.one("cutting"), found.one("monitoring")
    assert (cutting.status, monitoring.status) == (Status.WARNING, Status.WARNING)
    assert "may not cut MIG slices" in cutting.what
    assert "capabilities/mig/config" in (cutting.fix or "")
    assert "capabilities/mig/monitor" in (monitoring.fix or "")
    assert found.one("mig-mode").what == "MIG is on, cut into 7x1g.10gb (placements n/a: no permission)"
    assert found.one("processes").status is Status.OK


def test_gpus_of_others_are_named(make_state: MakeState, examine: Examine) -> None:
    state = make_state(A30, A30)
    # The first two look-ups of the first GPU pass, and so on: whoever enumerates gets the first one only.
    state.inject("nvmlDeviceGetHandleByIndex_v2", pynvml.NVML_ERROR_NO_PERMISSION, skip=3, times=1)
    found = examine(state)
    assert (found.one("gpu").status, found.exit_code) == (Status.UNKNOWN, 0)
    assert found.one("gpu").what.startswith("GPU 1 is not for this user")


def test_a_foreign_process(
    make_state: MakeState, examine: Examine, refusal_of_run: Callable[..., str], spawn: Spawn
) -> None:
    state = make_state(A30, "a30/2x2g.12gb")
    on_plan = spawn(visible=state.slice_uuids(0)[3])
    beside = spawn(visible=state.slice_uuids(1)[0])
    found = examine(state)
    assert found.exit_code == 7
    refused, noted = found.all("processes")
    assert (refused.status, noted.status) == (Status.PROBLEM, Status.WARNING)
    assert f"pid {on_plan.pid} (sleep 600)" in refused.what
    assert refused.fix == "End it, or use other slices."
    assert f"pid {beside.pid} (sleep 600)" in noted.what
    assert refused.what in refusal_of_run(state)
    assert [one.status for one in examine(state, "--gpu", state.gpu_uuid(1)).all("processes")] == [
        Status.PROBLEM,
        Status.WARNING,
    ]
    on_plan.kill()
    on_plan.wait()
    found = examine(state)
    assert (found.exit_code, found.one("processes").status) == (0, Status.WARNING)


def test_a_gpu_that_somebody_else_has_locked(
    make_state: MakeState, examine: Examine, refusal_of_run: Callable[..., str], home: Path
) -> None:
    state = make_state(A30)
    directory = lock_directory(parse_slices("mig"), home / "runs")
    held = lock_gpus([state.gpu_uuid()], directory)
    try:
        found = examine(state)
        assert found.exit_code == 7
        lock = found.one("lock")
        assert lock.status is Status.PROBLEM
        assert f"in use by another heteromig run (pid {os.getpid()})" in lock.what
        assert lock.what in refusal_of_run(state)
    finally:
        held.close()
    again = examine(state)
    assert (again.exit_code, again.one("lock").status) == (0, Status.OK)
    lock_gpus([state.gpu_uuid()], directory).close()
    (directory / f"{state.gpu_uuid()}.lock").unlink()
    assert examine(state).one("lock").status is Status.OK
    assert not (directory / f"{state.gpu_uuid()}.lock").exists()  # nothing is made for a look


def test_an_old_library(make_state: MakeState, examine: Examine, build_library: Build) -> None:
    without = (
        *("nvmlDeviceGetPowerUsage", "nvmlDeviceGetMemoryInfo", "nvmlEventSetWait_v2"),
        *("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetGpuInstanceProfileInfoV"),
        *("nvmlDeviceGetTemperatureThreshold", "nvmlGpmQueryDeviceSupport", "nvmlDeviceGetPersistenceMode"),
    )
    found = examine(make_state(H100), library=build_library(*without))
    assert found.exit_code == 0
    lacking = found.one("library")
    assert lacking.status is Status.WARNING
    assert "too old to tell memory in use, persistence, power, repaired memory, " in lacking.what
    assert "nvmlEventSetWait" in lacking.what
    assert "ProfileInfo" not in lacking.what  # an older version of the call does as well
    for check in ("memory-repair", "activity", "persistence"):
        status, what = found.says(check)
        assert (status, what.startswith("n/a: library too old")) == (Status.UNKNOWN, True)
    assert found.one("power").what == "n/a (library too old) of 700 W, the default limit"
    assert found.one("temperature").what == "39 °C; where it slows down n/a (library too old)"
    assert "errors ever n/a (library too old)" in found.one("ecc").what


@pytest.mark.parametrize("call", ["nvmlDeviceGetPowerManagementLimit", "nvmlDeviceGetEccMode"])
def test_what_a_board_does_not_have(make_state: MakeState, examine: Examine, call: str) -> None:
    state = make_state(A30)
    state.inject(call, pynvml.NVML_ERROR_NOT_SUPPORTED)
    found = examine(state)
    check = {"nvmlDeviceGetEccMode": "ecc"}.get(call, "power")
    status, what = found.says(check)
    assert (status, what.startswith("n/a: not supported by this board")) == (Status.UNKNOWN, True)
    assert found.says("activity") == (Status.UNKNOWN, "n/a: there is no GPM before Hopper")


def test_mig_that_is_off_leaves_the_rest_to_look_at(make_state: MakeState, examine: Examine) -> None:
    state = make_state("h100-sxm-80gb")
    found = examine(state)
    assert found.exit_code == 7
    assert "MIG is off on NVIDIA H100" in found.one("slices").what
    assert found.one("mig-mode").what == "MIG is off"
    assert found.report.latencies[0].call == "sample"
    whole = examine(state, "--slices", "gpu", "--config", "programs.toml")
    assert whole.one("slices").what == "1 slice: 1xnvidia-h100-80gb-hbm3"
    assert "needs at least 2" in whole.one("plan").what


def test_processes_are_told_where_no_run_fits(make_state: MakeState, examine: Examine, spawn: Spawn) -> None:
    state = make_state("a30/1x4g.24gb")
    child = spawn(visible=state.slice_uuids()[0])
    found = examine(state)
    assert "needs at least 2" in found.one("plan").what
    assert f"is used by pid {child.pid} (sleep 600)." in found.one("processes").what


def test_shares_need_their_daemon(make_state: MakeState, examine: Examine, library_dir: Path) -> None:
    found = examine(make_state("a30"), "--slices", "mps:2x40")
    assert found.exit_code == 7
    assert found.one("mps-control").status is Status.PROBLEM
    assert found.one("mig-mode").what == "MIG is off"
    assert library_dir.exists()


def test_the_gpu_that_is_to_be_shared_is_the_one_that_is_looked_at(make_state: MakeState, examine: Examine) -> None:
    state = make_state("a30", "a30/4x1g.6gb")
    whole = examine(state, "--slices", "mps:2x40", "--gpu", "0")
    assert "is in MIG mode" not in str(whole.report.findings)
    for gpu, words in (("1", "is in MIG mode"), ("7", "--gpu 7 is none of the GPUs of this machine")):
        found = examine(state, "--slices", "mps:2x40", "--gpu", gpu)
        assert words in str(found.report.findings)


def test_pids_of_another_namespace_are_occupants(make_state: MakeState, examine: Examine) -> None:
    state = make_state(A30)
    with state.edit() as machine:
        machine.gpus[0].processes[0] = Process(COMPUTE_PROCESS, 1 << 30, 3, 0, 1 << 20)
    assert f"pid {1 << 30} ()" in examine(state).one("processes").what


def test_without_a_driver_and_without_a_library(examine: Examine, home: Path) -> None:
    found = examine(None)
    assert (found.exit_code, found.one("driver").status) == (7, Status.PROBLEM)
    assert "NVIDIA's driver does not answer (NVML says: Driver Not Loaded)" in found.one("driver").what
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    found = ask(home)
    assert found.exit_code == 7
    assert found.one("driver").what.startswith("NVML (libnvidia-ml.so.1) is not on this machine: ")
    assert found.one("driver").fix == (
        "Install NVIDIA's driver, or, to see a run without a GPU, use --slices sim:a100-sxm-80gb."
    )


# A driver that hangs


@pytest.fixture
def machine(make_state: MakeState, library_dir: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    """What children of this test find as their NVML."""
    state = make_state(A30)
    for name, value in environment(library_dir, state).items():
        monkeypatch.setenv(name, value)
    return state


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("nvmlInitWithFlags", Status.PROBLEM),
        ("nvmlDeviceGetMigMode", Status.PROBLEM),
        ("nvmlDeviceGetEccMode", Status.WARNING),
        ("nvmlEventSetWait_v2", Status.WARNING),
    ],
)
def test_a_call_that_hangs_is_named_and_not_waited_for(
    machine: State, tmp_path: Path, call: str, status: Status
) -> None:
    hang = machine.inject(call, sleep_s=600)
    found = probe(parse_slices("mig"), tmp_path, limit_s=5)
    assert hang.hits == 1
    assert found.stuck is not None
    assert found.stuck.call == {"nvmlInitWithFlags": "nvmlInit", "nvmlEventSetWait_v2": "nvmlEventSetWait"}.get(
        call, call
    )
    (finding,) = about_answers(found)
    assert finding.status is status
    assert f"NVML did not come back from {found.stuck.call} within " in finding.what
    assert finding.fix


def test_a_probe_that_dies_is_told(machine: State, tmp_path: Path) -> None:
    for call, status in (("nvmlDeviceGetEccMode", Status.WARNING), ("nvmlDeviceGetMigMode", Status.PROBLEM)):
        machine.inject(call, action=KILL_BEFORE)
        (finding,) = about_answers(probe(parse_slices("mig"), tmp_path))
        assert (finding.status, f"died in {call}" in finding.what) == (status, True)


def test_nothing_is_left_of_a_probe(machine: State, tmp_path: Path) -> None:
    machine.inject("nvmlDeviceGetName", sleep_s=600)
    assert probe(parse_slices("mig"), tmp_path, limit_s=2).stuck is not None
    probes = [
        one for one in Path("/proc").iterdir() if one.name.isdigit() and str(tmp_path).encode() in _command_line(one)
    ]
    assert probes == []


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
