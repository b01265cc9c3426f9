"""The proof: was every background timed during the whole timed section of main?

Times are UTC nanoseconds, because LoadGen stamps its timed section with the wall clock of the host. Evidence in,
findings out; reading the files is the runner's business.
"""

from __future__ import annotations

from msgspec import Struct

from heteromig.core.phases import EvidenceLevel
from heteromig.core.units import NS_PER_S, UtcNs
from heteromig.core.verdict import ExitCode, Reason


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


class WorkerEvidence(Struct, frozen=True):
    """What the files of one worker say.

    `missing` is the sentence to print where `section` is None; `disproven` says that there cannot be one, because the
    worker never began or died.
    """

    worker: int
    benchmark: str
    level: EvidenceLevel
    section: TimedSection | None
    missing: str = ""
    disproven: bool = False


class MainResult(Struct, frozen=True):
    """What main's own files say of its result.

    `valid` is None where they do not say. `complaints` are LoadGen's own sentences, or the accuracy's.
    `metrics` are LoadGen's figures under LoadGen's names.
    """

    valid: bool | None
    complaints: tuple[str, ...]
    metrics: dict[str, float]


class BackgroundOverlap(Struct, frozen=True):
    """One background against main. Seconds; `covered` is None where the evidence does not decide."""

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


class Overlap(Struct, frozen=True):
    """All backgrounds against main; the figures are those of the worst background."""

    proven: bool
    coverage: float | None
    slack_before_s: float | None
    slack_after_s: float | None
    backgrounds: tuple[BackgroundOverlap, ...]


class CertificateSummary(Struct, frozen=True):
    """What validating found, apart from what the run itself had noticed."""

    overlap: Overlap
    main_section: TimedSection | None
    main_result: MainResult
    reasons: tuple[Reason, ...]


def certify(
    main: WorkerEvidence,
    result: MainResult,
    backgrounds: tuple[WorkerEvidence, ...],
    *,
    end_time_buffer_min_s: float,
) -> CertificateSummary:
    """Judge the evidence; `end_time_buffer_min_s` is the slack after main that `wait` mode asks for, else 0."""
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
    compared = tuple(_compare(section, background) for background in backgrounds)
    for background, evidence in zip(compared, backgrounds, strict=True):
        reasons.extend(_complaints(background, evidence, end_time_buffer_min_s))
    return CertificateSummary(
        overlap=_worst(section, compared),
        main_section=main.section,
        main_result=result,
        reasons=tuple(reasons),
    )


def _compare(main: TimedSection | None, background: WorkerEvidence) -> BackgroundOverlap:
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
        )
    before_ns = main.begin.utc_ns - section.begin.utc_ns
    after_ns = section.end.utc_ns - main.end.utc_ns
    before_unsure_ns = main.begin.uncertainty_ns + section.begin.uncertainty_ns
    after_unsure_ns = main.end.uncertainty_ns + section.end.uncertainty_ns
    inside_ns = min(section.end.utc_ns, main.end.utc_ns) - max(section.begin.utc_ns, main.begin.utc_ns)
    length_ns = main.end.utc_ns - main.begin.utc_ns
    covered: bool | None = None
    if before_ns >= before_unsure_ns and after_ns >= after_unsure_ns:
        covered = True
    elif before_ns < -before_unsure_ns or after_ns < -after_unsure_ns:
        covered = False
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
        coverage=max(0.0, inside_ns / length_ns),
        covered=covered,
    )


def _complaints(background: BackgroundOverlap, evidence: WorkerEvidence, end_time_buffer_min_s: float) -> list[Reason]:
    who = f"Background {background.worker} ({background.benchmark})"
    if evidence.section is None:
        code = ExitCode.OVERLAP if evidence.disproven else ExitCode.INCONCLUSIVE
        return [Reason(code, f"{who}: {evidence.missing}")]
    if background.slack_before_s is None or background.slack_after_s is None:
        return []  # main has no timed section, which is said once
    slack = f"slack {background.slack_before_s:+.3f} s before and {background.slack_after_s:+.3f} s after main"
    if background.covered is None:
        return [
            Reason(
                ExitCode.INCONCLUSIVE,
                f"{who}: {slack} is smaller than the uncertainty of {background.uncertainty_s} s.",
            )
        ]
    if not background.covered:
        return [Reason(ExitCode.OVERLAP, f"{who} was not timed during the whole timed section of main: {slack}.")]
    if background.slack_after_s < end_time_buffer_min_s:
        return [
            Reason(
                ExitCode.OVERLAP,
                f"{who} ended {background.slack_after_s:.3f} s after main, "
                f"less than --end-time-buffer-min ({end_time_buffer_min_s:g} s).",
            )
        ]
    return []


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
