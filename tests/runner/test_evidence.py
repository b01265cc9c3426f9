"""Evidence out of LoadGen's logs, written here line by line as LoadGen writes them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core.clocks import ClockReading
from heteromig.core.gaps import Idleness, Interval, Silences
from heteromig.core.overlap import BackgroundOverlap, CertificateSummary, MainResult, Watch
from heteromig.core.phases import EvidenceLevel, WorkerState
from heteromig.core.plan import Assignment, make_plan
from heteromig.core.spec import Drain, Mode, RunSpec
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import Harness, harness_of
from heteromig.harnesses.loadgen import LoadgenHarness
from heteromig.logs.loadgen import DETAIL_LOG
from heteromig.runner.evidence import certify_run
from heteromig.runner.journal import SCHEMA_VERSION, Header
from heteromig.runner.recording import TOOL
from tests.core.histories import SPEC, inventory

S = 1_000_000_000
EPOCH_NS = 1_700_000_000 * S
"""Wall clock when the monotonic clock of these runs was 0."""

ONE = replace(SPEC, background=replace(SPEC.background, candidates=("bert",)))


def _stamp(at_s: float) -> str:
    moment = datetime.fromtimestamp(EPOCH_NS / S + at_s, tz=timezone.utc)
    return f"{moment:%m-%d-%Y %H:%M:%S}.{moment.microsecond // 1000:03d}"


def _log(folder: Path, **values: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f":::MLLOG {json.dumps({'key': key, 'value': value, 'time_ms': 1.5})}\n" for key, value in values.items()]
    (folder / "mlperf_log_detail.txt").write_text("".join(lines))
    verdict = values.get("result_validity")
    (folder / "mlperf_log_summary.txt").write_text(f"Result is : {verdict}\n" if verdict else "")


def _timed(begin_s: float, end_s: float, **more: Any) -> dict[str, Any]:
    return {"generated_query_count": 1, "power_begin": _stamp(begin_s), "power_end": _stamp(end_s), **more}


def _clocks(set_by_s: float = 0.0, between: tuple[float, float] = (0, 0)) -> tuple[ClockReading, ...]:
    """Readings of both clocks over a run; the wall clock is set between two of them, where that is asked for."""
    before_s, after_s = between
    moments = sorted({0.0, 10.0, 20.0, 30.0, 60.0, before_s, after_s})
    return tuple(
        ClockReading(round(at_s * S), EPOCH_NS + round((at_s + (set_by_s if at_s >= after_s else 0)) * S))
        for at_s in moments
    )


class Scattering(LoadgenHarness):
    """Its workers leave LoadGen's logs in any number of directories, or none; main is always good."""

    def detail_logs(self, assignment: Assignment, run_dir: Path) -> tuple[Path, ...]:
        return tuple(sorted((run_dir / assignment.directory).rglob(DETAIL_LOG)))

    def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
        del main, spec, run_dir
        return MainResult(valid=True, complaints=(), metrics={})


class Scene:
    """A run of main and one background whose logs a test writes: main from 10 to 20 s, its background around it."""

    def __init__(self, run_dir: Path, spec: RunSpec = ONE, harness: Harness | None = None) -> None:
        self.run_dir = run_dir
        self.spec = spec
        self.harness = harness or harness_of(spec)
        plan = make_plan(spec, inventory(), (0, 1))
        self.main_log = run_dir / plan.main.directory
        self.background_log = run_dir / plan.workers[1].directory
        self.main = WorkerView(
            assignment=plan.main,
            state=WorkerState.EXITED,
            spawned_ns=9 * S,
            timed_ns=10 * S,
            exited_ns=21 * S,
            exit_code=0,
        )
        self.background = WorkerView(
            assignment=plan.workers[1],
            state=WorkerState.EXITED,
            spawned_ns=1 * S,
            announced_ns=2 * S,
            timed_ns=2 * S,
            exited_ns=22 * S,
            exit_code=0,
            stopped_by="clean stop",
        )
        _log(self.main_log, **_timed(10, 20, result_validity="VALID", result_samples_per_second=50.0))
        _log(self.background_log, **_timed(2, 21.5))
        self.leave_out(0)
        self.clocks = _clocks()
        self.unwatched: tuple[Interval, ...] = ()

    def leave_out(self, not_computed: int) -> None:
        (self.main_log / "outcome.json").write_text(json.dumps({"not_computed": not_computed}))

    def certify(self) -> CertificateSummary:
        header = Header(
            schema_version=SCHEMA_VERSION, tool=TOOL, run_id="r", at_ns=0, at_utc_ns=EPOCH_NS, spec=self.spec
        )
        view = View(
            spec=self.spec,
            workers=(self.main, self.background),
            clocks=self.clocks,
            unwatched=self.unwatched,
        )
        return certify_run(self.run_dir, header, view, self.harness)

    def codes(self) -> list[int]:
        return [reason.exit_code for reason in self.certify().reasons]

    def sentences(self) -> str:
        return " ".join(reason.sentence for reason in self.certify().reasons)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_good_logs(scene: Scene) -> None:
    summary = scene.certify()
    assert summary.reasons == ()
    assert summary.overlap.proven
    assert summary.overlap.slack_before_s == pytest.approx(8)
    assert summary.overlap.slack_after_s == pytest.approx(1.5)
    assert summary.main_result.metrics == {"result_samples_per_second": 50.0}


def test_main_that_somebody_stopped_is_not_valid_whatever_loadgen_says(scene: Scene) -> None:
    scene.leave_out(7222)
    assert scene.codes() == [3]
    assert "7222 samples were completed without being computed" in scene.sentences()


@pytest.mark.parametrize("text", [None, "{}", "not JSON"])
def test_main_that_does_not_say_whether_it_was_stopped(scene: Scene, text: str | None) -> None:
    path = scene.main_log / "outcome.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert scene.codes() == [9]
    assert "outcome.json" in scene.sentences()


def test_run_that_never_had_a_plan(tmp_path: Path) -> None:
    header = Header(schema_version=SCHEMA_VERSION, tool=TOOL, run_id="r", at_ns=0, at_utc_ns=0, spec=SPEC)
    summary = certify_run(tmp_path, header, View(spec=SPEC), harness_of(SPEC))
    assert not summary.overlap.proven
    assert {reason.exit_code for reason in summary.reasons} == {9}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"result_invalid_reason": "Min duration not met"}, "is not VALID: Min duration not met."),
        ({"result_min_duration_met": False}, "the run was shorter than min_duration"),
        ({"result_min_queries_met": False}, "there were too few queries"),
        ({"result_perf_constraints_met": False}, "the latency constraint was missed"),
        ({"early_stopping_met": False}, "too few queries were within the latency constraint for early stopping"),
        ({}, "LoadGen gave no reason"),
    ],
)
def test_invalid_main_has_loadgens_reason(scene: Scene, keys: dict[str, Any], words: str) -> None:
    _log(scene.main_log, **_timed(10, 20, result_validity="INVALID", **keys))
    assert scene.codes() == [3]
    assert words in scene.sentences()


def test_valid_main_with_errors_is_not_valid(scene: Scene) -> None:
    _log(scene.main_log, **_timed(10, 20, result_validity="VALID", num_errors=3))
    assert scene.codes() == [3]
    assert "LoadGen reported 3 errors" in scene.sentences()


def test_infinite_figures_are_left_out(scene: Scene) -> None:
    _log(scene.main_log, **_timed(10, 20, result_validity="VALID", result_mean=float("inf"), result_max=float("nan")))
    assert scene.certify().main_result.metrics == {}


def test_main_without_a_result(scene: Scene) -> None:
    _log(scene.main_log, **_timed(10, 20))
    assert scene.codes() == [9]
    assert "has no result_validity" in scene.sentences()


def test_main_whose_logs_contradict_each_other(scene: Scene) -> None:
    (scene.main_log / "mlperf_log_summary.txt").write_text("Result is : INVALID\n")
    assert scene.codes() == [9]
    assert "contradict each other" in scene.sentences()


@pytest.mark.parametrize("name", ["mlperf_log_detail.txt", "mlperf_log_summary.txt"])
def test_log_of_main_that_is_missing(scene: Scene, name: str) -> None:
    (scene.main_log / name).unlink()
    assert set(scene.codes()) == {9}
    assert "cannot be read: No such file" in scene.sentences()


def test_worker_that_was_never_spawned(scene: Scene) -> None:
    scene.background = replace(scene.background, spawned_ns=None, timed_ns=None)
    assert scene.codes() == [4]
    assert "it never ran" in scene.sentences()


@pytest.mark.parametrize(("begin_s", "end_s"), [(-1, 21), (2, 24)])
def test_log_of_another_run(scene: Scene, begin_s: float, end_s: float) -> None:
    _log(scene.background_log, **_timed(begin_s, end_s))
    assert scene.codes() == [9]
    assert "lies outside the life of the worker" in scene.sentences()


def test_log_that_ends_before_it_begins(scene: Scene) -> None:
    _log(scene.background_log, **_timed(21, 2))
    assert scene.codes() == [9]
    assert "mlperf_log_detail.txt ends before it begins" in scene.sentences()


def test_background_too_short(scene: Scene) -> None:
    _log(scene.background_log, **_timed(2, 19))
    assert scene.codes() == [4]


def test_slack_that_wait_mode_asks_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path, replace(ONE, drain=Drain.WAIT))  # asks for 5 s, and there are 1.5 s
    assert scene.codes() == [4]
    assert "less than --end-time-buffer-min" in scene.sentences()


def _kill(scene: Scene, **keys: Any) -> None:
    """The background was stopped by KILL: its log ends in the middle."""
    _log(scene.background_log, **keys)
    scene.background = replace(scene.background, exit_code=None, signal=9, stopped_by="KILL", still_timed_ns=21 * S)


def test_killed_background_was_seen_timed_after_main(scene: Scene) -> None:
    _kill(scene, generated_query_count=1)
    summary = scene.certify()
    assert summary.reasons == ()
    (background,) = summary.overlap.backgrounds
    assert (background.begin_utc_ns, background.end_utc_ns) == (EPOCH_NS + 2 * S, EPOCH_NS + 21 * S)
    assert background.end_source == "alive and still timed"
    assert background.uncertainty_s == pytest.approx(0.102)


def test_killed_background_seen_too_close_to_the_end_decides_nothing(scene: Scene) -> None:
    _kill(scene, generated_query_count=1)
    scene.background = replace(scene.background, still_timed_ns=20 * S + S // 20)
    assert scene.codes() == [9]


def test_killed_background_whose_log_does_not_begin(scene: Scene) -> None:
    _kill(scene)
    assert scene.codes() == [9]
    assert "has no generated_query_count" in scene.sentences()


def test_killed_background_that_had_ended_before(scene: Scene) -> None:
    _kill(scene, generated_query_count=1, logger_swap_request_slots_retry_count=0)
    assert scene.codes() == [9]
    assert "was not seen timed at the end of main" in scene.sentences()


def test_background_that_died_disproves(scene: Scene) -> None:
    _kill(scene, generated_query_count=1)
    scene.background = replace(scene.background, stopped_by=None, still_timed_ns=None)
    assert scene.codes() == [4]


def test_background_that_never_began_disproves(scene: Scene) -> None:
    _kill(scene)
    scene.background = replace(scene.background, timed_ns=None)
    assert scene.codes() == [4]


# --- several logs of one worker ---------------------------------------------------------------------------------------


def _scattered(run_dir: Path, spec: RunSpec = ONE) -> Scene:
    """Workers have no logs yet, live from 1 to 60 s, and were seen to begin as in any other scene."""
    scene = Scene(run_dir, spec, Scattering())
    for folder in (scene.main_log, scene.background_log):
        (folder / DETAIL_LOG).unlink()
    scene.main = replace(scene.main, exited_ns=60 * S)
    scene.background = replace(scene.background, exited_ns=61 * S)
    return scene


def test_main_with_several_loadgen_runs_is_timed_from_the_first_to_the_last(tmp_path: Path) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log / "b", **_timed(10, 20))
    _log(scene.main_log / "c/d", **_timed(40, 50))
    _log(scene.main_log / "a", **_timed(25, 35))
    _log(scene.background_log, **_timed(2, 55))
    summary = scene.certify()
    assert summary.reasons == ()
    assert summary.main_section is not None
    assert (summary.main_section.begin.utc_ns, summary.main_section.end.utc_ns) == (
        EPOCH_NS + 10 * S,
        EPOCH_NS + 50 * S,
    )
    assert summary.overlap.slack_before_s == pytest.approx(8)
    assert summary.overlap.slack_after_s == pytest.approx(5)


@pytest.mark.parametrize(("begin_s", "end_s"), [(22, 55), (2, 45), (22, 38)])
def test_a_background_has_to_cover_every_run_of_main(tmp_path: Path, begin_s: float, end_s: float) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log / "a", **_timed(10, 20))
    _log(scene.main_log / "b", **_timed(40, 50))
    _log(scene.background_log, **_timed(begin_s, end_s))
    assert scene.codes() == [4]


def test_what_lies_between_two_runs_of_a_background_covers_nothing(tmp_path: Path) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log, **_timed(10, 30))
    _log(scene.background_log / "a", **_timed(2, 19))
    _log(scene.background_log / "b", **_timed(20, 55))
    summary = scene.certify()
    assert [reason.exit_code for reason in summary.reasons] == [4]
    assert summary.overlap.coverage == pytest.approx(0.5)


def test_a_background_that_went_on_with_another_run_is_judged_by_the_longest(tmp_path: Path) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log, **_timed(10, 30))
    _log(scene.background_log / "a", **_timed(2, 35))
    _log(scene.background_log / "b", **_timed(36, 40))
    assert scene.codes() == []


def test_one_run_of_main_that_proves_nothing_leaves_all_of_it_unproven(tmp_path: Path) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log / "a", **_timed(10, 20))
    _log(scene.main_log / "b", generated_query_count=1)
    _log(scene.background_log, **_timed(2, 55))
    assert scene.codes() == [9]
    assert "b/mlperf_log_detail.txt has no power_begin and power_end" in scene.sentences()


def test_worker_without_a_log_where_one_is_asked_for(tmp_path: Path) -> None:
    scene = _scattered(tmp_path)
    _log(scene.main_log, **_timed(10, 20))
    assert scene.codes() == [9]
    assert "workers/1-background-bert has no LoadGen log" in scene.sentences()


# --- markers ----------------------------------------------------------------------------------------------------------

BY_MARKERS = replace(ONE, start_evidence=EvidenceLevel.ANNOUNCED)


def _announcing(run_dir: Path, spec: RunSpec = BY_MARKERS) -> Scene:
    """Main's markers are heard at 10 and 20 s, its background's at 5 s; main sees it at work at 20.6 s."""
    scene = _scattered(run_dir, spec)
    scene.main = replace(scene.main, timed_ns=None, announced_ns=10 * S, ended_ns=20 * S, exited_ns=20 * S + S // 2)
    scene.background = replace(
        scene.background,
        timed_ns=None,
        announced_ns=5 * S,
        exited_ns=25 * S,
        exit_code=None,
        signal=15,
        stopped_by="TERM",
        still_timed_ns=20 * S + 6 * S // 10,
    )
    return scene


def _started(folder: Path, at_s: float) -> None:
    """The guardian's record of when the program was started."""
    at_utc_ns = EPOCH_NS + round(at_s * S)
    record: dict[str, Any] = {
        "started_utc_ns": at_utc_ns,
        "ended_utc_ns": at_utc_ns,
        "pid": 5,
        "exit_code": 0,
        "signal": None,
    }
    record |= {"killed_descendants": 0, "stopped_by": None, "utime_s": 0.1, "stime_s": 0.1, "maxrss_bytes": 1}
    (folder / "exit.json").write_text(json.dumps(record | {"wall_s": 1.0}))


def test_markers_prove_where_there_is_no_log(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    summary = scene.certify()
    assert summary.reasons == ()
    assert summary.overlap.proven
    (background,) = summary.overlap.backgrounds
    assert background.evidence is EvidenceLevel.ANNOUNCED
    assert (background.begin_source, background.end_source) == ("start marker", "alive and not finished")
    assert background.end_utc_ns == EPOCH_NS + 20 * S + 6 * S // 10
    assert background.slack_before_s == pytest.approx(5)
    assert background.uncertainty_s == pytest.approx(0.5), "a marker is heard up to half a second late"
    assert summary.main_section is not None
    begin, end = summary.main_section.begin, summary.main_section.end
    assert (begin.source, end.source) == ("start marker", "end marker")
    for instant, heard_s in ((begin, 10), (end, 20)):
        assert instant.utc_ns + instant.uncertainty_ns == EPOCH_NS + heard_s * S, (
            "it was not printed after it was heard"
        )
        assert instant.utc_ns - instant.uncertainty_ns == EPOCH_NS + heard_s * S - S // 2


@pytest.mark.parametrize(
    ("heard_s", "covered"), [(9.4, True), (9.5, True), (9.6, None), (10.0, None), (10.4, None), (10.6, False)]
)
def test_a_start_marker_heard_within_half_a_second_of_mains_decides_nothing(
    tmp_path: Path, heard_s: float, *, covered: bool | None
) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, announced_ns=round(heard_s * S))
    summary = scene.certify()
    assert summary.overlap.backgrounds[0].covered is covered
    assert [reason.exit_code for reason in summary.reasons] == {True: [], None: [9], False: [4]}[covered]


def test_main_prints_nothing_before_it_was_started(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, announced_ns=round(9.7 * S))
    _started(scene.main_log, 9.6)
    assert scene.codes() == [9]
    _started(scene.main_log, 9.8)
    assert scene.codes() == []
    _started(scene.main_log, 11.0)
    assert scene.codes() == []
    section = scene.certify().main_section
    assert section is not None
    assert section.begin.uncertainty_ns == 0, "a clock that was set back makes the bound no later than what was heard"
    assert section.begin.utc_ns == EPOCH_NS + 10 * S
    (scene.main_log / "exit.json").write_text("{}")
    assert scene.codes() == [9], "what is not known is no bound"


@pytest.mark.parametrize(("seen_s", "covered"), [(20.0, True), (20.3, True), (19.9, None), (19.5, None), (19.4, False)])
def test_a_background_seen_at_work_before_the_end_marker_of_main_decides_nothing(
    tmp_path: Path, seen_s: float, *, covered: bool | None
) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, still_timed_ns=round(seen_s * S))
    assert scene.certify().overlap.backgrounds[0].covered is covered


@pytest.mark.parametrize(
    ("changes", "source", "covered"),
    [
        ({"ended_ns": 21 * S}, "end marker", True),
        ({"ended_ns": 20 * S + S // 10}, "end marker", None),
        ({"ended_ns": 20 * S + S // 10, "still_timed_ns": 20 * S}, "end marker", True),
        ({"ended_ns": 19 * S}, "end marker", False),
        ({"exited_ns": 21 * S, "stopped_by": None, "exit_code": 0}, "exit", True),
        ({"exited_ns": 20 * S + S // 10, "stopped_by": None, "exit_code": 0}, "exit", None),
        ({"exited_ns": 19 * S, "stopped_by": None, "exit_code": 0}, "exit", False),
    ],
)
def test_the_end_of_a_background_is_what_was_heard_of_it(
    tmp_path: Path, changes: dict[str, Any], source: str, *, covered: bool | None
) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, still_timed_ns=None)
    scene.background = replace(scene.background, **changes)
    (background,) = scene.certify().overlap.backgrounds
    assert (background.end_source, background.covered) == (source, covered)


def test_main_that_prints_no_end_is_timed_until_it_exits(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    scene.main = replace(scene.main, ended_ns=None)
    section = scene.certify().main_section
    assert section is not None
    assert section.end.source == "exit"
    assert section.end.utc_ns + section.end.uncertainty_ns == EPOCH_NS + 20 * S + S // 2
    assert scene.codes() == []


def test_background_that_was_stopped_unseen_proves_nothing(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, still_timed_ns=None)
    assert scene.codes() == [9]
    assert "it was stopped, and was not seen at work at the end of main" in scene.sentences()


def test_background_that_never_printed_its_marker_disproves(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, announced_ns=None)
    assert scene.codes() == [4]
    assert "it never printed its start marker" in scene.sentences()


def test_background_that_died_before_its_end_was_heard(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    scene.background = replace(scene.background, stopped_by=None, exited_ns=15 * S, still_timed_ns=None)
    assert scene.codes() == [4]


def test_markers_prove_nothing_where_a_log_is_asked_for(tmp_path: Path) -> None:
    assert set(_announcing(tmp_path, ONE).codes()) == {9, 4}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (EvidenceLevel.ANNOUNCED, EvidenceLevel.TIMED),
        (EvidenceLevel.TIMED, EvidenceLevel.TIMED),
        (EvidenceLevel.BUSY, EvidenceLevel.BUSY),
    ],
)
def test_logs_count_more_than_the_markers_that_were_asked_for(
    tmp_path: Path, asked: EvidenceLevel, said: EvidenceLevel
) -> None:
    scene = _announcing(tmp_path, replace(ONE, start_evidence=asked))
    _log(scene.main_log, **_timed(11, 19))
    _log(scene.background_log, **_timed(8, 20))
    summary = scene.certify()
    (background,) = summary.overlap.backgrounds
    assert (background.evidence, background.begin_source, background.end_source) == (said, "power_begin", "power_end")
    assert summary.main_section is not None
    assert summary.main_section.begin.utc_ns == EPOCH_NS + 11 * S
    assert summary.reasons == ()


def test_a_log_of_one_worker_does_not_stand_for_another(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    _log(scene.background_log, **_timed(9, 21))
    summary = scene.certify()
    assert summary.overlap.backgrounds[0].evidence is EvidenceLevel.TIMED
    assert summary.main_section is not None
    assert summary.main_section.begin.source == "start marker"
    assert summary.reasons == ()


def test_a_log_that_shows_no_begin_disproves_the_marker(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    _log(scene.background_log, effective_scenario="Offline")
    assert scene.codes() == [4]
    assert "its timed section never began" in scene.sentences()
    assert scene.certify().overlap.backgrounds[0].evidence is EvidenceLevel.TIMED


def test_a_log_that_shows_a_later_begin_than_the_marker_is_believed(tmp_path: Path) -> None:
    scene = _announcing(tmp_path)
    _log(scene.main_log, **_timed(11, 19))
    _log(scene.background_log, **_timed(12, 21))
    assert scene.codes() == [4]


# --- accuracy ---------------------------------------------------------------------------------------------------------


def _accuracy(tmp_path: Path, content: str | None, **keys: Any) -> Scene:
    scene = Scene(tmp_path, replace(ONE, main=replace(ONE.main, mode=Mode.ACCURACY)))
    _log(scene.main_log, **_timed(10, 20, **keys))
    if content is not None:
        (scene.main_log / "accuracy.json").write_text(content)
    return scene


RESULT = '{"metric": "top1", "value_percent": %s, "target_percent": 99.0, "passed": %s, "samples": 64}'


def test_accuracy_that_passes(tmp_path: Path) -> None:
    scene = _accuracy(tmp_path, RESULT % (99.5, "true"))
    assert scene.codes() == []
    assert scene.certify().main_result.metrics["accuracy_percent"] == 99.5


@pytest.mark.parametrize(("value", "passed"), [(98.4, "false"), (98.4, "true"), (99.5, "false")])
def test_accuracy_that_does_not(tmp_path: Path, value: float, passed: str) -> None:
    scene = _accuracy(tmp_path, RESULT % (value, passed))
    assert scene.codes() == [3]
    assert f"top1 is {value} %, below the target of 99 %" in scene.sentences()


def test_accuracy_with_errors(tmp_path: Path) -> None:
    assert _accuracy(tmp_path, RESULT % (99.5, "true"), num_errors=1).codes() == [3]


@pytest.mark.parametrize(("content", "words"), [(None, "cannot be read"), ("{}", "is not an accuracy result")])
def test_accuracy_that_nobody_knows(tmp_path: Path, content: str | None, words: str) -> None:
    scene = _accuracy(tmp_path, content)
    assert scene.codes() == [9]
    assert words in scene.sentences()


# --- a clock that is set ----------------------------------------------------------------------------------------------


def test_stamps_before_and_after_a_step_of_the_clock_are_put_right(scene: Scene) -> None:
    """An hour forward in the middle of main: the ends of both were stamped an hour later than they were."""
    scene.clocks = _clocks(3600, (15, 15.25))
    _log(scene.main_log, **_timed(10, 3620, result_validity="VALID"))
    _log(scene.background_log, **_timed(2, 3621.5))
    summary = scene.certify()
    assert summary.reasons == ()
    assert summary.overlap.slack_after_s == pytest.approx(1.5, abs=0.001)
    (background,) = summary.overlap.backgrounds
    assert background.end_utc_ns == pytest.approx(EPOCH_NS + 21.5 * S, abs=S // 1000)
    assert summary.clock is not None
    assert (summary.clock.largest_step_s, summary.clock.corrected) == (3600, True)
    assert "was set by +3600.000 s at 2023-11-14T22:13:35.250Z" in summary.clock.remark
    assert "LoadGen's stamps were put right" in summary.clock.remark


def test_a_step_back_over_an_hour_in_which_nothing_was_stamped_is_put_right(scene: Scene) -> None:
    scene.clocks = _clocks(-3600, (22, 22.25))
    assert scene.codes() == []


def test_a_step_back_makes_stamps_ambiguous_that_the_clock_showed_twice(scene: Scene) -> None:
    """Set back at 22 s, once all was over: the ends were stamped with what the clock showed again later."""
    scene.clocks = _clocks(-4, (22, 22.25))
    assert set(scene.codes()) == {9}
    assert "mlperf_log_detail.txt, 2023-11-14T22:13:" in scene.sentences()
    assert "somebody set the clock during the run" in scene.sentences()
    clock = scene.certify().clock
    assert clock is not None
    assert clock.corrected is False
    assert "not every stamp of LoadGen can be put right" in clock.remark


def test_a_step_that_hides_that_a_background_ended_early_is_seen_through(scene: Scene) -> None:
    """It ended 1 s before main, and the clock was set forward by 3 s between the two."""
    scene.clocks = _clocks(3, (19.1, 19.2))
    _log(scene.main_log, **_timed(10, 20 + 3, result_validity="VALID"))
    _log(scene.background_log, **_timed(2, 19))
    assert scene.codes() == [4]
    scene.clocks = _clocks(-3, (19.1, 19.2))  # and the other way round: by the stamps, main ended before it
    _log(scene.main_log, **_timed(10, 17.5, result_validity="VALID"))
    _log(scene.background_log, **_timed(2, 21.5 - 3))
    assert set(scene.codes()) == {9}, "17.5 s was shown twice"


def test_small_steps_are_told_and_cost_certainty(scene: Scene) -> None:
    scene.clocks = _clocks(0.1, (20.2, 20.4))
    _log(scene.main_log, **_timed(10, 20.35, result_validity="VALID"))
    (background,) = scene.certify().overlap.backgrounds
    assert background.slack_after_uncertainty_s == pytest.approx(0.05, abs=0.01)
    assert background.slack_before_uncertainty_s == pytest.approx(0.005, abs=0.001)


def test_a_steady_clock_is_told_as_well(scene: Scene) -> None:
    clock = scene.certify().clock
    assert clock is not None
    assert (clock.readings, clock.drift_s, clock.remark) == (6, 0, "")
    assert (clock.largest_step_s, clock.stepped_at_utc_ns, clock.corrected) == (None, None, None)


# --- gaps -------------------------------------------------------------------------------------------------------------


def _beat(scene: Scene, *at_s: float, stamped: bool = True, completed: list[int] | None = None) -> None:
    counts = completed or [10 * (number + 1) for number in range(len(at_s))]
    lines = [
        f"heartbeat: completed={count} samples_per_second=10.0{f' monotonic_s={moment:.3f}' if stamped else ''}\n"
        for moment, count in zip(at_s, counts, strict=True)
    ]
    (scene.background_log / "stdout.log").write_text("".join(["Starting running actual test.\n", *lines]))


def _background(scene: Scene) -> BackgroundOverlap:
    (background,) = scene.certify().overlap.backgrounds
    return background


STEADILY = [float(second) for second in range(3, 22)]


def test_a_background_that_beats_steadily_has_no_gap(scene: Scene) -> None:
    _beat(scene, *STEADILY)
    assert scene.codes() == []
    found = _background(scene)
    assert (found.gaps, found.gaps_seen_by, found.coverage) == ((), (Watch.HEARTBEAT,), 1.0)


def test_a_background_that_stalls_does_not_cover_main_then(scene: Scene) -> None:
    _beat(scene, *(second for second in STEADILY if not 12 < second < 18.5))
    assert scene.codes() == [4]
    found = _background(scene)
    assert found.gaps is not None
    (gap,) = found.gaps
    assert (gap.begin_utc_ns, gap.end_utc_ns) == (EPOCH_NS + 12 * S, EPOCH_NS + 19 * S)
    assert found.coverage == pytest.approx(0.3)
    assert found.covered is False
    assert "Background 1 (bert) stalled within the timed section of main: for 7.000 s from 2.000 s" in scene.sentences()


def test_heartbeats_without_new_completions_are_a_stall(scene: Scene) -> None:
    stuck = [30 if 12 <= second <= 18 else 10 * round(second) for second in STEADILY]
    _beat(scene, *STEADILY, completed=stuck)
    assert scene.codes() == [4]


def test_silence_that_is_short_inside_main_is_no_gap_however_long_it_is_in_all(scene: Scene) -> None:
    _beat(scene, *(second for second in STEADILY if not 3 < second < 14))
    assert scene.codes() == []


def test_a_stall_that_goes_on_to_the_end_of_main_ends_there(scene: Scene) -> None:
    _beat(scene, *(second for second in STEADILY if second < 14.5))
    found = _background(scene)
    assert found.gaps is not None
    assert [(gap.end_utc_ns - gap.begin_utc_ns) / S for gap in found.gaps] == pytest.approx([6], abs=0.001)


def test_a_background_that_completes_nothing_at_first_is_silent_from_its_begin_on(scene: Scene) -> None:
    _beat(scene, 19.0, 20.5)
    assert _background(scene).coverage == pytest.approx(0.1)


def test_the_threshold_is_the_users(tmp_path: Path) -> None:
    scene = Scene(tmp_path, replace(ONE, timing=replace(ONE.timing, gap_threshold_ms=8_000)))
    _beat(scene, *(second for second in STEADILY if not 12 < second < 18.5))
    assert scene.codes() == []
    assert scene.certify().gap_threshold_s == 8


def test_without_heartbeat_and_activity_gaps_are_not_observed(scene: Scene) -> None:
    scene.spec = replace(scene.spec, harness="make")
    found = _background(scene)
    assert (found.gaps, found.gaps_seen_by, found.covered) == (None, (), True)


def test_who_would_say_what_it_completes_and_says_nothing_was_silent_all_the_time(scene: Scene) -> None:
    scene.background = replace(scene.background, heard=Silences(2 * S))
    assert scene.codes() == [4]
    found = _background(scene)
    assert (found.covered, found.coverage, found.gaps_seen_by) == (False, 0.0, (Watch.HEARD_HEARTBEAT,))


def _heard(scene: Scene, *at_s: float) -> None:
    """Heartbeats that say no time, as the controller heard them."""
    _beat(scene, *at_s, stamped=False)
    fold = Silences(2 * S)
    for moment in at_s:
        fold = fold.broken(round(moment * S), uncertainty_ns=S // 2)
    scene.background = replace(scene.background, heard=fold, progress_ns=round(at_s[-1] * S))


def test_heartbeats_without_a_stamp_are_judged_by_when_they_were_heard(scene: Scene) -> None:
    _heard(scene, *STEADILY)
    assert _background(scene).gaps_seen_by == (Watch.HEARD_HEARTBEAT,)
    assert scene.codes() == []
    _heard(scene, *(second for second in STEADILY if not 12 < second < 18.5))
    assert scene.codes() == [4]
    assert "for 6.500 s from 2.000 s after main began on (by its heartbeat as heard)" in scene.sentences()


def test_what_nobody_listened_to_is_no_silence(scene: Scene) -> None:
    _heard(scene, *(second for second in STEADILY if not 12 < second < 18.5))
    scene.unwatched = (Interval(13 * S, 19 * S),)
    assert scene.codes() == []


def test_a_controller_that_did_not_listen_makes_no_gap_of_stamped_heartbeats(scene: Scene) -> None:
    _heard(scene, *(second for second in STEADILY if not 12 < second < 18.5))
    _beat(scene, *STEADILY)
    assert scene.codes() == []


@pytest.mark.parametrize("factor", [1_000_000.0, 0.0])
def test_stamps_of_another_clock_are_none(scene: Scene, factor: float) -> None:
    _heard(scene, *STEADILY)
    _beat(scene, *(second * factor for second in STEADILY))
    scene.background = replace(scene.background, spawned_ns=2 * S)
    assert _background(scene).gaps_seen_by == (Watch.HEARD_HEARTBEAT,)


def test_output_that_is_lost_leaves_what_was_heard(scene: Scene) -> None:
    _heard(scene, *STEADILY)
    (scene.background_log / "stdout.log").unlink()
    assert _background(scene).gaps_seen_by == (Watch.HEARD_HEARTBEAT,)
    (scene.background_log / "stdout.log").mkdir()
    assert _background(scene).gaps_seen_by == (Watch.HEARD_HEARTBEAT,)


def test_a_device_that_shows_no_work_shows_a_gap(scene: Scene) -> None:
    scene.spec = replace(scene.spec, harness="make")
    idle = (Interval(3 * S, 4 * S), Interval(11 * S, 17 * S))
    scene.background = replace(scene.background, idleness=Idleness(worked=True, found=idle))
    assert scene.codes() == [4]
    assert "(by its device activity)" in scene.sentences()
    found = _background(scene)
    assert found.gaps_seen_by == (Watch.DEVICE,)
    assert found.coverage == pytest.approx(0.4)
    scene.background = replace(scene.background, idleness=Idleness(worked=False, found=idle))
    assert _background(scene).gaps is None, "a device that never showed its work"


def test_figures_that_are_no_numbers_are_left_out_whatever_the_harness(tmp_path: Path) -> None:
    class Dividing(Scattering):
        def result(self, main: Assignment, spec: RunSpec, run_dir: Path) -> MainResult:
            del main, spec, run_dir
            return MainResult(valid=True, complaints=(), metrics={"a": float("nan"), "b": float("-inf"), "c": 1.0})

    assert Scene(tmp_path, harness=Dividing()).certify().main_result.metrics == {"c": 1.0}
