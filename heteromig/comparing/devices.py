"""What the device samples say of main's GPU while main was timed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from heteromig.core.device_guards import slowdown_between
from heteromig.core.devices import DeviceSample, GpuSample, Reading
from heteromig.core.units import UtcNs
from heteromig.results.metrics import BRAKE, HEAT, OF_THE_DEVICE, POWER, POWER_CAP, SM_CLOCK, TEMPERATURE

_READINGS = {
    POWER.name: Reading.POWER,
    SM_CLOCK.name: Reading.SM_CLOCK,
    TEMPERATURE.name: Reading.TEMPERATURE,
    HEAT.name: Reading.SW_THERMAL,
    BRAKE.name: Reading.POWER_BRAKE,
    POWER_CAP.name: Reading.POWER_CAP,
}
_NOT_READ = "it was never read"


def read_devices(
    samples: Sequence[tuple[UtcNs, DeviceSample]], gpu_uuid: str, section: tuple[UtcNs, UtcNs] | None
) -> tuple[dict[str, float], dict[str, str]]:
    """Figures by the names of their metrics, and why others are missing, as the end of a sentence.

    Means over the samples within main's timed section, and shares of the time around it, from the last sample before to
    the first one after it, in percent. `samples` are in the order in which they were taken.
    """
    if section is None:
        return {}, dict.fromkeys((metric.name for metric in OF_THE_DEVICE), "main's timed section is not known")
    begin, end = section
    readings = [(at, one) for at, sample in samples for one in sample.gpus if one.gpu_uuid == gpu_uuid]
    within = [one for at, one in readings if begin <= at <= end]
    found: dict[str, float] = {
        **_above_zero(_mean(POWER.name, [one.power_w for one in within])),
        **_above_zero(_mean(SM_CLOCK.name, [one.sm_clock_mhz for one in within])),
        **_mean(TEMPERATURE.name, [one.temperature_c for one in within]),
        **_shares(
            next(((at, one) for at, one in reversed(readings) if at <= begin), None),
            next(((at, one) for at, one in readings if at >= end), None),
        ),
    }
    why = _reasons(samples, gpu_uuid)
    default = _NOT_READ if within else "no device sample was taken in main's timed section"
    missing = {name: why.get(what, default) for name, what in _READINGS.items() if name not in found}
    return found, missing


def _mean(name: str, values: Sequence[float | None]) -> dict[str, float]:
    known = [value for value in values if value is not None]
    return {name: statistics.fmean(known)} if known else {}


def _above_zero(found: dict[str, float]) -> dict[str, float]:
    """What is compared as a ratio; a board that says 0 says nothing."""
    return {name: value for name, value in found.items() if value > 0}


def _shares(before: tuple[UtcNs, GpuSample] | None, after: tuple[UtcNs, GpuSample] | None) -> dict[str, float]:
    if before is None or after is None or after[0] <= before[0]:
        return {}
    lasted_ns = after[0] - before[0]
    slowed = slowdown_between(before[1], after[1])
    counters = ((HEAT, slowed.heat_ns), (BRAKE, slowed.brake_ns), (POWER_CAP, slowed.cap_ns))
    return {metric.name: 100 * ns / lasted_ns for metric, ns in counters if ns is not None}


def _reasons(samples: Sequence[tuple[UtcNs, DeviceSample]], gpu_uuid: str) -> dict[Reading, str]:
    """The last that was said of each reading of that GPU; a sample that says nothing repeats the one before."""
    said = next((sample.unavailable for _, sample in reversed(samples) if sample.unavailable is not None), ())
    return {what: one.reason for one in said if gpu_uuid in one.scopes for what in one.readings}
