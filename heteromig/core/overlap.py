"""The proof: was every background timed during the whole timed section of main?

Times are UTC nanoseconds of the wall clock as it was when the run began: LoadGen stamps its timed section with the
wall clock of the host, and where that was set meanwhile, the stamps are put right before they come here. Evidence in,
findings out; reading the files is the runner's business.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct

from heteromig.core.clocks import ClockCheck
from heteromig.core.gaps import Interval, covered_share, long_gaps, union
from heteromig.core.phases import EvidenceLevel
from heteromig.core.units import NS_PER_S, UtcNs
from heteromig.core.verdict import ExitCode, Reason

_MAX_TOLD = 3
"""How many gaps of one background a sentence tells; the certificate has all of them."""


class Instant(Struct, frozen=True):
    """A moment, known to within `uncertainty_ns` either way; `source` says from where."""

    utc_ns: UtcNs
    uncertainty_ns: int
    source: str


class TimedSection(Struct, frozen=True):
    """The measured part of one LoadGen run.

    For a background that was killed, `begin` is the latest it can have begun and `end` the earliest it can have
    ended: both bounds make the proof harder, never easier.
    """

    begin: Instant
    end: Instant


class Watch(Enum):
    """Where it is known from that a background was at work all along, or that it was not."""

    HEARTBEAT = "heartbeat"
    """Its own heartbeats, which say when they were given."""
    HEARD_HEARTBEAT = "heartbeat as heard"
    """Its own heartbeats by when they were heard, while somebody listened."""
    DEVICE = "device activity"
    """The device shows how much work there is on its slice."""


class Silence(Struct, frozen=True):
    """From `begin_utc_ns` to `end_utc_ns` nothing was completed, or no work was done, as `watch` shows."""

    begin_utc_ns: UtcNs
    end_utc_ns: UtcNs
    watch: Watch


class WorkerEvidence(Struct, frozen=True):
    """What the files of one worker say.

    `silences` are those known, of any length, and `watched` is where they are known from, nothing where nobody could
    tell. `missing` is the sentence to print where `section` is None; `disproven` says that there cannot be one, because
    the worker never began or died.
    """

    worker: int
    benchmark: str
    level: EvidenceLevel
    section: TimedSection | None
    missing: str = ""
    disproven: bool = False
    watched: tuple[Watch, ...] = ()
    silences: tuple[Silence, ...] = ()


class MainResult(Struct, frozen=True):
    """What main's own files say of its result.

    `valid` is None where they do not say. `complaints` are LoadGen's own sentences, or the accuracy's.
    `metrics` are LoadGen's figures under LoadGen's names.
    """

    valid: bool | None
    complaints: tuple[str, ...]
    metrics: dict[str, float]


class BackgroundOverlap(Struct, frozen=True):
    """One background against main. Seconds; `covered` is None where the evidence does not decide.

    Each slack is known to within the uncertainty beside it; `uncertainty_s` is the larger one. `gaps` are the parts of
    main's timed section in which the background stalled, which are not covered; `gaps_seen_by` is what would have shown
    one: where nothing would, `gaps` is None.
    """

    worker: int
    benchmark: str
    evidence: EvidenceLevel
    begin_utc_ns: UtcNs | None
    end_utc_ns: UtcNs | None
    begin_source: str | None
    end_source: str | None
    slack_before_s: float | None
    slack_after_s: float | None
    uncertainty_s: float | None
    coverage: float | None
    covered: bool | None
    begin_uncertainty_s: float | None = None
    end_uncertainty_s: float | None = None
    slack_before_uncertainty_s: float | None = None
    slack_after_uncertainty_s: float | None = None
    gaps: tuple[Silence, ...] | None = None
    gaps_seen_by: tuple[Watch, ...] = ()


class Overlap(Struct, frozen=True):
    """All backgrounds against main; the figures are those of the worst background."""

    proven: bool
    coverage: float | None
    slack_before_s: float | None
    slack_after_s: float | None
    backgrounds: tuple[BackgroundOverlap, ...]


class CertificateSummary(Struct, frozen=True):
    """What validating found, apart from what the run itself had noticed.

    `clock` is None where there was no plan, and so no stamp.
    """

    overlap: Overlap
    main_section: TimedSection | None
    main_result: MainResult
    reasons: tuple[Reason, ...]
    gap_threshold_s: float | None = None
    clock: ClockCheck | None = None


def certify(
    main: WorkerEvidence,
    result: MainResult,
    backgrounds: tuple[WorkerEvidence, ...],
    *,
    end_time_buffer_min_s: float,
    gap_threshold_s: float,
    clock: ClockCheck | None = None,
) -> CertificateSummary:
    """Judge the evidence.

    `end_time_buffer_min_s` is the slack after main that `wait` mode asks for, else 0. A background that is silent for
    longer than `gap_threshold_s` within main's timed section is not taken to be at work then.
    """
    reasons: list[Reason] = []
    if result.valid is False:
        why = "; ".join(result.complaints) or "LoadGen gave no reason"
        reasons.append(Reason(ExitCode.INVALID, f"Main {main.benchmark} is not VALID: {why}."))
    elif result.valid is None:
        why = "; ".join(result.complaints) or "its result is nowhere in its logs"
        reasons.append(Reason(ExitCode.INCONCLUSIVE, f"Main {main.benchmark} has no result: {why}."))
    section = main.section
    if section is None:
        reasons.append(Reason(ExitCode.INCONCLUSIVE, f"Main {main.benchmark}: {main.missing}"))
    elif section.end.utc_ns <= section.begin.utc_ns:
        reasons.append(
            Reason(
                ExitCode.INCONCLUSIVE,
                f"Main {main.benchmark}: its timed section ends before it begins, so the clock of the host was set "
                "back meanwhile. Run again.",
            )
        )
        section = None
    compared = tuple(_compare(section, background, gap_threshold_s) for background in backgrounds)
    for background, evidence in zip(compared, backgrounds, strict=True):
        reasons.extend(_complaints(background, evidence, section, end_time_buffer_min_s))
    return CertificateSummary(
        overlap=_worst(section, compared),
        main_section=main.section,
        main_result=result,
        reasons=tuple(reasons),
        gap_threshold_s=gap_threshold_s,
        clock=clock,
    )


def _compare(main: TimedSection | None, background: WorkerEvidence, gap_threshold_s: float) -> BackgroundOverlap:
    section = background.section
    if main is None or section is None:
        return BackgroundOverlap(
            worker=background.worker,
            benchmark=background.benchmark,
            evidence=background.level,
            begin_utc_ns=section.begin.utc_ns if section else None,
            end_utc_ns=section.end.utc_ns if section else None,
            begin_source=section.begin.source if section else None,
            end_source=section.end.source if section else None,
            slack_before_s=None,
            slack_after_s=None,
            uncertainty_s=None,
            coverage=None,
            covered=None,
            begin_uncertainty_s=section.begin.uncertainty_ns / NS_PER_S if section else None,
            end_uncertainty_s=section.end.uncertainty_ns / NS_PER_S if section else None,
        )
    before_ns = main.begin.utc_ns - section.begin.utc_ns
    after_ns = section.end.utc_ns - main.end.utc_ns
    before_unsure_ns = main.begin.uncertainty_ns + section.begin.uncertainty_ns
    after_unsure_ns = main.end.uncertainty_ns + section.end.uncertainty_ns
    gaps = _gaps(main, background, gap_threshold_s)
    return BackgroundOverlap(
        worker=background.worker,
        benchmark=background.benchmark,
        evidence=background.level,
        begin_utc_ns=section.begin.utc_ns,
        end_utc_ns=section.end.utc_ns,
        begin_source=section.begin.source,
        end_source=section.end.source,
        slack_before_s=before_ns / NS_PER_S,
        slack_after_s=after_ns / NS_PER_S,
        uncertainty_s=max(before_unsure_ns, after_unsure_ns) / NS_PER_S,
        coverage=covered_share(_interval(section), [_span(gap) for gap in gaps], _interval(main)),
        covered=False if gaps else _is_around(section, main),
        begin_uncertainty_s=section.begin.uncertainty_ns / NS_PER_S,
        end_uncertainty_s=section.end.uncertainty_ns / NS_PER_S,
        slack_before_uncertainty_s=before_unsure_ns / NS_PER_S,
        slack_after_uncertainty_s=after_unsure_ns / NS_PER_S,
        gaps=gaps if background.watched else None,
        gaps_seen_by=background.watched,
    )


def _is_around(section: TimedSection, main: TimedSection) -> bool | None:
    """Whether it begins before main and ends after it; None where the uncertainties do not let that be decided."""
    before_ns = main.begin.utc_ns - section.begin.utc_ns
    after_ns = section.end.utc_ns - main.end.utc_ns
    before_unsure_ns = main.begin.uncertainty_ns + section.begin.uncertainty_ns
    after_unsure_ns = main.end.uncertainty_ns + section.end.uncertainty_ns
    if before_ns >= before_unsure_ns and after_ns >= after_unsure_ns:
        return True
    if before_ns < -before_unsure_ns or after_ns < -after_unsure_ns:
        return False
    return None


def _gaps(main: TimedSection, background: WorkerEvidence, threshold_s: float) -> tuple[Silence, ...]:
    """Where it stalled within main's timed section, in order: by any evidence, or by several together."""
    spans = long_gaps(map(_span, background.silences), _interval(main), round(threshold_s * NS_PER_S))
    return tuple(
        Silence(
            begin_utc_ns=span.begin_ns,
            end_utc_ns=span.end_ns,
            watch=next(one.watch for one in background.silences if _touch(_span(one), span)),
        )
        for span in spans
    )


def _touch(one: Interval, other: Interval) -> bool:
    return len(union([one, other])) == 1


def _span(silence: Silence) -> Interval:
    return Interval(silence.begin_utc_ns, silence.end_utc_ns)


def _interval(section: TimedSection) -> Interval:
    return Interval(section.begin.utc_ns, section.end.utc_ns)


def _complaints(
    background: BackgroundOverlap, evidence: WorkerEvidence, main: TimedSection | None, end_time_buffer_min_s: float
) -> list[Reason]:
    who = f"Background {background.worker} ({background.benchmark})"
    if evidence.section is None:
        code = ExitCode.OVERLAP if evidence.disproven else ExitCode.INCONCLUSIVE
        return [Reason(code, f"{who}: {evidence.missing}")]
    if main is None or background.slack_before_s is None or background.slack_after_s is None:
        return []  # main has no timed section, which is said once
    stalled = [_stalled(who, background.gaps, main)] if background.gaps else []
    slack = f"slack {background.slack_before_s:+.3f} s before and {background.slack_after_s:+.3f} s after main"
    around = _is_around(evidence.section, main)
    if around is None:
        unsure = f"{who}: {slack} is smaller than the uncertainty of {background.uncertainty_s:.3g} s."
        return [*stalled, Reason(ExitCode.INCONCLUSIVE, unsure)]
    if not around:
        apart = f"{who} was not timed during the whole timed section of main: {slack}."
        return [*stalled, Reason(ExitCode.OVERLAP, apart)]
    if background.slack_after_s < end_time_buffer_min_s:
        early = (
            f"{who} ended {background.slack_after_s:.3f} s after main, "
            f"less than --end-time-buffer-min ({end_time_buffer_min_s:g} s)."
        )
        return [*stalled, Reason(ExitCode.OVERLAP, early)]
    return stalled


def _stalled(who: str, gaps: tuple[Silence, ...], main: TimedSection) -> Reason:
    """Each gap with when and how long, as far as anybody reads on."""
    told = [
        f"for {(gap.end_utc_ns - gap.begin_utc_ns) / NS_PER_S:.3f} s from "
        f"{(gap.begin_utc_ns - main.begin.utc_ns) / NS_PER_S:.3f} s after main began on (by its {gap.watch.value})"
        for gap in gaps[:_MAX_TOLD]
    ]
    more = f", and {len(gaps) - len(told)} times more" if len(gaps) > len(told) else ""
    sentence = f"{who} stalled within the timed section of main: {', '.join(told)}{more}; see its stdout.log."
    return Reason(ExitCode.OVERLAP, sentence)


def _worst(main: TimedSection | None, backgrounds: tuple[BackgroundOverlap, ...]) -> Overlap:
    return Overlap(
        proven=main is not None and all(background.covered for background in backgrounds),
        coverage=_lowest([background.coverage for background in backgrounds]),
        slack_before_s=_lowest([background.slack_before_s for background in backgrounds]),
        slack_after_s=_lowest([background.slack_after_s for background in backgrounds]),
        backgrounds=backgrounds,
    )


def _lowest(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None
