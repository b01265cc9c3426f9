"""A tiny world for the core to run in: it does what the core asks for, on a clock of its own, and tells what happened.

It knows nothing of guards or phases. Processes have habits, the device shows the processes there are, and a test adds
incidents: any fact at any time after a phase was entered, a foreign process, a changed geometry, a silent sampler.
"""

from __future__ import annotations

import heapq
import itertools
from enum import Enum

from msgspec import Struct
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.devices import (
    DeviceSample,
    GpuSample,
    Inventory,
    Occupant,
    OtherGpu,
    Slice,
    SliceKind,
    SliceSample,
)
from heteromig.core.machine import Run
from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import Phase, Role
from heteromig.core.plan import Assignment, EngineNeed
from heteromig.core.spec import Goal, RunSpec
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs
from heteromig.core.verdict import Verdict
from heteromig.core.view import View, WorkerEvent
from tests.core import histories

_SIGTERM, _SIGKILL = 15, 9
_ANSWER_NS = NS_PER_MS
_MOST_STEPS = 20_000


class Habit(Struct, frozen=True):
    """How one process tree behaves. Each `_s` is the time from cause to consequence; None is never."""

    spawn_failure: str | None = None
    announces_s: float | None = 0.2
    begins_s: float | None = 0.5
    beats_s: float | None = 1.0
    beats: int | None = None
    """How many heartbeats it gives before it stalls."""
    ends_s: float | None = None
    """From the beginning of its timed section to the end."""
    reports: bool | None = None
    """What it says of its result at the end of its timed section."""
    more_runs: int = 0
    """How many more times LoadGen runs within it."""
    pause_s: float = 1.0
    """From the end of one of these runs to the beginning of the next."""
    finishes_s: float | None = 0.1
    """From the end of its last timed section to the marker of that."""
    done_s: float | None = None
    """From the first marker to the last, where there is no LoadGen log: `begins_s` is None."""
    exits_s: float | None = 0.3
    """From the end of its work to its exit."""
    dies_s: float | None = None
    """From its start to its exit, whatever it was doing."""
    exit_code: int | None = 0
    signal: int | None = None
    clean_stop_s: float | None = 0.2
    term_s: float | None = 0.1
    client_s: float | None = None
    """From being taken off a shared GPU to its exit."""
    kill_s: float | None = 0.01
    seen_on: str | None = None
    """The slice that the device shows it on, where that is not its own."""
    seen: bool = True
    spoils: int = 0
    """How many of its engines, from the last, a build does not leave."""


MAIN = Habit(ends_s=10.0)
BACKGROUND = Habit()
ANNOUNCING_MAIN = Habit(begins_s=None, done_s=10.0)
ANNOUNCING_BACKGROUND = Habit(begins_s=None)
BUILD = Habit(announces_s=None, begins_s=None, dies_s=2.0)


class Cast(Struct, frozen=True):
    """The habits of all workers, by role; `others` are exceptions by index."""

    main: Habit = MAIN
    background: Habit = BACKGROUND
    build: Habit = BUILD
    others: tuple[tuple[int, Habit], ...] = ()

    def habit(self, assignment: Assignment) -> Habit:
        for index, habit in self.others:
            if index == assignment.index:
                return habit
        match assignment.role:
            case Role.MAIN:
                return self.main
            case Role.BACKGROUND:
                return self.background
            case Role.BUILD:
                return self.build


class Trouble(Enum):
    """What can come over the devices."""

    FOREIGN_PROCESS = "a foreign process appears on main's slice"
    BYSTANDERS = "foreign processes appear on every slice that is not part of the plan"
    ELSEWHERE = "a foreign process appears on a GPU that has no slices"
    GEOMETRY = "somebody repartitions the GPU"
    LOST = "the GPUs of the plan cannot be read"
    ANOTHER_LOST = "the other GPUs cannot be read"
    HEAT = "the GPU is slowed down by heat from then on"
    LEAK = "memory is in use from then on that belongs to nobody"
    DEAF = "the driver offers no events any more"
    SILENCE = "the sampler says nothing any more"
    KEEPER_DIES = "the keeper is killed, if there is one"


class Incident(Struct, frozen=True):
    """Something that happens `after_s` after `phase` was entered; a fact is told with the time of that moment."""

    phase: Phase
    after_s: float
    what: ev.AnyEvent | Trouble


class Keeper(Struct, frozen=True):
    """How whoever prepares the GPU behaves. Each `_s` is the time to the answer; None is never."""

    prepares_s: float | None = 0.5
    refusal: ev.PreparationFailed | None = None
    restores_s: float | None = 0.5
    failure: str | None = None
    """Why the GPU cannot be taken back."""


class KeeperSays(Struct, frozen=True):
    """An answer of a keeper, which is not given if that one is dead by then."""

    keeper: int
    event: ev.AnyEvent


class Place(Struct, frozen=True):
    """What the run finds around it."""

    keeper: Keeper = Keeper()
    lock_notes: tuple[str, ...] = ()

    inventory: Inventory = histories.inventory()
    cpus: tuple[int, ...] = (0, 1)
    engines_cached: bool = True
    cached: tuple[str, ...] = ()
    """Benchmarks whose engines are there where others are not."""
    discovery_failure: str | None = None
    lock_refusal: str | None = None
    shows_processes: bool = True
    certificate: CertificateSummary = histories.certificate()


class Step(Struct, frozen=True):
    """One event and what came of it; `view`, `entry` and `verdict` are those afterwards."""

    event: ev.AnyEvent
    before: Phase
    after: Phase
    entry: int
    effects: tuple[ef.AnyEffect, ...]
    view: View
    verdict: Verdict


class Process(Struct):
    """One process tree; its guardian's pid is one less than that of the harness."""

    assignment: Assignment
    habit: Habit
    started: bool = False
    gone: bool = False
    timed: bool = False
    announced: bool = False
    runs: int = 0
    rung: str | None = None
    released: bool = False

    @property
    def at_work(self) -> bool:
        """What a look at its logs shows."""
        return self.announced if self.habit.begins_s is None else self.timed

    @property
    def pid(self) -> int:
        return 1001 + 10 * self.assignment.index


class SampleDue(Struct, frozen=True):
    """The sampler is about to read the devices; a periodic reading is followed by the next."""

    periodic: bool


_ABOUT_WORKERS = (
    ev.WorkerSpawned,
    ev.SpawnFailed,
    ev.StartAnnounced,
    ev.TimedSectionBegan,
    ev.ProgressMade,
    ev.TimedSectionEnded,
    ev.FinishAnnounced,
    ev.ResultReported,
    ev.StillTimed,
    ev.WorkerReleased,
    ev.WorkerExited,
)


class World:
    """One run in one place with one cast."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        cast: Cast | None = None,
        place: Place | None = None,
        incidents: tuple[Incident, ...] = (),
    ) -> None:
        self.run = Run(spec)
        self.steps: list[Step] = []
        self.now_ns: MonotonicNs = 1_000 * NS_PER_S
        self._cast = cast or Cast()
        self._place = place or Place()
        self._incidents = incidents
        self._due: list[tuple[MonotonicNs, int, ev.AnyEvent | SampleDue | Trouble | KeeperSays]] = []
        self._numbers = itertools.count()
        self._processes: dict[int, Process] = {}
        self._engines: set[EngineNeed] = set()
        self._beats: dict[int, int] = {}
        self._troubles: set[Trouble] = set()
        self._sampling = False
        self._keepers = 0
        self._keeper: int | None = None
        """The number of the one that lives."""
        self._keeper_free_ns: MonotonicNs | None = 0
        """When it will have answered what it was asked last; None for never."""
        self._schedule(0, ev.RunStarted(at_ns=0, at_utc_ns=0, controller_pid=histories.CONTROLLER_PID))
        self._meet_incidents(Phase.DISCOVERING)

    def tell(self, event: ev.AnyEvent) -> Step:
        """Say it to the core now, true or not, and do what the core asks for."""
        event = replace(event, at_ns=self.now_ns)
        before = self.run.phase
        effects = tuple(self.run.handle(event))
        step = Step(event, before, self.run.phase, self.run.entry, effects, self.run.view, self.run.verdict)
        self.steps.append(step)
        for effect in effects:
            self._perform(effect)
        if step.after is not before:
            self._meet_incidents(step.after)
        return step

    def go_on(self) -> bool:
        """Let the next thing happen; False where nothing more is going to."""
        if not self._due:
            return False
        self.now_ns, _, item = heapq.heappop(self._due)
        match item:
            case Trouble.KEEPER_DIES:
                if self._keeper is not None:
                    self._keeper = None
                    self.tell(ev.KeeperLost(0, "the keeper ended"))
            case Trouble():
                self._troubles.add(item)
            case KeeperSays():
                if item.keeper == self._keeper:
                    self._keeper = self._keeper if isinstance(item.event, ev.DevicesPrepared) else None
                    self.tell(item.event)
            case SampleDue():
                self._sample(item)
            case _ if isinstance(item, _ABOUT_WORKERS):
                self._live(item)
            case _:
                if isinstance(item, ev.SamplerLost):
                    self._sampling = item.restarted
                self.tell(item)
        return True

    def go_to(self, phase: Phase) -> World:
        """Let things happen until the run is in `phase`."""
        self._until({phase})
        return self

    def finish(self) -> World:
        """Let things happen until the run has finished."""
        self._until({Phase.FINISHED})
        return self

    def wait_s(self, seconds: float) -> None:
        """Let everything happen that is due within that time."""
        until_ns = self.now_ns + round(seconds * NS_PER_S)
        while self._due and self._due[0][0] <= until_ns:
            self.go_on()
        self.now_ns = until_ns

    @property
    def processes_left(self) -> tuple[int, ...]:
        """Indices of the workers whose processes are alive."""
        return tuple(index for index, process in self._processes.items() if not process.gone)

    @property
    def events(self) -> tuple[ev.AnyEvent, ...]:
        """All that was told."""
        return tuple(step.event for step in self.steps)

    @property
    def effects(self) -> tuple[ef.AnyEffect, ...]:
        """All that was asked for."""
        return tuple(effect for step in self.steps for effect in step.effects)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """Where the run was, in order."""
        return (Phase.DISCOVERING, *(step.after for step in self.steps if step.after is not step.before))

    @property
    def verdict(self) -> Verdict:
        """How the run came out."""
        return self.run.verdict

    def _until(self, phases: set[Phase]) -> None:
        for _ in range(_MOST_STEPS):
            if self.run.phase in phases:
                return
            if not self.go_on():
                break
        raise AssertionError(f"The run is stuck in {self.run.phase} at {self.now_ns}: {self.run.waiting_for}")

    def _schedule(self, after_s: float, item: ev.AnyEvent | SampleDue | Trouble | KeeperSays) -> None:
        at_ns = self.now_ns + round(after_s * NS_PER_S) + _ANSWER_NS
        heapq.heappush(self._due, (at_ns, next(self._numbers), item))

    def _meet_incidents(self, phase: Phase) -> None:
        for incident in self._incidents:
            if incident.phase is phase:
                self._schedule(incident.after_s, incident.what)

    # --- what the core asks for ---------------------------------------------------------------------------------------

    def _perform(self, effect: ef.AnyEffect) -> None:  # noqa: C901, PLR0912 - one arm an effect
        match effect:
            case ef.PrepareDevices():
                keeper = self._place.keeper
                prepared = ev.DevicesPrepared(
                    0, histories.gpu_uuid(0), "cut", replaced=((None, histories.slice_uuid(0)),)
                )
                self._start_keeper()
                self._answer(keeper.prepares_s, keeper.refusal or prepared)
            case ef.RestoreDevices():
                self._sampling = False
                self._restore()
            case ef.StartSampler():
                self._start_sampler()
            case ef.RequestSample():
                self._schedule(0.005, SampleDue(periodic=False))
            case ef.LockGpus():
                refusal = self._place.lock_refusal
                locked = ev.GpusLocked(0, self._place.lock_notes)
                self._schedule(0, ev.LockRefused(0, refusal) if refusal else locked)
            case ef.InspectEngines():
                self._inspect(effect)
            case ef.SpawnWorker():
                self._spawn(effect.assignment)
            case ef.ObserveWorkers():
                for index in effect.workers:
                    if self._processes[index].at_work:
                        self._schedule(0, ev.StillTimed(0, worker=index, at_utc_ns=self.now_ns))
            case ef.CleanStop():
                for index in effect.workers:
                    self._clean_stop(self._processes[index])
            case ef.Terminate():
                for index in effect.workers:
                    process = self._processes[index]
                    self._end(process, "TERM", process.habit.term_s, _SIGTERM)
            case ef.ReleaseWorkers():
                for index in effect.workers:
                    if not self._processes[index].gone:
                        self._schedule(0, ev.WorkerReleased(0, worker=index))
            case ef.TerminateClients():
                for index in effect.workers:
                    process = self._processes[index]
                    self._end(process, "terminate_client", process.habit.client_s, _SIGTERM)
            case ef.Kill():
                for index in effect.workers:
                    process = self._processes[index]
                    self._end(process, "KILL", process.habit.kill_s, _SIGKILL)
            case ef.ArmTimer():
                self._schedule(effect.after_s, ev.DeadlinePassed(0, timer=effect.timer, entry=effect.entry))
            case ef.ComputeCertificate():
                self._schedule(0.2, ev.CertificateComputed(0, self._place.certificate))
            case ef.WriteVerdict():
                self._schedule(0.05, ev.VerdictWritten(0))
            case ef.SetTick() | ef.RecordTransition() | ef.RecordRejection():
                pass

    def _start_keeper(self) -> None:
        self._keepers += 1
        self._keeper = self._keepers
        self._keeper_free_ns = self.now_ns

    def _restore(self) -> None:
        keeper = self._place.keeper
        if self._keeper is None:
            self._start_keeper()
        restored = ev.DevicesRestored(0, "cut back", replaced=((histories.slice_uuid(0), "SIM-anew"),))
        self._answer(keeper.restores_s, ev.RestorationFailed(0, keeper.failure) if keeper.failure else restored)

    def _answer(self, after_s: float | None, event: ev.AnyEvent) -> None:
        """Once it has answered what it was asked before."""
        assert self._keeper is not None
        if after_s is None or self._keeper_free_ns is None:
            self._keeper_free_ns = None
            return
        begin_ns = max(self.now_ns, self._keeper_free_ns)
        self._keeper_free_ns = begin_ns + round(after_s * NS_PER_S)
        self._schedule((self._keeper_free_ns - self.now_ns) / NS_PER_S, KeeperSays(self._keeper, event))

    def _start_sampler(self) -> None:
        failure = self._place.discovery_failure
        if failure is not None:
            self._schedule(0.01, ev.DiscoveryFailed(0, failure))
            return
        self._sampling = True
        self._schedule(0.01, ev.SlicesDiscovered(0, inventory=self._place.inventory, cpus=self._place.cpus))
        self._schedule(0.02, SampleDue(periodic=True))

    def _inspect(self, effect: ef.InspectEngines) -> None:
        if self._place.engines_cached and not effect.discard:
            self._engines.update(effect.needs)
        self._engines.update(need for need in effect.needs if need.benchmark in self._place.cached)
        missing = tuple(
            (need, "it is not there") for need in effect.needs if effect.discard or need not in self._engines
        )
        self._schedule(0.01, ev.EnginesInspected(0, missing=missing))

    # --- processes ----------------------------------------------------------------------------------------------------

    def _spawn(self, assignment: Assignment) -> None:
        habit = self._cast.habit(assignment)
        process = Process(assignment, habit)
        index = assignment.index
        self._processes[index] = process
        if habit.spawn_failure is not None:
            self._schedule(0.01, ev.SpawnFailed(0, worker=index, message=habit.spawn_failure))
            self._schedule(0.02, ev.WorkerExited(0, worker=index, exit_code=None, signal=None))
            return
        self._schedule(0, ev.WorkerSpawned(0, worker=index, guardian_pid=process.pid - 1, pid=process.pid))

    def _clean_stop(self, process: Process) -> None:
        after_s = process.habit.clean_stop_s
        process.rung = "clean stop"
        if after_s is not None:
            index = process.assignment.index
            if process.timed:
                self._schedule(after_s / 2, ev.TimedSectionEnded(0, worker=index))
            elif process.at_work:
                self._schedule(after_s / 2, ev.FinishAnnounced(0, worker=index))
            self._schedule(after_s, ev.WorkerExited(0, worker=index, exit_code=0, signal=None, stopped_by="clean stop"))

    def _end(self, process: Process, rung: str, after_s: float | None, signum: int) -> None:
        process.rung = rung
        if after_s is not None:
            index = process.assignment.index
            self._schedule(after_s, ev.WorkerExited(0, worker=index, exit_code=None, signal=signum, stopped_by=rung))

    def _live(self, event: WorkerEvent) -> None:
        process = self._processes.get(event.worker)
        if process is not None and (process.gone or process.released):
            return  # what it was going to do does not happen any more, or is nobody's concern
        if process is not None:
            self._follow(process, event)
            if isinstance(event, ev.WorkerExited):
                event = replace(event, stopped_by=process.rung)
        self.tell(event)

    def _follow(self, process: Process, event: WorkerEvent) -> None:  # noqa: C901, PLR0912 - one arm an event
        """What comes of it in the life of that process."""
        habit, index = process.habit, process.assignment.index
        exited = ev.WorkerExited(0, worker=index, exit_code=habit.exit_code, signal=habit.signal)
        match event:
            case ev.WorkerSpawned():
                process.started = True
                if habit.announces_s is not None:
                    self._schedule(habit.announces_s, ev.StartAnnounced(0, worker=index))
                if habit.begins_s is not None:
                    self._schedule(habit.begins_s, ev.TimedSectionBegan(0, worker=index))
                if habit.dies_s is not None:
                    self._schedule(habit.dies_s, exited)
            case ev.StartAnnounced():
                process.announced = True
                if habit.begins_s is None and habit.done_s is not None:
                    self._schedule(habit.done_s, ev.FinishAnnounced(0, worker=index))
            case ev.FinishAnnounced():
                process.announced = False
                if habit.begins_s is None:
                    self._leave(process, exited)
            case ev.TimedSectionBegan():
                process.timed = True
                process.runs += 1
                if habit.beats_s is not None:
                    self._schedule(habit.beats_s, self._beat(index))
                if habit.ends_s is not None:
                    self._schedule(habit.ends_s, ev.TimedSectionEnded(0, worker=index))
            case ev.ProgressMade():
                stalled = habit.beats is not None and self._beats[index] >= 10 * habit.beats
                if process.timed and habit.beats_s is not None and not stalled:
                    self._schedule(habit.beats_s, self._beat(index))
            case ev.TimedSectionEnded():
                process.timed = False
                if process.rung is None and process.runs <= habit.more_runs:
                    self._schedule(habit.pause_s, ev.TimedSectionBegan(0, worker=index))
                    return
                if habit.finishes_s is not None:
                    self._schedule(habit.finishes_s, ev.FinishAnnounced(0, worker=index))
                self._leave(process, exited)
            case ev.WorkerReleased():
                process.released = True
            case ev.WorkerExited():
                process.gone = True
                builds = process.assignment.builds
                if event.exit_code == 0:
                    self._engines.update(builds[: max(0, len(builds) - habit.spoils)])
            case _:
                pass

    def _leave(self, process: Process, exited: ev.WorkerExited) -> None:
        """Its work is done."""
        habit, index = process.habit, process.assignment.index
        if habit.reports is not None:
            self._schedule(0, ev.ResultReported(0, worker=index, valid=habit.reports))
        if habit.exits_s is not None and process.rung is None:
            self._schedule(habit.exits_s, exited)

    def _beat(self, index: int) -> ev.ProgressMade:
        self._beats[index] = self._beats.get(index, 0) + 10
        return ev.ProgressMade(0, worker=index, completed_samples=self._beats[index], samples_per_s=10.0)

    # --- devices ------------------------------------------------------------------------------------------------------

    def _sample(self, due: SampleDue) -> None:
        if not self._sampling:
            return
        if due.periodic:
            self._schedule(self.run.view.spec.sample_period_ms / 1_000, due)
        if Trouble.SILENCE not in self._troubles:
            self.tell(ev.SampleTaken(0, sample=self.reading()))

    def reading(self) -> DeviceSample:
        """What the device shows now."""
        return DeviceSample(
            taken_ns=self.now_ns - _ANSWER_NS // 10,
            slices=tuple(
                SliceSample(
                    slice_uuid=place.uuid,
                    occupants=self._occupants(place.uuid) if self._shows(place) else None,
                    memory_used_bytes=self._used_bytes(place.uuid),
                )
                for place in self._place.inventory.slices
            ),
            gpus=tuple(self._gpu(number) for number in range(len(self._place.inventory.gpus))),
            others=self._others() if self.run.view.spec.goal is Goal.BASELINE else None,
        )

    def _others(self) -> tuple[OtherGpu, ...]:
        """A GPU without slices."""
        who = (histories.occupant(4343, 1),) if Trouble.ELSEWHERE in self._troubles else ()
        shown = self._place.shows_processes
        return (OtherGpu(9, histories.gpu_uuid(9), who if shown else None, "" if shown else "it is not allowed"),)

    def _shows(self, place: Slice) -> bool:
        return self._place.shows_processes and place.kind is not SliceKind.MPS

    def _used_bytes(self, uuid: str) -> int:
        leak = 500 if Trouble.LEAK in self._troubles else 0
        return (13 + leak + 600 * len(self._occupants(uuid))) << 20

    def _sharers(self, gpu_uuid: str) -> tuple[Occupant, ...] | None:
        """Whom the device shows on a GPU that is shared: those on its shares, and its server."""
        shares = [place.uuid for place in self._place.inventory.slices if place.gpu_uuid == gpu_uuid]
        if not self._place.shows_processes or self._place.inventory.slices[0].kind is not SliceKind.MPS:
            return None
        server = histories.occupant(histories.CONTROLLER_PID + 2, histories.CONTROLLER_PID)
        return (server, *(occupant for uuid in shares for occupant in self._occupants(uuid)))

    def _gpu(self, number: int) -> GpuSample:
        reading = histories.gpu_sample(number)
        reading = replace(reading, gpu_uuid=self._place.inventory.gpus[number].uuid)
        if (Trouble.LOST if self._is_used(reading.gpu_uuid) else Trouble.ANOTHER_LOST) in self._troubles:
            return GpuSample(reading.gpu_uuid, unreadable=f"NVML cannot read GPU {reading.gpu_uuid} any more.")
        if Trouble.GEOMETRY in self._troubles:
            reading = replace(reading, geometry="another")
        if Trouble.DEAF in self._troubles:
            reading = replace(reading, listened=0)
        reading = replace(reading, occupants=self._sharers(reading.gpu_uuid))
        if Trouble.HEAT in self._troubles:
            reading = replace(reading, sw_thermal_slowdown_ns=self.now_ns)
        return reading

    def _is_used(self, gpu_uuid: str) -> bool:
        plan = self.run.view.plan
        used = {worker.slice_uuid for worker in plan.workers} if plan is not None else set()
        return any(place.gpu_uuid == gpu_uuid and place.uuid in used for place in self._place.inventory.slices)

    def _occupants(self, uuid: str) -> tuple[Occupant, ...]:
        ours = tuple(
            histories.occupant(process.pid, process.pid - 1, histories.CONTROLLER_PID)
            for process in self._processes.values()
            if process.started and not process.gone and process.habit.seen
            if uuid == (process.habit.seen_on or process.assignment.slice_uuid)
        )
        plan = self.run.view.plan
        foreign = Trouble.FOREIGN_PROCESS in self._troubles and uuid == histories.slice_uuid(0)
        elsewhere = plan is not None and uuid not in {worker.slice_uuid for worker in plan.workers}
        bystander = Trouble.BYSTANDERS in self._troubles and elsewhere
        return (*ours, histories.occupant(4242, 1)) if foreign or bystander else ours
