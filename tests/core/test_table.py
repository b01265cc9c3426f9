"""The table itself: complete, spelt right, and safe from what its library can do behind one's back."""

from __future__ import annotations

import itertools
import logging
from typing import cast, get_args

import pytest
from transitions import MachineError, Transition

from heteromig.core import events as ev
from heteromig.core import guards
from heteromig.core.machine import ENGINE, ENTRY_ACTIONS, EVENTS, FACTS, REPLIES, TABLE, Run, diagram
from heteromig.core.phases import ACTIVE_PHASES, Phase
from tests.core.histories import SPEC, certificate


def rows(event: type[ev.Event], phase: Phase) -> list[Transition]:
    return list(ENGINE.events[event.__name__].transitions.get(phase.name, ()))


def guard_names(row: Transition) -> list[str]:
    return [getattr(condition.func, "__name__", "") for condition in row.conditions]


def test_triggers_are_exactly_the_events() -> None:
    assert {row["trigger"] for row in TABLE} == {event.__name__ for event in EVENTS}
    assert set(ENGINE.events) == {event.__name__ for event in EVENTS}
    assert set(EVENTS) == set(get_args(ev.AnyEvent)) == set(FACTS) | set(REPLIES)


def test_every_event_of_the_module_is_in_the_union() -> None:
    defined = {
        value
        for value in vars(ev).values()
        if isinstance(value, type) and issubclass(value, ev.Event) and value is not ev.Event
    }
    assert defined == set(EVENTS)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("fact", FACTS)
def test_every_fact_is_heard_in_every_phase(fact: type[ev.Event], phase: Phase) -> None:
    last = rows(fact, phase)[-1]
    assert last.dest is None
    assert guard_names(last) == []


def test_replies_are_heard_while_validating_only() -> None:
    assert {(reply, phase) for reply in REPLIES for phase in Phase if rows(reply, phase)} == {
        (reply, Phase.VALIDATING) for reply in REPLIES
    }


@pytest.mark.parametrize("phase", ACTIVE_PHASES)
@pytest.mark.parametrize("fact", FACTS)
def test_what_goes_wrong_is_asked_first(fact: type[ev.Event], phase: Phase) -> None:
    row = rows(fact, phase)[0]
    assert (row.dest, guard_names(row)) == (Phase.DRAINING.name, ["run_must_stop"])


def test_guards_are_those_of_the_guards_module_and_all_are_used() -> None:
    used = {name for event in EVENTS for phase in Phase for row in rows(event, phase) for name in guard_names(row)}
    public = {
        name
        for name, value in vars(guards).items()
        if callable(value) and getattr(value, "__module__", "") == guards.__name__ and not name.startswith("_")
    }
    assert used == public - {"Status", "Finding"}


def test_no_row_is_behind_one_that_is_always_taken() -> None:
    for event in EVENTS:
        for phase in Phase:
            unguarded = [position for position, row in enumerate(rows(event, phase)) if not row.conditions]
            catch_all = len(rows(event, phase)) - 1
            with_action = [position for position in unguarded if rows(event, phase)[position].after]
            assert set(unguarded) <= {catch_all, *with_action}
            assert len(with_action) <= 1


def test_each_phase_leads_to_the_next_and_the_last_to_nowhere() -> None:
    ways = {
        (phase.name, row.dest)
        for event in EVENTS
        for phase in Phase
        for row in rows(event, phase)
        if row.dest is not None
    }
    names = [phase.name for phase in Phase]
    onward = set(itertools.pairwise(names))
    to_draining = {(phase.name, Phase.DRAINING.name) for phase in ACTIVE_PHASES}
    assert ways == onward | to_draining


def test_each_phase_but_the_first_and_the_last_has_an_entry_action() -> None:
    assert set(ENTRY_ACTIONS) == set(Phase) - {Phase.DISCOVERING, Phase.FINISHED}


def test_the_diagram_shows_every_phase_and_every_way() -> None:
    text = diagram()
    for phase in Phase:
        assert f'state "{phase.value}" as {phase.name}' in text
    assert "DISCOVERING --> BUILDING: GpusLocked or SampleTaken [slices_locked & slices_idle & host_idle]" in text
    assert "MAIN_RUNNING --> DRAINING: anything wrong [run_must_stop]" in text
    assert "VALIDATING --> FINISHED: VerdictWritten\n" in text


# --- what the library offers and the table does not want --------------------------------------------------------------


def test_nothing_teleports() -> None:
    assert not [trigger for trigger in ENGINE.events if trigger.startswith("to_")]


def test_nothing_is_injected_into_a_run() -> None:
    run = Run(SPEC)
    assert ENGINE.models == []
    assert not [name for name in ("trigger", "may_RunStarted", "is_DISCOVERING", "RunStarted") if hasattr(run, name)]


def test_an_unknown_trigger_raises() -> None:
    class Unheard(ev.Event, frozen=True, tag=True):
        pass

    with pytest.raises(KeyError, match="Unheard"):
        Run(SPEC).handle(cast("ev.AnyEvent", Unheard(0)))


@pytest.mark.parametrize("reply", [ev.CertificateComputed(0, certificate()), ev.VerdictWritten(0)])
def test_an_answer_to_a_question_that_was_not_asked_raises(reply: ev.AnyEvent) -> None:
    run = Run(SPEC)
    with pytest.raises(MachineError, match=type(reply).__name__):
        run.handle(reply)
    assert run.phase is Phase.DISCOVERING


def test_two_runs_share_the_table_and_nothing_else() -> None:
    one, other = Run(SPEC), Run(SPEC)
    one.handle(ev.SignalReceived(1, 2))
    assert (one.phase, other.phase) == (Phase.DRAINING, Phase.DISCOVERING)
    assert other.view.reasons == ()
    assert other.transitions == []


def test_the_library_does_not_log_rejections() -> None:
    assert not logging.getLogger("transitions.core").isEnabledFor(logging.WARNING)
