"""Findings about how one GPU is doing."""

from __future__ import annotations

from collections.abc import Iterator

from heteromig.doctor.facts import Answer, Health
from heteromig.doctor.findings import Finding, ok, unknown, warning
from heteromig.slices import nvml

_MARGIN_C = 5
"""Closer than that to slowing down while nothing runs, a GPU slows down under load."""

_W_PER_MW = 1e-3

_COMPUTE_MODES = {
    1: "one thread at a time may compute on it",
    2: "nobody may compute on it",
    3: "only one process at a time may compute on it",
}
"""nvml.h, nvmlComputeMode_t; 0 is the default."""

_HINDERED = {
    0x8: "the hardware slows it down",
    0x20: "it is too hot (software slowdown)",
    0x40: "it is too hot (hardware slowdown)",
    0x80: "the power supply brakes it",
}
_HARMLESS = {
    0x1: "idle",
    0x2: "clocks set by applications",
    0x4: "at its power limit",
    0x10: "clocks kept in step with other GPUs",
    0x100: "clocks of the display",
}
"""nvml.h, nvmlClocksEventReason*."""


def about_health(health: Health, gpu: str) -> Iterator[Finding]:
    """Everything about the GPU that changes what is measured on it, or announces its end."""
    for check in (_ecc, _repair, _temperature, _power, _throttling, _persistence, _compute_mode, _activity, _events):
        yield from check(health, gpu)


def _missing(check: str, why: str, gpu: str) -> Finding:
    return unknown(check, f"n/a: {why}", gpu=gpu)


def _ecc(health: Health, gpu: str) -> Iterator[Finding]:
    current, pending = health.ecc_current.value, health.ecc_pending.value
    if current is None:
        yield _missing("ecc", health.ecc_current.why, gpu)
        return
    ever = _counted(health.uncorrected_ever, "ever")
    if pending is not None and pending != current:
        yield warning(
            "ecc",
            f"{_on(current)} now, and {_on(pending)} after a reset",
            "Reset the GPU or reboot, or set it back (sudo nvidia-smi -e 0|1).",
            gpu=gpu,
        )
    elif not current:
        yield warning(
            "ecc", "off: errors of memory go unnoticed", "sudo nvidia-smi -e 1, then reset or reboot.", gpu=gpu
        )
    elif health.uncorrected.value:
        yield warning(
            "ecc",
            f"on; {_counted(health.uncorrected, 'since the driver was loaded')}, {ever}",
            "See nvidia-smi -q -d ECC and the kernel's log; reset the GPU, and have it checked if they return.",
            gpu=gpu,
        )
    else:
        recent = _counted(health.uncorrected, "since the driver was loaded")
        yield ok("ecc", f"on; {recent}, {ever}", gpu=gpu)


def _on(mode: bool) -> str:  # noqa: FBT001 - a mode is a boolean
    return "on" if mode else "off"


def _counted(answer: Answer[int], when: str) -> str:
    if answer.value is None:
        return f"uncorrectable errors {when} n/a ({answer.why})"
    return f"{answer.value} uncorrectable errors {when}"


def _repair(health: Health, gpu: str) -> Iterator[Finding]:
    rows, retirement = health.remapped.value, health.retirement_pending.value
    if rows is None and retirement is None:
        yield _missing("memory-repair", f"{health.remapped.why}; retired pages: {health.retirement_pending.why}", gpu)
        return
    said = []
    if rows is not None:
        said.append(f"rows remapped for {rows.correctable} correctable and {rows.uncorrectable} uncorrectable errors")
    if (rows is not None and rows.failed) or (rows is not None and rows.pending) or retirement:
        if rows is not None and rows.failed:
            said.append("a row could not be remapped")
            fix = "Have the board replaced: it has no spare rows left."
        else:
            said.append("a row is to be remapped" if rows is not None and rows.pending else "pages are to be retired")
            fix = "Reset the GPU or reboot, which does it."
        yield warning("memory-repair", "; ".join(said), fix, gpu=gpu)
    else:
        yield ok("memory-repair", "; ".join([*said, "nothing is pending"]), gpu=gpu)


def _temperature(health: Health, gpu: str) -> Iterator[Finding]:
    now_c, slowdown_c = health.temperature_c.value, health.slowdown_c.value
    if now_c is None:
        yield _missing("temperature", health.temperature_c.why, gpu)
    elif slowdown_c is None:
        yield ok("temperature", f"{now_c} °C; where it slows down n/a ({health.slowdown_c.why})", gpu=gpu)
    elif now_c > slowdown_c - _MARGIN_C:
        yield warning(
            "temperature",
            f"{now_c} °C, and it slows down from {slowdown_c} °C on",
            "Let it cool down, and see to the airflow.",
            gpu=gpu,
        )
    else:
        yield ok("temperature", f"{now_c} °C, {slowdown_c - now_c} below where it slows down", gpu=gpu)


def _power(health: Health, gpu: str) -> Iterator[Finding]:
    now = f"n/a ({health.power_mw.why})" if health.power_mw.value is None else _watts(health.power_mw.value)
    limit, default = health.power_limit_mw.value, health.power_default_mw.value
    if limit is None:
        yield _missing("power", f"{health.power_limit_mw.why}; now {now}", gpu)
    elif default is None:
        yield ok("power", f"{now} of {_watts(limit)}; default limit n/a ({health.power_default_mw.why})", gpu=gpu)
    elif limit != default:
        yield warning(
            "power",
            f"{now}, and limited to {_watts(limit)}, where {_watts(default)} is the default",
            f"Say so with your results, or set it back (sudo nvidia-smi -i {gpu} -pl {default * _W_PER_MW:.0f}).",
            gpu=gpu,
        )
    else:
        yield ok("power", f"{now} of {_watts(limit)}, the default limit", gpu=gpu)


def _watts(milliwatts: int) -> str:
    return f"{milliwatts * _W_PER_MW:.0f} W"


def _throttling(health: Health, gpu: str) -> Iterator[Finding]:
    reasons = health.throttle_reasons.value
    if reasons is None:
        yield _missing("throttling", health.throttle_reasons.why, gpu)
        return
    hindered = [name for bit, name in _HINDERED.items() if reasons & bit]
    if hindered:
        fix = "See to cooling and power supply; a run would measure that as well."
        yield warning("throttling", ", ".join(hindered), fix, gpu=gpu)
        return
    harmless = [name for bit, name in _HARMLESS.items() if reasons & bit]
    yield ok("throttling", f"none now ({', '.join(harmless)})" if harmless else "none now", gpu=gpu)


def _persistence(health: Health, gpu: str) -> Iterator[Finding]:
    if health.persistence.value is None:
        yield _missing("persistence", health.persistence.why, gpu)
    elif health.persistence.value:
        yield ok("persistence", "on", gpu=gpu)
    else:
        yield warning(
            "persistence",
            "off: the driver lets go of the GPU whenever nobody uses it, so that programs start late, and from Hopper "
            "on MIG is lost",
            "sudo systemctl start nvidia-persistenced, or sudo nvidia-smi -pm 1.",
            gpu=gpu,
        )


def _compute_mode(health: Health, gpu: str) -> Iterator[Finding]:
    mode = health.compute_mode.value
    if mode is None:
        yield _missing("compute-mode", health.compute_mode.why, gpu)
    elif mode == 0:
        yield ok("compute-mode", "default", gpu=gpu)
    else:
        what = _COMPUTE_MODES.get(mode, f"number {mode}, which this version does not know")
        yield warning("compute-mode", what, f"sudo nvidia-smi -i {gpu} -c 0.", gpu=gpu)


def _activity(health: Health, gpu: str) -> Iterator[Finding]:
    if health.activity.value is None:
        yield _missing("activity", health.activity.why, gpu)
    elif health.activity.value:
        yield ok("activity", "GPM tells how busy multiprocessors, tensor cores and memory are", gpu=gpu)
    else:
        yield unknown("activity", "n/a: there is no GPM before Hopper", gpu=gpu)


def _events(health: Health, gpu: str) -> Iterator[Finding]:
    if health.events.value is None:
        yield _missing("xid-events", health.events.why, gpu)
    elif health.events.value & nvml.EVENT_XID:
        yield ok("xid-events", "the driver reports Xids while a run is going on", gpu=gpu)
    else:
        yield unknown("xid-events", "n/a: the driver does not report Xids of this board", gpu=gpu)
