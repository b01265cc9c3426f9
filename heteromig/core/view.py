"""What is known: the fold of all events so far. `View.after` is its only writer.

A view is immutable. Guards and faults read it; nothing else does arithmetic over events.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from heteromig.core import events as ev
from heteromig.core.clocks import ClockReading
from heteromig.core.devices import DeviceSample, Inventory, Occupant, Reading, SliceKind
from heteromig.core.errors import HeteromigError
from heteromig.core.gaps import Idleness, Interval, Silences
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import LIVE_STATES, TIMED_STATES, Keeping, Role, WorkerState
from heteromig.core.plan import Assignment, EngineNeed, Plan, make_plan
from heteromig.core.spec import Goal, Isolation, RunSpec
from heteromig.core.units import NS_PER_MS, MonotonicNs
from heteromig.core.verdict import SIGNAL_BASE, ExitCode, Reason
from heteromig.core.watch import GpuWatch, HostWatch, PlaceWatch, is_recut

MAX_NOTES = 20
"""A host where more than that goes on is described well enough by the first of them."""
MAX_SUCCESSORS = 1
"""How many keepers may die while they take back what was done, and be followed by another."""

KeeperEvent = ev.DevicesPrepared | ev.PreparationFailed | ev.KeeperLost | ev.DevicesRestored | ev.RestorationFailed

HEARD_WITHIN_NS = 500 * NS_PER_MS
"""How much later than it happened the begin or the end of a timed section can be heard: the slowest tick, and a busy
machine. A sample that is younger than that may have been taken within it, or after it."""


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
    over_latency: int | None = None
    """Completed samples that took longer than the limit on latency, as far as it says so."""
    progress_ns: MonotonicNs | None = None
    """When it was last heard to have completed more; None where it has no heartbeat."""
    heard: Silences = Silences()
    """What was heard of its work: its begin, and each heartbeat that told of more completions."""
    idleness: Idleness | None = None
    """What the device showed of the work on its slice while it was timed; None where it showed nothing."""
    reported_valid: bool | None = None
    still_timed_ns: MonotonicNs | None = None
    was_seen: bool = False
    """Whether any sample showed its process on its slice: whoever was never seen may be one that cannot be."""
    shown: int = 0
    """How many samples in main's timed section showed its process on its slice."""
    missed: int = 0
    """How many could have shown it, and did not."""
    went_missing: bool = False
    """Whether two or more in a row did not, for longer than its end can be unheard."""
    release_asked: bool = False
    """Whether the shell was told to let go of it."""

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
    def died_hard(self) -> bool:
        """Whether it had no chance to leave the GPU in order: a signal, also as a shell tells of its child's."""
        code = self.exit_code
        gone = self.state is WorkerState.EXITED and self.spawn_failure is None
        return gone and (code is None or SIGNAL_BASE < code <= SIGNAL_BASE + signal.NSIG)

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.role.value} {self.index} ({self.assignment.benchmark})"


class View(Struct, frozen=True):
    """Everything known of a run. `plan` is None until slices were found that fit the spec."""

    spec: RunSpec
    controller_pid: int | None = None
    clocks: tuple[ClockReading, ...] = ()
    """Both clocks, read together again and again."""
    unwatched: tuple[Interval, ...] = ()
    """When nobody read the logs, on the monotonic clock."""
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
    earlier: DeviceSample | None = None
    """The sample before the last."""
    baseline: DeviceSample | None = None
    """The last sample before anything was spawned."""
    before_main: DeviceSample | None = None
    """The last sample that was surely taken before main's timed section began."""
    after_main: DeviceSample | None = None
    """The first sample that was taken after it ended."""
    gpus: tuple[GpuWatch, ...] = ()
    """The GPUs of the plan."""
    places: tuple[PlaceWatch, ...] = ()
    """Where the processes of the plan are looked for."""
    host: HostWatch | None = None
    """Everything else on the host, where the run is a baseline."""
    absent: Mapping[int, MonotonicNs] = {}
    """Timed workers that the last sample did not show on their own slice, and when they were missed first."""
    missing: frozenset[int] = frozenset()
    """Those that have been missed for longer than it takes to hear that a worker has ended."""
    draining: bool = False
    """Whether workers are only stopped and reaped: who else is on the slices is no concern of the result any more."""
    notes: tuple[str, ...] = ()
    """What was seen that changes no verdict, but that whoever reads the result should know."""
    sampler_alive: bool = True
    sampler_losses: int = 0
    """How often nobody watched the devices until another sampler did."""
    buffer_s: float | None = None
    """How long main waits for backgrounds that are all there; None until they are."""
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
    def may_go_on(self) -> bool:
        """Whether the next run of the campaign may have what this one has.

        Not where a signal or the devices end all, nor where a client of a GPU that is shared under MPS died so that
        nobody can say what it did to the others.
        """
        device = any(reason.exit_code == ExitCode.DEVICE for reason in self.reasons)
        disturbed = self.spec.isolation is Isolation.SOFT and any(
            worker.died_hard and worker.stopped_by is None for worker in self.workers
        )
        return self.spec.keeps_backgrounds and not (self.signals or device or disturbed)

    @property
    def to_be_kept(self) -> tuple[WorkerView, ...]:
        """Those that draining leaves alone, to release them: timed backgrounds."""
        level = self.spec.start_evidence
        return tuple(worker for worker in self.backgrounds if self.may_go_on and level.reached_by(worker.state))

    @property
    def hands_on(self) -> bool:
        """Whether the GPU stays as it was prepared: for the backgrounds that were released, or where there are none."""
        if self.keeping is not Keeping.KEPT or self.plan is None or self.live_workers or not self.may_go_on:
            return False
        released = any(worker.state is WorkerState.RELEASED for worker in self.backgrounds)
        return released or not self.backgrounds

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

    @property
    def shares(self) -> bool:
        """Whether the slices are shares of one GPU, which no sample shows one by one."""
        return self.inventory is not None and any(one.kind is SliceKind.MPS for one in self.inventory.slices)

    @property
    def why_hidden(self) -> str:
        """Why samples do not show who is on a slice."""
        if self.inventory is not None and self.inventory.pids_resolve is False:
            return "the driver lists processes by other pids than they have here, in a pid namespace of their own"
        if self.shares:
            return "NVML does not show shares of a GPU one by one"
        return "the device does not show processes per slice"

    def with_workers(self, indices: Iterable[int], change: Callable[[WorkerView], WorkerView]) -> View:
        """The same view with some workers changed."""
        workers = list(self.workers)
        for index in indices:
            if 0 <= index < len(workers):
                workers[index] = change(workers[index])
        return msgspec.structs.replace(self, workers=tuple(workers))

    def stopping(self, indices: Iterable[int], rung: str) -> View:
        """The same view after the core asked for a stop of these workers by that rung of the ladder."""
        return self.with_workers(
            indices, lambda worker: msgspec.structs.replace(worker, state=WorkerState.STOPPING, stopped_by=rung)
        )

    def releasing(self, indices: Iterable[int]) -> View:
        """The same view after the core asked the shell to let go of these workers."""
        return self.with_workers(indices, lambda worker: msgspec.structs.replace(worker, release_asked=True))

    def spawning(self, assignment: Assignment) -> View:
        """The same view after the core asked for this worker, which the plan need not have had (builds)."""
        if all(worker.index != assignment.index for worker in self.workers):
            grown = (*self.workers, WorkerView(assignment=assignment))
            return msgspec.structs.replace(self, workers=grown).spawning(assignment)
        view = self.with_workers(
            [assignment.index], lambda worker: msgspec.structs.replace(worker, state=WorkerState.SPAWNING)
        )
        return msgspec.structs.replace(
            view,
            baseline=self.sample if self.baseline is None and self.last_exit_ns == 0 else self.baseline,
            before_main=self.sample if assignment.role is Role.MAIN else self.before_main,
        )

    def owner(self, occupant: Occupant) -> WorkerView | None:
        """The worker whose guardian is an ancestor of this process."""
        return next((worker for worker in self.workers if worker.guardian_pid in occupant.ancestors), None)

    def is_ours(self, occupant: Occupant) -> bool:
        """Whether the process descends from this run's controller, or is it."""
        return self.controller_pid == occupant.pid or self.controller_pid in occupant.ancestors

    def is_kept(self, occupant: Occupant) -> bool:
        """Whether the process is of a worker that is to go on beyond this run: of one before, or released by this."""
        owner = self.owner(occupant)
        kept = owner is None or owner.state is WorkerState.RELEASED
        return self.spec.keeps_backgrounds and bool(self.backgrounds) and self.is_ours(occupant) and kept

    def serves(self, occupant: Occupant) -> bool:
        """Whether the process is ours and no worker's, as those are that share a GPU out."""
        return self.is_ours(occupant) and self.owner(occupant) is None

    def belongs(self, worker: WorkerView, place_uuid: str) -> bool:
        """Whether processes of this worker are to be there: on its slice, or on the GPU that this is a share of."""
        return worker.assignment.slice_uuid == place_uuid or self._gpu_of(worker) == place_uuid

    def occupants(self, sample: DeviceSample, place: PlaceWatch) -> tuple[Occupant, ...] | None:
        """Who a sample shows there; None where it does not."""
        if place.shared:
            return next((reading.occupants for reading in sample.gpus if reading.gpu_uuid == place.uuid), None)
        return next((reading.occupants for reading in sample.slices if reading.slice_uuid == place.uuid), None)

    def beyond(self, sample: DeviceSample) -> Iterator[tuple[str, tuple[Occupant, ...] | None, str]]:
        """What of the host is not the plan's: how messages call it, who is there, and why that is None where it is."""
        ours = {worker.slice_uuid for worker in self.plan.workers} if self.plan is not None else set()
        if not self.shares:  # these are looked for on the whole of their GPU, which is the plan's
            for reading in sample.slices:
                if reading.slice_uuid not in ours:
                    yield f"slice {reading.slice_uuid}", reading.occupants, self.why_hidden
        for other in sample.others or ():
            yield other.name, other.occupants, other.reason or self.why_hidden

    def foreign(self, sample: DeviceSample) -> Iterator[tuple[str, Occupant]]:
        """Who uses what is not the plan's, each with the name of the place, without what this run started."""
        for name, occupants, _ in self.beyond(sample):
            yield from ((name, occupant) for occupant in occupants or () if not self.is_ours(occupant))

    def why_beyond_is_hidden(self, sample: DeviceSample) -> str | None:
        """Why a sample does not show all of the host; None where it does."""
        if sample.others is None:
            return "the other GPUs of the host were not looked at"
        return next((why for _, occupants, why in self.beyond(sample) if occupants is None), None)

    @property
    def demands_idle_host(self) -> bool:
        """Whether somebody else on the host ends the run."""
        return self.spec.goal is Goal.BASELINE and not self.spec.allow_busy

    def uses_gpu(self, uuid: str | None) -> bool:
        """Whether what befalls this GPU concerns the run: all do where none is named, or nothing was planned yet."""
        return uuid is None or self.plan is None or any(watch.gpu.uuid == uuid for watch in self.gpus)

    def _gpu_of(self, worker: WorkerView) -> str | None:
        slices = self.inventory.slices if self.inventory is not None else ()
        return next((one.gpu_uuid for one in slices if one.uuid == worker.assignment.slice_uuid), None)

    def after(self, event: ev.AnyEvent) -> View:  # noqa: C901, PLR0911, PLR0912 - one arm an event, no logic
        """This view and one more fact."""
        match event:
            case ev.RunStarted():
                return msgspec.structs.replace(self, controller_pid=event.controller_pid)
            case ev.ClocksRead():
                reading = ClockReading(event.at_ns, event.at_utc_ns)
                return msgspec.structs.replace(self, clocks=(*self.clocks, reading))
            case ev.LookedAway():
                away = Interval(min(event.since_ns, event.at_ns), event.at_ns)
                return msgspec.structs.replace(self, unwatched=(*self.unwatched, away))
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
                return msgspec.structs.replace(self, locked=True).noting(*event.notes)
            case ev.EnginesInspected():
                return msgspec.structs.replace(self, missing_engines=event.missing)
            case ev.SampleTaken():
                return self._sampled(event.sample)
            case ev.SamplerLost():
                alive = self.sampler_alive and event.restarted  # one that was lost for good stays lost
                return msgspec.structs.replace(
                    self, sampler_alive=alive, sampler_losses=self.sampler_losses + 1, sample=None, earlier=None
                )
            case ev.DeviceFaulted():
                return self._faulted(event)
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
                | ev.WorkerReleased()
                | ev.WorkerExited()
            ):
                return self.with_workers([event.worker], lambda worker: _worker_after(worker, event)).with_main_begun(
                    event, first=self.main is not None and self.main.timed_ns is None
                )
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
                ).noting(event.message)
            case ev.DevicesRestored() | ev.RestorationFailed() if restoring:
                return replace(self, keeping=Keeping.ENDED, restoration=event)
            case _:
                return self

    def _discovered(self, event: ev.SlicesDiscovered) -> View:
        if self.inventory is not None:
            return self  # the plan rests on the first enumeration; samples show whether the geometry has changed
        view = msgspec.structs.replace(self, inventory=event.inventory, cpus=event.cpus).noting(
            *(f"No run can use it: {gpu.message}" for gpu in event.inventory.unusable)
        )
        spec = self.spec
        if self.prepared is not None:
            spec = msgspec.structs.replace(spec, gpu=self.prepared.gpu_uuid)
        try:
            plan = make_plan(spec, event.inventory, event.cpus)
        except HeteromigError as error:
            return msgspec.structs.replace(view, plan_failure=Reason(error.exit_code, str(error)))
        ours = {worker.slice_uuid for worker in plan.workers}
        slices = [one for one in event.inventory.slices if one.uuid in ours]
        used = {one.gpu_uuid for one in slices}
        shared = dict.fromkeys(one.gpu_uuid for one in slices if one.kind is SliceKind.MPS)
        return msgspec.structs.replace(
            view,
            plan=plan,
            workers=tuple(WorkerView(assignment=assignment) for assignment in plan.workers),
            gpus=tuple(GpuWatch(gpu) for gpu in event.inventory.gpus if gpu.uuid in used),
            host=HostWatch() if self.spec.goal is Goal.BASELINE else None,
            places=(
                *(PlaceWatch(uuid, shared=True) for uuid in shared),
                *(PlaceWatch(one.uuid) for one in slices if one.kind is not SliceKind.MPS),
            ),
        )

    def _faulted(self, event: ev.DeviceFaulted) -> View:
        if not self.uses_gpu(event.gpu_uuid):
            return self.noting(f"Not part of the run: {event.message}")
        if self.certificate is not None:
            return self
        gpus = tuple(
            watch.faulted(event.message) if event.gpu_uuid in {None, watch.gpu.uuid} else watch for watch in self.gpus
        )
        return msgspec.structs.replace(self, gpus=gpus)

    def noting(self, *notes: str) -> View:
        """This view and remarks, each once."""
        if all(note in self.notes for note in notes):
            return self
        return msgspec.structs.replace(self, notes=tuple(dict.fromkeys((*self.notes, *notes)))[:MAX_NOTES])

    def with_main_begun(self, event: WorkerEvent, *, first: bool) -> View:
        """What was known before main's timed section, if it is that which began: the `first`, where it has several."""
        began = isinstance(event, ev.StartAnnounced | ev.TimedSectionBegan)
        if self.main is None or not began or not first or event.worker != self.main.index:
            return self
        surely = [
            sample
            for sample in (self.before_main, self.earlier, self.sample)
            if sample is not None and (sample is self.before_main or sample.taken_ns <= event.at_ns - HEARD_WITHIN_NS)
        ]
        return msgspec.structs.replace(self, before_main=max(surely, key=lambda one: one.taken_ns, default=None))

    def _sampled(self, sample: DeviceSample) -> View:
        if self.inventory is not None and self.inventory.pids_resolve is False:
            sample = _without_occupants(sample)
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
        absent = {
            worker.index: self.absent.get(worker.index, sample.taken_ns)
            for worker in self.workers
            if (worker.state in TIMED_STATES or (worker.was_seen and self.spec.start_evidence.reached_by(worker.state)))
            and (worker.timed_ns or worker.announced_ns or 0) < sample.taken_ns
            and worker.assignment.slice_uuid in observable
            and worker.index not in shown
        }
        main = self.main
        view = msgspec.structs.replace(
            self,
            sample=sample.after(self.sample),
            earlier=self.sample,
            after_main=sample if self._is_first_after_main(sample) else self.after_main,
            gpus=self._watched(sample),
            places=self.places if self.draining else tuple(self._looked(sample, place) for place in self.places),
            host=self.host if self.draining else self._looked_around(sample),
            absent=absent,
            missing=frozenset(
                index for index, since_ns in absent.items() if sample.taken_ns - since_ns >= HEARD_WITHIN_NS
            ),
        ).noting(*self._bystanders(sample))
        new = [index for index in shown if not self.workers[index].was_seen]
        view = view.with_workers(new, lambda worker: msgspec.structs.replace(worker, was_seen=True)).with_activity()
        if main is None or not self.spec.start_evidence.reached_by(main.state):
            return view
        return view.with_workers(
            [worker.index for worker in self.workers if worker.live and worker.assignment.slice_uuid in observable],
            lambda worker: msgspec.structs.replace(
                worker,
                shown=worker.shown + (worker.index in shown),
                missed=worker.missed + (worker.index not in shown),
                went_missing=worker.went_missing or worker.index in view.missing,
            ),
        )

    def with_activity(self) -> View:
        """This view of a new sample with what it shows of the work of timed backgrounds since the one before."""
        if self.sample is None or self.earlier is None:
            return self
        begin_ns, end_ns = self.earlier.taken_ns, self.sample.taken_ns
        shared = {
            uuid
            for one in self.sample.shared or ()
            if Reading.ACTIVITY in one.readings or Reading.SM in one.readings
            for uuid in one.slices
        }
        shown = {
            reading.slice_uuid: reading.activity.sm_percent
            for reading in self.sample.slices
            if reading.activity is not None
            and reading.activity.sm_percent is not None
            and reading.slice_uuid not in shared
        }
        if not shown or end_ns <= begin_ns:
            return self

        def worked(worker: WorkerView) -> WorkerView:
            sm_percent = shown[worker.assignment.slice_uuid]
            idleness = (worker.idleness or Idleness()).after(begin_ns, end_ns, sm_percent)
            return msgspec.structs.replace(worker, idleness=idleness)

        return self.with_workers(
            [worker.index for worker in self.backgrounds if worker.live and worker.assignment.slice_uuid in shown],
            worked,
        )

    def _is_first_after_main(self, sample: DeviceSample) -> bool:
        """Whether no sample before this one was taken after main's (last) timed section."""
        main = self.main
        if main is None or main.spawned_ns is None:
            return False
        end_ns = main.ended_ns or main.exited_ns
        if end_ns is None or sample.taken_ns < end_ns:
            return False
        return self.after_main is None or self.after_main.taken_ns < end_ns

    def _watched(self, sample: DeviceSample) -> tuple[GpuWatch, ...]:
        if self.certificate is not None:
            return self.gpus  # the verdict is on its way to the disk
        readings = {reading.gpu_uuid: reading for reading in sample.gpus}
        return tuple(watch.after(readings.get(watch.gpu.uuid), draining=self.draining) for watch in self.gpus)

    def _looked(self, sample: DeviceSample, place: PlaceWatch) -> PlaceWatch:
        occupants = self.occupants(sample, place)
        strangers = (self._stranger(occupant, place.uuid) for occupant in occupants or ())
        return place.after(occupants, next((one for one in strangers if one is not None), None))

    def _looked_around(self, sample: DeviceSample) -> HostWatch | None:
        if self.host is None:
            return None
        strangers = (f"pid {one.pid} ({one.command}) on {name}" for name, one in self.foreign(sample))
        return self.host.after(tuple(strangers), self.why_beyond_is_hidden(sample))

    def _stranger(self, occupant: Occupant, place_uuid: str) -> str | None:
        owner = self.owner(occupant)
        if self.is_ours(occupant) if owner is None else self.belongs(owner, place_uuid):
            return None
        whose = "" if owner is None else f" of {owner.name}"
        return f"pid {occupant.pid} ({occupant.command}){whose}"

    def _bystanders(self, sample: DeviceSample) -> Iterator[str]:
        """What befalls what the run does not use: it shares the host with it, and perhaps the GPU."""
        if self.plan is None or self.inventory is None:
            return
        gpus = {gpu.uuid: gpu for gpu in self.inventory.gpus}
        for watched in sample.gpus:
            gpu = gpus.get(watched.gpu_uuid)
            if gpu is None or self.uses_gpu(gpu.uuid):
                continue
            if watched.unreadable is not None:
                yield f"Not part of the run: {watched.unreadable}"
            elif is_recut(gpu, watched):
                yield f"GPU {gpu.uuid}, which is not part of the run, was cut anew meanwhile."
        if not self.demands_idle_host:  # else the verdict says it
            for name, occupant in self.foreign(sample):
                yield (
                    f"{name[:1].upper()}{name[1:]}, which is not part of the run, was used meanwhile by pid "
                    f"{occupant.pid} ({occupant.command})."
                )


def _without_occupants(sample: DeviceSample) -> DeviceSample:
    """The same where the driver's pids mean nothing here."""
    return msgspec.structs.replace(
        sample,
        slices=tuple(msgspec.structs.replace(reading, occupants=None) for reading in sample.slices),
        gpus=tuple(msgspec.structs.replace(reading, occupants=None) for reading in sample.gpus),
        others=None
        if sample.others is None
        else tuple(msgspec.structs.replace(other, occupants=None) for other in sample.others),
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
    | ev.WorkerReleased
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
    ev.WorkerReleased: dict.fromkeys(LIVE_STATES, WorkerState.RELEASED),
    ev.WorkerExited: dict.fromkeys(LIVE_STATES, WorkerState.EXITED),
}
"""The lifecycle of one worker: event -> state -> next state. A pair that is not here leaves the state as it is."""


def _worker_after(worker: WorkerView, event: WorkerEvent) -> WorkerView:  # noqa: C901, PLR0911, PLR0912 - one arm an event
    if worker.state is WorkerState.PLANNED:
        return worker  # nothing is true of a worker that was not spawned
    if worker.state is WorkerState.EXITED and isinstance(event, ev.WorkerExited):
        return worker  # a worker is reaped once
    if worker.state is WorkerState.RELEASED:
        return worker  # what it does from then on is the next run's
    if isinstance(event, ev.WorkerReleased) and not worker.release_asked:
        return worker  # nobody asked for that
    state = WORKER_STATES.get(type(event), {}).get(worker.state, worker.state)
    at_ns = event.at_ns
    replace = msgspec.structs.replace
    match event:
        case ev.WorkerSpawned():
            since_ns = at_ns if event.since_ns is None else event.since_ns
            return replace(worker, state=state, guardian_pid=event.guardian_pid, pid=event.pid, spawned_ns=since_ns)
        case ev.SpawnFailed():
            return replace(worker, spawn_failure=event.message)
        case ev.StartAnnounced():
            return replace(
                worker, state=state, announced_ns=worker.announced_ns or at_ns, heard=worker.heard.broken(at_ns)
            )
        case ev.TimedSectionBegan():
            heard = worker.heard.broken(at_ns)
            if worker.state is WorkerState.ENDED:
                return replace(worker, state=state, timed_ns=at_ns, ended_ns=None, heard=heard)
            return replace(worker, state=state, timed_ns=worker.timed_ns or at_ns, heard=heard)
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
                over_latency=event.over_latency if event.over_latency is not None else worker.over_latency,
                progress_ns=at_ns if more else worker.progress_ns,
                heard=worker.heard.broken(at_ns, uncertainty_ns=HEARD_WITHIN_NS) if more else worker.heard,
            )
        case ev.TimedSectionEnded():
            return replace(worker, state=state, ended_ns=worker.ended_ns or at_ns)
        case ev.FinishAnnounced():
            is_its_end = worker.announced_ns is not None and worker.timed_ns is None
            return replace(worker, state=state, ended_ns=worker.ended_ns or (at_ns if is_its_end else None))
        case ev.ResultReported():
            return replace(worker, reported_valid=event.valid)
        case ev.StillTimed():
            return replace(worker, still_timed_ns=at_ns)
        case ev.WorkerReleased():
            return replace(worker, state=state)
        case _:
            return replace(
                worker,
                state=state,
                exited_ns=at_ns,
                exit_code=event.exit_code,
                signal=event.signal,
                stopped_by=event.stopped_by or worker.stopped_by,
            )
