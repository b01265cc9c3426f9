"""Reading devices: who is on each slice, how much memory is in use, what it does, and how the GPU is doing."""

from __future__ import annotations

import time
from collections.abc import Container, Mapping
from typing import NamedTuple

from heteromig.core.devices import (
    Activity,
    DeviceSample,
    GpuSample,
    Inventory,
    Occupant,
    Reading,
    Slice,
    SliceSample,
)
from heteromig.slices import nvml
from heteromig.slices.discovery import OF_THE_DRIVER, OpenGpu, geometry_digest, read_gpu, read_slices
from heteromig.slices.gpm import PARTS, SIMULATED
from heteromig.slices.nvml import Handle, Library, NVMLError, Unread
from heteromig.slices.occupants import FOREIGN, Listing, computing, occupants, sharing
from heteromig.slices.processes import Ancestry
from heteromig.slices.series import Series

_MJ_PER_J = 1000
_MW_PER_W = 1000
_GONE = "the slice is not there any more"
_UNSEEN = "NVML does not show shares under MPS one by one"
_LOST = "the GPU cannot be read any more"

_SLOWDOWNS = {
    Reading.SW_THERMAL: nvml.FIELD_SW_THERMAL,
    Reading.HW_THERMAL: nvml.FIELD_HW_THERMAL,
    Reading.THERMAL: nvml.FIELD_THERMAL,
    Reading.POWER_BRAKE: nvml.FIELD_HW_POWER_BRAKE,
    Reading.POWER_CAP: nvml.FIELD_POWER_CAP,
}
_OF_SLICES = (Reading.OCCUPANTS, Reading.MEMORY, Reading.ACTIVITY)
_OF_GPUS = (
    *(Reading.POWER, Reading.ENERGY, Reading.TEMPERATURE, Reading.SM_CLOCK, Reading.MEMORY_CLOCK),
    *(Reading.THROTTLE_REASONS, *_SLOWDOWNS),
)
_NOBODY_LISTENS: Mapping[str, int] = {}


def take_sample(
    library: Library,
    inventory: Inventory,
    *,
    energy: bool = True,
    series: Series | None = None,
    listened: Mapping[str, int] = _NOBODY_LISTENS,
) -> DeviceSample:
    """Read all devices of the inventory in the session that is open.

    The partitioning is as NVML sees it in this session (see `nvml.reopen`). A slice of the inventory that is gone has
    unknown occupants and memory; one that was not there is only seen in the geometry. What a board cannot report is
    None, and the sample says why. A GPU that cannot be read says so, and keeps nobody from reading the others.

    Args:
        library: an open library.
        inventory: what was enumerated at the start of the run.
        energy: read the energy counter as well, which takes the driver 3 ms of processor time on an H100, as long as
            everything else together; None is reported otherwise.
        series: what the samples before this one left. Activity takes two of them: a sample alone has none.
        listened: which errors are listened to, by GPU; see `GpuSample`.

    Raises:
        NVMLError: the driver is in trouble.
    """
    taker = _Taker(library, inventory, series or Series(library, inventory), alone=series is None)
    places: dict[str, list[Slice]] = {gpu.uuid: [] for gpu in inventory.gpus}
    for one in inventory.slices:
        places[one.gpu_uuid].append(one)
    gpus: list[GpuSample] = []
    slices: dict[str, SliceSample] = {}
    for uuid, on_it in places.items():
        gpu, found = taker.take(uuid, on_it, energy=energy, listened=listened.get(uuid))
        gpus.append(gpu)
        slices.update(zip((one.uuid for one in on_it), found, strict=True))
    return DeviceSample(
        taken_ns=time.monotonic_ns(),
        slices=tuple(slices[one.uuid] for one in inventory.slices),
        gpus=tuple(gpus),
        unavailable=taker.series.unavailable(),
        shared=taker.series.shared(),
    )


class _Read(NamedTuple):
    """One GPU and the places on it."""

    gpu: GpuSample
    slices: list[SliceSample]


class _Taker:
    """One sample in the making. `alone`: no other comes after it, so that counters need not be begun with."""

    def __init__(self, library: Library, inventory: Inventory, series: Series, *, alone: bool) -> None:
        self.series = series
        self._library = library
        self._simulated = inventory.simulated
        self._shows = inventory.pids_resolve is not False
        self._alone = alone
        self._ancestry = Ancestry()

    def take(self, uuid: str, places: list[Slice], *, energy: bool, listened: int | None) -> _Read:
        """Read a GPU, or say why it cannot be."""
        try:
            return self._read(uuid, places, energy=energy, listened=listened)
        except NVMLError as error:
            if error.value in OF_THE_DRIVER:
                raise
            for scope, readings in ((uuid, _OF_GPUS), *((one.uuid, _OF_SLICES) for one in places)):
                for what in readings:
                    self.series.note(scope, what, _LOST)
            why = f"NVML cannot read GPU {uuid} any more: it says {str(error)!r}; see the kernel's log."
            return _Read(GpuSample(uuid, unreadable=why), [SliceSample(one.uuid, None) for one in places])

    def _read(self, uuid: str, places: list[Slice], *, energy: bool, listened: int | None) -> _Read:
        one = read_gpu(self._library, nvml.required(self._library.nvmlDeviceGetHandleByUUID, uuid))
        # Shares under MPS are nothing that a driver knows of: each alone cannot be observed.
        found = [] if self.series.are_shares else read_slices(self._library, one, places[0].kind)
        handles = {each.slice.uuid: each.handle for each in found}
        activities = {} if self._alone else _activities(self.series, one, handles)
        slices = [self._slice(place.uuid, handles.get(place.uuid), activities.get(place.uuid)) for place in places]
        sharers = self._occupants(uuid, one.handle, sharing) if self.series.are_shares else None
        geometry = geometry_digest(one.gpu, (each.slice for each in found))
        return _Read(self._gpu(one, geometry, sharers, energy=energy, listened=listened), slices)

    def _slice(self, uuid: str, handle: Handle | None, activity: Activity | None) -> SliceSample:
        series = self.series
        if handle is None:
            series.note(uuid, Reading.OCCUPANTS, _UNSEEN if series.are_shares else _GONE)
            series.note(uuid, Reading.MEMORY, _UNSEEN if series.are_shares else _GONE)
            if not series.are_shares:
                series.note(uuid, Reading.ACTIVITY, _GONE)
            return SliceSample(slice_uuid=uuid, occupants=None, activity=activity)
        memory = series.value(uuid, Reading.MEMORY, self._library.nvmlDeviceGetMemoryInfo, handle)
        return SliceSample(
            slice_uuid=uuid,
            occupants=self._occupants(uuid, handle, computing),
            memory_used_bytes=None if memory is None else memory.used,
            memory_total_bytes=None if memory is None else memory.total,
            activity=activity,
        )

    def _occupants(self, uuid: str, handle: Handle, listing: Listing) -> tuple[Occupant, ...] | None:
        if not self._shows:
            self.series.note(uuid, Reading.OCCUPANTS, FOREIGN)
            return None
        return self.series.value(uuid, Reading.OCCUPANTS, occupants, self._library, handle, self._ancestry, listing)

    def _gpu(
        self,
        one: OpenGpu,
        geometry: str,
        occupants: tuple[Occupant, ...] | None,
        *,
        energy: bool,
        listened: int | None,
    ) -> GpuSample:
        library, value, uuid, handle = self._library, self.series.value, one.gpu.uuid, one.handle
        power_mw = value(uuid, Reading.POWER, library.nvmlDeviceGetPowerUsage, handle)
        energy_mj = value(uuid, Reading.ENERGY, library.nvmlDeviceGetTotalEnergyConsumption, handle) if energy else None
        temperature_c = value(uuid, Reading.TEMPERATURE, library.nvmlDeviceGetTemperature, handle, nvml.TEMPERATURE_GPU)
        slowed_ns = self._slowdowns(uuid, handle)
        return GpuSample(
            gpu_uuid=uuid,
            power_w=None if power_mw is None else power_mw / _MW_PER_W,
            energy_j=None if energy_mj is None else energy_mj / _MJ_PER_J,
            temperature_c=None if temperature_c is None else float(temperature_c),
            sm_clock_mhz=value(uuid, Reading.SM_CLOCK, library.nvmlDeviceGetClockInfo, handle, nvml.CLOCK_SM),
            memory_clock_mhz=value(
                uuid, Reading.MEMORY_CLOCK, library.nvmlDeviceGetClockInfo, handle, nvml.CLOCK_MEMORY
            ),
            throttle_reasons=value(
                uuid, Reading.THROTTLE_REASONS, library.nvmlDeviceGetCurrentClocksEventReasons, handle
            ),
            geometry=geometry,
            mig_current=one.gpu.mig_current,
            mig_pending=one.gpu.mig_pending,
            listened=listened,
            occupants=occupants,
            sw_thermal_slowdown_ns=slowed_ns.get(Reading.SW_THERMAL),
            hw_thermal_slowdown_ns=slowed_ns.get(Reading.HW_THERMAL),
            thermal_slowdown_ns=slowed_ns.get(Reading.THERMAL),
            power_brake_ns=slowed_ns.get(Reading.POWER_BRAKE),
            power_cap_ns=slowed_ns.get(Reading.POWER_CAP),
        )

    def _slowdowns(self, uuid: str, handle: Handle) -> dict[Reading, int]:
        """For how long clocks were lowered since the driver was loaded; without what it does not count.

        The one counter for all heat is of interest where the two others are not there, and takes an H100 longer to
        answer than all others together.
        """
        asked = self.series.asked_slowdowns.get(uuid, tuple(_SLOWDOWNS))
        found: dict[Reading, int] = {}
        missing: dict[Reading, str] = {}
        # One question for all, and none to a simulator, which costs a raised error each time.
        fields = (
            Unread(nvml.ERROR_NOT_SUPPORTED, SIMULATED)
            if self._simulated
            else nvml.reading(self._library.nvmlDeviceGetFieldValues, handle, [_SLOWDOWNS[what] for what in asked])
        )
        for number, what in enumerate(asked):
            value = fields if isinstance(fields, Unread) else nvml.field_integer(fields[number])
            if isinstance(value, Unread):
                missing[what] = value.reason
            else:
                found[what] = value
        if found.keys() >= {Reading.SW_THERMAL, Reading.HW_THERMAL}:
            found.pop(Reading.THERMAL, None)
            missing.pop(Reading.THERMAL, None)
            self.series.asked_slowdowns[uuid] = tuple(what for what in asked if what is not Reading.THERMAL)
        for what in _SLOWDOWNS:
            self.series.note(uuid, what, missing.get(what))
        return found


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
