from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pynvml
import pytest

from tests.nvml_library.boards import DRIVEN
from tests.nvml_library.fixtures import Connect, MakeState

A100 = "a100-sxm-80gb"
MIB_BYTES = 1 << 20

READINGS: dict[str, tuple[str, Any]] = {
    "nvmlDeviceGetMinorNumber": ("minor_number", 5),
    "nvmlDeviceGetArchitecture": ("architecture", 9),
    "nvmlDeviceGetNumGpuCores": ("core_count", 16_896),
    "nvmlDeviceGetPowerUsage": ("power_mw", 102_345),
    "nvmlDeviceGetPowerManagementLimit": ("power_limit_mw", 650_000),
    "nvmlDeviceGetPowerManagementDefaultLimit": ("power_default_limit_mw", 700_000),
    "nvmlDeviceGetEnforcedPowerLimit": ("power_enforced_limit_mw", 600_000),
    "nvmlDeviceGetTotalEnergyConsumption": ("energy_mj", 1 << 40),
    "nvmlDeviceGetCurrentClocksEventReasons": ("clocks_event_reasons", 0x44),
    "nvmlDeviceGetCurrentClocksThrottleReasons": ("clocks_event_reasons", 0x44),
    "nvmlDeviceGetSupportedClocksEventReasons": ("supported_clocks_event_reasons", 0xFF),
    "nvmlDeviceGetSupportedClocksThrottleReasons": ("supported_clocks_event_reasons", 0xFF),
    "nvmlDeviceGetPersistenceMode": ("persistence_mode", 1),
    "nvmlDeviceGetComputeMode": ("compute_mode", 3),
    "nvmlDeviceGetPerformanceState": ("performance_state", 8),
    "nvmlDeviceGetCurrPcieLinkGeneration": ("pcie_generation", 3),
    "nvmlDeviceGetCurrPcieLinkWidth": ("pcie_width", 8),
}


def test_the_machine_has_versions_and_gpus(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(*DRIVEN))
    assert nvml.nvmlSystemGetDriverVersion() == "580.159.04"
    assert nvml.nvmlSystemGetNVMLVersion() == "13.580.159.04"
    assert nvml.nvmlSystemGetCudaDriverVersion_v2() == 13000
    assert nvml.nvmlDeviceGetCount() == len(DRIVEN)
    gpus = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(len(DRIVEN))]
    assert [nvml.nvmlDeviceGetName(gpu) for gpu in gpus] == [
        "NVIDIA A100-SXM4-80GB",
        "NVIDIA A30",
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H200",
    ]
    assert [nvml.nvmlDeviceGetIndex(gpu) for gpu in gpus] == [0, 1, 2, 3]
    assert [nvml.nvmlDeviceGetMinorNumber(gpu) for gpu in gpus] == [0, 1, 2, 3]
    assert [nvml.nvmlDeviceGetCudaComputeCapability(gpu) for gpu in gpus] == [(8, 0), (8, 0), (9, 0), (9, 0)]
    pci = nvml.nvmlDeviceGetPciInfo(gpus[2])
    assert (pci.busId, pci.busIdLegacy, pci.bus, pci.pciDeviceId) == ("00000000:08:00.0", "0000:08:00.0", 8, 0x233010DE)
    assert len({nvml.nvmlDeviceGetSerial(gpu) for gpu in gpus}) == 4
    for index in (4, 99):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.nvmlDeviceGetHandleByIndex(index)


def test_every_reading_is_the_one_that_was_asked_for(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h100-sxm-80gb", f"{A100}/7x1g.10gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(nvml.nvmlDeviceGetHandleByIndex(1), 0)
    with state.edit() as machine:
        for member, value in READINGS.values():
            setattr(machine.gpus[0], member, value)
        machine.gpus[0].clocks_mhz = (1, 2, 3, 4)
        machine.gpus[0].max_clocks_mhz = (5, 6, 7, 8)
        machine.gpus[0].temperature_thresholds_c = (95, 89, 94, 87)
        machine.gpus[0].temperature_c = 71
        machine.gpus[0].power_min_limit_mw, machine.gpus[0].power_max_limit_mw = 200_000, 700_000
        machine.gpus[0].remapped_rows = (1, 2, 3, 4)
        machine.gpus[0].ecc_current, machine.gpus[0].ecc_pending = 1, 0
        machine.gpus[0].utilization_gpu_percent, machine.gpus[0].utilization_memory_percent = 98, 41
    assert {name: getattr(nvml, name)(gpu) for name in READINGS} == {
        name: value for name, (_, value) in READINGS.items()
    }
    assert [nvml.nvmlDeviceGetClockInfo(gpu, kind) for kind in range(4)] == [1, 2, 3, 4]
    assert [nvml.nvmlDeviceGetMaxClockInfo(gpu, kind) for kind in range(4)] == [5, 6, 7, 8]
    assert [nvml.nvmlDeviceGetTemperatureThreshold(gpu, kind) for kind in range(4)] == [95, 89, 94, 87]
    assert nvml.nvmlDeviceGetTemperature(gpu, 0) == 71
    assert nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu) == [200_000, 700_000]
    assert nvml.nvmlDeviceGetRemappedRows(gpu) == (1, 2, 3, 4)
    assert nvml.nvmlDeviceGetEccMode(gpu) == [1, 0]
    assert vars(nvml.nvmlDeviceGetUtilizationRates(gpu)) == {"gpu": 98, "memory": 41}
    for call, argument, error in (
        (nvml.nvmlDeviceGetTemperature, 1, pynvml.NVMLError_InvalidArgument),
        (nvml.nvmlDeviceGetTemperatureThreshold, 4, pynvml.NVMLError_NotSupported),
        (nvml.nvmlDeviceGetTemperatureThreshold, 8, pynvml.NVMLError_InvalidArgument),
        (nvml.nvmlDeviceGetMaxClockInfo, 4, pynvml.NVMLError_InvalidArgument),
        (nvml.nvmlDeviceGetRetiredPages, 0, pynvml.NVMLError_NotSupported),
    ):
        with pytest.raises(error):
            call(gpu, argument)
    for name in (*READINGS, "nvmlDeviceGetPowerManagementLimitConstraints", "nvmlDeviceGetRemappedRows"):
        with pytest.raises(pynvml.NVMLError_NotSupported):  # a slice has no power or temperature of its own
            getattr(nvml, name)(mig)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu)


@pytest.mark.skipif(not hasattr(pynvml, "nvmlDeviceGetTemperatureV"), reason="this pynvml is older than the call")
def test_temperature_has_a_newer_call(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(A100))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetTemperatureV(gpu, pynvml.NVML_TEMPERATURE_GPU) == 39
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        nvml.nvmlDeviceGetTemperatureV(gpu, 1)


def test_utilization_is_not_supported_in_mig_mode(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state(f"{A100}/7x1g.10gb"))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    for device in (gpu, nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 3)):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            nvml.nvmlDeviceGetUtilizationRates(device)


def test_time_lost_to_each_policy_is_counted(make_state: MakeState, connect: Connect) -> None:
    state = make_state(A100)
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    with state.edit() as machine:
        machine.gpus[0].violation_ns = tuple(range(100, 112))
    policies = (0, 1, 2, 3, 4, 5, 10, 11)
    found = [nvml.nvmlDeviceGetViolationStatus(gpu, policy) for policy in policies]
    assert [one.violationTime for one in found] == [100 + policy for policy in policies]
    assert all(abs(one.referenceTime / 1e6 - time.time()) < 60 for one in found)
    fields = nvml.nvmlDeviceGetFieldValues(gpu, list(range(74, 82)))
    assert [one.value.ullVal for one in fields] == [100 + policy for policy in policies]
    for policy in (6, 9, 12):
        with pytest.raises(pynvml.NVMLError_InvalidArgument):
            nvml.nvmlDeviceGetViolationStatus(gpu, policy)


def test_fields_have_types_and_results_of_their_own(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h200-sxm-141gb", f"{A100}/7x1g.10gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    with state.edit() as machine:
        one = machine.gpus[0]
        one.energy_mj, one.memory_temperature_c = 1 << 33, 66
        one.sw_thermal_ns, one.hw_thermal_ns, one.hw_power_brake_ns = 1 << 34, 1 << 35, 1 << 36
        one.field_faults[0].id, one.field_faults[0].result = 270, pynvml.NVML_ERROR_NOT_SUPPORTED
    wanted = [82, 83, 184, 186, 187, 188, 189, 190, 191, 199, 269, 270, 271, 160, 9999]
    values = nvml.nvmlDeviceGetFieldValues(gpu, wanted)
    assert [one.fieldId for one in values] == wanted
    assert [one.nvmlReturn for one in values] == [0] * 11 + [3, 0, 3, 2]
    assert [one.valueType for one in values] == [1, 3, 1, 1, 1, 1, 1, 1, 3, 1, 3, 0, 3, 0, 0]
    assert [one.value.ullVal for one in values] == [
        *(66, 1 << 33, 1, 103_838, 200_000, 700_000, 700_000, 700_000, 1 << 33, 1, 1 << 34, 0, 1 << 36, 0, 0)
    ]
    scoped = nvml.nvmlDeviceGetFieldValues(gpu, [(83, 7)])
    assert (scoped[0].scopeId, scoped[0].nvmlReturn) == (7, 0)
    slices = nvml.nvmlDeviceGetMigDeviceHandleByIndex(nvml.nvmlDeviceGetHandleByIndex(1), 0)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        nvml.nvmlDeviceGetFieldValues(slices, [83])


def test_errors_of_memory_are_counted_by_kind_and_place(make_state: MakeState, connect: Connect) -> None:
    state = make_state(f"{A100}/7x1g.10gb")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    with state.edit() as machine:
        machine.gpus[0].ecc_errors[0][1][0] = 7
        machine.gpus[0].ecc_errors[1][0][0] = 2
        machine.gpus[0].ecc_errors[1][0][1] = 3
        machine.gpus[0].gpu_instances[0].sram_errors = 1
    total, at = nvml.nvmlDeviceGetTotalEccErrors, nvml.nvmlDeviceGetMemoryErrorCounter
    assert [[total(gpu, error, counter) for counter in (0, 1)] for error in (0, 1)] == [[0, 7], [5, 0]]
    assert (at(gpu, 1, 0, 2), at(gpu, 1, 0, 7), at(gpu, 0, 1, 2)) == (2, 3, 7)
    assert (total(mig, 1, 0), at(mig, 1, 0, 7)) == (1, 1)
    for place in (0, 1, 3, 4, 5, 6):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            at(gpu, 1, 0, place)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        at(gpu, 1, 0, 8)
    for call, *arguments in ((total, 0, 0), (total, 1, 1), (at, 1, 0, 2)):
        with pytest.raises(pynvml.NVMLError_NotSupported):
            call(mig, *arguments)
    with pytest.raises(pynvml.NVMLError_InvalidArgument):
        total(gpu, 2, 0)
    with state.edit() as machine:
        machine.gpus[0].ecc_current = 0
    with pytest.raises(pynvml.NVMLError_NotSupported):
        total(gpu, 1, 0)


def test_mig_devices_are_enumerated_by_gpu_instance(make_state: MakeState, connect: Connect) -> None:
    state = make_state(f"{A100}/3g.40gb,2g.20gb,2x1g.10gb", "h100-sxm-80gb/2x3g.40gb", "a30/4x1g.6gb")
    nvml = connect(state)
    found = []
    for index in range(3):
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        for place, uuid in enumerate(state.slice_uuids(index)):
            device = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
            attributes = nvml.nvmlDeviceGetAttributes(device)
            found.append(
                (
                    nvml.nvmlDeviceGetName(device),
                    nvml.nvmlDeviceGetGpuInstanceId(device),
                    nvml.nvmlDeviceGetComputeInstanceId(device),
                    attributes.multiprocessorCount,
                    attributes.memorySizeMB,
                )
            )
            assert nvml.nvmlDeviceGetUUID(device) == uuid
            assert nvml.nvmlDeviceGetIndex(device) == place
            assert nvml.nvmlDeviceIsMigDeviceHandle(device) == 1
            assert nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device) == gpu
            assert nvml.nvmlDeviceGetHandleByUUID(uuid) == device
        with pytest.raises(pynvml.NVMLError_NotFound):
            nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, len(state.slice_uuids(index)))
    assert found == [
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", 2, 0, 42, 40192),
        ("NVIDIA A100-SXM4-80GB MIG 2g.20gb", 3, 0, 28, 19968),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 9, 0, 14, 9728),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", 10, 0, 14, 9728),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 1, 0, 60, 40448),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", 2, 0, 60, 40448),
        ("NVIDIA A30 MIG 1g.6gb", 3, 0, 14, 5952),
        ("NVIDIA A30 MIG 1g.6gb", 4, 0, 14, 5952),
        ("NVIDIA A30 MIG 1g.6gb", 5, 0, 14, 5952),
        ("NVIDIA A30 MIG 1g.6gb", 6, 0, 14, 5952),
    ]
    assert [nvml.nvmlDeviceGetMaxMigDeviceCount(nvml.nvmlDeviceGetHandleByIndex(index)) for index in range(3)] == [
        7,
        7,
        4,
    ]


def test_devices_have_an_older_name_and_strangers_none(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30/4x1g.6gb", "a30")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceGetUUID(gpu) == state.gpu_uuid() != state.gpu_uuid(1)
    third = nvml.nvmlDeviceGetHandleByUUID(f"MIG-{state.gpu_uuid()}/5/0")
    assert third == nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 2)
    assert nvml.nvmlDeviceGetHandleByUUID(state.gpu_uuid(1)) == nvml.nvmlDeviceGetHandleByIndex(1)
    for name in (f"MIG-{state.gpu_uuid()}/7/0", f"MIG-{state.gpu_uuid(1)}/3/0", "MIG-", "GPU-", "nonsense", ""):
        with pytest.raises(pynvml.NVMLError_NotFound):
            nvml.nvmlDeviceGetHandleByUUID(name)


def test_a_whole_gpu_is_no_mig_device(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("h200-sxm-141gb"))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    assert nvml.nvmlDeviceIsMigDeviceHandle(gpu) == 0
    for call, error in (
        (nvml.nvmlDeviceGetAttributes, pynvml.NVMLError_NotSupported),
        (nvml.nvmlDeviceGetGpuInstanceId, pynvml.NVMLError_InvalidArgument),
        (nvml.nvmlDeviceGetComputeInstanceId, pynvml.NVMLError_InvalidArgument),
        (nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, pynvml.NVMLError_InvalidArgument),
    ):
        with pytest.raises(error):
            call(gpu)
    for index in (0, 99):
        with pytest.raises(pynvml.NVMLError_NotFound):
            nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, index)


def test_memory_counts_what_is_reserved_in_one_version_only(make_state: MakeState, connect: Connect) -> None:
    state = make_state("h200-sxm-141gb", f"{A100}/3g.40gb,2g.20gb")
    nvml = connect(state)
    gpu, cut = (nvml.nvmlDeviceGetHandleByIndex(index) for index in (0, 1))
    with state.edit() as machine:
        machine.gpus[0].memory_used_bytes = 1000 * MIB_BYTES
        machine.gpus[1].gpu_instances[1].memory_used_bytes = 500 * MIB_BYTES
    total = 143771 * MIB_BYTES
    assert vars(nvml.nvmlDeviceGetMemoryInfo(gpu)) == {
        "total": total,
        "used": 1615 * MIB_BYTES,
        "free": total - 1615 * MIB_BYTES,
    }
    assert vars(nvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2)) == {
        "version": pynvml.nvmlMemory_v2,
        "total": total,
        "reserved": 615 * MIB_BYTES,
        "used": 1000 * MIB_BYTES,
        "free": total - 1615 * MIB_BYTES,
    }
    with pytest.raises(pynvml.NVMLError_FunctionNotFound):
        nvml.nvmlDeviceGetMemoryInfo(gpu, version=pynvml.nvmlMemory_v2 - 1)
    sliced = [nvml.nvmlDeviceGetMemoryInfo(nvml.nvmlDeviceGetMigDeviceHandleByIndex(cut, index)) for index in (0, 1)]
    assert [(one.total, one.used) for one in sliced] == [
        (40192 * MIB_BYTES, 13 * MIB_BYTES),
        (19968 * MIB_BYTES, 500 * MIB_BYTES),
    ]
    assert nvml.nvmlDeviceGetMemoryInfo(cut).used == (633 + 513) * MIB_BYTES


def test_text_must_find_room(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30"))
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    for function in ("nvmlDeviceGetName", "nvmlDeviceGetUUID"):
        assert nvml.into_4_bytes(function, gpu) == pynvml.NVML_ERROR_INSUFFICIENT_SIZE


def test_errors_that_pynvml_cannot_name_are_named(make_state: MakeState, connect: Connect) -> None:
    nvml = connect(make_state("a30"))
    assert nvml.nvmlErrorString(pynvml.NVML_ERROR_IN_USE) == "In use by another client"
    assert nvml.nvmlErrorString(pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES) == "Insufficient Resources"


def test_a_lost_gpu_answers_nothing_and_the_others_do(make_state: MakeState, connect: Connect) -> None:
    state = make_state("a30/4x1g.6gb", "a30")
    nvml = connect(state)
    gpu = nvml.nvmlDeviceGetHandleByIndex(0)
    mig = nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 0)
    state.lose()
    asked: list[tuple[Callable[..., Any], Any]] = [
        (nvml.nvmlDeviceGetName, gpu),
        (nvml.nvmlDeviceGetPowerUsage, gpu),
        (nvml.nvmlDeviceGetMigMode, gpu),
        (nvml.nvmlDeviceGetComputeRunningProcesses, mig),
        (nvml.nvmlDeviceGetMemoryInfo, mig),
        (nvml.nvmlDeviceGetHandleByIndex, 0),
        (nvml.nvmlDeviceGetHandleByUUID, state.gpu_uuid()),
        (nvml.nvmlDeviceGetHandleByUUID, state.slice_uuids()[0]),
    ]
    for call, argument in asked:
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            call(argument)
    assert nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(1)) == "NVIDIA A30"
    state.lose(lost=False)
    assert nvml.nvmlDeviceGetName(gpu) == "NVIDIA A30"
