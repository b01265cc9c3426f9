"""Reading devices: who is on each slice, how much memory is in use, and how the GPU is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import msgspec

from heteromig.core.devices import DeviceSample, GpuSample, Inventory, Occupant, Slice, SliceKind, SliceSample
from heteromig.slices import nvml
from heteromig.slices.discovery import OF_THE_DRIVER, OpenGpu, geometry_digest, read_gpu, read_slices
from heteromig.slices.nvml import Handle, Library, NVMLError
from heteromig.slices.processes import Ancestry, read_command

_J_PER_MJ = 1e-3
_W_PER_MW = 1e-3
_SLOWDOWNS = (
    nvml.FIELD_SW_THERMAL,
    nvml.FIELD_HW_THERMAL,
    nvml.FIELD_THERMAL,
    nvml.FIELD_HW_POWER_BRAKE,
    nvml.FIELD_POWER_CAP,
)
_NOBODY_LISTENS: Mapping[str, int] = {}
_LOOKS = 3
"""How often a slice is looked at where somebody on it ends at that very moment."""


def take_sample(
    library: Library, inventory: Inventory, *, energy: bool = True, listened: Mapping[str, int] = _NOBODY_LISTENS
) -> DeviceSample:
    """Read all devices of the inventory in the session that is open.

    The partitioning is as NVML sees it in this session (see `nvml.reopen`). A slice of the inventory that is gone has
    unknown occupants and memory; one that was not there is only seen in the geometry. What a board cannot report is
    None. A GPU that cannot be read says why, and keeps nobody from reading the others.

    Args:
        library: an open library.
        inventory: what was enumerated at the start of the run.
        energy: read the energy counter as well, which takes the driver 3 ms of processor time on an H100, as long as
            everything else together; None is reported otherwise.
        listened: which errors are listened to, by GPU; see `GpuSample`.

    Raises:
        NVMLError: the driver is in trouble.
    """
    ancestry = Ancestry()
    places: dict[str, list[Slice]] = {}
    for one in inventory.slices:
        places.setdefault(one.gpu_uuid, []).append(one)
    readings = [
        _sample(library, inventory, gpu.uuid, places.get(gpu.uuid, []), ancestry, energy=energy)
        for gpu in inventory.gpus
    ]
    slices = {one.slice_uuid: one for reading in readings for one in reading.slices}
    return DeviceSample(
        taken_ns=time.monotonic_ns(),
        slices=tuple(slices[one.uuid] for one in inventory.slices),
        gpus=tuple(
            msgspec.structs.replace(reading.gpu, listened=listened.get(reading.gpu.gpu_uuid)) for reading in readings
        ),
    )


class _Reading(NamedTuple):
    """One GPU and the places on it."""

    gpu: GpuSample
    slices: list[SliceSample]


def _sample(
    library: Library, inventory: Inventory, uuid: str, places: list[Slice], ancestry: Ancestry, *, energy: bool
) -> _Reading:
    try:
        one = read_gpu(library, library.nvmlDeviceGetHandleByUUID(uuid))
        kind = places[0].kind
        shared = kind is SliceKind.MPS
        found = [] if shared else read_slices(library, one, kind)
        handles = {each.slice.uuid: each.handle for each in found}
        shows = inventory.pids_resolve is not False
        slices = [
            _sample_slice(library, place.uuid, handles.get(place.uuid), ancestry, shows=shows) for place in places
        ]
        gpu = _sample_gpu(library, one, energy=energy, counted=not inventory.simulated)
        return _Reading(
            msgspec.structs.replace(
                gpu,
                geometry=geometry_digest(one.gpu, (each.slice for each in found)),
                mig_current=one.gpu.mig_current,
                mig_pending=one.gpu.mig_pending,
                occupants=_occupants(library, one.handle, ancestry, _sharing) if shared and shows else None,
            ),
            slices,
        )
    except NVMLError as error:
        if error.value in OF_THE_DRIVER:
            raise
        why = f"NVML cannot read GPU {uuid} any more: it says {str(error)!r}; see the kernel's log."
        return _Reading(GpuSample(uuid, unreadable=why), [SliceSample(place.uuid, None) for place in places])


def _sample_slice(
    library: Library, uuid: str, handle: Handle | None, ancestry: Ancestry, *, shows: bool
) -> SliceSample:
    if handle is None:
        return SliceSample(slice_uuid=uuid, occupants=None)
    memory = nvml.supported(library.nvmlDeviceGetMemoryInfo, handle)
    return SliceSample(
        slice_uuid=uuid,
        occupants=_occupants(library, handle, ancestry) if shows else None,
        memory_used_bytes=None if memory is None else memory.used,
    )


_List = Callable[[Library, Handle], Iterable[int] | None]


def _computing(library: Library, handle: Handle) -> Iterable[int] | None:
    listed = nvml.supported(library.nvmlDeviceGetComputeRunningProcesses, handle)
    return None if listed is None else [process.pid for process in listed]


def _sharing(library: Library, handle: Handle) -> Iterable[int] | None:
    """Those on a GPU and the clients of its MPS server, of which drivers list some, or all, in both places."""
    clients = nvml.supported(library.nvmlDeviceGetMPSComputeRunningProcesses, handle)
    computing = _computing(library, handle)
    return None if computing is None else dict.fromkeys((*computing, *(process.pid for process in clients or ())))


def _occupants(
    library: Library, handle: Handle, ancestry: Ancestry, listing: _List = _computing
) -> tuple[Occupant, ...] | None:
    """Who is on a slice, and is still there once its line of ancestors was read.

    Processes end between being listed and being looked at, and without its ancestors one of ours is a stranger: where a
    line is cut, all is read again. Orphans have another parent by then. What stays unreadable is of another namespace.
    """
    found: tuple[Occupant, ...] = ()
    for _ in range(_LOOKS):
        listed = listing(library, handle)
        if listed is None:
            return None
        found = tuple(_occupant(pid, ancestry) for pid in listed)
        if not any(ancestry.is_cut(one.pid) for one in found):
            break
        ancestry = Ancestry()
    return found


def _occupant(pid: int, ancestry: Ancestry) -> Occupant:
    return Occupant(pid=pid, ancestors=ancestry.of(pid), command=read_command(pid))


def _sample_gpu(library: Library, one: OpenGpu, *, energy: bool, counted: bool) -> GpuSample:
    power_mw = nvml.supported(library.nvmlDeviceGetPowerUsage, one.handle)
    energy_mj = nvml.supported(library.nvmlDeviceGetTotalEnergyConsumption, one.handle) if energy else None
    temperature_c = nvml.supported(library.nvmlDeviceGetTemperature, one.handle, nvml.TEMPERATURE_GPU)
    slowed_ns = _slowdowns(library, one.handle) if counted else {}
    told_apart = nvml.FIELD_SW_THERMAL in slowed_ns and nvml.FIELD_HW_THERMAL in slowed_ns
    return GpuSample(
        gpu_uuid=one.gpu.uuid,
        power_w=None if power_mw is None else power_mw * _W_PER_MW,
        energy_j=None if energy_mj is None else energy_mj * _J_PER_MJ,
        temperature_c=None if temperature_c is None else float(temperature_c),
        sm_clock_mhz=nvml.supported(library.nvmlDeviceGetClockInfo, one.handle, nvml.CLOCK_SM),
        memory_clock_mhz=nvml.supported(library.nvmlDeviceGetClockInfo, one.handle, nvml.CLOCK_MEMORY),
        throttle_reasons=nvml.supported(library.nvmlDeviceGetCurrentClocksEventReasons, one.handle),
        sw_thermal_slowdown_ns=slowed_ns.get(nvml.FIELD_SW_THERMAL),
        hw_thermal_slowdown_ns=slowed_ns.get(nvml.FIELD_HW_THERMAL),
        thermal_slowdown_ns=None if told_apart else slowed_ns.get(nvml.FIELD_THERMAL),
        power_brake_ns=slowed_ns.get(nvml.FIELD_HW_POWER_BRAKE),
        power_cap_ns=slowed_ns.get(nvml.FIELD_POWER_CAP),
    )


def _slowdowns(library: Library, handle: Handle) -> dict[int, int]:
    """For how long clocks were lowered since the driver was loaded, by field; without those it does not have."""
    fields = nvml.supported(library.nvmlDeviceGetFieldValues, handle, list(_SLOWDOWNS)) or ()
    values = {field.fieldId: nvml.field_integer(field) for field in fields}
    return {number: value_ns for number, value_ns in values.items() if value_ns is not None}
