"""The interference matrix: from what is known to what to run next."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.campaign.fingerprint import fingerprint, require_same
from heteromig.campaign.matrix import (
    BackgroundSet,
    Cell,
    CellRun,
    Ending,
    Finished,
    MatrixSettings,
    RunCell,
    Status,
    cells,
    expected_s,
    next_run,
    order,
    states,
)
from heteromig.campaign.probes import Side, TuneSettings
from heteromig.core.errors import UsageError

BUSY = BackgroundSet(name="busy", benchmarks=("bert", "dlrm", "bert"))
QUIET = BackgroundSet(name="quiet", benchmarks=("bert",))
ASKED = MatrixSettings(
    mains=("resnet50", "ssd-resnet34"),
    background_sets=(BUSY, QUIET),
    scenarios=("offline", "server"),
    isolated_s=60.0,
    beside_s=100.0,
)


def run_of(step: RunCell, ending: Ending = Ending.MEASURED, took_s: float | None = None) -> CellRun:
    name = f"{step.cell.main}-{step.cell.backgrounds.name}-{step.position}-{step.attempt}"
    return CellRun(
        cell=step.cell, position=step.position, ending=ending, run_id=name, took_s=took_s, reason="a fuse blew"
    )


def test_cells_are_mains_times_background_sets_times_scenarios() -> None:
    every = cells(ASKED)
    assert len(every) == 8
    assert every[0] == Cell(main="resnet50", scenario="offline", backgrounds=BUSY)
    assert len(set(every)) == 8


def test_one_neighbour_at_a_time_adds_each_that_is_not_a_set_already() -> None:
    names = [cell.backgrounds.name for cell in cells(replace(ASKED, mains=("rnnt",), one_at_a_time=True))]
    assert names == ["busy", "quiet", "only dlrm"] * 2


@given(repetitions=st.integers(1, 20))
def test_the_order_cancels_what_drifts_linearly(repetitions: int) -> None:
    sides = order(repetitions)
    alone = [position for position, side in enumerate(sides) if side is Side.ISOLATED]
    beside = [position for position, side in enumerate(sides) if side is Side.BESIDE]
    assert len(beside) == repetitions
    assert len(alone) == repetitions + 1
    assert sum(alone) * len(beside) == sum(beside) * len(alone)


def test_all_runs_in_their_order_and_the_time_left_falls_to_nothing() -> None:
    runs: list[CellRun] = []
    left = []
    while isinstance(step := next_run(ASKED, runs), RunCell):
        assert step.side is order(2)[step.position]
        left.append(step.remaining_s)
        runs.append(run_of(step))
    assert left[0] == expected_s(ASKED) == 8 * (3 * 60 + 2 * 100)
    assert left == sorted(left, reverse=True)
    assert left[-1] == 60.0
    assert len(runs) == 8 * 5
    assert {state.status for state in step.cells} == {Status.COMPLETE}
    assert all(None not in state.measured for state in step.cells)


def test_the_time_left_is_learned_from_runs_of_the_same_kind() -> None:
    first = next_run(ASKED, [])
    assert isinstance(first, RunCell)
    # 5 more isolated runs of the same main and scenario, of 6 in its two cells.
    assert expected_s(ASKED, [run_of(first, took_s=10.0)]) == expected_s(ASKED) - 60 - 5 * 50
    assert expected_s(ASKED, [run_of(first, Ending.FAILED, took_s=10.0)]) == expected_s(ASKED)


def test_a_failed_run_is_tried_again_and_then_its_cell_is_shown_as_failed() -> None:
    first = next_run(ASKED, [])
    assert isinstance(first, RunCell)
    runs = [run_of(first, Ending.INVALID)]
    second = next_run(ASKED, runs)
    assert isinstance(second, RunCell)
    assert (second.cell, second.position, second.attempt) == (first.cell, 0, 2)
    assert second.why.endswith("again because it was invalid: a fuse blew")
    runs.append(run_of(second, Ending.FAILED))
    third = next_run(ASKED, runs)
    assert isinstance(third, RunCell)
    assert third.cell == cells(ASKED)[1]
    state = states(ASKED, runs)[0]
    assert state.status is Status.FAILED
    assert state.reason == "failed 2 times: a fuse blew"


@settings(max_examples=60, deadline=None)
@given(data=st.data(), retries=st.integers(0, 3), repetitions=st.integers(1, 3))
def test_it_ends_and_goes_on_after_an_interruption(*, data: st.DataObject, retries: int, repetitions: int) -> None:
    asked = replace(ASKED, scenarios=("server",), most_retries=retries, repetitions=repetitions)
    runs: list[CellRun] = []
    while isinstance(step := next_run(asked, runs), RunCell):
        assert len(runs) < 4 * (2 * repetitions + 1) * (retries + 1)
        again = msgspec.json.decode(json.dumps(msgspec.to_builtins(runs)), type=list[CellRun])
        assert next_run(asked, again) == step
        assert step.attempt <= retries + 1
        runs.append(run_of(step, data.draw(st.sampled_from(Ending))))
    assert isinstance(step, Finished)
    for state in step.cells:
        assert (state.status is Status.COMPLETE) == (None not in state.measured)
        assert all(run is None or run.ending is Ending.MEASURED for run in state.measured)


def test_runs_of_another_matrix_are_refused() -> None:
    first = next_run(ASKED, [])
    assert isinstance(first, RunCell)
    with pytest.raises(UsageError, match="belongs to no cell"):
        next_run(replace(ASKED, mains=("rnnt",)), [run_of(first)])


def test_a_directory_of_other_settings_is_refused_and_the_difference_named() -> None:
    require_same(ASKED, replace(ASKED))
    other = replace(ASKED, repetitions=3)
    assert fingerprint(other) != fingerprint(ASKED)
    with pytest.raises(UsageError, match="repetitions was 2 and is 3"):
        require_same(ASKED, other)
    with pytest.raises(UsageError, match="begun with other settings"):
        require_same(ASKED, TuneSettings(scenario="offline"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mains": ()}, "at least one main"),
        ({"background_sets": ()}, "at least one main"),
        ({"background_sets": (BackgroundSet(name="none", benchmarks=()),)}, "is isolated"),
        ({"mains": ("rnnt", "rnnt")}, "named twice"),
        ({"background_sets": (BUSY, replace(QUIET, name="busy"))}, "named twice"),
        ({"repetitions": 0}, "repetitions"),
        ({"most_retries": -1}, "retries"),
        ({"beside_s": 0.0}, "more than 0 s"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(ASKED, **change)
