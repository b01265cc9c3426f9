"""Tuning: what is known -> what to run next. A function of the settings and of all runs so far, and of nothing else.

Whoever executes it asks `next_step`, runs what it says, appends the outcome, and asks again; continuing after an
interruption is asking again. A spoiled run changes nothing that is known, so that it is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from heteromig.campaign.early_stopping import fewest_queries, most_misses
from heteromig.campaign.knee import Knee
from heteromig.campaign.offline import tune_offline
from heteromig.campaign.probes import (
    OFFLINE,
    SERVER,
    Answer,
    Bracket,
    Confirm,
    Done,
    Outcome,
    Probe,
    RunProbe,
    Side,
    Step,
    Stopped,
    TuneSettings,
)
from heteromig.campaign.server import bracket_of, has_passed, knee_of, tune_server


def next_step(settings: TuneSettings, probes: Sequence[Probe]) -> Step:
    """What to run next, or what came of it all.

    One side after the other, each from the answer of the one before.
    """
    known, step = _ask(settings, probes)
    return step if isinstance(step, RunProbe | Confirm) else replace(step, answers=known)


def answers(settings: TuneSettings, probes: Sequence[Probe]) -> tuple[Answer, ...]:
    """What is known so far, of the sides that are done with."""
    return _ask(settings, probes)[0]


def _ask(settings: TuneSettings, probes: Sequence[Probe]) -> tuple[tuple[Answer, ...], Step]:
    known: tuple[Answer, ...] = ()
    start_qps = settings.start_qps
    for side in settings.sides:
        step = _side(settings, side, start_qps, [probe for probe in probes if probe.side is side])
        if not isinstance(step, Answer):
            return known, step
        known += (step,)
        start_qps = step.rate_qps or start_qps
    return known, Done(answers=known)


def _side(settings: TuneSettings, side: Side, start_qps: float, probes: Sequence[Probe]) -> Step | Answer:
    runs = [probe for probe in probes if not spoiled(settings, probe)]
    vain = 0
    for probe in reversed(probes):
        if not spoiled(settings, probe):
            break
        vain += 1
    if vain >= settings.most_spoiled:
        reasons = "; ".join(dict.fromkeys(probe.reason or "no reason was given" for probe in probes[-vain:]))
        return Stopped(side=side, why=f"{vain} runs in a row came to nothing: {reasons}.")
    if settings.scenario == SERVER:
        step: Step | Answer = tune_server(settings, side, start_qps, runs)
    elif settings.scenario == OFFLINE:
        step = tune_offline(settings, side, start_qps, runs)
    else:
        step = _measure(settings, side, runs)
    if vain and isinstance(step, RunProbe | Confirm):
        return replace(step, why=f"{step.why}; again, because the last run came to nothing: {probes[-1].reason}")
    return step


def spoiled(settings: TuneSettings, probe: Probe) -> bool:
    """Whether a run says nothing about its rate: it says so itself, or it is INVALID for no reason that a rate has."""
    if probe.outcome is not Outcome.INVALID or settings.scenario != SERVER or probe.misses is None:
        return probe.outcome is Outcome.SPOILED
    if not probe.confirms and probe.queries < fewest_queries(probe.misses, settings.allowed_share):
        return False  # too few queries for a verdict, and their misses say what a short run is to say
    return probe.misses == 0 or probe.misses <= most_misses(probe.queries, settings.allowed_share)


def came_to_nothing(settings: TuneSettings, probe: Probe) -> bool:
    """Whether a run is to be done again when a campaign is continued: it said nothing, or it was a failed stream."""
    is_stream = settings.scenario not in {SERVER, OFFLINE}
    return spoiled(settings, probe) or (is_stream and probe.outcome is not Outcome.VALID)


def bracket(settings: TuneSettings, side: Side, probes: Sequence[Probe]) -> Bracket:
    """Between which rates the answer of a side is, as far as its runs tell; without ends where nothing is searched."""
    if settings.scenario != SERVER:
        return Bracket(low_qps=None, high_qps=None)
    return bracket_of(settings, telling(settings, side, probes))


def passed(settings: TuneSettings, probe: Probe) -> bool:
    """Whether a run passed, for what is searched: a short one may, although it is too short for LoadGen's verdict."""
    return not spoiled(settings, probe) and has_passed(settings, probe)


def knee(settings: TuneSettings, side: Side, probes: Sequence[Probe]) -> Knee | None:
    """The line that is fitted through the runs of a side; None where there is none, or nothing is searched."""
    return knee_of(settings, telling(settings, side, probes)) if settings.scenario == SERVER else None


def telling(settings: TuneSettings, side: Side, probes: Sequence[Probe]) -> list[Probe]:
    """The runs of a side that say something about their rate."""
    return [probe for probe in probes if probe.side is side and not spoiled(settings, probe)]


def _measure(settings: TuneSettings, side: Side, runs: Sequence[Probe]) -> Confirm | Answer | Stopped:
    """The streams send one query after the other: there is no rate to choose, and nothing to search."""
    passed = [run for run in runs if run.outcome is Outcome.VALID]
    if len(runs) > len(passed):
        return Stopped(
            side=side, why=f"a run was {runs[-1].outcome.value}, and no rate could change that: {runs[-1].reason}."
        )
    if len(passed) < settings.confirmations:
        return Confirm(
            side=side,
            rate_qps=None,
            duration_s=settings.full_s,
            why=f"{settings.scenario} needs no search: it is measured",
            number=len(passed) + 1,
            of=settings.confirmations,
        )
    return Answer(
        side=side,
        rate_qps=None,
        achieved_qps=tuple(run.achieved_qps for run in passed),
        percentile_latency_ms=tuple(run.percentile_latency_ms for run in passed),
        bracket=Bracket(low_qps=None, high_qps=None),
        noise=None,
        runs=len(runs),
        why=f"{settings.scenario} needs no search: {len(passed)} of {len(passed)} runs passed.",
    )
