"""Evidence out of LoadGen's logs, written here line by line as LoadGen writes them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from heteromig.core.overlap import CertificateSummary
from heteromig.core.phases import WorkerState
from heteromig.core.plan import make_plan
from heteromig.core.spec import Drain, Mode, RunSpec
from heteromig.core.view import View, WorkerView
from heteromig.harnesses import harness_of
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


class Scene:
    """A run of main and one background whose logs a test writes: main from 10 to 20 s, its background around it."""

    def __init__(self, run_dir: Path, spec: RunSpec = ONE) -> None:
        self.run_dir = run_dir
        self.spec = spec
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

    def leave_out(self, not_computed: int) -> None:
        (self.main_log / "outcome.json").write_text(json.dumps({"not_computed": not_computed}))

    def certify(self) -> CertificateSummary:
        header = Header(
            schema_version=SCHEMA_VERSION, tool=TOOL, run_id="r", at_ns=0, at_utc_ns=EPOCH_NS, spec=self.spec
        )
        view = View(spec=self.spec, workers=(self.main, self.background))
        return certify_run(self.run_dir, header, view, harness_of(self.spec))

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
    scene.background = replace(
        scene.background, exit_code=None, signal=9, stopped_by="KILL", still_timed_utc_ns=EPOCH_NS + 21 * S
    )


def test_killed_background_was_seen_timed_after_main(scene: Scene) -> None:
    _kill(scene, generated_query_count=1)
    summary = scene.certify()
    assert summary.reasons == ()
    (background,) = summary.overlap.backgrounds
    assert (background.begin_utc_ns, background.end_utc_ns) == (EPOCH_NS + 2 * S, EPOCH_NS + 21 * S)
    assert background.end_source == "alive and still timed"
    assert background.uncertainty_s == pytest.approx(0.101)


def test_killed_background_seen_too_close_to_the_end_decides_nothing(scene: Scene) -> None:
    _kill(scene, generated_query_count=1)
    scene.background = replace(scene.background, still_timed_utc_ns=EPOCH_NS + 20 * S + S // 20)
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
    scene.background = replace(scene.background, stopped_by=None, still_timed_utc_ns=None)
    assert scene.codes() == [4]


def test_background_that_never_began_disproves(scene: Scene) -> None:
    _kill(scene)
    scene.background = replace(scene.background, timed_ns=None)
    assert scene.codes() == [4]


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
