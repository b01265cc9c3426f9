"""A GPU that is cut or shared for the run: prepared first, taken back last, whatever happens in between."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.machine import Run
from heteromig.core.phases import ACTIVE_PHASES, Keeping, Phase
from heteromig.core.spec import Drain
from tests.core import histories, invariants
from tests.core.histories import ABRUPT, CUT, SHARED, SPEC, inventory, slice_uuid
from tests.core.world import BACKGROUND, Cast, Incident, Keeper, Place, Step, Trouble, World

GOOD_WAY = tuple(Phase)
REFUSED = ev.PreparationFailed(0, "The layout does not fit.", 2)
NOT_BACK = "heteromig clean"


def play(
    keeper: Keeper | None = None, *incidents: Incident, cast: Cast | None = None, place: Place | None = None
) -> World:
    place = replace(place or Place(), keeper=keeper or Keeper())
    world = World(CUT, cast=cast, place=place, incidents=incidents).finish()
    invariants.check(CUT, world.steps)
    return world


def asked(world: World, kind: type[ef.Effect]) -> list[Step]:
    return [step for step in world.steps for effect in step.effects if isinstance(effect, kind)]


def sentences(world: World) -> str:
    return " ".join(reason.sentence for reason in world.verdict.reasons)


def restored(world: World) -> bool:
    how = world.run.view.restoration
    return isinstance(how, ev.DevicesRestored) and how.replaced == ((slice_uuid(0), "SIM-anew"),)


def dies(phase: Phase, after_s: float = 0.1) -> Incident:
    return Incident(phase, after_s, Trouble.KEEPER_DIES)


def interrupt(phase: Phase, after_s: float = 0.1) -> Incident:
    return Incident(phase, after_s, ev.SignalReceived(0, 2))


def test_a_good_run_begins_and_ends_with_the_keeper() -> None:
    world = play()
    assert world.phases == GOOD_WAY
    assert world.verdict.status == "valid"
    (prepare,), (sampler,), (restore,) = (
        asked(world, kind) for kind in (ef.PrepareDevices, ef.StartSampler, ef.RestoreDevices)
    )
    assert isinstance(prepare.event, ev.RunStarted)
    assert isinstance(sampler.event, ev.DevicesPrepared)
    assert isinstance(restore.event, ev.SampleTaken)
    assert world.run.view.prepared is not None
    assert restored(world)
    (done,) = [move for move in world.run.transitions if move.destination is Phase.VALIDATING]
    assert [finding.guard for finding in done.findings] == ["restore_answered"]


def test_the_run_keeps_to_the_gpu_that_was_prepared() -> None:
    world = play(place=Place(inventory=inventory(3, 7)))
    assert world.run.view.plan is not None
    assert {worker.slice_uuid for worker in world.run.view.plan.workers} == {slice_uuid(number) for number in range(3)}


def test_a_run_that_prepares_nothing_asks_nobody() -> None:
    world = World(SPEC).finish()
    assert not asked(world, ef.PrepareDevices)
    assert not asked(world, ef.RestoreDevices)
    (done,) = [move for move in world.run.transitions if move.destination is Phase.VALIDATING]
    assert done.findings[-1].evidence == "the GPU was taken as it is"


def test_what_cannot_be_prepared_ends_the_run_with_the_exit_code_of_its_kind() -> None:
    world = play(Keeper(refusal=REFUSED))
    assert world.phases == (Phase.DISCOVERING, Phase.DRAINING, Phase.VALIDATING, Phase.FINISHED)
    assert (world.verdict.exit_code, sentences(world)) == (2, "The layout does not fit.")
    assert not asked(world, ef.StartSampler)
    assert not asked(world, ef.RestoreDevices)


def test_a_refusal_that_crosses_a_signal_ends_the_waiting() -> None:
    world = play(Keeper(refusal=REFUSED), interrupt(Phase.DISCOVERING))
    assert world.verdict.exit_code == 130
    assert "The layout does not fit." in sentences(world)
    assert len(asked(world, ef.RestoreDevices)) == 1


def test_a_signal_while_the_gpu_is_being_cut_has_it_cut_back() -> None:
    world = play(None, interrupt(Phase.DISCOVERING))
    assert (world.verdict.exit_code, len(world.verdict.reasons)) == (130, 1)
    assert not asked(world, ef.StartSampler)
    told = [type(event) for event in world.events]
    assert told.index(ev.SignalReceived) < told.index(ev.DevicesPrepared) < told.index(ev.DevicesRestored)


def test_a_second_signal_does_not_leave_the_gpu_cut() -> None:
    world = play(Keeper(prepares_s=5.0), interrupt(Phase.DISCOVERING), interrupt(Phase.DRAINING, 1.0))
    assert restored(world)
    assert world.verdict.exit_code == 130


def test_a_keeper_that_hangs_is_not_waited_for_for_ever() -> None:
    world = play(Keeper(prepares_s=None))
    assert "The GPU was not prepared in time" in sentences(world)
    assert "The keeper of the GPU did not answer in time." in sentences(world)
    assert NOT_BACK in sentences(world)
    assert world.verdict.exit_code == 7


@pytest.mark.parametrize("phase", ACTIVE_PHASES)
def test_a_keeper_that_dies_ends_the_run_and_has_a_successor(phase: Phase) -> None:
    world = play(None, dies(phase, 0.0), place=Place(engines_cached=False))
    assert (world.verdict.exit_code, sentences(world)) == (7, "the keeper ended")
    assert restored(world)
    assert world.phases[-4:] == (phase, Phase.DRAINING, Phase.VALIDATING, Phase.FINISHED)


def test_a_keeper_that_dies_while_backgrounds_may_finish_ends_the_waiting() -> None:
    spec = replace(CUT, drain=Drain.WAIT)
    world = World(spec, incidents=(dies(Phase.DRAINING),)).finish()
    invariants.check(spec, world.steps)
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"clean stop"}
    assert world.verdict.exit_code == 7
    (lost,) = [step for step in world.steps if isinstance(step.event, ev.KeeperLost)]
    assert any(isinstance(effect, ef.CleanStop) for effect in lost.effects)


def test_a_keeper_that_dies_while_it_takes_the_gpu_back_is_noted_and_has_a_successor() -> None:
    world = World(CUT).go_to(Phase.DRAINING)
    while world.run.view.keeping is not Keeping.RESTORING:
        world.go_on()
    world.tell(ev.KeeperLost(0, "the keeper ended"))
    assert world.run.phase is Phase.DRAINING
    world.finish()
    invariants.check(CUT, world.steps)
    assert world.verdict.status == "valid"
    assert world.run.view.notes == ("the keeper ended",)
    assert len(asked(world, ef.RestoreDevices)) == 2


def test_a_successor_that_dies_as_well_is_the_last() -> None:
    world = World(CUT, place=Place(keeper=Keeper(restores_s=9.0))).go_to(Phase.DRAINING)
    while world.run.view.keeping is not Keeping.RESTORING:
        world.go_on()
    world.tell(ev.KeeperLost(0, "the keeper ended"))
    world.tell(ev.KeeperLost(0, "the other one ended"))
    assert world.run.phase is Phase.VALIDATING
    world.finish()
    invariants.check(CUT, world.steps)
    assert world.verdict.exit_code == 7
    assert sentences(world).startswith("the other one ended")
    assert NOT_BACK in sentences(world)


def test_what_cannot_be_taken_back_is_said() -> None:
    world = play(Keeper(failure="Somebody else has cut it."))
    assert (world.verdict.exit_code, sentences(world)) == (7, "Somebody else has cut it.")
    assert isinstance(world.run.view.restoration, ev.RestorationFailed)


def test_what_is_not_taken_back_in_time_is_said() -> None:
    world = play(Keeper(restores_s=None))
    assert world.verdict.exit_code == 7
    assert NOT_BACK in sentences(world)


def test_a_worker_that_is_not_reaped_does_not_keep_the_gpu_as_it_is() -> None:
    immortal = replace(BACKGROUND, clean_stop_s=None, term_s=None, kill_s=None)
    world = play(cast=Cast(others=((1, immortal),)))
    assert "could not be reaped" in sentences(world)
    assert restored(world)


def test_a_worker_that_is_reaped_late_has_nobody_look_again() -> None:
    slow = replace(BACKGROUND, clean_stop_s=None, term_s=None, kill_s=11.0)
    world = play(Keeper(restores_s=5.0), cast=Cast(others=((1, slow),)))
    assert restored(world)
    assert world.processes_left == ()


def test_a_lost_sampler_does_not_keep_the_gpu_as_it_is() -> None:
    lost = Incident(Phase.MAIN_RUNNING, 1.0, ev.SamplerLost(0, restarted=False, message="it died"))
    world = play(None, lost)
    assert world.verdict.exit_code == 9
    assert restored(world)
    late = Incident(Phase.DRAINING, 0.6, ev.SamplerLost(0, restarted=False, message="it died"))
    assert restored(play(None, Incident(Phase.DRAINING, 0.0, Trouble.SILENCE), late))


def test_what_the_lock_brought_to_light_is_noted() -> None:
    world = play(place=Place(lock_notes=("GPU-0 was left cut by a run that was killed.",)))
    assert world.run.view.notes == ("GPU-0 was left cut by a run that was killed.",)
    assert world.verdict.status == "valid"


def test_a_keeper_is_not_believed_what_it_cannot_know() -> None:
    run = Run(CUT)
    run.handle(ev.RunStarted(0, 0, histories.CONTROLLER_PID))
    run.handle(ev.DevicesRestored(1, "back"))
    assert run.view.keeping is Keeping.ASKED
    prepared = ev.DevicesPrepared(2, "GPU-0", "cut")
    assert ef.StartSampler() in run.handle(prepared)
    assert run.handle(ev.DevicesPrepared(3, "GPU-1", "cut again")) == []
    assert run.handle(ev.RunStarted(4, 0, histories.CONTROLLER_PID)) == []
    assert run.view.prepared == prepared
    run.handle(ev.PreparationFailed(5, "in use", 7))
    assert (run.phase, run.view.keeping) == (Phase.DRAINING, Keeping.KEPT)


def test_workers_on_a_shared_gpu_are_taken_off_it_before_they_are_killed() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    world = World(SHARED, cast=Cast(background=stubborn)).finish()
    invariants.check(SHARED, world.steps)
    rungs = [type(effect).__name__ for effect in world.effects if isinstance(effect, (ef.TerminateClients, ef.Kill))]
    assert rungs == ["TerminateClients", "Kill"]
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"KILL"}
    leaving = replace(stubborn, client_s=0.1)
    world = World(SHARED, cast=Cast(background=leaving)).finish()
    invariants.check(SHARED, world.steps)
    assert not asked(world, ef.Kill)
    assert {worker.stopped_by for worker in world.run.view.backgrounds} == {"terminate_client"}


def test_workers_on_slices_of_their_own_are_killed_at_once() -> None:
    stubborn = replace(BACKGROUND, clean_stop_s=None, term_s=None)
    world = World(SPEC, cast=Cast(background=stubborn)).finish()
    assert not asked(world, ef.TerminateClients)


def test_nobody_is_taken_off_when_those_that_got_term_are_gone() -> None:
    spec = replace(SHARED, catalog=ABRUPT.catalog)
    world = World(spec, cast=Cast(background=replace(BACKGROUND, clean_stop_s=4.8))).finish()
    invariants.check(spec, world.steps)
    assert ev.Timer.GRACE in {event.timer for event in world.events if isinstance(event, ev.DeadlinePassed)}
    assert not asked(world, ef.TerminateClients)
    assert world.verdict.status == "valid"
