"""Tuning: from what is known to what to run next."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.campaign.probes import (
    Answer,
    Bracket,
    Confirm,
    Done,
    Inconclusive,
    NotPossible,
    Outcome,
    Probe,
    RunProbe,
    Side,
    Stopped,
    TuneSettings,
)
from heteromig.campaign.tuning import bracket, knee, next_step, passed, spoiled
from heteromig.core.errors import UsageError
from tests.campaign.worlds import CliffServer, NoisyServer, SmoothServer, drive, server

BOTH = (Side.ISOLATED, Side.BESIDE)


def answer_of(step: object) -> Answer:
    assert isinstance(step, Done), step
    return step.answers[-1]


def probe(rate_qps: float, misses: int | None, queries: int = 24_000, **more: Any) -> Probe:
    valid = misses is not None and misses <= 0.009 * queries
    return replace(
        Probe(
            side=Side.BESIDE,
            rate_qps=rate_qps,
            duration_s=60.0,
            outcome=Outcome.VALID if valid else Outcome.INVALID,
            queries=queries,
            misses=misses,
            achieved_qps=rate_qps,
        ),
        **more,
    )


def confirmation(rate_qps: float, misses: int | None, **more: Any) -> Probe:
    return probe(rate_qps, misses, **{"queries": 240_000, "confirms": True, "duration_s": 600.0, **more})


# --- a server that behaves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_qps", [4.0, 30.0, 200.0, 390.0, 400.0, 430.0, 1000.0, 40_000.0])
def test_from_any_start_the_answer_is_just_below_the_knee(start_qps: float) -> None:
    step, probes = drive(server(start_qps=start_qps), SmoothServer())
    answer = answer_of(step)
    assert answer.rate_qps is not None
    assert 0.985 * 400 < answer.rate_qps <= 400
    assert sum(not one.confirms for one in probes) <= 10
    assert sum(one.confirms for one in probes) <= 2


@settings(max_examples=60, deadline=None)
@given(knee=st.floats(1, 50_000), slope=st.floats(15, 120), start=st.floats(-2, 2), sees=st.booleans())
def test_every_smooth_server_is_answered(knee: float, slope: float, start: float, *, sees: bool) -> None:
    assume(sees or knee > 100)  # without misses, verdicts are all there is, and few queries give none
    world = SmoothServer(knee_qps=knee, capacity_qps=knee * 1.1, slope=slope, sees=sees)
    step, _ = drive(server(start_qps=knee * 10**start), world)
    answer = answer_of(step)
    assert answer.rate_qps is not None
    # With few queries early stopping asks for much less than the allowed share.
    least = 0.97 if knee > 100 else 0.8
    assert least * knee < answer.rate_qps <= knee * 1.001


def test_the_steps_say_why() -> None:
    settings = server()
    probes: list[Probe] = []
    reasons = []
    while isinstance(step := next_step(settings, probes), RunProbe | Confirm):
        reasons.append(step.why)
        probes.append(SmoothServer()(step))
    assert reasons[0] == "the first rate"
    assert reasons[1] == "300 qps passed: 1.25 times higher"
    assert any("at 0.8% misses" in reason for reason in reasons)
    assert "where the fitted line crosses what is allowed" in reasons[-1]


def test_a_known_ceiling_saves_steps_and_one_that_is_wrong_does_no_harm() -> None:
    told = replace(server(start_qps=50.0), ceiling_qps=440.0)
    wrong = replace(server(start_qps=50.0), ceiling_qps=100.0)
    assert next_step(told, [probe(50.0, 0)]).why.startswith("half way between 50 qps and 440 qps")  # type: ignore[union-attr]
    for asked in (told, wrong):
        assert 395 < (answer_of(drive(asked, SmoothServer())[0]).rate_qps or 0) <= 400


def test_beside_backgrounds_the_search_begins_at_the_isolated_answer() -> None:
    settings = server(sides=BOTH)
    step, probes = drive(settings, SmoothServer())
    assert isinstance(step, Done)
    assert [answer.side for answer in step.answers] == list(BOTH)
    first = next(one for one in probes if one.side is Side.BESIDE)
    assert first.rate_qps == step.answers[0].rate_qps


def test_every_confirmation_must_pass() -> None:
    settings = server(confirmations=3)
    step, probes = drive(settings, SmoothServer())
    answer = answer_of(step)
    passed = [one for one in probes if one.confirms and one.rate_qps == answer.rate_qps]
    assert [one.outcome for one in passed] == [Outcome.VALID] * 3
    assert len(answer.achieved_qps) == 3


def test_a_run_is_ended_only_when_a_full_one_could_not_pass() -> None:
    step = next_step(server(start_qps=400.0), [])
    assert isinstance(step, RunProbe)
    assert step.abort_above_misses is not None
    assert 0.0095 * 240_000 < step.abort_above_misses < 0.01 * 240_000


def test_short_runs_grow_where_a_minute_has_too_few_queries() -> None:
    few = next_step(server(start_qps=10.0), [probe(20.0, 60, 600)])
    assert isinstance(few, RunProbe)
    assert few.duration_s == pytest.approx(2010 / few.rate_qps)
    far = next_step(server(start_qps=10.0), [probe(20.0, 0, 1200)])
    assert isinstance(far, RunProbe)
    assert far.duration_s == 60.0


def test_near_the_knee_a_short_run_is_long_enough_for_ten_late_spells_and_no_longer_than_a_third() -> None:
    some = next_step(server(), [probe(390.0, 200, spells=5), probe(420.0, 600, spells=5)])
    assert isinstance(some, RunProbe)
    assert 60 < some.duration_s <= 200
    rare = next_step(server(), [probe(390.0, 200, spells=1), probe(420.0, 600, spells=1)])
    assert isinstance(rare, RunProbe)
    assert rare.duration_s == 200.0


def test_a_harness_that_tells_no_misses_is_bisected() -> None:
    step, probes = drive(server(), SmoothServer(sees=False))
    answer = answer_of(step)
    assert answer.bracket.width <= 0.02
    assert answer.noise is None
    assert {one.misses for one in probes} == {None}
    assert "fitted" not in answer.why


def test_where_verdicts_are_all_there_is_nothing_is_ended_and_short_runs_stay_short() -> None:
    settings = replace(server(start_qps=10.0), verdicts_only=True, latency_limit_ms=None)
    step, probes = drive(settings, SmoothServer(sees=False))
    assert answer_of(step).bracket.width <= 0.02
    assert {one.duration_s for one in probes if not one.confirms} == {60.0}
    first = next_step(settings, [])
    assert isinstance(first, RunProbe)
    assert first.abort_above_misses is None


@pytest.mark.parametrize("knee", [1.5, 2.0, 3.3, 20.4, 77.0, 400.0, 40_000.5])
@pytest.mark.parametrize("start_qps", [1.0, 50.0, 600.0])
def test_whole_rates_stay_whole_and_are_tried_once(knee: float, start_qps: float) -> None:
    settings = replace(server(start_qps=start_qps), verdicts_only=True, whole_rates=True)

    def world(step: RunProbe | Confirm) -> Probe:
        assert step.rate_qps is not None
        assert step.rate_qps == round(step.rate_qps)
        outcome = Outcome.VALID if step.rate_qps <= knee else Outcome.INVALID
        return Probe(step.side, step.rate_qps, step.duration_s, outcome, confirms=isinstance(step, Confirm))

    step, probes = drive(settings, world)
    rate = answer_of(step).rate_qps
    assert rate is not None
    assert max(1, 0.98 * knee - 1) <= rate <= knee
    tried = [one.rate_qps for one in probes if not one.confirms]
    assert len(tried) == len(set(tried))


def test_whole_rates_with_a_line() -> None:
    step, probes = drive(replace(server(), whole_rates=True), SmoothServer(knee_qps=123.4, capacity_qps=140.0))
    rate = answer_of(step).rate_qps
    assert rate is not None
    assert 119 <= rate <= 123
    assert all(one.rate_qps == round(one.rate_qps or 0) for one in probes)


# --- a server that does not -------------------------------------------------------------------------------------------


def test_a_limit_below_the_service_time_is_not_possible_and_the_floor_is_told() -> None:
    step, probes = drive(server(), SmoothServer(floor_ms=120.0))
    assert isinstance(step, NotPossible)
    assert step.floor_ms == pytest.approx(120.0, rel=0.1)
    assert "100 ms are allowed" in step.why
    assert len(probes) <= 5
    unknown, _ = drive(replace(server(), latency_limit_ms=None), SmoothServer(floor_ms=120.0))
    assert isinstance(unknown, NotPossible)
    assert "allowed" not in unknown.why


def test_without_latencies_it_is_given_up_all_the_same() -> None:
    world = SmoothServer(floor_ms=120.0)
    step, probes = drive(server(), lambda step: replace(world(step), percentile_latency_ms=None))
    assert isinstance(step, NotPossible)
    assert step.floor_ms is None
    assert "no latency was measured" in step.why
    assert len(probes) <= 8


def test_a_search_that_never_passes_ends_when_its_short_runs_are_used_up() -> None:
    settings = replace(server(), most_probes=2)
    step = next_step(settings, [probe(300.0, None), probe(240.0, None)])
    assert isinstance(step, NotPossible)


def test_a_rate_that_fails_at_full_length_is_lowered_by_the_fitted_slope() -> None:
    short = [probe(390.0, 120, spells=99), probe(410.0, 500, spells=99), probe(400.0, 240, spells=99)]
    first = next_step(server(), short)
    assert isinstance(first, Confirm)
    assert first.rate_qps is not None
    second = next_step(server(), [*short, confirmation(first.rate_qps, 3000)])
    assert isinstance(second, Confirm)
    assert second.rate_qps is not None
    assert 0.97 * first.rate_qps < second.rate_qps < 0.999 * first.rate_qps


def test_a_failure_that_the_line_does_not_explain_still_lowers_the_rate() -> None:
    short = [probe(390.0, 120), probe(410.0, 500), probe(400.0, 240)]
    step = next_step(server(), [*short, confirmation(385.0, None)])
    assert isinstance(step, Confirm)
    assert step.rate_qps is not None
    assert 0.99 * 385.0 < step.rate_qps < 0.9976 * 385.0
    assert "below 385 qps, which failed at full length" in step.why


def test_each_failure_that_the_line_does_not_explain_lowers_the_rate_twice_as_far_as_the_one_before() -> None:
    runs = [probe(390.0, 120), probe(410.0, 500), probe(400.0, 240), confirmation(385.0, None)]
    rates = [385.0]
    for _ in range(10):
        step = next_step(replace(server(), most_confirmations=20), runs)
        assert isinstance(step, Confirm)
        assert step.rate_qps is not None
        rates.append(step.rate_qps)
        runs.append(confirmation(step.rate_qps, None))
    steps = [math.log(high / low) for high, low in itertools.pairwise(rates)]
    assert steps[1:6] == pytest.approx([2 * step for step in steps[:5]], rel=0.01)
    assert max(steps) == pytest.approx(0.4, rel=0.01)


@pytest.mark.parametrize("precision", [0.02, 0.01, 0.005])
@pytest.mark.parametrize("start_qps", [100.0, 300.0, 1000.0, 1200.0, 1275.0, 1290.0, 3000.0])
def test_a_cliff_is_found_in_few_runs(start_qps: float, precision: float) -> None:
    asked = replace(
        server(start_qps=start_qps),
        precision=precision,
        latency_limit_ms=130.0,
        full_s=20.0,
        probe_s=10.0,
        sides=(Side.ISOLATED,),
    )
    cliff = CliffServer()
    step, probes = drive(asked, cliff)
    answer = answer_of(step)
    assert answer.rate_qps is not None
    assert cliff.knee_qps / (1 + precision) < answer.rate_qps <= cliff.knee_qps
    assert sum(not one.confirms for one in probes) <= 7 + math.ceil(abs(math.log2(cliff.knee_qps / start_qps)))
    assert sum(one.confirms for one in probes) == 1


def test_a_line_that_says_far_more_is_late_than_is_leads_nowhere() -> None:
    runs = [probe(1270.0, 0), probe(1297.0, 300)]
    assert knee(server(), Side.BESIDE, runs[1:]) is not None
    assert knee(server(), Side.BESIDE, runs) is None


def test_what_was_answered_beyond_capacity_is_no_reason_to_fail_at_nearly_the_same_rate_again() -> None:
    """Of bert beside two neighbours on an H200, with a precision of 5 %."""
    asked = replace(server(), precision=0.05, full_s=8.0, probe_s=5.0)
    runs = [
        probe(1190.6, 0, 5951),
        probe(1315.2, 2000, 5400, achieved_qps=1207.3),
        probe(1267.7, 368, 2413, achieved_qps=1202.7),
    ]
    step = next_step(asked, runs)
    assert isinstance(step, RunProbe)
    assert step.rate_qps == pytest.approx(math.sqrt(1190.6 * 1267.7), rel=1e-4)


@pytest.mark.parametrize(("precision", "finds_more"), [(0.02, False), (0.005, True)])
def test_a_line_does_not_lead_beyond_what_failed_in_a_short_run(precision: float, finds_more: bool) -> None:  # noqa: FBT001
    """What was late of bert on an H200: the confirmation alone, with its few late queries, leads the line to 1327."""
    asked = replace(server(), precision=precision, latency_limit_ms=130.0, full_s=15.0, probe_s=10.0)
    short = [probe(1280.14, 0, 12_917), probe(1316.15, 1004, 11_719), probe(1298.02, 1222, 12_894)]
    runs = [*short, confirmation(1280.14, 39, queries=19_403, duration_s=15.0)]
    line = knee(asked, Side.BESIDE, runs)
    assert line is not None
    assert line.rate_qps > 1298.02
    step = next_step(asked, runs)
    if finds_more:
        assert isinstance(step, Confirm)
        assert step.rate_qps == pytest.approx(math.sqrt(1280.14 * 1298.02), rel=1e-4)
    else:
        assert answer_of(step).rate_qps == 1280.14


def test_a_confirmation_that_disproves_the_line_is_not_the_answer_where_the_bracket_is_wide() -> None:
    runs = [probe(1190.0, 100), probe(1297.0, 300), confirmation(1275.0, 0)]
    step = next_step(server(), runs)
    assert isinstance(step, Confirm)
    assert step.rate_qps == pytest.approx(math.sqrt(1275 * 1297), rel=1e-5)
    assert "half way between 1275 qps, which passed" in step.why
    narrow = [*runs, confirmation(1281.0, 48_000)]
    assert answer_of(next_step(server(), narrow)).rate_qps == pytest.approx(1275.0)


def test_a_bent_line_leads_no_lower_than_three_times_the_precision_below_what_passed() -> None:
    # As the model had it at a limit of 200 ms.
    seen = ((390.6, 24), (398.2, 14), (401.07, 70), (401.5, 2083), (403.9, 1030), (410.0, 336))
    step = next_step(server(), [probe(rate, late) for rate, late in seen])
    assert isinstance(step, Confirm)
    assert step.rate_qps == pytest.approx(401.07 * math.exp(-0.03), rel=1e-5)
    assert "below 401.07 qps, which passed; the fitted line leads far lower" in step.why


def test_between_a_pass_and_a_failure_far_apart_the_middle_is_tried() -> None:
    short = [probe(390.0, 120, spells=99), probe(410.0, 500, spells=99), probe(400.0, 240, spells=99)]
    step = next_step(server(), [*short, confirmation(395.0, None), confirmation(360.0, 500, spells=100)])
    assert isinstance(step, Confirm)
    assert step.rate_qps == pytest.approx(math.sqrt(395.0 * 360.0))
    assert "half way between 360 qps, which passed, and 395 qps, which failed" in step.why


def test_the_line_lowers_a_failure_by_three_times_the_precision_at_most() -> None:
    runs = [probe(390.0, 120), probe(395.0, 200), confirmation(394.0, 20_000, spells=5000)]
    step = next_step(replace(server(), precision=0.005), runs)
    assert isinstance(step, Confirm)
    assert step.rate_qps == pytest.approx(394.0 * math.exp(-0.015), rel=1e-5)
    assert "no lower at once" in step.why


def test_what_passed_most_often_is_told_where_nothing_passed_often_enough() -> None:
    asked = replace(server(confirmations=3), most_confirmations=5)
    outcomes = [(390.0, 300), (390.0, 3000), (380.0, 300), (380.0, 300), (380.0, 3000)]
    runs = [
        probe(385.0, None, outcome=Outcome.VALID),
        *(confirmation(*one, outcome=_valid(one[1])) for one in outcomes),
    ]
    step = next_step(asked, [replace(one, misses=None) for one in runs])
    assert isinstance(step, Inconclusive)
    assert "3 of 5 runs at full length passed, 380 qps most often, 2 of 3 times" in step.why
    assert step.noise is None


def _valid(misses: int) -> Outcome:
    return Outcome.VALID if misses < 2000 else Outcome.INVALID


def test_the_more_runs_must_pass_the_lower_they_begin() -> None:
    short = [probe(390.0, 120, spells=9), probe(410.0, 500, spells=9), probe(400.0, 240, spells=9)]
    rates = []
    for confirmations in (1, 3):
        step = next_step(replace(server(), most_probes=3, confirmations=confirmations, precision=0.05), short)
        assert isinstance(step, Confirm)
        assert step.rate_qps is not None
        rates.append(step.rate_qps)
    assert rates[1] < 0.99 * rates[0]


def test_a_rate_failed_at_full_length_when_one_of_its_runs_did() -> None:
    runs = [probe(380.0, 60), probe(410.0, 500), confirmation(395.0, 300), confirmation(395.0, 3000)]
    found = bracket(server(), Side.BESIDE, runs)
    assert found == Bracket(low_qps=380.0, high_qps=395.0)


def test_where_nothing_is_searched_there_is_no_bracket() -> None:
    assert bracket(TuneSettings("offline"), Side.BESIDE, []) == Bracket(low_qps=None, high_qps=None)


def test_confirmations_that_pass_are_not_cut_short_by_the_bound_on_their_number() -> None:
    asked = replace(server(confirmations=3), most_confirmations=3)
    runs = [probe(390.0, 120), probe(410.0, 500), confirmation(390.0, None), confirmation(380.0, 300)]
    second = next_step(asked, [*runs, confirmation(380.0, 300)])
    assert isinstance(second, Confirm)
    assert second.number == 3
    assert answer_of(next_step(asked, [*runs, *[confirmation(380.0, 300)] * 2])).rate_qps == 380.0


def test_short_runs_as_long_as_full_ones_are_not_repeated_where_a_confirmation_tells_as_much() -> None:
    runs = [probe(390.0, 60, spells=1), probe(420.0, 900, spells=2)]
    assert isinstance(next_step(server(), runs), RunProbe)
    assert isinstance(next_step(replace(server(), probe_s=600.0), runs), Confirm)


def test_near_the_knee_a_rate_that_fails_unforeseen_is_halved() -> None:
    failures = [probe(rate, 700, outcome=Outcome.ABORTED) for rate in (400.0, 380.0, 360.0)]
    step = next_step(server(), failures)
    assert isinstance(step, RunProbe)
    assert step.rate_qps == pytest.approx(180.0)


def test_on_a_noisy_machine_three_confirmations_are_found_all_the_same() -> None:
    asked = TuneSettings(
        scenario="server",
        start_qps=300.0,
        latency_limit_ms=15.0,
        full_s=10.0,
        probe_s=10.0,
        min_queries=1000,
        confirmations=3,
        precision=0.2,
    )
    ends = [drive(asked, NoisyServer(seed)) for seed in range(100)]
    answered = [probes for step, probes in ends if isinstance(step, Done)]
    assert len(answered) >= 97
    assert all(sum(one.side is side and not one.confirms for one in probes) <= 8 for _, probes in ends for side in BOTH)
    assert sorted(len(probes) for probes in answered)[90] <= 18


def test_without_a_line_a_failed_confirmation_is_lowered_by_the_precision() -> None:
    step = next_step(server(), [probe(390.0, None, outcome=Outcome.VALID), confirmation(390.0, None)])
    assert isinstance(step, Confirm)
    assert step.rate_qps == pytest.approx(390.0 * 0.99)


def test_a_passed_confirmation_far_below_the_knee_is_followed_by_a_higher_one() -> None:
    step = next_step(server(), [probe(390.0, 120), probe(410.0, 500), confirmation(370.0, 300, spells=100)])
    assert isinstance(step, Confirm)
    assert step.rate_qps is not None
    assert step.rate_qps > 380


def test_confirmations_that_never_pass_are_inconclusive_with_figures() -> None:
    world = SmoothServer()
    step, probes = drive(
        server(),
        lambda step: (
            replace(world(step), outcome=Outcome.INVALID, misses=None) if isinstance(step, Confirm) else world(step)
        ),
    )
    assert isinstance(step, Inconclusive)
    assert sum(one.confirms for one in probes) == 8
    assert "0 of 8 runs at full length passed" in step.why
    assert "qps with an error of" in step.why


def test_noise_larger_than_the_bracket_is_inconclusive_with_figures() -> None:
    asked = replace(server(), most_probes=6)
    shares = {380.0: 210, 390.0: 15, 397.0: 200, 398.0: 15, 402.0: 2200, 420.0: 300}
    scattered = [probe(rate, misses, spells=50) for rate, misses in shares.items()]
    step = next_step(asked, scattered)
    assert isinstance(step, Inconclusive)
    assert step.noise is not None
    assert step.noise > step.bracket.width
    assert "scatter by" in step.why


def test_short_runs_used_up_without_certainty_are_followed_by_a_confirmation() -> None:
    asked = replace(server(), most_probes=2)
    step = next_step(asked, [probe(300.0, 0), probe(390.0, 20)])
    assert isinstance(step, Confirm)
    bisected = next_step(asked, [probe(300.0, 0), probe(390.0, 0)])
    assert isinstance(bisected, Confirm)
    assert bisected.rate_qps == 390.0


def test_a_pass_above_a_failure_widens_the_bracket_and_is_told() -> None:
    runs = [probe(395.0, 300), probe(400.0, 200), probe(380.0, 60), probe(410.0, 500)]
    step = next_step(server(), runs)
    assert isinstance(step, RunProbe | Confirm)
    done = next_step(server(), [*runs, confirmation(397.0, 2000, spells=100)])
    answer = answer_of(done)
    assert "although 395 qps failed in another run" in answer.why
    # What full-length runs say outranks the short ones.
    assert answer.bracket == Bracket(low_qps=400.0, high_qps=410.0)


def test_a_confirmation_that_failed_outranks_short_runs_that_passed() -> None:
    runs = [probe(380.0, 60), probe(400.0, 150), probe(410.0, 500)]
    step = next_step(replace(server(), most_confirmations=1), [*runs, confirmation(399.0, 3000)])
    assert isinstance(step, Inconclusive)
    assert step.bracket == Bracket(low_qps=380.0, high_qps=399.0)


def test_a_bracket_without_an_end_is_infinitely_wide() -> None:
    assert Bracket(low_qps=None, high_qps=400.0).width == math.inf


def test_a_line_that_leads_out_of_the_bracket_is_kept_inside() -> None:
    low = next_step(
        server(), [probe(395.0, 100, spells=1), probe(400.0, 2000, 240_000, spells=9, outcome=Outcome.ABORTED)]
    )
    assert isinstance(low, RunProbe | Confirm)
    above = next_step(server(), [probe(300.0, 0), probe(390.0, 190, spells=1)])
    assert isinstance(above, RunProbe)
    assert above.rate_qps > 390.0
    below = next_step(server(), [probe(390.0, 150, 24_000, spells=1, outcome=Outcome.ABORTED)])
    assert isinstance(below, RunProbe)
    assert below.rate_qps < 390.0


# --- spoiled runs -----------------------------------------------------------------------------------------------------


def test_a_spoiled_run_is_repeated_with_its_reason() -> None:
    settings = server()
    bad = probe(300.0, None, 0, outcome=Outcome.SPOILED, reason="background 3 left its timed section")
    before, after = next_step(settings, []), next_step(settings, [bad])
    assert isinstance(before, RunProbe)
    assert isinstance(after, RunProbe)
    assert after.rate_qps == before.rate_qps
    assert "background 3 left its timed section" in after.why


def test_runs_that_keep_being_spoiled_stop_the_tuning_with_their_reasons() -> None:
    bad = probe(300.0, None, 0, outcome=Outcome.SPOILED, reason="background 3 was killed")
    mute = replace(bad, reason="")
    step = next_step(server(), [bad, mute, bad])
    assert isinstance(step, Stopped)
    assert step.why == "3 runs in a row came to nothing: background 3 was killed; no reason was given."
    assert isinstance(next_step(server(), [bad, bad, probe(300.0, 0), bad]), RunProbe)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (probe(300.0, 0, outcome=Outcome.INVALID), True),
        (probe(300.0, 10, outcome=Outcome.INVALID), True),
        (probe(300.0, 300), False),
        (probe(300.0, 235, outcome=Outcome.INVALID), False),
        (probe(3.0, 0, 180, outcome=Outcome.INVALID), False),
        (confirmation(0.5, 0, queries=300, outcome=Outcome.INVALID), True),
        (confirmation(400.0, 2300), False),
        (probe(300.0, None, outcome=Outcome.INVALID), False),
        (probe(300.0, 0), False),
    ],
)
def test_an_invalid_run_without_late_queries_to_blame_says_nothing_of_its_rate(run: Probe, *, expected: bool) -> None:
    assert spoiled(server(), run) is expected


def test_a_short_run_too_short_for_a_verdict_is_judged_by_its_share() -> None:
    step = next_step(server(start_qps=3.0), [probe(3.0, 0, 180, outcome=Outcome.INVALID)])
    assert isinstance(step, RunProbe)
    assert step.rate_qps > 3.0


# --- streams and settings ---------------------------------------------------------------------------------------------


def test_streams_need_no_search() -> None:
    asked = TuneSettings(scenario="singlestream", sides=(Side.ISOLATED,), confirmations=2)
    run = Probe(side=Side.ISOLATED, rate_qps=None, duration_s=600.0, outcome=Outcome.VALID, percentile_latency_ms=3.0)
    first = next_step(asked, [])
    assert isinstance(first, Confirm)
    assert first.rate_qps is None
    assert "needs no search" in first.why
    answer = answer_of(next_step(asked, [run, run]))
    assert answer.rate_qps is None
    assert answer.percentile_latency_ms == (3.0, 3.0)
    stopped = next_step(asked, [run, replace(run, outcome=Outcome.INVALID, reason="too few queries")])
    assert isinstance(stopped, Stopped)
    assert "too few queries" in stopped.why


def test_a_server_run_without_a_rate_is_a_bug() -> None:
    with pytest.raises(ValueError, match="without a rate"):
        next_step(server(), [replace(probe(1.0, 0), rate_qps=None)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"start_qps": 0.0}, "first rate must be above 0"),
        ({"start_qps": math.nan}, "first rate must be above 0"),
        ({"ceiling_qps": 200.0}, "above the start"),
        ({"latency_limit_ms": 0.0}, "latency limit"),
        ({"percentile": 1.0}, "percentile"),
        ({"probe_s": 700.0}, "probe lasts"),
        ({"precision": 0.0}, "precision"),
        ({"sides": ()}, "nothing is to be tuned"),
        ({"confirmations": 0}, "at least 1"),
        ({"most_confirmations": 2, "confirmations": 3}, "raise their limit"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(server(), **change)


# --- whatever the world answers ---------------------------------------------------------------------------------------

ANSWERS = st.fixed_dictionaries(
    {
        "outcome": st.sampled_from(Outcome),
        "share": st.one_of(st.none(), st.sampled_from((0.0, 1.0)), st.floats(0, 0.1)),
        "spells": st.one_of(st.none(), st.integers(0, 500)),
        "achieved": st.one_of(st.none(), st.floats(0.001, 5)),
        "latency_ms": st.one_of(st.none(), st.floats(0.1, 1000)),
        "done": st.floats(0, 1),
    }
)


def answered(step: RunProbe | Confirm, said: dict[str, float | None]) -> Probe:
    rate = step.rate_qps or 100.0
    queries = round(rate * step.duration_s * (said["done"] or 0.0))
    return Probe(
        side=step.side,
        rate_qps=step.rate_qps,
        duration_s=step.duration_s,
        outcome=Outcome(said["outcome"]),
        confirms=isinstance(step, Confirm),
        queries=queries,
        misses=None if said["share"] is None else round(said["share"] * queries),
        spells=None if said["spells"] is None else int(said["spells"]),
        achieved_qps=None if said["achieved"] is None else said["achieved"] * rate,
        percentile_latency_ms=said["latency_ms"],
        reason="so it was said",
    )


@settings(max_examples=150, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    scenario=st.sampled_from(("server", "offline", "singlestream")),
    confirmations=st.integers(1, 3),
    start_qps=st.floats(0.01, 10_000),
    ceiling=st.one_of(st.none(), st.floats(1.01, 100)),
    percentile=st.sampled_from((0.9, 0.97, 0.99, 0.999)),
)
def test_whatever_the_world_answers_it_ends_and_keeps_its_rules(
    *,
    data: st.DataObject,
    scenario: str,
    confirmations: int,
    start_qps: float,
    ceiling: float | None,
    percentile: float,
) -> None:
    asked = TuneSettings(
        scenario=scenario,
        start_qps=start_qps,
        latency_limit_ms=100.0,
        percentile=percentile,
        confirmations=confirmations,
        ceiling_qps=None if ceiling is None else start_qps * ceiling,
        most_probes=6,
        most_confirmations=4,
    )
    most = asked.most_probes + asked.most_confirmations + asked.confirmations
    bound = len(asked.sides) * most * asked.most_spoiled
    probes: list[Probe] = []
    while isinstance(step := next_step(asked, probes), RunProbe | Confirm):
        assert len(probes) < bound
        again = msgspec.json.decode(json.dumps(msgspec.to_builtins(probes)), type=list[Probe])
        assert next_step(asked, again) == step, "continuing after an interruption is another tuning"
        assert step.why
        _check_rate(asked, step, probes)
        probes.append(answered(step, data.draw(ANSWERS)))
    if isinstance(step, Done):
        assert [answer.side for answer in step.answers] == list(asked.sides)
    for answer in step.answers:
        good = [one for one in probes if one.confirms and one.side is answer.side and not spoiled(asked, one)]
        at_rate = [one.outcome for one in good if one.rate_qps == answer.rate_qps]
        if scenario == "offline":  # an earlier failure there was for another reason than the rate
            at_rate = at_rate[-confirmations:]
        assert at_rate == [Outcome.VALID] * len(at_rate)
        assert len(at_rate) >= confirmations
        if scenario == "server":
            passed = {
                one.rate_qps
                for one in good
                if [x.outcome for x in good if x.rate_qps == one.rate_qps].count(Outcome.VALID) >= confirmations
            }
            assert answer.rate_qps == max(rate for rate in passed if rate is not None)


def _check_rate(asked: TuneSettings, step: RunProbe | Confirm, probes: list[Probe]) -> None:
    """Short runs are inside the bracket, confirmations below whatever failed one."""
    if asked.scenario != "server":
        return
    assert step.rate_qps is not None
    runs = [one for one in probes if one.side is step.side and not spoiled(asked, one)]
    if isinstance(step, Confirm):
        failed = [one.rate_qps for one in runs if one.confirms and one.outcome is not Outcome.VALID]
        assert all(rate is not None and step.rate_qps < rate for rate in failed)
        return
    assert not any(one.confirms for one in runs)
    passed: list[float | None] = []
    failed = []
    for one in runs:
        fine = one.outcome is Outcome.VALID or (
            one.outcome is Outcome.INVALID
            and one.misses is not None
            and one.misses <= asked.allowed_share * one.queries
        )
        (passed if fine else failed).append(one.rate_qps)
    low = max((x for x in passed if x is not None and all(f is not None and x < f for f in failed)), default=0.0)
    high = min((x for x in failed if x is not None and all(p is not None and x > p for p in passed)), default=math.inf)
    assert low < step.rate_qps < high


# --- what is known, for people ----------------------------------------------------------------------------------------


def test_bracket_and_line_are_told_of_one_side_and_of_runs_that_say_something() -> None:
    asked = server(sides=(Side.ISOLATED, Side.BESIDE))
    step, probes = drive(asked, SmoothServer())
    assert isinstance(step, Done)
    alone, beside = step.answers
    assert bracket(asked, Side.ISOLATED, probes) == alone.bracket
    assert bracket(asked, Side.BESIDE, probes) == beside.bracket
    line = knee(asked, Side.BESIDE, probes)
    assert line is not None
    assert line.rate_qps == pytest.approx(400, rel=0.02)
    assert line.share < asked.allowed_share, "LoadGen has to be sure"
    nothing = [replace(probe, outcome=Outcome.SPOILED) for probe in probes]
    assert knee(asked, Side.BESIDE, nothing) is None
    assert not any(passed(asked, probe) for probe in nothing)
    for probe in probes:
        assert probe.rate_qps is not None
        assert passed(asked, probe) is (probe.rate_qps < 400)


def test_nothing_is_searched_offline_so_that_there_is_no_line() -> None:
    assert knee(TuneSettings(scenario="offline"), Side.ISOLATED, ()) is None
    found = bracket(TuneSettings(scenario="offline"), Side.ISOLATED, ())
    assert (found.low_qps, found.high_qps) == (None, None)
