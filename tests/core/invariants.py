"""What holds in every history of a run, whatever the world does; told from events and effects alone.

Each invariant keeps its own, simple account of what was heard, so that it does not repeat the core's reasoning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.device_guards import device_findings
from heteromig.core.devices import DeviceSample
from heteromig.core.guards import Finding, Status
from heteromig.core.machine import Run
from heteromig.core.phases import ACTIVE_PHASES, MEASURING_PHASES, EvidenceLevel, Keeping, Phase, Role, WorkerState
from heteromig.core.spec import Action, Drain, Goal, Isolation, Mode, RunSpec
from heteromig.core.units import NS_PER_MS
from heteromig.core.verdict import Reason
from heteromig.core.view import View
from tests.core import histories
from tests.core.world import Step

History = Sequence[Step]

_ORDER = tuple(Phase)
_BEFORE_DRAINING = ACTIVE_PHASES
_WATCHED = (Phase.BACKGROUND_STARTING, *MEASURING_PHASES)
_RUNGS = (ef.CleanStop, ef.Terminate, ef.TerminateClients, ef.Kill)
_WEIGHT = (2, 1, 7, 6, 5, 4, 3, 9)
_ALWAYS_FATAL = (
    *(ev.SignalReceived, ev.DiscoveryFailed, ev.LockRefused),
    *(ev.PreparationFailed, ev.KeeperLost, ev.RestorationFailed),
)
_KEEPERS_LAST_WORDS = (ev.DevicesRestored, ev.RestorationFailed)
_DECODER = msgspec.json.Decoder(ev.AnyEvent)


def check(spec: RunSpec, history: History) -> None:
    """Every invariant of this module."""
    phases_come_in_order(history)
    what_goes_wrong_leads_to_draining(spec, history)
    main_comes_after_its_neighbours(spec, history)
    devices_were_seen(spec, history)
    spawns_belong_to_phases(history)
    only_what_is_used_is_locked(history)
    builds_are_on_slices_of_their_profile(history)
    main_has_time_to_exit(spec, history)
    what_happens_elsewhere_is_noted(history)
    what_the_guards_find_is_what_ended_the_run(history)
    draining_stops_everybody(spec, history)
    only_timed_backgrounds_are_released(spec, history)
    the_ladder_goes_up(history)
    a_second_signal_kills(history)
    the_gpu_is_prepared_first(spec, history)
    the_gpu_is_taken_back_last(history)
    validating_comes_after_reaping(history)
    a_stop_is_no_failure(history)
    slices_were_left_empty(history)
    a_deadline_is_always_pending(history)
    deadlines_of_other_phases_are_not_heard(history)
    transitions_are_recorded(history)
    the_end_is_the_end(history)
    the_verdict_follows_from_the_reasons(spec, history)
    replay_gives_the_same(spec, history)


def phases_come_in_order(history: History) -> None:
    """Forward by one, or to draining; never back, and through draining in any case."""
    for step in history:
        one_on = _ORDER[_ORDER.index(step.before) + 1] if step.before is not Phase.FINISHED else Phase.FINISHED
        allowed = {step.before, one_on}
        if step.before in _BEFORE_DRAINING:
            allowed.add(Phase.DRAINING)
        assert step.after in allowed, f"{step.before} -> {step.after} on {step.event}"


def what_goes_wrong_leads_to_draining(spec: RunSpec, history: History) -> None:
    heard = _Heard(spec)
    for step in history:
        if step.before in _BEFORE_DRAINING and (_is_fatal(spec, step, heard) or _shows_trouble(step)):
            assert step.after is Phase.DRAINING, f"{step.event} in {step.before} leads to {step.after}"
            assert step.view.reasons, f"{step.event} gave no reason"
        if step.view.must_stop:
            assert step.after not in _BEFORE_DRAINING
        heard.hear(step)


def _is_fatal(spec: RunSpec, step: Step, heard: _Heard) -> bool:  # noqa: PLR0911 - one arm an event
    match step.event:
        case _ if isinstance(step.event, _ALWAYS_FATAL):
            return True
        case ev.DeviceFaulted():
            return step.event.gpu_uuid is None or step.view.plan is None or step.event.gpu_uuid in _used_gpus(step.view)
        case ev.SpawnFailed(worker=worker):
            return heard.is_fatal_to_lose(worker, spec)
        case ev.WorkerExited(worker=worker) if worker not in heard.excused:
            failed = step.event.exit_code != 0 or (worker == 0 and step.event.stopped_by is not None)
            early = heard.roles.get(worker) is Role.BACKGROUND and step.before in _WATCHED and not heard.main_ended
            return heard.is_fatal_to_lose(worker, spec) and (failed or early)
        case ev.TimedSectionEnded(worker=worker):
            ends = heard.roles.get(worker) is Role.BACKGROUND and worker in heard.started and worker not in heard.gone
            return ends and not spec.lenient and step.before in _WATCHED and not heard.main_ended
        case ev.FinishAnnounced(worker=worker):
            ends = heard.roles.get(worker) is Role.BACKGROUND and heard.has_markers_only(worker)
            return ends and not spec.lenient and step.before in _WATCHED and not heard.main_ended
        case _:
            return False


def _shows_trouble(step: Step) -> bool:
    """Whether a sample shows the plan's GPUs cut anew or out of sight, or a stranger where there must be none."""
    view = step.view
    if not isinstance(step.event, ev.SampleTaken) or view.plan is None or view.inventory is None:
        return False
    ours = {worker.slice_uuid for worker in view.plan.workers} if view.inventory.pids_resolve is not False else set()
    demanding = view.spec.goal is Goal.BASELINE and not view.spec.allow_busy
    strangers = [
        occupant
        for reading in step.event.sample.slices
        if reading.slice_uuid in ours or (ours and demanding)
        for occupant in reading.occupants or ()
        if histories.CONTROLLER_PID not in occupant.ancestors
    ]
    if ours and demanding:
        strangers += [occupant for other in step.event.sample.others or () for occupant in other.occupants or ()]
    return bool(strangers) or not _gpus_are_well(view, step.event.sample)


def what_the_guards_find_is_what_ended_the_run(history: History) -> None:
    """A violated device guard goes with exit code 7 or with a remark, and a GPU outside the plan violates none."""
    view = history[-1].view
    findings = device_findings(view)
    if view.plan is None:
        assert not findings
        return
    scopes = {*_used_gpus(view), *(worker.slice_uuid for worker in view.plan.workers)}
    whole = {"host"} if view.spec.goal is Goal.BASELINE else set()
    assert {finding.scope for finding in findings} == scopes | whole
    for finding in findings:
        violated = finding.status is Status.VIOLATED
        assert violated or not finding.remark
        if violated and not finding.remark:
            assert any(reason.exit_code == 7 for reason in view.reasons), finding
    assert len({(finding.guard, finding.scope) for finding in findings}) == len(findings)


def _used_gpus(view: View) -> dict[str, str | None]:
    """The GPUs of the plan, and how they were cut."""
    assert view.inventory is not None
    assert view.plan is not None
    ours = {worker.slice_uuid for worker in view.plan.workers}
    used = {one.gpu_uuid for one in view.inventory.slices if one.uuid in ours}
    return {gpu.uuid: gpu.geometry for gpu in view.inventory.gpus if gpu.uuid in used}


def _gpus_are_well(view: View, sample: DeviceSample) -> bool:
    """Whether each GPU of the plan is readable and cut as it was."""
    seen = {reading.gpu_uuid: reading.geometry for reading in sample.gpus if reading.unreadable is None}
    return all(seen.get(uuid, "gone") == geometry or geometry is None for uuid, geometry in _used_gpus(view).items())


class _Heard:
    """A simple account of workers: who was asked for, was heard to begin what, and has not ended since."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec = spec
        self.roles: dict[int, Role] = {}
        self.started: set[int] = set()
        self._over: set[int] = set()
        self._exited: set[int] = set()
        self.excused: set[int] = set()
        """Those whose exit says nothing new."""
        self._marks: set[tuple[int, EvidenceLevel]] = set()

    def hear(self, step: Step) -> None:  # noqa: C901 - one arm an event
        match step.event:
            case ev.WorkerSpawned(worker=worker):
                self.started.add(worker)
            case ev.SpawnFailed(worker=worker):
                self.excused.add(worker)
            case ev.StartAnnounced(worker=worker) if worker in self.started and worker not in self._over:
                self._marks.add((worker, EvidenceLevel.ANNOUNCED))
            case ev.TimedSectionBegan(worker=worker) if worker in self.started:
                self._over.discard(worker)
                self._marks.update({(worker, EvidenceLevel.ANNOUNCED), (worker, EvidenceLevel.TIMED)})
            case ev.ProgressMade(worker=worker):
                if step.event.completed_samples and (worker, EvidenceLevel.TIMED) in self._marks:
                    self._marks.add((worker, EvidenceLevel.BUSY))
            case ev.TimedSectionEnded(worker=worker) if worker in self.started:
                self._end(worker)
            case ev.FinishAnnounced(worker=worker) if self.has_markers_only(worker):
                self._end(worker)
            case ev.WorkerExited(worker=worker) if worker in self.roles:
                self._exited.add(worker)
                self.excused.add(worker)
            case _:
                pass
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                self.roles[effect.assignment.index] = effect.assignment.role

    def _end(self, worker: int) -> None:
        """What it has shown is over; another LoadGen run has to show it anew."""
        self._over.add(worker)
        self._marks = {mark for mark in self._marks if mark[0] != worker}

    @property
    def gone(self) -> set[int]:
        return self._over | self._exited

    @property
    def main_ended(self) -> bool:
        """Where LoadGen may run again within main, only its exit tells that it has ended."""
        return 0 in (self.gone if self._spec.main.action is Action.RUN_HARNESS else self._exited)

    def has_markers_only(self, worker: int) -> bool:
        return self.shows(worker, EvidenceLevel.ANNOUNCED) and not self.shows(worker, EvidenceLevel.TIMED)

    def is_fatal_to_lose(self, worker: int, spec: RunSpec) -> bool:
        role = self.roles.get(worker)
        return role is not None and not (role is Role.BACKGROUND and spec.lenient)

    def shows(self, worker: int, level: EvidenceLevel) -> bool:
        return (worker, level) in self._marks and worker not in self.gone


def main_comes_after_its_neighbours(spec: RunSpec, history: History) -> None:
    """Main is spawned once every background shows its evidence, and the buffer has elapsed since.

    A lenient run goes without those that ended, and without those that did not begin in time.
    """
    heard = _Heard(spec)
    buffered = False
    for step in history:
        if isinstance(step.event, ev.DeadlinePassed) and step.event.timer is ev.Timer.BUFFER:
            entry = step.entry - (step.after is not step.before)
            buffered = buffered or (step.before is Phase.BUFFERING and step.event.entry == entry)
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker) and effect.assignment.role is Role.MAIN:
                assert buffered, "main was spawned before the buffer had elapsed"
                assert step.view.plan is not None
                late = any(reason.exit_code == 6 for reason in step.view.reasons)
                for neighbour in step.view.plan.backgrounds:
                    there = heard.shows(neighbour.index, spec.start_evidence)
                    passed_over = spec.lenient and (late or neighbour.index in heard.gone)
                    assert there or passed_over, f"main was spawned without background {neighbour.index}"
        heard.hear(step)


def devices_were_seen(spec: RunSpec, history: History) -> None:
    """The way to main leads over a fresh sample, unless the sampler was lost for good, which the verdict says."""
    heard: ev.SampleTaken | None = None
    lost = False
    for step in history:
        if isinstance(step.event, ev.SampleTaken):
            heard = step.event
        if isinstance(step.event, ev.SamplerLost):
            heard = None
            lost = lost or not step.event.restarted
        if step.after is step.before or step.after not in {Phase.BUILDING, Phase.BUFFERING, Phase.MAIN_RUNNING}:
            continue
        if step.after is Phase.BUFFERING and spec.lenient and isinstance(step.event, ev.DeadlinePassed):
            continue  # the time to start was over
        if lost:
            assert any(reason.exit_code == 9 for reason in step.view.reasons)
            continue
        assert heard is not None, f"{step.after} without any sample"
        assert step.event.at_ns - heard.sample.taken_ns <= 3 * spec.sample_period_ms * NS_PER_MS, "the sample was stale"
        assert step.view.inventory is not None
        same = _gpus_are_well(step.view, heard.sample)
        assert same or step.after is Phase.BUILDING, "the sample may be older than the inventory only there"
        if step.after is Phase.BUFFERING:
            _neighbours_are_seen(step, heard)


def _neighbours_are_seen(step: Step, heard: ev.SampleTaken) -> None:
    assert step.view.inventory is not None
    resolve = step.view.inventory.pids_resolve is not False
    shown = {reading.slice_uuid: reading.occupants for reading in heard.sample.slices if resolve}
    for worker in step.view.backgrounds:
        occupants = shown.get(worker.assignment.slice_uuid)
        if occupants is not None and worker.live:
            assert any(worker.guardian_pid in occupant.ancestors for occupant in occupants), (
                f"{worker.name} was not seen"
            )


def spawns_belong_to_phases(history: History) -> None:
    """Builds one at a time while building, backgrounds and main on entry; each once, nothing from draining on."""
    at_home = {Role.BUILD: Phase.BUILDING, Role.BACKGROUND: Phase.BACKGROUND_STARTING, Role.MAIN: Phase.MAIN_RUNNING}
    seen: set[int] = set()
    building: int | None = None
    for step in history:
        if isinstance(step.event, ev.WorkerExited) and step.event.worker == building:
            building = None
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                index, role = effect.assignment.index, effect.assignment.role
                assert step.after is at_home[role], f"{role} was spawned in {step.after}"
                assert role is Role.BUILD or step.before is not step.after
                assert index not in seen, f"worker {index} was spawned twice"
                seen.add(index)
                if role is Role.BUILD:
                    assert building is None, "two builds at a time"
                    building = index


def only_what_is_used_is_locked(history: History) -> None:
    """The lock is asked for once there is a plan, and is for the GPUs of its slices."""
    for step in history:
        for effect in step.effects:
            if isinstance(effect, ef.LockGpus):
                assert step.view.plan is not None
                assert step.view.inventory is not None
                owners = {place.uuid: place.gpu_uuid for place in step.view.inventory.slices}
                assert set(effect.gpu_uuids) == {owners[worker.slice_uuid] for worker in step.view.plan.workers}
                assert len(effect.gpu_uuids) == len(set(effect.gpu_uuids))


def builds_are_on_slices_of_their_profile(history: History) -> None:
    """A build makes engines of one configuration version, where they are going to run."""
    for step in history:
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                worker = effect.assignment
                assert bool(worker.builds) == (worker.role is Role.BUILD)
                assert {(need.profile, need.config_ver) for need in worker.builds} <= {
                    (worker.profile, worker.config_ver)
                }
                if worker.builds:
                    assert step.view.plan is not None
                    assert (worker.slice_uuid, worker.profile) in {
                        (other.slice_uuid, other.profile) for other in step.view.plan.workers
                    }


def builds_are_few(spec: RunSpec, history: History) -> None:
    """Each engine is built at most once, in at most one build for each configuration version and profile.

    Not so where the cache, or the end of a build, is lied about.
    """
    builds = [
        effect.assignment
        for step in history
        for effect in step.effects
        if isinstance(effect, ef.SpawnWorker) and effect.assignment.role is Role.BUILD
    ]
    built = Counter(need for build in builds for need in build.builds)
    assert set(built.values()) <= {1}
    kinds = Counter((build.config_ver, build.profile) for build in builds)
    assert not spec.batch_builds or set(kinds.values()) <= {1}


def main_has_time_to_exit(spec: RunSpec, history: History) -> None:
    """Each end of main in main-running asks once for its deadline, and nothing else does.

    Only a main whose last timed section ended that long ago can be said to have outstayed it.
    """
    heard = _Heard(spec)
    ended_ns: int | None = None
    asked_ns: int | None = None
    for step in history:
        if isinstance(step.event, ev.TimedSectionEnded) and step.event.worker == 0 and 0 not in heard.started:
            return  # whoever says so of a main that does not run may say anything
        was_over = 0 in heard.gone
        heard.hear(step)
        if 0 not in heard.gone:
            ended_ns = None
        ends = 0 in heard.gone and not was_over and not isinstance(step.event, ev.WorkerExited)
        if ends:
            ended_ns = step.event.at_ns
        timers = [effect for effect in step.effects if isinstance(effect, ef.ArmTimer)]
        asked = [effect.after_s for effect in timers if effect.timer is ev.Timer.MAIN_EXIT]
        due = ends and step.before is step.after is Phase.MAIN_RUNNING and ended_ns != asked_ns
        assert asked == ([spec.timing.main_exit_timeout_ms / 1000] if due else []), step.event
        asked_ns = ended_ns if due else asked_ns
        if isinstance(step.event, ev.DeadlinePassed) and step.event.timer is ev.Timer.MAIN_EXIT:
            outstayed = [reason for reason in step.view.reasons if "Main was still alive" in reason.sentence]
            if outstayed and step.before is Phase.MAIN_RUNNING:
                assert ended_ns is not None
                assert step.event.at_ns - ended_ns >= spec.timing.main_exit_timeout_ms * NS_PER_MS


def what_happens_elsewhere_is_noted(history: History) -> None:
    """Once there is a plan, whatever befalls what is not part of it is in the notes, up to twenty; nothing else is.

    So is what was found when the GPUs were locked, and a keeper that was lost while another one could go on.
    """
    seen: list[str] = []
    restoring = False
    for step in history:
        if isinstance(step.event, ev.SlicesDiscovered) and not seen and step.view.inventory is not None:
            seen += [f"No run can use it: {gpu.message}" for gpu in step.view.inventory.unusable]
        if isinstance(step.event, ev.GpusLocked):
            seen += step.event.notes
        if isinstance(step.event, ev.KeeperLost) and restoring:
            seen.append(step.event.message)
        asked = any(isinstance(effect, ef.RestoreDevices) for effect in step.effects)
        restoring = asked or (restoring and not isinstance(step.event, _KEEPERS_LAST_WORDS))
        if step.view.plan is not None:
            match step.event:
                case ev.SampleTaken(sample=sample):
                    seen += _elsewhere(step.view, sample)
                case ev.DeviceFaulted(gpu_uuid=str(uuid)) if uuid not in _used_gpus(step.view):
                    seen.append(f"Not part of the run: {step.event.message}")
                case _:
                    pass
        assert [note.partition(" (")[0] for note in step.view.notes] == list(dict.fromkeys(seen))[:20]


def _elsewhere(view: View, sample: DeviceSample) -> list[str]:
    assert view.plan is not None
    assert view.inventory is not None
    cut = {gpu.uuid: gpu.geometry for gpu in view.inventory.gpus if gpu.uuid not in _used_gpus(view)}
    ours = {worker.slice_uuid for worker in view.plan.workers}
    others = [reading for reading in sample.gpus if reading.gpu_uuid in cut]
    beside = [(f"Slice {one.slice_uuid}", one.occupants) for one in sample.slices if one.slice_uuid not in ours]
    beside += [(f"GPU {one.uuid}", one.occupants) for one in sample.others or ()]
    told = view.spec.goal is not Goal.BASELINE or view.spec.allow_busy
    return [
        *(
            f"Not part of the run: {reading.unreadable}"
            if reading.unreadable is not None
            else f"GPU {reading.gpu_uuid}, which is not part of the run, was cut anew meanwhile."
            for reading in others
            if reading.unreadable is not None or reading.geometry != cut[reading.gpu_uuid]
        ),
        *(
            f"{name}, which is not part of the run, was used meanwhile by pid {occupant.pid}"
            for name, occupants in (beside if told else ())
            for occupant in occupants or ()
            if view.controller_pid not in {occupant.pid, *occupant.ancestors}
        ),
    ]


def the_gpu_is_prepared_first(spec: RunSpec, history: History) -> None:
    """Where that is wanted, it is asked for once; until it is said to be done nobody looks at the devices."""
    asked = prepared = sampling = False
    for step in history:
        prepared = prepared or (asked and isinstance(step.event, ev.DevicesPrepared))
        for effect in step.effects:
            if isinstance(effect, ef.PrepareDevices):
                assert spec.preparation is not None
                assert not asked, "asked for twice"
                asked = True
            if isinstance(effect, ef.StartSampler) and spec.preparation is not None:
                assert prepared, "the devices were looked at before they were prepared"
                assert not sampling, "the sampler was started twice"
                sampling = True


def the_gpu_is_taken_back_last(history: History) -> None:
    """Validating begins once the keeper has said how that came out, or had its time, or died twice at it.

    Only what was asked for is taken back, in draining, once, and again where a keeper died at it. A GPU that stays as
    it is for the next run is not taken back at all.
    """
    asked = refused = prepared = answered = False
    restores = deaths = 0
    for step in history:
        event = step.event
        refused = refused or (asked and not prepared and isinstance(event, ev.PreparationFailed))
        prepared = prepared or (asked and isinstance(event, ev.DevicesPrepared))
        if restores:
            deaths += isinstance(event, ev.KeeperLost) and not answered
            late = isinstance(event, ev.DeadlinePassed) and event.timer is ev.Timer.RESTORED
            answered = answered or late or refused or isinstance(event, (ev.DevicesRestored, ev.RestorationFailed))
        if step.after is Phase.VALIDATING and step.before is not Phase.VALIDATING and asked:
            if step.view.keeping is Keeping.HANDED_ON:
                assert prepared
                assert not restores
                assert _may_be_handed_on(step.view)
                continue
            assert refused or answered or deaths > 1, "the GPU was left as it was for the run"
            if not refused and not any(isinstance(done.event, ev.DevicesRestored) for done in history):
                assert step.verdict.exit_code >= 7, "nobody says that it was left so"
        for effect in step.effects:
            asked = asked or isinstance(effect, ef.PrepareDevices)
            if isinstance(effect, ef.RestoreDevices):
                assert asked
                assert not refused
                assert step.after is Phase.DRAINING
                assert restores == (0 if not isinstance(event, ev.KeeperLost) else deaths)
                restores += 1
                assert not _may_be_handed_on(step.view)
            assert not restores or not isinstance(effect, (ef.StartSampler, ef.RequestSample, ef.SpawnWorker))


def _may_be_handed_on(view: View) -> bool:
    """Where nothing speaks against it, and all that is left on the GPU is backgrounds that go on, if it has any."""
    released = any(worker.state is WorkerState.RELEASED for worker in view.workers)
    somebody = view.plan is not None and (released or not view.plan.backgrounds)
    return somebody and not view.live_workers and _goes_on(view.spec, view)


def _first_closing(history: History) -> Step | None:
    """When the run goes on as if nothing of it were left: the GPU is to be taken back, or validating begins."""
    for step in history:
        if any(isinstance(effect, ef.RestoreDevices) for effect in step.effects):
            return step
        if step.after is Phase.VALIDATING and step.before is not Phase.VALIDATING:
            return step
    return None


def draining_stops_everybody(spec: RunSpec, history: History) -> None:
    """Who is alive when draining begins is asked to stop, or has a deadline where the run waits for it.

    Those that know no clean stop are given a moment instead, unless a signal was heard.
    """
    for step in history:
        if step.after is not Phase.DRAINING or step.before is Phase.DRAINING:
            continue
        live = {worker.index for worker in step.view.live_workers}
        asked = {index for effect in step.effects if isinstance(effect, _RUNGS) for index in effect.workers}
        waits = spec.drain is Drain.WAIT and not spec.keeps_backgrounds and not step.view.must_stop
        kept = _kept(spec, step.view)
        abrupt = {index for index in live - kept if not step.view.workers[index].assignment.stops_cleanly}
        spared = abrupt if not step.view.signals else set()
        assert asked == (set() if waits else live - spared - kept)
        timers = [effect.timer for effect in step.effects if isinstance(effect, ef.ArmTimer)]
        assert timers.count(ev.Timer.LAST_LOOK) == bool(spared and not waits) + bool(kept)
        observed = [effect.workers for effect in step.effects if isinstance(effect, ef.ObserveWorkers)]
        timed = tuple(worker.index for worker in step.view.backgrounds if worker.live)
        assert observed == ([timed] if timed else [])
        order = [type(effect) for effect in step.effects]
        if observed and asked:
            stop = next(position for position, kind in enumerate(order) if kind in _RUNGS)
            assert order.index(ef.ObserveWorkers) < stop, "workers were stopped before they were observed"


def _kept(spec: RunSpec, view: View) -> set[int]:
    """Backgrounds that go on beyond the run: timed ones, where that is asked for and nothing speaks against it."""
    if not _goes_on(spec, view):
        return set()
    return {worker.index for worker in view.backgrounds if spec.start_evidence.reached_by(worker.state)}


def _goes_on(spec: RunSpec, view: View) -> bool:
    """Whether anything may outlive the run: no signal, no fault of a device, and no client of a daemon that crashed."""
    ended_by = {reason.exit_code for reason in view.reasons}
    crashed = [
        worker
        for worker in view.workers
        if worker.state is WorkerState.EXITED and not worker.stopped_by and not worker.spawn_failure
        if worker.exit_code is None or worker.exit_code > 128
    ]
    if spec.isolation is Isolation.SOFT and crashed:
        return False
    return spec.keeps_backgrounds and 7 not in ended_by and max(ended_by, default=0) <= 128


def _released(step: Step) -> set[int]:
    return {worker.index for worker in step.view.workers if worker.state is WorkerState.RELEASED}


def only_timed_backgrounds_are_released(spec: RunSpec, history: History) -> None:
    """All of them, once each, in draining, after a last look; nobody else goes on beyond the run."""
    asked: set[int] = set()
    for step in history:
        for effect in step.effects:
            if isinstance(effect, ef.ReleaseWorkers):
                chosen = set(effect.workers)
                assert step.after is Phase.DRAINING
                assert chosen == _kept(spec, step.view) - asked
                assert ef.ObserveWorkers(workers=effect.workers) in step.effects
                asked |= chosen
        assert _released(step) <= asked


def the_ladder_goes_up(history: History) -> None:
    """Clean stop, TERM, off the GPU, KILL: a worker may miss a rung and hear one again, but never an earlier one."""
    reached: dict[int, int] = {}
    live: set[int] = set()
    for step in history:
        if isinstance(step.event, ev.WorkerExited):
            live.discard(step.event.worker)
        live -= _released(step)
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                live.add(effect.assignment.index)
            if isinstance(effect, _RUNGS):
                rung = _RUNGS.index(type(effect))
                assert effect.workers, "a rung for nobody"
                assert live.issuperset(effect.workers), "a worker that does not live was stopped"
                able = [step.view.workers[index].assignment.stops_cleanly for index in effect.workers]
                assert rung > 0 or all(able), "a worker that knows no clean stop was asked for one"
                for index in effect.workers:
                    assert rung >= reached.get(index, 0), f"worker {index} went down the ladder"
                    reached[index] = rung
                late = isinstance(step.event, ev.DeadlinePassed) and step.event.timer is not ev.Timer.CLIENTS
                if late and rung > 0:
                    assert ef.ObserveWorkers(workers=effect.workers) in step.effects, (
                        "nobody looked before TERM or KILL"
                    )


def a_second_signal_kills(history: History) -> None:
    heard = 0
    terminated: set[int] = set()
    for step in history:
        before = set(terminated)
        terminated.update(
            index for effect in step.effects if isinstance(effect, (ef.Terminate, ef.Kill)) for index in effect.workers
        )
        if not isinstance(step.event, ev.SignalReceived):
            continue
        heard += 1
        if step.after is not Phase.DRAINING:
            continue
        live = tuple(worker.index for worker in step.view.live_workers)
        left = tuple(index for index in live if index not in before)
        asked = [effect for effect in step.effects if isinstance(effect, _RUNGS)]
        if heard > 1:
            assert asked == ([ef.Kill(workers=live)] if live else [])
        else:
            assert asked == ([ef.Terminate(workers=left)] if left else [])


def validating_comes_after_reaping(history: History) -> None:
    """All workers that were spawned have exited, or one did not die of KILL, which the verdict says.

    So it is when the GPU is to be taken back, where it was prepared.
    """
    left: set[int] = set()
    closing = _first_closing(history)
    for step in history:
        if isinstance(step.event, ev.WorkerExited):
            left.discard(step.event.worker)
        left -= _released(step)
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                left.add(effect.assignment.index)
        if step is closing and left:
            assert isinstance(step.event, ev.DeadlinePassed)
            assert step.event.timer is ev.Timer.KILLED
            unreaped = [reason for reason in step.view.reasons if "could not be reaped" in reason.sentence]
            assert len(unreaped) >= len(left)


def a_stop_is_no_failure(history: History) -> None:
    """Whoever was stopped while draining may end as it likes; before, nobody was stopped by the run."""
    reasons: tuple[Reason, ...] = ()
    reaped: set[int] = set()
    for step in history:
        if isinstance(step.event, ev.WorkerExited):
            stopped = step.event.stopped_by is not None and step.before not in _BEFORE_DRAINING
            if stopped and step.event.worker not in reaped:
                assert step.view.reasons == reasons
            reaped.add(step.event.worker)
        reasons = step.view.reasons


def slices_were_left_empty(history: History) -> None:
    """Validating begins on a sample since the last exit without anybody on it, or where no such sample can be had.

    Where the GPU is to be taken back, that begins so.
    """
    closing = _first_closing(history)
    heard: ev.SampleTaken | None = None
    last_exit_ns: int | None = None
    lost = False
    spawned: set[int] = set()
    for step in history:
        if isinstance(step.event, ev.SampleTaken):
            heard = step.event
        if isinstance(step.event, ev.SamplerLost):
            heard = None
            lost = lost or not step.event.restarted
        if isinstance(step.event, ev.WorkerExited) and step.event.worker in spawned:
            spawned.discard(step.event.worker)
            last_exit_ns = step.event.at_ns
        spawned -= _released(step)
        for effect in step.effects:
            if isinstance(effect, ef.SpawnWorker):
                spawned.add(effect.assignment.index)
        if step is not closing:
            continue
        last = ev.Timer.KILLED if spawned else ev.Timer.SETTLE
        gave_up = isinstance(step.event, ev.DeadlinePassed) and step.event.timer is last
        if last_exit_ns is None or lost or gave_up:
            continue
        assert heard is not None, "nobody looked at the slices"
        assert heard.sample.taken_ns >= last_exit_ns, "the slices were looked at too early"
        assert step.view.plan is not None
        ours = {worker.slice_uuid for worker in step.view.plan.workers}
        goes_on = {worker.assignment.slice_uuid for worker in step.view.workers if worker.index in _released(step)}
        ours -= goes_on
        occupied = [reading for reading in heard.sample.slices if reading.occupants and reading.slice_uuid in ours]
        assert not occupied, "somebody is left on a slice"


def deadlines_of_other_phases_are_not_heard(history: History) -> None:
    before = history[0].view
    for step in history:
        entry = step.entry - (step.after is not step.before)
        if isinstance(step.event, ev.DeadlinePassed) and step.event.entry != entry:
            assert step.view == before
            assert not step.effects
        before = step.view


def a_deadline_is_always_pending(history: History) -> None:
    """Nothing that the world fails to say can keep a run from its end."""
    pending: Counter[tuple[ev.Timer, int]] = Counter()
    begun = False
    for step in history:
        begun = begun or isinstance(step.event, ev.RunStarted)
        if isinstance(step.event, ev.DeadlinePassed):
            key = (step.event.timer, step.event.entry)
            pending[key] = max(0, pending[key] - 1)
        for effect in step.effects:
            if isinstance(effect, ef.ArmTimer):
                assert effect.entry == step.entry
                assert effect.after_s >= 0
                pending[effect.timer, effect.entry] += 1
        if begun and step.after not in {Phase.VALIDATING, Phase.FINISHED}:
            assert any(count for (_, entry), count in pending.items() if entry == step.entry), (
                f"nothing will end {step.after} after {step.event}"
            )


def transitions_are_recorded(history: History) -> None:
    """Each change of phase is in the effects, first, with findings that passed; rejections never pass."""
    for step in history:
        moves = [effect for effect in step.effects if isinstance(effect, ef.RecordTransition)]
        if step.after is step.before:
            assert not moves
        else:
            assert [(move.source, move.destination) for move in moves] == [(step.before, step.after)]
            requests = [effect for effect in step.effects if not isinstance(effect, ef.RecordRejection)]
            assert requests[0] == moves[0]
            assert all(finding.passed for finding in moves[0].findings)
            assert bool(moves[0].findings) == (step.after is not Phase.FINISHED)
        rejected: list[Finding] = [effect.finding for effect in step.effects if isinstance(effect, ef.RecordRejection)]
        assert not any(finding.passed for finding in rejected)


def the_end_is_the_end(history: History) -> None:
    """The verdict is written once; nothing that is heard later changes it or asks for anything."""
    written = [effect.verdict for step in history for effect in step.effects if isinstance(effect, ef.WriteVerdict)]
    assert len(written) <= 1
    finished = False
    for step in history:
        if finished:
            assert step.after is Phase.FINISHED
            assert not step.effects
        finished = finished or step.after is Phase.FINISHED
        if finished:
            assert [step.verdict] == written


def the_verdict_follows_from_the_reasons(spec: RunSpec, history: History) -> None:
    """The precedence of exit codes, worked out again, and what 0 means."""
    verdict = history[-1].verdict
    if spec.main.mode is not Mode.ACCURACY:
        assert not any("its accuracy is too low" in reason.sentence for reason in verdict.reasons)
    if history[-1].after is not Phase.FINISHED:
        return
    codes = [reason.exit_code for reason in verdict.reasons]
    assert codes == sorted(codes, key=lambda code: -1 if code > 128 else _WEIGHT.index(code))
    forgivable = spec.lenient and not any(code > 128 for code in codes[:1])
    counted = [
        reason.exit_code
        for reason in verdict.reasons
        if not (forgivable and reason.exit_code in {4, 5, 6} and not reason.fatal)
    ]
    assert verdict.exit_code == (counted[0] if counted else 0)
    assert (verdict.status in {"valid", "built", "lenient"}) == (verdict.exit_code == 0)
    if verdict.status in {"valid", "built"}:
        assert not verdict.reasons
    if verdict.status == "valid":
        _was_good(history)
    if not history[-1].view.main_finished:
        assert set(verdict.reasons) == set(history[-1].view.reasons), "a certificate without a main"
    assert (verdict.status == "built") == (spec.goal is Goal.BUILD and not codes)
    aborted = [
        Reason(128 + step.event.signum, "")
        for step in history
        if isinstance(step.event, ev.SignalReceived) and step.before not in {Phase.VALIDATING, Phase.FINISHED}
    ]
    assert (verdict.status == "aborted") == bool(aborted)
    if aborted:
        assert verdict.exit_code == aborted[0].exit_code


def _was_good(history: History) -> None:
    """Main ended by itself with success, and the certificate found nothing against it."""
    exits = [step.event for step in history if isinstance(step.event, ev.WorkerExited) and step.event.worker == 0]
    assert exits
    assert any((event.exit_code, event.stopped_by) == (0, None) for event in exits)
    summaries = [step.event.summary for step in history if isinstance(step.event, ev.CertificateComputed)]
    assert [summary.reasons for summary in summaries] == [()]
    assert Phase.MAIN_RUNNING in {step.before for step in history}


def replay_gives_the_same(spec: RunSpec, history: History) -> None:
    """The journaled events, read back, give the same phases, effects and verdict."""
    run = Run(spec)
    for step in history:
        event: ev.AnyEvent = _DECODER.decode(msgspec.json.encode(step.event))
        assert event == step.event
        assert tuple(run.handle(event)) == step.effects
        assert (run.phase, run.entry) == (step.after, step.entry)
    assert run.verdict == history[-1].verdict
