"""What is wrong: an event, what is known after it, and the phase it came in give faults, each a sentence.

A fault either stops the run, which then goes through draining, or is only kept for the verdict.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.phases import ACTIVE_PHASES, MEASURING_PHASES, Keeping, Phase, Role, WorkerState
from heteromig.core.spec import Isolation, Mode, RunSpec
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs, format_duration_s
from heteromig.core.verdict import SIGNAL_BASE, ExitCode, Reason
from heteromig.core.view import View, WorkerView
from heteromig.core.watch import is_recut, is_unsettled, read


class Fault(Struct, frozen=True):
    """A reason, and whether the run can go on in spite of it."""

    reason: Reason
    stops: bool


STALL_LIMIT_S = 10.0
"""A harness with a heartbeat gives one a second while it completes anything. Ten times that is no longer the jitter of
a busy machine, and it is what a stopped, deadlocked or starved background shows."""

_NOT_RESTORED = (
    "What was done to the GPU for this run may not be taken back: heteromig clean does that, with the --runs-dir of "
    "this run; see keeper.log."
)

_WATCHED_PHASES = (Phase.BACKGROUND_STARTING, *MEASURING_PHASES)


def faults(view: View, event: ev.AnyEvent, phase: Phase) -> tuple[Fault, ...]:
    """All that `event` makes wrong in `phase`; `view` already knows of the event.

    Once the certificate is there, the verdict is on its way to the disk: nothing changes it any more.
    """
    if view.certificate is not None:
        return ()
    return tuple(_faults(view, event, phase))


def _faults(view: View, event: ev.AnyEvent, phase: Phase) -> Iterator[Fault]:  # noqa: C901, PLR0912 - one arm an event
    match event:
        case ev.SignalReceived():
            if phase is not Phase.VALIDATING:
                name = _signal_name(event.signum)
                yield _stop(SIGNAL_BASE + event.signum, f"{_capital(name)} was received during {phase.value}.")
        case ev.DiscoveryFailed() | ev.LockRefused():
            yield _stop(ExitCode.DEVICE, event.message)
        case ev.PreparationFailed():
            yield _stop(event.exit_code, event.message)
        case ev.RestorationFailed():
            yield _stop(ExitCode.DEVICE, event.message)
        case ev.KeeperLost() if view.keeping is Keeping.ENDED:
            yield _stop(ExitCode.DEVICE, f"{event.message} {_NOT_RESTORED}")
        case ev.KeeperLost() if view.keeping is not Keeping.RESTORING:  # where it is, another one goes on
            yield _stop(ExitCode.DEVICE, event.message)
        case ev.SlicesDiscovered():
            if view.plan_failure is not None:
                yield Fault(view.plan_failure, stops=True)
        case ev.EnginesInspected():
            yield from _unbuilt(view)
        case ev.SpawnFailed():
            yield from _spawn_failed(view, event)
        case ev.WorkerExited():
            yield from _exited(view, event, phase)
        case ev.ProgressMade():
            yield from _hopeless(view, event, phase)
        case ev.StartAnnounced():
            yield from _began_again(view, event, phase)
        case ev.TimedSectionEnded() | ev.FinishAnnounced():
            yield from _left_timed_section(view, event, phase)
        case ev.FoundStopped():
            yield from _stopped(view, event)
        case ev.SampleTaken():
            yield from _gpus(view, phase)
            yield from _processes(view, phase)
            yield from _stalled(view, event.at_ns, phase)
        case ev.DeviceFaulted():
            if view.uses_gpu(event.gpu_uuid):
                yield _stop(ExitCode.DEVICE, event.message)
        case ev.SamplerLost():
            if not event.restarted and phase in ACTIVE_PHASES:
                yield from _sampler_lost(event.message, phase)
        case ev.DeadlinePassed():
            yield from _deadline(view, event, phase)
        case _:
            return


def _stop(exit_code: int, sentence: str) -> Fault:
    return Fault(Reason(int(exit_code), sentence, fatal=True), stops=True)


def _background(spec: RunSpec, exit_code: ExitCode, sentence: str) -> Fault:
    """A fault of a neighbour: under `--lenient` the run goes on without it."""
    return Fault(Reason(int(exit_code), sentence), stops=not spec.lenient)


def _unbuilt(view: View) -> Iterator[Fault]:
    """A build that exited 0 must have left its engine."""
    built = {
        need
        for worker in view.workers
        if worker.role is Role.BUILD and worker.exit_code == 0
        for need in worker.assignment.builds
    }
    for need, why in view.missing_engines or ():
        if need in built:
            yield _stop(
                ExitCode.WORKER,
                f"The build of {need.benchmark} ({need.scenario}, {need.accuracy}, {need.profile}) exited 0, but its "
                f"engine is not usable: {why}",
            )


def _spawn_failed(view: View, event: ev.SpawnFailed) -> Iterator[Fault]:
    worker = view.worker(event.worker)
    if worker is None:
        return
    sentence = f"The harness of {worker.name} could not be started: {event.message}"
    if worker.role is Role.BACKGROUND:
        yield _background(view.spec, ExitCode.WORKER, sentence)
    else:
        yield _stop(ExitCode.WORKER, sentence)


def _exited(view: View, event: ev.WorkerExited, phase: Phase) -> Iterator[Fault]:
    worker = view.worker(event.worker)
    if worker is None or worker.spawn_failure is not None:
        return
    if worker.stopped_by is not None and phase not in ACTIVE_PHASES:
        return  # before draining the run stops nobody, and whoever else does is no excuse
    log = f"see {worker.assignment.directory}/stdout.log"
    if event.exit_code == 0:
        if worker.role is Role.MAIN and worker.stopped_by is not None:
            yield _stop(ExitCode.WORKER, f"{_capital(worker.name)} was stopped by somebody else; {log}.")
        if worker.role is Role.BACKGROUND and phase in _WATCHED_PHASES and not view.main_ended:
            yield _background(view.spec, ExitCode.OVERLAP, f"{_capital(worker.name)} ended before main did; {log}.")
        return
    how = _how_it_ended(event)
    said = f', having said "{event.last_line}"' if event.last_line else ""
    sentence = f"{_capital(worker.name)} {how} during {phase.value}{said}; {log}."
    if worker.role is Role.BACKGROUND:
        yield _background(view.spec, ExitCode.WORKER, sentence)
        if view.spec.isolation is Isolation.SOFT and phase is Phase.MAIN_RUNNING and worker.died_hard:
            yield Fault(
                Reason(
                    ExitCode.INCONCLUSIVE,
                    f"{_capital(worker.name)} {how} while main ran on the same GPU under MPS, where a client that dies "
                    "so can disturb the work of others: main's result says nothing.",
                    fatal=True,
                ),
                stops=False,
            )
    elif worker.role is Role.MAIN and _accuracy_failed(view, worker):
        yield _stop(
            ExitCode.INVALID, f"Main {worker.assignment.benchmark} is not VALID, its accuracy is too low: {sentence}"
        )
    else:
        yield _stop(ExitCode.WORKER, sentence)


def _accuracy_failed(view: View, main: WorkerView) -> bool:
    """Whether main ran to its end and says that its answers are not good enough, as NVIDIA's does with an error."""
    return view.spec.main.mode is Mode.ACCURACY and main.ended_ns is not None and main.reported_valid is False


def _how_it_ended(event: ev.WorkerExited) -> str:
    if event.exit_code is not None:
        return f"exited with status {event.exit_code}"
    if event.signal is not None:
        return f"died of {_signal_name(event.signal)}"
    return "lost its guardian"


def _signal_name(signum: int) -> str:
    try:
        return signal.Signals(signum).name
    except ValueError:
        return f"signal {signum}"  # a real-time signal has no name


def _left_timed_section(view: View, event: ev.TimedSectionEnded | ev.FinishAnnounced, phase: Phase) -> Iterator[Fault]:
    worker = view.worker(event.worker)
    if worker is None or worker.role is not Role.BACKGROUND or worker.state is not WorkerState.ENDED:
        return
    if phase not in _WATCHED_PHASES or view.main_ended:
        return
    assert view.plan is not None  # noqa: S101 - a background is part of a plan
    yield _background(
        view.spec,
        ExitCode.OVERLAP,
        f"{_capital(worker.name)} left its timed section before main did: it was asked for "
        f"{format_duration_s(worker.assignment.duration_ms / 1000)}. Ask for more, "
        f"e.g. --background-benchmark-duration {2 * view.plan.background_duration_ms // 1000}s.",
    )


def _began_again(view: View, event: ev.StartAnnounced, phase: Phase) -> Iterator[Fault]:
    """Backgrounds are needed until main's first end; what it measures after that is not beside them."""
    main = view.main
    if main is None or event.worker != main.index or main.ended_ns is None or main.timed_ns is not None:
        return
    if phase in {Phase.MAIN_RUNNING, Phase.DRAINING}:
        yield _stop(
            ExitCode.INCONCLUSIVE,
            f"Main {main.assignment.benchmark} announced another start after it had announced its end, and a run "
            "measures one timed section: have it announce each once.",
        )


def _hopeless(view: View, event: ev.ProgressMade, phase: Phase) -> Iterator[Fault]:
    """A main with more late samples than all of its run may have is ended, where that was asked for."""
    most = view.spec.main.most_over_latency
    main = view.main
    if most is None or event.over_latency is None or main is None or event.worker != main.index:
        return
    if phase is Phase.MAIN_RUNNING and event.over_latency > most:
        yield _stop(
            ExitCode.INVALID,
            f"Main {main.assignment.benchmark} cannot be VALID any more, and was ended: {event.over_latency} samples "
            f"were over the limit on latency, and at most {most} may be in all of its run.",
        )


def _stopped(view: View, event: ev.FoundStopped) -> Iterator[Fault]:
    """Its log will say that it was timed until it is woken up to be ended; how long it stood still, nobody knows."""
    worker = view.worker(event.worker)
    if worker is not None and worker.role is Role.BACKGROUND and view.main_ended:
        yield _background(
            view.spec,
            ExitCode.OVERLAP,
            f"{_capital(worker.name)} was found stopped when main had ended (as by SIGSTOP, or a debugger), so it did "
            "not keep its slice busy until then: let nobody stop it.",
        )


def _gpus(view: View, phase: Phase) -> Iterator[Fault]:
    """What a sample says of the GPUs of the plan; that one cannot be read is a fault in every phase."""
    assert view.sample is not None  # noqa: S101 - this event brought it
    readings = {reading.gpu_uuid: reading for reading in view.sample.gpus}
    for gpu in (watch.gpu for watch in view.gpus):
        reading = read(gpu.uuid, readings.get(gpu.uuid))
        if isinstance(reading, str):
            yield _stop(ExitCode.DEVICE, reading)
        elif phase in ACTIVE_PHASES:
            if is_recut(gpu, reading):
                yield _stop(
                    ExitCode.DEVICE,
                    f"The partitioning of GPU {gpu.uuid} changed during {phase.value}: somebody else reconfigured it. "
                    "Keep other tools away from the GPU while a run is going on.",
                )
            if is_unsettled(reading):
                yield _stop(
                    ExitCode.DEVICE,
                    f"The MIG mode of GPU {gpu.uuid} is not settled any more during {phase.value}: somebody else "
                    "changed it, and it waits for a reset. Set it back, and keep other tools away from the GPU.",
                )


def _processes(view: View, phase: Phase) -> Iterator[Fault]:
    sample = view.sample
    if sample is None or phase not in ACTIVE_PHASES:
        return
    for place in view.places:
        for occupant in view.occupants(sample, place) or ():
            owner = view.owner(occupant)
            if owner is not None and not view.belongs(owner, place.uuid):
                yield _stop(
                    ExitCode.DEVICE,
                    f"{_capital(owner.name)} runs on {place.name} instead of its own "
                    f"({owner.assignment.slice_uuid}), as pid {occupant.pid} ({occupant.command}).",
                )
            elif owner is None and not view.is_ours(occupant):
                yield _stop(
                    ExitCode.DEVICE,
                    f"{_capital(place.name)} is used by a process that is not part of this run: pid "
                    f"{occupant.pid} ({occupant.command}). End it, or use "
                    f"{'another GPU' if place.shared else 'other slices'}.",
                )
    if view.demands_idle_host and view.plan is not None:
        for name, occupant in view.foreign(sample):
            yield _stop(
                ExitCode.DEVICE,
                f"{_capital(name)} is used by a process that is not part of this baseline, which needs the whole host "
                f"idle: pid {occupant.pid} ({occupant.command}). End it, or measure all the same with --allow-busy.",
            )
    if phase in MEASURING_PHASES:
        for index in sorted(view.missing):
            worker = view.workers[index]
            yield _stop(
                ExitCode.DEVICE,
                f"{_capital(worker.name)} is in its timed section, but the device shows none of its processes on "
                f"its slice {worker.assignment.slice_uuid}.",
            )


def _stalled(view: View, at_ns: MonotonicNs, phase: Phase) -> Iterator[Fault]:
    """A background that is timed but completes nothing keeps nothing busy."""
    if phase not in MEASURING_PHASES or view.main_ended:
        return
    for worker in view.backgrounds:
        since_ns = worker.progress_ns if worker.state is WorkerState.BUSY else None
        if worker.state is WorkerState.TIMED and view.spec.gives_heartbeats:
            since_ns = worker.timed_ns
        if since_ns is not None and (at_ns - since_ns) / NS_PER_S > STALL_LIMIT_S:
            yield _background(
                view.spec,
                ExitCode.WORKER,
                f"{_capital(worker.name)} stalls: it has completed nothing for more than {STALL_LIMIT_S:g} s of "
                f"{phase.value}; see {worker.assignment.directory}/stdout.log.",
            )


def _sampler_lost(message: str, phase: Phase) -> Iterator[Fault]:
    if phase is Phase.DISCOVERING:
        yield _stop(ExitCode.DEVICE, f"The devices could not be read: {message}")
    else:
        sentence = f"The devices could not be observed from {phase.value} on: {message}"
        yield Fault(Reason(ExitCode.INCONCLUSIVE, sentence), stops=False)


def _deadline(view: View, event: ev.DeadlinePassed, phase: Phase) -> Iterator[Fault]:  # noqa: C901 - one arm a timer
    timing = view.spec.timing
    match event.timer, phase:
        case ev.Timer.PHASE_TIMEOUT, Phase.DISCOVERING if view.keeping is Keeping.ASKED:
            yield _stop(ExitCode.DEVICE, "The GPU was not prepared in time; does the driver hang? See keeper.log.")
        case ev.Timer.PHASE_TIMEOUT, Phase.DISCOVERING:
            yield _stop(ExitCode.DEVICE, "The devices did not answer in time; is the driver hanging? See sampler.log.")
        case ev.Timer.PHASE_TIMEOUT, Phase.BUILDING:
            yield _stop(
                ExitCode.WORKER,
                "The engines were not built in time; allow more with --build-timeout, or see workers/*/stdout.log.",
            )
        case ev.Timer.PHASE_TIMEOUT, Phase.BACKGROUND_STARTING:
            names = (
                ", ".join(worker.name for worker in _not_started(view)) or "none, but the device guards did not hold"
            )
            yield _background(
                view.spec,
                ExitCode.START_TIMEOUT,
                f"Not every background was in its timed section within "
                f"{format_duration_s(timing.background_start_timeout_ms / 1000)}: still missing {names}. "
                "Allow more with --background-start-timeout, or see workers/*/stdout.log.",
            )
        case ev.Timer.PHASE_TIMEOUT, Phase.BUFFERING:
            yield _stop(ExitCode.DEVICE, "No fresh device sample arrived after the buffer; see sampler.log.")
        case ev.Timer.PHASE_TIMEOUT, Phase.MAIN_RUNNING:
            yield _stop(
                ExitCode.WORKER,
                f"Main did not end within {format_duration_s(timing.main_timeout_ms / 1000)}: it stalls. "
                "Allow more with --main-timeout, or see its stdout.log.",
            )
        case ev.Timer.MAIN_EXIT, Phase.MAIN_RUNNING if _outstays(view, event.at_ns):
            yield _stop(
                ExitCode.WORKER,
                f"Main was still alive {format_duration_s(timing.main_exit_timeout_ms / 1000)} after its timed "
                "section; allow more with --main-exit-timeout.",
            )
        case ev.Timer.KILLED, Phase.DRAINING:
            for worker in view.live_workers:
                yield _stop(
                    ExitCode.WORKER,
                    f"{_capital(worker.name)} could not be reaped after SIGKILL; its guardian is pid "
                    f"{worker.guardian_pid}.",
                )
        case ev.Timer.SETTLE, Phase.DRAINING:
            yield from _still_busy(view)
        case ev.Timer.RESTORED, Phase.DRAINING if view.keeping is Keeping.RESTORING:
            yield _stop(ExitCode.DEVICE, f"The keeper of the GPU did not answer in time. {_NOT_RESTORED}")
        case _:
            return


def _outstays(view: View, at_ns: MonotonicNs) -> bool:
    """Whether main still lives that long after its last timed section; a deadline of an earlier one says nothing."""
    main = view.main
    if main is None or main.ended_ns is None:
        return False  # it may be in another timed section by now
    return at_ns - main.ended_ns >= view.spec.timing.main_exit_timeout_ms * NS_PER_MS


def _not_started(view: View) -> tuple[WorkerView, ...]:
    level = view.spec.start_evidence
    return tuple(worker for worker in view.backgrounds if not level.reached_by(worker.state))


def _still_busy(view: View) -> Iterator[Fault]:
    sample = view.sample
    if view.live_workers or sample is None or sample.taken_ns < view.last_exit_ns:
        return
    for place in view.places:
        left = [
            one
            for one in view.occupants(sample, place) or ()
            if not (place.shared and view.serves(one)) and not view.is_kept(one)
        ]
        if left:
            pids = ", ".join(str(occupant.pid) for occupant in left)
            yield _stop(ExitCode.DEVICE, f"{_capital(place.name)} is not empty after draining: pid {pids}.")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
