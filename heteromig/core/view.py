"""What is known: the fold of all events so far. `View.after` is its only writer.

A view is immutable. Guards and faults read it; nothing else does arithmetic over events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec
from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.devices import DeviceSample, Inventory, Occupant
from heteromig.core.errors import HeteromigError
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import LIVE_STATES, TIMED_STATES, Keeping, Role, WorkerState
from heteromig.core.plan import Assignment, EngineNeed, Plan, make_plan
from heteromig.core.spec import RunSpec
from heteromig.core.units import MonotonicNs, UtcNs
from heteromig.core.verdict import Reason

MAX_NOTES = 20
"""A host where more than that goes on is described well enough by the first of them."""
MAX_SUCCESSORS = 1
"""How many keepers may die while they take back what was done, and be followed by another."""

KeeperEvent = ev.DevicesPrepared | ev.PreparationFailed | ev.KeeperLost | ev.DevicesRestored | ev.RestorationFailed


class WorkerView(Struct, frozen=True):
    """One worker as far as it is known; every `_ns` is monotonic and None until it happened.

    `timed_ns` and `ended_ns` are of the last LoadGen run, where there are several.
    """

    assignment: Assignment
    state: WorkerState = WorkerState.PLANNED
    guardian_pid: int | None = None
    pid: int | None = None
    spawned_ns: MonotonicNs | None = None
    announced_ns: MonotonicNs | None = None
    timed_ns: MonotonicNs | None = None
    busy_ns: MonotonicNs | None = None
    ended_ns: MonotonicNs | None = None
    exited_ns: MonotonicNs | None = None
    exit_code: int | None = None
    signal: int | None = None
    stopped_by: str | None = None
    spawn_failure: str | None = None
    completed_samples: int | None = None
    samples_per_s: float | None = None
    progress_ns: MonotonicNs | None = None
    """When it was last heard to have completed more; None where it has no heartbeat."""
    reported_valid: bool | None = None
    still_timed_ns: MonotonicNs | None = None
    still_timed_utc_ns: UtcNs | None = None

    @property
    def index(self) -> int:
        """The worker's number in this run."""
        return self.assignment.index

    @property
    def role(self) -> Role:
        """Main, background or build."""
        return self.assignment.role

    @property
    def live(self) -> bool:
        """Whether its process tree has to be reaped yet."""
        return self.state in LIVE_STATES

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.role.value} {self.index} ({self.assignment.benchmark})"


class View(Struct, frozen=True):
    """Everything known of a run. `plan` is None until slices were found that fit the spec."""

    spec: RunSpec
    controller_pid: int | None = None
    keeping: Keeping = Keeping.NONE
    restore_asked: bool = False
    keepers_lost_restoring: int = 0
    prepared: ev.DevicesPrepared | None = None
    restoration: ev.DevicesRestored | ev.RestorationFailed | None = None
    inventory: Inventory | None = None
    cpus: tuple[int, ...] = ()
    plan: Plan | None = None
    plan_failure: Reason | None = None
    workers: tuple[WorkerView, ...] = ()
    locked: bool = False
    missing_engines: tuple[tuple[EngineNeed, str], ...] | None = None
    sample: DeviceSample | None = None
    absent: frozenset[int] = frozenset()
    """Timed workers that the last sample did not show on their own slice."""
    absent_twice: frozenset[int] = frozenset()
    """Those that the sample before did not show either."""
    notes: tuple[str, ...] = ()
    """What was seen that changes no verdict, but that whoever reads the result should know."""
    sampler_alive: bool = True
    buffer_elapsed: bool = False
    signals: int = 0
    reasons: tuple[Reason, ...] = ()
    must_stop: bool = False
    certificate: CertificateSummary | None = None

    def worker(self, index: int) -> WorkerView | None:
        """The worker of that number; None where none was ever spawned."""
        chosen = self.workers[index] if 0 <= index < len(self.workers) else None
        return None if chosen is None or chosen.state is WorkerState.PLANNED else chosen

    @property
    def main(self) -> WorkerView | None:
        """The measured worker, once planned."""
        return self.workers[0] if self.workers else None

    @property
    def backgrounds(self) -> tuple[WorkerView, ...]:
        """The neighbours, once planned."""
        return tuple(worker for worker in self.workers if worker.role is Role.BACKGROUND)

    @property
    def live_workers(self) -> tuple[WorkerView, ...]:
        """Those that have to be reaped yet."""
        return tuple(worker for worker in self.workers if worker.live)

    @property
    def main_finished(self) -> bool:
        """Whether main ended by itself and with success, so that its result can be judged."""
        return self.main is not None and self.main.exit_code == 0 and self.main.stopped_by is None

    @property
    def main_ended(self) -> bool:
        """Whether main's timed section is over, or main is. One that may run LoadGen again is over when it exits."""
        over = {WorkerState.EXITED} if self.spec.main.may_run_again else {WorkerState.ENDED, WorkerState.EXITED}
        return self.main is not None and self.main.state in over

    @property
    def last_exit_ns(self) -> MonotonicNs:
        """When the last worker so far was reaped; 0 where none was."""
        return max((worker.exited_ns or 0 for worker in self.workers), default=0)

    def with_workers(self, indices: Iterable[int], change: Callable[[WorkerView], WorkerView]) -> View:
        """The same view with some workers changed."""
        chosen = frozenset(indices)
        return msgspec.structs.replace(
            self,
            workers=tuple(change(worker) if worker.index in chosen else worker for worker in self.workers),
        )

    def stopping(self, indices: Iterable[int], rung: str) -> View:
        """The same view after the core asked for a stop of these workers by that rung of the ladder."""
        return self.with_workers(
            indices, lambda worker: msgspec.structs.replace(worker, state=WorkerState.STOPPING, stopped_by=rung)
        )

    def spawning(self, assignment: Assignment) -> View:
        """The same view after the core asked for this worker, which the plan need not have had (builds)."""
        if all(worker.index != assignment.index for worker in self.workers):
            grown = (*self.workers, WorkerView(assignment=assignment))
            return msgspec.structs.replace(self, workers=grown).spawning(assignment)
        return self.with_workers(
            [assignment.index], lambda worker: msgspec.structs.replace(worker, state=WorkerState.SPAWNING)
        )

    def owner(self, occupant: Occupant) -> WorkerView | None:
        """The worker whose guardian is an ancestor of this process."""
        family = frozenset(occupant.ancestors)
        return next((worker for worker in self.workers if worker.guardian_pid in family), None)

    def is_ours(self, occupant: Occupant) -> bool:
        """Whether the process descends from this run's controller, or is it."""
        return self.controller_pid == occupant.pid or self.controller_pid in occupant.ancestors

    def after(self, event: ev.AnyEvent) -> View:  # noqa: C901, PLR0911 - one arm an event, no logic
        """This view and one more fact."""
        match event:
            case ev.RunStarted():
                return msgspec.structs.replace(self, controller_pid=event.controller_pid)
            case (
                ev.DevicesPrepared()
                | ev.PreparationFailed()
                | ev.KeeperLost()
                | ev.DevicesRestored()
                | ev.RestorationFailed()
            ):
                return self._kept(event)
            case ev.SlicesDiscovered():
                return self._discovered(event)
            case ev.GpusLocked():
                return msgspec.structs.replace(self, locked=True, notes=self._noting(event.notes))
            case ev.EnginesInspected():
                return msgspec.structs.replace(self, missing_engines=event.missing)
            case ev.SampleTaken():
                return self._sampled(event.sample)
            case ev.SamplerLost():
                alive = self.sampler_alive and event.restarted  # one that was lost for good stays lost
                return msgspec.structs.replace(self, sampler_alive=alive, sample=None)
            case ev.SignalReceived():
                return msgspec.structs.replace(self, signals=self.signals + 1)
            case ev.DeadlinePassed(timer=ev.Timer.BUFFER):
                return msgspec.structs.replace(self, buffer_elapsed=True)
            case ev.CertificateComputed():
                return msgspec.structs.replace(self, certificate=event.summary)
            case (
                ev.WorkerSpawned()
                | ev.SpawnFailed()
                | ev.StartAnnounced()
                | ev.TimedSectionBegan()
                | ev.ProgressMade()
                | ev.TimedSectionEnded()
                | ev.FinishAnnounced()
                | ev.ResultReported()
                | ev.StillTimed()
                | ev.WorkerExited()
            ):
                return self.with_workers([event.worker], lambda worker: _worker_after(worker, event))
            case _:
                return self

    def _kept(self, event: KeeperEvent) -> View:
        """A keeper is believed where it may say so: it may still answer the first request after the second one."""
        replace = msgspec.structs.replace
        restoring = self.keeping is Keeping.RESTORING
        unanswered = self.keeping is Keeping.ASKED or (restoring and self.prepared is None)
        match event:
            case ev.DevicesPrepared() if unanswered:
                return replace(self, keeping=self.keeping if restoring else Keeping.KEPT, prepared=event)
            case ev.PreparationFailed() if unanswered:
                return replace(self, keeping=Keeping.NONE)
            case ev.KeeperLost() if restoring:
                lost = self.keepers_lost_restoring + 1
                return replace(
                    self,
                    keeping=Keeping.RESTORING if lost <= MAX_SUCCESSORS else Keeping.ENDED,
                    keepers_lost_restoring=lost,
                    notes=self._noting([event.message]),
                )
            case ev.DevicesRestored() | ev.RestorationFailed() if restoring:
                return replace(self, keeping=Keeping.ENDED, restoration=event)
            case _:
                return self

    def _noting(self, more: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.notes, *more)))[:MAX_NOTES]

    def _discovered(self, event: ev.SlicesDiscovered) -> View:
        if self.inventory is not None:
            return self  # the plan rests on the first enumeration; samples show whether the geometry has changed
        spec = self.spec
        if self.prepared is not None:
            spec = msgspec.structs.replace(spec, gpu=self.prepared.gpu_uuid)
        try:
            plan = make_plan(spec, event.inventory, event.cpus)
        except HeteromigError as error:
            return msgspec.structs.replace(
                self,
                inventory=event.inventory,
                cpus=event.cpus,
                plan_failure=Reason(error.exit_code, str(error)),
            )
        return msgspec.structs.replace(
            self,
            inventory=event.inventory,
            cpus=event.cpus,
            plan=plan,
            workers=tuple(WorkerView(assignment=assignment) for assignment in plan.workers),
        )

    def _sampled(self, sample: DeviceSample) -> View:
        shown: set[int] = set()
        observable: set[str] = set()
        for reading in sample.slices:
            if reading.occupants is None:
                continue
            observable.add(reading.slice_uuid)
            for occupant in reading.occupants:
                owner = self.owner(occupant)
                if owner is not None and owner.assignment.slice_uuid == reading.slice_uuid:
                    shown.add(owner.index)
        absent = frozenset(
            worker.index
            for worker in self.workers
            if worker.state in TIMED_STATES
            and (worker.timed_ns or 0) < sample.taken_ns
            and worker.assignment.slice_uuid in observable
            and worker.index not in shown
        )
        return msgspec.structs.replace(
            self,
            sample=sample.after(self.sample),
            absent=absent,
            absent_twice=absent & self.absent,
            notes=self._noting(self._bystanders(sample)),
        )

    def _bystanders(self, sample: DeviceSample) -> Iterator[str]:
        """Strangers on slices that the run does not use: they share the host with it, and perhaps the GPU."""
        if self.plan is None:
            return
        ours = {worker.slice_uuid for worker in self.plan.workers}
        for reading in sample.slices:
            for occupant in reading.occupants or ():
                if reading.slice_uuid not in ours and not self.is_ours(occupant):
                    yield (
                        f"Slice {reading.slice_uuid}, which is not part of the run, was used meanwhile by pid "
                        f"{occupant.pid} ({occupant.command})."
                    )


WorkerEvent = (
    ev.WorkerSpawned
    | ev.SpawnFailed
    | ev.StartAnnounced
    | ev.TimedSectionBegan
    | ev.ProgressMade
    | ev.TimedSectionEnded
    | ev.FinishAnnounced
    | ev.ResultReported
    | ev.StillTimed
    | ev.WorkerExited
)

WORKER_STATES: dict[type[ev.Event], dict[WorkerState, WorkerState]] = {
    ev.WorkerSpawned: {WorkerState.SPAWNING: WorkerState.SPAWNED},
    ev.StartAnnounced: {WorkerState.SPAWNED: WorkerState.ANNOUNCED},
    ev.TimedSectionBegan: {
        WorkerState.SPAWNED: WorkerState.TIMED,
        WorkerState.ANNOUNCED: WorkerState.TIMED,
        WorkerState.ENDED: WorkerState.TIMED,  # another LoadGen run within the same worker, as audits have
    },
    ev.ProgressMade: {
        WorkerState.ANNOUNCED: WorkerState.ANNOUNCED,
        WorkerState.TIMED: WorkerState.BUSY,
    },
    ev.TimedSectionEnded: {
        WorkerState.SPAWNED: WorkerState.ENDED,
        WorkerState.ANNOUNCED: WorkerState.ENDED,
        WorkerState.TIMED: WorkerState.ENDED,
        WorkerState.BUSY: WorkerState.ENDED,
    },
    ev.FinishAnnounced: {WorkerState.ANNOUNCED: WorkerState.ENDED},
    ev.WorkerExited: dict.fromkeys(LIVE_STATES, WorkerState.EXITED),
}
"""The lifecycle of one worker: event -> state -> next state. A pair that is not here leaves the state as it is."""


def _worker_after(worker: WorkerView, event: WorkerEvent) -> WorkerView:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    if worker.state is WorkerState.PLANNED:
        return worker  # nothing is true of a worker that was not spawned
    if worker.state is WorkerState.EXITED and isinstance(event, ev.WorkerExited):
        return worker  # a worker is reaped once
    state = WORKER_STATES.get(type(event), {}).get(worker.state, worker.state)
    at_ns = event.at_ns
    replace = msgspec.structs.replace
    match event:
        case ev.WorkerSpawned():
            return replace(worker, state=state, guardian_pid=event.guardian_pid, pid=event.pid, spawned_ns=at_ns)
        case ev.SpawnFailed():
            return replace(worker, spawn_failure=event.message)
        case ev.StartAnnounced():
            return replace(worker, state=state, announced_ns=worker.announced_ns or at_ns)
        case ev.TimedSectionBegan():
            if worker.state is WorkerState.ENDED:
                return replace(worker, state=state, timed_ns=at_ns, ended_ns=None)
            return replace(worker, state=state, timed_ns=worker.timed_ns or at_ns)
        case ev.ProgressMade():
            if event.completed_samples == 0:
                state = worker.state  # a heartbeat without completions shows no work
            busy_ns = at_ns if state is WorkerState.BUSY else None
            more = event.completed_samples > (worker.completed_samples or 0)
            return replace(
                worker,
                state=state,
                busy_ns=worker.busy_ns or busy_ns,
                completed_samples=event.completed_samples,
                samples_per_s=event.samples_per_s,
                progress_ns=at_ns if more else worker.progress_ns,
            )
        case ev.TimedSectionEnded():
            return replace(worker, state=state, ended_ns=worker.ended_ns or at_ns)
        case ev.FinishAnnounced():
            is_its_end = worker.announced_ns is not None and worker.timed_ns is None
            return replace(worker, state=state, ended_ns=worker.ended_ns or (at_ns if is_its_end else None))
        case ev.ResultReported():
            return replace(worker, reported_valid=event.valid)
        case ev.StillTimed():
            return replace(worker, still_timed_ns=at_ns, still_timed_utc_ns=event.at_utc_ns)
        case _:
            return replace(
                worker,
                state=state,
                exited_ns=at_ns,
                exit_code=event.exit_code,
                signal=event.signal,
                stopped_by=event.stopped_by or worker.stopped_by,
            )
