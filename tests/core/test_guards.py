"""Guards one by one: on what evidence each says yes, no, or that it cannot tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core import guards
from heteromig.core.devices import DeviceSample, Occupant, OtherGpu
from heteromig.core.guards import Finding, Status
from heteromig.core.phases import Phase, WorkerState
from heteromig.core.units import NS_PER_MS
from heteromig.core.view import View
from tests.core.histories import BASELINE, CONTROLLER_PID, LENIENT, ONLY_BUILDING, SPEC, occupant, sample
from tests.core.world import World

NEED_A_FRESH_SAMPLE = [guards.slices_idle, guards.backgrounds_on_their_slices, guards.geometry_unchanged]
STALE_NS = 3 * SPEC.sample_period_ms * NS_PER_MS


def view_in(phase: Phase) -> View:
    return World(SPEC).go_to(phase).run.view


def heard(at_ns: int) -> ev.AnyEvent:
    """Any event: most guards look at nothing but its time."""
    return ev.GpusLocked(at_ns)


def with_sample(view: View, reading: DeviceSample) -> tuple[View, ev.AnyEvent]:
    event = ev.SampleTaken(reading.taken_ns, reading)
    return view.after(event), event


def ours(index: int) -> tuple[Occupant, ...]:
    guardian = 1000 + 10 * index
    return (occupant(guardian + 1, guardian, CONTROLLER_PID),)


def result(finding: Finding) -> tuple[Status, bool]:
    return finding.status, finding.passed


@pytest.mark.parametrize("guard", NEED_A_FRESH_SAMPLE)
@pytest.mark.parametrize(("late_ns", "fresh"), [(0, True), (STALE_NS, True), (STALE_NS + 1, False)])
def test_a_sample_is_stale_after_three_periods_and_then_never_true(
    guard: guards.Guard, late_ns: int, *, fresh: bool
) -> None:
    view = view_in(Phase.BUFFERING)
    assert view.sample is not None
    empty = guard is guards.slices_idle
    reading = sample(view.sample.taken_ns, *(() if empty else ((), ours(1), ours(2))))
    finding = guard(view.after(ev.SampleTaken(reading.taken_ns, reading)), heard(reading.taken_ns + late_ns))
    assert result(finding) == ((Status.OK, True) if fresh else (Status.NOT_OBSERVABLE, False))
    assert finding.guard == guard.__name__
    if not fresh:
        assert finding.evidence == "the last device sample is older than 3 periods"


@pytest.mark.parametrize("guard", NEED_A_FRESH_SAMPLE)
def test_without_a_sample_nothing_is_true(guard: guards.Guard) -> None:
    view = replace(view_in(Phase.BUFFERING), sample=None)
    assert result(guard(view, heard(1))) == (Status.NOT_OBSERVABLE, False)


@pytest.mark.parametrize("guard", [*NEED_A_FRESH_SAMPLE, guards.slices_empty])
def test_without_a_sampler_a_guard_passes_and_says_why(guard: guards.Guard) -> None:
    view = replace(view_in(Phase.VALIDATING), sampler_alive=False, sample=None)
    finding = guard(view, heard(1))
    assert result(finding) == (Status.NOT_OBSERVABLE, True)
    assert "the sampler was lost" in finding.evidence


@pytest.mark.parametrize("guard", [guards.slices_idle, guards.slices_empty])
def test_a_slice_that_is_seen_busy_weighs_more_than_one_that_is_not_seen(guard: guards.Guard) -> None:
    view = view_in(Phase.VALIDATING)
    at_ns = view.last_exit_ns
    assert result(guard(*with_sample(view, sample(at_ns, None, ours(1))))) == (Status.VIOLATED, False)
    assert result(guard(*with_sample(view, sample(at_ns, None, ())))) == (Status.NOT_OBSERVABLE, True)
    assert result(guard(*with_sample(view, sample(at_ns, (), ())))) == (Status.OK, True)


def test_slices_are_empty_only_on_a_sample_since_the_last_exit() -> None:
    view = view_in(Phase.VALIDATING)
    empty = sample(view.last_exit_ns)
    assert result(guards.slices_empty(*with_sample(view, empty))) == (Status.OK, True)
    older = replace(empty, taken_ns=view.last_exit_ns - 1)
    assert result(guards.slices_empty(*with_sample(view, older))) == (Status.NOT_OBSERVABLE, False)
    assert result(guards.slices_empty(replace(view, sample=None), heard(1))) == (Status.NOT_OBSERVABLE, False)


def test_slices_are_empty_where_nothing_was_spawned() -> None:
    finding = guards.slices_empty(World(SPEC).run.view, heard(1))
    assert (finding.passed, finding.evidence) == (True, "nothing was spawned")


def test_a_background_counts_as_seen_on_its_own_slice_only() -> None:
    view = view_in(Phase.BACKGROUND_STARTING)
    for index in (1, 2):
        guardian = 1000 + 10 * index
        view = view.after(ev.WorkerSpawned(1, worker=index, guardian_pid=guardian, pid=guardian + 1))
    guard = guards.backgrounds_on_their_slices
    assert result(guard(*with_sample(view, sample(9, (), ours(1), ours(2))))) == (Status.OK, True)
    swapped = guard(*with_sample(view, sample(9, (), ours(2), ours(1))))
    assert result(swapped) == (Status.VIOLATED, False)
    assert swapped.evidence == "not seen on its slice: bert, dlrm"
    stranger = occupant(4242, 1)
    assert not guard(*with_sample(view, sample(9, (), ours(1), (stranger,)))).passed
    assert not guard(*with_sample(view, sample(9, (), None, ()))).passed, "one is not seen, the other is absent"
    assert result(guard(*with_sample(view, sample(9, (), None, ours(2))))) == (Status.NOT_OBSERVABLE, True)
    unread = replace(sample(9, (), ours(1), ours(2)), slices=sample(9, (), ours(1)).slices[:2])
    assert result(guard(*with_sample(view, unread))) == (Status.NOT_OBSERVABLE, True)


def test_a_background_that_has_exited_need_not_be_seen() -> None:
    view = view_in(Phase.BUFFERING).after(ev.WorkerExited(5, worker=2, exit_code=1, signal=None))
    finding = guards.backgrounds_on_their_slices(*with_sample(view, sample(9, (), ours(1), ())))
    assert finding.passed


def test_geometry_is_compared_with_the_inventory() -> None:
    view = view_in(Phase.BUFFERING)
    assert result(guards.geometry_unchanged(*with_sample(view, sample(9)))) == (Status.OK, True)
    changed = guards.geometry_unchanged(*with_sample(view, sample(9, geometry="another")))
    assert result(changed) == (Status.VIOLATED, False)
    assert "another now" in changed.evidence


def test_a_gpu_out_of_sight_or_between_two_modes_does_not_let_main_start() -> None:
    view = view_in(Phase.BUFFERING)
    guard = guards.geometry_unchanged
    (gpu,) = sample(9).gpus
    gone = guard(*with_sample(view, replace(sample(9), gpus=(replace(gpu, unreadable="It is lost."),))))
    assert (result(gone), gone.evidence) == ((Status.NOT_OBSERVABLE, False), "It is lost.")
    assert result(guard(*with_sample(view, replace(sample(9), gpus=())))) == (Status.NOT_OBSERVABLE, False)
    unsettled = replace(gpu, mig_current=True, mig_pending=False)
    assert result(guard(*with_sample(view, replace(sample(9), gpus=(unsettled,))))) == (Status.VIOLATED, False)
    unknown = guard(*with_sample(view, replace(sample(9), gpus=(replace(gpu, geometry=None),))))
    assert result(unknown) == (Status.NOT_OBSERVABLE, True)


def test_locked_needs_a_lock_and_a_plan() -> None:
    view = view_in(Phase.BUILDING)
    assert guards.slices_locked(view, heard(1)).passed
    assert not guards.slices_locked(replace(view, locked=False), heard(1)).passed
    assert not guards.slices_locked(replace(view, plan=None), heard(1)).passed


def test_engines_are_present_once_the_cache_was_read_and_misses_none() -> None:
    view = view_in(Phase.BACKGROUND_STARTING)
    assert view.plan is not None
    need = view.plan.engines[0]
    assert guards.every_engine_present(view, heard(1)).passed
    assert not guards.every_engine_present(replace(view, missing_engines=None), heard(1)).passed
    missing = guards.every_engine_present(replace(view, missing_engines=((need, "stale"),)), heard(1))
    assert (missing.passed, missing.evidence) == (False, "missing resnet50/offline/99/1g.10gb")


def test_only_building_is_the_goal_to_build() -> None:
    assert guards.only_building(World(ONLY_BUILDING).run.view, heard(1)).passed
    assert not guards.only_building(World(SPEC).run.view, heard(1)).passed


@pytest.mark.parametrize(
    ("guard", "evidence"),
    [(guards.all_backgrounds_timed, "waiting for bert"), (guards.backgrounds_still_timed, "left: background 1 (bert)")],
)
@pytest.mark.parametrize(
    "state", [state for state in WorkerState if state not in {WorkerState.TIMED, WorkerState.BUSY}]
)
def test_every_background_must_be_timed(guard: guards.Guard, evidence: str, state: WorkerState) -> None:
    view = view_in(Phase.BUFFERING)
    assert guard(view, heard(1)).passed
    finding = guard(view.with_workers([1], lambda worker: replace(worker, state=state)), heard(1))
    assert (finding.passed, finding.status, finding.evidence) == (False, Status.VIOLATED, evidence)


def test_lenient_passes_over_those_that_exited_but_waits_for_those_that_live() -> None:
    view = World(LENIENT).go_to(Phase.BUFFERING).run.view
    exited = view.with_workers([1], lambda worker: replace(worker, state=WorkerState.EXITED))
    starting = view.with_workers([1], lambda worker: replace(worker, state=WorkerState.SPAWNED))
    assert guards.all_backgrounds_timed(exited, heard(1)).passed
    assert not guards.all_backgrounds_timed(starting, heard(1)).passed
    assert guards.backgrounds_still_timed(exited, heard(1)).passed


@pytest.mark.parametrize("timer", ev.Timer)
def test_only_the_timeout_of_the_phase_lets_a_lenient_run_go_on(timer: ev.Timer) -> None:
    event = ev.DeadlinePassed(1, timer, 0)
    lenient = guards.start_timed_out_leniently(World(LENIENT).run.view, event)
    assert lenient.passed == (timer is ev.Timer.PHASE_TIMEOUT)
    assert not guards.start_timed_out_leniently(World(SPEC).run.view, event).passed
    assert not guards.start_timed_out_leniently(World(LENIENT).run.view, heard(1)).passed


def test_the_buffer_has_elapsed_when_its_timer_says_so() -> None:
    view = view_in(Phase.BUFFERING)
    assert not guards.buffer_elapsed(view, heard(1)).passed
    assert guards.buffer_elapsed(view.after(ev.DeadlinePassed(1, ev.Timer.BUFFER, 3)), heard(1)).passed


@pytest.mark.parametrize("timer", ev.Timer)
def test_the_run_gives_up_on_the_last_deadline_of_what_it_waits_for(timer: ev.Timer) -> None:
    alive, reaped = view_in(Phase.DRAINING), view_in(Phase.VALIDATING)
    event = ev.DeadlinePassed(1, timer, 5)
    assert guards.gave_up_waiting(alive, event).passed == (timer is ev.Timer.KILLED)
    assert guards.gave_up_waiting(reaped, event).passed == (timer is ev.Timer.SETTLE)
    assert not guards.gave_up_waiting(reaped, heard(1)).passed


@pytest.mark.parametrize(
    ("guard", "before", "after"),
    [
        (guards.main_exited, Phase.MAIN_RUNNING, Phase.DRAINING),
        (guards.all_reaped, Phase.DRAINING, Phase.VALIDATING),
    ],
)
def test_a_worker_is_gone_when_it_was_reaped(guard: Callable[..., Finding], before: Phase, after: Phase) -> None:
    assert not guard(view_in(before), heard(1)).passed
    assert guard(view_in(after), heard(1)).passed


def test_main_has_not_exited_before_there_is_one() -> None:
    assert not guards.main_exited(World(SPEC).run.view, heard(1)).passed


def test_only_a_baseline_asks_for_an_idle_host() -> None:
    finding = guards.host_idle(view_in(Phase.BUFFERING), heard(1))
    assert (result(finding), finding.evidence) == ((Status.OK, True), "asked of a baseline alone")


@pytest.mark.parametrize(
    ("who", "allow", "expected", "words"),
    [
        ((), False, (Status.OK, True), "nobody else uses a GPU of this host"),
        ((occupant(5, 1),), False, (Status.VIOLATED, False), "busy: pid 5 on GPU GPU-9"),
        ((occupant(5, 1),), True, (Status.VIOLATED, True), "allowed, but busy: pid 5 on GPU GPU-9"),
        ((occupant(5, CONTROLLER_PID),), False, (Status.OK, True), "nobody else uses a GPU of this host"),
        (None, False, (Status.NOT_OBSERVABLE, True), "no permission"),
    ],
)
def test_a_baseline_looks_at_gpus_beside_its_inventory(
    who: tuple[Occupant, ...] | None, expected: tuple[Status, bool], words: str, *, allow: bool
) -> None:
    view = World(replace(BASELINE, allow_busy=allow)).go_to(Phase.BUILDING).run.view
    assert view.sample is not None
    other = OtherGpu(9, "GPU-9", who, "" if who is not None else "no permission")
    view, event = with_sample(view, replace(view.sample, others=(other,)))
    finding = guards.host_idle(view, event)
    assert (result(finding), finding.evidence) == (expected, words)


def test_a_baseline_whose_sampler_does_not_look_around_says_so() -> None:
    view = World(BASELINE).go_to(Phase.BUILDING).run.view
    assert view.sample is not None
    finding = guards.host_idle(*with_sample(view, replace(view.sample, others=None)))
    assert result(finding) == (Status.NOT_OBSERVABLE, True)
    assert finding.evidence == "the other GPUs of the host were not looked at"


def test_a_baseline_does_not_believe_a_stale_sample() -> None:
    view = World(BASELINE).go_to(Phase.BUILDING).run.view
    assert view.sample is not None
    finding = guards.host_idle(view, heard(view.sample.taken_ns + STALE_NS + 1))
    assert result(finding) == (Status.NOT_OBSERVABLE, False)
