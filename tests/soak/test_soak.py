"""A short soak in every run of the tests, and the judge of it, who must not believe a run that could not be valid."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.product import REPOSITORY
from tests.soak.injecting import Seen
from tests.soak.judging import judge
from tests.soak.planning import Behaviour, FaultPlan, Stroke, Truth, make_plan, should_be_valid, why_not_valid

S = 1_000_000_000
ALL_WELL = {"0.begun": 10 * S, "1.begun": 5 * S, "2.begun": 5 * S, "0.completing": 12 * S}


def test_a_short_soak_finds_no_false_valid_and_no_leak(tmp_path: Path) -> None:
    figures = tmp_path / "soak.md"
    done = subprocess.run(
        (sys.executable, "-m", "tests.soak", "--runs", "3", "--residents", "4", "--seed", "2", "--write", figures),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "False valid: 0" in figures.read_text()


@pytest.mark.parametrize(
    ("plan", "stamps", "why"),
    [
        (FaultPlan("it"), {**ALL_WELL, "0.completing": None}, "main did not run to its end"),
        (FaultPlan("it", {1: Behaviour("dies")}), {**ALL_WELL, "1.fault": 11 * S}, "dies 1.00 s before main's end"),
        (FaultPlan("it", {2: Behaviour("ends early")}), {**ALL_WELL, "2.completing": 11 * S}, "ends early 1.00 s"),
        (FaultPlan("it", {2: Behaviour("never starts")}), ALL_WELL, "background 2 never starts"),
        (FaultPlan("it", {0: Behaviour("is invalid")}), ALL_WELL, "main is invalid"),
        (FaultPlan("it"), {**ALL_WELL, "2.begun": 11 * S}, "background 2 began after main"),
    ],
)
def test_the_truth_says_when_a_run_cannot_be_valid(plan: FaultPlan, stamps: dict[str, int | None], why: str) -> None:
    truth = Truth({what: at_ns for what, at_ns in stamps.items() if at_ns is not None}, ())
    assert why in str(why_not_valid(plan, truth))
    seen = Seen(None, 0, truth, (), 1.0, 0, "")
    assert judge(plan, seen).false_valid
    assert not judge(plan, Seen(None, 5, truth, (), 1.0, 0, "")).false_valid


def test_what_comes_after_main_decides_nothing() -> None:
    plan = FaultPlan("it", {1: Behaviour("dies")}, (Stroke("controller", "SIGTERM", 1.0),))
    truth = Truth({**ALL_WELL, "1.fault": 13 * S}, (14 * S,))
    assert why_not_valid(plan, truth) is None
    assert "SIGTERM" in str(why_not_valid(plan, Truth(truth.stamps, (11 * S,))))


def test_plans_are_the_same_for_the_same_seed_and_some_are_of_nothing() -> None:
    plans = [make_plan(random.Random(seed)) for seed in range(200)]  # noqa: S311 - as in the soak
    assert plans == [make_plan(random.Random(seed)) for seed in range(200)]  # noqa: S311 - as in the soak
    assert 20 < sum(plan.name == "nothing" for plan in plans) < 80
    assert sum(should_be_valid(plan) for plan in plans) < 100
