"""What is known after which facts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.core import events as ev
from heteromig.core.clocks import ClockReading
from heteromig.core.devices import Activity, DeviceSample, Reading, Shared
from heteromig.core.gaps import Idleness, Interval
from heteromig.core.phases import LIVE_STATES, Phase, Role, WorkerState
from heteromig.core.view import HEARD_WITHIN_NS, WORKER_STATES, View, WorkerEvent, WorkerView
from tests.core.histories import AUDIT, CONTROLLER_PID, SPEC, inventory, occupant, sample, slice_uuid
from tests.core.world import World

S = WorkerState
ONE = 1


def planned() -> View:
    return View(spec=SPEC).after(ev.SlicesDiscovered(1, inventory(), (0, 1)))


def in_state(state: WorkerState) -> View:
    return planned().with_workers([ONE], lambda worker: replace(worker, state=state, release_asked=True))


def worker_of(view: View) -> WorkerView:
    return view.workers[ONE]


ABOUT_WORKERS: list[WorkerEvent] = [
    ev.WorkerSpawned(9, ONE, 10, 11),
    ev.SpawnFailed(9, ONE, "no such file"),
    ev.StartAnnounced(9, ONE),
    ev.TimedSectionBegan(9, ONE),
    ev.ProgressMade(9, ONE, 5, 2.5),
    ev.TimedSectionEnded(9, ONE),
    ev.FinishAnnounced(9, ONE),
    ev.ResultReported(9, ONE, valid=True),
    ev.StillTimed(9, ONE, 99),
    ev.WorkerExited(9, ONE, 0, None),
    ev.WorkerReleased(9, ONE),
]

MOVES: dict[tuple[type[ev.Event], WorkerState], WorkerState] = {
    (ev.WorkerSpawned, S.SPAWNING): S.SPAWNED,
    (ev.StartAnnounced, S.SPAWNED): S.ANNOUNCED,
    (ev.TimedSectionBegan, S.SPAWNED): S.TIMED,
    (ev.TimedSectionBegan, S.ANNOUNCED): S.TIMED,
    (ev.TimedSectionBegan, S.ENDED): S.TIMED,
    (ev.ProgressMade, S.TIMED): S.BUSY,
    (ev.TimedSectionEnded, S.SPAWNED): S.ENDED,
    (ev.TimedSectionEnded, S.ANNOUNCED): S.ENDED,
    (ev.TimedSectionEnded, S.TIMED): S.ENDED,
    (ev.TimedSectionEnded, S.BUSY): S.ENDED,
    (ev.FinishAnnounced, S.ANNOUNCED): S.ENDED,
    **{(ev.WorkerExited, state): S.EXITED for state in LIVE_STATES},
    **{(ev.WorkerReleased, state): S.RELEASED for state in LIVE_STATES},
}


@pytest.mark.parametrize("state", WorkerState)
@pytest.mark.parametrize("event", ABOUT_WORKERS, ids=lambda event: type(event).__name__)
def test_the_life_of_a_worker(event: WorkerEvent, state: WorkerState) -> None:
    after = in_state(state).after(event)
    assert worker_of(after).state is MOVES.get((type(event), state), state)
    assert after.workers[0] == planned().workers[0], "a fact about one worker is about no other"
    assert set(WORKER_STATES) == {kind for kind, _ in MOVES}


@pytest.mark.parametrize("event", ABOUT_WORKERS, ids=lambda event: type(event).__name__)
def test_nothing_is_true_of_a_worker_that_was_never_spawned(event: WorkerEvent) -> None:
    assert planned().after(event) == planned()
    stranger = replace(event, worker=7)
    assert in_state(S.TIMED).after(stranger) == in_state(S.TIMED)


def test_each_fact_about_a_worker_is_kept() -> None:
    view = in_state(S.SPAWNING)
    for event in ABOUT_WORKERS:
        view = view.after(event)
    worker = worker_of(view)
    assert (worker.guardian_pid, worker.pid, worker.spawn_failure) == (10, 11, "no such file")
    stamps = (
        worker.spawned_ns,
        worker.announced_ns,
        worker.timed_ns,
        worker.busy_ns,
        worker.ended_ns,
        worker.exited_ns,
    )
    assert stamps == (9,) * 6
    assert (worker.completed_samples, worker.samples_per_s) == (5, 2.5)
    assert (worker.reported_valid, worker.still_timed_ns) == (True, 9)
    assert (worker.exit_code, worker.signal, worker.stopped_by) == (0, None, None)


def test_the_first_mark_of_its_kind_is_the_one_that_counts() -> None:
    view = in_state(S.SPAWNED)
    for at_ns in (10, 20):
        view = view.after(ev.StartAnnounced(at_ns, ONE))
    for at_ns in (30, 40):
        view = view.after(ev.TimedSectionBegan(at_ns, ONE))
    for at_ns in (50, 60):
        view = view.after(ev.ProgressMade(at_ns, ONE, at_ns, 1.0))
    for at_ns in (70, 80):
        view = view.after(ev.TimedSectionEnded(at_ns, ONE))
    worker = worker_of(view)
    assert (worker.announced_ns, worker.timed_ns, worker.busy_ns, worker.ended_ns) == (10, 30, 50, 70)
    assert worker.completed_samples == 60, "progress is the latest"


def test_the_marks_of_another_loadgen_run_take_the_place_of_those_of_the_run_before() -> None:
    view = in_state(S.SPAWNED)
    begins = (True, False, True, True, False, False)
    for at_ns, begin in enumerate(begins, start=10):
        view = view.after(ev.TimedSectionBegan(at_ns, ONE) if begin else ev.TimedSectionEnded(at_ns, ONE))
        assert (worker_of(view).state is S.ENDED) == (worker_of(view).ended_ns is not None)
    assert (worker_of(view).timed_ns, worker_of(view).ended_ns) == (12, 14)


@pytest.mark.parametrize("state", sorted(LIVE_STATES, key=str))
def test_the_marker_of_the_end_dates_the_end_of_a_worker_without_a_log(state: WorkerState) -> None:
    announced = in_state(S.SPAWNED).after(ev.StartAnnounced(5, ONE))
    announced = announced.with_workers([ONE], lambda worker: replace(worker, state=state))
    once = announced.after(ev.FinishAnnounced(7, ONE))
    assert worker_of(once).ended_ns == 7
    assert worker_of(once.after(ev.FinishAnnounced(8, ONE))).ended_ns == 7


def test_the_marker_of_the_end_dates_nothing_where_a_log_does_or_nothing_had_begun() -> None:
    timed = in_state(S.SPAWNED).after(ev.StartAnnounced(5, ONE)).after(ev.TimedSectionBegan(6, ONE))
    assert timed.after(ev.FinishAnnounced(7, ONE)) == timed
    assert in_state(S.SPAWNED).after(ev.FinishAnnounced(7, ONE)) == in_state(S.SPAWNED)


def test_a_worker_is_reaped_once() -> None:
    first = in_state(S.BUSY).after(ev.WorkerExited(5, ONE, 0, None))
    assert first.after(ev.WorkerExited(6, ONE, 1, None)) == first


def test_the_same_count_again_is_no_progress() -> None:
    view = in_state(S.TIMED).after(ev.ProgressMade(5, ONE, 3, 1.0))
    assert worker_of(view).progress_ns == 5
    assert worker_of(view.after(ev.ProgressMade(6, ONE, 3, 0.0))).progress_ns == 5
    assert worker_of(view.after(ev.ProgressMade(7, ONE, 4, 1.0))).progress_ns == 7


def test_a_heartbeat_without_completions_is_no_work() -> None:
    view = in_state(S.TIMED).after(ev.ProgressMade(5, ONE, 0, 0.0))
    assert (worker_of(view).state, worker_of(view).busy_ns) == (S.TIMED, None)
    assert worker_of(view.after(ev.ProgressMade(6, ONE, 1, 1.0))).busy_ns == 6


def test_progress_before_the_timed_section_is_no_evidence() -> None:
    view = in_state(S.ANNOUNCED).after(ev.ProgressMade(5, ONE, 3, 1.0))
    assert (worker_of(view).state, worker_of(view).busy_ns) == (S.ANNOUNCED, None)


def test_the_rung_that_the_shell_reports_counts_more_than_the_one_that_was_asked_for() -> None:
    view = in_state(S.BUSY).stopping([ONE], "KILL")
    assert worker_of(view).state is S.STOPPING
    assert worker_of(view.after(ev.WorkerExited(5, ONE, 0, None))).stopped_by == "KILL"
    assert worker_of(view.after(ev.WorkerExited(5, ONE, 0, None, "TERM"))).stopped_by == "TERM"


def test_a_number_finds_a_spawned_worker_and_nothing_else() -> None:
    view = in_state(S.SPAWNING)
    found = view.worker(ONE)
    assert found is not None
    assert found.index == ONE
    assert [view.worker(index) for index in (-1, 0, 2, 3)] == [None] * 4


def test_names_are_for_people() -> None:
    assert [worker.name for worker in planned().workers] == [
        "main 0 (resnet50)",
        "background 1 (bert)",
        "background 2 (dlrm)",
    ]


def test_the_first_enumeration_is_the_one_that_the_plan_rests_on() -> None:
    view = planned()
    assert view.plan is not None
    assert [worker.role for worker in view.workers] == [Role.MAIN, Role.BACKGROUND, Role.BACKGROUND]
    assert view.after(ev.SlicesDiscovered(2, inventory(2), (5,))) == view


def test_slices_that_do_not_fit_leave_no_plan_but_a_reason() -> None:
    view = View(spec=SPEC).after(ev.SlicesDiscovered(1, inventory(1), (0,)))
    assert view.plan is None
    assert view.plan_failure is not None
    assert view.plan_failure.exit_code == 7
    assert (view.main, view.main_finished, view.main_ended, view.last_exit_ns) == (None, False, False, 0)


@pytest.mark.parametrize(
    ("exit_code", "stopped_by", "finished"),
    [(0, None, True), (1, None, False), (None, None, False), (0, "clean stop", False), (None, "KILL", False)],
)
def test_main_has_finished_when_it_ended_well_and_by_itself(
    exit_code: int | None, stopped_by: str | None, *, finished: bool
) -> None:
    view = planned().spawning(planned().workers[0].assignment).after(ev.WorkerExited(5, 0, exit_code, None, stopped_by))
    assert (view.main_finished, view.main_ended, view.last_exit_ns) == (finished, True, 5)


def test_main_has_ended_with_its_timed_section() -> None:
    view = World(SPEC).go_to(Phase.MAIN_RUNNING).run.view.after(ev.WorkerSpawned(1, 0, 1000, 1001))
    assert not view.main_ended
    assert view.after(ev.TimedSectionEnded(2, 0)).main_ended


def test_a_main_that_may_run_loadgen_again_has_ended_when_it_was_reaped() -> None:
    view = World(AUDIT).go_to(Phase.MAIN_RUNNING).run.view.after(ev.WorkerSpawned(1, 0, 1000, 1001))
    ended = view.after(ev.TimedSectionBegan(2, 0)).after(ev.TimedSectionEnded(3, 0))
    assert not ended.main_ended
    assert ended.after(ev.WorkerExited(4, 0, 0, None)).main_ended


# --- samples ----------------------------------------------------------------------------------------------------------


def test_strangers_beside_the_run_are_noted_once_there_is_a_plan() -> None:
    stranger = occupant(4242, 1)
    reading = sample(9, (stranger,), (), (stranger, OURS[0]))
    alone = replace(SPEC, background=replace(SPEC.background, candidates=("bert",), explicit=True))
    unplanned = View(spec=alone).after(ev.RunStarted(1, 1, CONTROLLER_PID))
    assert unplanned.after(ev.SampleTaken(9, reading)).notes == ()
    view = unplanned.after(ev.SlicesDiscovered(1, inventory(), (0, 1))).after(ev.SampleTaken(9, reading))
    note = f"Slice {slice_uuid(2)}, which is not part of the run, was used meanwhile by pid 4242 (harness)."
    assert view.notes == (note,), "one on a slice of the plan is a fault, and one of the run's own is no stranger"
    assert view.after(ev.SampleTaken(10, sample(10, None, None, None))).notes == (note,), "it stays on record"
    assert view.after(ev.SampleTaken(10, reading)).notes == (note,)


def timed_at(at_ns: int) -> View:
    return in_state(S.SPAWNING).after(ev.WorkerSpawned(1, ONE, 1010, 1011)).after(ev.TimedSectionBegan(at_ns, ONE))


OURS = (occupant(1012, 1011, 1010, CONTROLLER_PID),)


def test_a_timed_worker_that_the_device_does_not_show_is_absent_and_after_a_while_missing() -> None:
    view = timed_at(5).after(ev.SampleTaken(9, sample(9)))
    assert (view.absent, view.missing) == ({ONE: 9}, frozenset())
    soon, late = 8 + HEARD_WITHIN_NS, 9 + HEARD_WITHIN_NS
    again = view.after(ev.SampleTaken(soon, sample(soon)))
    assert (again.absent, again.missing) == ({ONE: 9}, frozenset()), "it may have ended, which is heard later"
    assert again.after(ev.SampleTaken(late, sample(late))).missing == {ONE}
    seen = view.after(ev.SampleTaken(late, sample(late, (), OURS)))
    assert (seen.absent, seen.missing) == ({}, frozenset())


def test_being_shown_on_another_slice_is_absence() -> None:
    assert timed_at(5).after(ev.SampleTaken(9, sample(9, OURS))).absent == {ONE: 9}


@pytest.mark.parametrize("taken_ns", [4, 5])
def test_a_sample_from_before_the_timed_section_shows_no_absence(taken_ns: int) -> None:
    assert timed_at(5).after(ev.SampleTaken(9, sample(taken_ns))).absent == {}


def test_a_device_that_does_not_show_processes_shows_no_absence() -> None:
    assert timed_at(5).after(ev.SampleTaken(9, sample(9, None, None, None))).absent == {}


def test_a_worker_that_is_not_timed_is_not_absent() -> None:
    ended = timed_at(5).after(ev.TimedSectionEnded(6, ONE))
    assert ended.after(ev.SampleTaken(9, sample(9))).absent == {}


def test_processes_belong_to_the_worker_whose_guardian_they_descend_from() -> None:
    view = timed_at(5).after(ev.RunStarted(1, 1, CONTROLLER_PID))
    owner = view.owner(OURS[0])
    assert owner is not None
    assert owner.index == ONE
    assert view.owner(occupant(5, 77)) is None
    assert view.is_ours(occupant(CONTROLLER_PID))
    assert view.is_ours(occupant(5, 6, CONTROLLER_PID))
    assert not view.is_ours(occupant(5, 6))


def test_a_sampler_lost_for_good_stays_lost() -> None:
    view = timed_at(5).after(ev.SampleTaken(9, sample(9)))
    restarted = view.after(ev.SamplerLost(10, restarted=True, message=""))
    assert (restarted.sampler_alive, restarted.sample) == (True, None)
    lost = view.after(ev.SamplerLost(10, restarted=False, message=""))
    assert not lost.after(ev.SamplerLost(11, restarted=True, message="")).sampler_alive


SECOND = 1_000_000_000


def test_readings_of_both_clocks_are_kept_and_so_is_when_nobody_looked() -> None:
    view = planned().after(ev.ClocksRead(3, 1003)).after(ev.LookedAway(9, 4)).after(ev.LookedAway(9, 12))
    assert view.clocks == (ClockReading(3, 1003),)
    assert view.unwatched == (Interval(4, 9), Interval(9, 9)), "what is yet to come was not missed"


def test_silence_is_what_lies_between_a_begin_and_heartbeats_that_tell_of_more() -> None:
    view = in_state(S.SPAWNED).after(ev.StartAnnounced(1 * SECOND, ONE)).after(ev.TimedSectionBegan(2 * SECOND, ONE))
    for at_s, completed in ((3, 10), (5, 10), (6, 10), (9, 11)):
        view = view.after(ev.ProgressMade(at_s * SECOND, ONE, completed, 1.0))
    assert worker_of(view).heard.found == (Interval(3 * SECOND, 9 * SECOND - SECOND // 2),)
    again = view.after(ev.TimedSectionEnded(10 * SECOND, ONE)).after(ev.TimedSectionBegan(11 * SECOND, ONE))
    assert worker_of(again).heard.since_ns == 11 * SECOND


def _active(at_s: int, sm_percent: float | None, *, shared: tuple[Shared, ...] | None = None) -> DeviceSample:
    taken = sample(at_s * SECOND)
    slices = tuple(
        replace(one, activity=Activity(sm_percent=sm_percent) if one.slice_uuid == slice_uuid(ONE) else None)
        for one in taken.slices
    )
    return replace(taken, slices=slices, shared=shared)


def _idleness(*samples: DeviceSample) -> Idleness | None:
    view = timed_at(5)
    for one in samples:
        view = view.after(ev.SampleTaken(one.taken_ns, one))
    return worker_of(view).idleness


def test_work_that_the_device_shows_is_kept_from_sample_to_sample() -> None:
    found = _idleness(_active(1, 0.0), _active(2, 50.0), _active(3, 0.0), _active(4, 0.0), _active(5, 9.0))
    assert found == Idleness(worked=True, found=(Interval(2 * SECOND, 4 * SECOND),)), "the first has none before it"


def test_a_device_that_shows_no_activity_says_nothing_of_work() -> None:
    assert _idleness(_active(1, None), _active(2, None)) is None
    assert _idleness(sample(1 * SECOND), sample(2 * SECOND)) is None
    assert _idleness(_active(2, 0.0), _active(2, 0.0)) is None, "no time between them"


@pytest.mark.parametrize("reading", [Reading.ACTIVITY, Reading.SM, Reading.MEMORY])
def test_activity_that_is_not_of_the_slice_alone_says_nothing_of_its_worker(reading: Reading) -> None:
    shared = (Shared((slice_uuid(ONE),), (reading,), "GPU-0"),)
    found = _idleness(_active(1, 0.0, shared=shared), _active(2, 0.0))
    assert (found is None) == (reading is not Reading.MEMORY)
