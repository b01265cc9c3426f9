"""Evidence from the files of a run: every worker's timed section and main's result.

Used twice with the same code: by a run that validates itself, and by `verify`, which believes nothing but the logs
and the journal's events.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from heteromig.core.errors import EvidenceError
from heteromig.core.overlap import CertificateSummary, Instant, MainResult, TimedSection, WorkerEvidence, certify
from heteromig.core.phases import EvidenceLevel, Role
from heteromig.core.spec import Drain
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs, UtcNs
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import Harness
from heteromig.logs.detail import POWER_RESOLUTION_NS, DetailFacts, read_detail
from heteromig.logs.files import read_regular
from heteromig.runner.journal import Header
from heteromig.workers.worker import EXIT_FILE, ExitRecord

_SEEN_NS = 100 * NS_PER_MS
"""How much later than an event its line can be on disk: LoadGen flushes every 10 ms (kLogPollPeriod, logging.cc:85),
and a starved flushing thread takes longer."""

_MARKER_NS = 500 * NS_PER_MS
"""How much later than it was printed a marker can be heard: the slowest tick, and a busy machine."""

_CLOCK_NS = 1 * NS_PER_S
"""How far the wall clock may be slewed against the monotonic one within a run before a log is taken for foreign."""


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
    return certify(
        _worker_evidence(run_dir, header, main, harness),
        _main_result(run_dir, header, main, harness),
        tuple(_worker_evidence(run_dir, header, worker, harness) for worker in view.backgrounds),
        end_time_buffer_min_s=header.spec.timing.end_time_buffer_min_ms / 1000 if wait else 0.0,
    )


def _worker_evidence(run_dir: Path, header: Header, worker: WorkerView, harness: Harness) -> WorkerEvidence:
    section: TimedSection | None = None
    missing = ""
    logs = harness.detail_logs(worker.assignment, run_dir)
    level = header.spec.start_evidence
    if logs and level is EvidenceLevel.ANNOUNCED:
        level = EvidenceLevel.TIMED  # what LoadGen says is believed before any marker
    try:
        section = _section(run_dir, header, worker, logs)
    except EvidenceError as error:
        missing = str(error)
    return WorkerEvidence(
        worker=worker.index,
        benchmark=worker.assignment.benchmark,
        level=level,
        section=section,
        missing=missing,
        disproven=section is None and _cannot_have_one(worker, level),
    )


def _cannot_have_one(worker: WorkerView, level: EvidenceLevel) -> bool:
    """Whether the journal tells that the worker never began, or died of itself: under `--lenient` a run goes on."""
    began_ns = {
        EvidenceLevel.ANNOUNCED: worker.announced_ns or worker.timed_ns,
        EvidenceLevel.TIMED: worker.timed_ns,
        EvidenceLevel.BUSY: worker.busy_ns,
    }[level]
    died = worker.exited_ns is not None and worker.stopped_by is None and worker.exit_code != 0
    return began_ns is None or died


def _section(run_dir: Path, header: Header, worker: WorkerView, logs: tuple[Path, ...]) -> TimedSection:
    if worker.spawned_ns is None:
        raise EvidenceError("it never ran.")
    if logs or header.spec.start_evidence is not EvidenceLevel.ANNOUNCED:
        section = _timed_section(header, worker, logs)
    else:
        section = _announced_section(header, worker, _started_utc_ns(run_dir, worker))
    _require_within_life(header, worker, section, header.utc_ns(worker.spawned_ns))
    return section


def _timed_section(header: Header, worker: WorkerView, logs: tuple[Path, ...]) -> TimedSection:
    """Main's goes from the begin of its first LoadGen run to the end of its last one: audits have several.

    A background's is the longest of its runs, because it keeps nothing busy between two of them.
    """
    if not logs:
        raise EvidenceError(f"{worker.assignment.directory} has no LoadGen log.")
    sections = [_section_of_run(header, worker, read_detail(path), path) for path in logs]
    if worker.role is not Role.MAIN:
        return max(sections, key=lambda section: section.end.utc_ns - section.begin.utc_ns)
    return TimedSection(
        begin=min((section.begin for section in sections), key=lambda instant: instant.utc_ns),
        end=max((section.end for section in sections), key=lambda instant: instant.utc_ns),
    )


def _section_of_run(header: Header, worker: WorkerView, facts: DetailFacts, path: Path) -> TimedSection:
    if facts.power_begin_utc_ns is not None and facts.power_end_utc_ns is not None:
        section = TimedSection(
            begin=Instant(facts.power_begin_utc_ns, POWER_RESOLUTION_NS, "power_begin"),
            end=Instant(facts.power_end_utc_ns, POWER_RESOLUTION_NS, "power_end"),
        )
    else:
        section = _section_of_killed(header, worker, facts, path)
    if section.end.utc_ns < section.begin.utc_ns:
        raise EvidenceError(
            f"the timed section in {path} ends before it begins: the log was altered, or the clock set."
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


def _announced_section(header: Header, worker: WorkerView, started_utc_ns: UtcNs | None) -> TimedSection:
    """What the markers say, where LoadGen says nothing.

    `started_utc_ns` is when the guardian started the program: what it printed, it printed later.
    """
    if worker.announced_ns is None:
        raise EvidenceError("it never printed its start marker.")
    begin = _heard(header, worker.announced_ns, started_utc_ns, "start marker")
    seen_utc_ns = None if worker.still_timed_ns is None else header.utc_ns(worker.still_timed_ns)
    if worker.ended_ns is not None:
        end = _heard(header, worker.ended_ns, seen_utc_ns, "end marker")
    elif worker.exited_ns is not None and worker.stopped_by is None:
        end = _heard(header, worker.exited_ns, seen_utc_ns, "exit")
    elif seen_utc_ns is not None:
        end = Instant(seen_utc_ns, 0, "alive and not finished")
    else:
        raise EvidenceError("it was stopped, and was not seen at work at the end of main.")
    return TimedSection(begin=begin, end=end)


def _heard(header: Header, at_ns: MonotonicNs, after_utc_ns: UtcNs | None, source: str) -> Instant:
    """When that was printed which was heard at `at_ns`: up to `_MARKER_NS` before, and not before `after_utc_ns`.

    It was never printed later than it was heard, so the middle of that time is known to within half of it.
    """
    latest = header.utc_ns(at_ns)
    earliest = latest - _MARKER_NS if after_utc_ns is None else max(latest - _MARKER_NS, min(after_utc_ns, latest))
    half_ns = (latest - earliest + 1) // 2
    return Instant(latest - half_ns, half_ns, source)


def _started_utc_ns(run_dir: Path, worker: WorkerView) -> UtcNs | None:
    """As the guardian wrote it down; None where it did not live to."""
    try:
        raw = read_regular(run_dir / worker.assignment.directory / EXIT_FILE, "The exit record")
        return msgspec.json.decode(raw, type=ExitRecord).started_utc_ns
    except (FileNotFoundError, EvidenceError, msgspec.DecodeError, RecursionError):
        return None


def _require_within_life(header: Header, worker: WorkerView, section: TimedSection, spawned_utc_ns: UtcNs) -> None:
    too_early = section.begin.utc_ns < spawned_utc_ns - _CLOCK_NS
    too_late = worker.exited_ns is not None and section.end.utc_ns > header.utc_ns(worker.exited_ns) + _CLOCK_NS
    if too_early or too_late:
        raise EvidenceError(
            f"the timed section in the logs of {worker.assignment.directory} lies outside the life of the worker: the "
            "log is of another run, was altered, or somebody set the clock."
        )


def _main_result(run_dir: Path, header: Header, main: WorkerView, harness: Harness) -> MainResult:
    try:
        return harness.result(main.assignment, header.spec, run_dir)
    except EvidenceError as error:
        return MainResult(None, (str(error).rstrip("."),), {})
