"""Reading devices: who is on each slice, how much memory is in use, and how the GPU is doing."""

from __future__ import annotations

import time

from heteromig.core.devices import DeviceSample, GpuSample, Inventory, Occupant, SliceKind, SliceSample
from heteromig.slices import nvml
from heteromig.slices.discovery import OpenGpu, geometry_digest, read_gpu, read_slices
from heteromig.slices.nvml import Handle, Library
from heteromig.slices.processes import Ancestry, read_command

_J_PER_MJ = 1e-3
_W_PER_MW = 1e-3
_LOOKS = 3
"""How often a slice is looked at where somebody on it ends at that very moment."""


def take_sample(library: Library, inventory: Inventory, *, energy: bool = True) -> DeviceSample:
    """Read all devices of the inventory in the session that is open.

    The partitioning is as NVML sees it in this session (see `nvml.reopen`). A slice of the inventory that is gone has
    unknown occupants and memory; one that was not there is only seen in the geometry. What a board cannot report is
    None.

    Args:
        library: an open library.
        inventory: what was enumerated at the start of the run.
        energy: read the energy counter as well, which takes the driver 3 ms of processor time on an H100, as long as
            everything else together; None is reported otherwise.

    Raises:
        NVMLError: a device is in trouble, such as a lost GPU.
    """
    kind = inventory.slices[0].kind
    gpus = [read_gpu(library, library.nvmlDeviceGetHandleByUUID(gpu.uuid)) for gpu in inventory.gpus]
    found = [one for gpu in gpus for one in read_slices(library, gpu, kind)]
    handles = {one.slice.uuid: one.handle for one in found}
    # Shares under MPS are nothing that a driver knows of: they stay what they were, each alone cannot be observed.
    slices = inventory.slices if kind is SliceKind.MPS else tuple(one.slice for one in found)
    ancestry = Ancestry()
    slice_samples = tuple(_sample_slice(library, one.uuid, handles.get(one.uuid), ancestry) for one in inventory.slices)
    gpu_samples = tuple(_sample_gpu(library, gpu, energy=energy) for gpu in gpus)
    return DeviceSample(
        taken_ns=time.monotonic_ns(),
        geometry=geometry_digest((one.gpu for one in gpus), slices),
        slices=slice_samples,
        gpus=gpu_samples,
    )


def _sample_slice(library: Library, uuid: str, handle: Handle | None, ancestry: Ancestry) -> SliceSample:
    if handle is None:
        return SliceSample(slice_uuid=uuid, occupants=None)
    memory = nvml.supported(library.nvmlDeviceGetMemoryInfo, handle)
    return SliceSample(
        slice_uuid=uuid,
        occupants=_occupants(library, handle, ancestry),
        memory_used_bytes=None if memory is None else memory.used,
    )


def _occupants(library: Library, handle: Handle, ancestry: Ancestry) -> tuple[Occupant, ...] | None:
    """Who is on a slice, and is still there once its line of ancestors was read.

    Processes end between being listed and being looked at, and without its ancestors one of ours is a stranger: where a
    line is cut, all is read again. Orphans have another parent by then. What stays unreadable is of another namespace.
    """
    found: tuple[Occupant, ...] = ()
    for _ in range(_LOOKS):
        listed = nvml.supported(library.nvmlDeviceGetComputeRunningProcesses, handle)
        if listed is None:
            return None
        found = tuple(_occupant(process.pid, ancestry) for process in listed)
        if not any(ancestry.is_cut(one.pid) for one in found):
            break
        ancestry = Ancestry()
    return found


def _occupant(pid: int, ancestry: Ancestry) -> Occupant:
    return Occupant(pid=pid, ancestors=ancestry.of(pid), command=read_command(pid))


def _sample_gpu(library: Library, one: OpenGpu, *, energy: bool) -> GpuSample:
    power_mw = nvml.supported(library.nvmlDeviceGetPowerUsage, one.handle)
    energy_mj = nvml.supported(library.nvmlDeviceGetTotalEnergyConsumption, one.handle) if energy else None
    temperature_c = nvml.supported(library.nvmlDeviceGetTemperature, one.handle, nvml.TEMPERATURE_GPU)
    return GpuSample(
        gpu_uuid=one.gpu.uuid,
        power_w=None if power_mw is None else power_mw * _W_PER_MW,
        energy_j=None if energy_mj is None else energy_mj * _J_PER_MJ,
        temperature_c=None if temperature_c is None else float(temperature_c),
        sm_clock_mhz=nvml.supported(library.nvmlDeviceGetClockInfo, one.handle, nvml.CLOCK_SM),
        memory_clock_mhz=nvml.supported(library.nvmlDeviceGetClockInfo, one.handle, nvml.CLOCK_MEMORY),
        throttle_reasons=nvml.supported(library.nvmlDeviceGetCurrentClocksEventReasons, one.handle),
    )
