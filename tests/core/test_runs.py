"""Whole runs, fault by fault: where each goes, what is asked for, and how it comes out."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.device_guards import HOST_IDLE, device_findings
from heteromig.core.devices import DeviceSample, Occupant
from heteromig.core.guards import Status
from heteromig.core.phases import ACTIVE_PHASES, MEASURING_PHASES, EvidenceLevel, Phase, Role
from heteromig.core.spec import Mode, RunSpec
from heteromig.core.units import NS_PER_S
from heteromig.core.verdict import ABORT_SIGNALS, Reason
from tests.core import invariants
from tests.core.histories import (
    ABRUPT,
    ALONE,
    ANNOUNCED,
    AUDIT,
    BASELINE,
    BATCHED,
    LENIENT,
    ONLY_BUILDING,
    SPEC,
    WAITING,
    certificate,
    gpu_uuid,
    inventory,
    slice_uuid,
)
from tests.core.world import (
    ANNOUNCING_BACKGROUND,
    ANNOUNCING_MAIN,
    BACKGROUND,
    BUILD,
    MAIN,
    Cast,
    Habit,
    Incident,
    Place,
    Trouble,
    World,
)

ACCURACY = replace(SPEC, main=replace(SPEC.main, mode=Mode.ACCURACY))
WATCHED = (Phase.BACKGROUND_STARTING, *MEASURING_PHASES)
GOOD_WAY = tuple(Phase)
XID = ev.DeviceFaulted(0, "Xid 79 on GPU-0: it has fallen off the bus.")
UNCACHED = Place(engines_cached=False)


def play(
    spec: RunSpec = SPEC, *, cast: Cast | None = None, place: Place | None = None, incidents: tuple[Incident, ...] = ()
) -> World:
    """One run to its end, with every invariant checked on the way."""
    world = World(spec, cast=cast, place=place, incidents=incidents).finish()
    invariants.check(spec, world.steps)
    return world


def first(habit: Habit) -> Cast:
    """The first background has that habit, all others the usual ones."""
    return Cast(others=((1, habit),))


def dies_in(phase: Phase, exit_code: int | None = 0, signal: int | None = None) -> Incident:
    return Incident(phase, 0.0, ev.WorkerExited(0, worker=1, exit_code=exit_code, signal=signal))


def only_sentence(world: World) -> str:
    (reason,) = world.verdict.reasons
    assert world.verdict.exit_code == reason.exit_code
    return reason.sentence


def spawned(world: World) -> list[tuple[Role, str]]:
    return [
        (effect.assignment.role, effect.assignment.benchmark)
        for effect in world.effects
        if isinstance(effect, ef.SpawnWorker)
    ]


def asked_at_s(world: World, kind: type[ef.Effect]) -> list[float]:
    """When effects of that kind were asked for, in seconds since draining began."""
    (begun_ns,) = [
        step.event.at_ns for step in world.steps if step.after is Phase.DRAINING and step.before is not step.after
    ]
    return [
        (step.event.at_ns - begun_ns) / NS_PER_S
        for step in world.steps
        for effect in step.effects
        if isinstance(effect, kind)
    ]


# --- runs that come out well ------------------------------------------------------------------------------------------


def test_a_good_run_goes_through_every_phase_and_is_valid() -> None:
    world = play()
    assert world.phases == GOOD_WAY
    assert (world.verdict.status, world.verdict.exit_code, world.verdict.reasons) == ("valid", 0, ())
    assert [role for role, _ in spawned(world)] == [Role.BACKGROUND, Role.BACKGROUND, Role.MAIN]
    assert [effect.period_s for effect in world.effects if isinstance(effect, ef.SetTick)] == [0.1, 0.25]
    assert world.processes_left == ()
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"clean stop"}
    assert all(worker.still_timed_ns for worker in world.run.view.backgrounds)


def test_main_starts_when_the_buffer_is_over() -> None:
    world = play()
    entered_ns = {step.after: step.event.at_ns for step in world.steps if step.after is not step.before}
    assert entered_ns[Phase.MAIN_RUNNING] - entered_ns[Phase.BUFFERING] == pytest.approx(3 * NS_PER_S, rel=0.01)


def test_the_buffer_begins_when_the_backgrounds_have_begun() -> None:
    world = World(SPEC)
    world.tell(ev.DeadlinePassed(0, ev.Timer.BUFFER, 0))
    world.finish()
    invariants.check(SPEC, world.steps)


def test_the_last_mark_asks_for_a_sample_rather_than_waiting_for_one() -> None:
    world = World(replace(SPEC, sample_period_ms=30_000)).finish()
    entered_ns = {step.after: step.event.at_ns for step in world.steps if step.after is not step.before}
    assert entered_ns[Phase.BUFFERING] - entered_ns[Phase.BACKGROUND_STARTING] < NS_PER_S


@pytest.mark.parametrize("level", EvidenceLevel)
def test_each_level_of_evidence_leads_to_main(level: EvidenceLevel) -> None:
    assert play(replace(SPEC, start_evidence=level)).verdict.exit_code == 0


def test_a_run_without_backgrounds_is_a_run() -> None:
    world = play(ALONE)
    assert world.phases == GOOD_WAY
    assert world.verdict.status == "valid"
    assert spawned(world) == [(Role.MAIN, "resnet50")]


def test_devices_that_do_not_show_processes_are_said_to_be_unobservable() -> None:
    world = play(place=Place(shows_processes=False))
    assert world.verdict.status == "valid"
    findings = [finding for effect in world.run.transitions for finding in effect.findings]
    blind = {finding.guard for finding in findings if finding.status.value == "not observable"}
    assert blind == {"slices_idle", "backgrounds_on_their_slices", "slices_empty"}


# --- building ---------------------------------------------------------------------------------------------------------


def test_each_missing_engine_is_built_once_and_alone() -> None:
    spec = replace(SPEC, background=replace(SPEC.background, explicit=True, candidates=("bert", "bert")))
    world = play(spec, place=UNCACHED)
    assert world.verdict.status == "valid"
    assert spawned(world)[:2] == [(Role.BUILD, "resnet50"), (Role.BUILD, "bert")]
    assert [role for role, _ in spawned(world)[2:]] == [Role.BACKGROUND, Role.BACKGROUND, Role.MAIN]
    limit = next(effect for effect in world.effects if isinstance(effect, ef.ArmTimer) and effect.entry == 1)
    assert limit.after_s == 2 * SPEC.timing.build_timeout_ms / 1000


def test_the_goal_to_build_ends_after_building() -> None:
    world = play(ONLY_BUILDING, place=UNCACHED)
    assert world.verdict.status == "built"
    assert {role for role, _ in spawned(world)} == {Role.BUILD}
    assert Phase.BACKGROUND_STARTING not in world.phases


def test_with_all_engines_cached_there_is_nothing_to_build() -> None:
    world = play(ONLY_BUILDING)
    assert (world.verdict.status, spawned(world)) == ("built", [])


def test_rebuild_builds_what_is_cached_and_inspects_the_cache_afterwards() -> None:
    world = play(replace(SPEC, rebuild=True))
    assert [benchmark for role, benchmark in spawned(world) if role is Role.BUILD] == ["resnet50", "bert", "dlrm"]
    assert [effect.discard for effect in world.effects if isinstance(effect, ef.InspectEngines)] == [True, False]
    assert world.verdict.status == "valid"


def test_a_second_answer_about_the_cache_starts_no_second_build() -> None:
    world = World(SPEC, place=UNCACHED).go_to(Phase.BUILDING)
    world.wait_s(0.5)
    engines = world.run.view.missing_engines
    assert engines
    assert not world.tell(ev.EnginesInspected(0, missing=engines)).effects


@pytest.mark.parametrize(
    ("habit", "sentence"),
    [
        (replace(BUILD, exit_code=2), "exited with status 2 during building"),
        (replace(BUILD, exit_code=None, signal=9), "died of SIGKILL during building"),
        (replace(BUILD, spoils=1), "exited 0, but its engine is not usable: it is not there"),
        (replace(BUILD, dies_s=None), "not built in time"),
        (replace(BUILD, spawn_failure="no such file"), "could not be started: no such file"),
    ],
)
def test_a_build_that_fails_ends_the_run(habit: Habit, sentence: str) -> None:
    world = play(cast=Cast(build=habit), place=UNCACHED)
    assert world.verdict.exit_code == 5
    assert sentence in only_sentence(world)
    assert {role for role, _ in spawned(world)} == {Role.BUILD}


def built(world: World) -> list[tuple[str, list[str]]]:
    return [
        (effect.assignment.config_ver, [need.benchmark for need in effect.assignment.builds])
        for effect in world.effects
        if isinstance(effect, ef.SpawnWorker) and effect.assignment.builds
    ]


def test_engines_of_one_configuration_version_are_built_at_once() -> None:
    world = play(BATCHED, place=UNCACHED)
    assert world.verdict.status == "valid"
    assert built(world) == [("low", ["resnet50", "bert"]), ("high", ["dlrm"])]
    assert [role for role, _ in spawned(world)] == [Role.BUILD] * 2 + [Role.BACKGROUND] * 2 + [Role.MAIN]
    limit = next(effect for effect in world.effects if isinstance(effect, ef.ArmTimer) and effect.entry == 1)
    assert limit.after_s == 3 * BATCHED.timing.build_timeout_ms / 1000, "a build of several may take as long as theirs"


@pytest.mark.parametrize(
    ("cached", "builds"),
    [
        (("resnet50",), [("low", ["bert"]), ("high", ["dlrm"])]),
        (("dlrm",), [("low", ["resnet50", "bert"])]),
        (("resnet50", "bert"), [("high", ["dlrm"])]),
        (("resnet50", "bert", "dlrm"), []),
    ],
)
def test_engines_that_are_there_are_in_no_batch(cached: tuple[str, ...], builds: list[tuple[str, list[str]]]) -> None:
    world = play(BATCHED, place=Place(engines_cached=False, cached=cached))
    assert built(world) == builds
    assert world.verdict.status == "valid"


def test_rebuild_builds_every_batch_once_and_inspects_the_cache_afterwards() -> None:
    world = play(replace(BATCHED, rebuild=True))
    assert built(world) == [("low", ["resnet50", "bert"]), ("high", ["dlrm"])]
    assert [effect.discard for effect in world.effects if isinstance(effect, ef.InspectEngines)] == [True, False]
    assert world.verdict.status == "valid"


@pytest.mark.parametrize("rebuild", [False, True])
@pytest.mark.parametrize(
    ("spoils", "names"), [(1, ["bert", "dlrm"]), (2, ["resnet50", "bert", "dlrm"])], ids=["one of two", "all"]
)
def test_a_batch_that_leaves_an_engine_out_fails_the_run(spoils: int, names: list[str], *, rebuild: bool) -> None:
    place = Place(engines_cached=False)
    world = play(replace(BATCHED, rebuild=rebuild), cast=Cast(build=replace(BUILD, spoils=spoils)), place=place)
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    # A build alone is inspected before the next begins; when all is built anew, the cache is read once, at the end.
    missing = names if rebuild else names[:-1]
    assert [reason.sentence for reason in world.verdict.reasons] == [
        f"The build of {name} (offline, 99, 1g.10gb) exited 0, but its engine is not usable: it is not there"
        for name in missing
    ]
    assert {role for role, _ in spawned(world)} == {Role.BUILD}


def test_a_batch_that_fails_is_not_followed_by_another() -> None:
    world = play(BATCHED, cast=Cast(build=replace(BUILD, exit_code=2)), place=UNCACHED)
    assert world.verdict.exit_code == 5
    assert only_sentence(world).startswith(
        "Build 3 (low) exited with status 2 during building; see workers/3-build-low/"
    )
    assert built(world) == [("low", ["resnet50", "bert"])]


def test_each_profile_has_builds_of_its_own_on_a_slice_of_its_own() -> None:
    mixed = inventory(3, profiles=("2g.20gb", "1g.10gb"))
    world = play(BATCHED, place=Place(inventory=mixed, engines_cached=False))
    assert built(world) == [("low", ["resnet50"]), ("low", ["bert"]), ("high", ["dlrm"])]
    builds = [effect.assignment for effect in world.effects if isinstance(effect, ef.SpawnWorker)][:3]
    assert [build.slice_uuid for build in builds] == [slice_uuid(0), slice_uuid(1), slice_uuid(1)]
    assert [build.profile for build in builds] == ["2g.20gb", "1g.10gb", "1g.10gb"]


# --- preflight --------------------------------------------------------------------------------------------------------


def test_only_the_gpus_of_the_plan_are_locked() -> None:
    world = play(place=Place(inventory=inventory(2, 3, 3)))
    locked = [effect.gpu_uuids for effect in world.effects if isinstance(effect, ef.LockGpus)]
    assert locked == [(gpu_uuid(1),)]
    assert world.verdict.status == "valid"


def test_a_main_slice_that_is_not_there_is_a_usage_error_before_anything_is_locked() -> None:
    world = play(replace(SPEC, main=replace(SPEC.main, slice="9")))
    assert world.verdict.exit_code == 2
    assert "--main-slice 9 is none of the 3 slices" in only_sentence(world)
    assert not [effect for effect in world.effects if isinstance(effect, ef.LockGpus)]


@pytest.mark.parametrize(
    ("place", "code", "sentence"),
    [
        (Place(discovery_failure="NVML is not installed."), 7, "NVML is not installed."),
        (Place(lock_refusal="pid 5 holds GPU-0."), 7, "pid 5 holds GPU-0."),
        (Place(inventory=inventory(1)), 7, "has 1 slice(s)"),
    ],
)
def test_a_machine_that_is_not_ready(place: Place, code: int, sentence: str) -> None:
    world = play(place=place)
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", code)
    assert sentence in only_sentence(world)
    assert spawned(world) == []
    assert world.phases == (Phase.DISCOVERING, Phase.DRAINING, Phase.VALIDATING, Phase.FINISHED)


def test_a_list_longer_than_the_free_slices_is_a_usage_error() -> None:
    world = play(replace(SPEC, background=replace(SPEC.background, explicit=True, candidates=("bert",) * 3)))
    assert world.verdict.exit_code == 2
    assert "lists 3 benchmarks, but only 2 slices are free" in only_sentence(world)


def test_devices_that_do_not_answer_end_the_run() -> None:
    world = World(SPEC)
    world.go_on()
    world.steps.clear()  # the sampler says nothing: only the deadline is left
    assert world.tell(ev.DeadlinePassed(0, ev.Timer.PHASE_TIMEOUT, 0)).after is Phase.DRAINING
    assert "did not answer in time" in world.verdict.reasons[0].sentence


def test_slices_that_the_run_itself_uses_are_waited_for() -> None:
    world = World(SPEC)
    busy = replace(world.reading(), slices=(replace(world.reading().slices[0], occupants=(_own_process(),)),))
    world.go_on()
    world.tell(ev.SlicesDiscovered(0, inventory(), (0, 1)))
    world.tell(ev.SampleTaken(0, replace(busy, taken_ns=world.now_ns)))
    step = world.tell(ev.GpusLocked(0))
    assert step.after is Phase.DISCOVERING
    assert world.run.waiting_for == f"busy: {slice_uuid(0)}"
    assert world.tell(ev.SampleTaken(0, replace(world.reading(), taken_ns=world.now_ns))).after is Phase.BUILDING


def _own_process() -> Occupant:
    return Occupant(pid=500, ancestors=(77,), command="an earlier child")


# --- backgrounds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", WATCHED)
def test_a_background_that_exits_early_invalidates_the_run(phase: Phase) -> None:
    world = play(incidents=(dies_in(phase),))
    assert (world.verdict.status, world.verdict.exit_code) == ("invalid", 4)
    assert only_sentence(world).startswith("Background 1 (")
    assert "ended before main did; see workers/1-background-" in only_sentence(world)
    assert _phase_before_draining(world) is phase


@pytest.mark.parametrize("phase", WATCHED)
@pytest.mark.parametrize(
    ("exit_code", "signal", "how"),
    [
        (3, None, "exited with status 3"),
        (None, 11, "died of SIGSEGV"),
        (None, 40, "died of signal 40"),
        (None, None, "lost its guardian"),
    ],
)
def test_a_background_that_fails_fails_the_run(
    phase: Phase, exit_code: int | None, signal: int | None, how: str
) -> None:
    world = play(incidents=(dies_in(phase, exit_code, signal),))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    assert f"{how} during {phase.value}" in only_sentence(world)
    assert _phase_before_draining(world) is phase


@pytest.mark.parametrize(
    ("phase", "after_s"), [(Phase.BACKGROUND_STARTING, 0.6), (Phase.BUFFERING, 0.0), (Phase.MAIN_RUNNING, 0.0)]
)
def test_a_background_that_leaves_its_timed_section_invalidates_the_run(phase: Phase, after_s: float) -> None:
    slow = Cast(others=((2, replace(BACKGROUND, begins_s=1.0)),)) if phase is Phase.BACKGROUND_STARTING else None
    world = play(cast=slow, incidents=(Incident(phase, after_s, ev.TimedSectionEnded(0, worker=1)),))
    assert world.verdict.exit_code == 4
    assert "left its timed section before main did" in only_sentence(world)
    assert "asked for 2:06 min" in only_sentence(world)
    assert "--background-benchmark-duration 252s" in only_sentence(world)
    assert _phase_before_draining(world) is phase


def test_a_background_may_end_once_the_timed_section_of_main_is_over() -> None:
    main = replace(MAIN, exits_s=5.0)
    world = play(cast=Cast(main=main, others=((1, replace(BACKGROUND, ends_s=18.0)),)))
    assert world.verdict.status == "valid"
    ended = [step.before for step in world.steps if step.event == _ended_event(step.event)]
    assert ended == [Phase.MAIN_RUNNING]


def _ended_event(event: ev.AnyEvent) -> ev.AnyEvent:
    return ev.WorkerExited(event.at_ns, worker=1, exit_code=0, signal=None)


def test_backgrounds_that_do_not_start_in_time() -> None:
    world = play(cast=first(replace(BACKGROUND, begins_s=None)))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 6)
    assert "within 1:00 min: still missing background 1 (" in only_sentence(world)
    assert Role.MAIN not in {role for role, _ in spawned(world)}


def test_a_background_that_the_device_does_not_show_keeps_main_waiting() -> None:
    world = play(cast=first(replace(BACKGROUND, seen=False)))
    assert world.verdict.exit_code == 6
    assert "the device guards did not hold" in only_sentence(world)
    rejected = [effect.finding for effect in world.effects if isinstance(effect, ef.RecordRejection)]
    assert "backgrounds_on_their_slices" in {finding.guard for finding in rejected}


def test_a_background_that_completes_nothing_keeps_nothing_busy() -> None:
    long = replace(MAIN, ends_s=60.0)
    world = play(cast=Cast(main=long, others=((1, replace(BACKGROUND, beats=8)),)))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    assert "stalls: it has completed nothing for more than 10 s of main-running" in only_sentence(world)
    assert play(cast=Cast(main=long)).verdict.status == "valid"


def test_a_background_that_never_completes_anything_stalls_where_it_would_say_so() -> None:
    silent = Cast(main=replace(MAIN, ends_s=60.0), others=((1, replace(BACKGROUND, beats_s=None)),))
    world = play(cast=silent)
    assert world.verdict.exit_code == 5
    assert "stalls: it has completed nothing for more than 10 s" in only_sentence(world)
    assert play(replace(SPEC, harness="make"), cast=silent).verdict.status == "valid", "NVIDIA's harness never says"


def test_lenient_goes_on_beside_a_background_that_stalls() -> None:
    world = play(LENIENT, cast=Cast(main=replace(MAIN, ends_s=60.0), others=((1, replace(BACKGROUND, beats=8)),)))
    assert (world.verdict.status, [reason.exit_code for reason in world.verdict.reasons]) == ("lenient", [5])


def test_after_main_has_ended_nobody_needs_to_be_busy() -> None:
    cast = Cast(main=replace(MAIN, exits_s=30.0), background=replace(BACKGROUND, beats=14))
    assert play(cast=cast).verdict.status == "valid"


def test_a_background_that_cannot_be_started_fails_the_run() -> None:
    world = play(cast=first(replace(BACKGROUND, spawn_failure="no such file")))
    assert world.verdict.exit_code == 5
    assert "could not be started: no such file" in only_sentence(world)


def test_a_process_on_a_wrong_slice_fails_the_run() -> None:
    world = play(cast=first(replace(BACKGROUND, seen_on=slice_uuid(2))))
    assert world.verdict.exit_code == 7
    assert f"runs on slice {slice_uuid(2)} instead of its own ({slice_uuid(1)}), as pid 1011" in only_sentence(world)


def test_a_background_that_the_device_stops_showing_fails_the_run_after_half_a_second() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    reading = world.reading()
    empty = replace(reading, slices=tuple(replace(one, occupants=()) for one in reading.slices))

    def told(sample: DeviceSample, after_s: float) -> Phase:
        taken_ns = reading.taken_ns + round(after_s * NS_PER_S)
        return world.tell(ev.SampleTaken(0, replace(sample, taken_ns=taken_ns))).after

    assert told(empty, 0.0) is Phase.MAIN_RUNNING
    assert told(reading, 0.4) is Phase.MAIN_RUNNING, "it was seen in between"
    assert told(empty, 0.5) is Phase.MAIN_RUNNING
    assert told(empty, 0.9) is Phase.MAIN_RUNNING, "it may have ended, and nobody has heard so"
    assert told(empty, 1.0) is Phase.DRAINING
    world.finish()
    invariants.check(SPEC, world.steps)
    assert world.verdict.exit_code == 7
    assert "the device shows none of its processes on its slice SIM-1" in world.verdict.reasons[0].sentence


def _phase_before_draining(world: World) -> Phase:
    return world.phases[world.phases.index(Phase.DRAINING) - 1]


# --- lenient ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cast",
    [
        first(replace(BACKGROUND, dies_s=5.0)),
        first(replace(BACKGROUND, dies_s=0.1)),
        first(replace(BACKGROUND, dies_s=5.0, exit_code=3)),
        first(replace(BACKGROUND, ends_s=5.0)),
        first(replace(BACKGROUND, begins_s=None)),
        first(replace(BACKGROUND, spawn_failure="no such file")),
        Cast(background=replace(BACKGROUND, dies_s=5.0)),
    ],
)
def test_lenient_goes_on_without_a_background_and_never_says_valid(cast: Cast) -> None:
    world = play(LENIENT, cast=cast)
    assert world.phases == GOOD_WAY
    assert (world.verdict.status, world.verdict.exit_code) == ("lenient", 0)
    assert {reason.exit_code for reason in world.verdict.reasons} <= {4, 5, 6}


def test_the_end_of_a_background_is_no_deadline_for_main() -> None:
    cast = Cast(main=replace(MAIN, ends_s=90.0), others=((1, replace(BACKGROUND, ends_s=8.0, exits_s=None)),))
    world = play(LENIENT, cast=cast)
    assert world.run.view.main_finished
    assert world.verdict.status == "lenient"


def test_lenient_says_valid_where_nothing_was_forgiven() -> None:
    assert play(LENIENT).verdict.status == "valid"


@pytest.mark.parametrize("habit", [replace(MAIN, exit_code=1), replace(MAIN, dies_s=1.0, exit_code=None, signal=9)])
def test_lenient_does_not_do_without_main(habit: Habit) -> None:
    world = play(LENIENT, cast=Cast(main=habit))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)


def test_lenient_forgives_no_device_fault_and_no_invalid_result() -> None:
    assert play(LENIENT, incidents=(Incident(Phase.MAIN_RUNNING, 1.0, XID),)).verdict.exit_code == 7
    not_valid = Place(certificate=certificate(Reason(4, "not covered"), Reason(3, "not VALID")))
    verdict = play(LENIENT, place=not_valid).verdict
    assert (verdict.status, verdict.exit_code) == ("invalid", 3)


# --- main -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("habit", "sentence"),
    [
        (replace(MAIN, exit_code=1), "Main 0 (resnet50) exited with status 1 during main-running"),
        (replace(MAIN, dies_s=2.0, exit_code=None, signal=6), "died of SIGABRT"),
        (replace(MAIN, dies_s=2.0, exit_code=None), "lost its guardian"),
        (replace(MAIN, spawn_failure="no such file"), "could not be started: no such file"),
        (replace(MAIN, ends_s=None), "Main did not end within 2:00 min: it stalls"),
        (replace(MAIN, exits_s=None), "Main was still alive 1:00 min after its timed section"),
    ],
)
def test_a_main_that_fails_fails_the_run(habit: Habit, sentence: str) -> None:
    world = play(cast=Cast(main=habit), place=Place(certificate=certificate(Reason(9, "no result"))))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    assert sentence in only_sentence(world), "what is missing of a main that failed is not said again"


@pytest.mark.parametrize(
    ("reasons", "status", "code"),
    [
        ((Reason(3, "not VALID"),), "invalid", 3),
        ((Reason(4, "not covered"),), "invalid", 4),
        ((Reason(9, "no log"),), "inconclusive", 9),
        ((Reason(9, "no log"), Reason(3, "not VALID"), Reason(4, "not covered")), "invalid", 4),
    ],
)
def test_what_the_certificate_finds_decides(reasons: tuple[Reason, ...], status: str, code: int) -> None:
    world = play(place=Place(certificate=certificate(*reasons)))
    assert (world.verdict.status, world.verdict.exit_code) == (status, code)
    assert set(world.verdict.reasons) == set(reasons)


def test_a_main_whose_accuracy_is_too_low_is_invalid_whatever_its_exit_code_says() -> None:
    low = replace(MAIN, reports=False, exit_code=2)
    world = play(ACCURACY, cast=Cast(main=low), place=Place(certificate=certificate(Reason(9, "no result"))))
    assert (world.verdict.status, world.verdict.exit_code) == ("invalid", 3)
    assert only_sentence(world) == (
        "Main resnet50 is not VALID, its accuracy is too low: Main 0 (resnet50) exited with status 2 during "
        "main-running; see workers/0-main-resnet50/stdout.log."
    )
    assert play(replace(ACCURACY, lenient=True), cast=Cast(main=low)).verdict.exit_code == 3


@pytest.mark.parametrize(
    ("spec", "habit"),
    [
        (ACCURACY, replace(MAIN, reports=True, exit_code=2)),
        (ACCURACY, replace(MAIN, reports=None, exit_code=2)),
        (ACCURACY, replace(MAIN, reports=False, dies_s=5.0, exit_code=2)),
        (SPEC, replace(MAIN, reports=False, exit_code=2)),
    ],
    ids=["it passed", "it said nothing", "it died before", "not asked for accuracy"],
)
def test_any_other_main_that_exits_with_an_error_has_failed(spec: RunSpec, habit: Habit) -> None:
    world = play(spec, cast=Cast(main=habit))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    assert only_sentence(world).startswith("Main 0 (resnet50) exited with status 2 during main-running")


LIMITED = replace(SPEC, main=replace(SPEC.main, most_over_latency=5))


def test_a_main_that_cannot_be_valid_any_more_is_ended_at_once() -> None:
    late = Incident(Phase.MAIN_RUNNING, 3.0, ev.ProgressMade(0, 0, 100, 10.0, over_latency=6))
    world = play(LIMITED, incidents=(late,))
    assert world.verdict.exit_code == 3
    assert "6 samples were over the limit on latency, and at most 5 may be" in world.verdict.reasons[0].sentence
    main = world.run.view.main
    assert main is not None
    assert main.stopped_by == "clean stop"
    assert main.over_latency == 6


@pytest.mark.parametrize(
    ("spec", "worker", "over_latency"),
    [(LIMITED, 0, 5), (LIMITED, 0, None), (LIMITED, 1, 6), (SPEC, 0, 6)],
    ids=["as many as may be", "not told", "of a neighbour", "not asked for"],
)
def test_a_main_that_can_be_valid_yet_goes_on(spec: RunSpec, worker: int, over_latency: int | None) -> None:
    told = ev.ProgressMade(0, worker, 100, 10.0, over_latency=over_latency)
    assert play(spec, incidents=(Incident(Phase.MAIN_RUNNING, 3.0, told),)).verdict.status == "valid"


@pytest.mark.parametrize(("exit_code", "signal"), [(0, None), (1, None), (None, 9)])
def test_a_main_that_somebody_else_stopped_has_failed(exit_code: int | None, signal: int | None) -> None:
    stopped = ev.WorkerExited(0, worker=0, exit_code=exit_code, signal=signal, stopped_by="TERM")
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    world.wait_s(1.0)
    assert world.tell(stopped).after is Phase.DRAINING
    world.finish()
    invariants.check(SPEC, world.steps)
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    words = {0: "was stopped by somebody else", 1: "exited with status 1", None: "died of SIGKILL"}[exit_code]
    assert f"Main 0 (resnet50) {words}" in only_sentence(world)


def test_a_background_that_somebody_else_stopped_is_no_better_than_one_that_died() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    step = world.tell(ev.WorkerExited(0, worker=1, exit_code=None, signal=9, stopped_by="KILL"))
    assert step.after is Phase.DRAINING
    assert step.verdict.exit_code == 5
    assert "Background 1 (bert) died of SIGKILL" in only_sentence(world)
    invariants.check(SPEC, world.finish().steps)


def test_a_main_that_says_that_it_failed_before_it_is_through_has_failed_as_a_program() -> None:
    died = ev.WorkerExited(0, worker=0, exit_code=2, signal=None)
    world = World(ACCURACY).go_to(Phase.MAIN_RUNNING)
    world.wait_s(1.0)
    world.tell(ev.ResultReported(0, worker=0, valid=False))
    assert world.tell(died).verdict.exit_code == 5


def test_what_main_reports_does_not_decide_when_it_exits_well() -> None:
    assert play(ACCURACY, cast=Cast(main=replace(MAIN, reports=False))).verdict.status == "valid"


def test_a_main_that_never_says_when_it_ended_is_left_to_the_certificate() -> None:
    world = play(cast=Cast(main=replace(MAIN, ends_s=None, dies_s=12.0)))
    assert world.phases == GOOD_WAY
    assert world.verdict.status == "valid"


# --- several LoadGen runs within one main -----------------------------------------------------------------------------

TWICE = replace(MAIN, more_runs=1)


def exit_deadlines_at_s(world: World) -> list[float]:
    """When the deadline of main's exit was asked for, in seconds since main was spawned."""
    (begun_ns,) = [step.event.at_ns for step in world.steps if step.after is Phase.MAIN_RUNNING is not step.before]
    return [
        (step.event.at_ns - begun_ns) / NS_PER_S
        for step in world.steps
        for effect in step.effects
        if isinstance(effect, ef.ArmTimer) and effect.timer is ev.Timer.MAIN_EXIT
    ]


def test_loadgen_may_run_again_within_an_audit() -> None:
    world = play(AUDIT, cast=Cast(main=replace(MAIN, more_runs=2)))
    assert (world.verdict.status, world.phases) == ("valid", GOOD_WAY)
    assert exit_deadlines_at_s(world) == [pytest.approx(at_s, abs=0.05) for at_s in (10.5, 21.5, 32.5)]
    main = world.run.view.main
    assert main is not None
    assert main.timed_ns is not None
    assert main.ended_ns is not None
    assert main.ended_ns - main.timed_ns == pytest.approx(10 * NS_PER_S, rel=0.01), "those of the last run"


@pytest.mark.parametrize(
    ("ends_s", "pause_s"), [(70.0, 1.0), (50.0, 1.0)], ids=["due within the second run", "due soon after it"]
)
def test_the_deadline_of_an_earlier_run_says_nothing(ends_s: float, pause_s: float) -> None:
    timing = replace(SPEC.timing, main_timeout_ms=600_000)
    slow = replace(TWICE, ends_s=ends_s, pause_s=pause_s, exits_s=40.0)
    world = play(replace(AUDIT, timing=timing), cast=Cast(main=slow))
    heard = [step.event for step in world.steps if isinstance(step.event, ev.DeadlinePassed)]
    assert ev.Timer.MAIN_EXIT in {event.timer for event in heard if event.entry == 4}
    assert world.verdict.status == "valid"


def test_a_main_that_stays_after_its_last_run_is_given_up_as_any_other() -> None:
    world = play(AUDIT, cast=Cast(main=replace(TWICE, exits_s=None)))
    assert world.verdict.exit_code == 5
    assert "Main was still alive 1:00 min after its timed section" in only_sentence(world)
    (drained,) = [step for step in world.steps if step.after is Phase.DRAINING is not step.before]
    main = drained.view.main
    assert main is not None
    assert main.ended_ns is not None
    assert drained.event.at_ns - main.ended_ns == pytest.approx(60 * NS_PER_S, rel=0.01)


def test_a_main_that_pauses_for_too_long_is_given_up() -> None:
    world = play(AUDIT, cast=Cast(main=replace(TWICE, pause_s=61.0)))
    assert world.verdict.exit_code == 5
    assert "Main was still alive" in only_sentence(world)


LEAVES_IN_A_PAUSE = Cast(main=replace(TWICE, pause_s=20.0), others=((1, replace(BACKGROUND, ends_s=20.0)),))


def test_a_background_has_to_stay_while_main_is_between_two_runs() -> None:
    world = play(AUDIT, cast=LEAVES_IN_A_PAUSE)
    assert (world.verdict.status, world.verdict.exit_code) == ("invalid", 4)
    assert "left its timed section before main did" in only_sentence(world)
    main = world.run.view.main
    assert main is not None
    assert main.stopped_by == "clean stop"
    leniently = play(replace(AUDIT, lenient=True), cast=LEAVES_IN_A_PAUSE)
    assert leniently.run.view.main_finished
    assert leniently.verdict.status == "lenient"


@pytest.mark.parametrize(("exit_code", "code"), [(0, 4), (3, 5)], ids=["ended", "failed"])
def test_a_background_that_exits_between_two_runs_of_main_fails_the_run(exit_code: int, code: int) -> None:
    gone = replace(BACKGROUND, dies_s=20.0, exit_code=exit_code)
    world = play(AUDIT, cast=Cast(main=replace(TWICE, pause_s=20.0), others=((1, gone),)))
    assert world.verdict.exit_code == code


def test_a_background_that_stalls_between_two_runs_of_main_fails_the_run() -> None:
    cast = Cast(main=replace(TWICE, pause_s=40.0), others=((1, replace(BACKGROUND, beats=14)),))
    world = play(AUDIT, cast=cast)
    assert world.verdict.exit_code == 5
    assert "stalls" in only_sentence(world)


def test_an_audit_is_over_when_it_exits_and_not_before() -> None:
    early = ((1, replace(BACKGROUND, ends_s=18.0)),)
    assert play(AUDIT, cast=Cast(main=replace(MAIN, exits_s=5.0), others=early)).verdict.exit_code == 4
    assert play(SPEC, cast=Cast(main=replace(MAIN, exits_s=5.0), others=early)).verdict.exit_code == 0


def test_a_main_that_runs_loadgen_again_unasked_needs_its_neighbours_again() -> None:
    early = ((1, replace(BACKGROUND, ends_s=18.0)),)
    world = play(SPEC, cast=Cast(main=TWICE, others=early))
    assert world.verdict.exit_code == 4


# --- markers without a LoadGen log ------------------------------------------------------------------------------------

MARKERS = Cast(main=ANNOUNCING_MAIN, background=ANNOUNCING_BACKGROUND)


def test_markers_alone_can_tell_the_whole_story() -> None:
    world = play(ANNOUNCED, cast=MARKERS)
    assert (world.verdict.status, world.phases) == ("valid", GOOD_WAY)
    assert exit_deadlines_at_s(world) == [pytest.approx(10.2, abs=0.05)]
    assert all(worker.still_timed_ns for worker in world.run.view.backgrounds)
    assert {worker.timed_ns for worker in world.run.view.workers} == {None}


@pytest.mark.parametrize(("phase", "done_s"), [(Phase.BUFFERING, 1.0), (Phase.MAIN_RUNNING, 8.0)])
def test_the_marker_of_the_end_is_an_end_where_there_is_no_log(phase: Phase, done_s: float) -> None:
    early = replace(ANNOUNCING_BACKGROUND, done_s=done_s, exits_s=None)
    world = play(ANNOUNCED, cast=replace(MARKERS, others=((1, early),)))
    assert world.verdict.exit_code == 4
    assert "left its timed section before main did" in only_sentence(world)
    assert _phase_before_draining(world) is phase


def test_a_background_may_print_the_marker_of_its_end_after_main_has() -> None:
    main = replace(ANNOUNCING_MAIN, exits_s=5.0)
    late = replace(ANNOUNCING_BACKGROUND, done_s=15.0)
    assert play(ANNOUNCED, cast=replace(MARKERS, main=main, others=((1, late),))).verdict.status == "valid"


def test_a_main_that_stays_after_the_marker_of_its_end_is_given_up() -> None:
    world = play(ANNOUNCED, cast=replace(MARKERS, main=replace(ANNOUNCING_MAIN, exits_s=None)))
    assert world.verdict.exit_code == 5
    assert "Main was still alive 1:00 min after its timed section" in only_sentence(world)


def test_markers_are_no_evidence_where_a_log_is_asked_for() -> None:
    world = play(SPEC, cast=MARKERS)
    assert world.verdict.exit_code == 6


@pytest.mark.parametrize("phase", [Phase.BUFFERING, Phase.MAIN_RUNNING])
def test_where_the_log_is_read_the_marker_of_the_end_changes_nothing(phase: Phase) -> None:
    world = World(SPEC).go_to(phase)
    before = world.run.view
    step = world.tell(ev.FinishAnnounced(0, worker=1))
    assert (step.view, step.effects, step.after) == (before, (), phase)
    world.finish()
    invariants.check(SPEC, world.steps)
    assert world.verdict.status == "valid"


def test_the_deadline_of_mains_exit_is_asked_for_once_by_log_and_marker_in_one_look() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    world.wait_s(2.0)
    world.tell(ev.TimedSectionEnded(0, worker=0))
    assert not world.tell(ev.FinishAnnounced(0, worker=0)).effects
    assert len(exit_deadlines_at_s(world)) == 1


def test_a_main_that_begins_again_after_its_end_is_not_proven() -> None:
    """What it measures then is not beside its backgrounds, which are needed until its first end."""
    world = World(ANNOUNCED, cast=MARKERS).go_to(Phase.MAIN_RUNNING)
    world.wait_s(2.0)
    world.tell(ev.FinishAnnounced(0, worker=0))
    world.tell(ev.StartAnnounced(0, worker=0))
    world.finish()
    assert world.verdict.exit_code == 9
    assert "announced another start after it had announced its end" in only_sentence(world)
    audit = World(SPEC).go_to(Phase.MAIN_RUNNING)
    audit.wait_s(2.0)
    audit.tell(ev.FinishAnnounced(0, worker=0))
    audit.tell(ev.StartAnnounced(0, worker=0))
    assert audit.finish().verdict.status == "valid", "its log says what counts"


def test_a_second_marker_of_the_end_asks_for_nothing() -> None:
    world = World(ANNOUNCED, cast=MARKERS).go_to(Phase.MAIN_RUNNING)
    world.wait_s(2.0)
    assert len(world.tell(ev.FinishAnnounced(0, worker=0)).effects) == 1
    world.wait_s(1.0)
    assert not world.tell(ev.FinishAnnounced(0, worker=0)).effects
    assert len(exit_deadlines_at_s(world)) == 1


# --- devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ACTIVE_PHASES)
@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (XID, "Xid 79"),
        (Trouble.FOREIGN_PROCESS, "is used by a process that is not part of this run: pid 4242 (harness)"),
        (Trouble.GEOMETRY, "The partitioning of GPU GPU-0 changed"),
    ],
)
def test_trouble_with_the_devices_fails_the_run(phase: Phase, what: ev.AnyEvent | Trouble, sentence: str) -> None:
    world = play(place=UNCACHED, incidents=(Incident(phase, 0.0, what),))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 7)
    assert sentence in world.verdict.reasons[0].sentence
    assert spawned(world).count((Role.MAIN, "resnet50")) == (phase is Phase.MAIN_RUNNING)


def test_a_process_on_a_slice_that_the_run_does_not_use_is_none_of_its_business() -> None:
    spec = replace(SPEC, background=replace(SPEC.background, explicit=True, candidates=("bert",)))
    world = play(spec, cast=first(BACKGROUND), place=Place(inventory=inventory(3)))
    assert world.verdict.status == "valid"
    world = World(spec).go_to(Phase.MAIN_RUNNING)
    *ours, other = world.reading().slices
    stranger = replace(other, occupants=(Occupant(pid=4242, ancestors=(1,), command="other"),))
    told = ev.SampleTaken(0, replace(world.reading(), slices=(*ours, stranger)))
    assert world.tell(told).after is Phase.MAIN_RUNNING


@pytest.mark.parametrize("phase", [*ACTIVE_PHASES[1:], Phase.DRAINING])
def test_strangers_on_slices_that_the_run_does_not_use_are_noted(phase: Phase) -> None:
    place = Place(inventory=inventory(3, 4), engines_cached=False)
    spec = replace(SPEC, gpu="0")
    world = play(spec, place=place, incidents=(Incident(phase, 0.0, Trouble.BYSTANDERS),))
    assert world.verdict.status == "valid", "they are nobody's fault"
    assert world.run.view.notes == tuple(
        f"Slice {slice_uuid(number)}, which is not part of the run, was used meanwhile by pid 4242 (harness)."
        for number in (3, 4, 5, 6)
    ), "each is told once, however often it is seen"


@pytest.mark.parametrize(
    ("trouble", "where"), [(Trouble.BYSTANDERS, "Slice SIM-1"), (Trouble.ELSEWHERE, f"GPU {gpu_uuid(9)}")]
)
@pytest.mark.parametrize("phase", ACTIVE_PHASES[1:])
def test_a_baseline_ends_when_anybody_uses_the_host(phase: Phase, trouble: Trouble, where: str) -> None:
    world = play(BASELINE, place=Place(engines_cached=False), incidents=(Incident(phase, 0.0, trouble),))
    assert world.verdict.exit_code == 7
    sentence = world.verdict.reasons[0].sentence
    assert sentence.startswith(f"{where} is used by a process that is not part of this baseline")
    assert "--allow-busy" in sentence
    assert world.run.view.notes == (), "the verdict says it"


@pytest.mark.parametrize("trouble", [Trouble.BYSTANDERS, Trouble.ELSEWHERE])
def test_a_baseline_that_may_be_disturbed_says_so(trouble: Trouble) -> None:
    spec = replace(BASELINE, allow_busy=True)
    world = play(spec, incidents=(Incident(Phase.MAIN_RUNNING, 0.0, trouble),))
    assert world.verdict.status == "valid"
    assert all(", which is not part of the run, was used meanwhile by pid 4" in note for note in world.run.view.notes)
    (finding,) = [one for one in device_findings(world.run.view) if one.guard == HOST_IDLE]
    assert finding.status is Status.VIOLATED
    assert finding.remark.startswith("This baseline was measured while others used GPUs of the host: pid 4")


def test_a_good_baseline_proves_an_idle_host() -> None:
    world = play(BASELINE)
    assert world.verdict.status == "valid"
    assert world.phases == GOOD_WAY
    (finding,) = [one for one in device_findings(world.run.view) if one.guard == HOST_IDLE]
    assert (finding.scope, finding.status) == ("host", Status.OK)
    assert finding.evidence.startswith("nobody else in ")


def test_a_baseline_whose_driver_shows_nobody_cannot_tell() -> None:
    world = play(BASELINE, place=Place(shows_processes=False))
    assert world.verdict.status == "valid"
    (finding,) = [one for one in device_findings(world.run.view) if one.guard == HOST_IDLE]
    assert finding.status is Status.NOT_OBSERVABLE


def test_a_run_without_strangers_has_nothing_to_note() -> None:
    world = play(replace(SPEC, gpu="0"), place=Place(inventory=inventory(3, 4)))
    assert world.run.view.notes == ()


def test_not_every_stranger_on_a_busy_host_is_noted() -> None:
    place = Place(inventory=inventory(3, 40))
    incident = Incident(Phase.BUILDING, 0.0, Trouble.BYSTANDERS)
    world = play(replace(SPEC, gpu="0"), place=place, incidents=(incident,))
    assert len(world.run.view.notes) == 20
    assert world.run.view.notes[0].startswith(f"Slice {slice_uuid(3)}, ")


@pytest.mark.parametrize("phase", ACTIVE_PHASES[1:])
def test_a_sampler_lost_for_good_leaves_the_run_inconclusive(phase: Phase) -> None:
    lost = ev.SamplerLost(0, restarted=False, message="it did not answer")
    world = play(incidents=(Incident(phase, 0.0, lost),))
    assert world.phases == GOOD_WAY
    assert (world.verdict.status, world.verdict.exit_code) == ("inconclusive", 9)
    assert f"could not be observed from {phase.value} on: it did not answer" in only_sentence(world)


def test_without_a_sampler_there_is_nothing_to_discover() -> None:
    lost = ev.SamplerLost(0, restarted=False, message="it died")
    world = play(incidents=(Incident(Phase.DISCOVERING, 0.0, lost),))
    assert world.verdict.exit_code == 7
    assert "The devices could not be read: it died" in only_sentence(world)


@pytest.mark.parametrize("phase", ACTIVE_PHASES)
def test_a_sampler_that_was_restarted_is_as_good_as_before(phase: Phase) -> None:
    lost = ev.SamplerLost(0, restarted=True, message="it died")
    world = play(place=UNCACHED, incidents=(Incident(phase, 0.0, lost),))
    assert world.verdict.status == "valid"


def test_a_silent_sampler_keeps_main_waiting_and_then_fails_the_run() -> None:
    spec = replace(SPEC, timing=replace(SPEC.timing, start_time_buffer_ms=10_000))
    world = play(spec, incidents=(Incident(Phase.BUFFERING, 0.0, Trouble.SILENCE),))
    assert world.verdict.exit_code == 7
    assert "No fresh device sample arrived after the buffer" in only_sentence(world)
    rejected = [effect.finding for effect in world.effects if isinstance(effect, ef.RecordRejection)]
    (stale,) = [finding for finding in rejected if finding.guard == "geometry_unchanged"]
    assert (stale.status.value, stale.passed) == ("not observable", False)
    assert spawned(world).count((Role.MAIN, "resnet50")) == 0


def test_main_starts_as_soon_as_a_silent_sampler_is_given_up() -> None:
    spec = replace(SPEC, timing=replace(SPEC.timing, start_time_buffer_ms=4_000))
    lost = ev.SamplerLost(0, restarted=False, message="it did not answer")
    silence = Incident(Phase.BUFFERING, 0.0, Trouble.SILENCE)
    world = play(spec, incidents=(silence, Incident(Phase.BUFFERING, 5.0, lost)))
    assert world.verdict.exit_code == 9
    (moved,) = [step for step in world.steps if step.after is Phase.MAIN_RUNNING is not step.before]
    assert isinstance(moved.event, ev.SamplerLost)


def test_backgrounds_that_wait_for_a_sample_only_go_on_when_the_sampler_is_given_up() -> None:
    cast = Cast(background=replace(BACKGROUND, beats_s=None))
    lost = ev.SamplerLost(0, restarted=False, message="it did not answer")
    silence = Incident(Phase.BACKGROUND_STARTING, 0.0, Trouble.SILENCE)
    world = play(cast=cast, incidents=(silence, Incident(Phase.BACKGROUND_STARTING, 5.0, lost)))
    assert world.phases == GOOD_WAY
    assert world.verdict.exit_code == 9


def test_a_second_enumeration_changes_nothing() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    before = world.run.view
    assert not world.tell(ev.SlicesDiscovered(0, inventory(2), (5,))).effects
    assert world.run.view == before


def test_a_second_enumeration_while_discovering_asks_for_no_second_lock() -> None:
    world = World(replace(SPEC, sample_period_ms=100))
    world.go_on()
    world.tell(ev.SlicesDiscovered(0, inventory(), (0, 1)))
    world.tell(ev.GpusLocked(0))
    world.tell(ev.SlicesDiscovered(0, inventory(), (0, 1)))
    assert [effect.gpu_uuids for effect in world.effects if isinstance(effect, ef.LockGpus)] == [("GPU-0",)]


# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signum", ABORT_SIGNALS)
@pytest.mark.parametrize("phase", [*ACTIVE_PHASES, Phase.DRAINING])
def test_a_signal_aborts_the_run_in_every_phase(phase: Phase, signum: int) -> None:
    world = play(place=UNCACHED, incidents=(Incident(phase, 0.005, ev.SignalReceived(0, signum)),))
    assert (world.verdict.status, world.verdict.exit_code) == ("aborted", 128 + signum)
    assert f"was received during {phase.value}" in only_sentence(world)
    assert world.processes_left == ()


@pytest.mark.parametrize("phase", [Phase.VALIDATING, Phase.FINISHED])
def test_a_signal_comes_too_late_once_there_is_only_the_verdict_to_write(phase: Phase) -> None:
    world = World(SPEC).go_to(phase)
    world.tell(ev.SignalReceived(0, 15))
    world.finish()
    invariants.check(SPEC, world.steps)
    assert world.verdict.status == "valid"


def test_a_signal_outweighs_all_that_comes_of_it() -> None:
    signal = ev.SignalReceived(0, 2)
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 1.0, XID), Incident(Phase.DRAINING, 0.01, signal)))
    assert [reason.exit_code for reason in world.verdict.reasons] == [130, 7]
    assert world.verdict.exit_code == 130


def test_a_signal_skips_the_clean_stop_and_a_second_one_kills() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    twice = tuple(Incident(Phase.MAIN_RUNNING, after_s, ev.SignalReceived(0, 2)) for after_s in (1.0, 1.5))
    world = play(cast=Cast(background=stubborn), incidents=twice)
    assert asked_at_s(world, ef.CleanStop) == []
    assert asked_at_s(world, ef.Terminate) == [0.0]
    assert asked_at_s(world, ef.Kill) == [pytest.approx(0.5, abs=0.01)]
    assert world.verdict.exit_code == 130


def test_a_signal_with_nothing_alive_asks_nobody_to_stop() -> None:
    world = World(SPEC).go_to(Phase.DRAINING)
    while world.run.view.live_workers:
        world.go_on()
    assert not [effect for effect in world.tell(ev.SignalReceived(0, 15)).effects if isinstance(effect, ef.Terminate)]


# --- draining ---------------------------------------------------------------------------------------------------------


def test_the_stop_ladder_has_one_deadline_for_all() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    world = play(cast=Cast(background=stubborn))
    assert asked_at_s(world, ef.CleanStop) == [0.0]
    assert asked_at_s(world, ef.Terminate) == [pytest.approx(5.0, abs=0.01)]
    assert asked_at_s(world, ef.Kill) == [pytest.approx(9.0, abs=0.01)]
    assert world.verdict.status == "valid"
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"KILL"}


def test_whoever_does_not_heed_a_rung_is_looked_at_again_before_the_next() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    world = play(cast=first(stubborn))
    looked = [effect.workers for effect in world.effects if isinstance(effect, ef.ObserveWorkers)]
    assert looked == [(1, 2), (1,), (1,)]
    assert asked_at_s(world, ef.ObserveWorkers) == [0.0, pytest.approx(5.0, abs=0.01), pytest.approx(9.0, abs=0.01)]


def test_who_knows_no_clean_stop_is_looked_at_a_moment_later_and_then_told_to_end() -> None:
    world = play(ABRUPT)
    view = world.run.view
    (able,) = [worker.index for worker in view.backgrounds if worker.assignment.benchmark == "bert"]
    (abrupt,) = [worker.index for worker in view.backgrounds if worker.assignment.benchmark == "dlrm"]
    assert [effect.workers for effect in world.effects if isinstance(effect, ef.CleanStop)] == [(able,)]
    assert [effect.workers for effect in world.effects if isinstance(effect, ef.Terminate)] == [(abrupt,)]
    assert asked_at_s(world, ef.CleanStop) == [0.0]
    assert asked_at_s(world, ef.Terminate) == [pytest.approx(0.25, abs=0.01)]
    looked = [effect.workers for effect in world.effects if isinstance(effect, ef.ObserveWorkers)]
    assert looked == [(1, 2), (abrupt,)]
    assert {worker.index: worker.stopped_by for worker in view.backgrounds} == {able: "clean stop", abrupt: "TERM"}
    assert world.verdict.status == "valid"


@pytest.mark.parametrize(
    ("clean_stop_s", "kills"),
    [(5.0, [(4.25, (2,)), (9.0, (1,))]), (1.0, [(5.0, (1, 2))])],
    ids=["one after the other", "grace of both at a time"],
)
def test_who_knows_a_clean_stop_keeps_its_time_beside_one_who_does_not(
    clean_stop_s: float, kills: list[tuple[float, tuple[int, ...]]]
) -> None:
    spec = replace(ABRUPT, timing=replace(SPEC.timing, clean_stop_ms=round(1000 * clean_stop_s)), seed=0)
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    world = play(spec, cast=Cast(background=stubborn))
    assert [worker.assignment.benchmark for worker in world.run.view.backgrounds] == ["bert", "dlrm"]
    assert asked_at_s(world, ef.Terminate) == [pytest.approx(0.25, abs=0.01), pytest.approx(clean_stop_s, abs=0.01)]
    assert asked_at_s(world, ef.Kill) == [pytest.approx(at_s, abs=0.01) for at_s, _ in kills]
    killed = [effect.workers for effect in world.effects if isinstance(effect, ef.Kill)]
    assert killed == [workers for _, workers in kills], "nobody is killed before the grace of its own TERM is over"
    assert world.verdict.status == "valid"


def test_a_signal_leaves_no_moment_to_anybody() -> None:
    world = play(ABRUPT, incidents=(Incident(Phase.MAIN_RUNNING, 1.0, ev.SignalReceived(0, 15)),))
    assert asked_at_s(world, ef.CleanStop) == []
    assert asked_at_s(world, ef.Terminate) == [0.0]


def test_a_deadline_that_nobody_asked_for_does_not_spare_those_who_do_not_heed_term() -> None:
    world = World(SPEC, cast=Cast(background=replace(BACKGROUND, clean_stop_s=None, term_s=None)))
    world.go_to(Phase.DRAINING)
    world.tell(ev.DeadlinePassed(0, ev.Timer.GRACE, world.run.entry))
    world.finish()
    invariants.check(SPEC, world.steps)
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"KILL"}


def test_a_worker_that_survives_kill_is_named_and_left() -> None:
    world = play(cast=first(replace(BACKGROUND, clean_stop_s=None, term_s=None, kill_s=None)))
    assert (world.verdict.status, world.verdict.exit_code) == ("failed", 5)
    assert "could not be reaped after SIGKILL; its guardian is pid 1010" in only_sentence(world)
    assert world.processes_left == (1,)


def test_a_deadline_of_a_rung_that_a_signal_overtook_brings_nobody_down_the_ladder() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None, kill_s=8.0)
    twice = tuple(Incident(Phase.DRAINING, after_s, ev.SignalReceived(0, 2)) for after_s in (1.0, 2.0))
    world = play(cast=Cast(background=stubborn), incidents=twice)
    assert asked_at_s(world, ef.Terminate) == [pytest.approx(1.0, abs=0.01)]
    assert asked_at_s(world, ef.Kill) == [pytest.approx(2.0, abs=0.01)]


def test_waiting_lets_backgrounds_finish() -> None:
    world = play(WAITING, cast=Cast(background=replace(BACKGROUND, ends_s=40.0)))
    assert world.verdict.status == "valid"
    assert asked_at_s(world, ef.CleanStop) == []
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {None}


def test_waiting_has_an_end() -> None:
    world = play(WAITING)
    plan = world.run.view.plan
    assert plan is not None
    assert asked_at_s(world, ef.CleanStop) == [pytest.approx(plan.background_duration_ms / 1000 + 60, abs=0.01)]


def test_nobody_is_waited_for_after_something_went_wrong() -> None:
    world = play(WAITING, incidents=(Incident(Phase.MAIN_RUNNING, 1.0, XID),))
    assert asked_at_s(world, ef.CleanStop) == [0.0]


@pytest.mark.parametrize("after_main_s", [2.0, 20.0])
def test_waiting_ends_when_a_device_fails(after_main_s: float) -> None:
    world = play(WAITING, incidents=(Incident(Phase.DRAINING, after_main_s, XID),))
    assert asked_at_s(world, ef.CleanStop) == [pytest.approx(after_main_s, abs=0.01)]
    assert world.verdict.exit_code == 7


def test_waiting_ends_when_one_of_them_fails() -> None:
    cast = Cast(others=((1, replace(BACKGROUND, ends_s=14.0, exit_code=1)),))
    world = play(WAITING, cast=cast)
    assert len(asked_at_s(world, ef.CleanStop)) == 1
    assert world.verdict.exit_code == 5


def test_a_background_that_fails_while_it_is_waited_for_fails_the_run() -> None:
    world = play(
        WAITING,
        cast=Cast(background=replace(BACKGROUND, ends_s=40.0, exit_code=1)),
    )
    assert world.verdict.exit_code == 5


def test_slices_that_do_not_become_empty_fail_the_run() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.0, Trouble.FOREIGN_PROCESS),))
    assert world.verdict.exit_code == 7
    assert only_sentence(world) == "Slice SIM-0 is not empty after draining: pid 4242."


def test_an_old_sample_accuses_nobody_after_draining() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.0, Trouble.SILENCE),))
    assert world.verdict.status == "valid"


def test_draining_needs_no_sampler() -> None:
    lost = ev.SamplerLost(0, restarted=False, message="it died")
    silence = Incident(Phase.DRAINING, 0.0, Trouble.SILENCE)
    world = play(incidents=(silence, Incident(Phase.DRAINING, 5.0, lost)))
    assert world.verdict.status == "valid"
    assert world.phases == GOOD_WAY


def test_the_time_to_reap_the_killed_is_not_the_time_for_slices_to_settle() -> None:
    slow = replace(BACKGROUND, clean_stop_s=None, term_s=None, kill_s=9.999)
    world = World(SPEC, cast=Cast(background=slow)).go_to(Phase.DRAINING)
    while world.run.view.live_workers:
        world.go_on()
    timer = ev.DeadlinePassed(0, ev.Timer.KILLED, world.run.entry)
    assert world.tell(timer).after is Phase.DRAINING, "no sample has shown the slices empty yet"


# --- timers and the end -----------------------------------------------------------------------------------------------


def test_a_timer_of_an_earlier_phase_is_not_heard() -> None:
    world = World(SPEC).go_to(Phase.BACKGROUND_STARTING)
    before = world.run.view
    for entry in (0, world.run.entry - 1, world.run.entry + 1):
        step = world.tell(ev.DeadlinePassed(0, ev.Timer.PHASE_TIMEOUT, entry))
        assert (step.effects, step.after) == ((), Phase.BACKGROUND_STARTING)
    assert world.run.view == before


@pytest.mark.parametrize("timer", ev.Timer)
def test_only_a_timer_that_belongs_to_a_phase_does_something_in_it(timer: ev.Timer) -> None:
    meant = {ev.Timer.PHASE_TIMEOUT, ev.Timer.MAIN_EXIT}
    world = World(SPEC, cast=Cast(main=replace(MAIN, ends_s=0.0, exits_s=None))).go_to(Phase.MAIN_RUNNING)
    world.wait_s(59.0)
    world.now_ns += 2 * NS_PER_S  # the deadline of main's exit is due and has not been told yet
    step = world.tell(ev.DeadlinePassed(0, timer, world.run.entry))
    assert (step.after is Phase.DRAINING) == (timer in meant)


def test_the_exit_timeout_of_main_means_nothing_once_main_was_reaped() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    step = world.tell(ev.WorkerExited(0, worker=0, exit_code=0, signal=None))
    assert step.after is Phase.DRAINING
    assert world.tell(ev.DeadlinePassed(0, ev.Timer.MAIN_EXIT, world.run.entry)).after is Phase.DRAINING
    assert world.run.view.reasons == ()


def test_nothing_is_asked_for_after_the_end() -> None:
    world = play()
    verdict = world.verdict
    for event in world.events:
        if not isinstance(event, (ev.CertificateComputed, ev.VerdictWritten)):
            world.tell(event)
    world.tell(XID)
    assert world.verdict == verdict
    invariants.check(SPEC, world.steps)


def test_nothing_changes_a_verdict_that_is_being_written() -> None:
    world = World(SPEC).go_to(Phase.VALIDATING)
    world.tell(ev.CertificateComputed(0, certificate()))
    world.tell(XID)
    world.tell(ev.WorkerExited(0, worker=0, exit_code=1, signal=None))
    world.tell(ev.VerdictWritten(0))
    invariants.check(SPEC, world.steps)
    assert world.verdict.status == "valid"


def test_a_device_fault_that_is_heard_before_the_certificate_counts() -> None:
    world = play(incidents=(Incident(Phase.VALIDATING, 0.0, XID),))
    assert world.verdict.exit_code == 7
    assert world.phases == GOOD_WAY


# --- what people see while they wait ----------------------------------------------------------------------------------


def test_a_rejected_guard_is_recorded_once_and_says_what_the_run_waits_for() -> None:
    world = World(SPEC, cast=first(replace(BACKGROUND, begins_s=10.0))).go_to(Phase.BACKGROUND_STARTING)
    world.wait_s(5.0)
    assert world.run.waiting_for.startswith("waiting for ")
    rejected = [
        effect.finding
        for effect in world.effects
        if isinstance(effect, ef.RecordRejection) and effect.finding.guard == "all_backgrounds_timed"
    ]
    assert len(rejected) == len({finding.evidence for finding in rejected}) == 2, "for two, then for one"
    world.go_to(Phase.BUFFERING)
    assert world.run.waiting_for == ""


def test_a_transition_carries_the_findings_of_its_own_guards_only() -> None:
    world = play()
    guards = {move.destination: [finding.guard for finding in move.findings] for move in world.run.transitions}
    assert guards == {
        Phase.BUILDING: ["slices_locked", "slices_idle", "host_idle"],
        Phase.BACKGROUND_STARTING: ["every_engine_present"],
        Phase.BUFFERING: ["all_backgrounds_timed", "backgrounds_on_their_slices"],
        Phase.MAIN_RUNNING: ["buffer_elapsed", "backgrounds_still_timed", "geometry_unchanged"],
        Phase.DRAINING: ["main_exited"],
        Phase.VALIDATING: ["all_reaped", "slices_empty", "devices_restored"],
        Phase.FINISHED: [],
    }
