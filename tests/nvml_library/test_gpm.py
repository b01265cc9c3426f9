from __future__ import annotations

import math
import time

import pynvml
import pytest

from tests.nvml_library.fixtures import Connect, MakeState
from tests.nvml_library.remote import Handle, Remote

SM, DRAM, PCIE, UNKNOWN_HERE, UNKNOWN = 2, 10, 20, 8, 400
LONG_ENOUGH_S = 0.1


def sample(nvml: Remote, device: Handle) -> Handle:
    taken: Handle = nvml.nvmlGpmSampleGet(device, nvml.nvmlGpmSampleAlloc())
    return taken


def test_metrics_are_what_the_gpu_does_between_two_samples(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h100-sxm-80gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    first = sample(nvml, gpu)
    with state.edit() as machine:
        for metric in machine.gpus[0].metrics:
            metric.value = metric.id * 1.5
    time.sleep(LONG_ENOUGH_S)
    second = sample(nvml, gpu)
    with state.edit() as machine:
        machine.gpus[0].metrics[0].value = 99.0
    assert nvml.metrics(first, second, PCIE, SM, UNKNOWN_HERE, DRAM, UNKNOWN) == [
        (0, 30.0, "pcitx", "MiB/s"),
        (0, 3.0, "smutil", "%"),
        (0, 0.0, None, "%"),
        (0, 15.0, "dram", "%"),
        (pynvml.NVML_ERROR_INVALID_ARGUMENT, 0.0, None, None),
    ]


def test_samples_that_are_too_close_measure_nothing(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h200-sxm-141gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    with state.edit() as machine:
        for metric in machine.gpus[0].metrics:
            metric.value = 50.0
    one = sample(nvml, gpu)  # compared with itself, however slow this machine is
    (_, sm, *_), (_, dram, *_) = nvml.metrics(one, one, SM, DRAM)
    assert sm == 0
    assert math.isnan(dram)


def test_each_gpu_instance_is_measured_by_itself(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h100-sxm-80gb/2x3g.40gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    devices = [nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index) for index in (0, 1)]
    before = [sample(nvml, device) for device in (*devices, gpu)]
    with state.edit() as machine:
        machine.gpus[0].gpu_instances[0].metrics[1].value = 11.0
        machine.gpus[0].gpu_instances[1].metrics[1].value = 22.0
        machine.gpus[0].metrics[1].value = 16.5
    time.sleep(LONG_ENOUGH_S)
    after = [sample(nvml, device) for device in (*devices, gpu)]
    by_id = nvml.nvmlGpmMigSampleGet(gpu, 2, nvml.nvmlGpmSampleAlloc())
    pairs = [*zip(before, after, strict=True), (before[1], by_id)]
    assert [nvml.metrics(*pair, SM)[0][1] for pair in pairs] == [11.0, 22.0, 16.5, 22.0]
    for absent in (0, 9):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.nvmlGpmMigSampleGet(gpu, absent, by_id)
    state.remake(state.slice_uuids()[0])
    assert nvml.metrics(before[0], sample(nvml, devices[0]), SM)[0][1] == 11.0  # the GPU instance is still there
    state.recut("")
    with pytest.raises(pynvml.NVMLError_NotFound):
        sample(nvml, devices[0])


def test_instances_made_by_the_library_are_measured_too(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("h100-sxm-80gb/"))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    nvml.nvmlDeviceCreateGpuInstance(gpu, 9)
    one = nvml.nvmlGpmMigSampleGet(gpu, 2, nvml.nvmlGpmSampleAlloc())
    assert nvml.metrics(one, one, SM) == [(0, 0.0, "smutil", "%")]


def test_a_board_before_hopper_has_none(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a100-sxm-80gb", "h100-sxm-80gb"))
    old, new = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    assert [nvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice for gpu in (old, new)] == [0, 1]
    with pytest.raises(pynvml.NVMLError_NotSupported):
        sample(nvml, old)


def test_samples_must_be_taken_and_of_this_session(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("h100-sxm-80gb"))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    empty, one = nvml.nvmlGpmSampleAlloc(), sample(nvml, gpu)
    later = sample(nvml, gpu)
    for pair in ((empty, one), (one, empty), (later, one)):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.metrics(*pair, SM)
    with pytest.raises(pynvml.NVMLError) as refusal:
        nvml.metrics(one, later, SM, version=2)
    assert refusal.value.value == pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
    nvml.nvmlGpmSampleFree(one)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlGpmSampleFree(one)
    nvml.nvmlShutdown()
    nvml.nvmlInit()
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlGpmSampleGet(nvml.nvmlDeviceGetHandleByIndex(0), later)
