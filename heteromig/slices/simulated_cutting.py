"""The simulator's calls that cut a GPU, as drivers answer them.

What is asked is checked against the tables of boards alone: instances must be where their profile may be, must not
overlap, and must not be more than there are engines for. A compute instance with a process on it cannot be destroyed,
nor a GPU instance with a compute instance in it. As in NVML, the MIG devices of a session stay those that there were
when it was opened.
"""
# ruff: noqa: N802, N803, D102 - the names are NVML's, and `mig.calls.PartitionLibrary` says what they do

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import msgspec

from heteromig.slices import nvml
from heteromig.slices.boards import Board, Profile
from heteromig.slices.mig import calls
from heteromig.slices.nvml import Handle, NVMLError
from heteromig.slices.simulated_state import SimulatedCompute, SimulatedInstance, SimulatedState
from heteromig.slices.simulator import SimulatedLibrary, slice_uuid

_NUMBERS = {
    "1g": 0x0,
    "2g": 0x1,
    "3g": 0x2,
    "4g": 0x3,
    "7g": 0x4,
    "1g+me": 0x7,
    "2g+me": 0x8,
    "1g double": 0x9,
}
"""nvml.h, NVML_GPU_INSTANCE_PROFILE_*: the numbers to ask for profiles by, which are not their ids."""

_PARTS = {1: (1,), 2: (1, 2), 3: (1, 2, 3), 4: (1, 2, 4), 7: (1, 2, 3, 4, 7)}
"""Compute slices of the compute instances that a GPU instance of so many may have (MIG user guide)."""

_PART_IDS = {1: 0, 2: 1, 3: 2, 4: 3, 7: 4}
"""Ids of these, which nvidia-smi mig -lcip prints, and which are their numbers as well."""


class SimulatedPartitionLibrary(SimulatedLibrary):
    """`calls.PartitionLibrary` of simulated boards.

    Handles of instances are numbers in disguise, as pointers are in C, because lists of them are filled in by the
    library.
    """

    def nvmlDeviceSetMigMode(self, device: Handle, mode: int) -> int:
        gpu = self._check_gpu(device)
        on = bool(mode)
        at_once = gpu.board.resetless

        def change(state: SimulatedState) -> SimulatedState:
            if state.instances and not on:
                raise NVMLError(calls.ERROR_IN_USE)
            current = on if at_once else state.mig_current
            return msgspec.structs.replace(state, mig_current=current, mig_pending=on)

        self._states[gpu.index].change(change)
        return 0 if at_once or gpu.mig_modes[0] == on else calls.ERROR_RESET_REQUIRED

    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: list[int]) -> Any:
        gpu = self._check_gpu(handle)
        return [
            SimpleNamespace(nvmlReturn=0, value=SimpleNamespace(uiVal=int(gpu.board.resetless)))
            if field == calls.FIELD_RESETLESS_MIG
            else SimpleNamespace(nvmlReturn=nvml.ERROR_NOT_SUPPORTED, value=None)
            for field in fieldIds
        ]

    def nvmlDeviceGetPciInfo(self, handle: Handle) -> Any:
        return SimpleNamespace(pciDeviceId=self._check_gpu(handle).board.pci_id)

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: Handle) -> list[Any]:
        self._check(handle)
        return []

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        self._check(handle)
        return []

    # What there may be

    def nvmlDeviceGetGpuInstanceProfileInfo(self, device: Handle, profile: int, version: int = 2) -> Any:  # noqa: ARG002 - one layout
        gpu = self._check_gpu(device)
        for one in gpu.board.profiles:
            if _number(gpu.board, one) == profile:
                return SimpleNamespace(
                    id=one.profile_id,
                    name=f"MIG {one.name}",
                    sliceCount=one.compute_slices,
                    instanceCount=one.max_instances,
                    multiprocessorCount=one.sm_count,
                    decoderCount=one.engines.decoders,
                    encoderCount=one.engines.encoders,
                    jpegCount=one.engines.jpeg,
                    ofaCount=one.engines.optical_flow,
                    memorySizeMB=one.memory_bytes >> 20,
                )
        raise NVMLError(nvml.ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetGpuInstancePossiblePlacements(
        self, device: Handle, profileId: int, placementsRef: Any, countRef: Any
    ) -> Any:
        profile = _profile(self._check_gpu(device).board, profileId)
        countRef.contents.value = len(profile.starts)
        if placementsRef is not None:
            for index, start in enumerate(profile.starts):
                placementsRef[index] = calls.Placement(start, profile.size)

    def nvmlGpuInstanceGetComputeInstanceProfileInfo(
        self,
        device: Handle,
        profile: int,
        engProfile: int,
        version: int = 2,  # noqa: ARG002 - one layout
    ) -> Any:
        board, instance = self._instance(device)
        for size in _PARTS[_named(board, instance.profile).compute_slices]:
            if _PART_IDS[size] == profile and engProfile == 0:
                return SimpleNamespace(id=_PART_IDS[size], sliceCount=size)
        raise NVMLError(nvml.ERROR_NOT_SUPPORTED)

    # GPU instances

    def nvmlDeviceGetGpuInstances(self, device: Handle, profileId: int, gpuInstancesRef: Any, countRef: Any) -> Any:
        gpu = self._check_gpu(device)
        profile = _profile(gpu.board, profileId)
        state = self._states[gpu.index].read()
        if not state.mig_current:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        found = [one for one in state.instances if one.profile == profile.name]
        for index, one in enumerate(found):
            gpuInstancesRef[index] = _instance_handle(gpu.index, gpu.board.instance_id(profile, one.start))
        countRef.contents.value = len(found)

    def nvmlDeviceCreateGpuInstanceWithPlacement(self, device: Handle, profileId: int, placement: Any) -> Handle:
        gpu = self._check_gpu(device)
        profile = _profile(gpu.board, profileId)
        start, size = placement.contents.start, placement.contents.size
        if start not in profile.starts or size != profile.size:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)

        def make(state: SimulatedState) -> SimulatedState:
            if not state.mig_current:
                raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
            instances = (*state.instances, SimulatedInstance(profile.name, start))
            if not _is_possible(gpu.board, instances):
                raise NVMLError(calls.ERROR_INSUFFICIENT_RESOURCES)
            return msgspec.structs.replace(state, instances=tuple(sorted(instances, key=lambda one: one.start)))

        self._states[gpu.index].change(make)
        return ctypes.c_void_p(_instance_handle(gpu.index, gpu.board.instance_id(profile, start)))

    def nvmlGpuInstanceDestroy(self, gpuInstance: Handle) -> Any:
        self._instance(gpuInstance)

        def destroy(instance: SimulatedInstance, _: int) -> Iterator[SimulatedInstance]:
            if instance.computes:
                raise NVMLError(calls.ERROR_IN_USE)
            yield from ()

        self._change_instance(gpuInstance, destroy)

    def nvmlGpuInstanceGetInfo(self, gpuInstance: Handle) -> Any:
        board, instance = self._instance(gpuInstance)
        profile = _named(board, instance.profile)
        return SimpleNamespace(
            id=board.instance_id(profile, instance.start),
            profileId=profile.profile_id,
            placement=calls.Placement(instance.start, profile.size),
        )

    # Compute instances

    def nvmlGpuInstanceGetComputeInstances(
        self, gpuInstance: Handle, profileId: int, computeInstancesRef: Any, countRef: Any
    ) -> Any:
        _, instance = self._instance(gpuInstance)
        found = [one for one in instance.computes if _PART_IDS[one.size] == profileId]
        for index, one in enumerate(found):
            computeInstancesRef[index] = _compute_handle(gpuInstance, one.number)
        countRef.contents.value = len(found)

    def nvmlGpuInstanceCreateComputeInstance(self, gpuInstance: Handle, profileId: int) -> Handle:
        board, instance = self._instance(gpuInstance)
        slices = _named(board, instance.profile).compute_slices
        size = _part_size(slices, profileId)
        taken = _taken(instance)
        starts = [start for start in range(slices - size + 1) if not taken & set(range(start, start + size))]
        if not starts:
            raise NVMLError(calls.ERROR_INSUFFICIENT_RESOURCES)
        return self._create_compute(gpuInstance, starts[0], size)

    def nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        self, gpuInstance: Handle, profileId: int, placement: Any
    ) -> Handle:
        board, instance = self._instance(gpuInstance)
        slices = _named(board, instance.profile).compute_slices
        start, size = placement.contents.start, placement.contents.size
        if size != _part_size(slices, profileId) or start + size > slices:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return self._create_compute(gpuInstance, start, size)

    def nvmlComputeInstanceDestroy(self, computeInstance: Handle) -> Any:
        parent, compute = self._compute(computeInstance)
        self._census.expire()
        if self._census.processes(compute.uuid):
            raise NVMLError(calls.ERROR_IN_USE)

        def destroy(instance: SimulatedInstance, _: int) -> Iterator[SimulatedInstance]:
            left = tuple(one for one in instance.computes if one.number != compute.number)
            yield msgspec.structs.replace(instance, computes=left)

        self._change_instance(parent, destroy)

    def nvmlComputeInstanceGetInfo(self, computeInstance: Handle) -> Any:
        _, compute = self._compute(computeInstance)
        return SimpleNamespace(
            id=compute.number,
            profileId=_PART_IDS[compute.size],
            placement=calls.Placement(compute.start, compute.size),
        )

    # Inside

    def _instance(self, handle: Handle) -> tuple[Board, SimulatedInstance]:
        """What the handle of a GPU instance stands for now."""
        self._check_open()
        gpu, instance_id = _read_instance_handle(handle)
        if not 0 <= gpu < len(self._layouts):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        self._check(self._gpus[gpu])
        board = self._layouts[gpu].board
        for one in self._states[gpu].read().instances:
            if board.instance_id(_named(board, one.profile), one.start) == instance_id:
                return board, one
        raise NVMLError(nvml.ERROR_NOT_FOUND)

    def _compute(self, handle: Handle) -> tuple[Handle, SimulatedCompute]:
        """The same of a compute instance, after the handle of its GPU instance."""
        parent = ctypes.c_void_p(handle.value >> _BITS)
        number = (handle.value & _MASK) - 1
        _, instance = self._instance(parent)
        for one in instance.computes:
            if one.number == number:
                return parent, one
        raise NVMLError(nvml.ERROR_NOT_FOUND)

    def _create_compute(self, parent: Handle, start: int, size: int) -> Handle:
        gpu, _ = _read_instance_handle(parent)
        numbers: list[int] = []

        def make(instance: SimulatedInstance, made: int) -> Iterator[SimulatedInstance]:
            if _taken(instance) & set(range(start, start + size)):
                raise NVMLError(calls.ERROR_INSUFFICIENT_RESOURCES)
            numbers.append(min(set(range(len(instance.computes) + 1)) - {one.number for one in instance.computes}))
            name = f"{self._roots[gpu]}:{instance.profile}:{instance.start}:{numbers[0]}:{made}"
            compute = SimulatedCompute(numbers[0], start, size, slice_uuid(name))
            computes = sorted((*instance.computes, compute), key=lambda one: one.start)
            yield msgspec.structs.replace(instance, computes=tuple(computes))

        self._change_instance(parent, make)
        return ctypes.c_void_p(_compute_handle(parent, numbers[0]))

    def _change_instance(
        self, handle: Handle, make: Callable[[SimulatedInstance, int], Iterator[SimulatedInstance]]
    ) -> None:
        """Put what `make` yields in the place of the instance; it is also told how many changes there were."""
        gpu, instance_id = _read_instance_handle(handle)
        board = self._layouts[gpu].board

        def change(state: SimulatedState) -> SimulatedState:
            instances: list[SimulatedInstance] = []
            for one in state.instances:
                ours = board.instance_id(_named(board, one.profile), one.start) == instance_id
                instances += make(one, state.changes) if ours else (one,)
            return msgspec.structs.replace(state, instances=tuple(instances), changes=state.changes + 1)

        self._states[gpu].change(change)


_BITS = 8
_MASK = (1 << _BITS) - 1


def _instance_handle(gpu: int, instance_id: int) -> int:
    return (gpu + 1) << _BITS | (instance_id + 1)


def _read_instance_handle(handle: Handle) -> tuple[int, int]:
    number: int = handle.value or 0
    return (number >> _BITS) - 1, (number & _MASK) - 1


def _compute_handle(parent: Handle, number: int) -> int:
    return int(parent.value) << _BITS | (number + 1)


def _number(board: Board, profile: Profile) -> int:
    """The number to ask for the profile by."""
    kind = f"{profile.compute_slices}g"
    if profile.name.endswith("+me"):
        return _NUMBERS[f"{kind}+me"]
    alike = (one.size for one in board.profiles if one.compute_slices == profile.compute_slices)
    return _NUMBERS[f"{kind} double" if profile.size > min(alike) else kind]


def _profile(board: Board, profile_id: int) -> Profile:
    for one in board.profiles:
        if one.profile_id == profile_id:
            return one
    raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)


def _named(board: Board, name: str) -> Profile:
    return next(profile for profile in board.profiles if profile.name == name)


def _part_size(slices: int, profile_id: int) -> int:
    """Compute slices of the profile of compute instances with that id, in a GPU instance of so many."""
    for size in _PARTS[slices]:
        if _PART_IDS[size] == profile_id:
            return size
    raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)


def _taken(instance: SimulatedInstance) -> set[int]:
    return {compute.start + offset for compute in instance.computes for offset in range(compute.size)}


def _is_possible(board: Board, instances: tuple[SimulatedInstance, ...]) -> bool:
    profiles = [_named(board, one.profile) for one in instances]
    cells = [
        one.start + offset for one, profile in zip(instances, profiles, strict=True) for offset in range(profile.size)
    ]
    whole = max(board.profiles, key=lambda profile: profile.size)
    engines = zip(*(profile.engines for profile in profiles), strict=True)
    return (
        len(cells) == len(set(cells))
        and all(profiles.count(profile) <= profile.max_instances for profile in profiles)
        and all(sum(some) <= there for some, there in zip(engines, whole.engines, strict=True))
    )
