"""The gateway to NVML: the calls that are used, their errors, and nothing else; the only importer of `pynvml`.

`Library` lists the calls with the names and parameters of `pynvml`, which implements it as it is; the simulator
implements it too. What the calls return is `pynvml`'s own (ctypes structures with these fields, or look-alikes).
"""
# ruff: noqa: N802, N803 - the names are NVML's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

import pynvml
from pynvml import NVMLError

from heteromig.core.errors import PreflightError
from heteromig.slices.source import EXAMPLE_SIMULATOR

__all__ = [
    "CLOCK_MEMORY",
    "CLOCK_SM",
    "ERROR_DRIVER_NOT_LOADED",
    "ERROR_FUNCTION_NOT_FOUND",
    "ERROR_GPU_IS_LOST",
    "ERROR_INVALID_ARGUMENT",
    "ERROR_LIBRARY_NOT_FOUND",
    "ERROR_NOT_FOUND",
    "ERROR_NOT_SUPPORTED",
    "ERROR_NO_PERMISSION",
    "ERROR_TIMEOUT",
    "ERROR_UNINITIALIZED",
    "EVENT_DOUBLE_BIT_ECC",
    "EVENT_GPU_UNAVAILABLE",
    "EVENT_MIG_CONFIG_CHANGE",
    "EVENT_XID",
    "FIELD_HW_POWER_BRAKE",
    "FIELD_HW_THERMAL",
    "FIELD_POWER_CAP",
    "FIELD_SW_THERMAL",
    "FIELD_THERMAL",
    "GPM_DRAM",
    "GPM_PCIE_RX",
    "GPM_PCIE_TX",
    "GPM_SM",
    "GPM_TENSOR",
    "TEMPERATURE_GPU",
    "Handle",
    "Library",
    "NVMLError",
    "Unread",
    "field_integer",
    "gpm_request",
    "gpm_sample",
    "gpm_sample_number",
    "load",
    "reading",
    "reopen",
    "required",
    "supported",
    "text",
    "why_not",
]

ERROR_UNINITIALIZED: int = pynvml.NVML_ERROR_UNINITIALIZED
ERROR_INVALID_ARGUMENT: int = pynvml.NVML_ERROR_INVALID_ARGUMENT
ERROR_NOT_SUPPORTED: int = pynvml.NVML_ERROR_NOT_SUPPORTED
ERROR_NO_PERMISSION: int = pynvml.NVML_ERROR_NO_PERMISSION
ERROR_NOT_FOUND: int = pynvml.NVML_ERROR_NOT_FOUND
ERROR_DRIVER_NOT_LOADED: int = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
ERROR_TIMEOUT: int = pynvml.NVML_ERROR_TIMEOUT
ERROR_FUNCTION_NOT_FOUND: int = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
ERROR_LIBRARY_NOT_FOUND: int = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
ERROR_GPU_IS_LOST: int = pynvml.NVML_ERROR_GPU_IS_LOST

TEMPERATURE_GPU: int = pynvml.NVML_TEMPERATURE_GPU
CLOCK_SM: int = pynvml.NVML_CLOCK_SM
CLOCK_MEMORY: int = pynvml.NVML_CLOCK_MEM

GPM_SM: int = pynvml.NVML_GPM_METRIC_SM_UTIL
GPM_TENSOR: int = pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL
GPM_DRAM: int = pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL
GPM_PCIE_TX: int = pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC
GPM_PCIE_RX: int = pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC

EVENT_XID: int = pynvml.nvmlEventTypeXidCriticalError
EVENT_DOUBLE_BIT_ECC: int = pynvml.nvmlEventTypeDoubleBitEccError
EVENT_MIG_CONFIG_CHANGE = 0x100
"""nvml.h; older releases of pynvml have no name for it."""
EVENT_GPU_UNAVAILABLE = 0x4000
"""nvml.h; older releases of pynvml have no name for it."""

# nvml.h, NVML_FI_DEV_PERF_POLICY_* and NVML_FI_DEV_CLOCKS_EVENT_REASON_*; older releases of pynvml name none of the
# latter. Each counts nanoseconds for which clocks were lowered for that reason.
FIELD_POWER_CAP = 74
FIELD_THERMAL = 75
FIELD_SW_THERMAL = 269
FIELD_HW_THERMAL = 270
FIELD_HW_POWER_BRAKE = 271

_INTEGERS = {1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
"""Members of nvmlValue_t by nvmlValueType_t."""

_CANNOT_SAY = frozenset(
    {
        ERROR_INVALID_ARGUMENT,
        ERROR_NOT_SUPPORTED,
        ERROR_NO_PERMISSION,
        ERROR_NOT_FOUND,
        ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_INSUFFICIENT_SIZE,  # of a list that grew faster than pynvml made room for it
        pynvml.NVML_ERROR_NO_DATA,
        pynvml.NVML_ERROR_UNKNOWN,
    }
)
"""Errors that concern one reading. All others (a lost GPU, an unloaded driver) concern the device."""

_WHY_NOT = {
    ERROR_NOT_SUPPORTED: "this board or its driver does not have it",
    ERROR_NO_PERMISSION: (
        "this user may not read it: run as root, or have the administrator open "
        "/proc/driver/nvidia/capabilities/mig/monitor to others"
    ),
    ERROR_FUNCTION_NOT_FOUND: "library too old: a newer driver has it",
}

Handle = Any
"""An opaque device handle; invalid after the library was opened anew."""

_T = TypeVar("_T")


class Library(Protocol):
    """The part of NVML in use, as `pynvml` spells it. Every call may raise `NVMLError`."""

    def nvmlInit(self) -> None:
        """Open a session; the partitioning seen through it is that of this moment."""

    def nvmlShutdown(self) -> None:
        """Close the session: handles and event sets are invalid afterwards."""

    def nvmlSystemGetDriverVersion(self) -> str | bytes:
        """Such as `580.159.04`."""
        ...

    def nvmlDeviceGetCount(self) -> int:
        """Number of physical GPUs."""
        ...

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        """One physical GPU."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle:
        """One GPU or MIG device."""

    def nvmlDeviceGetName(self, handle: Handle) -> str | bytes:
        """The product, followed by ` MIG <profile>` for a MIG device."""
        ...

    def nvmlDeviceGetUUID(self, handle: Handle) -> str | bytes:
        """What CUDA_VISIBLE_DEVICES takes."""
        ...

    def nvmlDeviceGetMigMode(self, device: Handle) -> list[int]:
        """Current and pending mode; not supported where the board has no MIG."""
        ...

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Handle) -> int:
        """How many MIG devices there can be, not how many there are; 0 while MIG is off."""
        ...

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Handle, index: int) -> Handle:
        """One MIG device; indices may have holes."""

    def nvmlDeviceGetGpuInstanceId(self, device: Handle) -> int:
        """GPU instance of a MIG device."""
        ...

    def nvmlDeviceGetComputeInstanceId(self, device: Handle) -> int:
        """Compute instance of a MIG device, within its GPU instance."""
        ...

    def nvmlDeviceGetAttributes(self, device: Handle) -> Any:
        """`.multiprocessorCount` and `.memorySizeMB` of a MIG device."""

    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None) -> Any:
        """`.total`, `.used` and `.free` in bytes."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        """`.pid` and `.usedGpuMemory` of each process with a context there."""
        ...

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        """The same for clients of an MPS server."""
        ...

    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: list[int]) -> Any:
        """`.fieldId`, `.nvmlReturn`, `.valueType` and `.value` of each field."""

    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int:
        """Milliwatts."""
        ...

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> int:
        """Millijoules since the driver was loaded."""
        ...

    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> int:
        """Degrees Celsius."""
        ...

    def nvmlDeviceGetClockInfo(self, handle: Handle, type: int) -> int:  # noqa: A002 - pynvml calls it so
        """MHz."""
        ...

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> int:
        """Bit mask of why clocks are not higher."""
        ...

    def nvmlGpmQueryDeviceSupport(self, device: Handle) -> Any:
        """`.isSupportedDevice`: whether this GPU has GPM, as those have from Hopper on."""

    def nvmlGpmSampleAlloc(self) -> Any:
        """Room for a sample of GPM's counters, good for this session; to be given back."""

    def nvmlGpmSampleFree(self, gpmSample: Any) -> None:
        """Give it back."""

    def nvmlGpmSampleGet(self, device: Handle, gpmSample: Any) -> Any:
        """Put the counters of a whole GPU into the sample."""

    def nvmlGpmMigSampleGet(self, device: Handle, gpuInstanceId: int, gpmSample: Any) -> Any:
        """Put the counters of one GPU instance of a GPU into the sample."""

    def nvmlGpmMetricsGet(self, metricsGet: Any) -> Any:
        """What was done between two samples: fills in and returns what `gpm_request` makes."""

    def nvmlDeviceGetSupportedEventTypes(self, handle: Handle) -> int:
        """Bit mask of events that can be registered."""
        ...

    def nvmlEventSetCreate(self) -> Any:
        """An empty set of events to wait for."""

    def nvmlDeviceRegisterEvents(self, handle: Handle, eventTypes: int, eventSet: Any) -> None:
        """Collect these events of one physical GPU from now on."""

    def nvmlEventSetWait(self, eventSet: Any, timeoutms: int) -> Any:
        """`.device`, `.eventType` and `.eventData` of the next event; raises a timeout where there is none."""

    def nvmlEventSetFree(self, eventSet: Any) -> None:
        """Forget the set."""


def load() -> Library:
    """The real one; not opened yet, so this works without a driver."""
    library: Library = pynvml
    return library


def reopen(library: Library) -> None:
    """Close the session if there is one, and open a new one.

    NVML reads the partitioning once a session: when another process destroys a MIG device, an old session still hands
    it out. It costs 10 ms on an H100 (driver 580); handles and event sets do not survive it.

    Raises:
        PreflightError: there is no NVML or no driver, or it is too old.
    """
    try:
        required(library.nvmlShutdown)
    except NVMLError as error:
        if error.value not in (ERROR_UNINITIALIZED, ERROR_LIBRARY_NOT_FOUND):
            raise
    try:
        required(library.nvmlInit)
    except NVMLError as error:
        if error.value == ERROR_LIBRARY_NOT_FOUND:
            raise PreflightError(
                "NVML (libnvidia-ml.so.1) is not on this machine: install NVIDIA's driver, or, to see a run without "
                f"a GPU, use {EXAMPLE_SIMULATOR}."
            ) from error
        raise PreflightError(
            f"NVIDIA's driver does not answer (NVML says: {error}): check that it is loaded with nvidia-smi, or, to "
            f"see a run without a GPU, use {EXAMPLE_SIMULATOR}."
        ) from error


def required(call: Callable[..., _T], *args: Any) -> _T:
    """What the call returns, of those without which no run can be: sessions, enumeration, MIG mode, who computes.

    Raises:
        PreflightError: the library has no such call.
        NVMLError: anything else.
    """
    try:
        return call(*args)
    except pynvml.NVMLLibraryMismatchError as error:  # see `reading`
        raise _too_old(call) from error
    except NVMLError as error:
        if error.value == ERROR_FUNCTION_NOT_FOUND:
            raise _too_old(call) from error
        raise


def _too_old(call: Callable[..., object]) -> PreflightError:
    return PreflightError(
        f"NVIDIA's driver is too old, its NVML library has no {call.__name__}: install a newer driver, or, to see a "
        f"run without a GPU, use {EXAMPLE_SIMULATOR}."
    )


def text(value: str | bytes) -> str:
    """NVML's strings are bytes in some releases of `pynvml`."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class Unread(NamedTuple):
    """There is no such reading: `code` is NVML's error, `reason` the end of a sentence for people."""

    code: int
    reason: str


def why_not(code: int) -> Unread:
    """What NVML's error says of a reading."""
    return Unread(code, _WHY_NOT.get(code) or f"NVML says: {NVMLError(code)}")


def field_integer(field: Any) -> int | Unread:
    """The integer that a field holds, such as nanoseconds, or why this board or driver does not have it."""
    if field.nvmlReturn != 0:
        return why_not(field.nvmlReturn)
    member = _INTEGERS.get(field.valueType)
    return Unread(ERROR_NOT_SUPPORTED, "NVML gave no integer") if member is None else int(getattr(field.value, member))


def reading(call: Callable[..., _T], *args: Any) -> _T | Unread:
    """What the call returns, or why this board, driver or user cannot have that reading.

    Raises:
        NVMLError: the device itself is in trouble, such as a lost GPU.
    """
    try:
        return call(*args)
    except pynvml.NVMLLibraryMismatchError:  # pynvml's own, for a driver too old for the call
        return why_not(ERROR_FUNCTION_NOT_FOUND)
    except NVMLError as error:
        if error.value in _CANNOT_SAY:
            return why_not(error.value)
        raise


def supported(call: Callable[..., _T], *args: Any) -> _T | None:
    """What the call returns, or None where this board, driver or user cannot have that reading; see `reading`.

    Raises:
        NVMLError: the device itself is in trouble, such as a lost GPU.
    """
    found = reading(call, *args)
    return None if isinstance(found, Unread) else found


def gpm_request(first: Any, second: Any, metrics: tuple[int, ...]) -> Any:
    """A question for `nvmlGpmMetricsGet`, good for one time: what it does not answer must not look answered.

    The answer has `.metrics` in the order asked for: `.nvmlReturn`, `.value`, and `.metricInfo.shortName`, which is
    None where the board does not have that metric.
    """
    asked = pynvml.c_nvmlGpmMetricsGet_t.from_buffer_copy(_blank_request(metrics))
    asked.sample1, asked.sample2 = first, second
    return asked


@lru_cache
def _blank_request(metrics: tuple[int, ...]) -> Any:
    asked = pynvml.c_nvmlGpmMetricsGet_t(version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=len(metrics))
    for place, metric in enumerate(metrics):
        asked.metrics[place].metricId = metric
    return asked


def gpm_sample(number: int) -> Any:
    """A handle of a GPM sample, for libraries that are not NVIDIA's; `number` is not 0."""
    return ctypes.cast(ctypes.c_void_p(number), pynvml.c_nvmlGpmSample_t)


def gpm_sample_number(sample: Any) -> int:
    """The number that `gpm_sample` made the handle of."""
    return ctypes.cast(sample, ctypes.c_void_p).value or 0
