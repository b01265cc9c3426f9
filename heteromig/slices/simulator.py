"""A simulated host of one or more boards that answers NVML's calls.

It knows what a driver would know and nothing more: the partitioning, and which processes are on which slice. The
latter it learns from `/proc` alone, so that what is concluded from it can be wrong about the controller's intentions:
a process is on a slice when its environment has CUDA_VISIBLE_DEVICES naming exactly that slice. Processes of other
users are invisible unless it runs as root.

It measures no power, energy, temperature or clock, and reports them as not supported rather than invent them. The
memory in use on a slice is the resident memory of its processes. Of the counters that boards have from Hopper on it has
one: the multiprocessors of a slice are as busy as its processes keep one processor of the host, at most 100 %.
"""
# ruff: noqa: N802, N803, D102 - the names are NVML's, and `nvml.Library` says what they do

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid5

import msgspec
from msgspec import Struct

from heteromig.core.units import NS_PER_MS
from heteromig.slices import nvml
from heteromig.slices.boards import Board, Profile
from heteromig.slices.census import Census, Usage
from heteromig.slices.layout import Layout, PlacedSlice
from heteromig.slices.nvml import Handle, NVMLError
from heteromig.slices.processes import is_there
from heteromig.slices.rehearsal import Rehearsal, RehearsalFile
from heteromig.slices.simulated_state import (
    SimulatedCompute,
    SimulatedInstance,
    SimulatedState,
    StateFile,
    Version,
)

_NAMESPACE = UUID("6f0d5a52-2c1b-5a0e-9d53-8d2a5b1d7c11")  # arbitrary, and never to be changed
_MIB_BYTES = 1 << 20
_EVENTS = nvml.EVENT_XID | nvml.EVENT_DOUBLE_BIT_ECC | nvml.EVENT_MIG_CONFIG_CHANGE | nvml.EVENT_GPU_UNAVAILABLE
_STILL_GOOD_NS = 10 * NS_PER_MS
"""A count of processes may be that old when a session begins: one of what a session ended with is not made twice."""
_WHOLE_GPU = 0xFFFFFFFF  # what NVML says for "no instance"


class SimulatedSlice(Struct, frozen=True, eq=False):
    """A compute instance with its GPU instance; the object is its handle."""

    uuid: str
    placed: PlacedSlice
    gpu_instance_id: int
    compute: SimulatedCompute

    @property
    def profile(self) -> Profile:
        """That of its GPU instance."""
        return self.placed.profile

    @property
    def profile_name(self) -> str:
        """Such as `3g.40gb`, or `1c.3g.40gb` for a part of one."""
        whole = self.compute.size == self.profile.compute_slices
        return self.profile.name if whole else f"{self.compute.size}c.{self.profile.name}"


class SimulatedGpu(Struct, frozen=True, eq=False):
    """A board as it was cut when the session was opened; the object is its handle."""

    uuid: str
    index: int
    board: Board
    slices: tuple[SimulatedSlice, ...]
    mig_modes: tuple[bool, bool]


class _EventSet(Struct, eq=False):
    types: dict[SimulatedGpu, int] = {}  # msgspec copies it for each set


class SimulatedLibrary:
    """`nvml.Library` of boards in MIG mode.

    UUIDs derive from the runs directory, so that two runs elsewhere on the machine have different slices; they say
    `SIM`, which no CUDA program takes for a device. The first GPU has the same ones whether or not there are more, so
    that hosts of different size in one runs directory are taken for the same machine.
    """

    def __init__(self, layouts: Sequence[Layout], runs_dir: Path, rehearsal: Path | None = None) -> None:
        """Simulate a GPU for each of `layouts`. `rehearsal` is a file of failures, see `rehearsal.Rehearsal`."""
        self._layouts = tuple(layouts)
        self._runs_dir = os.path.realpath(runs_dir)
        self._roots = tuple(_root(self._runs_dir, index, layout) for index, layout in enumerate(self._layouts))
        self._states = tuple(map(self._state_file, self._roots, self._layouts))
        self._versions: list[Version | None] = []  # of the states that the session shows
        self._rehearsal_file = RehearsalFile(rehearsal, len(self._layouts))
        self._rehearsal = Rehearsal()
        self._hang_s = 0.0
        self._sessions = 0
        self._gpus: tuple[SimulatedGpu, ...] = ()
        self._parents: dict[Handle, SimulatedGpu] = {}  # of each good handle; a GPU is its own
        self._census = Census()
        self._looked_up: set[Handle] = set()  # since the census was last taken anew
        self._usages: dict[int, Usage | None] = {}  # of the samples of counters, by number
        self._last_usage = 0
        self._event_sets: list[_EventSet] = []
        self._pending: deque[tuple[int, int, int]] = deque()  # index of the GPU, type and data of the event

    # Sessions

    def nvmlInit(self) -> None:
        self._sessions += 1
        if self._sessions == 1:
            self._rehearse()
            self._versions = [state.version() for state in self._states]
            self._open(tuple(self._gpu(index, layout) for index, layout in enumerate(self._layouts)))

    def nvmlShutdown(self) -> None:
        self._check_open()
        self._sessions -= 1
        if self._sessions == 0:
            self._open(())
            self._event_sets.clear()
            self._usages.clear()

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check_open()
        return "simulated"

    # The GPUs

    def nvmlDeviceGetCount(self) -> int:
        self._check_open()
        return len(self._gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Handle:
        self._check_open()
        if not 0 <= index < len(self._gpus):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return self._look_up(self._gpus[index])

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Handle:
        self._check_open()
        for handle in self._parents:
            if uuid == handle.uuid:
                return self._look_up(handle)
        raise NVMLError(nvml.ERROR_NOT_FOUND)

    def nvmlDeviceGetName(self, handle: Handle) -> str:
        gpu = self._check(handle)
        product = f"Simulated {gpu.board.product}"
        return product if handle is gpu else f"{product} MIG {handle.profile_name}"

    def nvmlDeviceGetUUID(self, handle: Handle) -> str:
        self._check(handle)
        found: str = handle.uuid
        return found

    def nvmlDeviceGetMigMode(self, device: Handle) -> list[int]:
        return [int(mode) for mode in self._check_gpu(device).mig_modes]

    def nvmlDeviceGetMaxMigDeviceCount(self, device: Handle) -> int:
        gpu = self._check_gpu(device)
        return gpu.board.max_slices if gpu.mig_modes[0] else 0

    def nvmlDeviceGetMemoryInfo(self, handle: Handle, version: int | None = None) -> Any:  # noqa: ARG002 - one layout
        gpu = self._check(handle)
        total: int = gpu.board.memory_bytes if handle is gpu else handle.profile.memory_bytes
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

    def nvmlDeviceGetFieldValues(self, handle: Handle, fieldIds: list[int]) -> Any:  # noqa: ARG002 - none is measured
        return self._unmeasured(handle)

    # Its slices

    def nvmlDeviceGetMigDeviceHandleByIndex(self, device: Handle, index: int) -> Handle:
        slices = self._check_gpu(device).slices
        if not 0 <= index < len(slices):
            raise NVMLError(nvml.ERROR_NOT_FOUND)
        return slices[index]

    def nvmlDeviceGetGpuInstanceId(self, device: Handle) -> int:
        return self._check_slice(device).gpu_instance_id

    def nvmlDeviceGetComputeInstanceId(self, device: Handle) -> int:
        return self._check_slice(device).compute.number

    def nvmlDeviceGetAttributes(self, device: Handle) -> Any:
        one = self._check_slice(device)
        profile, size = one.profile, one.compute.size
        return SimpleNamespace(
            multiprocessorCount=profile.sm_count * size // profile.compute_slices,
            gpuInstanceSliceCount=profile.compute_slices,
            computeInstanceSliceCount=size,
            memorySizeMB=profile.memory_bytes // _MIB_BYTES,
        )

    def nvmlDeviceGetComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        gpu = self._check(handle)
        if self._hang_s and self._befalls(gpu):
            hang_s, self._hang_s = self._hang_s, 0.0
            self._rehearsal_file.remove()
            time.sleep(hang_s)
        return [
            SimpleNamespace(
                pid=pid,
                usedGpuMemory=used_bytes,
                gpuInstanceId=one.gpu_instance_id,
                computeInstanceId=one.compute.number,
            )
            for one in self._slices_of(handle)
            for pid, used_bytes, *_ in self._census.processes(one.uuid)
            if is_there(pid)  # the census may be a tenth of a second old
        ]

    def nvmlDeviceGetMPSComputeRunningProcesses(self, handle: Handle) -> list[Any]:
        self._check(handle)
        return []

    # Counters

    def nvmlGpmQueryDeviceSupport(self, device: Handle) -> Any:
        return SimpleNamespace(isSupportedDevice=int(self._check_gpu(device).board.has_gpm))

    def nvmlGpmSampleAlloc(self) -> Any:
        self._check_open()
        self._last_usage += 1
        self._usages[self._last_usage] = None
        return nvml.gpm_sample(self._last_usage)

    def nvmlGpmSampleFree(self, gpmSample: Any) -> None:
        self._check_open()
        del self._usages[self._usage_number(gpmSample)]

    def nvmlGpmSampleGet(self, device: Handle, gpmSample: Any) -> Any:
        gpu = self._check_gpu(device)
        return self._count_usage(gpu, gpu.slices, gpmSample)

    def nvmlGpmMigSampleGet(self, device: Handle, gpuInstanceId: int, gpmSample: Any) -> Any:
        gpu = self._check_gpu(device)
        slices = [one for one in gpu.slices if one.gpu_instance_id == gpuInstanceId]
        if not slices:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return self._count_usage(gpu, slices, gpmSample)

    def nvmlGpmMetricsGet(self, metricsGet: Any) -> Any:
        self._check_open()
        first, second = (self._usages[self._usage_number(one)] for one in (metricsGet.sample1, metricsGet.sample2))
        if first is None or second is None:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        for metric in metricsGet.metrics[: metricsGet.numMetrics]:  # which all say success, and no more yet
            if metric.metricId == nvml.GPM_SM:
                metric.value = 100 * min(second.since(first), 1.0)  # in this order: what is no number stays none
                metric.metricInfo.shortName = b"smutil"
                break
        return metricsGet

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
        gpu = self._check_gpu(handle)
        if eventTypes & ~_EVENTS:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        eventSet.types[gpu] = eventSet.types.get(gpu, 0) | eventTypes

    def nvmlEventSetWait(self, eventSet: Any, timeoutms: int) -> Any:
        self._check_open()
        self._rehearse()
        self._notice_cuts()
        if eventSet not in self._event_sets:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        for event in list(self._pending):
            index, kind, data = event
            gpu = self._gpus[index]
            if kind & eventSet.types.get(gpu, 0):
                self._pending.remove(event)
                return SimpleNamespace(
                    device=gpu,
                    eventType=kind,
                    eventData=data,
                    gpuInstanceId=_WHOLE_GPU,
                    computeInstanceId=_WHOLE_GPU,
                )
        if timeoutms:
            time.sleep(timeoutms / 1000)
        raise NVMLError(nvml.ERROR_TIMEOUT)

    def nvmlEventSetFree(self, eventSet: Any) -> None:
        self._check_open()
        if eventSet in self._event_sets:
            self._event_sets.remove(eventSet)

    # Inside

    def _gpu(self, index: int, layout: Layout) -> SimulatedGpu:
        """The GPU as it is cut now."""
        board, state = layout.board, self._states[index].read()
        slices = [
            SimulatedSlice(
                uuid=compute.uuid,
                placed=PlacedSlice(profile, instance.start),
                gpu_instance_id=board.instance_id(profile, instance.start),
                compute=compute,
            )
            for instance in state.instances
            for profile in board.profiles
            if profile.name == instance.profile
            for compute in instance.computes
        ]
        if index == self._rehearsal.recut_gpu and slices:
            last = slices[-1]
            slices[-1] = msgspec.structs.replace(last, uuid=slice_uuid(f"{last.uuid}:made again"))
        return SimulatedGpu(
            uuid=f"SIM-GPU-{uuid5(_NAMESPACE, self._roots[index])}",
            index=index,
            board=board,
            slices=tuple(slices) if state.mig_current else (),
            mig_modes=(state.mig_current, state.mig_pending),
        )

    def _state_file(self, root: str, layout: Layout) -> StateFile:
        """Where the GPU's cut is, which is one GPU with the layout that `--slices` gives it, and another without."""
        initial = SimulatedState(
            tuple(
                SimulatedInstance(
                    profile=placed.profile.name,
                    start=placed.start,
                    computes=(
                        SimulatedCompute(
                            number=0,
                            start=0,
                            size=placed.profile.compute_slices,
                            uuid=slice_uuid(f"{root}:{placed.profile.name}:{placed.start}"),
                        ),
                    ),
                )
                for placed in layout.placed
            )
        )
        name = uuid5(_NAMESPACE, f"{root}/{layout.text}")
        return StateFile(Path(self._runs_dir, ".simulated", f"{name}.json"), initial)

    def _notice_cuts(self) -> None:
        """Announce GPUs that somebody cut anew since the session was opened, or since that was announced."""
        for index, state in enumerate(self._states):
            version = state.version()
            if version != self._versions[index]:
                self._versions[index] = version
                self._pending.append((index, nvml.EVENT_MIG_CONFIG_CHANGE, 0))

    def _open(self, gpus: tuple[SimulatedGpu, ...]) -> None:
        """From now on these are there, and no handle from before is good."""
        self._gpus = gpus
        self._parents = {handle: gpu for gpu in gpus for handle in (gpu, *gpu.slices)}
        self._looked_up.clear()
        self._census.expire(older_than_ns=_STILL_GOOD_NS)

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
            self._pending.append((changed.gpu, nvml.EVENT_XID, changed.xid))
        for index in {before.recut_gpu} ^ {changed.recut_gpu}:
            if index is not None:
                self._pending.append((index, nvml.EVENT_MIG_CONFIG_CHANGE, 0))

    def _befalls(self, gpu: SimulatedGpu) -> bool:
        """Whether it is this GPU that something goes wrong with."""
        return gpu.index == self._rehearsal.gpu

    def _look_up(self, handle: Handle) -> Handle:
        """The handle, if its GPU answers. Looking the same one up again begins another reading of everything."""
        self._rehearse()
        self._check(handle)
        if handle in self._looked_up:
            self._looked_up.clear()
            self._census.expire()
        self._looked_up.add(handle)
        return handle

    def _slices_of(self, handle: Handle) -> tuple[SimulatedSlice, ...]:
        gpu = self._parents[handle]
        return gpu.slices if handle is gpu else (handle,)

    def _count_usage(self, gpu: SimulatedGpu, slices: Iterable[SimulatedSlice], sample: Any) -> Any:
        number = self._usage_number(sample)
        if not gpu.board.has_gpm:
            raise NVMLError(nvml.ERROR_NOT_SUPPORTED)
        self._usages[number] = self._census.usage(one.uuid for one in slices)
        return sample

    def _usage_number(self, sample: Any) -> int:
        number = nvml.gpm_sample_number(sample)
        if number not in self._usages:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return number

    def _check_open(self) -> None:
        if self._sessions == 0:
            raise NVMLError(nvml.ERROR_UNINITIALIZED)

    def _check(self, handle: Handle) -> SimulatedGpu:
        """The GPU of the handle."""
        self._check_open()
        gpu = self._parents.get(handle)
        if gpu is None:
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        if self._rehearsal.gpu_lost and self._befalls(gpu):
            raise NVMLError(nvml.ERROR_GPU_IS_LOST)
        return gpu

    def _check_gpu(self, handle: Handle) -> SimulatedGpu:
        self._check(handle)
        if not isinstance(handle, SimulatedGpu):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return handle

    def _check_slice(self, handle: Handle) -> SimulatedSlice:
        self._check(handle)
        if not isinstance(handle, SimulatedSlice):
            raise NVMLError(nvml.ERROR_INVALID_ARGUMENT)
        return handle

    def _unmeasured(self, handle: Handle) -> int:
        self._check(handle)
        raise NVMLError(nvml.ERROR_NOT_SUPPORTED)


def _root(runs_dir: str, index: int, layout: Layout) -> str:
    """What the UUIDs of a GPU and of its slices derive from."""
    root = f"{runs_dir}:{layout.board.name}"
    return f"{root}:gpu {index}" if index > 0 else root


def slice_uuid(name: str) -> str:
    """The UUID of a slice, the same for the same name."""
    return f"SIM-MIG-{uuid5(_NAMESPACE, name)}"
