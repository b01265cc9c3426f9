"""The proof: evidence in, findings out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from heteromig.core.overlap import (
    CertificateSummary,
    Instant,
    MainResult,
    Overlap,
    Silence,
    TimedSection,
    Watch,
    WorkerEvidence,
    certify,
)
from heteromig.core.phases import EvidenceLevel
from heteromig.core.units import NS_PER_MS, NS_PER_S
from tests.core.histories import examples

VALID = MainResult(valid=True, complaints=(), metrics={"samples_per_second": 100.0})
T0 = 1_700_000_000 * NS_PER_S


def section(begin_s: float, end_s: float, unsure_ms: int = 0) -> TimedSection:
    """Seconds after main's begin."""
    begin, end = (
        Instant(utc_ns=T0 + round(at_s * NS_PER_S), uncertainty_ns=unsure_ms * NS_PER_MS, source=source)
        for at_s, source in ((begin_s, "power_begin"), (end_s, "power_end"))
    )
    return TimedSection(begin=begin, end=end)


def evidence(worker: int, timed: TimedSection | None, missing: str = "") -> WorkerEvidence:
    return WorkerEvidence(
        worker=worker, benchmark=f"b{worker}", level=EvidenceLevel.TIMED, section=timed, missing=missing
    )


MAIN = evidence(0, section(0, 10))


def judge(
    *backgrounds: TimedSection | None, main: WorkerEvidence = MAIN, result: MainResult = VALID, slack_s: float = 0.0
) -> CertificateSummary:
    return certify(
        main,
        result,
        tuple(evidence(index, timed, f"log {index} is cut short.") for index, timed in enumerate(backgrounds, start=1)),
        end_time_buffer_min_s=slack_s,
        gap_threshold_s=5.0,
    )


def codes(summary: CertificateSummary) -> list[int]:
    return [reason.exit_code for reason in summary.reasons]


def test_backgrounds_around_main_prove_the_overlap() -> None:
    summary = judge(section(-3, 12), section(-2, 11))
    assert summary.reasons == ()
    assert (summary.main_section, summary.main_result) == (MAIN.section, VALID)
    first, second = summary.overlap.backgrounds
    assert summary.overlap == Overlap(
        proven=True, coverage=1.0, slack_before_s=2.0, slack_after_s=1.0, backgrounds=(first, second)
    )
    assert (first.worker, first.benchmark, first.evidence) == (1, "b1", EvidenceLevel.TIMED)
    assert (first.slack_before_s, first.slack_after_s, first.coverage, first.covered) == (3.0, 2.0, 1.0, True)
    assert (first.begin_utc_ns, first.end_utc_ns) == (T0 - 3 * NS_PER_S, T0 + 12 * NS_PER_S)
    assert (first.begin_source, first.end_source) == ("power_begin", "power_end")


@pytest.mark.parametrize(
    ("timed", "coverage"),
    [
        (section(1, 12), 0.9),
        (section(-1, 5), 0.5),
        (section(2, 4), 0.2),
        (section(20, 30), 0.0),
        (section(-9, -1), 0.0),
    ],
)
def test_a_background_that_leaves_main_alone_proves_nothing(timed: TimedSection, coverage: float) -> None:
    summary = judge(section(-1, 11), timed)
    assert codes(summary) == [4]
    assert "Background 2 (b2) was not timed during the whole timed section of main" in summary.reasons[0].sentence
    assert not summary.overlap.proven
    assert summary.overlap.coverage == pytest.approx(coverage)
    assert summary.overlap.backgrounds[1].covered is False


def test_equal_times_are_an_overlap_when_they_are_certain() -> None:
    assert judge(section(0, 10)).overlap.proven


@pytest.mark.parametrize(
    ("begin_s", "end_s", "covered"),
    [
        (-0.2, 10.2, True),
        (-0.1, 10.1, True),
        (-0.05, 10.2, None),
        (-0.2, 10.05, None),
        (0.1, 10.2, None),
        (-0.2, 9.9, None),
        (0.11, 10.2, False),
        (-0.2, 9.89, False),
        (-0.05, 9.0, False),
    ],
)
def test_within_the_uncertainty_nothing_is_decided(begin_s: float, end_s: float, *, covered: bool | None) -> None:
    """Main and background are each known to within 50 ms, so that 100 ms of slack are needed."""
    summary = judge(section(begin_s, end_s, unsure_ms=50), main=evidence(0, section(0, 10, unsure_ms=50)))
    (background,) = summary.overlap.backgrounds
    assert background.covered is covered
    assert background.uncertainty_s == pytest.approx(0.1)
    assert codes(summary) == {True: [], None: [9], False: [4]}[covered]
    if covered is None:
        assert "is smaller than the uncertainty of 0.1 s" in summary.reasons[0].sentence


def test_each_end_has_an_uncertainty_of_its_own() -> None:
    sharp, vague = section(-0.05, 12, unsure_ms=0), section(-0.05, 12, unsure_ms=100)
    assert judge(TimedSection(begin=sharp.begin, end=vague.end)).overlap.backgrounds[0].covered is True
    assert judge(TimedSection(begin=vague.begin, end=sharp.end)).overlap.backgrounds[0].covered is None
    assert judge(TimedSection(begin=sharp.begin, end=vague.end)).overlap.backgrounds[0].uncertainty_s == 0.1


def test_a_background_without_evidence_is_missed_by_name() -> None:
    summary = judge(section(-1, 11), None)
    assert codes(summary) == [9]
    assert summary.reasons[0].sentence == "Background 2 (b2): log 2 is cut short."
    assert not summary.overlap.proven
    assert summary.overlap.coverage is None, "the worst of an unknown figure is unknown"
    assert summary.overlap.slack_before_s is None
    assert summary.overlap.backgrounds[1].begin_utc_ns is None


def test_a_background_that_cannot_have_been_timed_disproves_the_overlap() -> None:
    never = replace(evidence(1, None, "it never began."), disproven=True)
    summary = certify(MAIN, VALID, (never,), end_time_buffer_min_s=0.0, gap_threshold_s=5.0)
    assert [(reason.exit_code, reason.sentence) for reason in summary.reasons] == [
        (4, "Background 1 (b1): it never began.")
    ]
    assert not summary.overlap.proven


def test_without_the_section_of_main_there_is_nothing_to_compare() -> None:
    summary = judge(section(-1, 11), main=evidence(0, None, "its log has no power_end."))
    assert [(reason.exit_code, reason.sentence) for reason in summary.reasons] == [
        (9, "Main b0: its log has no power_end.")
    ]
    (background,) = summary.overlap.backgrounds
    assert (background.covered, background.coverage, background.slack_before_s) == (None, None, None)
    assert (background.begin_utc_ns, background.end_source) == (T0 - NS_PER_S, "power_end")
    assert not summary.overlap.proven


@pytest.mark.parametrize("end_s", [0.0, -5.0])
def test_a_main_that_ends_before_it_begins_proves_nothing(end_s: float) -> None:
    summary = judge(section(-9, 11), main=evidence(0, section(0, end_s)))
    assert codes(summary) == [9]
    assert "the clock of the host was set back" in summary.reasons[0].sentence
    assert not summary.overlap.proven


def test_without_backgrounds_there_is_nothing_to_prove() -> None:
    summary = judge()
    assert (summary.reasons, summary.overlap.proven) == ((), True)
    assert (summary.overlap.coverage, summary.overlap.slack_after_s) == (None, None)


@pytest.mark.parametrize(("end_s", "enough"), [(15.0, True), (14.999, False), (10.0, False)])
def test_wait_mode_asks_for_slack_after_main(end_s: float, *, enough: bool) -> None:
    summary = judge(section(-1, end_s), slack_s=5.0)
    assert codes(summary) == ([] if enough else [4])
    assert summary.overlap.proven
    if not enough:
        assert "less than --end-time-buffer-min (5 s)" in summary.reasons[0].sentence


@pytest.mark.parametrize(
    ("result", "code", "sentence"),
    [
        (MainResult(valid=False, complaints=("Min duration satisfied: NO", "Too few"), metrics={}), 3,
         "Main b0 is not VALID: Min duration satisfied: NO; Too few."),
        (MainResult(valid=False, complaints=(), metrics={}), 3, "Main b0 is not VALID: LoadGen gave no reason."),
        (MainResult(valid=None, complaints=(), metrics={}), 9,
         "Main b0 has no result: its result is nowhere in its logs."),
        (MainResult(valid=None, complaints=("the summary is empty",), metrics={}), 9,
         "Main b0 has no result: the summary is empty."),
    ],
)  # fmt: skip
def test_the_result_of_main_is_judged_too(result: MainResult, code: int, sentence: str) -> None:
    summary = judge(section(-1, 11), result=result)
    assert [(reason.exit_code, reason.sentence) for reason in summary.reasons] == [(code, sentence)]
    assert summary.overlap.proven


def test_every_complaint_is_made() -> None:
    result = replace(VALID, valid=False)
    assert codes(judge(section(-1, 5), None, section(-1, 11), result=result)) == [3, 4, 9]


def stalls(*pairs: tuple[float, float], watch: Watch = Watch.HEARTBEAT) -> tuple[Silence, ...]:
    return tuple(
        Silence(T0 + round(begin_s * NS_PER_S), T0 + round(end_s * NS_PER_S), watch) for begin_s, end_s in pairs
    )


def stalled(*silences: Silence, timed: TimedSection | None = None, watched: bool = True) -> CertificateSummary:
    """One background around main with these silences, where 2 s are a gap."""
    watches = tuple(Watch) if watched else ()
    background = replace(evidence(1, timed or section(-3, 12)), silences=silences, watched=watches)
    return certify(MAIN, VALID, (background,), end_time_buffer_min_s=0.0, gap_threshold_s=2.0)


def test_a_background_that_stalls_does_not_cover_main_meanwhile() -> None:
    summary = stalled(*stalls((-2, 1), (2, 3.9), (4, 7.5)))
    assert codes(summary) == [4]
    assert summary.reasons[0].sentence == (
        "Background 1 (b1) stalled within the timed section of main: for 3.500 s from 4.000 s after main began on "
        "(by its heartbeat); see its stdout.log."
    )
    (background,) = summary.overlap.backgrounds
    assert background.gaps == stalls((4, 7.5))
    assert background.coverage == pytest.approx(0.65)
    assert (background.covered, summary.overlap.proven, summary.gap_threshold_s) == (False, False, 2.0)


def test_silences_of_several_kinds_are_one_gap_together() -> None:
    silences = (*stalls((1, 2.5)), *stalls((2.25, 4), watch=Watch.DEVICE), *stalls((6, 9), watch=Watch.DEVICE))
    (background,) = stalled(*silences).overlap.backgrounds
    assert background.gaps == (*stalls((1, 4)), *stalls((6, 9), watch=Watch.DEVICE))


def test_a_sentence_does_not_tell_of_every_gap() -> None:
    (reason,) = stalled(*stalls((0, 2.1), (2.2, 4.3), (4.4, 6.5), (6.6, 8.7))).reasons
    assert reason.sentence.count("after main began on") == 3
    assert ", and 1 times more; " in reason.sentence


def test_a_stall_is_told_beside_what_else_is_wrong() -> None:
    assert codes(stalled(*stalls((1, 5)), timed=section(1, 12))) == [4, 4]
    assert codes(stalled(*stalls((1, 5)), timed=section(-1, 10.01, unsure_ms=500))) == [4, 9]
    background = replace(evidence(1, section(-1, 11)), silences=stalls((1, 5)), watched=(Watch.HEARTBEAT,))
    late = certify(MAIN, VALID, (background,), end_time_buffer_min_s=5.0, gap_threshold_s=2.0)
    assert codes(late) == [4, 4]


def test_without_anything_to_show_a_gap_none_is_known() -> None:
    (background,) = stalled(watched=False).overlap.backgrounds
    assert (background.gaps, background.gaps_seen_by, background.covered) == (None, (), True)
    (background,) = stalled().overlap.backgrounds
    assert (background.gaps, background.gaps_seen_by) == ((), tuple(Watch))


def test_each_slack_has_its_own_uncertainty() -> None:
    sharp, vague = section(-1, 12, unsure_ms=10), section(-1, 12, unsure_ms=30)
    (background,) = judge(TimedSection(begin=sharp.begin, end=vague.end)).overlap.backgrounds
    assert (background.begin_uncertainty_s, background.slack_before_uncertainty_s) == (0.01, 0.01)
    assert (background.end_uncertainty_s, background.slack_after_uncertainty_s) == (0.03, 0.03)


SECONDS = st.integers(-20_000, 20_000).map(lambda ms: ms / 1000)
SECTIONS = st.none() | st.builds(section, SECONDS, SECONDS, st.integers(0, 3_000))


@given(
    main=SECTIONS,
    backgrounds=st.lists(SECTIONS, max_size=4),
    slack_s=st.sampled_from([0.0, 1.0]),
    valid=st.sampled_from([True, False, None]),
)
@examples(300)
def test_a_proof_is_a_proof(
    main: TimedSection | None, backgrounds: list[TimedSection | None], slack_s: float, *, valid: bool | None
) -> None:
    summary = judge(
        *backgrounds,
        main=evidence(0, main, "no section."),
        result=MainResult(valid=valid, complaints=(), metrics={}),
        slack_s=slack_s,
    )
    overlap = summary.overlap
    assert len(overlap.backgrounds) == len(backgrounds)
    for found in overlap.backgrounds:
        assert found.coverage is None or 0.0 <= found.coverage <= 1.0
        if found.covered:
            assert found.coverage == 1.0
            assert main is not None
            assert found.begin_utc_ns is not None
            assert found.end_utc_ns is not None
            assert found.begin_utc_ns <= main.begin.utc_ns
            assert found.end_utc_ns >= main.end.utc_ns
        if found.covered is False:
            assert found.coverage is not None
            assert found.slack_before_s is not None
            assert found.slack_after_s is not None
            assert min(found.slack_before_s, found.slack_after_s) < 0
    assert overlap.proven or summary.reasons, "what is not proven has a reason"
    assert overlap.proven == (
        main is not None and main.begin.utc_ns < main.end.utc_ns and all(found.covered for found in overlap.backgrounds)
    )
    assert (3 in codes(summary)) == (valid is False)
    if not summary.reasons:
        assert valid
    if overlap.proven and backgrounds:
        assert overlap.coverage == 1.0
