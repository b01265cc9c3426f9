"""The named sets that guards and faults ask for."""

from __future__ import annotations

import pytest

from heteromig.core.phases import (
    ACTIVE_PHASES,
    LIVE_STATES,
    MEASURING_PHASES,
    TIMED_STATES,
    EvidenceLevel,
    Phase,
    WorkerState,
)

S = WorkerState


def test_phases_are_those_of_the_contract_in_order() -> None:
    assert [phase.value for phase in Phase] == [
        "discovering", "building", "background-starting", "buffering", "main-running", "draining", "validating",
        "finished",
    ]  # fmt: skip


def test_named_sets() -> None:
    assert tuple(Phase)[:5] == ACTIVE_PHASES
    assert MEASURING_PHASES == (Phase.BUFFERING, Phase.MAIN_RUNNING)
    assert set(WorkerState) - LIVE_STATES == {S.PLANNED, S.RELEASED, S.EXITED}
    assert {S.TIMED, S.BUSY} == TIMED_STATES


@pytest.mark.parametrize(
    ("level", "states"),
    [
        (EvidenceLevel.ANNOUNCED, {S.ANNOUNCED, S.TIMED, S.BUSY}),
        (EvidenceLevel.TIMED, {S.TIMED, S.BUSY}),
        (EvidenceLevel.BUSY, {S.BUSY}),
    ],
)
def test_a_level_is_reached_by_itself_and_by_stronger_ones(level: EvidenceLevel, states: set[WorkerState]) -> None:
    assert {state for state in WorkerState if level.reached_by(state)} == states
