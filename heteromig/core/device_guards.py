"""Device guards: what the samples of a run prove about its GPUs and slices, and what they could not show.

Computed from what the view kept, so that a run and `verify` come to the same. Nothing here changes an exit code: what
ends a run is a fault (see `faults`). A slowdown or memory that does not come back is a remark beside the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from heteromig.core.devices import DeviceSample, DriverEvent, GpuSample
from heteromig.core.guards import Status
from heteromig.core.units import NS_PER_S, format_bytes, format_duration_s
from heteromig.core.view import View, WorkerView
from heteromig.core.watch import GpuWatch, HostWatch, PlaceWatch

MEMORY_TOLERANCE_BYTES = 64 << 20
"""How much more memory may be in use after a run than before: drivers keep some megabytes of what they set up. A
process that is left over needs several times that for its CUDA context alone."""

HOST_IDLE = "host_idle"
"""The guard of a baseline, whose scope is the host rather than a GPU or a slice."""

_EVENT_NAMES = {
    DriverEvent.XID: "Xid",
    DriverEvent.DOUBLE_BIT_ECC: "double-bit ECC",
    DriverEvent.GPU_UNAVAILABLE: "GPU unavailable",
}
_ONE_DECIMAL_S = 0.1
_NO_MAIN = "main's timed section never began"


class DeviceFinding(Struct, frozen=True):
    """One guard about one thing: `scope` is the UUID of a GPU or a slice, or "host".

    `before` and `after` are for people. `remark` is a sentence for whoever reads the result, empty where the verdict
    says it, or there is none.
    """

    guard: str
    scope: str
    status: Status
    before: str | None
    after: str | None
    evidence: str
    remark: str = ""


def device_findings(view: View) -> tuple[DeviceFinding, ...]:
    """Every guard about every GPU and slice of the plan; empty where nothing was planned."""
    return tuple(_findings(view))


def _findings(view: View) -> Iterator[DeviceFinding]:
    runs = view.spec.goal.measures
    for watch in view.gpus:
        yield _geometry(watch)
        yield _mode(watch)
        yield _events(view, watch)
        if runs:
            yield _slowdown(view, watch)
    for place in view.places:
        yield _strangers(view, place)
    if view.host is not None:
        yield _host(view.host)
    if runs and view.plan is not None:
        for worker in view.workers[: len(view.plan.workers)]:
            yield _presence(view, worker)
    for uuid in dict.fromkeys(worker.assignment.slice_uuid for worker in view.workers):
        yield _memory(view, uuid)


def _geometry(watch: GpuWatch) -> DeviceFinding:
    before, after = _short(watch.gpu.geometry), _short(watch.recut or watch.geometry)
    if watch.recut is not None:
        status, evidence = Status.VIOLATED, "it was cut anew by somebody else"
    elif before is None or after is None:
        status, evidence = Status.NOT_OBSERVABLE, "how it is cut could not be read"
    else:
        status, evidence = Status.OK, f"the same in {_samples(watch.readings)}"
    return DeviceFinding("geometry_unchanged", watch.gpu.uuid, status, before, after, evidence)


def _mode(watch: GpuWatch) -> DeviceFinding:
    before = _modes(watch.gpu.mig_current, watch.gpu.mig_pending)
    modes = watch.unsettled or watch.modes
    after = None if modes is None else _modes(*modes)
    if watch.unsettled is not None:
        status, evidence = Status.VIOLATED, "somebody else changed it, and it waits for a reset"
    elif modes is None:
        status, evidence = Status.NOT_OBSERVABLE, "it was never read"
    else:
        status, evidence = Status.OK, f"current and pending the same in {_samples(watch.readings)}"
    return DeviceFinding("mig_mode_settled", watch.gpu.uuid, status, before, after, evidence)


def _events(view: View, watch: GpuWatch) -> DeviceFinding:
    heard = [name for bit, name in _EVENT_NAMES.items() if (watch.listened or 0) & bit]
    deaf = [name for name in _EVENT_NAMES.values() if name not in heard]
    listened = f"listened to {', '.join(heard)}" if heard else "nothing could be listened to"
    if watch.faults:
        status, evidence = Status.VIOLATED, " ".join(watch.faults)
    elif watch.listened is None:
        status, evidence = Status.NOT_OBSERVABLE, "nobody listened"
    elif deaf:
        missing = f"the driver does not report {', '.join(deaf)}"
        status, evidence = Status.NOT_OBSERVABLE, f"{missing}; {listened}" if heard else missing
    elif view.sampler_losses:
        lost = "nobody listened from the loss of the sampler on"
        again = f"nobody listened until a lost sampler was replaced; {listened} otherwise"
        status, evidence = Status.NOT_OBSERVABLE, again if view.sampler_alive else lost
    else:
        status, evidence = Status.OK, f"{listened} all along, and heard none"
    after = None if watch.listened is None and not watch.faults else f"{len(watch.faults)} reported"
    before = None if after is None else "0 reported"
    return DeviceFinding("no_fault_reported", watch.gpu.uuid, status, before, after, evidence)


class Slowdown(Struct, frozen=True):
    """For how long clocks were lowered between two samples; None where the driver does not say."""

    heat_ns: int | None
    brake_ns: int | None
    cap_ns: int | None


def _slowdown(view: View, watch: GpuWatch) -> DeviceFinding:
    uuid = watch.gpu.uuid
    name = "not_slowed_down"
    before, after = _gpu_in(view.before_main, uuid), _gpu_in(view.after_main, uuid)
    if before is None or after is None or view.before_main is None or view.after_main is None:
        missing = "before" if before is None else "after"
        began = view.main is not None and (view.main.timed_ns or view.main.announced_ns) is not None
        why = f"there is no reading from {missing} main's timed section" if began else _NO_MAIN
        return DeviceFinding(name, uuid, Status.NOT_OBSERVABLE, None, None, why)
    found = slowdown_between(before, after)
    span = f"in the {format_duration_s((view.after_main.taken_ns - view.before_main.taken_ns) / NS_PER_S)} around main"
    cap = (
        "" if found.cap_ns is None else f"; by its power cap, which is normal under load, for {_seconds(found.cap_ns)}"
    )
    causes = [(found.heat_ns, "heat"), (found.brake_ns, "its power brake")]
    slowed = " and ".join(f"by {cause} for {_seconds(ns)}" for ns, cause in causes if ns)
    values = _counters(before), _counters(after)
    if slowed:
        remark = f"Main was measured while GPU {uuid} was slowed down {slowed}."
        return DeviceFinding(name, uuid, Status.VIOLATED, *values, f"slowed down {slowed} {span}{cap}", remark)
    unknown = [cause for ns, cause in causes if ns is None]
    if unknown:
        why = f"the driver does not count slowdowns by {' and '.join(unknown)}{cap}"
        return DeviceFinding(name, uuid, Status.NOT_OBSERVABLE, *values, why)
    return DeviceFinding(name, uuid, Status.OK, *values, f"neither by heat nor by its power brake {span}{cap}")


def slowdown_between(before: GpuSample, after: GpuSample) -> Slowdown:
    """For how long clocks were lowered from one reading to a later one."""
    software = _grown(before.sw_thermal_slowdown_ns, after.sw_thermal_slowdown_ns)
    hardware = _grown(before.hw_thermal_slowdown_ns, after.hw_thermal_slowdown_ns)
    either = _grown(before.thermal_slowdown_ns, after.thermal_slowdown_ns)
    known = [ns for ns in (software, hardware, either) if ns is not None]
    complete = either is not None or (software is not None and hardware is not None)
    heat_ns = max(known, default=0)  # they overlap
    return Slowdown(
        heat_ns=heat_ns if complete or heat_ns else None,
        brake_ns=_grown(before.power_brake_ns, after.power_brake_ns),
        cap_ns=_grown(before.power_cap_ns, after.power_cap_ns),
    )


def _grown(before_ns: int | None, after_ns: int | None) -> int | None:
    """By how much a counter grew; one that is smaller than before was reset with its driver, and says nothing."""
    return None if before_ns is None or after_ns is None or after_ns < before_ns else after_ns - before_ns


def _counters(sample: GpuSample) -> str | None:
    counters = (
        ("software thermal", sample.sw_thermal_slowdown_ns),
        ("hardware thermal", sample.hw_thermal_slowdown_ns),
        ("thermal", sample.thermal_slowdown_ns),
        ("power brake", sample.power_brake_ns),
        ("power cap", sample.power_cap_ns),
    )
    return ", ".join(f"{name} {ns / NS_PER_S:.3f} s" for name, ns in counters if ns is not None) or None


def _strangers(view: View, place: PlaceWatch) -> DeviceFinding:
    name = "only_own_processes"
    if place.stranger is not None:
        status, evidence = Status.VIOLATED, f"{place.stranger} was there as well"
    elif not place.shown:
        status, evidence = Status.NOT_OBSERVABLE, view.why_hidden if place.hidden else "it was never read"
    elif place.hidden:
        hidden = f"{_samples(place.hidden)} did not show who was there"
        status, evidence = Status.NOT_OBSERVABLE, f"{hidden}; nobody else in {_samples(place.shown)}"
    else:
        status, evidence = Status.OK, f"nobody else in {_samples(place.shown)}"
    strangers = None if not place.shown else "somebody else" if place.stranger is not None else "nobody else"
    return DeviceFinding(name, place.uuid, status, None if strangers is None else "nobody else", strangers, evidence)


def _host(watch: HostWatch) -> DeviceFinding:
    looked = watch.shown + watch.hidden
    remark = ""
    if watch.strangers:
        status, evidence = Status.VIOLATED, f"seen in {_samples(looked)}: {', '.join(watch.strangers)}"
        remark = f"This baseline was measured while others used GPUs of the host: {', '.join(watch.strangers)}."
    elif watch.hidden:
        status, evidence = Status.NOT_OBSERVABLE, f"{_samples(watch.hidden)} did not show all of it: {watch.why_hidden}"
    elif watch.shown:
        status, evidence = Status.OK, f"nobody else in {_samples(watch.shown)}"
    else:
        status, evidence = Status.NOT_OBSERVABLE, "it was never read"
    seen = "somebody else" if watch.strangers else "nobody else" if watch.shown else None
    return DeviceFinding(HOST_IDLE, "host", status, None, seen, evidence, remark)


def _presence(view: View, worker: WorkerView) -> DeviceFinding:
    looked = worker.shown + worker.missed
    main = view.main
    if worker.went_missing:
        status, evidence = Status.VIOLATED, f"{worker.name} was not seen there twice in a row"
    elif main is None or (main.timed_ns or main.announced_ns) is None:
        status, evidence = Status.NOT_OBSERVABLE, _NO_MAIN
    elif worker.shown:
        status, evidence = Status.OK, f"{worker.name} was seen there in {worker.shown} of {_samples(looked)}"
    elif looked:
        status, evidence = Status.NOT_OBSERVABLE, f"{worker.name} was not seen there in {_samples(looked)}"
    elif view.shares or any(place.hidden for place in view.places):
        status, evidence = Status.NOT_OBSERVABLE, view.why_hidden
    else:
        status, evidence = Status.NOT_OBSERVABLE, "no sample was taken in main's timed section"
    after = f"{worker.shown} of {_samples(looked)}" if looked else None
    return DeviceFinding("process_on_its_slice", worker.assignment.slice_uuid, status, None, after, evidence)


def _memory(view: View, uuid: str) -> DeviceFinding:
    name = "memory_returned"
    last = view.sample if view.sample is not None and view.sample.taken_ns >= view.last_exit_ns else None
    before, after = _used_in(view.baseline, uuid), _used_in(last, uuid)
    values = _bytes(before), _bytes(after)
    if view.last_exit_ns == 0:
        why = "nothing was spawned"
    elif view.live_workers:
        why = "not every worker was reaped"
    elif view.spec.keeps_backgrounds and view.backgrounds:
        why = "backgrounds may have run there before, and may go on"
    elif view.baseline is None or last is None:
        why = f"there is no sample from {'before' if view.baseline is None else 'after'} the run"
    elif before is None or after is None:
        why = view.why_hidden if view.shares else "the device does not show its memory"
    elif after > before + MEMORY_TOLERANCE_BYTES:
        evidence = f"{values[1]} in use after draining, and {values[0]} before"
        remark = f"Slice {uuid} has {format_bytes(after - before)} more in use than before the run."
        return DeviceFinding(name, uuid, Status.VIOLATED, *values, evidence, remark)
    else:
        evidence = f"within {format_bytes(MEMORY_TOLERANCE_BYTES)} of what was in use before"
        return DeviceFinding(name, uuid, Status.OK, *values, evidence)
    return DeviceFinding(name, uuid, Status.NOT_OBSERVABLE, *values, why)


def _gpu_in(sample: DeviceSample | None, uuid: str) -> GpuSample | None:
    readings = () if sample is None else sample.gpus
    return next((one for one in readings if one.gpu_uuid == uuid and one.unreadable is None), None)


def _used_in(sample: DeviceSample | None, uuid: str) -> int | None:
    readings = () if sample is None else sample.slices
    return next((one.memory_used_bytes for one in readings if one.slice_uuid == uuid), None)


def _bytes(used: int | None) -> str | None:
    return None if used is None else format_bytes(used)


def _short(geometry: str | None) -> str | None:
    return None if geometry is None else geometry[:12]


def _modes(current: bool | None, pending: bool | None) -> str:  # noqa: FBT001 - modes are booleans
    return f"current {_mode_text(current)}, pending {_mode_text(pending)}"


def _mode_text(mode: bool | None) -> str:  # noqa: FBT001 - a mode is a boolean
    return "none" if mode is None else "on" if mode else "off"


def _samples(count: int) -> str:
    return f"{count} sample{'' if count == 1 else 's'}"


def _seconds(ns: int) -> str:
    """Short ones as well, because any is one too many."""
    seconds = ns / NS_PER_S
    if ns == 0:
        return "0 s"
    return f"{seconds:.1f} s" if seconds >= _ONE_DECIMAL_S else f"{seconds:.6f}".rstrip("0") + " s"
