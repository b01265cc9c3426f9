"""Tuning Offline: no search, but an expected rate that is neither too low for a verdict nor far too high."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from heteromig.campaign.probes import (
    Confirm,
    Done,
    Inconclusive,
    NotPossible,
    Outcome,
    Probe,
    RunProbe,
    Side,
    TuneSettings,
)
from heteromig.campaign.tuning import next_step
from tests.campaign.worlds import drive

ASKED = TuneSettings(scenario="offline", start_qps=1000.0, sides=(Side.BESIDE,))


def machine(capacity_qps: float) -> object:
    """What LoadGen makes of a program that answers so many samples a second, ended when the planner says so."""

    def run(step: RunProbe | Confirm) -> Probe:
        assert step.rate_qps is not None
        assert step.abort_after_s is not None
        took_s = 1.1 * step.rate_qps * step.duration_s / capacity_qps
        outcome = Outcome.ABORTED if took_s > step.abort_after_s else Outcome.VALID
        return Probe(
            side=step.side,
            rate_qps=step.rate_qps,
            duration_s=step.duration_s,
            outcome=Outcome.INVALID if took_s < step.duration_s else outcome,
            confirms=isinstance(step, Confirm),
            queries=round(min(took_s, step.abort_after_s) * capacity_qps),
            achieved_qps=capacity_qps,
        )

    return run


@pytest.mark.parametrize("capacity_qps", [0.4, 3.9, 444.4])
def test_whole_rates_are_rather_too_high(capacity_qps: float) -> None:
    step, _ = drive(replace(ASKED, start_qps=4.0, whole_rates=True), machine(capacity_qps))  # type: ignore[arg-type]
    assert isinstance(step, Done)
    assert step.answers[0].rate_qps == -(-capacity_qps // 1)


@pytest.mark.parametrize("start_qps", [10.0, 300.0, 440.0, 1000.0, 44_000.0])
def test_from_any_start_what_was_measured_is_expected_and_confirmed(start_qps: float) -> None:
    step, probes = drive(replace(ASKED, start_qps=start_qps), machine(444.4))  # type: ignore[arg-type]
    assert isinstance(step, Done)
    assert step.answers[0].rate_qps == 444.4
    assert step.answers[0].achieved_qps == (444.4,)
    assert "needs no search" in step.answers[0].why
    assert len(probes) <= 3


def test_confirmations_are_repeated_at_the_same_rate_and_their_spread_is_the_noise() -> None:
    short = Probe(
        side=Side.BESIDE, rate_qps=440.0, duration_s=60.0, outcome=Outcome.VALID, queries=1, achieved_qps=440.0
    )
    first = replace(short, duration_s=600.0, confirms=True, achieved_qps=450.0)
    asked = replace(ASKED, confirmations=2)
    again = next_step(asked, [short, first])
    assert isinstance(again, Confirm)
    assert (again.rate_qps, again.number) == (440.0, 2)
    done = next_step(asked, [short, first, replace(first, achieved_qps=441.0)])
    assert isinstance(done, Done)
    assert done.answers[0].noise == pytest.approx(450 / 441 - 1)


def test_a_run_that_was_faster_than_expected_is_repeated_with_what_it_measured() -> None:
    short = Probe(
        side=Side.BESIDE, rate_qps=440.0, duration_s=60.0, outcome=Outcome.VALID, queries=1, achieved_qps=400.0
    )
    failed = replace(short, duration_s=600.0, confirms=True, outcome=Outcome.INVALID, achieved_qps=450.0)
    step = next_step(ASKED, [short, failed])
    assert isinstance(step, Confirm)
    assert (step.rate_qps, step.number) == (450.0, 1)


def test_confirmations_that_never_pass_are_inconclusive_with_what_they_measured() -> None:
    failed = Probe(
        side=Side.BESIDE, rate_qps=440.0, duration_s=600.0, outcome=Outcome.INVALID, confirms=True, achieved_qps=900.0
    )
    step = next_step(ASKED, [failed] * 7 + [replace(failed, achieved_qps=None)])
    assert isinstance(step, Inconclusive)
    assert "900, unknown" in step.why


def test_runs_that_tell_no_rate_are_lowered_and_then_given_up() -> None:
    mute = Probe(side=Side.BESIDE, rate_qps=1000.0, duration_s=60.0, outcome=Outcome.ABORTED)
    step = next_step(ASKED, [mute])
    assert isinstance(step, RunProbe)
    assert step.rate_qps == 250.0
    assert isinstance(next_step(ASKED, [mute] * 16), NotPossible)
