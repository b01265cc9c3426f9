"""A step as a run, and a run as what the planner is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from heteromig.campaign.probes import Confirm, Outcome, Probe, RunProbe, Side, TuneSettings
from heteromig.campaigns.directory import Wanted
from heteromig.campaigns.probing import probe_of, spec_of
from heteromig.core import events as ev
from heteromig.core.record import PhaseRecord, RunRecord
from heteromig.core.spec import Drain, Goal
from heteromig.core.units import NS_PER_S
from heteromig.core.verdict import Reason
from heteromig.harnesses import harness_of
from heteromig.logs.detail import DetailFacts, read_detail
from heteromig.runner.config import MainConfig
from tests.campaigns.stories import SIM, record, specs
from tests.views.records import make_record

STEP = RunProbe(side=Side.BESIDE, rate_qps=400.0, duration_s=10.0, why="the first rate", abort_above_misses=20)
LOGGED = {
    "result_query_count": 4000.0,
    "result_overlatency_query_count": 12.0,
    "result_completed_samples_per_sec": 399.5,
    "result_scheduled_samples_per_sec": 401.0,
    "result_99.00_percentile_latency_ns": 13_500_000.0,
}
"""What LoadGen logs of Server, and not all of it."""


def beat(second: int, completed: int, late: int | None, worker: int = 0) -> ev.ProgressMade:
    return ev.ProgressMade(
        at_ns=second * NS_PER_S, worker=worker, completed_samples=completed, samples_per_s=0.0, over_latency=late
    )


SERVER = TuneSettings("server", latency_limit_ms=15.0)


def told(
    step: Wanted,
    of: RunRecord,
    events: Sequence[ev.AnyEvent],
    settings: TuneSettings = SERVER,
    logged: DetailFacts | None = None,
) -> Probe | None:
    return probe_of(settings, step, of, events, logged)


BEATS = (beat(1, 10, 0), beat(2, 310, 5), beat(3, 610, 21), beat(4, 9999, 9999, worker=1))


# --- a step as a run --------------------------------------------------------------------------------------------------


def test_beside_keeps_its_backgrounds_for_longer_than_one_run() -> None:
    spec = spec_of(STEP, specs())
    assert (spec.goal, spec.keeps_backgrounds, spec.drain) == (Goal.RUN, True, Drain.KILL)
    assert (spec.main.duration_ms, spec.main.target_qps, spec.main.most_over_latency) == (10_000, 400.0, 20)
    assert spec.background.candidates
    assert spec.background.duration_ms is not None
    assert spec.background.duration_ms > 10 * spec.main.duration_ms


def test_backgrounds_outlast_the_queries_that_main_must_have() -> None:
    slow = spec_of(replace(STEP, rate_qps=1.0, duration_s=60.0), specs())
    least_ms = 1000 * harness_of(slow).rate_rules(slow).min_queries
    assert least_ms > 10 * slow.main.duration_ms, "that is what takes long"
    assert slow.background.duration_ms is not None
    assert slow.background.duration_ms > least_ms


def test_backgrounds_that_were_given_a_duration_have_it() -> None:
    both = specs()
    both[Side.BESIDE] = replace(both[Side.BESIDE], background=replace(both[Side.BESIDE].background, duration_ms=77_000))
    assert spec_of(STEP, both).background.duration_ms == 77_000


def test_isolated_is_a_baseline() -> None:
    spec = spec_of(replace(STEP, side=Side.ISOLATED), specs())
    assert (spec.goal, spec.background.candidates) == (Goal.BASELINE, ())
    assert spec.keeps_backgrounds, "it has none, but what is prepared for it goes on"


def test_a_run_that_may_take_so_long_gets_the_time_to_start_as_well() -> None:
    both = specs(replace(SIM, main=MainConfig(scenario="offline")))
    spec = spec_of(replace(STEP, abort_after_s=30.0, abort_above_misses=None), both)
    assert spec.timing.main_timeout_ms == 30_000 + 30_000
    assert spec.main.most_over_latency is None
    assert spec.main.target_qps == 400.0


def test_streams_are_given_no_rate() -> None:
    both = specs(replace(SIM, main=MainConfig(scenario="singlestream", target_qps=5.0)))
    step = Confirm(side=Side.BESIDE, rate_qps=None, duration_s=600.0, why="", number=1, of=1)
    assert spec_of(step, both).main.target_qps is None


# --- a run as a probe -------------------------------------------------------------------------------------------------


def test_a_valid_run() -> None:
    probe = told(STEP, record(0, metrics=LOGGED), BEATS)
    assert probe is not None
    assert (probe.outcome, probe.queries, probe.misses) == (Outcome.VALID, 4000, 12)
    assert (probe.achieved_qps, probe.percentile_latency_ms) == (399.5, 13.5)
    assert (probe.rate_qps, probe.confirms, probe.reason) == (400.0, False, "")


def test_a_confirmation_confirms() -> None:
    step = Confirm(side=Side.BESIDE, rate_qps=400.0, duration_s=600.0, why="", number=1, of=1)
    probe = told(step, record(0, metrics=LOGGED), ())
    assert probe is not None
    assert probe.confirms


def test_an_invalid_run_has_its_reason() -> None:
    probe = told(STEP, record(3, Reason(3, "Main is not VALID: too late."), metrics=LOGGED), ())
    assert probe is not None
    assert (probe.outcome, probe.misses, probe.reason) == (Outcome.INVALID, 12, "Main is not VALID: too late")


@pytest.mark.parametrize(("answered", "outcome"), [(399.0, Outcome.VALID), (300.0, Outcome.INVALID)])
def test_a_rate_that_was_not_answered_has_not_passed_by_a_rule_of_mains_own(answered: float, outcome: Outcome) -> None:
    by_verdicts = replace(SERVER, verdicts_only=True, latency_limit_ms=None)
    probe = told(STEP, record(0, metrics={"qps": answered}), (), by_verdicts)
    assert probe is not None
    assert probe.outcome is outcome
    assert ("300 were answered in a second of 400" in probe.reason) == (outcome is Outcome.INVALID)


def test_more_late_queries_than_queries_are_not_believed() -> None:
    metrics = {**LOGGED, "result_overlatency_query_count": 4001.0}
    probe = told(STEP, record(3, Reason(3, "Main is not VALID: too late."), metrics=metrics), ())
    assert probe is not None
    assert (probe.queries, probe.misses) == (4000, None)


def test_a_run_that_was_ended_tells_what_its_last_heartbeat_said() -> None:
    probe = told(STEP, record(3, Reason(3, "Main cannot be VALID any more.", fatal=True)), BEATS)
    assert probe is not None
    assert (probe.outcome, probe.queries, probe.misses, probe.achieved_qps) == (Outcome.ABORTED, 610, 21, 300.0)


def test_one_that_was_ended_at_its_first_heartbeat_is_measured_from_its_beginning() -> None:
    events = (ev.TimedSectionBegan(at_ns=NS_PER_S, worker=0), beat(3, 400, 21))
    probe = told(STEP, record(3, Reason(3, "Main cannot be VALID any more.")), events)
    assert probe is not None
    assert (probe.queries, probe.achieved_qps) == (400, 200.0)


AT = "2026-04-01T12:00:00.000Z"
ENTERED = ("discovering", "building", "background-starting", "buffering", "main-running", "draining")


def deadline(second: int, entry: int) -> ev.DeadlinePassed:
    return ev.DeadlinePassed(at_ns=second * NS_PER_S, timer=ev.Timer.PHASE_TIMEOUT, entry=entry)


def test_one_that_took_too_long_was_ended() -> None:
    step = replace(STEP, abort_after_s=30.0, abort_above_misses=None)
    offline = TuneSettings("offline")
    spawned = ev.WorkerSpawned(at_ns=0, worker=0, guardian_pid=1, pid=2)
    phases = tuple(PhaseRecord(name, AT, AT) for name in ENTERED)
    stalled = replace(
        record(5, Reason(5, "Main did not end within 60.0 s.", fatal=True), scenario="offline"), phases=phases
    )
    ended = told(step, stalled, (spawned, *BEATS, deadline(9, 4)), offline)
    assert ended is not None
    assert (ended.outcome, ended.achieved_qps, ended.misses) == (Outcome.ABORTED, 300.0, None)
    assert told(step, stalled, (deadline(9, 3), spawned, *BEATS), offline) is None, "another phase took too long"


def test_deadlines_that_mean_nothing_any_more_end_nobody() -> None:
    """Those of earlier phases pass while main runs, and main's own may pass once it has died."""
    step = replace(STEP, abort_after_s=30.0, abort_above_misses=None)
    offline = TuneSettings("offline")
    phases = tuple(PhaseRecord(name, AT, AT) for name in ENTERED)
    spawned = ev.WorkerSpawned(at_ns=0, worker=0, guardian_pid=1, pid=2)
    died = ev.WorkerExited(at_ns=4 * NS_PER_S, worker=0, exit_code=3, signal=None, last_line="")
    events = (spawned, deadline(2, 0), deadline(3, 3), *BEATS, died, deadline(9, 4))
    crashed = record(5, Reason(5, "Main exited with status 3.", fatal=True), scenario="offline")
    assert told(step, replace(crashed, phases=phases), events, offline) is None
    neighbour = replace(record(5, Reason(5, "bert died."), scenario="offline"), phases=phases)
    spoiled = told(step, neighbour, (spawned, deadline(2, 0), *BEATS, deadline(9, 4)), offline)
    assert spoiled is not None
    assert spoiled.outcome is Outcome.SPOILED


TOO_LONG = (
    ':::MLLOG {"key": "error_runtime", "value": "IssueQueryThread 0 Ending early: Too many outstanding queries. '
    'issued 9 outstanding 8", "time_ms": 1.0, "metadata": {"is_error": true}}\n'
)
PERCENTILE = ':::MLLOG {{"key": "effective_target_latency_percentile", "value": {}, "time_ms": 1.0}}\n'


def logged(tmp_path: Path, text: str) -> DetailFacts:
    (tmp_path / "log").write_text(text)
    return read_detail(tmp_path / "log")


def test_a_run_that_loadgen_ended_tells_its_late_queries_and_no_latency(tmp_path: Path) -> None:
    invalid = record(3, Reason(3, "Main is not VALID: too many things.", fatal=True), metrics=LOGGED)
    probe = told(STEP, invalid, (), logged=logged(tmp_path, TOO_LONG))
    assert probe is not None
    assert (probe.outcome, probe.queries, probe.misses) == (Outcome.ABORTED, 4000, 12)
    assert (probe.achieved_qps, probe.percentile_latency_ms) == (399.5, None)
    assert probe.reason.startswith("LoadGen ended it, because so many queries were outstanding")
    by_itself = told(replace(STEP, abort_above_misses=None), invalid, (), logged=logged(tmp_path, TOO_LONG))
    assert by_itself is not None
    assert by_itself.outcome is Outcome.INVALID, "by a limit that was not ours"


def test_a_run_that_heteromig_ended_has_its_reason_although_loadgen_ended_it_as_well(tmp_path: Path) -> None:
    """While main is being ended its queries stay unanswered, so that LoadGen's own limit is reached."""
    step = replace(STEP, abort_above_misses=1)
    ended = record(3, Reason(3, "Main cannot be VALID any more, and was ended.", fatal=True), metrics=LOGGED)
    probe = told(step, ended, BEATS, logged=logged(tmp_path, TOO_LONG))
    assert probe is not None
    assert (probe.outcome, probe.reason) == (Outcome.ABORTED, "Main cannot be VALID any more, and was ended")


@pytest.mark.parametrize(("percentile", "misses"), [(0.99, 12), (0.9, None)])
def test_what_is_late_by_another_rule_is_not_counted(tmp_path: Path, percentile: float, misses: int | None) -> None:
    probe = told(STEP, record(0, metrics=LOGGED), (), logged=logged(tmp_path, PERCENTILE.format(percentile)))
    assert probe is not None
    assert (probe.outcome, probe.misses) == (Outcome.VALID, misses)


def test_an_ordinary_program_tells_its_verdict_and_figures_that_have_our_names() -> None:
    verdicts = TuneSettings("server", latency_limit_ms=None, verdicts_only=True)
    own = record(0, metrics={"rounds": 400.0, "qps": 7.5, "p99": 3.0}, scenario="offline")
    probe = told(STEP, own, (), verdicts)
    assert probe is not None
    assert (probe.misses, probe.achieved_qps, probe.percentile_latency_ms) == (None, 7.5, 3.0)
    other = told(STEP, record(0, metrics={"rounds": 400.0}, scenario="offline"), (), verdicts)
    assert other is not None
    assert (other.achieved_qps, other.percentile_latency_ms) == (None, None)


@pytest.mark.parametrize("exit_code", [4, 5, 6, 7, 9])
def test_what_neighbours_and_devices_do_spoils_a_run(exit_code: int) -> None:
    probe = told(STEP, record(exit_code, Reason(exit_code, "Background 1 (bert) died.")), BEATS)
    assert probe is not None
    assert (probe.outcome, probe.reason) == (Outcome.SPOILED, "Background 1 (bert) died")


@pytest.mark.parametrize("exit_code", [1, 2, 130, 143])
def test_what_no_rate_changes_says_nothing_of_one(exit_code: int) -> None:
    assert told(STEP, record(exit_code, Reason(exit_code, "SIGINT was received.")), BEATS) is None


def test_main_that_fails_and_devices_that_refuse_end_it() -> None:
    assert told(STEP, record(5, Reason(5, "Main exited with status 1.", fatal=True)), ()) is None
    assert told(STEP, record(7, Reason(7, "The host is busy.", fatal=True), pid=None), ()) is None
    assert told(STEP, make_record(verdict=None), ()) is None
    assert told(STEP, make_record(workers=()), ()) is None
