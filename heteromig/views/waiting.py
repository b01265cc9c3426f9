"""What a run is doing right now and how far it is: sentences and fractions, from what is known of it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from heteromig.core.machine import Run
from heteromig.core.phases import Keeping, Phase, Role, WorkerState
from heteromig.core.plan import EngineNeed, build_batches
from heteromig.core.spec import Mode, Preparation
from heteromig.core.units import NS_PER_S, MonotonicNs, format_duration_s
from heteromig.core.view import View, WorkerView
from heteromig.views.text import printable

_ALMOST = 0.95
"""How far the engine being built counts, at most, when it takes longer than those before it."""


class Progress(Struct, frozen=True):
    """One bar. `fraction` from 0 to 1; `note` says what is done and what is left, in words."""

    label: str
    fraction: float
    note: str


def sentence(run: Run, entered_ns: MonotonicNs, now_ns: MonotonicNs) -> str:  # noqa: PLR0911 - one arm a phase
    """Why the run is where it is, `entered_ns` being when it got there."""
    view = run.view
    match run.phase:
        case Phase.BUILDING:
            return building_sentence(view)
        case Phase.BACKGROUND_STARTING:
            limit_s = view.spec.timing.background_start_timeout_ms / 1000
            left_s = max(0.0, limit_s - (now_ns - entered_ns) / NS_PER_S)
            waiting = printable(run.waiting_for) or "waiting for the backgrounds"
            return f"{waiting}; gives up in {format_duration_s(left_s)}"
        case Phase.BUFFERING:
            left_s = _buffer_left_s(view, entered_ns, now_ns)
            if left_s > 0:
                return f"buffering: {format_duration_s(left_s)} left"
            return printable(run.waiting_for) or "the buffer is over: waiting for a fresh sample of the devices"
        case Phase.MAIN_RUNNING:
            return _main_sentence(view)
        case Phase.DRAINING:
            return (
                _draining_sentence(view)
                or preparation_sentence(view)
                or printable(run.waiting_for)
                or "waiting until every slice is empty"
            )
        case Phase.VALIDATING:
            return "reading the logs and judging the overlap"
        case Phase.FINISHED:
            verdict = run.verdict
            return f"{verdict.status}, exit {verdict.exit_code}"
        case _:
            return printable(run.waiting_for) or preparation_sentence(view) or "looking for slices"


def preparation_sentence(view: View) -> str:
    """What is being done to the GPU, or was done at last; empty where that is over for now."""
    layout = view.spec.preparation is Preparation.LAYOUT
    if view.keeping is Keeping.ASKED:
        return f"cutting the GPU into {printable(view.spec.layout)}" if layout else "sharing the GPU"
    if view.keeping is Keeping.RESTORING:
        return "cutting the GPU back" if layout else "ending the sharing of the GPU"
    return ""


def building_sentence(view: View) -> str:
    """`engine 3 of 7: bert offline 99 for 1g.10gb`, or `build 1 of 2: hetero for 1g.10gb: bert, rnnt x offline`."""
    built, to_come = _builds(view)
    if view.missing_engines is None:
        return "reading the engine cache"
    if not to_come:
        return f"{built} built; checking the cache" if built else "every engine is in the cache"
    first, *_ = batch = to_come[0]
    count = f"{built + 1} of {built + len(to_come)}"
    if view.spec.batch_builds:
        return f"build {count}: {first.config_ver} for {first.profile}: {engine_words(batch)}"
    return f"engine {count}: {first.benchmark} {first.scenario} {first.accuracy} for {first.profile}"


def engine_words(needs: Sequence[EngineNeed]) -> str:
    """`resnet50, bert x offline, server`: benchmarks and scenarios of engines that one build makes."""
    benchmarks = dict.fromkeys(need.benchmark for need in needs)
    scenarios = dict.fromkeys(need.scenario for need in needs)
    return f"{', '.join(benchmarks)} x {', '.join(scenarios)}"


def building(view: View, now_ns: MonotonicNs) -> Progress:
    """Builds done of those that were needed; time left from how long the others took."""
    built, to_come = _builds(view)
    total = built + len(to_come)
    if view.missing_engines is None:
        return Progress(label="build", fraction=0.0, note="")
    if not total:
        return Progress(label="build", fraction=1.0, note="all in the cache")
    if not to_come:
        return Progress(label="build", fraction=1.0, note=f"{built}/{total} built")
    builds = [worker for worker in view.workers if worker.role is Role.BUILD and worker.spawned_ns is not None]
    lasted_s = [_lasted_s(worker, now_ns) for worker in builds if not worker.live]
    running_s = sum(_lasted_s(worker, now_ns) for worker in builds if worker.live)
    note = f"{built}/{total} built"
    if not lasted_s:
        return Progress(label="build", fraction=0.0, note=note)
    each_s = sum(lasted_s) / len(lasted_s)
    part = min(running_s / each_s, _ALMOST) if each_s > 0 else _ALMOST
    left_s = max(0.0, each_s * len(to_come) - running_s)
    return Progress(
        label="build", fraction=(built + part) / total, note=f"{note}, about {format_duration_s(left_s)} left"
    )


def buffering(run: Run, entered_ns: MonotonicNs, now_ns: MonotonicNs) -> Progress:
    """How much of `start_time_buffer` has passed."""
    view = run.view
    total_s = _buffer_s(view)
    if view.buffer_elapsed:
        return Progress(label="buffer", fraction=1.0, note=f"{format_duration_s(total_s)} passed")
    if run.phase is not Phase.BUFFERING:
        return Progress(label="buffer", fraction=0.0, note=format_duration_s(total_s))
    left_s = _buffer_left_s(view, entered_ns, now_ns)
    done = 1 - left_s / total_s if total_s > 0 else 1.0
    return Progress(label="buffer", fraction=done, note=f"{format_duration_s(left_s)} left")


def measuring(view: View, now_ns: MonotonicNs) -> Progress:
    """How much of main's asked duration has passed since its timed section began, or what stands for that.

    LoadGen may take longer than it was asked for, and in accuracy mode it stops when every sample was seen.
    """
    main = view.main
    asked_s = view.spec.main.duration_ms / 1000
    by_samples = view.spec.main.mode is Mode.ACCURACY
    planned = "until every sample is seen" if by_samples else format_duration_s(asked_s)
    began_ns = None if main is None else main.timed_ns or (main.announced_ns if _announces_only(view) else None)
    if main is None or began_ns is None:
        return Progress(label="main", fraction=0.0, note=planned)
    elapsed_s = ((main.ended_ns or main.exited_ns or now_ns) - began_ns) / NS_PER_S
    if main.ended_ns is not None:
        return Progress(label="main", fraction=1.0, note=f"{format_duration_s(elapsed_s)} measured")
    if main.exited_ns is not None:
        fraction = 0.0 if by_samples or not asked_s else min(1.0, elapsed_s / asked_s)
        return Progress(label="main", fraction=fraction, note=f"stopped after {format_duration_s(elapsed_s)}")
    if by_samples:
        return Progress(label="main", fraction=0.0, note=f"{format_duration_s(elapsed_s)}, {planned}")
    if elapsed_s >= asked_s:
        return Progress(
            label="main", fraction=1.0, note=f"{format_duration_s(elapsed_s - asked_s)} longer than {planned}"
        )
    return Progress(
        label="main", fraction=elapsed_s / asked_s, note=f"{format_duration_s(asked_s - elapsed_s)} left of {planned}"
    )


def _announces_only(view: View) -> bool:
    """Whether that a program says that it begins is all that will be known, as of programs without LoadGen's logs."""
    return view.spec.start_evidence.reached_by(WorkerState.ANNOUNCED)


def _main_sentence(view: View) -> str:
    main = view.main
    assert main is not None  # noqa: S101 - the phase begins with spawning it
    benchmark = main.assignment.benchmark
    match main.state:
        case WorkerState.SPAWNING | WorkerState.SPAWNED:
            return f"main {benchmark} is starting"
        case WorkerState.ANNOUNCED if not _announces_only(view):
            return f"main {benchmark} is loading its samples"
        case WorkerState.ENDED:
            return f"main {benchmark} was measured; waiting for it to exit"
        case _:
            timed = sum(view.spec.start_evidence.reached_by(worker.state) for worker in view.backgrounds)
            if not view.backgrounds:
                return f"measuring {benchmark} alone"
            return f"measuring {benchmark} beside {timed} of {len(view.backgrounds)} backgrounds"


def _draining_sentence(view: View) -> str:
    live = view.live_workers
    if not live:
        return ""
    names = ", ".join(worker.assignment.benchmark for worker in live)
    rungs = ", ".join(dict.fromkeys(worker.stopped_by for worker in live if worker.stopped_by is not None))
    return f"stopping {len(live)} ({rungs}): {names}" if rungs else f"waiting for {len(live)} to finish: {names}"


def _builds(view: View) -> tuple[int, tuple[tuple[EngineNeed, ...], ...]]:
    """(builds done in this run, the engines of each that is going on or to come)."""
    done = [worker for worker in view.workers if worker.role is Role.BUILD and worker.exit_code == 0]
    built = {need for worker in done for need in worker.assignment.builds}
    missing = [need for need, _ in view.missing_engines or () if need not in built]
    return len(done), build_batches(missing, together=view.spec.batch_builds)


def _lasted_s(worker: WorkerView, now_ns: MonotonicNs) -> float:
    return ((worker.exited_ns or now_ns) - (worker.spawned_ns or now_ns)) / NS_PER_S


def _buffer_s(view: View) -> float:
    return view.spec.timing.start_time_buffer_ms / 1000 if view.buffer_s is None else view.buffer_s


def _buffer_left_s(view: View, entered_ns: MonotonicNs, now_ns: MonotonicNs) -> float:
    return max(0.0, _buffer_s(view) - (now_ns - entered_ns) / NS_PER_S)
