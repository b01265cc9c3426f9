"""Backgrounds that outlive a run: left alone while it drains, looked at once more, and let go of."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.device_guards import device_findings
from heteromig.core.guards import Status
from heteromig.core.phases import MEASURING_PHASES, Keeping, Phase, WorkerState
from heteromig.core.spec import Preparation, RunSpec
from heteromig.core.units import NS_PER_S
from tests.core import histories, invariants
from tests.core.histories import BASELINE, CUT, KEEPING, SHARED
from tests.core.world import BACKGROUND, MAIN, Cast, Incident, Trouble, World

STOPS = (ef.CleanStop, ef.Terminate, ef.Kill)


def play(world: World) -> World:
    world.finish()
    invariants.check(world.run.view.spec, world.steps)
    return world


def stopped(world: World) -> set[int]:
    return {index for effect in world.effects if isinstance(effect, STOPS) for index in effect.workers}


def released(world: World) -> set[int]:
    return {worker.index for worker in world.run.view.workers if worker.state is WorkerState.RELEASED}


def test_timed_backgrounds_go_on_after_a_good_run() -> None:
    world = play(World(KEEPING))
    assert world.verdict.status == "valid"
    assert released(world) == {1, 2}
    assert stopped(world) == set()
    assert set(world.processes_left) == {1, 2}
    observed = [effect.workers for effect in world.effects if isinstance(effect, ef.ObserveWorkers)]
    assert observed == [(1, 2), (1, 2)], "at once, and again when a log that is merely late would have been seen"
    assert all(worker.still_timed_ns is not None for worker in world.run.view.backgrounds)


def test_backgrounds_of_the_run_before_are_no_strangers_and_were_spawned_when_they_were() -> None:
    world = World(KEEPING).go_to(Phase.BACKGROUND_STARTING)
    world.tell(ev.WorkerSpawned(0, 1, 1010, 1011, since_ns=5))
    worker = world.run.view.worker(1)
    assert worker is not None
    assert worker.spawned_ns == 5


def buffer_s(taken_over: tuple[int, ...], *, before_s: float) -> float:
    """What main waits where these backgrounds were started so long before the run, and the others by it."""
    world = World(KEEPING)
    world.tell(ev.ClocksRead(0, 0))
    begun_ns = world.now_ns
    world.go_to(Phase.BACKGROUND_STARTING)
    while any(worker.pid is None for worker in world.run.view.backgrounds):
        assert world.go_on()
    for index in taken_over:
        since_ns = begun_ns - round(before_s * NS_PER_S)
        world.tell(ev.WorkerSpawned(0, index, 1000 + 10 * index, 1001 + 10 * index, since_ns=since_ns))
    world.go_to(Phase.BUFFERING)
    (armed,) = [
        effect for effect in world.effects if isinstance(effect, ef.ArmTimer) and effect.timer is ev.Timer.BUFFER
    ]
    return armed.after_s


def test_the_buffer_counts_what_backgrounds_did_beside_earlier_runs() -> None:
    assert buffer_s((1, 2), before_s=900) == 0.0
    assert 0.0 < buffer_s((1, 2), before_s=0.5) < 2.5
    assert buffer_s((1,), before_s=900) == 3.0, "the other one is new"


def test_main_waits_for_no_background_where_there_is_none() -> None:
    world = World(BASELINE).go_to(Phase.MAIN_RUNNING)
    (armed,) = [
        effect for effect in world.effects if isinstance(effect, ef.ArmTimer) and effect.timer is ev.Timer.BUFFER
    ]
    assert armed.after_s == 0.0


def test_the_slices_may_be_busy_with_ours_at_the_beginning() -> None:
    ours = histories.occupant(1011, 1010, histories.CONTROLLER_PID)
    busy = histories.sample(1_000 * 10**9, (ours,), (ours,), ())
    alone = replace(BASELINE, keeps_backgrounds=True)  # which has none that could be there
    for spec, phase in (
        (KEEPING, Phase.BUILDING),
        (histories.SPEC, Phase.DISCOVERING),
        (alone, Phase.DISCOVERING),
    ):
        world = World(spec)
        world.go_on()
        world.tell(ev.SlicesDiscovered(0, histories.inventory(), (0, 1)))
        world.tell(ev.GpusLocked(0))
        world.tell(ev.SampleTaken(0, busy))
        assert world.run.phase is phase


@pytest.mark.parametrize("phase", MEASURING_PHASES)
def test_only_the_background_that_failed_is_lost(phase: Phase) -> None:
    died = Incident(phase, 0.5, ev.WorkerExited(0, 1, 1, None))
    world = play(World(KEEPING, incidents=(died,)))
    assert world.verdict.exit_code == 5
    assert released(world) == {2}
    assert stopped(world) == ({0} if phase is Phase.MAIN_RUNNING else set())


def test_a_background_that_has_not_begun_is_stopped() -> None:
    world = play(World(KEEPING, cast=Cast(others=((1, replace(BACKGROUND, begins_s=None)),))))
    assert world.verdict.exit_code == 6
    assert released(world) == {2}
    assert 1 in stopped(world)


def test_a_main_that_fails_takes_nobody_along() -> None:
    world = play(World(KEEPING, cast=Cast(main=replace(MAIN, dies_s=2.0, exit_code=1))))
    assert world.verdict.exit_code == 5
    assert released(world) == {1, 2}


@pytest.mark.parametrize(
    "incident",
    [
        Incident(Phase.MAIN_RUNNING, 1.0, ev.SignalReceived(0, 15)),
        Incident(Phase.MAIN_RUNNING, 1.0, ev.DeviceFaulted(0, "Xid 79")),
        Incident(Phase.MAIN_RUNNING, 1.0, Trouble.FOREIGN_PROCESS),
        Incident(Phase.DRAINING, 0.1, ev.SignalReceived(0, 2)),
    ],
)
def test_signals_and_device_faults_end_them_all(incident: Incident) -> None:
    world = play(World(KEEPING, incidents=(incident,)))
    assert released(world) == set()
    assert stopped(world) >= {1, 2}


KEPT = pytest.mark.parametrize("spec", [replace(CUT, keeps_backgrounds=True), replace(SHARED, keeps_backgrounds=True)])


def restores(world: World) -> int:
    return sum(isinstance(effect, ef.RestoreDevices) for effect in world.effects)


@KEPT
def test_what_was_prepared_goes_on_with_them(spec: RunSpec) -> None:
    world = play(World(spec))
    assert (world.verdict.status, released(world), restores(world)) == ("valid", {1, 2}, 0)
    assert world.run.view.keeping is Keeping.HANDED_ON
    (done,) = [move for move in world.run.transitions if move.destination is Phase.VALIDATING]
    assert done.findings[-1].evidence == "the GPU stays as it is for the next run"


def test_it_goes_on_where_main_is_alone_as_well() -> None:
    world = play(World(replace(BASELINE, keeps_backgrounds=True, preparation=Preparation.LAYOUT)))
    assert (world.verdict.status, restores(world)) == ("valid", 0)
    assert world.run.view.keeping is Keeping.HANDED_ON


@KEPT
@pytest.mark.parametrize(
    "incident",
    [
        Incident(Phase.MAIN_RUNNING, 1.0, ev.SignalReceived(0, 15)),
        Incident(Phase.MAIN_RUNNING, 1.0, Trouble.KEEPER_DIES),
        Incident(Phase.DRAINING, 0.1, ev.SignalReceived(0, 2)),
        Incident(Phase.DRAINING, 0.1, Trouble.KEEPER_DIES),
    ],
)
def test_what_ends_them_all_has_the_gpu_taken_back(spec: RunSpec, incident: Incident) -> None:
    world = play(World(spec, incidents=(incident,)))
    assert (released(world), world.processes_left) == (set(), ())
    assert restores(world) == 1


@KEPT
def test_a_keeper_that_dies_after_they_were_released_has_the_gpu_taken_back(spec: RunSpec) -> None:
    world = World(spec).go_to(Phase.DRAINING)
    while released(world) != {1, 2}:
        world.go_on()
    assert world.run.phase is Phase.DRAINING
    world.tell(ev.KeeperLost(0, "the keeper ended"))
    play(world)
    assert (world.verdict.exit_code, restores(world)) == (7, 1)


@KEPT
def test_where_nobody_is_released_the_gpu_is_taken_back(spec: RunSpec) -> None:
    nobody = replace(BACKGROUND, begins_s=None)
    world = play(World(spec, cast=Cast(background=nobody)))
    assert (released(world), restores(world)) == (set(), 1)


@KEPT
def test_a_gpu_on_which_somebody_is_left_does_not_go_on(spec: RunSpec) -> None:
    immortal = replace(MAIN, ends_s=None, clean_stop_s=None, term_s=None, kill_s=None)
    world = play(World(spec, cast=Cast(main=immortal)))
    assert sorted(world.processes_left) == [0, 1, 2]
    assert (world.verdict.exit_code, restores(world)) == (5, 1)


def test_a_gpu_that_the_run_could_not_use_does_not_go_on() -> None:
    spec = replace(BASELINE, keeps_backgrounds=True, preparation=Preparation.LAYOUT)
    world = play(World(replace(spec, main=replace(spec.main, slice="7g.80gb"))))
    assert (world.verdict.exit_code, restores(world)) == (2, 1)


def test_one_that_had_to_be_stopped_hard_takes_nobody_along() -> None:
    slow = replace(BACKGROUND, begins_s=None, clean_stop_s=None)
    world = play(World(replace(SHARED, keeps_backgrounds=True), cast=Cast(others=((1, slow),))))
    worker = world.run.view.worker(1)
    assert worker is not None
    assert (worker.signal, worker.stopped_by) == (15, "TERM")
    assert (world.verdict.exit_code, released(world), restores(world)) == (6, {2}, 0)


@pytest.mark.parametrize(("how", "left"), [((1, None), {2}), ((None, 11), set()), ((139, None), set())])
def test_a_client_that_dies_hard_takes_all_along(how: tuple[int | None, int | None], left: set[int]) -> None:
    died = Incident(Phase.MAIN_RUNNING, 0.5, ev.WorkerExited(0, 1, *how))
    world = play(World(replace(SHARED, keeps_backgrounds=True), incidents=(died,)))
    assert (released(world), restores(world)) == (left, 0 if left else 1)
    alone = play(World(KEEPING, incidents=(died,)))
    assert released(alone) == {2}, "on a slice of its own it disturbs nobody"


def test_a_background_that_ends_in_the_last_moment_is_reaped_as_any_other() -> None:
    world = World(KEEPING).go_to(Phase.DRAINING)
    world.tell(ev.WorkerExited(0, 1, 0, None))
    world.finish()
    invariants.check(KEEPING, world.steps)
    assert released(world) == {2}


def test_one_that_leaves_its_timed_section_in_the_last_moment_is_stopped() -> None:
    world = World(KEEPING).go_to(Phase.DRAINING)
    world.tell(ev.TimedSectionEnded(0, 1))
    world.finish()
    assert released(world) == {2}
    assert stopped(world) == {1}


def test_nobody_is_released_who_was_not_asked_for() -> None:
    world = World(KEEPING).go_to(Phase.MAIN_RUNNING)
    world.tell(ev.WorkerReleased(0, 1))
    worker = world.run.view.worker(1)
    assert worker is not None
    assert worker.state is not WorkerState.RELEASED


def test_what_the_released_do_later_is_no_concern_of_this_run() -> None:
    world = play(World(KEEPING))
    before = world.run.view.workers
    world.tell(ev.TimedSectionEnded(0, 1))
    world.tell(ev.WorkerExited(0, 2, 1, None))
    assert world.run.view.workers == before


def test_a_shell_that_does_not_let_go_has_them_stopped() -> None:
    world = World(KEEPING).go_to(Phase.DRAINING)
    while not any(isinstance(effect, ef.ReleaseWorkers) for effect in world.effects):
        world.go_on()
    timer = next(
        effect for effect in world.effects if isinstance(effect, ef.ArmTimer) and effect.timer.value == "released"
    )
    world.tell(ev.DeadlinePassed(0, timer.timer, timer.entry))
    assert stopped(world) == {1, 2}


def test_whether_memory_came_back_is_not_judged() -> None:
    world = play(World(KEEPING))
    memory = [one for one in device_findings(world.run.view) if one.guard == "memory_returned"]
    assert {one.status for one in memory} == {Status.NOT_OBSERVABLE}
    assert {one.evidence for one in memory} == {"backgrounds may have run there before, and may go on"}
