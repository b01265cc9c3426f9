from __future__ import annotations

import signal
import time
from contextlib import suppress
from pathlib import Path

import pynvml
import pytest

from tests.nvml_library.fixtures import Build, Connect, MakeState
from tests.nvml_library.layout import DIGEST, KILL_AFTER, KILL_BEFORE
from tests.nvml_library.remote import Handle, Remote
from tests.nvml_library.state import EXPORTED
from tests.slices.waiting import until

A30 = "a30/4x1g.6gb"
G1 = 14


def gpu_of(nvml: Remote) -> Handle:
    found: Handle = nvml.nvmlDeviceGetHandleByIndex(0)
    return found


def slices(nvml: Remote) -> dict[int, str]:
    """UUIDs of the MIG devices of the first GPU, by their index."""
    found = {}
    gpu = gpu_of(nvml)
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        with suppress(pynvml.NVMLError_NotFound):
            found[index] = nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index))
    return found


def reopen(nvml: Remote) -> None:
    nvml.nvmlShutdown()
    nvml.nvmlInit()


def test_without_a_state_there_is_no_driver(connect: Connect) -> None:
    nvml = connect(None, initialised=False)
    for _ in range(2):
        with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
            nvml.nvmlInit()


def test_a_state_of_another_layout_is_refused(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    with state.edit() as machine:
        machine.layout = DIGEST + 1
    nvml = connect(state, initialised=False)
    with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
        nvml.nvmlInit()
    state.path.write_bytes(state.path.read_bytes()[:-1])
    with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
        nvml.nvmlInit()


def test_calls_belong_to_sessions_and_handles_to_one(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30"), initialised=False)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()
    nvml.nvmlInit()
    nvml.nvmlInit()
    gpu = gpu_of(nvml)
    nvml.nvmlShutdown()
    assert nvml.nvmlDeviceGetName(gpu) == "NVIDIA A30"
    nvml.nvmlShutdown()
    for call in (nvml.nvmlDeviceGetCount, nvml.nvmlShutdown):
        with pytest.raises(pynvml.NVMLError_Uninitialized):
            call()
    nvml.nvmlInit()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetName(gpu)
    for address in (0, 1, 0xFFFFFFFFFFFFFFFF):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.nvmlDeviceGetPowerUsage(Handle("c_nvmlDevice_t", address))


def test_a_session_sees_the_partitioning_of_its_beginning(make_state: MakeState, connect: Connect) -> None:
    state = make_state(A30)
    nvml = connect(state)
    before = slices(nvml)
    assert list(before.values()) == state.slice_uuids()
    device = nvml.nvmlDeviceGetHandleByUUID(before[1])
    renamed = state.remake(before[1])
    assert slices(nvml) == before
    assert nvml.nvmlDeviceGetAttributes(device).multiprocessorCount == 14
    for call in (nvml.nvmlDeviceGetMemoryInfo, nvml.nvmlDeviceGetComputeRunningProcesses):
        with pytest.raises(pynvml.NVMLError_NotFound):  # what must be asked of the device itself is not cached
            call(device)
    reopen(nvml)
    assert slices(nvml) == {**before, 1: renamed}
    state.recut("2g.12gb,1g.6gb")
    assert slices(nvml) == {**before, 1: renamed}
    reopen(nvml)
    assert slices(nvml) == dict(enumerate(state.slice_uuids()))
    assert len(state.slice_uuids()) == 2


def test_a_driver_may_see_changes_at_once(make_state: MakeState, connect: Connect) -> None:
    state = make_state(A30)
    with state.edit() as machine:
        machine.caches_topology = 0
    nvml = connect(state)
    state.recut("2x2g.12gb")
    assert slices(nvml) == dict(enumerate(state.slice_uuids()))


def test_what_a_session_changes_itself_it_sees_and_others_do_not(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30/")
    nvml, other = connect(state), connect(state)
    gpu = gpu_of(nvml)
    made = [nvml.nvmlDeviceCreateGpuInstance(gpu, G1) for _ in range(3)]
    parts = [nvml.nvmlGpuInstanceCreateComputeInstance(one, 0) for one in made]
    before = slices(nvml)
    assert list(before) == [0, 1, 2]
    assert slices(other) == {}
    assert len(other.gpu_instances(gpu_of(other), G1)) == 3  # lists of instances are not cached
    second = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 1)
    nvml.nvmlComputeInstanceDestroy(
        next(part for part in parts if nvml.nvmlComputeInstanceGetInfo(part).gpuInstance == _parent(nvml, second))
    )
    assert slices(nvml) == {0: before[0], 2: before[2]}
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetName(second)
    reopen(nvml)
    assert list(slices(nvml).values()) == [before[0], before[2]] == state.slice_uuids()
    reopen(other)
    assert slices(other) == slices(nvml)


def _parent(nvml: Remote, device: Handle) -> Handle:
    found: Handle = nvml.nvmlDeviceGetGpuInstanceById(gpu_of(nvml), nvml.nvmlDeviceGetGpuInstanceId(device))
    return found


def test_indices_may_have_holes(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a100-sxm-80gb/3g.40gb,2g.20gb,2x1g.10gb")
    with state.edit() as machine:
        machine.gpus[0].mig_holes = 0b00101
    nvml = connect(state)
    assert list(slices(nvml)) == [1, 3, 4, 5]
    assert list(slices(nvml).values()) == state.slice_uuids()


def test_two_processes_cut_one_gpu_without_getting_in_each_others_way(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a100-sxm-80gb/")
    both = connect(state), connect(state)
    gpus = [gpu_of(nvml) for nvml in both]
    made = 0
    for _ in range(4):
        for nvml, gpu in zip(both, gpus, strict=True):
            nvml.begin("nvmlDeviceCreateGpuInstance", gpu, 19)
        for nvml in both:
            try:
                nvml.finish()
            except pynvml.NVMLError_InsufficientResources:
                continue
            made += 1
    assert made == 7
    assert [one[1] for one in state.geometry()] == [7, 8, 9, 10, 11, 12, 13]


def test_faults_strike_as_often_and_where_they_are_told_to(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30", "a30")
    nvml = connect(state)
    first, second = nvml.nvmlDeviceGetHandleByIndex(0), nvml.nvmlDeviceGetHandleByIndex(1)
    fault = state.inject("nvmlDeviceGetPowerUsage", pynvml.NVML_ERROR_UNKNOWN, gpu=1, skip=1, times=2)
    power = nvml.nvmlDeviceGetPowerUsage
    assert power(first) == power(second)
    for _ in range(2):
        with pytest.raises(pynvml.NVMLError_Unknown):
            power(second)
        assert power(first) > 0
    assert power(second) > 0
    assert fault.hits == 2
    lasting = state.inject("nvmlDeviceGetCount_v2", pynvml.NVML_ERROR_NO_PERMISSION)
    for _ in range(3):
        with pytest.raises(pynvml.NVMLError_NoPermission):
            nvml.nvmlDeviceGetCount()
    lasting.clear()
    assert nvml.nvmlDeviceGetCount() == 2
    with pytest.raises(ValueError, match="no function nvmlDeviceGetCount"):
        state.inject("nvmlDeviceGetCount", 1)


def test_a_session_may_not_come_about(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    nvml = connect(state, initialised=False)
    state.inject("nvmlInitWithFlags", pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, times=1)
    with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
        nvml.nvmlInit()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        nvml.nvmlDeviceGetCount()
    nvml.nvmlInit()
    assert nvml.nvmlDeviceGetCount() == 1


def test_a_call_that_hangs_holds_up_nobody_else(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    nvml, other = connect(state), connect(state)
    gpu = gpu_of(nvml)
    hang = state.inject("nvmlDeviceGetPowerUsage", sleep_s=600, times=1)
    nvml.begin("nvmlDeviceGetPowerUsage", gpu)
    until(lambda: hang.hits > 0, "it hangs")
    assert other.nvmlDeviceGetPowerUsage(gpu_of(other)) == 27_840
    assert nvml.process.poll() is None
    nvml.process.kill()
    assert other.nvmlDeviceGetPowerUsage(gpu_of(other)) == 27_840


def test_a_slow_call_is_answered_all_the_same(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30")
    nvml = connect(state)
    gpu = gpu_of(nvml)
    state.inject("nvmlDeviceGetPowerUsage", sleep_s=0.2, times=1)
    begun = time.monotonic()
    assert nvml.nvmlDeviceGetPowerUsage(gpu) == 27_840
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize(("action", "made"), [(KILL_BEFORE, 1), (KILL_AFTER, 2)])
def test_a_process_can_be_killed_around_any_step(
    make_state: MakeState, connect: Connect, action: int, made: int
) -> None:
    state = make_state("a30/")
    nvml = connect(state)
    gpu = gpu_of(nvml)
    state.inject("nvmlDeviceCreateGpuInstance", action=action, skip=1, times=1)
    nvml.nvmlDeviceCreateGpuInstance(gpu, G1)
    with pytest.raises(EOFError):
        nvml.nvmlDeviceCreateGpuInstance(gpu, G1)
    assert nvml.process.wait() == -signal.SIGKILL
    assert len(state.geometry()) == made
    assert len(connect(state).gpu_instances(gpu_of(connect(state)), G1)) == made


def test_an_older_library_lacks_functions(make_state: MakeState, connect: Connect, build_library: Build) -> None:
    without = ("nvmlGpmQueryDeviceSupport", "nvmlDeviceGetComputeRunningProcesses_v3")
    nvml = connect(make_state("a30"), library=build_library(*without))
    gpu = gpu_of(nvml)
    assert nvml.nvmlDeviceGetName(gpu) == "NVIDIA A30"
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        nvml.nvmlGpmQueryDeviceSupport(gpu)
    with pytest.raises(pynvml.NVMLLibraryMismatchError):
        nvml.nvmlDeviceGetComputeRunningProcesses(gpu)


def test_every_function_that_can_fail_is_exported(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30"))
    assert len(EXPORTED) > 80
    assert {name for name in EXPORTED if not nvml.has(name)} == set()


def test_a_process_that_forks_locks_for_itself(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30"))
    assert nvml.counts_after_fork() == (1, 1)


def test_the_dynamic_loader_finds_the_library(make_state: MakeState, connect: Connect, library_dir: Path) -> None:
    assert connect(make_state("a30")).mapped_libraries() == [str(library_dir / "libnvidia-ml.so.1")]
