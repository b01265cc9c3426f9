"""The order of a series, and its index."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heteromig.comparing.series import Entry, Series, is_series, plan_order, read_series, write_series
from heteromig.core.errors import EvidenceError
from heteromig.core.record import Tool
from heteromig.core.spec import Goal
from tests.core.histories import examples

A, B = Goal.BASELINE, Goal.RUN


def series(runs: int = 1) -> Series:
    return Series(1, Tool("heteromig", "0"), "20260101T000000Z-resnet50-offline-repeat", plan_order(runs))


def test_one_run_lies_between_two_baselines() -> None:
    assert plan_order(1) == (A, B, A)


@given(st.integers(1, 20))
@examples(20)
def test_every_run_lies_between_two_baselines(runs: int) -> None:
    order = plan_order(runs)
    assert (order.count(B), order.count(A)) == (runs, runs + 1)
    assert all(order[place - 1] is order[place + 1] is A for place, goal in enumerate(order) if goal is B)


def test_what_comes_next_is_what_was_planned() -> None:
    one, ran = series(), []
    while (goal := one.next_goal) is not None:
        ran.append(goal)
        assert not one.is_complete
        one = one.after(Entry(goal, f"run{len(ran)}", 0))
    assert tuple(ran) == one.planned
    assert one.is_complete


@pytest.mark.parametrize("code", [3, 7, 9, 130])
def test_a_run_that_does_not_come_out_well_is_the_last(code: int) -> None:
    one = series(3).after(Entry(A, "first", 0)).after(Entry(B, "second", code))
    assert one.next_goal is None
    assert not one.is_complete


def test_the_index_comes_back_as_it_was_written(tmp_path: Path) -> None:
    one = series(2).after(Entry(A, "first", 0)).ended(5, "it died")
    assert not is_series(tmp_path)
    write_series(tmp_path, one)
    assert is_series(tmp_path)
    assert read_series(tmp_path) == one
    text = json.loads((tmp_path / "series.json").read_text())
    assert text["planned"] == ["baseline", "run", "baseline", "run", "baseline"]
    assert text["entries"] == [{"goal": "baseline", "run_dir": "first", "exit_code": 0}]


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"schema_version": 1}', b"\xff", b"[" * 100_000])
def test_an_index_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "series.json").write_bytes(text)
    with pytest.raises(EvidenceError, match="is not the index of a series"):
        read_series(tmp_path)
