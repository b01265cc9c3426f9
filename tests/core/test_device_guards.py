"""Device guards: what a run proves of its GPUs and slices, and what it could not see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.device_guards import MEMORY_TOLERANCE_BYTES, DeviceFinding, device_findings
from heteromig.core.devices import DeviceSample, GpuSample, Inventory, SliceKind, UnusableGpu
from heteromig.core.guards import Status
from heteromig.core.phases import Phase
from heteromig.core.spec import RunSpec
from heteromig.core.view import View
from tests.core import invariants
from tests.core.histories import (
    ALONE,
    ANNOUNCED,
    AUDIT,
    GEOMETRY,
    ONLY_BUILDING,
    SPEC,
    gpu_uuid,
    inventory,
    occupant,
    sample,
    slice_uuid,
)
from tests.core.world import (
    ANNOUNCING_BACKGROUND,
    ANNOUNCING_MAIN,
    BACKGROUND,
    MAIN,
    Cast,
    Habit,
    Incident,
    Place,
    Trouble,
    World,
)

GPU_GUARDS = ("geometry_unchanged", "mig_mode_settled", "no_fault_reported", "not_slowed_down")
SLICE_GUARDS = ("only_own_processes", "process_on_its_slice", "memory_returned")
XID = ev.DeviceFaulted(0, "Xid 79 on GPU-0.", gpu_uuid(0))
TWO_GPUS = inventory(3, 3)


def play(spec: RunSpec = SPEC, **how: Any) -> World:
    world = World(spec, **how).finish()
    invariants.check(spec, world.steps)
    return world


def found(world: World, guard: str) -> list[DeviceFinding]:
    return [finding for finding in device_findings(world.run.view) if finding.guard == guard]


def one(world: World, guard: str, scope: str = gpu_uuid(0)) -> DeviceFinding:
    (finding,) = [finding for finding in found(world, guard) if finding.scope == scope]
    return finding


def statuses(world: World) -> dict[str, set[Status]]:
    guards = {finding.guard for finding in device_findings(world.run.view)}
    return {guard: {finding.status for finding in found(world, guard)} for guard in guards}


# --- a good run -------------------------------------------------------------------------------------------------------


def test_a_good_run_has_every_guard_about_every_gpu_and_slice_of_its_plan() -> None:
    world = play(replace(SPEC, gpu="1"), place=Place(inventory=TWO_GPUS))
    assert statuses(world) == {guard: {Status.OK} for guard in (*GPU_GUARDS, *SLICE_GUARDS)}
    for guard in GPU_GUARDS:
        assert [finding.scope for finding in found(world, guard)] == [gpu_uuid(1)]
    for guard in SLICE_GUARDS:
        assert [finding.scope for finding in found(world, guard)] == [slice_uuid(number) for number in (3, 4, 5)]
    assert one(world, "geometry_unchanged", gpu_uuid(1)).before == GEOMETRY[:12]
    assert "listened to Xid, double-bit ECC, GPU unavailable" in one(world, "no_fault_reported", gpu_uuid(1)).evidence


def test_before_there_is_a_plan_there_is_nothing_to_guard() -> None:
    assert device_findings(World(SPEC).run.view) == ()
    assert device_findings(play(place=Place(inventory=inventory(1))).run.view) == ()


def test_a_run_that_only_builds_has_no_main_to_guard() -> None:
    world = play(ONLY_BUILDING, place=Place(engines_cached=False))
    assert set(statuses(world)) == {*GPU_GUARDS[:3], "only_own_processes", "memory_returned"}
    assert statuses(world)["memory_returned"] == {Status.OK}


def test_what_never_was_is_not_observable() -> None:
    world = play(incidents=(Incident(Phase.DISCOVERING, 0.015, XID),))
    assert statuses(world) == {
        **{guard: {Status.NOT_OBSERVABLE} for guard in (*GPU_GUARDS, *SLICE_GUARDS)},
        "no_fault_reported": {Status.VIOLATED},
    }
    assert one(world, "memory_returned", slice_uuid(0)).evidence == "nothing was spawned"
    assert one(world, "not_slowed_down").evidence == "main's timed section never began"
    assert one(world, "geometry_unchanged").evidence == "how it is cut could not be read"
    assert one(world, "mig_mode_settled").after is None
    world = World(SPEC)
    while world.run.view.plan is None:
        world.go_on()
    assert one(world, "no_fault_reported").evidence == "nobody listened"


# --- GPUs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.BUILDING, Phase.BUFFERING, Phase.MAIN_RUNNING])
@pytest.mark.parametrize(
    ("trouble", "guard", "after"),
    [
        (Trouble.GEOMETRY, "geometry_unchanged", "another"),
        (Trouble.LOST, "no_fault_reported", "1 reported"),
        (XID, "no_fault_reported", "1 reported"),
    ],
)
def test_what_befalls_a_gpu_of_the_plan(phase: Phase, trouble: Trouble | ev.AnyEvent, guard: str, after: str) -> None:
    place = Place(inventory=TWO_GPUS, engines_cached=False)
    world = play(place=place, incidents=(Incident(phase, 0.0, trouble),))
    assert world.verdict.exit_code == 7
    finding = one(world, guard)
    assert (finding.status, finding.after) == (Status.VIOLATED, after)
    violated = [finding for finding in device_findings(world.run.view) if finding.status is Status.VIOLATED]
    assert violated == [finding]


@pytest.mark.parametrize(
    ("trouble", "note"),
    [
        (Trouble.ANOTHER_LOST, "Not part of the run: NVML cannot read GPU GPU-1 any more."),
        (replace(XID, gpu_uuid=gpu_uuid(1)), "Not part of the run: Xid 79 on GPU-0."),
    ],
)
def test_what_befalls_another_gpu_is_a_note(trouble: Trouble | ev.AnyEvent, note: str) -> None:
    incident = Incident(Phase.MAIN_RUNNING, 1.0, trouble)
    world = play(replace(SPEC, gpu="0"), place=Place(inventory=TWO_GPUS), incidents=(incident,))
    assert world.verdict.status == "valid"
    assert world.run.view.notes == (note,)
    assert set().union(*statuses(world).values()) == {Status.OK}


def test_another_gpu_that_is_cut_anew_is_a_note() -> None:
    world = World(replace(SPEC, gpu="0"), place=Place(inventory=TWO_GPUS)).go_to(Phase.MAIN_RUNNING)
    ours, other = world.reading().gpus
    unknown = GpuSample("GPU-9", geometry="x")
    told = replace(world.reading(), gpus=(ours, replace(other, geometry="another"), unknown))
    assert world.tell(ev.SampleTaken(0, told)).after is Phase.MAIN_RUNNING
    assert world.run.view.notes == ("GPU GPU-1, which is not part of the run, was cut anew meanwhile.",)


def test_a_fault_of_no_gpu_in_particular_concerns_all() -> None:
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 0.0, ev.DeviceFaulted(0, "The driver is gone.")),))
    assert world.verdict.exit_code == 7
    assert one(world, "no_fault_reported").evidence == "The driver is gone."


def test_a_gpu_that_no_sample_has_any_more_is_lost() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    world.tell(ev.SampleTaken(0, replace(world.reading(), gpus=())))
    assert world.run.phase is Phase.DRAINING
    assert "GPU GPU-0 is not there any more" in world.verdict.reasons[0].sentence


def test_a_gpu_that_is_lost_while_draining_fails_the_run_as_any_fault_does() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.0, Trouble.LOST),))
    assert world.verdict.exit_code == 7


def test_a_pending_mig_mode_fails_the_run() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    (gpu,) = world.reading().gpus
    world.tell(ev.SampleTaken(0, replace(world.reading(), gpus=(replace(gpu, mig_current=True, mig_pending=False),))))
    world.finish()
    assert "The MIG mode of GPU GPU-0 is not settled any more during main-running" in world.verdict.reasons[0].sentence
    finding = one(world, "mig_mode_settled")
    assert (finding.status, finding.after) == (Status.VIOLATED, "current on, pending off")


def test_how_a_gpu_is_cut_while_draining_changes_nothing() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.0, Trouble.GEOMETRY),))
    assert world.verdict.status == "valid"
    assert one(world, "geometry_unchanged").status is Status.OK


def test_a_geometry_that_cannot_be_read_is_not_observable() -> None:
    (gpu,) = inventory().gpus
    world = play(place=Place(inventory=replace(inventory(), gpus=(replace(gpu, geometry=None),))))
    assert world.verdict.status == "valid"
    finding = one(world, "geometry_unchanged")
    assert (finding.status, finding.before, finding.after) == (Status.NOT_OBSERVABLE, None, GEOMETRY[:12])


@pytest.mark.parametrize(
    ("listened", "evidence"),
    [
        (0, "the driver does not report Xid, double-bit ECC, GPU unavailable"),
        (None, "the driver does not report Xid, double-bit ECC, GPU unavailable"),
        (0x2, "the driver does not report Xid, GPU unavailable; listened to double-bit ECC"),
    ],
)
def test_events_that_the_driver_does_not_report_are_named(listened: int | None, evidence: str) -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    (gpu,) = world.reading().gpus
    world.tell(ev.SampleTaken(0, replace(world.reading(), gpus=(replace(gpu, listened=listened),))))
    world.finish()
    assert world.verdict.status == "valid"
    finding = one(world, "no_fault_reported")
    assert (finding.status, finding.evidence) == (Status.NOT_OBSERVABLE, evidence)


def test_one_sample_without_ears_is_enough_to_have_missed_something() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.0, Trouble.DEAF),))
    assert one(world, "no_fault_reported").status is Status.NOT_OBSERVABLE


@pytest.mark.parametrize(
    ("restarted", "evidence"),
    [
        (True, "nobody listened until a lost sampler was replaced; listened to Xid, double-bit ECC, GPU unavailable"),
        (False, "nobody listened from the loss of the sampler on"),
    ],
)
def test_nobody_listened_while_there_was_no_sampler(evidence: str, *, restarted: bool) -> None:
    lost = ev.SamplerLost(0, restarted=restarted, message="it died")
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 2.0, lost),))
    finding = one(world, "no_fault_reported")
    assert finding.status is Status.NOT_OBSERVABLE
    assert finding.evidence.startswith(evidence)


# --- slowdowns --------------------------------------------------------------------------------------------------------


def with_counters(change: Callable[[GpuSample, bool], GpuSample], spec: RunSpec = SPEC) -> World:
    """A run in which the samples of its GPU are changed; the flag says whether main's timed section is over."""

    class Changed(World):
        def reading(self) -> DeviceSample:
            reading = super().reading()
            main = self.run.view.main
            over = main is not None and main.ended_ns is not None
            return replace(reading, gpus=tuple(change(gpu, over) for gpu in reading.gpus))

    world = Changed(spec).finish()
    assert world.verdict.status == "valid"
    return world


@pytest.mark.parametrize(
    ("grown", "remark"),
    [
        ({"sw_thermal_slowdown_ns": 3_200_000_000}, "by heat for 3.2 s"),
        ({"hw_thermal_slowdown_ns": 70_000}, "by heat for 0.00007 s"),
        ({"sw_thermal_slowdown_ns": 2_000_000_000, "hw_thermal_slowdown_ns": 3_000_000_000}, "by heat for 3.0 s"),
        ({"power_brake_ns": 1_000_000_000}, "by its power brake for 1.0 s"),
        (
            {"sw_thermal_slowdown_ns": 10**9, "power_brake_ns": 2 * 10**9},
            "by heat for 1.0 s and by its power brake for 2.0 s",
        ),
        ({"sw_thermal_slowdown_ns": 10**9, "hw_thermal_slowdown_ns": None}, "by heat for 1.0 s"),
    ],
)
def test_a_slowdown_during_main_is_a_remark_and_no_failure(grown: dict[str, int | None], remark: str) -> None:
    world = with_counters(lambda gpu, over: replace(gpu, **grown) if over else gpu)
    finding = one(world, "not_slowed_down")
    assert finding.status is Status.VIOLATED
    assert finding.remark == f"Main was measured while GPU GPU-0 was slowed down {remark}."


def test_the_power_cap_alone_is_told_and_no_violation() -> None:
    world = with_counters(lambda gpu, over: replace(gpu, power_cap_ns=5 * 10**9 if over else 0))
    finding = one(world, "not_slowed_down")
    assert (finding.status, finding.remark) == (Status.OK, "")
    assert "by its power cap, which is normal under load, for 5.0 s" in finding.evidence
    assert "power cap 0.000 s" in (finding.before or "")


def test_a_slowdown_before_or_after_main_is_none_of_its_business() -> None:
    world = play(incidents=(Incident(Phase.DRAINING, 0.5, Trouble.HEAT),))
    assert one(world, "not_slowed_down").status is Status.OK
    heated = with_counters(lambda gpu, _: replace(gpu, sw_thermal_slowdown_ns=10**9))
    assert one(heated, "not_slowed_down").status is Status.OK


@pytest.mark.parametrize(
    ("counters", "evidence"),
    [
        (
            {"sw_thermal_slowdown_ns": None, "hw_thermal_slowdown_ns": None, "power_brake_ns": None},
            "the driver does not count slowdowns by heat and its power brake",
        ),
        ({"power_brake_ns": None}, "the driver does not count slowdowns by its power brake"),
        ({"hw_thermal_slowdown_ns": None}, "the driver does not count slowdowns by heat"),
    ],
)
def test_counters_that_a_driver_does_not_have_are_named(counters: dict[str, None], evidence: str) -> None:
    world = with_counters(lambda gpu, _: replace(gpu, **counters, power_cap_ns=None))
    finding = one(world, "not_slowed_down")
    assert (finding.status, finding.evidence) == (Status.NOT_OBSERVABLE, evidence)


def test_one_counter_for_all_heat_is_as_good() -> None:
    nothing = {"sw_thermal_slowdown_ns": None, "hw_thermal_slowdown_ns": None, "thermal_slowdown_ns": 7}
    world = with_counters(lambda gpu, _: replace(gpu, **nothing))
    assert one(world, "not_slowed_down").status is Status.OK
    world = with_counters(lambda gpu, over: replace(gpu, **{**nothing, "thermal_slowdown_ns": 10**9 * over}))
    assert "slowed down by heat for 1.0 s" in one(world, "not_slowed_down").remark


def test_counters_that_began_anew_say_nothing() -> None:
    world = with_counters(lambda gpu, over: replace(gpu, power_brake_ns=0 if over else 5))
    assert one(world, "not_slowed_down").status is Status.NOT_OBSERVABLE


def test_counters_are_read_around_the_whole_of_main() -> None:
    cast = Cast(main=replace(MAIN, more_runs=1, ends_s=4.0))
    world = play(AUDIT, cast=cast, incidents=())
    view = world.run.view
    began, *_ = [step.event.at_ns for step in world.steps if step.event == ev.TimedSectionBegan(step.event.at_ns, 0)]
    *_, ended = [step.event.at_ns for step in world.steps if step.event == ev.TimedSectionEnded(step.event.at_ns, 0)]
    assert view.before_main is not None
    assert view.after_main is not None
    assert began - 2_000_000_000 < view.before_main.taken_ns <= began - 500_000_000 + 1_000_000_000
    assert view.before_main.taken_ns < began
    assert ended <= view.after_main.taken_ns <= ended + 1_100_000_000


@pytest.mark.parametrize("announces_s", [0.2, 30.0])
def test_the_marker_dates_main_where_there_is_no_log(announces_s: float) -> None:
    main = replace(ANNOUNCING_MAIN, announces_s=announces_s)
    world = play(ANNOUNCED, cast=Cast(main=main, background=ANNOUNCING_BACKGROUND))
    assert world.verdict.status == "valid"
    view = world.run.view
    assert view.main is not None
    assert view.main.announced_ns is not None
    assert view.before_main is not None
    assert 0 < view.main.announced_ns - view.before_main.taken_ns < 1_600_000_000
    assert statuses(world)["not_slowed_down"] == {Status.OK}
    assert statuses(world)["process_on_its_slice"] == {Status.OK}


def test_without_a_sample_before_or_after_main_there_is_no_telling() -> None:
    gone = ev.SamplerLost(0, restarted=False, message="it died")
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 5.0, gone),))
    finding = one(world, "not_slowed_down")
    assert (finding.status, finding.evidence) == (
        Status.NOT_OBSERVABLE,
        "there is no reading from after main's timed section",
    )
    world = play(ALONE, incidents=(Incident(Phase.BUILDING, 0.0, gone),))
    assert one(world, "not_slowed_down").evidence == "there is no reading from before main's timed section"


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_stranger_is_named() -> None:
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 0.0, Trouble.FOREIGN_PROCESS),))
    finding = one(world, "only_own_processes", slice_uuid(0))
    assert (finding.status, finding.evidence) == (Status.VIOLATED, "pid 4242 (harness) was there as well")
    assert (finding.before, finding.after) == ("nobody else", "somebody else")
    assert one(world, "only_own_processes", slice_uuid(1)).status is Status.OK


def test_a_worker_in_the_wrong_place_is_a_stranger_there() -> None:
    stray = replace(BACKGROUND, seen_on=slice_uuid(0))
    world = play(cast=Cast(others=((1, stray),)))
    assert world.verdict.exit_code == 7
    assert "of background 1 (bert)" in one(world, "only_own_processes", slice_uuid(0)).evidence


def test_who_comes_while_draining_is_no_concern_of_the_result() -> None:
    cast = Cast(background=Habit(clean_stop_s=3.0))
    world = World(SPEC, cast=cast).go_to(Phase.DRAINING)
    first, *others = world.reading().slices
    visited = replace(first, occupants=(occupant(4242, 1),))
    world.tell(ev.SampleTaken(0, replace(world.reading(), slices=(visited, *others))))
    world.finish()
    assert world.verdict.status == "valid"
    assert one(world, "only_own_processes", slice_uuid(0)).status is Status.OK


def test_where_the_device_shows_nobody_nothing_is_said_of_anybody() -> None:
    world = play(place=Place(shows_processes=False))
    assert world.verdict.status == "valid"
    for guard in ("only_own_processes", "process_on_its_slice"):
        for finding in found(world, guard):
            assert finding.status is Status.NOT_OBSERVABLE
            assert finding.evidence == "the device does not show processes per slice"


def test_a_sample_that_shows_nobody_may_have_hidden_somebody() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    first, *others = world.reading().slices
    world.tell(ev.SampleTaken(0, replace(world.reading(), slices=(replace(first, occupants=None), *others))))
    world.finish()
    finding = one(world, "only_own_processes", slice_uuid(0))
    assert finding.status is Status.NOT_OBSERVABLE
    assert finding.evidence.startswith("1 sample did not show who was there; nobody else in ")


def test_pids_of_another_namespace_are_nobodys() -> None:
    blind = replace(inventory(), pids_resolve=False)
    incident = Incident(Phase.MAIN_RUNNING, 0.0, Trouble.FOREIGN_PROCESS)
    world = World(SPEC, place=Place(inventory=blind), incidents=(incident,)).finish()
    assert world.verdict.status == "valid"
    assert {finding.evidence for finding in found(world, "only_own_processes")} == {
        "the driver lists processes by other pids than they have here, in a pid namespace of their own"
    }


def test_a_worker_that_is_missed_for_long_is_missing() -> None:
    world = World(SPEC).go_to(Phase.MAIN_RUNNING)
    world.wait_s(3.0)
    for _ in range(2):
        world.wait_s(0.5)
        _, *others = world.reading().slices
        empty = replace(world.reading().slices[0], occupants=())
        world.tell(ev.SampleTaken(0, replace(world.reading(), slices=(empty, *others))))
    world.finish()
    assert world.verdict.exit_code == 7
    finding = one(world, "process_on_its_slice", slice_uuid(0))
    assert (finding.status, finding.evidence) == (
        Status.VIOLATED,
        "main 0 (resnet50) was not seen there twice in a row",
    )


def test_a_worker_that_only_announced_itself_and_has_left_its_slice_is_missing() -> None:
    cast = Cast(main=replace(ANNOUNCING_MAIN, done_s=30.0), background=ANNOUNCING_BACKGROUND)
    world = World(ANNOUNCED, cast=cast).go_to(Phase.MAIN_RUNNING)
    world.wait_s(2.6)  # so that no sample of the world's own falls between the two
    for _ in range(2):
        world.wait_s(0.5)
        first, second, *others = world.reading().slices
        empty = replace(second, occupants=())
        world.tell(ev.SampleTaken(0, replace(world.reading(), slices=(first, empty, *others))))
    world.finish()
    assert world.verdict.exit_code == 7
    finding = one(world, "process_on_its_slice", slice_uuid(1))
    assert (finding.status, "was not seen there twice in a row" in finding.evidence) == (Status.VIOLATED, True)


def test_a_worker_that_only_announced_itself_and_is_never_seen_is_not_observable() -> None:
    unseen = replace(ANNOUNCING_MAIN, seen=False)
    world = play(ANNOUNCED, cast=Cast(main=unseen, background=ANNOUNCING_BACKGROUND))
    finding = one(world, "process_on_its_slice", slice_uuid(0))
    assert finding.status is Status.NOT_OBSERVABLE
    assert finding.evidence.startswith("main 0 (resnet50) was not seen there in ")


def test_a_main_between_two_samples_was_not_looked_at() -> None:
    short = replace(MAIN, ends_s=0.2)
    world = play(replace(SPEC, sample_period_ms=4_000), cast=Cast(main=short))
    assert one(world, "process_on_its_slice", slice_uuid(0)).evidence == ("no sample was taken in main's timed section")


# --- shares of a GPU --------------------------------------------------------------------------------------------------


def shares() -> Inventory:
    cut = inventory()
    return replace(cut, slices=tuple(replace(place, kind=SliceKind.MPS) for place in cut.slices))


def test_strangers_are_looked_for_on_the_whole_of_a_gpu_that_is_shared() -> None:
    world = play(place=Place(inventory=shares()))
    assert world.verdict.status == "valid", world.verdict
    (finding,) = found(world, "only_own_processes")
    assert (finding.scope, finding.status) == (gpu_uuid(0), Status.OK)
    assert statuses(world)["process_on_its_slice"] == {Status.NOT_OBSERVABLE}
    incident = Incident(Phase.MAIN_RUNNING, 0.0, Trouble.FOREIGN_PROCESS)
    world = play(place=Place(inventory=shares()), incidents=(incident,))
    assert world.verdict.exit_code == 7
    assert "GPU GPU-0 is used by a process that is not part of this run: pid 4242" in world.verdict.reasons[0].sentence
    assert one(world, "only_own_processes").status is Status.VIOLATED


def test_a_gpu_that_is_shared_is_empty_when_only_what_shares_it_is_left() -> None:
    silence = Incident(Phase.DRAINING, 0.0, Trouble.SILENCE)
    world = World(SPEC, place=Place(inventory=shares()), incidents=(silence,)).go_to(Phase.DRAINING)
    world.wait_s(1.0)
    assert not world.processes_left
    gpu = world.reading().gpus[0]
    assert gpu.occupants is not None
    left = occupant(4711, 1)
    world.tell(ev.SampleTaken(0, replace(world.reading(), gpus=(replace(gpu, occupants=(*gpu.occupants, left)),))))
    assert world.run.phase is Phase.DRAINING
    world.finish()
    assert "GPU GPU-0 is not empty after draining: pid 4711." in world.verdict.reasons[0].sentence


# --- memory -----------------------------------------------------------------------------------------------------------


def test_memory_that_does_not_come_back_is_a_remark_and_no_failure() -> None:
    world = play(incidents=(Incident(Phase.MAIN_RUNNING, 0.0, Trouble.LEAK),))
    assert world.verdict.status == "valid"
    for finding in found(world, "memory_returned"):
        assert (finding.status, finding.before, finding.after) == (Status.VIOLATED, "13.0 MiB", "513.0 MiB")
        assert finding.remark == f"Slice {finding.scope} has 500.0 MiB more in use than before the run."


@pytest.mark.parametrize(("more", "status"), [(0, Status.OK), (1, Status.VIOLATED)])
def test_some_memory_may_stay_in_use(more: int, status: Status) -> None:
    view = World(SPEC).go_to(Phase.VALIDATING).run.view
    assert view.baseline is not None
    last = sample(view.last_exit_ns)
    used = [replace(place, memory_used_bytes=(13 << 20) + MEMORY_TOLERANCE_BYTES + more) for place in last.slices]
    view = replace(view, sample=replace(last, slices=tuple(used)))
    assert {finding.status for finding in memory(view)} == {status}


def memory(view: View) -> list[DeviceFinding]:
    return [finding for finding in device_findings(view) if finding.guard == "memory_returned"]


def test_memory_that_nobody_read_is_not_observable() -> None:
    view = World(SPEC).go_to(Phase.VALIDATING).run.view
    assert view.sample is not None
    cases = {
        "there is no sample from before the run": replace(view, baseline=None),
        "there is no sample from after the run": replace(view, sample=None),
        "the device does not show its memory": replace(view, sample=sample(view.last_exit_ns)),
    }
    for why, changed in cases.items():
        assert {(finding.status, finding.evidence) for finding in memory(changed)} == {(Status.NOT_OBSERVABLE, why)}
    world = World(SPEC, cast=Cast(others=((1, Habit(clean_stop_s=None, term_s=None, kill_s=None)),))).finish()
    assert {finding.evidence for finding in memory(world.run.view)} == {"not every worker was reaped"}


# --- GPUs that no run can use -----------------------------------------------------------------------------------------


def test_gpus_that_cannot_be_used_are_noted() -> None:
    lost = UnusableGpu(1, None, "NVML cannot read GPU 1.")
    world = play(place=Place(inventory=replace(inventory(), unusable=(lost,))))
    assert world.verdict.status == "valid"
    assert world.run.view.notes == ("No run can use it: NVML cannot read GPU 1.",)
