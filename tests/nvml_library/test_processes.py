from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from tests.nvml_library.fixtures import Connect, MakeState
from tests.nvml_library.layout import COMPUTE_PROCESS, GRAPHICS_PROCESS, MPS_PROCESS, WHOLE_GPU, Process
from tests.nvml_library.remote import Handle, Remote
from tests.slices.conftest import Spawn, spawn

__all__ = ["spawn"]

A100 = "a100-sxm-80gb"
MIB_BYTES = 1 << 20

HOG = "import time; memory = bytearray(range(256)) * (1 << 18); print(flush=True); time.sleep(600)"
"""A program that waits with 64 MiB of memory."""


def seen(nvml: Remote, device: Handle) -> dict[int, tuple[int, int]]:
    """The instances that each process is on."""
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(device)
    return {one.pid: (one.gpuInstanceId, one.computeInstanceId) for one in processes}


def test_processes_are_on_the_slice_that_they_were_told_to_use(
    make_state: MakeState, connect: Connect, spawn: Spawn
) -> None:
    state = make_state(f"{A100}/3g.40gb,2g.20gb", "a30/4x1g.6gb")
    nvml = connect(state)
    gpu, other = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    three, two = (nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1))
    assert seen(nvml, gpu) == {}
    uuids = state.slice_uuids()
    new = spawn(visible=uuids[0]).pid
    older = spawn(visible=f"MIG-{state.gpu_uuid()}/5/0").pid
    several = [spawn(visible=f"{uuids[1]},{uuids[0]}").pid for _ in range(7)]
    spawn(visible="MIG-00000000-0000-4000-8000-000000000000")
    spawn(visible=state.gpu_uuid())  # in MIG mode nothing can be on the GPU as a whole
    spawn(visible="0")
    assert seen(nvml, three) == {new: (1, 0)}
    assert seen(nvml, two) == dict.fromkeys((older, *several), (5, 0))
    assert seen(nvml, gpu) == seen(nvml, three) | seen(nvml, two)
    assert seen(nvml, other) == {}
    assert nvml.nvmlDeviceGetGraphicsRunningProcesses(gpu) == []
    assert nvml.nvmlDeviceGetMPSComputeRunningProcesses(gpu) == []


def test_processes_are_on_a_whole_gpu_where_mig_is_off(make_state: MakeState, connect: Connect, spawn: Spawn) -> None:
    state = make_state("h100-sxm-80gb", "h100-sxm-80gb")
    nvml = connect(state)
    child = spawn(visible=state.gpu_uuid(1))
    spawn(visible=f"MIG-{state.gpu_uuid(1)}/0/0")
    assert seen(nvml, nvml.nvmlDeviceGetHandleByIndex(0)) == {}
    assert seen(nvml, nvml.nvmlDeviceGetHandleByIndex(1)) == {child.pid: (WHOLE_GPU, WHOLE_GPU)}


def test_who_is_gone_or_executes_something_else_is_not_there(
    make_state: MakeState, connect: Connect, spawn: Spawn
) -> None:
    state = make_state("a30/4x1g.6gb")
    nvml = connect(state)
    device = nvml.nvmlDeviceGetHandleByUUID(state.slice_uuids()[2])
    program = ["env", "-u", "CUDA_VISIBLE_DEVICES", "sh", "-c", "echo; exec sleep 600"]
    process = spawn(visible=state.slice_uuids()[2])
    changed = spawn(program, visible=state.slice_uuids()[2], stdout=subprocess.PIPE)
    assert changed.stdout is not None
    changed.stdout.readline()
    assert seen(nvml, device) == {process.pid: (5, 0)}
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert seen(nvml, device) == {}


def test_what_processes_use_is_used_of_their_gpu_instance(
    make_state: MakeState, connect: Connect, spawn: Spawn
) -> None:
    state = make_state(f"{A100}/3g.40gb,2g.20gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    three, two = (nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1))
    before = [nvml.nvmlDeviceGetMemoryInfo(device).used for device in (gpu, three, two)]
    process = spawn([sys.executable, "-c", HOG], visible=state.slice_uuids()[0], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    (one,) = nvml.nvmlDeviceGetComputeRunningProcesses(three)
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    assert one.usedGpuMemory == pages * os.sysconf("SC_PAGESIZE") > 64 * MIB_BYTES
    used = [nvml.nvmlDeviceGetMemoryInfo(device).used for device in (gpu, three, two)]
    assert [now - then for now, then in zip(used, before, strict=True)] == [one.usedGpuMemory, one.usedGpuMemory, 0]
    with state.edit() as machine:
        machine.gpus[0].process_memory_hidden = 1
    (one,) = nvml.nvmlDeviceGetComputeRunningProcesses(three)
    assert one.usedGpuMemory is None


def test_processes_that_cannot_be_found_here_can_be_listed(make_state: MakeState, connect: Connect) -> None:
    state = make_state(f"{A100}/3g.40gb,2g.20gb", "a30")
    nvml = connect(state)
    gpu, other = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    three, two = (nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1))
    with state.edit() as machine:
        kinds = (COMPUTE_PROCESS, GRAPHICS_PROCESS, MPS_PROCESS)
        for place, kind in enumerate(kinds):
            machine.gpus[0].processes[place] = Process(kind, 1 << 30 | kind, 5, 0, kind * MIB_BYTES)
            machine.gpus[1].processes[place] = Process(kind, 1 << 30 | kind, WHOLE_GPU, WHOLE_GPU, 0)
    lists = (
        nvml.nvmlDeviceGetComputeRunningProcesses,
        nvml.nvmlDeviceGetGraphicsRunningProcesses,
        nvml.nvmlDeviceGetMPSComputeRunningProcesses,
    )
    for kind, listed in zip(kinds, lists, strict=True):
        (one,) = listed(two)
        assert vars(one) == {
            "pid": 1 << 30 | kind,
            "usedGpuMemory": kind * MIB_BYTES,
            "gpuInstanceId": 5,
            "computeInstanceId": 0,
        }
        assert listed(three) == []
        assert listed(gpu) == listed(two)
        (one,) = listed(other)
        assert (one.pid, one.gpuInstanceId) == (1 << 30 | kind, WHOLE_GPU)
    with state.edit() as machine:
        machine.gpus[0].processes_hidden = 1
    assert [listed(gpu) for listed in lists] == [[], [], []]


def test_an_instance_with_processes_is_in_use(make_state: MakeState, connect: Connect, spawn: Spawn) -> None:
    state = make_state("h100-sxm-80gb/7x1g.10gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    process = spawn(visible=state.slice_uuids()[3])
    busy = nvml.nvmlDeviceGetGpuInstanceById(gpu, 10)
    (part,) = nvml.compute_instances(busy, 0)
    with pytest.raises(pynvml.NVMLError_InUse):
        nvml.nvmlComputeInstanceDestroy(part)
    assert nvml.nvmlDeviceSetMigMode(gpu, 0) == pynvml.NVML_ERROR_IN_USE
    idle = nvml.nvmlDeviceGetGpuInstanceById(gpu, 11)
    nvml.nvmlComputeInstanceDestroy(*nvml.compute_instances(idle, 0))
    nvml.nvmlGpuInstanceDestroy(idle)
    process.kill()
    process.wait()
    nvml.nvmlComputeInstanceDestroy(part)
    nvml.nvmlGpuInstanceDestroy(busy)


def test_the_name_of_a_process_is_the_first_word_of_its_command(
    make_state: MakeState, connect: Connect, spawn: Spawn
) -> None:
    nvml = connect(make_state("a30"))
    assert nvml.nvmlSystemGetProcessName(spawn().pid) == "sleep"
    with pytest.raises(pynvml.NVMLError_NotFound):
        nvml.nvmlSystemGetProcessName(1 << 30)
