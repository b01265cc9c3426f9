"""The calls of NVML that cut a GPU, as `pynvml` spells them, and their arguments by reference.

`pynvml` passes placements and lists on to C as they are: what is missing around them is here, so that nothing above
needs `ctypes`. The simulator implements the same calls.
"""
# ruff: noqa: N802, N803 - the names are NVML's

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol, cast

from heteromig.slices import nvml
from heteromig.slices.nvml import Handle, Library, NVMLError

ERROR_FUNCTION_NOT_FOUND = 13
ERROR_RESET_REQUIRED = 16
ERROR_IN_USE = 19
ERROR_INSUFFICIENT_RESOURCES = 23
"""nvml.h, nvmlReturn_t."""

FIELD_RESETLESS_MIG = 184
"""nvml.h, NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED: the MIG mode changes without a reset of the GPU."""

GPU_PROFILES = 0x20
COMPUTE_PROFILES = 0x10
"""How many numbers of profiles to ask for. nvml.h ends at 0x12 and 9; whatever comes after is refused one by one."""

_SHARED_ENGINES = 0  # nvml.h, NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED, the only one
_NO_PROFILE = 0xFFFFFFFF

_LIST_ROOM = 64
"""Instances of one profile that a list has room for: NVML fills in as many as there are without being told how many
may be, and no GPU has more than seven."""


class Placement(ctypes.Structure):
    """nvmlGpuInstancePlacement_t and nvmlComputeInstancePlacement_t, which are the same."""

    _fields_ = (("start", ctypes.c_uint), ("size", ctypes.c_uint))


class PartitionLibrary(Library, Protocol):
    """The part of NVML that cuts GPUs. Every call may raise `NVMLError`; most need a privileged user."""

    def nvmlDeviceSetMigMode(self, device: Handle, mode: int) -> int:
        """Turn MIG on or off; what came of it is returned, 0 where it is in force now."""
        ...

    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: list[int]) -> Any:
        """`.nvmlReturn` and `.value` of each field."""

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:
        """`.pciDeviceId`: device above vendor."""

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Handle) -> list[Any]:
        """Like nvmlDeviceGetComputeRunningProcesses."""
        ...

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        """Like nvmlDeviceGetComputeRunningProcesses."""
        ...

    def nvmlDeviceGetGpuInstanceProfileInfo(self, device: Handle, profile: int, version: int = 2) -> Any:
        """A profile by its number, which is not its id; version 1 has no `.name`."""

    def nvmlDeviceGetGpuInstancePossiblePlacements(
        self, device: Handle, profileId: int, placementsRef: Any, countRef: Any
    ) -> Any:
        """Fills in places and their number; None for the former asks for the latter alone."""

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, device: Handle, profileId: int, placement: Any) -> Handle:
        """A new GPU instance."""

    def nvmlGpuInstanceDestroy(self, gpuInstance: Handle) -> Any:
        """Fails while it has compute instances."""

    def nvmlDeviceGetGpuInstances(self, device: Handle, profileId: int, gpuInstancesRef: Any, countRef: Any) -> Any:
        """Fills in the GPU instances of a profile and their number."""

    def nvmlGpuInstanceGetInfo(self, gpuInstance: Handle) -> Any:
        """`.id`, `.profileId` and `.placement`."""

    def nvmlGpuInstanceGetComputeInstanceProfileInfo(
        self, device: Handle, profile: int, engProfile: int, version: int = 2
    ) -> Any:
        """A profile of compute instances by its number: `.id` and `.sliceCount`. `device` is a GPU instance."""

    def nvmlGpuInstanceCreateComputeInstance(self, gpuInstance: Handle, profileId: int) -> Handle:
        """A new compute instance, wherever there is room."""

    def nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        self, gpuInstance: Handle, profileId: int, placement: Any
    ) -> Handle:
        """A new compute instance."""

    def nvmlComputeInstanceDestroy(self, computeInstance: Handle) -> Any:
        """Fails while a process uses it."""

    def nvmlGpuInstanceGetComputeInstances(
        self, gpuInstance: Handle, profileId: int, computeInstancesRef: Any, countRef: Any
    ) -> Any:
        """Fills in the compute instances of a profile and their number."""

    def nvmlComputeInstanceGetInfo(self, computeInstance: Handle) -> Any:
        """`.id`, `.profileId` and `.placement`."""


def partitionable(library: Library) -> PartitionLibrary:
    """The same library with these calls, which both `pynvml` and the simulator have."""
    return cast("PartitionLibrary", library)


def profile_info(library: PartitionLibrary, device: Handle, number: int) -> Any | None:
    """A profile of GPU instances by its number, None where the board has none of that number.

    Drivers of release 470 and before do not tell its name.
    """
    return _newest(library.nvmlDeviceGetGpuInstanceProfileInfo, device, number)


def compute_profiles(library: PartitionLibrary, gpu_instance: Handle) -> dict[int, int]:
    """How many compute slices each profile of compute instances has, by its id."""
    found = (
        _newest(library.nvmlGpuInstanceGetComputeInstanceProfileInfo, gpu_instance, number, _SHARED_ENGINES)
        for number in range(COMPUTE_PROFILES)
    )
    return {info.id: info.sliceCount for info in found if info is not None}


def _newest(call: Callable[..., Any], *args: Any) -> Any | None:
    """The answer in the newest version that the library has; None where there is no such profile."""
    for version in (2, 1):
        try:
            return call(*args, version=version)
        except NVMLError as error:  # noqa: PERF203 - two tries
            if error.value in {nvml.ERROR_NOT_SUPPORTED, nvml.ERROR_INVALID_ARGUMENT}:
                return None
            if error.value != ERROR_FUNCTION_NOT_FOUND or version == 1:
                raise
    raise AssertionError  # pragma: no cover - the last version returns or raises


def possible_places(library: PartitionLibrary, device: Handle, profile_id: int) -> list[Placement]:
    """Where instances of the profile may be, whether or not anything is there now."""
    count = ctypes.c_uint()
    library.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile_id, None, ctypes.pointer(count))
    places = (Placement * count.value)()
    library.nvmlDeviceGetGpuInstancePossiblePlacements(device, profile_id, places, ctypes.pointer(count))
    return list(places[: count.value])


def probe_placing(library: PartitionLibrary, device: Handle) -> None:
    """Ask for an instance of a profile that no board has: what is refused for another reason is refused for all.

    Raises:
        NVMLError: this library cannot put instances anywhere, or not for this user.
    """
    try:
        create_gpu_instance(library, device, _NO_PROFILE, 0, 1)
    except NVMLError as error:
        if error.value in {ERROR_FUNCTION_NOT_FOUND, nvml.ERROR_NO_PERMISSION}:
            raise


def create_gpu_instance(library: PartitionLibrary, device: Handle, profile_id: int, start: int, size: int) -> Handle:
    """A new GPU instance at that place."""
    place = ctypes.pointer(Placement(start, size))
    return library.nvmlDeviceCreateGpuInstanceWithPlacement(device, profile_id, place)


def create_compute_instance(
    library: PartitionLibrary, gpu_instance: Handle, profile_id: int, place: tuple[int, int] | None
) -> None:
    """A new compute instance, at that start and of that size if any are given and the driver lets one choose."""
    if place is not None:
        where = ctypes.pointer(Placement(*place))
        try:
            library.nvmlGpuInstanceCreateComputeInstanceWithPlacement(gpu_instance, profile_id, where)
        except NVMLError as error:
            if error.value != ERROR_FUNCTION_NOT_FOUND:
                raise
        else:
            return
    library.nvmlGpuInstanceCreateComputeInstance(gpu_instance, profile_id)


def gpu_instances(library: PartitionLibrary, device: Handle, profile_id: int) -> list[Handle]:
    """The GPU instances of a profile."""
    return _listed(library.nvmlDeviceGetGpuInstances, device, profile_id)


def compute_instances(library: PartitionLibrary, gpu_instance: Handle, profile_id: int) -> list[Handle]:
    """The compute instances of a profile in a GPU instance."""
    return _listed(library.nvmlGpuInstanceGetComputeInstances, gpu_instance, profile_id)


def _listed(call: Callable[..., Any], parent: Handle, profile_id: int) -> list[Handle]:
    handles = (ctypes.c_void_p * _LIST_ROOM)()
    count = ctypes.c_uint()
    call(parent, profile_id, handles, ctypes.pointer(count))
    # An element of the array is a number, which would be passed on as a C int and lose its upper half.
    return [ctypes.c_void_p(handle) for handle in handles[: count.value]]
