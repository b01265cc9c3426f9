"""What was read of slices and GPUs, sample by sample, as series that can be drawn, or a reason why there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from heteromig.core import events as ev
from heteromig.core.devices import Activity, DeviceSample, GpuSample, Reading, SliceSample
from heteromig.core.units import NS_PER_S
from heteromig.core.view import View
from heteromig.report.story import Chart, Instrument, Lane, Series
from heteromig.runner.journal import Header
from heteromig.views.rows import THROTTLES
from heteromig.views.text import printable, short_uuid

_MIB = 1 << 20
_Get = Callable[[SliceSample], float | None]

_NONE = Activity()
_NO_SAMPLE = "no sample of it was taken"
_NO_HEARTBEAT = "its program reports no progress"
_NEVER_THERE = "no sample had it"


class Readings:
    """All samples and heartbeats of a run, in the order of the journal."""

    def __init__(self, header: Header, events: Sequence[ev.AnyEvent]) -> None:
        self.samples: list[tuple[float, DeviceSample]] = []
        self.progress: dict[int, list[tuple[float, float]]] = {}
        self.reasons: dict[tuple[str, Reading], str] = {}
        self.shared: dict[str, str] = {}
        for event in events:
            if isinstance(event, ev.SampleTaken):
                self._add((event.sample.taken_ns - header.at_ns) / NS_PER_S, event.sample)
            elif isinstance(event, ev.ProgressMade):
                at_s = (event.at_ns - header.at_ns) / NS_PER_S
                self.progress.setdefault(event.worker, []).append((at_s, event.samples_per_s))

    def _add(self, at_s: float, sample: DeviceSample) -> None:
        self.samples.append((at_s, sample))
        for one in sample.unavailable or ():
            for scope in one.scopes:
                for reading in one.readings:
                    self.reasons[scope, reading] = printable(one.reason)
        for together in sample.shared or ():
            for uuid in together.slices:
                self.shared[uuid] = f"{len(together.slices)} slices share {printable(together.of)}: of all of it"

    def why(self, scope: str, *readings: Reading) -> str:
        """Why there is no such reading: the first reason that was told."""
        told = next((self.reasons[scope, one] for one in readings if (scope, one) in self.reasons), None)
        return told or (_NEVER_THERE if self.samples else _NO_SAMPLE)


def instruments(view: View, lanes: Sequence[Lane], readings: Readings) -> Iterator[Instrument]:
    """One for each GPU of the plan, and one for each slice that somebody had."""
    if view.inventory is None:
        return
    by_gpu: dict[str, list[Lane]] = {}
    for lane in lanes:
        by_gpu.setdefault(lane.gpu_uuid, []).append(lane)
    slices = _by_uuid(readings.samples, lambda sample: ((one.slice_uuid, one) for one in sample.slices))
    gpus = _by_uuid(readings.samples, lambda sample: ((one.gpu_uuid, one) for one in sample.gpus))
    for gpu in view.inventory.gpus:
        if gpu.uuid in by_gpu:
            yield _of_gpu(gpu.uuid, printable(gpu.name), gpus.get(gpu.uuid, ()), readings)
            for lane in by_gpu[gpu.uuid]:
                if lane.worker is not None:
                    yield _of_slice(lane, slices.get(lane.slice_uuid, ()), readings)


def _by_uuid(
    samples: Sequence[tuple[float, DeviceSample]], of: Callable[[DeviceSample], Iterator[tuple[str, object]]]
) -> dict[str, list[tuple[float, object]]]:
    found: dict[str, list[tuple[float, object]]] = {}
    for at_s, sample in samples:
        for uuid, one in of(sample):
            found.setdefault(uuid, []).append((at_s, one))
    return found


def _of_gpu(uuid: str, name: str, samples: Sequence[tuple[float, object]], readings: Readings) -> Instrument:
    taken = [(at_s, one) for at_s, one in samples if isinstance(one, GpuSample)]

    def series(name: str, unit: str, get: Callable[[GpuSample], float | None], reading: Reading) -> Series:
        return _series(name, unit, [(at_s, get(one)) for at_s, one in taken], readings.why(uuid, reading))

    lowered = Counter(name for _, one in taken for bit, name in THROTTLES.items() if (one.throttle_reasons or 0) & bit)
    known = sum(one.throttle_reasons is not None for _, one in taken)
    return Instrument(
        uuid=printable(uuid),
        gpu_uuid=printable(uuid),
        title=f"GPU {short_uuid(uuid)} {name}",
        is_gpu=True,
        is_main=False,
        charts=(
            Chart("Power", "W", (series("power", "W", lambda one: one.power_w, Reading.POWER),)),
            Chart(
                "Temperature",
                "°C",
                (series("temperature", "°C", lambda one: one.temperature_c, Reading.TEMPERATURE),),
            ),
            Chart(
                "Clocks",
                "MHz",
                (
                    series("SM clock", "MHz", lambda one: one.sm_clock_mhz, Reading.SM_CLOCK),
                    series("memory clock", "MHz", lambda one: one.memory_clock_mhz, Reading.MEMORY_CLOCK),
                ),
            ),
        ),
        notes=(_lowered(lowered, known) or f"throttle reasons: n/a, {readings.why(uuid, Reading.THROTTLE_REASONS)}",),
    )


def _lowered(reasons: Mapping[str, int], known: int) -> str:
    if not known:
        return ""
    words = ", ".join(f"{name} in {count}" for name, count in reasons.items())
    return f"clocks lowered in {words} of {known} samples" if words else f"clocks not lowered in any of {known} samples"


def _of_slice(lane: Lane, samples: Sequence[tuple[float, object]], readings: Readings) -> Instrument:
    taken = [(at_s, one) for at_s, one in samples if isinstance(one, SliceSample)]
    uuid = lane.slice_uuid

    def series(name: str, unit: str, get: _Get, *where: Reading) -> Series:
        return _series(name, unit, [(at_s, get(one)) for at_s, one in taken], readings.why(uuid, *where))

    worker = lane.worker
    progress = readings.progress.get(worker.index, []) if worker is not None else []
    activity = (
        series("SM", "%", lambda one: (one.activity or _NONE).sm_percent, Reading.SM, Reading.ACTIVITY),
        series("tensor", "%", lambda one: (one.activity or _NONE).tensor_percent, Reading.TENSOR, Reading.ACTIVITY),
        series("DRAM", "%", lambda one: (one.activity or _NONE).dram_percent, Reading.DRAM, Reading.ACTIVITY),
    )
    pcie = (
        series(
            "sent",
            "MB/s",
            lambda one: _mega((one.activity or _NONE).pcie_tx_bytes_per_s),
            Reading.PCIE_TX,
            Reading.ACTIVITY,
        ),
        series(
            "received",
            "MB/s",
            lambda one: _mega((one.activity or _NONE).pcie_rx_bytes_per_s),
            Reading.PCIE_RX,
            Reading.ACTIVITY,
        ),
    )
    role = f" ({worker.role.value})" if worker is not None else ""
    return Instrument(
        uuid=uuid,
        gpu_uuid=lane.gpu_uuid,
        title=f"{lane.label}{role}, {lane.profile} {lane.name}",
        is_gpu=False,
        is_main=lane.is_main,
        charts=(
            Chart("Rate", "samples/s", (_series("rate", "samples/s", list(progress), _NO_HEARTBEAT),)),
            Chart(
                "Memory in use",
                "MiB",
                (
                    series(
                        "memory",
                        "MiB",
                        lambda one: None if one.memory_used_bytes is None else one.memory_used_bytes / _MIB,
                        Reading.MEMORY,
                    ),
                ),
            ),
            Chart("Activity", "%", activity),
            *([Chart("PCIe", "MB/s", pcie)] if any(one.values for one in pcie) else []),
        ),
        notes=(readings.shared[uuid],) if uuid in readings.shared else (),
    )


def _mega(value: int | None) -> float | None:
    return None if value is None else value / 1e6


def _series(name: str, unit: str, points: Sequence[tuple[float, float | None]], missing: str) -> Series:
    known = [(at_s, float(value)) for at_s, value in points if value is not None]
    return Series(
        name=name,
        unit=unit,
        times_s=tuple(at_s for at_s, _ in known),
        values=tuple(value for _, value in known),
        missing="" if known else missing,
    )
