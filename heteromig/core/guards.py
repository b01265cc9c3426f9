"""Guards: named predicates over what is known, each of which says on what evidence it said yes or no.

A guard that needs a device sample never passes on a stale one: older than three periods is "not observable now", and
the run waits for a fresh one. Where the device cannot show something at all, the guard passes and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample
from heteromig.core.phases import Keeping, WorkerState
from heteromig.core.units import NS_PER_MS
from heteromig.core.view import View
from heteromig.core.watch import is_recut, is_unsettled, read

STALE_AFTER_PERIODS = 3


class Status(Enum):
    """What a guard found."""

    OK = "ok"
    VIOLATED = "violated"
    NOT_OBSERVABLE = "not observable"


class Finding(Struct, frozen=True):
    """One evaluation of one guard. `passed` is what the transition goes by; `evidence` is for people."""

    guard: str
    status: Status
    passed: bool
    evidence: str


Guard = Callable[[View, ev.AnyEvent], Finding]


def _finding(guard: Callable[..., Finding], passed: bool, evidence: str) -> Finding:  # noqa: FBT001 - reads as a row
    return Finding(guard.__name__, Status.OK if passed else Status.VIOLATED, passed, evidence)


def _unobservable(guard: Callable[..., Finding], passed: bool, why: str) -> Finding:  # noqa: FBT001 - as above
    return Finding(guard.__name__, Status.NOT_OBSERVABLE, passed, why)


def run_must_stop(view: View, _event: ev.AnyEvent) -> Finding:
    """Something is wrong that the run cannot go on with."""
    return _finding(run_must_stop, view.must_stop, view.reasons[-1].sentence if view.must_stop else "nothing is wrong")


def slices_locked(view: View, _event: ev.AnyEvent) -> Finding:
    """The plan fits the slices, and no other heteromig can use their GPUs."""
    return _finding(slices_locked, view.plan is not None and view.locked, "locked" if view.locked else "not locked yet")


def slices_idle(view: View, event: ev.AnyEvent) -> Finding:
    """A fresh sample shows nobody on the slices; a foreign process is a fault of its own."""
    stale = _stale(slices_idle, view, event)
    if stale is not None:
        return stale
    assert view.sample is not None  # noqa: S101 - a fresh sample exists
    return _nobody_on(slices_idle, view, view.sample)


def host_idle(view: View, event: ev.AnyEvent) -> Finding:
    """A fresh sample shows nobody on any GPU of the host, which a baseline asks for; `--allow-busy` lets it go on."""
    if view.host is None:
        return _finding(host_idle, passed=True, evidence="asked of a baseline alone")
    stale = _stale(host_idle, view, event)
    if stale is not None:
        return stale
    assert view.sample is not None  # noqa: S101 - a fresh sample exists
    busy = [f"pid {occupant.pid} on {name}" for name, occupant in view.foreign(view.sample)]
    if busy:
        allowed = "allowed, but " if view.spec.allow_busy else ""
        evidence = f"{allowed}busy: {', '.join(busy)}"
        return Finding(host_idle.__name__, Status.VIOLATED, passed=view.spec.allow_busy, evidence=evidence)
    hidden = view.why_beyond_is_hidden(view.sample)
    if hidden is not None:
        return _unobservable(host_idle, passed=True, why=hidden)
    return _finding(host_idle, passed=True, evidence="nobody else uses a GPU of this host")


def every_engine_present(view: View, _event: ev.AnyEvent) -> Finding:
    """All engines of the plan are in the cache, intact and for this runtime."""
    missing = view.missing_engines
    if missing is None:
        return _finding(every_engine_present, passed=False, evidence="the cache was not read yet")
    names = ", ".join(f"{need.benchmark}/{need.scenario}/{need.accuracy}/{need.profile}" for need, _ in missing)
    return _finding(every_engine_present, not missing, f"missing {names}" if missing else "all engines are there")


def only_building(view: View, _event: ev.AnyEvent) -> Finding:
    """The run was asked for engines and nothing else."""
    building = view.spec.goal.value == "build"
    return _finding(only_building, building, f"the goal is to {view.spec.goal.value}")


def all_backgrounds_timed(view: View, _event: ev.AnyEvent) -> Finding:
    """Every background shows the evidence asked for; under `--lenient` those that died are passed over."""
    level = view.spec.start_evidence
    waiting = [
        worker.assignment.benchmark
        for worker in view.backgrounds
        if not level.reached_by(worker.state) and not (view.spec.lenient and worker.state is WorkerState.EXITED)
    ]
    return _finding(
        all_backgrounds_timed,
        not waiting,
        f"waiting for {', '.join(waiting)}" if waiting else f"all {len(view.backgrounds)} are {level.value}",
    )


def backgrounds_still_timed(view: View, _event: ev.AnyEvent) -> Finding:
    """No background has left its timed section since it began; under `--lenient` those that left are passed over."""
    level = view.spec.start_evidence
    left = [worker.name for worker in view.backgrounds if not level.reached_by(worker.state)]
    passed = not left or view.spec.lenient
    return _finding(backgrounds_still_timed, passed, f"left: {', '.join(left)}" if left else "all are timed")


def backgrounds_on_their_slices(view: View, event: ev.AnyEvent) -> Finding:
    """A sample taken after the last background began shows each one's process on its own slice."""
    guard = backgrounds_on_their_slices
    stale = _stale(guard, view, event)
    if stale is not None:
        return stale
    sample = view.sample
    assert sample is not None  # noqa: S101 - a fresh sample exists
    readings = {reading.slice_uuid: reading for reading in sample.slices}
    missing: list[str] = []
    blind: list[str] = []
    for worker in view.backgrounds:
        if not worker.live:
            continue
        reading = readings.get(worker.assignment.slice_uuid)
        if reading is None or reading.occupants is None:
            blind.append(worker.assignment.benchmark)
        elif worker not in [view.owner(occupant) for occupant in reading.occupants]:
            missing.append(worker.assignment.benchmark)
    if missing:
        return _finding(guard, passed=False, evidence=f"not seen on its slice: {', '.join(missing)}")
    if blind:
        return _unobservable(guard, passed=True, why=view.why_hidden)
    return _finding(guard, passed=True, evidence="each is seen on its own slice")


def start_timed_out_leniently(view: View, event: ev.AnyEvent) -> Finding:
    """The time to start is over, and `--lenient` says to go on with those that did."""
    over = isinstance(event, ev.DeadlinePassed) and event.timer is ev.Timer.PHASE_TIMEOUT
    return _finding(start_timed_out_leniently, over and view.spec.lenient, "the time to start is over")


def buffer_elapsed(view: View, event: ev.AnyEvent) -> Finding:
    """`start_time_buffer` has passed since the last background began."""
    return _finding(buffer_elapsed, view.buffer_elapsed, "elapsed" if view.buffer_elapsed else f"not at {event.at_ns}")


def geometry_unchanged(view: View, event: ev.AnyEvent) -> Finding:
    """A fresh sample shows the partitioning that was recorded while discovering, and no fault was reported."""
    stale = _stale(geometry_unchanged, view, event)
    if stale is not None:
        return stale
    assert view.sample is not None  # noqa: S101 - a fresh sample exists
    readings = {reading.gpu_uuid: reading for reading in view.sample.gpus}
    seen: list[str] = []
    for gpu in (watch.gpu for watch in view.gpus):
        reading = read(gpu.uuid, readings.get(gpu.uuid))
        if isinstance(reading, str):
            return _unobservable(geometry_unchanged, passed=False, why=reading)
        if is_unsettled(reading):
            return _finding(geometry_unchanged, passed=False, evidence=f"the MIG mode of {gpu.uuid} waits for a reset")
        seen.append(f"{_short(gpu.geometry)} then, {_short(reading.geometry)} now")
        if is_recut(gpu, reading):
            return _finding(geometry_unchanged, passed=False, evidence=seen[-1])
        if gpu.geometry is None or reading.geometry is None:
            return _unobservable(geometry_unchanged, passed=True, why=f"how {gpu.uuid} is cut cannot be read")
    return _finding(geometry_unchanged, passed=True, evidence="; ".join(seen))


def _short(geometry: str | None) -> str:
    return "unknown" if geometry is None else geometry[:12]


def main_exited(view: View, _event: ev.AnyEvent) -> Finding:
    """Main was reaped; its timed section ended before, or its log never said so, which the certificate finds."""
    main = view.main
    gone = main is not None and main.state is WorkerState.EXITED
    return _finding(main_exited, gone, "main was reaped" if gone else "main is alive")


def all_reaped(view: View, _event: ev.AnyEvent) -> Finding:
    """No process tree of this run is left."""
    names = ", ".join(worker.name for worker in view.live_workers)
    released = sum(worker.state is WorkerState.RELEASED for worker in view.workers)
    done = f"every worker was reaped{f', but {released} that go on' if released else ''}"
    return _finding(all_reaped, not names, f"waiting for {names}" if names else done)


def slices_empty(view: View, _event: ev.AnyEvent) -> Finding:
    """A sample taken after the last exit shows nobody on the slices."""
    if view.last_exit_ns == 0:
        return _finding(slices_empty, passed=True, evidence="nothing was spawned")
    if not view.sampler_alive:
        return _unobservable(slices_empty, passed=True, why="the sampler was lost")
    sample = view.sample
    if sample is None or sample.taken_ns < view.last_exit_ns:
        return _unobservable(slices_empty, passed=False, why="no sample since the last worker was reaped")
    return _nobody_on(slices_empty, view, sample)


def devices_restored(view: View, _event: ev.AnyEvent) -> Finding:
    """The GPU is cut and shared as before the run, or will not be, which is a fault of its own; or it is to go on."""
    if view.spec.preparation is None:
        return _finding(devices_restored, passed=True, evidence="the GPU was taken as it is")
    if view.hands_on:
        return _finding(devices_restored, passed=True, evidence="the GPU stays as it is for the next run")
    over = {Keeping.NONE: "nothing was done to the GPU", Keeping.ENDED: "taken back, or given up"}.get(view.keeping)
    return _finding(devices_restored, over is not None, over or "what was done to the GPU is not taken back yet")


def devices_prepared(view: View, event: ev.AnyEvent) -> Finding:
    """The keeper has just said so, and nobody told it in the meantime to take that back."""
    news = view.prepared is event and view.keeping is Keeping.KEPT
    return _finding(devices_prepared, news, f"the keeper is {view.keeping.value}")


def devices_kept(view: View, _event: ev.AnyEvent) -> Finding:
    """There is something to take back, and nobody was told to."""
    kept = view.keeping in {Keeping.ASKED, Keeping.KEPT}
    return _finding(devices_kept, kept, f"the keeper is {view.keeping.value}")


def restore_answered(view: View, event: ev.AnyEvent) -> Finding:
    """The keeper was told to take back what it did, and said how that came out, or let its time pass."""
    late = isinstance(event, ev.DeadlinePassed) and event.timer is ev.Timer.RESTORED
    answered = view.keeping is not Keeping.RESTORING
    passed = view.restore_asked and (late or answered)
    how = view.restoration.what if isinstance(view.restoration, ev.DevicesRestored) else "it is not taken back"
    return _finding(restore_answered, passed, how if answered else "not answered")


def keeper_is_to_go_on(view: View, _event: ev.AnyEvent) -> Finding:
    """It was lost while it took back what it did, and another one may do the rest."""
    return _finding(keeper_is_to_go_on, view.keeping is Keeping.RESTORING, f"the keeper is {view.keeping.value}")


def gave_up_waiting(view: View, event: ev.AnyEvent) -> Finding:
    """The last deadline of draining has passed: what is left is named in the verdict."""
    last = ev.Timer.KILLED if view.live_workers else ev.Timer.SETTLE
    over = isinstance(event, ev.DeadlinePassed) and event.timer is last
    return _finding(gave_up_waiting, over, "the last deadline has passed" if over else "there is time left")


def _nobody_on(guard: Callable[..., Finding], view: View, sample: DeviceSample) -> Finding:
    """Whether the slices of the plan are empty; one that is seen to be busy weighs more than one that is not seen."""
    busy: list[str] = []
    hidden = False
    for place in view.places:
        occupants = view.occupants(sample, place)
        hidden = hidden or occupants is None
        # The controller itself computes nothing, though its user may have started it with a slice in its environment.
        if any(
            occupant.pid != view.controller_pid
            and not (place.shared and view.serves(occupant))
            and not view.is_kept(occupant)
            for occupant in occupants or ()
        ):
            busy.append(place.uuid)
    if busy:
        return _finding(guard, passed=False, evidence=f"busy: {', '.join(busy)}")
    if hidden:
        return _unobservable(guard, passed=True, why=view.why_hidden)
    return _finding(guard, passed=True, evidence="every slice is empty")


def _stale(guard: Callable[..., Finding], view: View, event: ev.AnyEvent) -> Finding | None:
    """The finding where there is no fresh sample, None where there is one."""
    if not view.sampler_alive:
        return _unobservable(guard, passed=True, why="the sampler was lost")
    if view.sample is None:
        return _unobservable(guard, passed=False, why="no device sample yet")
    age_ms = (event.at_ns - view.sample.taken_ns) / NS_PER_MS
    if age_ms > STALE_AFTER_PERIODS * view.spec.sample_period_ms:
        return _unobservable(
            guard, passed=False, why=f"the last device sample is older than {STALE_AFTER_PERIODS} periods"
        )
    return None
