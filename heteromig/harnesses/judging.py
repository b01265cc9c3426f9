"""Main's result out of LoadGen's own logs, as every harness with such logs judges it."""

from __future__ import annotations

import math
from pathlib import Path

from heteromig.core.overlap import MainResult
from heteromig.core.plan import Assignment
from heteromig.logs.detail import DetailFacts, read_summary
from heteromig.logs.loadgen import SUMMARY_LOG

_STREAMS = ("SingleStream", "MultiStream")
"""Scenarios without a latency constraint, as LoadGen spells them."""


def judge_performance(detail: Path, facts: DetailFacts, assignment: Assignment) -> MainResult:
    """Whether the LoadGen run of the log `detail`, of which `facts` were read, is VALID and the one that was asked for.

    Raises:
        EvidenceError: the summary beside it cannot be read.
    """
    metrics = {name: value for name, value in facts.metrics.items() if math.isfinite(value)}
    if facts.scenario is not None and facts.scenario.lower() != assignment.scenario:
        return MainResult(None, (f"{detail} is of scenario {facts.scenario}",), metrics)
    if facts.audited:
        return MainResult(None, (complaint_of_audit(detail),), metrics)
    if facts.min_duration_ms is not None and facts.min_duration_ms < assignment.duration_ms:
        why = f"{detail} is of a run with min_duration {facts.min_duration_ms} ms"
        return MainResult(None, (f"{why}, and {assignment.duration_ms} ms were asked for",), metrics)
    if facts.valid is None:
        return MainResult(None, (f"{detail} has no result_validity",), metrics)
    summary = detail.with_name(SUMMARY_LOG)
    if read_summary(summary) is not facts.valid:
        return MainResult(None, (f"{summary} and {detail} contradict each other",), metrics)
    valid = facts.valid and not facts.num_errors
    return MainResult(valid=valid, complaints=() if valid else _complaints(facts), metrics=metrics)


def complaint_of_audit(detail: Path) -> str:
    """What is wrong with a run that was to be none of a compliance test."""
    return (
        f"{detail} is of a compliance test: LoadGen found an audit.config where main ran, and took its settings from "
        "there. Remove it, or wait until the audit is over that needs it"
    )


def _complaints(facts: DetailFacts) -> tuple[str, ...]:
    """LoadGen's own words where it has some, and what it found unmet."""
    unmet = (
        (facts.min_duration_met, "the run was shorter than min_duration"),
        (facts.min_queries_met, "there were too few queries"),
        (facts.perf_constraints_met, "the latency constraint was missed"),
        (
            facts.early_stopping_met,
            "there were too few queries for early stopping to estimate the latency"
            if facts.scenario in _STREAMS
            else "too few queries were within the latency constraint for early stopping",
        ),
    )
    said = (facts.invalid_reason,) if facts.invalid_reason else ()
    return (*said, *(sentence for met, sentence in unmet if met is False), *complaints_of_errors(facts))


def complaints_of_errors(facts: DetailFacts) -> tuple[str, ...]:
    """What LoadGen says it did wrong; empty where it reported no errors."""
    errors = (f"LoadGen reported {facts.num_errors} errors",) if facts.num_errors else ()
    return (*errors, *facts.errors[:1])
