"""Reading devices: who is on each slice, how much memory is in use, what it does, and how the GPU is doing."""

from __future__ import annotations

import time
from collections.abc import Container

from heteromig.core.devices import (
    Activity,
    DeviceSample,
    GpuSample,
    Inventory,
    Occupant,
    Reading,
    SliceKind,
    SliceSample,
)
from heteromig.slices import nvml
from heteromig.slices.discovery import OpenGpu, geometry_digest, read_gpu, read_slices
from heteromig.slices.gpm import PARTS
from heteromig.slices.nvml import Handle, Library, Unread
from heteromig.slices.processes import Ancestry, read_command
from heteromig.slices.series import Series

_MJ_PER_J = 1000
_MW_PER_W = 1000
_LOOKS = 3
"""How often a slice is looked at where somebody on it ends at that very moment."""
_GONE = "the slice is not there any more"
_UNSEEN = "NVML does not show shares under MPS one by one"


def take_sample(
    library: Library, inventory: Inventory, *, energy: bool = True, series: Series | None = None
) -> DeviceSample:
    """Read all devices of the inventory in the session that is open.

    The partitioning is as NVML sees it in this session (see `nvml.reopen`). A slice of the inventory that is gone has
    unknown occupants and memory; one that was not there is only seen in the geometry. What a board cannot report is
    None, and the sample says why.

    Args:
        library: an open library.
        inventory: what was enumerated at the start of the run.
        energy: read the energy counter as well, which takes the driver 3 ms of processor time on an H100, as long as
            everything else together; None is reported otherwise.
        series: what the samples before this one left. Activity takes two of them: a sample alone has none.

    Raises:
        NVMLError: a device is in trouble, such as a lost GPU.
    """
    alone = series is None
    series = series or Series(library, inventory)
    kind = inventory.slices[0].kind
    gpus = [read_gpu(library, library.nvmlDeviceGetHandleByUUID(gpu.uuid)) for gpu in inventory.gpus]
    found = [one for gpu in gpus for one in read_slices(library, gpu, kind)]
    handles = {one.slice.uuid: one.handle for one in found}
    # Shares under MPS are nothing that a driver knows of: they stay what they were, each alone cannot be observed.
    slices = inventory.slices if kind is SliceKind.MPS else tuple(one.slice for one in found)
    activities: dict[str, Activity] = {}
    for gpu in gpus if not alone else ():
        activities |= _activities(series, gpu, handles)
    ancestry = Ancestry()
    slice_samples = tuple(
        _sample_slice(library, series, one.uuid, handles.get(one.uuid), activities.get(one.uuid), ancestry)
        for one in inventory.slices
    )
    gpu_samples = tuple(_sample_gpu(library, series, gpu, energy=energy) for gpu in gpus)
    return DeviceSample(
        taken_ns=time.monotonic_ns(),
        geometry=geometry_digest((one.gpu for one in gpus), slices),
        slices=slice_samples,
        gpus=gpu_samples,
        unavailable=series.unavailable(),
        shared=series.shared(),
    )


def _activities(series: Series, gpu: OpenGpu, present: Container[str]) -> dict[str, Activity]:
    """What the slices of a GPU did that are there, as shares under MPS always are: NVML knows nothing of them."""
    found: dict[str, Activity] = {}
    for scope in series.scopes_of(gpu.gpu.uuid):
        slices = [uuid for uuid in scope.slices if series.are_shares or uuid in present]
        measured = series.gpm.measure(scope, gpu.handle) if slices else None
        for uuid in slices if measured is not None else ():
            if isinstance(measured, Unread):
                series.note(uuid, Reading.ACTIVITY, measured.reason)
            elif measured is not None:
                found[uuid] = measured.activity
                series.note(uuid, Reading.ACTIVITY, None)
                for part in PARTS:
                    series.note(uuid, part, measured.missing.get(part))
    return found


def _sample_slice(  # noqa: PLR0917 - what is known of the slice so far
    library: Library,
    series: Series,
    uuid: str,
    handle: Handle | None,
    activity: Activity | None,
    ancestry: Ancestry,
) -> SliceSample:
    if handle is None:
        series.note(uuid, Reading.OCCUPANTS, _UNSEEN if series.are_shares else _GONE)
        series.note(uuid, Reading.MEMORY, _UNSEEN if series.are_shares else _GONE)
        if not series.are_shares:
            series.note(uuid, Reading.ACTIVITY, _GONE)
        return SliceSample(slice_uuid=uuid, occupants=None, activity=activity)
    memory = series.value(uuid, Reading.MEMORY, library.nvmlDeviceGetMemoryInfo, handle)
    return SliceSample(
        slice_uuid=uuid,
        occupants=series.value(uuid, Reading.OCCUPANTS, _occupants, library, handle, ancestry),
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
        activity=activity,
    )


def _occupants(library: Library, handle: Handle, ancestry: Ancestry) -> tuple[Occupant, ...]:
    """Who is on a slice, and is still there once its line of ancestors was read.

    Processes end between being listed and being looked at, and without its ancestors one of ours is a stranger: where a
    line is cut, all is read again. Orphans have another parent by then. What stays unreadable is of another namespace.

    Raises:
        NVMLError: the list cannot be had, or the device is in trouble.
    """
    found: tuple[Occupant, ...] = ()
    for _ in range(_LOOKS):
        listed = library.nvmlDeviceGetComputeRunningProcesses(handle)
        found = tuple(_occupant(process.pid, ancestry) for process in listed)
        if not any(ancestry.is_cut(one.pid) for one in found):
            break
        ancestry = Ancestry()
    return found


def _occupant(pid: int, ancestry: Ancestry) -> Occupant:
    return Occupant(pid=pid, ancestors=ancestry.of(pid), command=read_command(pid))


def _sample_gpu(library: Library, series: Series, one: OpenGpu, *, energy: bool) -> GpuSample:
    uuid, handle = one.gpu.uuid, one.handle
    power_mw = series.value(uuid, Reading.POWER, library.nvmlDeviceGetPowerUsage, handle)
    energy_mj = (
        series.value(uuid, Reading.ENERGY, library.nvmlDeviceGetTotalEnergyConsumption, handle) if energy else None
    )
    temperature_c = series.value(
        uuid, Reading.TEMPERATURE, library.nvmlDeviceGetTemperature, handle, nvml.TEMPERATURE_GPU
    )
    return GpuSample(
        gpu_uuid=uuid,
        power_w=None if power_mw is None else power_mw / _MW_PER_W,
        energy_j=None if energy_mj is None else energy_mj / _MJ_PER_J,
        temperature_c=None if temperature_c is None else float(temperature_c),
        sm_clock_mhz=series.value(uuid, Reading.SM_CLOCK, library.nvmlDeviceGetClockInfo, handle, nvml.CLOCK_SM),
        memory_clock_mhz=series.value(
            uuid, Reading.MEMORY_CLOCK, library.nvmlDeviceGetClockInfo, handle, nvml.CLOCK_MEMORY
        ),
        throttle_reasons=series.value(
            uuid, Reading.THROTTLE_REASONS, library.nvmlDeviceGetCurrentClocksEventReasons, handle
        ),
    )
