"""One run's directory read: LoadGen's detail log and summary, each of which may be missing, cut or foreign."""

from __future__ import annotations

import math
from pathlib import Path

from msgspec import Struct

from heteromig.core.errors import EvidenceError
from heteromig.logs.detail import DetailFacts, read_detail
from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG
from heteromig.results.comparison import METRICS, P99, Reading

MAX_SUMMARY_BYTES = 1 << 20
"""A summary has under 3 KB; a longer file is not one."""
_SAME = 1e-3
"""Both logs print six digits; figures further apart are of different runs."""

_FIELDS = {
    "Samples per second": "result_samples_per_second",
    "Scheduled samples per second": "result_scheduled_samples_per_sec",
    "Completed samples per second": "result_completed_samples_per_sec",
    "90.00 percentile latency (ns)": "result_90.00_percentile_latency_ns",
    "99.00 percentile latency (ns)": P99,
    "* Early stopping 90th percentile estimate": "early_stopping_latency_ss",
    "* Early stopping 99th percentile estimate": "early_stopping_latency_ms",
}
"""The summary's words for what the detail log calls by a key; the same in v1.0 to v2.1 and in 6.0."""


class Outcome(Struct, frozen=True):
    """A run's reading, None where nothing can be had from it, and a sentence for each thing that was passed over."""

    reading: Reading | None
    notes: tuple[str, ...]


class _Said(Struct, frozen=True):
    """What one of the two logs says."""

    scenario: str | None
    mode: str | None
    metrics: dict[str, float]
    valid: bool | None
    samples_per_query: int | None


def read_run(directory: Path, scenario: str) -> Outcome:
    """The reading of a `run_*` directory that lies under the directory of `scenario`."""
    notes: list[str] = []
    logs: list[_Said] = []
    for name, read in ((DETAIL_LOG, _detail), (SUMMARY_LOG, _summary)):
        path = directory / name
        if not path.is_file():
            notes.append(f"{name} is missing")
            continue
        try:
            said = read(path)
        except (EvidenceError, OSError) as error:
            notes.append(f"{name} cannot be read: {error}")
            continue
        except OverflowError:
            notes.append(f"{name} has a number that no clock or counter gives")
            continue
        if not said.metrics:
            notes.append(f"{name} has no result: it is cut short, or not LoadGen's")
        logs.append(said)
    return _judge(logs, scenario.lower(), notes)


def _judge(logs: list[_Said], scenario: str, notes: list[str]) -> Outcome:
    modes = {log.mode for log in logs if log.mode is not None}
    if "AccuracyOnly" in modes:
        return _nothing(notes, "the run is of mode AccuracyOnly, which measures no speed")
    scenarios = {log.scenario.lower() for log in logs if log.scenario is not None}
    if scenarios - {scenario}:
        return _nothing(notes, f"the logs are of scenario {' and '.join(sorted(scenarios))}")
    if scenario not in METRICS:
        return _nothing(notes, f"scenario {scenario} is not known")
    metrics: dict[str, float] = {}
    for log in logs:
        for name, value in log.metrics.items():
            if not math.isclose(metrics.setdefault(name, value), value, rel_tol=_SAME):
                return _nothing(notes, f"{DETAIL_LOG} and {SUMMARY_LOG} are not of the same run: {name} differs")
    if not any(name in metrics for name in METRICS[scenario]):
        return _nothing(notes, f"no figure for {scenario}")
    verdicts = {log.valid for log in logs if log.valid is not None}
    reading = Reading(
        scenario=scenario,
        metrics=metrics,
        valid=None if not verdicts else all(verdicts),
        samples_per_query=next((log.samples_per_query for log in logs if log.samples_per_query is not None), None),
    )
    return Outcome(reading, tuple(f"{note}; the other log is used" for note in notes))


def _nothing(notes: list[str], why: str) -> Outcome:
    return Outcome(None, (*notes, why))


def _detail(path: Path) -> _Said:
    facts: DetailFacts = read_detail(path)
    return _Said(
        scenario=facts.scenario,
        mode=facts.test_mode,
        metrics=_usable(facts.metrics),
        valid=facts.valid,
        samples_per_query=facts.samples_per_query,
    )


def _summary(path: Path) -> _Said:
    with path.open("rb") as file:
        text = file.read(MAX_SUMMARY_BYTES).decode(errors="replace")
    text = text[: text.rfind("\n") + 1]  # a line that was cut has a number that was
    fields = {}
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        if value.strip():
            fields[name.strip()] = value.strip()
    numbers = {key: _number(fields[name]) for name, key in _FIELDS.items() if name in fields}
    size = _number(fields.get("samples_per_query", ""))
    return _Said(
        scenario=fields.get("Scenario"),
        mode=fields.get("Mode"),
        metrics=_usable(numbers),
        valid={"VALID": True, "INVALID": False}.get(fields.get("Result is", "")),
        samples_per_query=int(size) if math.isfinite(size) else None,
    )


def _usable(metrics: dict[str, float]) -> dict[str, float]:
    wanted = {P99}.union(*METRICS.values())
    return {name: value for name, value in metrics.items() if name in wanted and math.isfinite(value) and value > 0}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
