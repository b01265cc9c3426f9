"""A simulated board that answers NVML's calls.

It knows what a driver would know and nothing more: the partitioning, and which processes are on which slice. The
latter it learns from `/proc` alone, so that what is concluded from it can be wrong about the controller's intentions:
a process is on a slice when its environment has CUDA_VISIBLE_DEVICES naming exactly that slice. Processes of other
users are invisible unless it runs as root.

It measures no power, energy, temperature or clock, and reports them as not supported rather than invent them. The
memory in use on a slice is the resident memory of its processes.
"""
# ruff: noqa: N802, N803, D102 - the names are NVML's, and `nvml.Library` says what they do

from __future__ import annotations

import os
import signal
import time
from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid5

from msgspec import Struct

from heteromig.slices import nvml
from heteromig.slices.census import Census
from heteromig.slices.layout import Layout, PlacedSlice
from heteromig.slices.nvml import Handle, NVMLError
from heteromig.slices.rehearsal import Rehearsal, RehearsalFile

_NAMESPACE = UUID("6f0d5a52-2c1b-5a0e-9d53-8d2a5b1d7c11")  # arbitrary, and never to be changed
_MIB_BYTES = 1 << 20
_EVENTS = nvml.EVENT_XID | nvml.EVENT_MIG_CONFIG_CHANGE | nvml.EVENT_GPU_UNAVAILABLE
_WHOLE_GPU = 0xFFFFFFFF  # what NVML says for "no instance"


class _SimulatedGpu(Struct, frozen=True):
    uuid: str


class _SimulatedSlice(Struct, frozen=True):
    uuid: str
    placed: PlacedSlice


class _EventSet(Struct, eq=False):
    gpu: _SimulatedGpu | None = None
    types: int = 0


class SimulatedLibrary:
    """`nvml.Library` of one board in MIG mode.

    UUIDs derive from the runs directory, so that two runs elsewhere on the machine have different slices; they say
    `SIM`, which no CUDA program takes for a device.
    """

    def __init__(self, layout: Layout, runs_dir: Path, rehearsal: Path | None = None) -> None:
        """Simulate `layout`. `rehearsal` is a file of failures, see `rehearsal.Rehearsal`."""
        self._layout = layout
        self._root = f"{os.path.realpath(runs_dir)}:{layout.board.name}"
        self._gpu = self._board()
        self._rehearsal_file = RehearsalFile(rehearsal)
        self._rehearsal = Rehearsal()
        self._hang_s = 0.0
        self._sessions = 0
        self._slices: tuple[_SimulatedSlice, ...] = ()
        self._census = Census()
        self._event_sets: list[_EventSet] = []
        self._pending: deque[tuple[int, int]] = deque()

    # Sessions

    def nvmlInit(self) -> None:
        self._sessions += 1
        if self._sessions == 1:
            self._rehearse()
            self._gpu, self._slices = self._board(), self._partition()

    def nvmlShutdown(self) -> None:
        self._check_open()
        self._sessions -= 1
        if self._sessions == 0:
            self._slices = ()
            self._event_sets.clear()

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check_open()
        return "simulated"

    # The GPU

    def nvmlDeviceGetCount(self) -> int:
        self._check_open()
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        self._begin_reading()
        if index != 0:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return self._gpu

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle:
        self._begin_reading()
        if uuid == self._gpu.uuid:
            return self._gpu
        for one in self._slices:
            if uuid == one.uuid:
                return one
        raise NVMLError(nvml.ERROR_NOT_FOUND)

    def nvmlDeviceGetName(self, handle: Handle) -> str:
        self._check(handle)
        product = f"Simulated {self._layout.board.product}"
        return product if handle is self._gpu else f"{product} MIG {handle.placed.profile.name}"

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        self._check(handle)
        found: str = handle.uuid
        return found

    def nvmlDeviceGetMigMode(self, device: Handle) -> list[int]:
        self._check_gpu(device)
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Handle) -> int:
        self._check_gpu(device)
        return self._layout.board.max_slices

    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None) -> Any:  # noqa: ARG002 - one layout
        self._check(handle)
        board = self._layout.board
        total: int = board.memory_bytes if handle is self._gpu else handle.placed.profile.memory_bytes
        used = self._census.resident_bytes(one.uuid for one in self._slices_of(handle))
        return SimpleNamespace(total=total, used=used, free=max(0, total - used))

    def nvmlDeviceGetPowerUsage(self, handle: Handle) -> int:
        return self._unmeasured(handle)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Handle) -> int:
        return self._unmeasured(handle)

    def nvmlDeviceGetTemperature(self, handle: Handle, sensor: int) -> int:  # noqa: ARG002 - none is measured
        return self._unmeasured(handle)

    def nvmlDeviceGetClockInfo(self, handle: Handle, type: int) -> int:  # noqa: A002, ARG002 - pynvml's name; unmeasured
        return self._unmeasured(handle)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Handle) -> int:
        return self._unmeasured(handle)

    # Its slices

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Handle, index: int) -> Handle:
        self._check_gpu(device)
        if not 0 <= index < len(self._slices):
            raise NVMLError(nvml.ERROR_NOT_FOUND)
        return self._slices[index]

    def nvmlDeviceGetGpuInstanceId(self, device: Handle) -> int:
        placed = self._check_slice(device).placed
        return self._layout.board.instance_id(placed.profile, placed.start)

    def nvmlDeviceGetComputeInstanceId(self, device: Handle) -> int:
        self._check_slice(device)
        return 0

    def nvmlDeviceGetAttributes(self, device: Handle) -> Any:
        profile = self._check_slice(device).placed.profile
        return SimpleNamespace(
            multiprocessorCount=profile.sm_count,
            gpuInstanceSliceCount=profile.compute_slices,
            computeInstanceSliceCount=profile.compute_slices,
            memorySizeMB=profile.memory_bytes // _MIB_BYTES,
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        self._check(handle)
        if self._hang_s:
            hang_s, self._hang_s = self._hang_s, 0.0
            self._rehearsal_file.remove()
            time.sleep(hang_s)
        return [
            SimpleNamespace(
                pid=pid,
                usedGpuMemory=used_bytes,
                gpuInstanceId=self._layout.board.instance_id(one.placed.profile, one.placed.start),
                computeInstanceId=0,
            )
            for one in self._slices_of(handle)
            for pid, used_bytes in self._census.processes(one.uuid)
        ]

    # Events

    def nvmlDeviceGetSupportedEventTypes(self, handle: Handle) -> int:
        self._check_gpu(handle)
        return _EVENTS

    def nvmlEventSetCreate(self) -> Any:
        self._check_open()
        event_set = _EventSet()
        self._event_sets.append(event_set)
        return event_set

    def nvmlDeviceRegisterEvents(self, handle: Handle, eventTypes: int, eventSet: Any) -> None:
        self._check_gpu(handle)
        if eventTypes & ~_EVENTS:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        eventSet.gpu, eventSet.types = handle, eventSet.types | eventTypes

    def nvmlEventSetWait(self, eventSet: Any, timeoutms: int) -> Any:
        self._check_open()
        self._rehearse()
        if eventSet not in self._event_sets:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        for event in list(self._pending):
            kind, data = event
            if kind & eventSet.types:
                self._pending.remove(event)
                return SimpleNamespace(
                    device=eventSet.gpu,
                    eventType=kind,
                    eventData=data,
                    gpuInstanceId=_WHOLE_GPU,
                    computeInstanceId=_WHOLE_GPU,
                )
        time.sleep(timeoutms / 1000)
        raise NVMLError(nvml.ERROR_TIMEOUT)

    def nvmlEventSetFree(self, eventSet: Any) -> None:
        self._check_open()
        if eventSet in self._event_sets:
            self._event_sets.remove(eventSet)

    # Inside

    def _board(self) -> _SimulatedGpu:
        return _SimulatedGpu(uuid=f"SIM-GPU-{uuid5(_NAMESPACE, self._root)}")

    def _partition(self) -> tuple[_SimulatedSlice, ...]:
        names = [f"{self._root}:{placed.profile.name}:{placed.start}" for placed in self._layout.placed]
        if self._rehearsal.geometry_changed:
            names[-1] += ":made again"
        return tuple(
            _SimulatedSlice(uuid=f"SIM-MIG-{uuid5(_NAMESPACE, name)}", placed=placed)
            for name, placed in zip(names, self._layout.placed, strict=True)
        )

    def _rehearse(self) -> None:
        changed = self._rehearsal_file.changed()
        if changed is None:
            return
        before, self._rehearsal = self._rehearsal, changed
        self._hang_s = changed.hang_s
        if changed.die:
            self._rehearsal_file.remove()
            os.kill(os.getpid(), signal.SIGKILL)
        if changed.xid is not None:
            self._pending.append((nvml.EVENT_XID, changed.xid))
        if changed.geometry_changed != before.geometry_changed:
            self._pending.append((nvml.EVENT_MIG_CONFIG_CHANGE, 0))

    def _begin_reading(self) -> None:
        self._check_open()
        self._rehearse()
        if self._rehearsal.gpu_lost:
            raise NVMLError(nvml.ERROR_GPU_IS_LOST)
        self._census.expire()

    def _slices_of(self, handle: Handle) -> tuple[_SimulatedSlice, ...]:
        return self._slices if handle is self._gpu else (handle,)

    def _check_open(self) -> None:
        if self._sessions == 0:
            raise NVMLError(nvml.ERROR_UNINITIALIZED)

    def _check(self, handle: Handle) -> None:
        self._check_open()
        if handle is not self._gpu and not any(handle is one for one in self._slices):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        if self._rehearsal.gpu_lost:
            raise NVMLError(nvml.ERROR_GPU_IS_LOST)

    def _check_gpu(self, handle: Handle) -> None:
        self._check(handle)
        if handle is not self._gpu:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)

    def _check_slice(self, handle: Handle) -> _SimulatedSlice:
        self._check(handle)
        if not isinstance(handle, _SimulatedSlice):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return handle

    def _unmeasured(self, handle: Handle) -> int:
        self._check(handle)
        raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
