"""What takes more than one line of pynvml: arrays that the caller brings, structures that it fills in."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pynvml

_ROOM = 16


def placements(device: Any, profile_id: int) -> list[tuple[int, int]]:
    """Start and size of every place for a GPU instance."""
    return _places(pynvml.nvmlDeviceGetGpuInstancePossiblePlacements, device, profile_id)


def compute_placements(gpu_instance: Any, profile_id: int) -> list[tuple[int, int]]:
    """Start and size of every place for a compute instance."""
    return _places(pynvml.nvmlGpuInstanceGetComputeInstancePossiblePlacements, gpu_instance, profile_id)


def _places(call: Any, of: Any, profile_id: int) -> list[tuple[int, int]]:
    count = ctypes.c_uint()
    call(of, profile_id, None, ctypes.byref(count))
    found = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    call(of, profile_id, found, ctypes.byref(count))
    return [(one.start, one.size) for one in found[: count.value]]


def create_at(device: Any, profile_id: int, start: int, size: int) -> Any:
    """A new GPU instance in that place."""
    place = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    return pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile_id, ctypes.byref(place))


def compute_create_at(gpu_instance: Any, profile_id: int, start: int, size: int) -> Any:
    """A new compute instance in that place."""
    place = pynvml.c_nvmlComputeInstancePlacement_t(start, size)
    return pynvml.nvmlGpuInstanceCreateComputeInstanceWithPlacement(gpu_instance, profile_id, ctypes.byref(place))


def gpu_instances(device: Any, profile_id: int) -> list[Any]:
    """All GPU instances of a profile."""
    return _instances(pynvml.nvmlDeviceGetGpuInstances, pynvml.c_nvmlGpuInstance_t, device, profile_id)


def compute_instances(gpu_instance: Any, profile_id: int) -> list[Any]:
    """All compute instances of a profile."""
    kind = pynvml.c_nvmlComputeInstance_t
    return _instances(pynvml.nvmlGpuInstanceGetComputeInstances, kind, gpu_instance, profile_id)


def _instances(call: Any, kind: Any, of: Any, profile_id: int) -> list[Any]:
    found, count = (kind * _ROOM)(), ctypes.c_uint(_ROOM)
    call(of, profile_id, found, ctypes.byref(count))
    return [found[index] for index in range(count.value)]


def metrics(first: Any, second: Any, *wanted: int, version: int = 1) -> list[tuple[int, float, str | None, str | None]]:
    """Result, value, short name and unit of GPM metrics between two samples."""
    asked = pynvml.c_nvmlGpmMetricsGet_t(version=version, numMetrics=len(wanted), sample1=first, sample2=second)
    for place, number in enumerate(wanted):
        asked.metrics[place].metricId = number
    pynvml.nvmlGpmMetricsGet(asked)
    return [
        (one.nvmlReturn, one.value, _text(one.metricInfo.shortName), _text(one.metricInfo.unit))
        for one in asked.metrics[: len(wanted)]
    ]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def has(function: str) -> bool:
    """Whether the library has that function."""
    return hasattr(pynvml.nvmlLib, function)


def into_4_bytes(function: str, of: Any) -> int:
    """What a C function returns that should write text where only 4 bytes are."""
    return int(getattr(pynvml.nvmlLib, function)(of, ctypes.create_string_buffer(4), ctypes.c_uint(4)))


def counts_after_fork() -> tuple[int, int]:
    """The number of GPUs as a forked child and then its parent see it; -1 where that fails."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(pynvml.nvmlDeviceGetCount())
        finally:
            os._exit(255)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), pynvml.nvmlDeviceGetCount()


def mapped_libraries() -> list[str]:
    """The files of NVML that this process has loaded."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[-1] for line in lines if "libnvidia-ml" in line})
