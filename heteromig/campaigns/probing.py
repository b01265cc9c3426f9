"""A step of the planner as a run, and a run that has ended as what the planner is told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from heteromig.campaign.probes import SERVER, Confirm, Outcome, Probe, Side, TuneSettings
from heteromig.campaigns.directory import Wanted
from heteromig.comparing.measured import main_of
from heteromig.core import events as ev
from heteromig.core.phases import Phase
from heteromig.core.plan import automatic_duration_ms
from heteromig.core.record import RunRecord, VerdictRecord, WorkerRecord
from heteromig.core.spec import Drain, RunSpec
from heteromig.core.units import NS_PER_S
from heteromig.core.verdict import ExitCode, Verdict
from heteromig.harnesses import harness_of
from heteromig.logs.detail import DetailFacts
from heteromig.results.metrics import LATENCIES, QPS, primary_metric, read_figures

QUERIES, LATE = "result_query_count", "result_overlatency_query_count"
"""What LoadGen logs of Server (loadgen 6.0.17, results.cc)."""
_LATENCIES = frozenset(metric.name for metric in LATENCIES)
SEVERAL = 2
"""Backgrounds that are to outlast a run are asked for so many times as long, so that they last for a few."""
REACHED = 0.9
"""A rate of which less was answered is beyond main, whatever its own rule says. With random arrivals, 100 queries are
10 % more or fewer."""
LEAST_BACKGROUND_MS = 600_000
"""Where runs are short, they last for all of them: ten minutes hold 25 probes of 10 s."""


def spec_of(step: Wanted, specs: Mapping[Side, RunSpec]) -> RunSpec:
    """The run that the step asks for, out of those of both sides.

    Backgrounds, and what is prepared, go on when it is over.
    """
    spec = specs[step.side]
    main = replace(
        spec.main,
        duration_ms=round(1000 * step.duration_s),
        target_qps=step.rate_qps,
        most_over_latency=step.abort_above_misses,
    )
    timing, rules = spec.timing, harness_of(spec).rate_rules(spec)
    if step.abort_after_s is not None:
        limit_ms = min(timing.main_timeout_ms, round(1000 * step.abort_after_s) + rules.start_ms)
        timing = replace(timing, main_timeout_ms=limit_ms)
    background = spec.background
    beside = step.side is Side.BESIDE
    if beside and background.duration_ms is None:
        # By the full-length run, and by the queries that main must have, which take long at a low rate.
        queries_ms = round(1000 * rules.min_queries / step.rate_qps) if step.rate_qps is not None else 0
        lasting_ms = max(SEVERAL * (automatic_duration_ms(spec) + queries_ms), LEAST_BACKGROUND_MS)
        background = replace(background, duration_ms=min(lasting_ms, background.timeout_ms))
    return replace(
        spec,
        main=main,
        timing=timing,
        background=background,
        keeps_backgrounds=True,
        drain=Drain.KILL,
    )


class _Heard(Struct, frozen=True):
    """Main's heartbeats: the last one's counts, and how many samples were completed in a second; None: unknown."""

    completed: int = 0
    late: int | None = None
    qps: float | None = None


def probe_of(
    settings: TuneSettings,
    step: Wanted,
    record: RunRecord,
    events: Sequence[ev.AnyEvent],
    logged: DetailFacts | None = None,
) -> Probe | None:
    """What the run says of its rate; None where it says that there is no use in going on.

    `events` are those of its journal, `logged` is what main's LoadGen log says, where it left one.
    """
    main, verdict = main_of(record), record.verdict
    if main is None or verdict is None:
        return None
    heard = _heard(events, main.index)
    by_queue = logged is not None and logged.ended_by_queue
    too_long = step.abort_after_s is not None and _took_too_long(record, main, events)
    outcome = _outcome(step, main, verdict, heard, by_queue=by_queue, too_long=too_long)
    if outcome is None:
        return None
    figures = read_figures(main.scenario, main.metrics)
    reason = _reason(outcome, verdict, by_queue=by_queue and not _is_hopeless(step, heard))
    if outcome is Outcome.VALID and settings.verdicts_only and _is_short_of(step.rate_qps, figures.get(QPS.name)):
        outcome = Outcome.INVALID
        reason = f"main's rule holds, but {figures[QPS.name]:.5g} were answered in a second of {step.rate_qps:.5g}"
    measured = (outcome is not Outcome.ABORTED or by_queue) and bool(main.metrics)
    server = settings.scenario == SERVER
    late = main.metrics.get(LATE) if measured else heard.late
    if settings.verdicts_only or (logged is not None and not _same_percentile(settings, logged)):
        late = None  # what is late by another rule says nothing of this one
    queries = round(main.metrics.get(QUERIES, 0)) if measured and server else heard.completed
    misses = round(late) if server and late is not None and late <= queries else None  # more cannot be believed
    latency = primary_metric(settings.scenario, figures)
    return Probe(
        side=step.side,
        rate_qps=step.rate_qps,
        duration_s=step.duration_s,
        outcome=outcome,
        confirms=isinstance(step, Confirm),
        queries=queries,
        misses=misses,
        achieved_qps=figures.get(QPS.name) if measured else heard.qps,
        # That of a run that was ended is how long its queue was, and no latency of its rate.
        percentile_latency_ms=figures.get(latency)
        if latency in _LATENCIES and outcome is not Outcome.ABORTED
        else None,
        reason=reason,
    )


def _is_short_of(asked_qps: float | None, answered_qps: float | None) -> bool:
    return asked_qps is not None and answered_qps is not None and answered_qps < REACHED * asked_qps


def _is_hopeless(step: Wanted, heard: _Heard) -> bool:
    """Whether heteromig ended it for its late queries. LoadGen's queue fills up as well while main is being ended."""
    most = step.abort_above_misses
    return most is not None and heard.late is not None and heard.late > most


def _reason(outcome: Outcome, verdict: VerdictRecord, *, by_queue: bool) -> str:
    if outcome is Outcome.VALID:
        return ""
    if outcome is Outcome.ABORTED and by_queue:
        return "LoadGen ended it, because so many queries were outstanding that too many of them were late"
    return why_of(verdict)


def _same_percentile(settings: TuneSettings, logged: DetailFacts) -> bool:
    said = logged.latency_percentile
    return settings.scenario != SERVER or said is None or math.isclose(said, settings.percentile, abs_tol=1e-9)


def why_of(verdict: VerdictRecord | Verdict | None) -> str:
    """The weightiest reason of a verdict, as a sentence without its end."""
    return verdict.reasons[0].sentence.rstrip(".") if verdict is not None and verdict.reasons else "no reason is known"


def _outcome(
    step: Wanted,
    main: WorkerRecord,
    verdict: VerdictRecord,
    heard: _Heard,
    *,
    by_queue: bool,
    too_long: bool,
) -> Outcome | None:
    code = verdict.exit_code
    if code == ExitCode.VALID:
        return Outcome.VALID
    if code == ExitCode.INVALID:
        by_queue = by_queue and step.abort_above_misses is not None
        return Outcome.ABORTED if by_queue or _is_hopeless(step, heard) else Outcome.INVALID
    # Only a background's fault can be forgiven: one of main, or of a build, is there at any rate.
    neighbours = code == ExitCode.WORKER and not any(one.fatal for one in verdict.reasons if one.exit_code == code)
    if code == ExitCode.WORKER and not neighbours and too_long:
        return Outcome.ABORTED
    # A device that refuses before main began does so again.
    device = code == ExitCode.DEVICE and main.pid is not None
    passing = code in {ExitCode.OVERLAP, ExitCode.START_TIMEOUT, ExitCode.INCONCLUSIVE}
    return Outcome.SPOILED if neighbours or device or passing else None


def _heard(events: Sequence[ev.AnyEvent], main: int) -> _Heard:
    beats = [event for event in events if isinstance(event, ev.ProgressMade) and event.worker == main]
    if not beats:
        return _Heard()
    last = beats[-1]
    begun = [event.at_ns for event in events if isinstance(event, ev.TimedSectionBegan) and event.worker == main]
    # From beat to beat, both of which were heard equally late; where there is one only, from the beginning.
    since = (beats[0].at_ns, beats[0].completed_samples) if len(beats) > 1 else (begun[0], 0) if begun else None
    qps = None
    if since is not None and last.at_ns > since[0] and last.completed_samples > since[1]:
        qps = (last.completed_samples - since[1]) * NS_PER_S / (last.at_ns - since[0])
    return _Heard(completed=last.completed_samples, late=last.over_latency, qps=qps)


def _took_too_long(record: RunRecord, main: WorkerRecord, events: Sequence[ev.AnyEvent]) -> bool:
    """Whether main reached its limit. A deadline of an earlier phase may pass while main runs, and means nothing."""
    running = {entry for entry, phase in enumerate(record.phases) if phase.name == Phase.MAIN_RUNNING.value}
    for event in events:
        match event:
            case ev.WorkerExited(worker=main.index):
                return False
            case ev.DeadlinePassed(timer=ev.Timer.PHASE_TIMEOUT) if event.entry in running:
                return True
            case _:
                pass
    return False
