"""Evidence from the files of a run: every worker's timed section and main's result, out of LoadGen's own logs.

Used twice with the same code: by a run that validates itself, and by `verify`, which believes nothing but the logs
and the journal's events.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import CertificateSummary, Instant, MainResult, TimedSection, WorkerEvidence, certify
from heteromig.core.phases import EvidenceLevel
from heteromig.core.plan import Assignment
from heteromig.core.spec import Drain, Mode
from heteromig.core.units import NS_PER_MS, NS_PER_S
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import Harness
from heteromig.logs.detail import POWER_RESOLUTION_NS, DetailFacts, read_detail, read_summary
from heteromig.logs.loadgen import DETAIL_LOG, SUMMARY_LOG
from heteromig.runner.journal import Header, read_regular

ACCURACY_RESULT = "accuracy.json"

_SEEN_NS = 100 * NS_PER_MS
"""How much later than an event its line can be on disk: LoadGen flushes every 10 ms (kLogPollPeriod, logging.cc:85),
and a starved flushing thread takes longer."""

_CLOCK_NS = 1 * NS_PER_S
"""How far the wall clock may be slewed against the monotonic one within a run before a log is taken for foreign."""

_STREAMS = ("SingleStream", "MultiStream")
"""Scenarios without a latency constraint, as LoadGen spells them."""


class AccuracyResult(Struct, frozen=True):
    """`accuracy.json`, which the harness writes at the end of an accuracy run."""

    metric: str
    value_percent: float
    target_percent: float
    passed: bool
    samples: int


def certify_run(run_dir: Path, header: Header, view: View, harness: Harness) -> CertificateSummary:
    """Judge what is on disk. Files that are missing or unreadable are evidence that is missing, not errors."""
    main = view.main
    if main is None:
        return certify(
            WorkerEvidence(0, header.spec.main.benchmark, header.spec.start_evidence, None, "it was never planned."),
            MainResult(None, ("nothing ran",), {}),
            (),
            end_time_buffer_min_s=0.0,
        )
    wait = header.spec.drain is Drain.WAIT
    logs = _Logs(run_dir, harness)
    return certify(
        _worker_evidence(logs, header, main),
        _main_result(logs, header, main),
        tuple(_worker_evidence(logs, header, worker) for worker in view.backgrounds),
        end_time_buffer_min_s=header.spec.timing.end_time_buffer_min_ms / 1000 if wait else 0.0,
    )


class _Logs:
    """The logs of one run; each is read once, though main's is asked for twice."""

    def __init__(self, run_dir: Path, harness: Harness) -> None:
        self._run_dir = run_dir
        self._harness = harness
        self._read: dict[Path, DetailFacts] = {}

    def folder(self, worker: WorkerView) -> Path:
        return self._harness.log_dir(worker.assignment, self._run_dir)

    def uncomputed_samples(self, worker: WorkerView) -> int:
        return self._harness.uncomputed_samples(self.folder(worker))

    def facts(self, worker: WorkerView) -> DetailFacts:
        path = self.folder(worker) / DETAIL_LOG
        if path not in self._read:
            self._read[path] = read_detail(path)
        return self._read[path]


def _worker_evidence(logs: _Logs, header: Header, worker: WorkerView) -> WorkerEvidence:
    section: TimedSection | None = None
    missing = ""
    try:
        section = _timed_section(logs, header, worker)
    except EvidenceError as error:
        missing = str(error)
    return WorkerEvidence(
        worker=worker.index,
        benchmark=worker.assignment.benchmark,
        level=header.spec.start_evidence,
        section=section,
        missing=missing,
        disproven=section is None and _cannot_have_one(worker, header.spec.start_evidence),
    )


def _cannot_have_one(worker: WorkerView, level: EvidenceLevel) -> bool:
    """Whether the journal tells that the worker never began, or died of itself: under `--lenient` a run goes on."""
    began_ns = {
        EvidenceLevel.ANNOUNCED: worker.announced_ns,
        EvidenceLevel.TIMED: worker.timed_ns,
        EvidenceLevel.BUSY: worker.busy_ns,
    }[level]
    died = worker.exited_ns is not None and worker.stopped_by is None and worker.exit_code != 0
    return began_ns is None or died


def _timed_section(logs: _Logs, header: Header, worker: WorkerView) -> TimedSection:
    if worker.spawned_ns is None:
        raise EvidenceError("it never ran.")
    path = logs.folder(worker) / DETAIL_LOG
    facts = logs.facts(worker)
    if facts.power_begin_utc_ns is not None and facts.power_end_utc_ns is not None:
        section = TimedSection(
            begin=Instant(facts.power_begin_utc_ns, POWER_RESOLUTION_NS, "power_begin"),
            end=Instant(facts.power_end_utc_ns, POWER_RESOLUTION_NS, "power_end"),
        )
    else:
        section = _section_of_killed(header, worker, facts, path)
    spawned_utc_ns = header.utc_ns(worker.spawned_ns)
    exited_utc_ns = header.utc_ns(worker.exited_ns) if worker.exited_ns is not None else None
    too_early = section.begin.utc_ns < spawned_utc_ns - _CLOCK_NS
    too_late = exited_utc_ns is not None and section.end.utc_ns > exited_utc_ns + _CLOCK_NS
    if too_early or too_late or section.end.utc_ns < section.begin.utc_ns:
        raise EvidenceError(
            f"the timed section in {path} lies outside the life of the worker: the log is of another run, was altered, "
            "or somebody set the clock."
        )
    return section


def _section_of_killed(header: Header, worker: WorkerView, facts: DetailFacts, path: Path) -> TimedSection:
    """Bounds for a run that never wrote its own: when it was seen to have begun, and to be still timed."""
    if worker.timed_ns is None or facts.timed_begin_offset_ns is None:
        raise EvidenceError(f"{path} has no generated_query_count, so its timed section never began.")
    if worker.still_timed_utc_ns is None or facts.has_end_key:
        raise EvidenceError(f"{path} has no power_begin and power_end, and it was not seen timed at the end of main.")
    return TimedSection(
        begin=Instant(header.utc_ns(worker.timed_ns), 0, "generated_query_count seen"),
        end=Instant(worker.still_timed_utc_ns, _SEEN_NS, "alive and still timed"),
    )


def _main_result(logs: _Logs, header: Header, main: WorkerView) -> MainResult:
    folder = logs.folder(main)
    try:
        facts = logs.facts(main)
        not_computed = logs.uncomputed_samples(main)
        if not_computed:
            why = f"somebody stopped it, and {not_computed} samples were completed without being computed"
            return MainResult(valid=False, complaints=(why,), metrics={})
        if header.spec.main.mode is Mode.ACCURACY:
            return _accuracy(folder, facts)
        return _performance(folder, facts, main.assignment)
    except EvidenceError as error:
        return MainResult(None, (str(error).rstrip("."),), {})


def _performance(folder: Path, facts: DetailFacts, assignment: Assignment) -> MainResult:
    metrics = {name: value for name, value in facts.metrics.items() if math.isfinite(value)}
    if facts.scenario is not None and facts.scenario.lower() != assignment.scenario:
        return MainResult(None, (f"{DETAIL_LOG} in {folder} is of scenario {facts.scenario}",), metrics)
    if facts.min_duration_ms is not None and facts.min_duration_ms < assignment.duration_ms:
        why = f"{DETAIL_LOG} in {folder} is of a run with min_duration {facts.min_duration_ms} ms"
        return MainResult(None, (f"{why}, and {assignment.duration_ms} ms were asked for",), metrics)
    if facts.valid is None:
        return MainResult(None, (f"{folder / DETAIL_LOG} has no result_validity",), metrics)
    if read_summary(folder / SUMMARY_LOG) is not facts.valid:
        return MainResult(None, (f"{SUMMARY_LOG} and {DETAIL_LOG} in {folder} contradict each other",), metrics)
    valid = facts.valid and not facts.num_errors
    return MainResult(valid=valid, complaints=() if valid else _complaints(facts), metrics=metrics)


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
    errors = (f"LoadGen reported {facts.num_errors} errors",) if facts.num_errors else ()
    return (*said, *(sentence for met, sentence in unmet if met is False), *errors, *facts.errors[:1])


def _accuracy(folder: Path, facts: DetailFacts) -> MainResult:
    """An accuracy run has no VALID of LoadGen's; what counts is how well the answers agree."""
    path = folder / ACCURACY_RESULT
    try:
        result = msgspec.json.decode(read_regular(path, "The accuracy result"), type=AccuracyResult)
    except FileNotFoundError as error:
        raise EvidenceError(f"{path} cannot be read: {error.strerror}.") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise EvidenceError(f"{path} is not an accuracy result: {error}.") from None
    metrics = {
        "accuracy_percent": result.value_percent,
        "accuracy_target_percent": result.target_percent,
        "accuracy_samples": float(result.samples),
    }
    if facts.num_errors:
        why = f"LoadGen reported {facts.num_errors} errors"
        return MainResult(valid=False, complaints=(why,), metrics=metrics)
    if result.passed and result.value_percent >= result.target_percent:
        return MainResult(valid=True, complaints=(), metrics=metrics)
    why = f"{result.metric} is {result.value_percent:g} %, below the target of {result.target_percent:g} %"
    return MainResult(valid=False, complaints=(why,), metrics=metrics)
