"""Evidence from the files of a run: every worker's timed section and main's result.

Used twice with the same code: by a run that validates itself, and by `verify`, which believes nothing but the logs
and the journal's events.
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec

from heteromig.core.clocks import ClockCheck, ClockMap, ClockReading
from heteromig.core.decoding import decode
from heteromig.core.errors import EvidenceError
from heteromig.core.gaps import Interval, Silences, without
from heteromig.core.overlap import (
    CertificateSummary,
    Instant,
    MainResult,
    Silence,
    TimedSection,
    Watch,
    WorkerEvidence,
    certify,
)
from heteromig.core.phases import EvidenceLevel, Role
from heteromig.core.spec import Drain
from heteromig.core.units import NS_PER_MS, NS_PER_S, MonotonicNs, UtcNs
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import Harness
from heteromig.logs.detail import POWER_RESOLUTION_NS, DetailFacts, read_detail
from heteromig.logs.files import read_regular
from heteromig.logs.heartbeat import read_progress
from heteromig.runner.clock import rfc3339
from heteromig.runner.journal import Header
from heteromig.workers.worker import EXIT_FILE, STDOUT_LOG, ExitRecord

_SEEN_NS = 100 * NS_PER_MS
"""How much later than an event its line can be on disk: LoadGen flushes every 10 ms (kLogPollPeriod, logging.cc:85),
and a starved flushing thread takes longer."""

_MARKER_NS = 500 * NS_PER_MS
"""How much later than it was printed a marker can be heard: the slowest tick, and a busy machine."""

_LIFE_NS = 1 * NS_PER_S
"""How far outside the life of its worker, as that was heard of, a stamp may lie before its log is taken for foreign:
that a worker runs, or has ended, is heard late on a busy machine."""


class _Grounds:
    """What all evidence of one run rests on."""

    def __init__(self, run_dir: Path, header: Header, view: View, harness: Harness) -> None:
        self.run_dir = run_dir
        self.header = header
        self.view = view
        self.harness = harness
        self.clocks = ClockMap(ClockReading(header.at_ns, header.at_utc_ns), *view.clocks)
        self._unclear = False

    def stamped(self, shown_utc_ns: UtcNs, source: str, path: Path) -> Instant:
        """When LoadGen wrote a stamp of the wall clock, which is cut to milliseconds.

        Raises:
            EvidenceError: somebody set the clock so that it cannot be told.
        """
        moment = self.clocks.moment(shown_utc_ns)
        if moment is None:
            self._unclear = True
            raise EvidenceError(
                f"the {source} in {path}, {rfc3339(shown_utc_ns)}, is not a time that the wall clock of the host "
                "showed just once: somebody set the clock during the run. Run again."
            )
        return Instant(self.header.utc_ns(moment.at_ns), POWER_RESOLUTION_NS + moment.uncertainty_ns, source)

    def check(self) -> ClockCheck:
        """What the certificate says of the clocks, once every stamp was looked at."""
        steps = self.clocks.steps
        if not steps:
            return ClockCheck(readings=len(self.clocks.readings), drift_s=self.clocks.drift_ns / NS_PER_S)
        largest = max(steps, key=lambda step: abs(step.by_ns))
        when_utc_ns = self.header.utc_ns(largest.before_ns)
        outcome = "not every stamp of LoadGen can be put right" if self._unclear else "LoadGen's stamps were put right"
        more = f" (and {len(steps) - 1} times more)" if len(steps) > 1 else ""
        return ClockCheck(
            readings=len(self.clocks.readings),
            drift_s=self.clocks.drift_ns / NS_PER_S,
            largest_step_s=largest.by_ns / NS_PER_S,
            stepped_at_utc_ns=when_utc_ns,
            corrected=not self._unclear,
            remark=f"The wall clock of the host was set by {largest.by_ns / NS_PER_S:+.3f} s at "
            f"{rfc3339(when_utc_ns)}, while the run went on{more}; {outcome}.",
        )


def certify_run(run_dir: Path, header: Header, view: View, harness: Harness) -> CertificateSummary:
    """Judge what is on disk. Files that are missing or unreadable are evidence that is missing, not errors.

    Files are named relative to `run_dir`, so that the same is said wherever it lies.
    """
    main = view.main
    gap_threshold_s = header.spec.timing.gap_threshold_ms / 1000
    if main is None:
        return certify(
            WorkerEvidence(0, header.spec.main.benchmark, header.spec.start_evidence, None, "it was never planned."),
            MainResult(None, ("nothing ran",), {}),
            (),
            end_time_buffer_min_s=0.0,
            gap_threshold_s=gap_threshold_s,
        )
    wait = header.spec.drain is Drain.WAIT
    grounds = _Grounds(run_dir, header, view, harness)
    main_evidence = _worker_evidence(grounds, main)
    backgrounds = tuple(
        _with_silences(grounds, worker, _worker_evidence(grounds, worker), main_evidence.section)
        for worker in view.backgrounds
    )
    return certify(
        main_evidence,
        _main_result(grounds, main),
        backgrounds,
        end_time_buffer_min_s=header.spec.timing.end_time_buffer_min_ms / 1000 if wait else 0.0,
        gap_threshold_s=gap_threshold_s,
        clock=grounds.check(),
    )


def _worker_evidence(grounds: _Grounds, worker: WorkerView) -> WorkerEvidence:
    section: TimedSection | None = None
    missing = ""
    logs = grounds.harness.detail_logs(worker.assignment, grounds.run_dir)
    level = grounds.header.spec.start_evidence
    if logs and level is EvidenceLevel.ANNOUNCED:
        level = EvidenceLevel.TIMED  # what LoadGen says is believed before any marker
    try:
        section = _section(grounds, worker, logs)
    except EvidenceError as error:
        missing = _relative(grounds, str(error))
    return WorkerEvidence(
        worker=worker.index,
        benchmark=worker.assignment.benchmark,
        level=level,
        section=section,
        missing=missing,
        disproven=section is None and _cannot_have_one(worker, level),
    )


def _relative(grounds: _Grounds, sentence: str) -> str:
    return sentence.replace(f"{grounds.run_dir}/", "")


def _cannot_have_one(worker: WorkerView, level: EvidenceLevel) -> bool:
    """Whether the journal tells that the worker never began, or died of itself: under `--lenient` a run goes on."""
    began_ns = {
        EvidenceLevel.ANNOUNCED: worker.announced_ns or worker.timed_ns,
        EvidenceLevel.TIMED: worker.timed_ns,
        EvidenceLevel.BUSY: worker.busy_ns,
    }[level]
    died = worker.exited_ns is not None and worker.stopped_by is None and worker.exit_code != 0
    return began_ns is None or died


def _section(grounds: _Grounds, worker: WorkerView, logs: tuple[Path, ...]) -> TimedSection:
    if worker.spawned_ns is None:
        raise EvidenceError("it never ran.")
    if logs or grounds.header.spec.start_evidence is not EvidenceLevel.ANNOUNCED:
        section = _timed_section(grounds, worker, logs)
    else:
        section = _announced_section(grounds.header, worker, _started_utc_ns(grounds, worker))
    _require_within_life(grounds.header, worker, section, grounds.header.utc_ns(worker.spawned_ns))
    return section


def _timed_section(grounds: _Grounds, worker: WorkerView, logs: tuple[Path, ...]) -> TimedSection:
    """Main's goes from the begin of its first LoadGen run to the end of its last one: audits have several.

    A background's is the longest of its runs, because it keeps nothing busy between two of them.
    """
    if not logs:
        raise EvidenceError(f"{worker.assignment.directory} has no LoadGen log.")
    sections = [_section_of_run(grounds, worker, read_detail(path), path) for path in logs]
    if worker.role is not Role.MAIN:
        return max(sections, key=lambda section: section.end.utc_ns - section.begin.utc_ns)
    return TimedSection(
        begin=min((section.begin for section in sections), key=lambda instant: instant.utc_ns),
        end=max((section.end for section in sections), key=lambda instant: instant.utc_ns),
    )


def _section_of_run(grounds: _Grounds, worker: WorkerView, facts: DetailFacts, path: Path) -> TimedSection:
    if facts.power_begin_utc_ns is not None and facts.power_end_utc_ns is not None:
        section = TimedSection(
            begin=grounds.stamped(facts.power_begin_utc_ns, "power_begin", path),
            end=grounds.stamped(facts.power_end_utc_ns, "power_end", path),
        )
    else:
        section = _section_of_killed(grounds.header, worker, facts, path)
    if section.end.utc_ns < section.begin.utc_ns:
        raise EvidenceError(
            f"the timed section in {path} ends before it begins: the log was altered, or the clock set."
        )
    return section


def _section_of_killed(header: Header, worker: WorkerView, facts: DetailFacts, path: Path) -> TimedSection:
    """Bounds for a run that never wrote its own: when it was seen to have begun, and to be still timed."""
    if worker.timed_ns is None or facts.timed_begin_offset_ns is None:
        raise EvidenceError(f"{path} has no generated_query_count, so its timed section never began.")
    if worker.still_timed_ns is None or facts.has_end_key:
        raise EvidenceError(f"{path} has no power_begin and power_end, and it was not seen timed at the end of main.")
    return TimedSection(
        begin=Instant(header.utc_ns(worker.timed_ns), 0, "generated_query_count seen"),
        end=Instant(header.utc_ns(worker.still_timed_ns), _SEEN_NS, "alive and still timed"),
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


def _started_utc_ns(grounds: _Grounds, worker: WorkerView) -> UtcNs | None:
    """As the guardian wrote it down, at the earliest; None where it did not live to, or the clock cannot be trusted."""
    try:
        raw = read_regular(grounds.run_dir / worker.assignment.directory / EXIT_FILE, "The exit record")
        shown_utc_ns = decode(raw, ExitRecord).started_utc_ns
    except (FileNotFoundError, EvidenceError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    moment = grounds.clocks.moment(shown_utc_ns)
    return None if moment is None else grounds.header.utc_ns(moment.at_ns - moment.uncertainty_ns)


def _require_within_life(header: Header, worker: WorkerView, section: TimedSection, spawned_utc_ns: UtcNs) -> None:
    begin, end = section.begin, section.end
    too_early = begin.utc_ns + begin.uncertainty_ns < spawned_utc_ns - _LIFE_NS
    too_late = (
        worker.exited_ns is not None and end.utc_ns - end.uncertainty_ns > header.utc_ns(worker.exited_ns) + _LIFE_NS
    )
    if too_early or too_late:
        raise EvidenceError(
            f"the timed section in the logs of {worker.assignment.directory} lies outside the life of the worker: the "
            "log is of another run, was altered, or somebody set the clock."
        )


def _with_silences(
    grounds: _Grounds, worker: WorkerView, evidence: WorkerEvidence, main: TimedSection | None
) -> WorkerEvidence:
    """The evidence of a background with what is known of its stalls, wherever that is known from."""
    if evidence.section is None or main is None:
        return evidence
    begin_ns = _monotonic_ns(grounds.header, evidence.section.begin)
    end_ns = _monotonic_ns(grounds.header, min(evidence.section.end, main.end, key=lambda instant: instant.utc_ns))
    found: dict[Watch, tuple[Interval, ...]] = {}
    stamped = _stamped_silences(grounds, worker, begin_ns, end_ns)
    if stamped is not None:
        found[Watch.HEARTBEAT] = stamped
    elif worker.progress_ns is not None or grounds.header.spec.gives_heartbeats:
        found[Watch.HEARD_HEARTBEAT] = tuple(
            part for one in worker.heard.until(end_ns) for part in without(one, grounds.view.unwatched)
        )
    if worker.idleness is not None and worker.idleness.worked:
        found[Watch.DEVICE] = worker.idleness.found
    return msgspec.structs.replace(
        evidence,
        watched=tuple(found),
        silences=tuple(
            Silence(grounds.header.utc_ns(one.begin_ns), grounds.header.utc_ns(one.end_ns), watch)
            for watch, intervals in found.items()
            for one in intervals
        ),
    )


def _stamped_silences(
    grounds: _Grounds, worker: WorkerView, begin_ns: MonotonicNs, end_ns: MonotonicNs
) -> tuple[Interval, ...] | None:
    """By the stamps in its output, from the begin of its timed section on; None where it has none.

    Stamps from outside the life of the worker are of another clock, and are none.
    """
    spawned_ns, exited_ns = worker.spawned_ns, worker.exited_ns
    path = grounds.run_dir / worker.assignment.directory / STDOUT_LOG
    fold: Silences | None = None
    try:
        for at_ns in read_progress(path):
            too_early = spawned_ns is None or at_ns < spawned_ns - _LIFE_NS
            if too_early or (exited_ns is not None and at_ns > exited_ns + _LIFE_NS):
                continue
            fold = fold or Silences(begin_ns)
            if fold.since_ns is not None and at_ns > fold.since_ns:
                fold = fold.broken(at_ns)
    except (FileNotFoundError, EvidenceError):
        return None  # by what was heard of it; that the file is gone is told beside
    return None if fold is None else fold.until(end_ns)


def _monotonic_ns(header: Header, instant: Instant) -> MonotonicNs:
    return instant.utc_ns - header.at_utc_ns + header.at_ns


def _main_result(grounds: _Grounds, main: WorkerView) -> MainResult:
    """What its files say; figures that are no numbers are unknown, and left out."""
    try:
        result = grounds.harness.result(main.assignment, grounds.header.spec, grounds.run_dir)
    except EvidenceError as error:
        return MainResult(None, (_relative(grounds, str(error)).rstrip("."),), {})
    return MainResult(
        valid=result.valid,
        complaints=tuple(_relative(grounds, complaint) for complaint in result.complaints),
        metrics={name: value for name, value in result.metrics.items() if math.isfinite(value)},
    )
