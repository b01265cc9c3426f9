"""Random histories: whatever the world does or says, the invariants hold and the run comes to its end."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from heteromig.core import effects as ef
from heteromig.core import events as ev
from heteromig.core.machine import REPLIES, Run
from heteromig.core.phases import Phase
from heteromig.core.spec import RunSpec
from tests.core import histories, invariants, strategies
from tests.core.world import Cast, Incident, Place, World


class Wait(Struct, frozen=True):
    """Let the world go on for so many happenings."""

    happenings: int


class Say(Struct, frozen=True):
    """Tell the core something, true or not."""

    fact: ev.AnyEvent


WALKS = st.lists(st.builds(Wait, st.integers(1, 25)) | st.builds(Say, strategies.facts()), max_size=25)


def walk(world: World, actions: list[Wait | Say]) -> None:
    for action in actions:
        match action:
            case Wait():
                for _ in range(action.happenings):
                    world.go_on()
            case Say():
                world.tell(action.fact)


@given(strategies.specs(), strategies.casts(), strategies.places(), strategies.incidents())
@histories.examples(400)
def test_every_run_comes_to_its_end_and_keeps_the_invariants(
    spec: RunSpec, cast: Cast, place: Place, incidents: tuple[Incident, ...]
) -> None:
    world = World(spec, cast=cast, place=place, incidents=incidents).finish()
    invariants.check(spec, world.steps)
    invariants.builds_are_few(spec, world.steps)


@given(strategies.specs(), strategies.casts(), strategies.places(), WALKS)
@histories.examples(350)
def test_lies_and_late_facts_break_no_invariant(
    spec: RunSpec, cast: Cast, place: Place, actions: list[Wait | Say]
) -> None:
    world = World(spec, cast=cast, place=place)
    walk(world, actions)
    world.finish()
    walk(world, actions)
    invariants.check(spec, world.steps)


@given(strategies.specs(), strategies.casts(), WALKS, strategies.SIGNALS)
@histories.examples(150)
def test_a_signal_ends_any_prefix_with_its_own_exit_code(
    spec: RunSpec, cast: Cast, actions: list[Wait | Say], signum: int
) -> None:
    world = World(spec, cast=cast)
    walk(world, [action for action in actions if not _is_signal(action)])
    before = world.run.phase
    world.tell(ev.SignalReceived(0, signum))
    world.finish()
    invariants.check(spec, world.steps)
    if before not in {Phase.VALIDATING, Phase.FINISHED}:
        assert (world.verdict.status, world.verdict.exit_code) == ("aborted", 128 + signum)


@given(strategies.casts(), WALKS)
@histories.examples(100)
def test_after_two_signals_only_killing_is_left(cast: Cast, actions: list[Wait | Say]) -> None:
    world = World(histories.SPEC, cast=cast)
    walk(world, actions)
    for _ in range(2):
        world.tell(ev.SignalReceived(0, 2))
    told = len(world.steps)
    world.finish()
    invariants.check(histories.SPEC, world.steps)
    for step in world.steps[told:]:
        assert not any(isinstance(effect, (ef.CleanStop, ef.Terminate)) for effect in step.effects)


@given(st.lists(strategies.facts(), max_size=60))
@histories.examples(150)
def test_no_fact_is_refused_in_any_phase(facts: list[ev.AnyEvent]) -> None:
    run = Run(histories.SPEC)
    for number, fact in enumerate(facts):
        run.handle(fact)
        assert not isinstance(fact, REPLIES), number


def _is_signal(action: Wait | Say) -> bool:
    return isinstance(action, Say) and isinstance(action.fact, ev.SignalReceived)
