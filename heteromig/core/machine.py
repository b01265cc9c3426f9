"""The state machine: one table over `transitions`, and the only door, `Run.handle`.

Two rules. Everything that decides where a run goes next is a row of TABLE or an entry action below it. Nothing here
does I/O, reads a clock or starts anything: callbacks append effects, which the shell performs in order.

How to read TABLE: a row is (event, source, destination, guards). Rows are tried from the top; the first whose guards
all pass is taken. A row without a destination is heard and changes no phase; it may have an action.

On `transitions`: an engine without a model (`Machine(None)`), fired by the event's class name, so that nothing is
injected into `Run`; never queued (a rejected guard must be seen); no automatic `to_<state>` triggers; unknown triggers
raise; callbacks are callables, so that a misspelt one fails at import.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, cast

import msgspec
from transitions import EventData, Machine, State

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core import guards
from heteromig.core.faults import faults
from heteromig.core.phases import ACTIVE_PHASES, Keeping, Phase, Role
from heteromig.core.plan import Assignment, build_assignment, build_batches
from heteromig.core.spec import Drain, Goal, Isolation, RunSpec
from heteromig.core.units import NS_PER_S, MonotonicNs
from heteromig.core.verdict import Verdict, decide
from heteromig.core.view import View

if TYPE_CHECKING:
    from transitions.core import TransitionConfigDict

# The library logs each rejected guard at DEBUG and would slow every trigger sevenfold; rejections are journaled here.
logging.getLogger("transitions").setLevel(logging.ERROR)

_DISCOVERY_LIMIT_S = 30.0
_PREPARATION_LIMIT_S = 60.0
"""Making or destroying an instance takes a real GPU a second or two, and there are at most seven of each."""
_CLIENTS_S = 1.0
"""`terminate_client` takes 10 ms on an H100 (driver 580.159.04), and the client up to 0.7 s to notice and end."""
_BUFFER_EXTRA_S = 30.0
_KILLED_LIMIT_S = 10.0
_SETTLE_LIMIT_S = 10.0
_ABORTED_SETTLE_LIMIT_S = 2.0
"""Who wants the run to end does not wait for a driver that hangs. One that does not answers within milliseconds."""
_LAST_LOOK_S = 0.25
"""Where main exits as soon as its timed section is over, one look at once could not tell whether a background's log is
merely late (by up to `runner.evidence._SEEN_NS`); a second one after this can."""
_RELEASE_LIMIT_S = 10.0
"""Letting go is a matter of copying what was written."""
_STARTING_TICK_S = 0.1
_TICK_S = 0.25


class Run:
    """One run: where it is, what it knows, and what it wants done next."""

    def __init__(self, spec: RunSpec) -> None:
        self.phase = Phase.DISCOVERING
        self.entry = 0
        """How many times a phase was entered; timers of an earlier phase are stale."""
        self.view = View(spec=spec)
        self.exit_expected_since_ns: MonotonicNs | None = None
        """The last end of main's work after which its exit has a deadline."""
        self.graces = 0
        """How many grace periods are running: those that got TERM last have theirs too."""
        self.waiting_for = ""
        """Why the last transition did not happen, for people."""
        self.transitions: list[ef.RecordTransition] = []
        self._effects: list[ef.AnyEffect] = []
        self._findings: list[guards.Finding] = []
        self._rejected: set[tuple[str, str]] = set()

    def handle(self, event: ev.AnyEvent) -> list[ef.AnyEffect]:
        """Take in one fact; return what is to be done about it, in order."""
        if isinstance(event, ev.DeadlinePassed) and event.entry != self.entry:
            return []
        view = self.view.after(event)
        for fault in faults(view, event, self.phase):
            if fault.reason not in view.reasons:
                view = msgspec.structs.replace(view, reasons=(*view.reasons, fault.reason))
            view = msgspec.structs.replace(view, must_stop=view.must_stop or fault.stops)
        self.view = view
        self._effects = []
        self._findings = []
        ENGINE.events[type(event).__name__].trigger(self, event)
        return self._effects

    @property
    def verdict(self) -> Verdict:
        """How the run came out, as far as it is known."""
        view = self.view
        reasons = view.reasons
        if view.certificate is not None and view.main_finished:
            reasons = (*reasons, *view.certificate.reasons)
        good = "built" if view.spec.goal is Goal.BUILD else "valid"
        return decide(reasons, lenient=view.spec.lenient, good=good)

    def request(self, *effects: ef.AnyEffect) -> None:
        """Append effects; for the actions of this module."""
        self._effects.extend(effects)

    def arm(self, timer: ev.Timer, after_s: float) -> None:
        """Ask for a deadline of the current phase; for the actions of this module."""
        self.request(ef.ArmTimer(timer=timer, entry=self.entry, after_s=after_s))

    def spawn(self, assignments: Iterable[Assignment]) -> None:
        """Ask for workers; for the actions of this module."""
        for assignment in assignments:
            self.view = self.view.spawning(assignment)
            self.request(ef.SpawnWorker(assignment=assignment))

    def judge(self, guard: guards.Guard, event: ev.AnyEvent, *, quiet: bool) -> bool:
        """Evaluate a guard for a row; a new rejection is recorded unless `quiet`."""
        finding = guard(self.view, event)
        if finding.passed:
            self._findings.append(finding)
            return True
        if not quiet:
            self.waiting_for = finding.evidence
            if (finding.guard, finding.evidence) not in self._rejected:
                self._rejected.add((finding.guard, finding.evidence))
                self.request(ef.RecordRejection(finding=finding))
        return False

    def forget_findings(self) -> None:
        """A row is tried anew."""
        self._findings = []

    def moved(self, source: Phase) -> None:
        """The phase has just changed; for the actions of this module."""
        self.entry += 1
        self.waiting_for = ""
        self._rejected = set()
        record = ef.RecordTransition(source=source, destination=self.phase, findings=tuple(self._findings))
        self.transitions.append(record)
        self.request(record)


# --- actions: what entering a phase, or an event that stays in it, asks for ------------------------------------------


def _begin(run: Run, _event: ev.AnyEvent) -> None:
    if run.view.spec.preparation is None:
        run.request(ef.StartSampler())
        run.arm(ev.Timer.PHASE_TIMEOUT, _DISCOVERY_LIMIT_S)
    elif run.view.keeping is Keeping.NONE:
        run.view = msgspec.structs.replace(run.view, keeping=Keeping.ASKED)
        run.request(ef.PrepareDevices())
        run.arm(ev.Timer.PHASE_TIMEOUT, _PREPARATION_LIMIT_S + _DISCOVERY_LIMIT_S)


def _start_sampler(run: Run, _event: ev.AnyEvent) -> None:
    run.request(ef.StartSampler())


def _lock(run: Run, _event: ev.AnyEvent) -> None:
    inventory, plan = run.view.inventory, run.view.plan
    assert inventory is not None  # noqa: S101 - this event brought it
    assert plan is not None  # noqa: S101 - otherwise the run would have stopped
    if not run.view.locked:
        ours = {worker.slice_uuid for worker in plan.workers}
        used = {one.gpu_uuid for one in inventory.slices if one.uuid in ours}
        run.request(ef.LockGpus(gpu_uuids=tuple(gpu.uuid for gpu in inventory.gpus if gpu.uuid in used)))


def _enter_building(run: Run, _event: ev.AnyEvent) -> None:
    assert run.view.plan is not None  # noqa: S101 - `slices_locked` saw to it
    needs = run.view.plan.engines
    run.request(ef.InspectEngines(needs=needs, discard=run.view.spec.rebuild))
    run.arm(ev.Timer.PHASE_TIMEOUT, run.view.spec.timing.build_timeout_ms / 1000 * len(needs))


def _build_next(run: Run, _event: ev.AnyEvent) -> None:
    plan, missing = run.view.plan, run.view.missing_engines
    assert plan is not None  # noqa: S101 - engines belong to a plan
    assert missing  # noqa: S101 - otherwise the run would have gone on
    if run.view.live_workers:
        return  # one build at a time, so that each has its slice to itself
    batch = build_batches([need for need, _ in missing], together=run.view.spec.batch_builds)[0]
    run.spawn([build_assignment(batch, len(run.view.workers), plan.on_profile(batch[0].profile))])


def _inspect_again(run: Run, _event: ev.AnyEvent) -> None:
    assert run.view.plan is not None  # noqa: S101 - a build has ended
    built = {need for worker in run.view.workers if worker.role is Role.BUILD for need in worker.assignment.builds}
    needs = run.view.plan.engines
    if run.view.spec.rebuild:
        missing = run.view.missing_engines or ()
        left = tuple(need for need, _ in missing if need not in built)
        if left:
            run.view = msgspec.structs.replace(
                run.view, missing_engines=tuple((need, why) for need, why in missing if need not in built)
            )
            _build_next(run, _event)
            return
    run.request(ef.InspectEngines(needs=needs, discard=False))


def _enter_background_starting(run: Run, _event: ev.AnyEvent) -> None:
    assert run.view.plan is not None  # noqa: S101 - engines belong to a plan
    run.request(ef.SetTick(period_s=_STARTING_TICK_S))
    run.spawn(run.view.plan.backgrounds)
    run.arm(ev.Timer.PHASE_TIMEOUT, run.view.spec.timing.background_start_timeout_ms / 1000)
    if not run.view.plan.backgrounds:
        run.arm(ev.Timer.RECHECK, 0.0)


def _look_now(run: Run, _event: ev.AnyEvent) -> None:
    level = run.view.spec.start_evidence
    if all(level.reached_by(worker.state) for worker in run.view.backgrounds):
        run.request(ef.RequestSample())


def _buffer_s(view: View, at_ns: MonotonicNs) -> float:
    """How long main is still to wait for its backgrounds: for none where there are none.

    What all of them did beside earlier runs, which started them and handed them on, counts as well.
    """
    backgrounds = [worker for worker in view.backgrounds if worker.live]
    if not backgrounds:
        return 0.0
    wanted_s = view.spec.timing.start_time_buffer_ms / 1000
    started_ns = max(worker.spawned_ns or at_ns for worker in backgrounds)
    if not view.clocks or started_ns >= view.clocks[0].at_ns:
        return wanted_s
    return max(0.0, wanted_s - (at_ns - started_ns) / NS_PER_S)


def _enter_buffering(run: Run, event: ev.AnyEvent) -> None:
    buffer_s = _buffer_s(run.view, event.at_ns)
    # It begins now, whatever was said before.
    run.view = msgspec.structs.replace(run.view, buffer_s=buffer_s, buffer_elapsed=False)
    run.request(ef.SetTick(period_s=_TICK_S))
    run.arm(ev.Timer.BUFFER, buffer_s)
    run.arm(ev.Timer.PHASE_TIMEOUT, buffer_s + _BUFFER_EXTRA_S)


def _enter_main_running(run: Run, _event: ev.AnyEvent) -> None:
    assert run.view.plan is not None  # noqa: S101 - backgrounds run
    run.spawn([run.view.plan.main])
    run.arm(ev.Timer.PHASE_TIMEOUT, run.view.spec.timing.main_timeout_ms / 1000)


def _expect_main_exit(run: Run, event: ev.AnyEvent) -> None:
    main = run.view.main
    if not isinstance(event, ev.TimedSectionEnded | ev.FinishAnnounced) or main is None or event.worker != main.index:
        return
    # Once for each end: where LoadGen's log has told of it, the marker that is printed after it tells nothing new.
    if main.ended_ns is not None and main.ended_ns != run.exit_expected_since_ns:
        run.exit_expected_since_ns = main.ended_ns
        run.arm(ev.Timer.MAIN_EXIT, run.view.spec.timing.main_exit_timeout_ms / 1000)


def _enter_draining(run: Run, _event: ev.AnyEvent) -> None:
    run.view = msgspec.structs.replace(run.view, draining=True)
    view = run.view
    live = tuple(worker.index for worker in view.live_workers)
    timed = tuple(worker.index for worker in view.backgrounds if worker.live)
    if timed:
        run.request(ef.ObserveWorkers(workers=timed))
    kept = tuple(worker.index for worker in view.to_be_kept)
    if view.signals:
        _terminate(run, live)
    elif view.must_stop or view.spec.drain is Drain.KILL or view.spec.keeps_backgrounds:
        _clean_stop(run, tuple(index for index in live if index not in kept))
        if kept:
            run.arm(ev.Timer.LAST_LOOK, _LAST_LOOK_S)
    elif view.plan is not None and live:
        run.arm(ev.Timer.PHASE_TIMEOUT, view.plan.background_duration_ms / 1000 + 60.0)
    if not live:
        _settle(run)


def _clean_stop(run: Run, workers: Sequence[int]) -> None:
    if workers:
        run.view = run.view.stopping(workers, "clean stop")
        able = tuple(index for index in workers if run.view.workers[index].assignment.stops_cleanly)
        if able:
            run.request(ef.CleanStop(workers=able))
            run.arm(ev.Timer.CLEAN_STOP, run.view.spec.timing.clean_stop_ms / 1000)
        if len(able) < len(workers):
            run.arm(ev.Timer.LAST_LOOK, _LAST_LOOK_S)


def _terminate(run: Run, workers: Sequence[int]) -> None:
    if workers:
        run.view = run.view.stopping(workers, "TERM")
        run.request(ef.Terminate(workers=tuple(workers)))
        run.graces += 1
        run.arm(ev.Timer.GRACE, run.view.spec.timing.grace_ms / 1000)


def _take_off(run: Run, workers: Sequence[int]) -> None:
    """The rung before KILL where others share the GPU with them."""
    if run.view.spec.isolation is not Isolation.SOFT or run.view.keeping is not Keeping.KEPT:
        _kill(run, workers)
    elif workers:
        run.view = run.view.stopping(workers, "terminate_client")
        run.request(ef.TerminateClients(workers=tuple(workers)))
        run.arm(ev.Timer.CLIENTS, _CLIENTS_S)


def _kill(run: Run, workers: Sequence[int]) -> None:
    if workers:
        run.view = run.view.stopping(workers, "KILL")
        run.request(ef.Kill(workers=tuple(workers)))
        run.arm(ev.Timer.KILLED, _KILLED_LIMIT_S)


def _settle(run: Run) -> None:
    if run.view.last_exit_ns and run.view.sampler_alive:
        run.request(ef.RequestSample())
        run.arm(ev.Timer.SETTLE, _ABORTED_SETTLE_LIMIT_S if run.view.signals else _SETTLE_LIMIT_S)
    else:
        run.arm(ev.Timer.RECHECK, 0.0)


def _restore(run: Run, _event: ev.AnyEvent) -> None:
    run.view = msgspec.structs.replace(run.view, keeping=Keeping.RESTORING, restore_asked=True)
    run.request(ef.RestoreDevices())
    run.arm(ev.Timer.RESTORED, _PREPARATION_LIMIT_S)


def _restore_again(run: Run, _event: ev.AnyEvent) -> None:
    """Within the time that the first attempt was given."""
    run.request(ef.RestoreDevices())


def _drain_exit(run: Run, event: ev.AnyEvent) -> None:
    if run.view.live_workers:
        _drain_fault(run, event)
    elif not run.view.restore_asked:  # the sampler has ended by then
        _settle(run)


def _drain_fault(run: Run, _event: ev.AnyEvent) -> None:
    """There is nothing to wait for any more once the run has failed."""
    if run.view.must_stop:
        kept = {worker.index for worker in run.view.to_be_kept}
        _clean_stop(run, tuple(index for index in _live_on(run, None) if index not in kept))


def _release(run: Run) -> None:
    """The last of them that are still timed; who left meanwhile is of no use to the next run."""
    kept = {worker.index: worker.release_asked for worker in run.view.to_be_kept}
    fresh = tuple(index for index, is_asked in kept.items() if not is_asked)
    if fresh:
        _look_again(run, fresh)
        run.view = run.view.releasing(fresh)
        run.request(ef.ReleaseWorkers(workers=fresh))
        run.arm(ev.Timer.RELEASED, _RELEASE_LIMIT_S)
    _clean_stop(run, tuple(index for index in _live_on(run, None) if index not in kept))


def _drain_deadline(run: Run, event: ev.AnyEvent) -> None:
    timer = event.timer if isinstance(event, ev.DeadlinePassed) else None
    if timer is ev.Timer.PHASE_TIMEOUT:
        _clean_stop(run, _live_on(run, None))
    elif timer in {ev.Timer.CLEAN_STOP, ev.Timer.LAST_LOOK}:
        able = timer is ev.Timer.CLEAN_STOP
        waiting = _live_on(run, "clean stop")
        left = tuple(index for index in waiting if run.view.workers[index].assignment.stops_cleanly is able)
        _look_again(run, left)
        _terminate(run, left)
        if timer is ev.Timer.LAST_LOOK and run.view.spec.keeps_backgrounds:
            _release(run)
    elif timer is ev.Timer.RELEASED:
        _clean_stop(run, _live_on(run, None))
    elif timer is ev.Timer.GRACE:
        run.graces = max(0, run.graces - 1)
        left = _live_on(run, "TERM") if run.graces == 0 else ()
        _look_again(run, left)
        _take_off(run, left)
    elif timer is ev.Timer.CLIENTS:
        left = _live_on(run, "terminate_client")
        _look_again(run, left)
        _kill(run, left)


def _look_again(run: Run, workers: Sequence[int]) -> None:
    """Before a harder rung: one that is still timed now was so long after main ended, beyond any doubt."""
    if workers:
        run.request(ef.ObserveWorkers(workers=tuple(workers)))


def _live_on(run: Run, *rungs: str | None) -> tuple[int, ...]:
    """Those to reap yet that the stop ladder has brought so far: signals and deadlines may overtake each other."""
    return tuple(worker.index for worker in run.view.live_workers if worker.stopped_by in rungs)


def _drain_signal(run: Run, _event: ev.AnyEvent) -> None:
    if not run.view.live_workers:
        run.arm(ev.Timer.SETTLE, _ABORTED_SETTLE_LIMIT_S)  # it may have settled down to wait for a driver that hangs
    elif run.view.signals > 1:
        _kill(run, tuple(worker.index for worker in run.view.live_workers))
    else:
        _terminate(run, _live_on(run, None, "clean stop"))


def _enter_validating(run: Run, _event: ev.AnyEvent) -> None:
    if run.view.hands_on:  # to a crew, as the shell lets go of it once the verdict is on the disk
        run.view = msgspec.structs.replace(run.view, keeping=Keeping.HANDED_ON)
    run.request(ef.ComputeCertificate())


def _write_verdict(run: Run, _event: ev.AnyEvent) -> None:
    run.request(ef.WriteVerdict(verdict=run.verdict))


# --- the table --------------------------------------------------------------------------------------------------------

Action = Callable[[Run, ev.AnyEvent], None]

ENTRY_ACTIONS: dict[Phase, Action] = {
    Phase.BUILDING: _enter_building,
    Phase.BACKGROUND_STARTING: _enter_background_starting,
    Phase.BUFFERING: _enter_buffering,
    Phase.MAIN_RUNNING: _enter_main_running,
    Phase.DRAINING: _enter_draining,
    Phase.VALIDATING: _enter_validating,
}

EVENTS: tuple[type[ev.Event], ...] = tuple(ev.AnyEvent.__args__)  # type: ignore[attr-defined]  # a Union has them

REPLIES = (ev.CertificateComputed, ev.VerdictWritten)
"""Answers to effects of one phase: anywhere else they are a bug, and raise."""

FACTS = tuple(event for event in EVENTS if event not in REPLIES)
"""What the world says; it may say it late, so every phase hears it."""


def _unpack(data: EventData) -> tuple[Run, ev.AnyEvent]:
    """What `Run.handle` put in; the library types it as objects."""
    model, (event,) = data.model, data.args
    return cast("Run", model), cast("ev.AnyEvent", event)


def _condition(guard: guards.Guard, *, first: bool, quiet: bool) -> Callable[[EventData], bool]:
    @functools.wraps(guard)
    def condition(data: EventData) -> bool:
        run, event = _unpack(data)
        if first:
            run.forget_findings()
        return run.judge(guard, event, quiet=quiet)

    return condition


def _action(action: Action) -> Callable[[EventData], None]:
    @functools.wraps(action)
    def callback(data: EventData) -> None:
        action(*_unpack(data))

    return callback


def _row(  # noqa: PLR0917 - a row of a table reads by position
    event: type[ev.Event],
    sources: Phase | Sequence[Phase],
    destination: Phase | None,
    conditions: Sequence[guards.Guard] = (),
    action: Action | None = None,
    quiet: bool = False,  # noqa: FBT001, FBT002 - as above
) -> TransitionConfigDict:
    row: TransitionConfigDict = {
        "trigger": event.__name__,
        "source": sources if isinstance(sources, Phase) else list(sources),
        "dest": destination,
        "conditions": [
            _condition(guard, first=position == 0, quiet=quiet) for position, guard in enumerate(conditions)
        ],
    }
    if action is not None:
        row["after"] = _action(action)
    return row


_STARTED = (guards.all_backgrounds_timed, guards.backgrounds_on_their_slices)
_SETTLED = (guards.buffer_elapsed, guards.backgrounds_still_timed, guards.geometry_unchanged)
_EMPTY = (guards.all_reaped, guards.slices_empty)
_DRAINED = (*_EMPTY, guards.devices_restored)
_READY = (guards.slices_locked, guards.slices_idle, guards.host_idle)

TABLE: list[TransitionConfigDict] = [
    # Anything wrong, at any phase, goes through draining: nothing is ever left running.
    *(_row(event, ACTIVE_PHASES, Phase.DRAINING, [guards.run_must_stop], quiet=True) for event in FACTS),
    # The way of a good run.
    _row(ev.RunStarted, Phase.DISCOVERING, None, action=_begin),
    _row(ev.DevicesPrepared, Phase.DISCOVERING, None, [guards.devices_prepared], action=_start_sampler, quiet=True),
    _row(ev.SlicesDiscovered, Phase.DISCOVERING, None, action=_lock),
    _row(ev.GpusLocked, Phase.DISCOVERING, Phase.BUILDING, _READY),
    _row(ev.SampleTaken, Phase.DISCOVERING, Phase.BUILDING, _READY),
    _row(
        ev.EnginesInspected,
        Phase.BUILDING,
        Phase.DRAINING,
        [guards.every_engine_present, guards.only_building],
        quiet=True,
    ),
    _row(ev.EnginesInspected, Phase.BUILDING, Phase.BACKGROUND_STARTING, [guards.every_engine_present]),
    _row(ev.EnginesInspected, Phase.BUILDING, None, action=_build_next),
    _row(ev.WorkerExited, Phase.BUILDING, None, action=_inspect_again),
    _row(ev.StartAnnounced, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED),
    _row(ev.StartAnnounced, Phase.BACKGROUND_STARTING, None, action=_look_now),
    _row(ev.TimedSectionBegan, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED),
    _row(ev.TimedSectionBegan, Phase.BACKGROUND_STARTING, None, action=_look_now),
    _row(ev.ProgressMade, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED),
    _row(ev.ProgressMade, Phase.BACKGROUND_STARTING, None, action=_look_now),
    _row(ev.SampleTaken, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED),
    _row(ev.SamplerLost, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED, quiet=True),
    _row(ev.DeadlinePassed, Phase.BACKGROUND_STARTING, Phase.BUFFERING, [guards.start_timed_out_leniently], quiet=True),
    _row(ev.DeadlinePassed, Phase.BACKGROUND_STARTING, Phase.BUFFERING, _STARTED),
    _row(ev.DeadlinePassed, Phase.BUFFERING, Phase.MAIN_RUNNING, _SETTLED),
    _row(ev.SampleTaken, Phase.BUFFERING, Phase.MAIN_RUNNING, _SETTLED, quiet=True),
    _row(ev.SamplerLost, Phase.BUFFERING, Phase.MAIN_RUNNING, _SETTLED, quiet=True),
    _row(ev.TimedSectionEnded, Phase.MAIN_RUNNING, None, action=_expect_main_exit),
    _row(ev.FinishAnnounced, Phase.MAIN_RUNNING, None, action=_expect_main_exit),
    _row(ev.WorkerExited, Phase.MAIN_RUNNING, Phase.DRAINING, [guards.main_exited], quiet=True),
    _row(ev.WorkerExited, Phase.DRAINING, Phase.VALIDATING, _DRAINED),
    _row(ev.WorkerExited, Phase.DRAINING, None, action=_drain_exit),
    _row(ev.WorkerReleased, Phase.DRAINING, Phase.VALIDATING, _DRAINED, quiet=True),
    _row(ev.WorkerReleased, Phase.DRAINING, None, action=_drain_exit),
    _row(ev.SampleTaken, Phase.DRAINING, Phase.VALIDATING, _DRAINED),
    _row(ev.SampleTaken, Phase.DRAINING, None, [*_EMPTY, guards.devices_kept], action=_restore, quiet=True),
    _row(ev.SampleTaken, Phase.DRAINING, None, action=_drain_fault),  # of a GPU that is lost only samples tell
    _row(ev.SamplerLost, Phase.DRAINING, Phase.VALIDATING, _DRAINED),
    _row(ev.SamplerLost, Phase.DRAINING, None, [*_EMPTY, guards.devices_kept], action=_restore, quiet=True),
    _row(
        ev.DeadlinePassed,
        Phase.DRAINING,
        Phase.VALIDATING,
        [guards.gave_up_waiting, guards.devices_restored],
        quiet=True,
    ),
    _row(ev.DeadlinePassed, Phase.DRAINING, Phase.VALIDATING, [guards.restore_answered], quiet=True),
    _row(ev.DeadlinePassed, Phase.DRAINING, Phase.VALIDATING, _DRAINED),
    _row(
        ev.DeadlinePassed,
        Phase.DRAINING,
        None,
        [guards.gave_up_waiting, guards.devices_kept],
        action=_restore,
        quiet=True,
    ),
    _row(ev.DeadlinePassed, Phase.DRAINING, None, [*_EMPTY, guards.devices_kept], action=_restore, quiet=True),
    _row(ev.DevicesRestored, Phase.DRAINING, Phase.VALIDATING, [guards.restore_answered], quiet=True),
    _row(ev.RestorationFailed, Phase.DRAINING, Phase.VALIDATING, [guards.restore_answered], quiet=True),
    _row(ev.PreparationFailed, Phase.DRAINING, Phase.VALIDATING, [guards.restore_answered], quiet=True),
    _row(ev.KeeperLost, Phase.DRAINING, Phase.VALIDATING, [guards.restore_answered], quiet=True),
    _row(ev.KeeperLost, Phase.DRAINING, None, [guards.keeper_is_to_go_on], action=_restore_again, quiet=True),
    _row(ev.KeeperLost, Phase.DRAINING, None, action=_drain_fault),
    _row(ev.DeadlinePassed, Phase.DRAINING, None, action=_drain_deadline),
    _row(ev.DeviceFaulted, Phase.DRAINING, None, action=_drain_fault),
    _row(ev.FoundStopped, Phase.DRAINING, None, action=_drain_fault),
    _row(ev.SignalReceived, Phase.DRAINING, None, action=_drain_signal),
    _row(ev.CertificateComputed, Phase.VALIDATING, None, action=_write_verdict),
    _row(ev.VerdictWritten, Phase.VALIDATING, Phase.FINISHED),
    # Facts may come late, or tell nothing new: they are heard in every phase, and change nothing.
    *(_row(event, tuple(Phase), None) for event in FACTS),
]


def _after_change(data: EventData) -> None:
    """Record the transition first, then ask for what the new phase needs."""
    transition = data.transition
    if transition is None or transition.dest is None:
        return
    run, event = _unpack(data)
    run.moved(Phase[transition.source])
    action = ENTRY_ACTIONS.get(run.phase)
    if action is not None:
        action(run, event)


ENGINE: Machine = Machine(
    None,
    states=[State(phase) for phase in Phase],
    initial=None,
    transitions=TABLE,
    model_attribute="phase",
    auto_transitions=False,
    send_event=True,
    after_state_change=_after_change,
)


def diagram() -> str:
    """The table as a Mermaid state diagram: an arrow for each distinct (source, destination, guards).

    Rows without a destination change no phase and are left out.
    """
    arrows: dict[tuple[str, str, str], list[str]] = {}
    for event, source, destination, conditions in _moves():
        arrows.setdefault((source, destination, conditions), []).append(event)
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{phase.value}" as {phase.name}' for phase in Phase]
    lines.append(f"    [*] --> {Phase.DISCOVERING.name}")
    for (source, destination, conditions), events in arrows.items():
        heard = "anything wrong" if len(events) == len(FACTS) else " or ".join(events)
        lines.append(f"    {source} --> {destination}: {heard}{f' [{conditions}]' if conditions else ''}")
    lines.append(f"    {Phase.FINISHED.name} --> [*]")
    return "\n".join(lines)


def _moves() -> Iterator[tuple[str, str, str, str]]:
    """(event, source, destination, guards) of every row that changes the phase, by name."""
    for row in TABLE:
        destination = row["dest"]
        if isinstance(destination, Phase):
            names = " & ".join(condition.__name__ for condition in cast("list[Callable[..., bool]]", row["conditions"]))
            sources = row["source"] if isinstance(row["source"], list) else [row["source"]]
            for source in sources:
                yield row["trigger"], cast("Phase", source).name, destination.name, names
